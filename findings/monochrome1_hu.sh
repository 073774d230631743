#!/usr/bin/env bash
# SimpleITK 2.5.7 and highdicom 0.28.2: of a MONOCHROME1 CT air comes out at +3047 HU, and bone below it.
#
# Guess: MONOCHROME1 says how to show pixels ("after any VOI gray scale transformations", PS3.3 C.7.6.3.1.2), so that
#        whoever reads numbers gives stored value × slope + intercept, as of MONOCHROME2.
# Seen: both turn the stored values round within BitsStored, 4095 - stored of 12 bits, and rescale after that: HU h
#       becomes 2047 - h, in SimpleITK without a word, in highdicom unless apply_presentation_lut=False is given.
#       pydicom 3.0.2, dcm2niix 1.0.20260724, dicom2nifti 2.6.2 and dicom-numpy 0.6.5 give h.
#       ITK warned of it until InsightSoftwareConsortium/ITK#4922; its wiki says that it does not convert.
# Behind it here: ctpatch/images/ct_image.py rescales stored values whatever the interpretation, and _pixel_notes in
#                 ctpatch/images/series.py says so.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check SimpleITK==2.5.7 highdicom==0.28.2 dcm2niix==1.0.20260724 \
    dicom2nifti==2.6.2 dicom-numpy==0.6.5 nibabel==5.4.2 pydicom==3.0.2 numpy==2.2.6 2>/dev/null

cat > "$folder/mono.py" <<'PY'
import importlib.metadata, pathlib, subprocess, sys
import dicom2nifti, dicom_numpy
import highdicom
import nibabel as nib
import numpy as np
import pydicom
import SimpleITK as sitk
from pydicom import Dataset
from pydicom.pixels import apply_rescale
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

folder = pathlib.Path(sys.argv[1])
hu = np.random.default_rng(0).integers(-1000, 1500, (5, 8, 12))
hu[:, 0, 0] = -1000  # air
study, series, frame = (generate_uid() for _ in range(3))
(folder / "ct").mkdir()
for k, plane in enumerate(hu):
    ds = Dataset()
    ds.file_meta = Dataset()
    ds.file_meta.TransferSyntaxUID, ds.file_meta.MediaStorageSOPClassUID = ExplicitVRLittleEndian, CTImageStorage
    ds.SOPClassUID, ds.SOPInstanceUID, ds.Modality, ds.Manufacturer = CTImageStorage, generate_uid(), "CT", "none"
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.FrameOfReferenceUID = study, series, frame
    ds.PatientID = ds.PatientName = ds.PatientBirthDate = ds.PatientSex = ds.StudyID = ds.AccessionNumber = ""
    ds.StudyDate = ds.StudyTime = ds.ReferringPhysicianName = ""
    ds.ImageType, ds.SeriesNumber, ds.AcquisitionNumber = ["ORIGINAL", "PRIMARY", "AXIAL"], 1, 1
    ds.InstanceNumber, ds.SliceThickness, ds.PixelSpacing = k + 1, 2.5, [1, 1]
    ds.ImageOrientationPatient, ds.ImagePositionPatient = [1, 0, 0, 0, 1, 0], [0, 0, 2.5 * k]
    ds.Rows, ds.Columns, ds.SamplesPerPixel, ds.PhotometricInterpretation = *plane.shape, 1, "MONOCHROME1"
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 12, 11, 0
    ds.RescaleSlope, ds.RescaleIntercept, ds.RescaleType = 1, -1024, "HU"
    ds.PixelData = (plane + 1024).astype("<u2").tobytes()
    ds.save_as(folder / "ct" / f"{k}.dcm", enforce_file_format=True)
slices = [pydicom.dcmread(folder / "ct" / f"{k}.dcm") for k in range(len(hu))]

def by_simpleitk():
    return sitk.GetArrayFromImage(sitk.ReadImage(sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder / "ct"))))

def by_highdicom(**options):
    return highdicom.get_volume_from_series(slices, **options).array[::-1]  # it begins at the top

def by_pydicom():
    return np.stack([apply_rescale(ds.pixel_array, ds) for ds in slices])

def by_dcm2niix():
    tool = pathlib.Path(sys.executable).with_name("dcm2niix")
    subprocess.run([tool, "-z", "n", "-f", "out", "-o", folder, folder / "ct"], check=True, capture_output=True)
    return np.asarray(nib.load(folder / "out.nii").dataobj).T[:, ::-1]

def by_dicom2nifti():
    dicom2nifti.dicom_series_to_nifti(str(folder / "ct"), str(folder / "d2n.nii"), reorient_nifti=False)
    return np.asarray(nib.load(folder / "d2n.nii").dataobj).T

def by_dicom_numpy():
    return dicom_numpy.combine_slices(slices)[0].T

def told(found):
    return "h" if np.array_equal(found, hu) else "2047 - h" if np.array_equal(found, 2047 - hu) else "something else"

readers = (by_simpleitk, by_highdicom, by_pydicom, by_dcm2niix, by_dicom2nifti, by_dicom_numpy)
seen = {}
for reader in readers:
    name = reader.__name__[3:].replace("_", "-")
    found = reader()
    seen[name] = told(found)
    print(f"{name:11} {importlib.metadata.version(name):12} {seen[name]:8} air {found[0, 0, 0]:g}")
seen["switch"] = told(by_highdicom(apply_presentation_lut=False))
print("highdicom with apply_presentation_lut=False", seen["switch"])
assert [name for name, what in seen.items() if what != "h"] == ["simpleitk", "highdicom"], seen
assert seen["simpleitk"] == seen["highdicom"] == "2047 - h", seen
PY
"$folder/venv/bin/python" -W ignore "$folder/mono.py" "$folder" 2>"$folder/errors" && test ! -s "$folder/errors" || {
    cat "$folder/errors" # a word of it, or what failed
    exit 1
}
