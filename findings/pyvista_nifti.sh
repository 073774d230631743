#!/usr/bin/env bash
# pyvista 0.49.1 (vtk 9.7.2): of a NIfTI come stored numbers instead of HU, and its first voxel lies at (0, 0, 0).
#
# Guess: pyvista.read gives a CT's HU at its place in millimetres, whichever of its formats it is in.
# Seen: scl_slope and scl_inter are not applied: with an intercept of -1024 water is 1024 and air 24. Origin and directions are
#       left out: a mask as .mha, which pyvista puts where it belongs, lies 300 mm away from its CT as .nii, and flipped
#       against it. The spacing is right. No word of it; vtkNIFTIImageReader has both for those who ask.
#       SimpleITK 2.5.7 and nibabel 5.4.2 agree on HU and place. Upstream, open, of the place: pyvista/pyvista#3805, #5071.
# Behind it here: ctpatch/images/volume_header.py takes slope, intercept and both forms of the place, or refuses.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    pyvista==0.49.1 vtk==9.7.2 nibabel==5.4.2 SimpleITK==2.5.7 numpy==2.4.6 2>/dev/null

cat > "$folder/place.py" <<'PY'
import sys
import warnings

warnings.simplefilter("ignore")
import nibabel as nib
import numpy as np
import pyvista as pv
import SimpleITK as sitk
import vtk

folder = sys.argv[1]
print("pyvista", pv.__version__, "vtk", vtk.vtkVersion.GetVTKVersion())
stored = np.full((9, 8, 7), 24, np.int16)
stored[2, 3, 4] = 1064  # a lesion of one voxel, 40 HU
affine = np.diag([0.7, 0.7, 2.5, 1.0])
affine[:3, 3] = -150, -120, -300
image = nib.Nifti1Image(stored, affine)
image.header.set_slope_inter(1, -1024)
image.set_qform(affine, 1)
image.to_filename(f"{folder}/ct.nii")
ct = sitk.ReadImage(f"{folder}/ct.nii")
assert np.array_equal(nib.load(f"{folder}/ct.nii").get_fdata(), sitk.GetArrayFromImage(ct).T)
plain = sitk.GetImageFromArray(sitk.GetArrayFromImage(ct))
plain.CopyInformation(ct)
sitk.WriteImage(plain, f"{folder}/ct.mha")
right = np.array(ct.TransformIndexToPhysicalPoint((2, 3, 4)))
found = {}
for name in ("ct.mha", "ct.nii"):
    volume = pv.read(f"{folder}/{name}")
    values = np.ravel(volume.active_scalars)
    brightest = int(values.argmax())
    found[name] = values[brightest], values.min(), np.array(volume.points[brightest])
    print(f"{name}: lesion {values[brightest]:g}, air {values.min():g}, lesion at {found[name][2].round(1).tolist()} mm LPS,",
          f"should be 40, -1000 and {right.round(1).tolist()}; spacing {np.round(volume.spacing, 3).tolist()}")  # fmt: skip
    assert np.allclose(volume.spacing, (0.7, 0.7, 2.5))
assert found["ct.mha"][:2] == (40, -1000) and np.allclose(found["ct.mha"][2], right, atol=1e-3)
assert found["ct.nii"][:2] == (1064, 24) and np.allclose(found["ct.nii"][2], (1.4, 2.1, 10), atol=1e-3)
PY
"$folder/venv/bin/python" "$folder/place.py" "$folder" 2>/dev/null
