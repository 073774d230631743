#!/usr/bin/env bash
# SimpleITK 2.5.7 on NIfTI: a sheared sform becomes the qform, and a slope of 0 adds the intercept.
#
# Guess: where qform and sform are set the sform is read, as sform_code 1 says, or the file is refused; and nifti1.h's
#        "if scl_slope is 0, the data is not scaled" means that scl_inter is not added either.
# Seen: a tilted CT (gantry tilt, kept as shear in the sform and left out of the qform, which cannot hold it) lies up to
#       1.3 mm off within five slices, with no word; nibabel places it right. With scl_slope 0 and scl_inter -1024 all
#       voxels are 1024 lower than stored. With the sform alone the same file is refused, rightly.
# Behind it here: ctpatch/images/volume_header.py reads NIfTI with nibabel, and both forms must agree.
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

path = pathlib.Path(sys.argv[1], "ct.nii")
voxels = np.arange(7 * 6 * 5, dtype=np.int16).reshape(7, 6, 5)
tilted = np.array([[-0.75, 0, 0, 101.5], [0, -1.25, -0.6, -34.25], [0, 0, 2.5, -512], [0, 0, 0, 1]])
image = nib.Nifti1Image(voxels, tilted)
image.set_sform(tilted, code=1)
image.set_qform(tilted, code=1, strip_shears=True)
nib.save(image, path)
last = np.diag([-1, -1, 1]) @ (tilted @ [6, 5, 4, 1])[:3]  # in LPS, as ITK has it
assert np.allclose(nib.load(path).affine, tilted)
off = np.linalg.norm(sitk.ReadImage(path).TransformIndexToPhysicalPoint((6, 5, 4)) - last)

nib.save(nib.Nifti1Image(voxels, np.diag([-0.75, -1.25, 2.5, 1])), path)
raw = bytearray(path.read_bytes())
raw[112:120] = np.array([0, -1024], "<f4").tobytes()  # scl_slope, scl_inter
path.write_bytes(raw)
assert np.array_equal(nib.load(path).get_fdata(), voxels)
added = sitk.GetArrayFromImage(sitk.ReadImage(path)).min() - voxels.min()
print(f"SimpleITK {sitk.Version.VersionString()}: last voxel {off:.2f} mm off; {added:g} added where the slope is 0")
assert off > 1 and added == -1024
PY
"$folder/venv/bin/python" "$folder/read.py" "$folder"
