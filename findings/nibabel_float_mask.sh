#!/usr/bin/env bash
# nibabel 5.4.2: a mask of 0 and 1, saved as float with its CT's header, shows 0 and 1 and is empty as uint8.
#
# Guess: whole numbers within int16 come back as they were, whatever array they were saved from.
# Seen: floats are stretched over the whole range of the header's dtype, here int16, and scl_slope, a float32, brings them
#       back nearly: 1 is 0.99999999…, which prints as 1. and becomes 0 with astype(np.uint8): no lesion left. SimpleITK
#       2.5.7 computes in float32 and has 1. Of labels 0, 1, 2, 3, 7 those within come back a little lower, and as whole
#       numbers are 0, 0, 1, 2, 6, with SimpleITK 0, 0, 1, 2, 7. The same mask as uint8 comes back as it was.
#       No word of it. Upstream, closed: nipy/nibabel#1069; open: nipy/nibabel#1001.
# Behind it here: LABEL_TOLERANCE and _where in ctpatch/contours/labelmap.py, which round or refuse.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    nibabel==5.4.2 SimpleITK==2.5.7 numpy==2.2.6 2>/dev/null

cat > "$folder/mask.py" <<'PY'
import pathlib, sys
import nibabel as nib
import numpy as np
import SimpleITK as sitk

folder = pathlib.Path(sys.argv[1])
nib.save(nib.Nifti1Image(np.full((8, 7, 6), -1000, np.int16), np.diag([-1, -1, 2.5, 1])), folder / "ct.nii")
ct = nib.load(folder / "ct.nii")

def again(values, dtype):
    """A label map with these values in it, saved with the CT's header: as nibabel and SimpleITK have it as uint8."""
    labels = np.zeros(ct.shape, dtype)
    labels[2, 2, : len(values)] = values
    nib.save(nib.Nifti1Image(labels, ct.affine, ct.header), folder / "mask.nii")
    found = nib.load(folder / "mask.nii").get_fdata()[2, 2, : len(values)]
    by_itk = sitk.GetArrayFromImage(sitk.Cast(sitk.ReadImage(folder / "mask.nii"), sitk.sitkUInt8))[: len(values), 2, 2]
    whole = found.astype(np.uint8)
    print(f"{np.dtype(dtype).name:8} {values}: read {found}, off by {abs(found - values).max():.1g};",
          f"as uint8 {whole.tolist()}, with SimpleITK {by_itk.tolist()}")  # fmt: skip
    return whole.tolist(), by_itk.tolist()

print("nibabel", nib.__version__, "SimpleITK", sitk.Version.VersionString())
one, several = [0, 1], [0, 1, 2, 3, 7]
assert again(one, np.float64) == ([0, 0], one)
assert again(several, np.float64) == ([0, 0, 1, 2, 6], [0, 0, 1, 2, 7])
assert again(several, np.uint8) == (several, several)
PY
"$folder/venv/bin/python" "$folder/mask.py" "$folder"
