#!/usr/bin/env bash
# rt-utils 1.2.7, DicomRTTool 6.2.0, plastimatch 1.10.0, dcmrtstruct2nii 5: four masks of one RTSTRUCT.
#
# Guess: readers differ by the pixels that an outline halves; all of them leave a hole out.
# Seen: a rectangle around 6 × 4 pixels, its sides midway between pixel centres, has 24 pixels, and 35 (+46 %) with
#       rt-utils and DicomRTTool, which round its corners outwards and draw the outline too. A ring (a contour inside
#       another) is filled by plastimatch. Two overlapping outlines are their union with rt-utils and plastimatch and
#       lose what they share with the others. Nobody says a word.
# Behind it here: ctpatch/lesion/overlap.py refuses overlapping outlines until the manifest says which is meant.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
for names in "rt-utils==1.2.7 plastimatch==1.10.0 DicomRTTool==6.2.0 pydicom==3.0.2" "dcmrtstruct2nii==5 pydicom==2.4.5"; do
    venv="$folder/${names%%=*}"
    python3 -m venv "$venv"
    # shellcheck disable=SC2086
    "$venv/bin/pip" install --quiet --disable-pip-version-check $names SimpleITK==2.5.7 nibabel==5.4.2 numpy==1.26.4 \
        opencv-python-headless==4.11.0.86 scikit-image==0.25.2 2>/dev/null
done

cat > "$folder/write.py" <<'PY'
import pathlib, sys
import numpy as np
from pydicom import Dataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, RTStructureSetStorage, generate_uid

folder = pathlib.Path(sys.argv[1])
study, series, frame = (generate_uid() for _ in range(3))

def dataset(kind, modality, series):
    ds = Dataset()
    ds.file_meta = Dataset()
    ds.file_meta.TransferSyntaxUID, ds.file_meta.MediaStorageSOPClassUID = ExplicitVRLittleEndian, kind
    ds.SOPClassUID, ds.SOPInstanceUID, ds.Modality = kind, generate_uid(), modality
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.FrameOfReferenceUID = study, series, frame
    ds.PatientID, ds.PatientName, ds.StudyDate, ds.StudyTime, ds.StudyDescription = "1", "1", "20200101", "120000", ""
    ds.SeriesDescription = modality
    return ds

slices = []
(folder / "ct").mkdir()
for k in range(10):
    ct = dataset(CTImageStorage, "CT", series)
    ct.InstanceNumber, ct.SliceThickness, ct.PixelSpacing = k + 1, 2.5, [0.8, 0.8]
    ct.ImageOrientationPatient, ct.ImagePositionPatient = [1, 0, 0, 0, 1, 0], [-20, -30, 2.5 * k]
    ct.Rows = ct.Columns = 64
    ct.SamplesPerPixel, ct.PhotometricInterpretation, ct.PixelRepresentation = 1, "MONOCHROME2", 0
    ct.BitsAllocated, ct.BitsStored, ct.HighBit, ct.RescaleSlope, ct.RescaleIntercept = 16, 16, 15, 1, -1024
    ct.PixelData = np.full((64, 64), 1024, "<u2").tobytes()
    ct.save_as(folder / "ct" / f"{k}.dcm", enforce_file_format=True)
    slices.append(ct)

def circle(column, radius):
    angle = np.linspace(0, 2 * np.pi, 360, endpoint=False)
    return np.stack([column + radius * np.cos(angle), 30 + radius * np.sin(angle)], axis=1)

rois = {"rectangle": [np.array([(24.5, 25.5), (30.5, 25.5), (30.5, 29.5), (24.5, 29.5)])],
        "ring": [circle(32, 8.3), circle(32, 3.3)], "overlap": [circle(30, 6.3), circle(35, 6.3)]}  # fmt: skip
rt = dataset(RTStructureSetStorage, "RTSTRUCT", generate_uid())
rt.StructureSetLabel = rt.StructureSetName = "outlines"
rt.StructureSetROISequence, rt.ROIContourSequence, rt.RTROIObservationsSequence = [], [], []

def item(**values):
    made = Dataset()
    for name, value in values.items():
        setattr(made, name, value)
    return made

