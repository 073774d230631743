#!/usr/bin/env bash
# dicom-anonymizer 2.1.0: contours that were de-identified together with their CT refer to images that are nowhere.
#
# Guess: each UID is replaced everywhere by the same new one, so that after one run over a folder an RTSTRUCT goes on
#        referring to the CT beside it, as with dicognito 0.19.0.
# Seen: UIDs are replaced at the top of a file only, though "same UID will have the same replaced value" (its README). The
#       CT has new ones, and so has the RTSTRUCT itself; but within its sequences, where it refers to the CT, the old ones
#       stay: frame of reference, series and images of a CT that is no longer there. Their study, at the top, is still the
#       same. No word of it. Upstream: KitwareMedical/dicom-anonymizer#88, closed.
# Behind it here: ctpatch/contours/reference.py refuses another frame of reference until the row accepts it, and scan
#                 (ctpatch/scan/pairing.py) names contours whose series is not here.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check dicom-anonymizer==2.1.0 dicognito==0.19.0 pydicom==3.0.2 \
    2>/dev/null
mkdir "$folder/in" "$folder/dicom-anonymizer"

cat > "$folder/write.py" <<'PY'
import pathlib, sys
from pydicom import Dataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, RTStructureSetStorage, generate_uid

folder = pathlib.Path(sys.argv[1])
study, series, frame = (generate_uid() for _ in range(3))

def item(**values):
    made = Dataset()
    for name, value in values.items():
        setattr(made, name, value)
    return made

def dataset(kind, modality, series):
    ds = item(SOPClassUID=kind, SOPInstanceUID=generate_uid(), Modality=modality, SeriesInstanceUID=series,
              StudyInstanceUID=study, PatientID="A17", PatientName="A17", PatientBirthDate="19500101", PatientSex="F",
              StudyDate="20200101", StudyTime="120000")  # fmt: skip
    ds.file_meta = item(TransferSyntaxUID=ExplicitVRLittleEndian, MediaStorageSOPClassUID=kind,
                        MediaStorageSOPInstanceUID=ds.SOPInstanceUID)  # fmt: skip
    return ds

images = []
for k in range(3):
    ct = dataset(CTImageStorage, "CT", series)
    ct.FrameOfReferenceUID, ct.InstanceNumber, ct.SliceThickness, ct.PixelSpacing = frame, k + 1, 2.5, [1, 1]
    ct.ImageOrientationPatient, ct.ImagePositionPatient = [1, 0, 0, 0, 1, 0], [0, 0, 2.5 * k]
    ct.Rows = ct.Columns = 8
    ct.SamplesPerPixel, ct.PhotometricInterpretation, ct.PixelRepresentation = 1, "MONOCHROME2", 0
    ct.BitsAllocated, ct.BitsStored, ct.HighBit, ct.RescaleSlope, ct.RescaleIntercept = 16, 16, 15, 1, -1024
    ct.PixelData = bytes(128)
    ct.save_as(folder / f"{k}.dcm", enforce_file_format=True)
    images.append(item(ReferencedSOPClassUID=CTImageStorage, ReferencedSOPInstanceUID=ct.SOPInstanceUID))
rt = dataset(RTStructureSetStorage, "RTSTRUCT", generate_uid())
rt.StructureSetLabel = "outlines"
inside = item(ReferencedSOPClassUID="1.2.840.10008.3.1.2.3.1", ReferencedSOPInstanceUID=study,
              RTReferencedSeriesSequence=[item(SeriesInstanceUID=series, ContourImageSequence=images)])  # fmt: skip
rt.ReferencedFrameOfReferenceSequence = [item(FrameOfReferenceUID=frame, RTReferencedStudySequence=[inside])]
rt.StructureSetROISequence = [item(ROINumber=1, ROIName="lesion", ReferencedFrameOfReferenceUID=frame,
                                   ROIGenerationAlgorithm="MANUAL")]  # fmt: skip
rt.RTROIObservationsSequence = [item(ObservationNumber=1, ReferencedROINumber=1, RTROIInterpretedType="")]
contours = [item(ContourGeometricType="CLOSED_PLANAR", NumberOfContourPoints=3, ContourImageSequence=[images[k]],
                 ContourData=[2, 2, 2.5 * k, 6, 2, 2.5 * k, 4, 6, 2.5 * k]) for k in range(3)]  # fmt: skip
rt.ROIContourSequence = [item(ReferencedROINumber=1, ContourSequence=contours)]
rt.save_as(folder / "rt.dcm", enforce_file_format=True)
PY
cat > "$folder/read.py" <<'PY'
import importlib.metadata, pathlib, sys
import pydicom

def read(name):
    files = [pydicom.dcmread(path) for path in sorted((pathlib.Path(sys.argv[1]) / name).iterdir())]
    (rt,) = (ds for ds in files if ds.Modality == "RTSTRUCT")
    return [ds for ds in files if ds.Modality == "CT"], rt

def held(name):
    """Which of the RTSTRUCT's UIDs are the CT's."""
    slices, rt = read(name)
    (frame,), (roi,) = rt.ReferencedFrameOfReferenceSequence, rt.StructureSetROISequence
    series = frame.RTReferencedStudySequence[0].RTReferencedSeriesSequence[0]
    drawn = {c.ContourImageSequence[0].ReferencedSOPInstanceUID for c in rt.ROIContourSequence[0].ContourSequence}
    ct = slices[0]
    return {"study": rt.StudyInstanceUID == ct.StudyInstanceUID,
            "frame": {frame.FrameOfReferenceUID, roi.ReferencedFrameOfReferenceUID} == {ct.FrameOfReferenceUID},
            "series": series.SeriesInstanceUID == ct.SeriesInstanceUID,
            "images": drawn == {ds.SOPInstanceUID for ds in slices}}  # fmt: skip

first = read("in")[0][0]
for name, lost in (("in", []), ("dicognito", []), ("dicom-anonymizer", ["frame", "series", "images"])):
    found = held(name)
    version = "" if name == "in" else importlib.metadata.version(name)
    print(f"{name:16} {version:7}", *(f"{what} {'held' if kept else 'LOST'}" for what, kept in found.items()))
    assert [what for what, kept in found.items() if not kept] == lost
    assert name == "in" or read(name)[0][0].FrameOfReferenceUID != first.FrameOfReferenceUID  # they did replace it
PY
"$folder/venv/bin/python" "$folder/write.py" "$folder/in"
"$folder/venv/bin/python" -m dicognito --output-directory "$folder/dicognito" "$folder/in" >"$folder/told" 2>&1
"$folder/venv/bin/dicom-anonymizer" "$folder/in" "$folder/dicom-anonymizer" >"$folder/told" 2>&1
"$folder/venv/bin/python" "$folder/read.py" "$folder"
(! grep -iE "warn|refer" "$folder/told")
