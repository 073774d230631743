#!/usr/bin/env bash
# pydicom 3.0.2: `iter_pixels` fails on bit-packed frames unless each begins on a byte; `pixel_array` reads them.
#
# Guess: frames of a segmentation can be read one by one, whatever rows × columns is, as `pixel_array` reads them all.
# Seen: 6 frames of 9 × 7 bits: pixel_array is right, iter_pixels (with or without indices) and pixel_array(index=)
#       raise ValueError: cannot reshape.
# Behind it here: native_frame in ctpatch/dicom/pixel_data.py.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check pydicom==3.0.2 numpy==2.2.6 2>/dev/null

cat > "$folder/packed.py" <<'PY'
import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.pixels import iter_pixels, pixel_array
from pydicom.uid import ExplicitVRLittleEndian, SegmentationStorage

frames = np.random.default_rng(0).integers(0, 2, (6, 9, 7), np.uint8)
dataset = Dataset()
dataset.file_meta = FileMetaDataset()
dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
dataset.SOPClassUID = SegmentationStorage
dataset.NumberOfFrames, dataset.Rows, dataset.Columns = frames.shape
dataset.BitsAllocated = dataset.BitsStored = dataset.SamplesPerPixel = 1
dataset.HighBit = dataset.PixelRepresentation = 0
dataset.PhotometricInterpretation = "MONOCHROME2"
dataset.PixelData = np.packbits(frames.ravel(), bitorder="little").tobytes()  # 48 bytes

def told(read):
    try:
        return "right" if np.array_equal(read()[0], frames[1]) else "wrong"
    except Exception as error:
        return f"{type(error).__name__}: {error}"

whole = "right" if np.array_equal(dataset.pixel_array, frames) else "wrong"
one = told(lambda: list(iter_pixels(dataset, indices=[1])))
same = told(lambda: [pixel_array(dataset, index=1)])
print(f"pydicom {pydicom.__version__}\n  pixel_array: {whole}\n  iter_pixels, frame 1: {one}\n  pixel_array(index=1): {same}")
assert whole == "right" and "cannot reshape" in one
PY
"$folder/venv/bin/python" "$folder/packed.py"
