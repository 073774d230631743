#!/usr/bin/env bash
# vtk 9.7.2: where RescaleSlope or RescaleIntercept has a fraction, signed pixels are read as unsigned: air at +31768 HU.
#
# Guess: vtkDICOMImageReader gives the HU of each slice: stored value × slope + intercept, as int16 where both are whole
# Seen: so it is of unsigned pixels, and of signed ones whose slope and intercept are whole. With a slope of 0.5, or an
#       intercept of -0.5, each negative stored value is taken for one 65536 higher, and all of air and fat is off by 65536
#       × slope, with no word. SimpleITK 2.5.7 reads all of them right.
# Behind it here: StoredFormat in ctpatch/images/ct_image.py makes stored values signed before anything rescales them.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check vtk==9.7.2 SimpleITK==2.5.7 pydicom==3.0.2 numpy==2.2.6 \
    2>/dev/null

cat > "$folder/rescale.py" <<'PY'
import pathlib, sys
import numpy as np
import SimpleITK as sitk
from pydicom import Dataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid
from vtkmodules.util.numpy_support import vtk_to_numpy
from vtkmodules.vtkCommonCore import vtkVersion
from vtkmodules.vtkIOImage import vtkDICOMImageReader

folder = pathlib.Path(sys.argv[1])

def write(name, signed, slope, intercept):
    """A series of three slices and its HU."""
    low = -2000 if signed else 0
    stored = np.random.default_rng(0).integers(low, 3000, (3, 8, 12))
    stored[0, 0, 0] = round((-1000 - intercept) / slope)  # air
    study, series, frame = (generate_uid() for _ in range(3))
    (folder / name).mkdir()
    for k, plane in enumerate(stored):
        ds = Dataset()
        ds.file_meta = Dataset()
        ds.file_meta.TransferSyntaxUID, ds.file_meta.MediaStorageSOPClassUID = ExplicitVRLittleEndian, CTImageStorage
        ds.SOPClassUID, ds.SOPInstanceUID, ds.Modality = CTImageStorage, generate_uid(), "CT"
        ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
        ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.FrameOfReferenceUID = study, series, frame
        ds.PatientID = ds.PatientName = "1"
        ds.InstanceNumber, ds.SliceThickness, ds.PixelSpacing = k + 1, 2.5, [1, 1]
        ds.ImageOrientationPatient, ds.ImagePositionPatient = [1, 0, 0, 0, 1, 0], [0, 0, 2.5 * k]
        ds.Rows, ds.Columns, ds.SamplesPerPixel, ds.PhotometricInterpretation = *plane.shape, 1, "MONOCHROME2"
        ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 16, 15, int(signed)
        ds.RescaleSlope, ds.RescaleIntercept, ds.RescaleType = slope, intercept, "HU"
        ds.PixelData = plane.astype("<i2" if signed else "<u2").tobytes()
        ds.save_as(folder / name / f"{k}.dcm", enforce_file_format=True)
    return stored * slope + intercept

def by_vtk(name):
    reader = vtkDICOMImageReader()
    reader.SetDirectoryName(str(folder / name))
    reader.Update()
    image = reader.GetOutput()
    flat = vtk_to_numpy(image.GetPointData().GetScalars())
    return flat.reshape(image.GetDimensions()[::-1])[::-1, ::-1]  # its rows and slices run the other way

def by_simpleitk(name):
    return sitk.GetArrayFromImage(sitk.ReadImage(sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder / name))))

print("vtk", vtkVersion.GetVTKVersion(), "SimpleITK", sitk.Version.VersionString())
for signed, slope, intercept in ((True, 1, 0), (True, 2, -24), (False, 0.5, -1024), (True, 0.5, 0), (True, 1, -0.5)):
    name = f"{'signed' if signed else 'unsigned'} x {slope} {intercept:+}"
    hu = write(name, signed, slope, intercept)
    found = by_vtk(name)
    print(f"{name:20} {found.dtype}: {np.mean(found != hu):3.0%} wrong, air at {found[0, 0, 0]:g}")
    assert np.array_equal(by_simpleitk(name), hu)
    fraction = signed and (slope % 1 or intercept % 1)
    negative = (hu - intercept < 0) if fraction else np.zeros(hu.shape, bool)
    assert np.array_equal(found, np.where(negative, hu + 65536 * slope, hu))
PY
"$folder/venv/bin/python" "$folder/rescale.py" "$folder" 2>"$folder/errors" && test ! -s "$folder/errors" || {
    cat "$folder/errors" # a word of it, or what failed
    exit 1
}
