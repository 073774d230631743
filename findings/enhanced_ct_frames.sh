#!/usr/bin/env bash
# SimpleITK 2.5.7 and dcm2niix 1.0.20260724 on Enhanced CT: one frame's rescale for all, and steps that are made up.
#
# Guess: what stands in the functional groups of each frame is applied to that frame, or the file is refused; frames are
#        put in order by their positions; where a slice is missing there is a word of it, as of a classic series.
# Seen: SimpleITK applies the first frame's rescale to all (124 HU off), keeps the frames' order in the file, and
#       where their steps are not equal, for a slice is missing or the frames are stored in another order, says that
#       slices are 1 mm apart: they are 2.5. pydicom 3.0.2's apply_rescale gives the stored values as they are. dcm2niix
#       has the right HU in the right order, and lays the ten slices around a gap evenly 2.78 mm apart. No word of any.
# Behind it here: ctpatch/images/enhanced_ct.py reads each frame's own groups and places it where it says.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check SimpleITK==2.5.7 dcm2niix==1.0.20260724 \
    nibabel==5.4.2 pydicom==3.0.2 numpy==2.2.6 2>/dev/null

cat > "$folder/frames.py" <<'PY'
import pathlib, subprocess, sys
import nibabel as nib
import numpy as np
import pydicom
import SimpleITK as sitk
from pydicom import Dataset
from pydicom.pixels import apply_rescale
from pydicom.uid import EnhancedCTImageStorage, ExplicitVRLittleEndian, generate_uid

folder = pathlib.Path(sys.argv[1])
hu = np.random.default_rng(0).integers(-500, 500, (10, 8, 12))
EVEN, GAP = 2.5 * np.arange(10), 2.5 * np.array([0, 1, 2, 3, 5, 6, 7, 8, 9, 10])

def item(**values):
    made = Dataset()
    for name, value in values.items():
        setattr(made, name, value)
    return made

def write(name, heights=EVEN, order=range(10), intercepts=(-1024,) * 10):
    ds = Dataset()
    ds.file_meta = item(TransferSyntaxUID=ExplicitVRLittleEndian, MediaStorageSOPClassUID=EnhancedCTImageStorage)
    ds.SOPClassUID, ds.SOPInstanceUID, ds.Modality = EnhancedCTImageStorage, generate_uid(), "CT"
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.FrameOfReferenceUID = (generate_uid() for _ in range(3))
    ds.PatientID, ds.PatientName, ds.Manufacturer, ds.PatientPosition = "1", "1", "none", "HFS"
    ds.ImageType, ds.InstanceNumber = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"], 1
    ds.NumberOfFrames, ds.Rows, ds.Columns = hu.shape
    ds.SamplesPerPixel, ds.PhotometricInterpretation, ds.PixelRepresentation = 1, "MONOCHROME2", 0
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = 16, 16, 15
    pointer = 0x00209057  # InStackPositionNumber
    ds.DimensionIndexSequence = [item(DimensionIndexPointer=pointer, FunctionalGroupPointer=0x00209111)]
    ds.SharedFunctionalGroupsSequence = [item(
        PixelMeasuresSequence=[item(PixelSpacing=[1, 1], SliceThickness=2.5)],
        PlaneOrientationSequence=[item(ImageOrientationPatient=[1, 0, 0, 0, 1, 0])])]  # fmt: skip
    ds.PerFrameFunctionalGroupsSequence = [item(
        FrameContentSequence=[item(DimensionIndexValues=[k + 1], StackID="1", InStackPositionNumber=int(k) + 1)],
        PlanePositionSequence=[item(ImagePositionPatient=[0, 0, heights[k]])],
        PixelValueTransformationSequence=[item(RescaleIntercept=intercepts[k], RescaleSlope=1, RescaleType="HU")])
        for k in order]  # fmt: skip
    ds.PixelData = np.stack([hu[k] - intercepts[k] for k in order]).astype("<u2").tobytes()
    (folder / name).mkdir()
    ds.save_as(folder / name / "ct.dcm", enforce_file_format=True)

def by_simpleitk(name):
    image = sitk.ReadImage(str(folder / name / "ct.dcm"))
    return sitk.GetArrayFromImage(image), image.GetSpacing()[2]

def by_dcm2niix(name):
    words = [pathlib.Path(sys.executable).with_name("dcm2niix"), "-z", "n", "-f", name, "-o", folder, folder / name]
    told = subprocess.run(list(map(str, words)), check=True, capture_output=True, text=True).stdout
    assert not any(word in told.lower() for word in ("interslice", "missing", "distance")), told
    image = nib.load(folder / f"{name}.nii")
    return np.asarray(image.dataobj).T[:, ::-1], image.header.get_zooms()[2]

write("rescale", intercepts=(-1024, -1024, -1000, -1024, -900, -1024, -1024, -1024, -1024, -1024))
write("order", order=[3, 1, 0, 2, 5, 4, 7, 6, 9, 8])
write("gap", heights=GAP)
seen = {}
for reader in (by_simpleitk, by_dcm2niix):
    for name in ("rescale", "order", "gap"):
        found, step = reader(name)
        seen[reader.__name__, name] = (int(np.abs(found - hu).max()), round(float(step), 2))
        print(f"{reader.__name__:12} {name:8} {seen[reader.__name__, name][0]:4} HU off, {step:.2f} mm between slices")
stored = pydicom.dcmread(folder / "rescale" / "ct.dcm")
plain = np.array_equal(apply_rescale(stored.pixel_array, stored), stored.pixel_array)
print(f"pydicom {pydicom.__version__}: apply_rescale {'changes nothing' if plain else 'applies something'}")
assert plain and seen["by_simpleitk", "rescale"] == (124, 2.5)
assert seen["by_simpleitk", "gap"] == (0, 1) and seen["by_simpleitk", "order"][1] == 1
assert seen["by_simpleitk", "order"][0] > 500
assert [seen["by_dcm2niix", name] for name in ("rescale", "order", "gap")] == [(0, 2.5), (0, 2.5), (0, 2.78)]
PY
"$folder/venv/bin/python" "$folder/frames.py" "$folder" 2>/dev/null
