#!/usr/bin/env bash
# SimpleITK 2.5.7: a number beside an image is first made a pixel: ct / 2.5 is ct / 2, and no voxel of a mask is below 0.5.
#
# Guess: arithmetic is done in the image's type, so that fractions are cut off the result; comparisons are with the number
#        as it stands; what does not fit the type is refused.
# Seen: the number is cast to the image's pixel type before anything else. Of a CT in int16, ct * 0.5 is 0 everywhere,
#       ct * 1.9 is ct, ct / 2.5 is ct / 2 (in float64!), ct / 0.5 is infinite; ct > -0.5 leaves out water, and ct < 100000
#       no voxel is (100000 is -31072 there). Of a mask in uint8, mask < 0.5 and mask < 256 are empty, mask >= 0.5 is all of
#       it, mask == 257 is where it is 1, and mask * -1000 is 24. No word of it. Of float32 images all are right.
#       Upstream: SimpleITK/SimpleITK#2728.
# Behind it here: _as_itk_reads in ctpatch/images/volume_header.py asks SimpleITK for headers alone; voxels are numpy's.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check SimpleITK==2.5.7 numpy==2.2.6 2>/dev/null

cat > "$folder/constants.py" <<'PY'
import numpy as np
import SimpleITK as sitk

hu = np.array([[-1000, -3, 0, 1, 400]], np.int16)
labels = np.array([[0, 0, 1, 1, 2]], np.uint8)
told = {
    "ct * 0.5": [0, 0, 0, 0, 0],
    "ct * 1.9": [-1000, -3, 0, 1, 400],
    "ct + 0.7": [-1000, -3, 0, 1, 400],
    "ct / 2.5": [-500, -1.5, 0, 0.5, 200],
    "ct / 0.5": [-np.inf, -np.inf, np.nan, np.inf, np.inf],
    "ct > -0.5": [0, 0, 0, 1, 1],
    "ct < 100000": [0, 0, 0, 0, 0],
    "mask < 0.5": [0, 0, 0, 0, 0],
    "mask >= 0.5": [1, 1, 1, 1, 1],
    "mask < 256": [0, 0, 0, 0, 0],
    "mask == 257": [0, 0, 1, 1, 0],
    "mask * -1000": [0, 0, 24, 24, 48],
}
print("SimpleITK", sitk.Version.VersionString(), "ct:", hu[0].tolist(), "mask:", labels[0].tolist())
images = {"ct": sitk.GetImageFromArray(hu), "mask": sitk.GetImageFromArray(labels)}
floats = {name: sitk.Cast(image, sitk.sitkFloat32) for name, image in images.items()}
arrays = {"ct": hu.astype(float), "mask": labels.astype(float)}
for sum_, seen in told.items():
    found, right = sitk.GetArrayFromImage(eval(sum_, images))[0], eval(sum_, arrays)[0].astype(float)
    print(f"{sum_:12} {found.dtype!s:7} {found.tolist()}, should be {right.round(2).tolist()}")
    assert np.array_equal(found, seen, equal_nan=True) and not np.array_equal(found, right)
    assert np.allclose(sitk.GetArrayFromImage(eval(sum_, floats))[0], right)
PY
"$folder/venv/bin/python" "$folder/constants.py"
