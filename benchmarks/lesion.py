"""The input of the benchmarks: a large CT series with one lesion, its contours and its manifest."""

from __future__ import annotations

from pathlib import Path

import numpy as np

SPACING, STEP = 0.7, 1.25  # mm in the slice, between slices
RADIUS = 15  # mm


def write_input(folder: Path, slices: int) -> None:
    """The series (smooth noise), the RTSTRUCT and the manifest."""
    from pydicom.uid import generate_uid
    from scipy.ndimage import gaussian_filter

    rng = np.random.default_rng(0)
    noise = gaussian_filter(rng.normal(0, 3000, (512, 512)), 2)
    uids = {name: generate_uid(entropy_srcs=["peer", name]) for name in ("study", "series", "frame", "rt")}
    (folder / "ct").mkdir()
    for k in range(slices):
        write_slice(folder / "ct", k, np.roll(noise, 3 * k, axis=1) + rng.normal(0, 20, noise.shape), uids)
    write_contours(folder / "rs.dcm", sphere(slices), uids)
    row = "P1,ct,rs.dcm,GTV,T3,train"
    (folder / "manifest.csv").write_text(f"patient_id,image,mask,roi,label,split\n{row}\n", encoding="utf-8")


def write_slice(folder: Path, k: int, hu: np.ndarray, uids: dict[str, str]) -> None:
    """One slice as the scanner would write it."""
    ds = dataset("1.2.840.10008.5.1.4.1.1.2", f"slice{k}", "CT", uids)
    ds.SeriesInstanceUID, ds.FrameOfReferenceUID, ds.InstanceNumber = uids["series"], uids["frame"], k + 1
    ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.Rows, ds.Columns, ds.PixelSpacing = 512, 512, [SPACING, SPACING]
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 16, 15, 1
    ds.ImageOrientationPatient, ds.ImagePositionPatient = [1, 0, 0, 0, 1, 0], [-179, -179, STEP * k]
    ds.RescaleSlope, ds.RescaleIntercept, ds.RescaleType = 1, -1024, "HU"
    ds.PixelData = (np.clip(np.rint(hu), -1000, 3000) + 1024).astype("<i2").tobytes()
    ds.save_as(folder / f"{k:04d}.dcm", enforce_file_format=True)


def sphere(slices: int) -> list[np.ndarray]:
    """A sphere of 15 mm radius about the middle of the series, (M, 3) mm per slice."""
    centre, angle = np.array([3.3, -7.1, STEP * (slices // 2)]), np.linspace(0, 2 * np.pi, 120, endpoint=False)
    rings = []
    for k in range(slices):
        height = STEP * k - centre[2]
        if abs(height) < RADIUS:
            radius = np.sqrt(RADIUS**2 - height**2)
            ring = np.stack([radius * np.cos(angle), radius * np.sin(angle), 0 * angle + height], axis=1)
            rings.append(np.round(centre + ring, 4))
    return rings


def write_contours(path: Path, contours: list[np.ndarray], uids: dict[str, str]) -> None:
    """The RTSTRUCT."""
    from pydicom.dataset import Dataset

    ds = dataset("1.2.840.10008.5.1.4.1.1.481.3", "rtstruct", "RTSTRUCT", uids)
    ds.SeriesInstanceUID, ds.StructureSetLabel = uids["rt"], "GTV"
    roi, drawn = Dataset(), Dataset()
    roi.ROINumber, roi.ROIName, roi.ReferencedFrameOfReferenceUID, roi.ROIGenerationAlgorithm = (
        1,
        "GTV",
        uids["frame"],
        "",
    )
    drawn.ReferencedROINumber, drawn.ContourSequence = 1, []
    for points in contours:
        item = Dataset()
        item.ContourGeometricType, item.NumberOfContourPoints = "CLOSED_PLANAR", len(points)
        item.ContourData = [f"{value:.4f}" for value in points.ravel()]
        drawn.ContourSequence.append(item)
    frame, study, series = Dataset(), Dataset(), Dataset()
    series.SeriesInstanceUID = uids["series"]
    study.ReferencedSOPClassUID, study.ReferencedSOPInstanceUID = "1.2.840.10008.3.1.2.3.1", uids["study"]
    study.RTReferencedSeriesSequence = [series]
    frame.FrameOfReferenceUID, frame.RTReferencedStudySequence = uids["frame"], [study]
    ds.ReferencedFrameOfReferenceSequence = [frame]
    ds.StructureSetROISequence, ds.ROIContourSequence = [roi], [drawn]
    ds.save_as(path, enforce_file_format=True)


def dataset(sop_class: str, name: str, modality: str, uids: dict[str, str]):
    """What every DICOM object begins with."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, generate_uid

    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = sop_class
    ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=["peer", name])
    ds.PatientID, ds.PatientName, ds.Modality = "P1", "P1", modality
    ds.StudyInstanceUID, ds.StudyID, ds.SeriesNumber = uids["study"], "1", 1
    return ds
