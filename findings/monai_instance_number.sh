#!/usr/bin/env bash
# MONAI 1.6.1: LoadImage, with its defaults, puts the slices of a DICOM folder in the order of InstanceNumber, whatever their
# positions, and gives the volume an even spacing that it does not have.
#
# Guess: as it reads ImagePositionPatient for the affine, it sorts by it, or refuses numbers that run against it.
# Seen: five slices, 2.5 mm apart, numbered as an interleaved acquisition numbers them (1 4 2 5 3 from below): the volume has
#       the slices from 0, 5, 10, 2.5 and 7.5 mm, in this order, at a spacing of 1.875 mm; no error, and no word about it.
#       Numbers that only run downwards are right: the affine's z is negative then.
# Behind it here: ctpatch sorts by position alone (ctpatch/images/stacks.py).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check monai==1.6.1 pydicom==3.0.2 2>/dev/null

cat > "$folder/load.py" <<'PY'
import sys, warnings
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

HEIGHTS = [0.0, 2.5, 5.0, 7.5, 10.0]


def series(folder, numbers):
    """A slice per height, whose HU are ten times its height in mm."""
    folder.mkdir()
    series_uid = generate_uid()
    for z, number in zip(HEIGHTS, numbers):
        file = Dataset()
        file.file_meta = FileMetaDataset()
        file.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        file.SOPClassUID = file.file_meta.MediaStorageSOPClassUID = CTImageStorage
        file.SOPInstanceUID = file.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        file.Modality, file.SeriesInstanceUID, file.StudyInstanceUID = "CT", series_uid, "1.2.3"
        file.InstanceNumber = number
        file.ImagePositionPatient, file.ImageOrientationPatient = [0, 0, z], [1, 0, 0, 0, 1, 0]
        file.PixelSpacing, file.SliceThickness = [1, 1], 2.5
        file.Rows = file.Columns = 4
        file.SamplesPerPixel, file.PhotometricInterpretation = 1, "MONOCHROME2"
        file.BitsAllocated = file.BitsStored = 16
        file.HighBit, file.PixelRepresentation = 15, 1
        file.RescaleSlope, file.RescaleIntercept = 1, 0
        file.PixelData = np.full((4, 4), 10 * z, np.int16).tobytes()
        file.save_as(folder / f"{file.SOPInstanceUID}.dcm", enforce_file_format=True)


warnings.simplefilter("ignore")  # of a decoder that is not installed
from monai.transforms import LoadImage

for name, numbers in {"upwards": [1, 2, 3, 4, 5], "downwards": [5, 4, 3, 2, 1], "interleaved": [1, 4, 2, 5, 3]}.items():
    series(Path(sys.argv[1], name), numbers)
    volume = LoadImage(image_only=True)(Path(sys.argv[1], name))
    heights = [float(hu) / 10 for hu in volume[0, 0]]
    step, start = (float(volume.affine[2, place]) for place in (2, 3))
    told = [round(start + step * k, 3) for k in range(5)]
    print(f"{name}: slices of {heights} mm, by the affine {told} mm:", "right" if told == heights else "wrong")
PY

"$folder/venv/bin/python" "$folder/load.py" "$folder" 2>/dev/null | tee "$folder/seen"
grep -q '^upwards: .* right$' "$folder/seen"
grep -q '^downwards: .* right$' "$folder/seen"
grep -q '^interleaved: slices of \[0.0, 5.0, 10.0, 2.5, 7.5\].* wrong$' "$folder/seen"
