"""Writes the simulated series and contours as DICOM: CT Image Storage and RT Structure Set Storage."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import dcmwrite
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    CTImageStorage,
    ExplicitVRLittleEndian,
    RTStructureSetStorage,
    generate_uid,
)
from pydicom.valuerep import format_number_as_ds

from ..geometry import Floats
from .scanner import Scan

INTERCEPT = -1024
STUDY_CLASS = "1.2.840.10008.3.1.2.3.1"
"""Detached Study Management: retired, but what RTReferencedStudySequence still names (PS3.3 C.8.8.5)."""
DATE, TIME = "20000101", "120000"
"""A simulation has no date of its own, and a clock would make each run's files differ."""


@dataclass(frozen=True)
class Identity:
    """Who and what a patient's files belong to; UIDs follow from `digest`, that of their content."""

    patient_id: str
    digest: str

    def uid(self, *what: object) -> str:
        """The UID of a thing of this patient."""
        return generate_uid(entropy_srcs=["ctpatch-phantom", self.patient_id, self.digest, *map(str, what)])


def write_ct(folder: Path, hu: NDArray[np.int16], scan: Scan, identity: Identity) -> None:
    """Write one CT Image Storage file per slice of `hu` (z, y, x) into `folder`, which is made."""
    folder.mkdir(parents=True)
    stack = scan.stack
    for k, plane in enumerate(hu):
        ds = _header(CTImageStorage, identity.uid("slice", k), identity, "CT", series=1)
        ds.FrameOfReferenceUID, ds.PositionReferenceIndicator = identity.uid("frame"), ""
        ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
        ds.AcquisitionNumber, ds.InstanceNumber, ds.KVP = 1, k + 1, "120"
        ds.SliceThickness = _decimal(scan.thickness)
        ds.GantryDetectorTilt = _decimal(scan.tilt)
        ds.PixelSpacing = [_decimal(v) for v in stack.spacing]
        ds.ImageOrientationPatient = [_decimal(v) for v in stack.axes[:2].ravel()]
        ds.ImagePositionPatient = [_decimal(v) for v in stack.origins[k]]
        ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
        ds.Rows, ds.Columns = stack.shape
        ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 16, 15, 0
        ds.RescaleIntercept, ds.RescaleSlope, ds.RescaleType = str(INTERCEPT), "1", "HU"
        ds.WindowCenter, ds.WindowWidth = "40", "400"
        ds.PixelData = (plane.astype(np.int32) - INTERCEPT).astype("<u2").tobytes()
        dcmwrite(folder / f"{k + 1:04d}.dcm", ds, enforce_file_format=True)


def write_rtstruct(path: Path, rois: Mapping[str, Mapping[int, Floats]], identity: Identity) -> None:
    """Write an RT Structure Set whose ROIs hold one closed planar contour (n, 3) mm LPS per slice number."""
    ds = _header(RTStructureSetStorage, identity.uid("structures"), identity, "RTSTRUCT", series=2)
    ds.StructureSetLabel, ds.StructureSetDate, ds.StructureSetTime = "PHANTOM", DATE, TIME
    ds.ApprovalStatus = "UNAPPROVED"
    slices = sorted({k for contours in rois.values() for k in contours})
    ds.ReferencedFrameOfReferenceSequence = [_referenced_frame(slices, identity)]
    ds.StructureSetROISequence = [
        _item(
            ROINumber=number,
            ReferencedFrameOfReferenceUID=identity.uid("frame"),
            ROIName=name,
            ROIGenerationAlgorithm="AUTOMATIC",
        )
        for number, name in enumerate(rois, start=1)
    ]
    ds.ROIContourSequence = [
        _item(
            ROIDisplayColor=["255", "0", "0"],
            ReferencedROINumber=number,
            ContourSequence=[_contour(points, k, identity) for k, points in contours.items()],
        )
        for number, contours in enumerate(rois.values(), start=1)
    ]
    ds.RTROIObservationsSequence = [
        _item(ObservationNumber=number, ReferencedROINumber=number, RTROIInterpretedType="GTV", ROIInterpreter="")
        for number in range(1, len(rois) + 1)
    ]
    dcmwrite(path, ds, enforce_file_format=True)


def _header(sop_class: str, sop_uid: str, identity: Identity, modality: str, series: int) -> Dataset:
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.SpecificCharacterSet = "ISO_IR 192"
    ds.SOPClassUID, ds.SOPInstanceUID = sop_class, sop_uid
    ds.StudyDate, ds.StudyTime, ds.StudyID, ds.AccessionNumber = DATE, TIME, "1", ""
    ds.Modality, ds.Manufacturer, ds.ManufacturerModelName = modality, "ctpatch", "phantom"
    ds.ReferringPhysicianName, ds.PatientName, ds.PatientID = "", "Phantom", identity.patient_id
    ds.PatientBirthDate, ds.PatientSex = "", ""
    ds.StudyInstanceUID = identity.uid("study")
    ds.SeriesInstanceUID, ds.SeriesNumber = identity.uid("series", modality), series
    ds.SeriesDescription = "simulated, not a patient"
    return ds


def _referenced_frame(slices: list[int], identity: Identity) -> Dataset:
    series = _item(
        SeriesInstanceUID=identity.uid("series", "CT"), ContourImageSequence=[_image(k, identity) for k in slices]
    )
    study = _item(
        ReferencedSOPClassUID=STUDY_CLASS,
        ReferencedSOPInstanceUID=identity.uid("study"),
        RTReferencedSeriesSequence=[series],
    )
    return _item(FrameOfReferenceUID=identity.uid("frame"), RTReferencedStudySequence=[study])


def _contour(points: Floats, k: int, identity: Identity) -> Dataset:
    return _item(
        ContourImageSequence=[_image(k, identity)],
        ContourGeometricType="CLOSED_PLANAR",
        NumberOfContourPoints=len(points),
        ContourData=[_decimal(v) for v in points.ravel()],
    )


def _image(k: int, identity: Identity) -> Dataset:
    return _item(ReferencedSOPClassUID=CTImageStorage, ReferencedSOPInstanceUID=identity.uid("slice", k))


def _item(**values: Any) -> Dataset:
    ds = Dataset()
    for keyword, value in values.items():
        setattr(ds, keyword, value)
    return ds


def _decimal(value: float) -> str:
    return format_number_as_ds(float(value))