images = [item(ReferencedSOPClassUID=CTImageStorage, ReferencedSOPInstanceUID=ct.SOPInstanceUID) for ct in slices]
referred = item(SeriesInstanceUID=series, ContourImageSequence=images)
inside = item(ReferencedSOPClassUID="1.2.840.10008.3.1.2.3.1", ReferencedSOPInstanceUID=study,
              RTReferencedSeriesSequence=[referred])  # fmt: skip
rt.ReferencedFrameOfReferenceSequence = [item(FrameOfReferenceUID=frame, RTReferencedStudySequence=[inside])]
for number, (name, outlines) in enumerate(rois.items(), start=1):
    rt.StructureSetROISequence.append(item(ROINumber=number, ROIName=name, ReferencedFrameOfReferenceUID=frame,
                                           ROIGenerationAlgorithm="MANUAL"))  # fmt: skip
    rt.RTROIObservationsSequence.append(item(ObservationNumber=number, ReferencedROINumber=number,
                                             RTROIInterpretedType="", ROIInterpreter=""))  # fmt: skip
    contours = []
    for k in (4, 5):
        for outline in outlines:
            points = np.column_stack([outline * 0.8 + (-20, -30), np.full(len(outline), 2.5 * k)])
            contours.append(item(ContourGeometricType="CLOSED_PLANAR", NumberOfContourPoints=len(points),
                                 ContourData=[f"{v:.4f}" for v in points.ravel()],
                                 ContourImageSequence=[images[k]]))  # fmt: skip
    rt.ROIContourSequence.append(item(ReferencedROINumber=number, ROIDisplayColor=[255, 0, 0],
                                      ContourSequence=contours))  # fmt: skip
rt.save_as(folder / "rt.dcm", enforce_file_format=True)
PY
cat > "$folder/masks.py" <<'PY'
import contextlib, io, logging, pathlib, subprocess, sys
import numpy as np
import SimpleITK as sitk

folder, tool = pathlib.Path(sys.argv[1]), sys.argv[2]
series, rt = str(folder / "ct"), str(folder / "rt.dcm")
logging.disable(logging.CRITICAL)

def of_file(path):
    return (sitk.GetArrayFromImage(sitk.ReadImage(str(path)))[4] > 0).sum()

def rt_utils(name):
    from rt_utils import RTStructBuilder

    return RTStructBuilder.create_from(series, rt).get_roi_mask_by_name(name)[:, :, 4].sum()

def dicomrttool(name):
    from DicomRTTool.ReaderWriter import DicomReaderWriter

    reader = DicomReaderWriter(Contour_Names=[name])
    reader.walk_through_folders(str(folder))
    reader.get_mask()
    return (reader.mask[4] > 0).sum()

def plastimatch(name):
    words = ["plastimatch", "convert", "--input", rt, "--referenced-ct", series]
    words[0] = str(pathlib.Path(sys.executable).with_name("plastimatch"))
    subprocess.run([*words, "--output-prefix", str(folder / "p"), "--prefix-format", "nrrd"], check=True)
    return of_file(folder / "p" / f"{name}.nrrd")

def dcmrtstruct2nii(name):
    from dcmrtstruct2nii import dcmrtstruct2nii as convert

    convert(rt, series, str(folder / name), structures=[name])
    return of_file(folder / name / f"mask_{name}.nii.gz")

print(tool, *(int(globals()[tool](name)) for name in ("rectangle", "ring", "overlap")))
PY
"$folder/rt-utils/bin/python" "$folder/write.py" "$folder" 2>/dev/null
{
    for tool in rt_utils dicomrttool plastimatch; do
        "$folder/rt-utils/bin/python" "$folder/masks.py" "$folder" "$tool" 2>/dev/null | grep "^$tool "
    done
    "$folder/dcmrtstruct2nii/bin/python" "$folder/masks.py" "$folder" dcmrtstruct2nii 2>/dev/null | grep '^dcmrtstruct2nii '
} > "$folder/seen"
echo "pixels of: rectangle (24), ring (182), overlap (union 186, without what they share 123)"
cat "$folder/seen"
diff "$folder/seen" - <<'EOF'
rt_utils 35 228 168
dicomrttool 35 204 130
plastimatch 24 221 182
dcmrtstruct2nii 24 184 122
EOF
