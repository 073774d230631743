#!/usr/bin/env bash
# scipy 1.17.1: the gradient magnitude of a CT in int16 is small where its edges are steep: the squares overflow.
#
# Guess: the result is int16, as the input is ("by default an array of the same dtype as input"), so it is a whole number, at
#        most one off; so is a smoothed CT, half of them up and half of them down.
# Seen: each axis's derivative is squared within int16, where 182 * 182 no longer fits. At the edge of a lesion of 50 HU in
#       lung gaussian_gradient_magnitude gives at most 176 HU a voxel, where 309 is right, and 0 where 200 and more are; with
#       sobel's derivatives 14,425 becomes less than 182. The one sign is a RuntimeWarning of the square root, where a sum
#       came out below zero. And filters cut fractions off, after each axis: smoothing by gaussian_filter makes noise of -700
#       HU 1.5 HU higher, and noise of 700 HU 1.5 HU lower. Of the same CT in float32 all are right.
#       Upstream, open, of a first derivative in unsigned pixels: scipy/scipy#12601.
# Behind it here: noise in ctpatch/report/noise.py computes in float64, whatever the pixels are.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check scipy==1.17.1 numpy==2.4.6 2>/dev/null

cat > "$folder/gradient.py" <<'PY'
import warnings

import numpy as np
import scipy
from scipy import ndimage

warnings.simplefilter("ignore")
print("scipy", scipy.__version__)
ct = np.full((30, 30, 30), -800, np.int16)
ct[10:20, 10:20, 10:20] = 50
for name, magnitude in (("gaussian_gradient_magnitude", lambda image: ndimage.gaussian_gradient_magnitude(image, 1)),
                        ("generic_gradient_magnitude of sobel",
                         lambda image: ndimage.generic_gradient_magnitude(image, ndimage.sobel))):  # fmt: skip
    found, right = magnitude(ct), magnitude(ct.astype(np.float32))
    steep = right > 182
    print(f"{name}: {found.dtype}, greatest {found.max()}, should be {right.max():.0f}; of {steep.sum()} voxels with more",
          f"than 182 the median is {np.median(found[steep]):g}, should be {np.median(right[steep]):.0f}")  # fmt: skip
    assert found.dtype == np.int16 and found.max() < 182 and np.abs(found - right)[~steep].max() < 4
    assert (found[steep] == 0).any()
rng = np.random.default_rng(0)
for level in (-700, 700):
    noise = np.rint(rng.normal(level, 50, (40, 64, 64))).astype(np.int16)
    whole, exact = (ndimage.gaussian_filter(noise.astype(kind), 1).mean(dtype=np.float64) for kind in (np.int16, np.float32))
    print(f"noise around {level} HU, smoothed: mean {whole:.2f} in int16, {exact:.2f} in float32")
    assert 1.4 < (whole - exact) * -np.sign(level) < 1.6 and abs(exact - noise.mean()) < 0.01
PY
"$folder/venv/bin/python" "$folder/gradient.py"
