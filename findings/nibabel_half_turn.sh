#!/usr/bin/env bash
# nibabel 5.4.2: a qform that is nearly half a turn is read as half a turn, 0.66 mm off at the corner of a CT slice.
#
# Guess: an affine that nibabel writes as a qform it reads again to float32's rounding.
# Seen: the axes of nearly every CT are half a turn from NIfTI's (LPS against RAS). Turned by another 0.03 to 0.07
#       degrees they come back unturned: nibabel takes a quaternion's w for 0 where w*w < 3.6e-7, nifti1_io.c (and so
#       SimpleITK) where it is < 1e-7. At 0.1 degrees both are right.
# Behind it here: HALF_TURN in ctpatch/images/volume_header.py.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    SimpleITK==2.5.7 nibabel==5.4.2 numpy==2.2.6 2>/dev/null

cat > "$folder/read.py" <<'PY'
import pathlib, sys
import nibabel as nib
import numpy as np
import SimpleITK as sitk

def off(degrees):
    """How far nibabel and SimpleITK place voxel (511, 511, 0) from where it was written."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    affine = np.diag([0.75, 0.75, 2.5, 1.0])
    affine[:3, :3] = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ np.diag([-0.75, -0.75, 2.5])
    image = nib.Nifti1Image(np.zeros((512, 512, 2), np.int16), affine)
    image.set_qform(affine, code=1)
    image.set_sform(None, code=0)
    nib.save(image, path := pathlib.Path(sys.argv[1], "ct.nii"))
    truth = (affine @ [511, 511, 0, 1])[:3]
    by_itk = np.array(sitk.ReadImage(path).TransformIndexToPhysicalPoint((511, 511, 0))) * [-1, -1, 1]
    return np.linalg.norm((nib.load(path).affine @ [511, 511, 0, 1])[:3] - truth), np.linalg.norm(by_itk - truth)

near, far = off(0.07), off(0.1)
print("nibabel", nib.__version__, "and SimpleITK are off by (mm):", *(f"{mm:.2f}" for mm in near), "at 0.07 degrees,",
      *(f"{mm:.2f}" for mm in far), "at 0.1")
assert near[0] > 0.5 and near[1] < 0.1 and max(far) < 0.1
PY
"$folder/venv/bin/python" "$folder/read.py" "$folder"
