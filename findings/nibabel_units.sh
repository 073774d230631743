#!/usr/bin/env bash
# nibabel 5.4.2: an affine is in the unit that the header names, not in mm; SimpleITK's is in mm.
#
# Guess: `image.affine` leads to millimetres of scanner space whatever the file's unit, as nibabel's manual speaks of it.
# Seen: of a NIfTI in metres (or microns), which nifti1.h allows, affine and zooms are the numbers in the file: a factor
#       of 1000 from what SimpleITK returns for the same file. Neither says a word.
# Behind it here: ctpatch/images/volume_header.py refuses units other than mm.
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

path, found = pathlib.Path(sys.argv[1], "ct.nii"), {}
for unit, size in (("mm", 2.5), ("meter", 0.0025)):
    image = nib.Nifti1Image(np.zeros((3, 4, 5), np.int16), np.diag([-size, -size, size, 1]))
    image.header.set_xyzt_units(unit)
    nib.save(image, path)
    found[unit] = float(nib.load(path).affine[2, 2]), sitk.ReadImage(path).GetSpacing()[2]
print("nibabel", nib.__version__, "and SimpleITK on voxels of 2.5 mm:", {unit: np.round(two, 6) for unit, two in found.items()})
assert np.allclose(found["mm"], 2.5) and np.allclose(found["meter"], (0.0025, 2.5))
PY
"$folder/venv/bin/python" "$folder/read.py" "$folder"
