#!/usr/bin/env bash
# highdicom 0.28.2: a segmentation of a tilted CT has no volume, one with a gap has a slice that nobody made.
#
# Guess: `Segmentation.get_volume()` gives the slices that were segmented, from the lowest along row × column on.
# Seen: a tilted gantry's raise; six with one double gap come back as seven; index 0 is the highest; and without
#       ReferencedSegmentNumber among the dimension indices, which DICOM does not ask for, SQLite's error comes out.
# Behind it here: ctpatch/contours/seg.py, which lays frames onto the CT's slices one by one.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check highdicom==0.28.2 pydicom==3.0.2 numpy==2.2.6 2>/dev/null

cat > "$folder/volumes.py" <<'PY'
import highdicom as hd
import numpy as np
from pydicom import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

def segmentation(heights, lean=0.0):
    study, series, frame = (generate_uid() for _ in range(3))
    slices = []
    for n, z in enumerate(heights):
        ct = Dataset()
        ct.file_meta = Dataset()
        ct.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        ct.SOPClassUID, ct.SOPInstanceUID, ct.Modality = CTImageStorage, generate_uid(), "CT"
        ct.StudyInstanceUID, ct.SeriesInstanceUID, ct.FrameOfReferenceUID = study, series, frame
        ct.PatientID = ct.PatientName = ct.PatientBirthDate = ct.PatientSex = ct.AccessionNumber = ct.StudyID = ""
        ct.StudyDate = ct.StudyTime = ""
        ct.InstanceNumber, ct.Rows, ct.Columns, ct.SliceThickness = n + 1, 8, 8, 2.5
        ct.PixelSpacing, ct.ImageOrientationPatient = [1, 1], [1, 0, 0, 0, 1, 0]
        ct.ImagePositionPatient = [0, lean * z, z]
        slices.append(ct)
    manual = hd.seg.SegmentAlgorithmTypeValues.MANUAL
    about = [hd.seg.SegmentDescription(1, "lesion", codes.SCT.Tissue, codes.SCT.Tissue, manual)]
    pixels = np.ones((len(heights), 8, 8), np.uint8)
    return hd.seg.Segmentation(slices, pixels, "BINARY", about, generate_uid(), 1, generate_uid(), 1, "m", "m", "1", "1")

def volume(seg, **options):
    try:
        found = seg.get_volume(combine_segments=False, **options)
        return f"{found.spatial_shape[0]} slices, the first at z = {found.position[2]:g}"
    except Exception as error:
        return f"{type(error).__name__}: {error}"

unnamed = segmentation([0, 2.5, 5])
where = [item.DimensionIndexPointer for item in unnamed.DimensionIndexSequence].index(0x0062000B)
del unnamed.DimensionIndexSequence[where]
for item in unnamed.PerFrameFunctionalGroupsSequence:
    content = item.FrameContentSequence[0]
    content.DimensionIndexValues = [v for n, v in enumerate(content.DimensionIndexValues) if n != where]
seen = {"even": volume(segmentation([0, 2.5, 5])), "tilted": volume(segmentation([0, 2.5, 5], 0.3)),
        "gap": volume(segmentation([0, 2.5, 5, 7.5, 12.5, 15])),
        "unnamed": volume(hd.seg.Segmentation.from_dataset(unnamed))}  # fmt: skip
print("highdicom", hd.__version__, *(f"\n  {name}: {what}" for name, what in seen.items()))
assert seen["even"] == "3 slices, the first at z = 5" and seen["gap"].startswith("7 slices")
assert "regularly-spaced" in seen["tilted"] and "OperationalError" in seen["unnamed"]
PY
"$folder/venv/bin/python" -W ignore "$folder/volumes.py"
