#!/usr/bin/env bash
# opencv-python-headless 5.0.0.93: a rotated patch is right in float32, and up to 16 HU off in float64 and int16.
#
# Guess: INTER_LINEAR weights the four pixels around a point by its distances to them; float64 is the most exact, and int16 is
#        float32's result rounded.
# Seen: warpAffine and remap have new code for uint8, uint16 and float32, which does so. All other types go the old way, which
#       rounds each coordinate to 1/32 of a pixel: of an edge of 1000 HU a shift by 0.3 pixels makes -112.5 instead of -100,
#       one by 0.015 nothing at all, and turned by 7 degrees pixels are 16 HU off, in float64 as in int16. No word of it.
#       Upstream, closed: opencv/opencv#25937 and #26361.
# Behind it here: ctpatch/patches/sample.py has weights of its own, in full precision.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check opencv-python-headless==5.0.0.93 numpy==2.4.6 2>/dev/null

cat > "$folder/warp.py" <<'PY'
import cv2
import numpy as np

print("OpenCV", cv2.__version__)
edge = np.full((64, 64), -800.0)
edge[:, 32:] = 200
rows, columns = np.mgrid[:64, :64].astype(np.float64)


def linear(image, y, x):
    y, x = y.clip(0, 63), x.clip(0, 63)
    top, left = np.minimum(y.astype(int), 62), np.minimum(x.astype(int), 62)
    down, right = y - top, x - left
    upper = (1 - right) * image[top, left] + right * image[top, left + 1]
    return (1 - down) * upper + down * ((1 - right) * image[top + 1, left] + right * image[top + 1, left + 1])


def warped(image, matrix):
    found = cv2.warpAffine(image, matrix, (64, 64), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    assert found.dtype == image.dtype
    return found.astype(np.float64)


turn = cv2.getRotationMatrix2D((31.5, 31.5), 7, 1)
back = cv2.invertAffineTransform(turn)
turned = linear(edge, back[1, 0] * columns + back[1, 1] * rows + back[1, 2],
                back[0, 0] * columns + back[0, 1] * rows + back[0, 2])  # fmt: skip
for kind in (np.float32, np.float64, np.int16):
    image, off = edge.astype(kind), []
    for shift in (0.3, 0.26, 0.015):
        by_matrix = warped(image, np.array([[1, 0, shift], [0, 1, 0]]))[32, 32]
        at = (columns - shift).astype(np.float32), rows.astype(np.float32)
        by_map = cv2.remap(image, *at, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)[32, 32]
        right = 200 - 1000 * shift
        print(f"{kind.__name__}, shifted by {shift}: warpAffine {by_matrix:.1f}, remap {by_map:.1f}, should be {right:.1f}")
        off += [abs(by_matrix - right), abs(by_map - right)]
    worst = np.abs(warped(image, turn) - turned).max()
    print(f"{kind.__name__}, turned by 7 degrees: at most {worst:.2f} HU off")
    assert max(*off, worst) < 0.1 if kind is np.float32 else min(*off, worst) > 9
PY
"$folder/venv/bin/python" "$folder/warp.py"
