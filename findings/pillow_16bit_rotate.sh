#!/usr/bin/env bash
# Pillow 13.0.0: a CT in a 16-bit PNG, rotated with BILINEAR or BICUBIC, comes out as bytes: soft tissue at -32,600 HU.
#
# Guess: mode I;16 is rotated as the others are, or refused as GaussianBlur and reduce refuse it.
# Seen: rotate and transform take the two bytes of each pixel for two pixels of 8 bits: of a slice that holds HU + 32768, as
#       DeepLesion's PNGs do, no pixel is above 255 afterwards, whatever it was. Size and mode are right, and there is no word
#       of it. NEAREST, quarter turns, resize, and the same slice converted to mode F are right. ImageStat takes the mean
#       of the bytes: 84 where all pixels are 32808. Upstream, closed: python-pillow/Pillow#1127.
# Behind it here: patches are interpolated from HU by ctpatch/patches/sample.py; Pillow only writes finished RGB pictures.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check pillow==13.0.0 numpy==2.4.6 2>/dev/null

cat > "$folder/rotate.py" <<'PY'
import sys
import numpy as np
import PIL
from PIL import Image, ImageStat
from PIL.Image import Resampling, Transform

path = f"{sys.argv[1]}/slice.png"
hu = np.full((64, 64), -100)
hu[20:44, 20:44] = 40
Image.fromarray((hu + 32768).astype(np.uint16)).save(path)
image = Image.open(path)
print("Pillow", PIL.__version__, "mode", image.mode)


def middle(picture):  # far from all edges the slice is 40 HU, however it is turned by a few degrees
    return np.asarray(picture, np.float64)[28:36, 28:36] - 32768


half = {"size": (64, 64), "method": Transform.AFFINE, "data": (1, 0, 0.5, 0, 1, 0)}
for name, picture, right in (
    ("rotate(5)", image.rotate(5), True),
    ("rotate(90, BILINEAR)", image.rotate(90, Resampling.BILINEAR), True),
    ("resize((64, 64), BILINEAR, box)", image.resize((64, 64), Resampling.BILINEAR, (0.5, 0, 64, 64)), True),
    ('convert("F").rotate(5, BILINEAR)', image.convert("F").rotate(5, Resampling.BILINEAR), True),
    ("rotate(5, BILINEAR)", image.rotate(5, Resampling.BILINEAR), False),
    ("rotate(5, BICUBIC)", image.rotate(5, Resampling.BICUBIC), False),
    ("transform by half a pixel, BILINEAR", image.transform(resample=Resampling.BILINEAR, **half), False),
):
    found = middle(picture)
    print(f"{name}: {picture.mode} {picture.size}, {found.min():g} to {found.max():g} HU, should be 40")
    assert picture.size == image.size
    assert np.allclose(found, 40, atol=0.01) if right else picture.mode == "I;16" and np.asarray(picture).max() < 256
flat = ImageStat.Stat(Image.fromarray(np.full((8, 8), 32808, np.uint16))).mean
print("mean of pixels that are all 32808:", flat)
assert flat == [84]
PY
"$folder/venv/bin/python" "$folder/rotate.py" "$folder"
