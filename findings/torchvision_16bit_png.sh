#!/usr/bin/env bash
# torchvision 0.29.1: ToTensor reads a CT in a 16-bit PNG as signed: all from 0 HU up comes out 65,536 HU lower.
#
# Guess: ToTensor gives the numbers in the PNG, or a share of them between 0 and 1.
# Seen: of Pillow's mode I;16, which is unsigned, it makes int16. Where a PNG holds HU + 32768, as DeepLesion's do, fat keeps
#       its 32668 and water becomes -32768: less 32768 they are -100 and -65,536 HU. No word of it. PILToTensor and
#       v2.ToImage have uint16, right. And ImageFolder's own loader, which converts to RGB, makes 255 of every pixel, air
#       and bone. Upstream, open: pytorch/vision#8188 and #2322.
# Behind it here: HU are int16 throughout (ctpatch/store/schema.py); what a network sees is rendered from them.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    torch==2.14.1 torchvision==0.29.1 pillow==13.0.0 numpy==2.4.6 2>/dev/null

cat > "$folder/png.py" <<'PY'
import os
import sys
import warnings

warnings.simplefilter("ignore")
import numpy as np
import PIL
import torch
import torchvision
from PIL import Image
from torchvision import datasets, transforms
from torchvision.transforms import v2

print("torchvision", torchvision.__version__, "Pillow", PIL.__version__)
hu = np.array([[-1000, -100, -1, 0, 40, 1000]])
os.makedirs(f"{sys.argv[1]}/png/benign")
path = f"{sys.argv[1]}/png/benign/slice.png"
Image.fromarray((hu + 32768).astype(np.uint16)).save(path)
image = Image.open(path)
for name, transform in (("ToTensor", transforms.ToTensor()), ("PILToTensor", transforms.PILToTensor()),
                        ("v2.ToImage", v2.ToImage())):  # fmt: skip
    found = transform(image)
    back = found.to(torch.int64).numpy().ravel() - 32768
    print(f"{name}: {found.dtype} {found.flatten().tolist()}, less 32768: {back.tolist()}")
    if name == "ToTensor":
        assert found.dtype == torch.int16 and back.tolist() == [-1000, -100, -1, -65536, -65496, -64536]
    else:
        assert found.dtype == torch.uint16 and np.array_equal(back, hu.ravel())
pixels, _ = datasets.ImageFolder(f"{sys.argv[1]}/png", transforms.ToTensor())[0]
print("ImageFolder:", pixels.unique().tolist(), "throughout")
assert pixels.unique().tolist() == [1]
PY
"$folder/venv/bin/python" "$folder/png.py" "$folder"
