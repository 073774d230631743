#!/usr/bin/env bash
# dcm2niix 1.0.20260724: slices of a tilted gantry are put too close, and the straightened copy can lie 15 mm off.
#
# Guess: of a CT with a tilted gantry come two files: the slices as stored, with the shear in the affine, and a copy
#        resampled without shear. Both place each voxel where the slices' positions put it.
# Seen: at 15 degrees the first file has the slices 2.41 mm apart along the table, not 2.5 (2.41 is the distance between
#       the planes, square to them): 3.1 mm off at the 37th slice. The second is right to a fraction of a voxel with the
#       tilt one way, and 14.7 mm off the other way, where it puts rows in front of the first. Of unsigned pixels with 16
#       bits stored there is no second. It warns of the tilt and asks to validate the second file. dicom2nifti 2.6.2
#       refuses the series; told not to look, it is right. Upstream, both closed: rordenlab/dcm2niix#697 and #259.
# Behind it here: SliceStack in ctpatch/geometry.py keeps a position for each slice; between the first file's qform and
#                 sform, which differ, ctpatch/images/volume_header.py refuses to choose.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check dcm2niix==1.0.20260724 dicom2nifti==2.6.2 \
    nibabel==5.4.2 pydicom==3.0.2 numpy==2.2.6 2>/dev/null

cat > "$folder/tilt.py" <<'PY'
import importlib.metadata, pathlib, subprocess, sys
import dicom2nifti, dicom2nifti.settings
import nibabel as nib
import numpy as np
from pydicom import Dataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

folder = pathlib.Path(sys.argv[1])
FIRST, STEP, SPACING, SPOT = np.array([-30, -60, -100]), np.array([0, 0, 2.5]), 2, (36, 30, 20)  # slice, row, column
hu = np.full((40, 64, 32), -1000)
hu[SPOT[0], SPOT[1] - 1 : SPOT[1] + 2, SPOT[2] - 1 : SPOT[2] + 2] = 1500  # its centre is the landmark

def write(name, degrees, signed=True):
    """A series, and where in LPS its landmark lies."""
    angle = np.deg2rad(degrees)
    down = np.array([0, np.cos(angle), np.sin(angle)]).round(6)  # the table moves along z, the slices lean
    study, series, frame = (generate_uid() for _ in range(3))
    (folder / name).mkdir()
    for k, plane in enumerate(hu):
        ds = Dataset()
        ds.file_meta = Dataset()
        ds.file_meta.TransferSyntaxUID, ds.file_meta.MediaStorageSOPClassUID = ExplicitVRLittleEndian, CTImageStorage
        ds.SOPClassUID, ds.SOPInstanceUID, ds.Modality, ds.Manufacturer = CTImageStorage, generate_uid(), "CT", "none"
        ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
        ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.FrameOfReferenceUID = study, series, frame
        ds.PatientID, ds.PatientName, ds.PatientPosition, ds.GantryDetectorTilt = "1", "1", "HFS", degrees
        ds.ImageType, ds.SeriesNumber, ds.AcquisitionNumber = ["ORIGINAL", "PRIMARY", "AXIAL"], 1, 1
        ds.InstanceNumber, ds.SliceThickness, ds.PixelSpacing = k + 1, 2.5, [SPACING, SPACING]
        ds.ImageOrientationPatient, ds.ImagePositionPatient = [1, 0, 0, *down], list(FIRST + k * STEP)
        ds.Rows, ds.Columns, ds.SamplesPerPixel, ds.PhotometricInterpretation = *plane.shape, 1, "MONOCHROME2"
        ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 16, 15, int(signed)
        ds.RescaleSlope, ds.RescaleIntercept = 1, -1024
        ds.PixelData = (plane + 1024).astype("<i2").tobytes()
        ds.save_as(folder / name / f"{k}.dcm", enforce_file_format=True)
    return FIRST + SPOT[0] * STEP + SPOT[1] * SPACING * down + [SPOT[2] * SPACING, 0, 0]

def off(path, landmark):
    """How far in mm a NIfTI file places the landmark from where it is."""
    image = nib.load(path)
    voxels = np.asarray(image.dataobj)
    centre = np.argwhere(voxels > 0.7 * voxels.max()).mean(axis=0)
    return float(np.linalg.norm(np.diag([-1, -1, 1]) @ (image.affine @ [*centre, 1])[:3] - landmark))

seen = {}
for name, degrees, signed in (("one", 15, True), ("other", -15, True), ("unsigned", 15, False)):
    landmark = write(name, degrees, signed)
    tool = pathlib.Path(sys.executable).with_name("dcm2niix")
    told = subprocess.run([tool, "-z", "n", "-f", name, "-o", folder, folder / name], capture_output=True, text=True)
    assert "gantry tilt" in told.stdout, told
    stored, copy = folder / f"{name}.nii", folder / f"{name}_Tilt_1.nii"
    seen[name] = off(stored, landmark), off(copy, landmark) if copy.exists() else None
    print(f"{name:8} {degrees:3} degrees, mm off: as stored {seen[name][0]:.1f}, straightened",
          "not written" if seen[name][1] is None else f"{seen[name][1]:.1f}")  # fmt: skip
dicom2nifti.settings.disable_validate_orthogonal()
dicom2nifti.dicom_series_to_nifti(str(folder / "unsigned"), str(folder / "sheared.nii"), reorient_nifti=False)
print(f"dicom2nifti {importlib.metadata.version('dicom2nifti')}: {off(folder / 'sheared.nii', landmark):.1f} mm off")
print("dcm2niix", importlib.metadata.version("dcm2niix"))
assert all(3 < stored < 3.2 for stored, _ in seen.values()) and off(folder / "sheared.nii", landmark) < 0.01
assert 14 < seen["one"][1] < 15.5 and seen["other"][1] < 0.5 and seen["unsigned"][1] is None
PY
"$folder/venv/bin/python" -W ignore "$folder/tilt.py" "$folder" 2>/dev/null
