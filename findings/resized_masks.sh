#!/usr/bin/env bash
# MONAI 1.6.1, torchvision 0.29.1, albumentations 2.0.8: a mask that is resized with its image is moved against it.
#
# Guess: image and mask are resized about the same centres, the mask to the nearest pixel, so that they differ by less than
#        half a pixel of the input, this way or that; "nearest" is what a mask needs.
# Seen: from 64 to 16 pixels output pixel i has the image at 4i + 1.5 and the mask at 4i: always its first pixel, 1.5 pixels
#       aside along each axis; from 128 to 16 they are 3.5 pixels apart. MONAI's affine says 4i + 1.5 for both, so that the
#       lesion lies elsewhere in the patient, too. Nobody says a word. MONAI's nearest-exact is right to half a pixel, and
#       Spacing, which puts both at 4i, altogether. Upstream, of torch, closed: pytorch/pytorch#34808; of the others:
#       pytorch/vision#9188, and albumentations-team/albumentations#850, closed, for which masks can ask for another way.
# Behind it here: masks of another grid are laid onto the CT's by both grids' places in mm (ctpatch/contours/resample.py).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check monai==1.6.1 torch==2.14.1 torchvision==0.29.1 \
    albumentations==2.0.8 opencv-python-headless==5.0.0.93 scipy==1.17.1 numpy==2.4.6 2>/dev/null

cat > "$folder/resize.py" <<'PY'
import os
import warnings

warnings.simplefilter("ignore")
os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
import albumentations
import cv2
import monai
import numpy as np
import torch
import torchvision
from monai.data import MetaTensor
from monai.transforms import Resized, Spacingd
from torchvision import tv_tensors
from torchvision.transforms import v2

print("MONAI", monai.__version__, "torchvision", torchvision.__version__, "albumentations", albumentations.__version__)


def pair(ramp):
    return {name: MetaTensor(torch.from_numpy(ramp[None]), affine=torch.eye(3)) for name in ("image", "mask")}


def row(found):
    return np.asarray(found).squeeze()[8]


for size, step in ((64, 4), (128, 8)):
    ramp = np.tile(np.arange(size, dtype=np.float32), (size, 1))  # each pixel says its own column
    by_monai = Resized(["image", "mask"], (16, 16), mode=["bilinear", "nearest"])(pair(ramp))
    exact = Resized(["image", "mask"], (16, 16), mode=["bilinear", "nearest-exact"])(pair(ramp))
    told = float(by_monai["mask"].affine[1, -1])
    tensors = tv_tensors.Image(torch.from_numpy(ramp[None])), tv_tensors.Mask(torch.from_numpy(ramp[None]))
    by_torchvision = v2.Resize((16, 16), antialias=False)(*tensors)
    by_albumentations = albumentations.Resize(16, 16)(image=ramp, mask=ramp)
    spaced = Spacingd(["image", "mask"], (step, step), mode=["bilinear", "nearest"])(pair(ramp))
    middle = (step - 1) / 2
    for name, image, mask, off in (
        ("MONAI Resized", by_monai["image"], by_monai["mask"], middle),
        ("torchvision Resize", *by_torchvision, middle),
        ("albumentations Resize", by_albumentations["image"], by_albumentations["mask"], middle),
        ("MONAI Resized, nearest-exact", exact["image"], exact["mask"], -0.5),
        ("MONAI Spacingd", spaced["image"], spaced["mask"], 0),
    ):
        image, mask = row(image), row(mask)
        print(f"{size} to 16 pixels, {name}: image {image[1:4].tolist()}, mask {mask[1:4].tolist()}")
        assert np.allclose((image - mask)[1:-1], off)
    print(f"MONAI's affine says {told + step} for the mask's pixel 1, which is pixel {row(by_monai['mask'])[1]:g}")
    assert told == middle
PY
"$folder/venv/bin/python" "$folder/resize.py" 2>/dev/null
