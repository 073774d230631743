"""Small synthetic DICOM for the tests: CT series, RTSTRUCTs, manifests (pydicom; gdcm and OpenJPH for JPEG kinds).

Lengths are mm, coordinates DICOM LPS, arrays (z, y, x), intensities HU, pixel coordinates (column, row). The
same arguments give the same bytes; two different series of one test need a different `seed` or `patient_id`.
"""

from __future__ import annotations

import csv
import functools
import pickle
import tempfile
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence as Items
from pydicom.uid import UID, generate_uid
from pydicom.valuerep import format_number_as_ds

CT = UID("1.2.840.10008.5.1.4.1.1.2")
ENHANCED_CT = UID("1.2.840.10008.5.1.4.1.1.2.1")
RTSTRUCT = UID("1.2.840.10008.5.1.4.1.1.481.3")
TRANSFER_SYNTAXES = {
    "implicit": UID("1.2.840.10008.1.2"),
    "explicit": UID("1.2.840.10008.1.2.1"),
    "deflated": UID("1.2.840.10008.1.2.1.99"),
    "big-endian": UID("1.2.840.10008.1.2.2"),
    "rle": UID("1.2.840.10008.1.2.5"),
    "jpeg-lossless-14": UID("1.2.840.10008.1.2.4.57"),
    "jpeg-lossless": UID("1.2.840.10008.1.2.4.70"),
    "jpeg-ls": UID("1.2.840.10008.1.2.4.80"),
    "j2k": UID("1.2.840.10008.1.2.4.90"),
    "htj2k": UID("1.2.840.10008.1.2.4.201"),
}
"""Every one of them is lossless."""

AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
CORONAL = (1.0, 0.0, 0.0, 0.0, 0.0, -1.0)
SAGITTAL = (0.0, 1.0, 0.0, 0.0, 0.0, -1.0)
Edit = Callable[[Dataset, int], None]


@dataclass(frozen=True, eq=False)
class Series:
    """What was written, slices in order along n. `origins` are the numbers as they stand in the files."""

    folder: Path
    paths: tuple[Path, ...]
    series_uid: str
    study_uid: str
    frame_uid: str
    sop_uids: tuple[str, ...]
    axes: np.ndarray  # (3, 3): rows r, c, n
    origins: np.ndarray  # (K, 3)
    spacing: tuple[float, float]  # between rows, between columns
    shape: tuple[int, int, int]
    patient_id: str
    sop_class: str = CT

    @property
    def positions(self) -> np.ndarray:
        """Position of each slice along n from the first, (K,)."""
        return (self.origins - self.origins[0]) @ self.axes[2]

    def to_lps(self, k: int, pixels: Any, dz: float = 0.0) -> np.ndarray:
        """Pixels (..., 2) as (column, row) of slice `k`, moved `dz` mm along n, in LPS (..., 3)."""
        steps = np.asarray(pixels, float) * (self.spacing[1], self.spacing[0])
        return self.origins[k] + steps @ self.axes[:2] + dz * self.axes[2]

    def grid(self) -> np.ndarray:
        """LPS of every voxel centre, (z, y, x, 3)."""
        return grid(self.axes, self.origins, self.spacing, self.shape[1:])


def uid(*parts: Any) -> UID:
    """A valid UID that depends on `parts` only."""
    return generate_uid(entropy_srcs=["ctpatch-tests", *map(str, parts)])


def rotation_iop(degrees: tuple[float, float, float]) -> tuple[float, ...]:
    """An oblique ImageOrientationPatient: axial, rotated about x, then y, then z."""
    a, b, g = np.radians(degrees)
    rx = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    ry = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
    rz = np.array([[np.cos(g), -np.sin(g), 0], [np.sin(g), np.cos(g), 0], [0, 0, 1]])
    return tuple((rz @ ry @ rx)[:, :2].T.ravel())


def axes_of(iop: Sequence[float]) -> np.ndarray:
    """Rows r, c, n of an ImageOrientationPatient."""
    r, c = np.asarray(iop, float).reshape(2, 3)
    return np.array([r, c, np.cross(r, c)])


def slice_origins(
    positions: Any,
    origin: Sequence[float] = (0.0, 0.0, 0.0),
    iop: Sequence[float] = AXIAL,
    shear: tuple[float, float] = (0.0, 0.0),
) -> np.ndarray:
    """ImagePositionPatient of slices at `positions` along n; `shear` in mm along r and c per mm along n."""
    r, c, n = axes_of(iop)
    return np.asarray(origin, float) + np.outer(positions, n + shear[0] * r + shear[1] * c)


def grid(axes: np.ndarray, origins: np.ndarray, spacing: tuple[float, float], shape: Sequence[int]) -> np.ndarray:
    """LPS of every voxel centre, (z, y, x, 3)."""
    rows = np.arange(shape[0])[:, None, None] * spacing[0] * axes[1]
    columns = np.arange(shape[1])[None, :, None] * spacing[1] * axes[0]
    return np.asarray(origins)[:, None, None, :] + rows + columns


def linear_hu(
    shape: tuple[int, int, int],
    spacing: tuple[float, float] = (1.0, 1.0),
    positions: Any = None,
    origin: Sequence[float] = (0.0, 0.0, 0.0),
    iop: Sequence[float] = AXIAL,
    shear: tuple[float, float] = (0.0, 0.0),
    *,
    gradient: Sequence[float] = (1.0, 2.0, 5.0),
    offset: float = 0.0,
    decimals: int | None = None,
) -> np.ndarray:
    """HU = x + 2y + 5z + offset (LPS mm) at every voxel centre, (z, y, x) float64.

    `decimals=0` rounds to integers (off by up to 0.5 HU); without it, write with `slope=1 / 16` to be off by
    1/32 HU over a range of 4096 HU.
    """
    positions = np.arange(shape[0], dtype=float) if positions is None else positions
    origins = slice_origins(positions, origin, iop, shear)
    hu = grid(axes_of(iop), origins, spacing, shape[1:]) @ np.asarray(gradient, float) + offset
    return hu if decimals is None else np.round(hu, decimals)


def texture_hu(shape: tuple[int, int, int], seed: int = 0, low: int = -900, high: int = 900) -> np.ndarray:
    """Independent random integer HU per voxel, (z, y, x) float64: nothing smooth hides a misplaced slice."""
    return np.random.default_rng(seed).integers(low, high, shape, endpoint=True).astype(float)


def _remembered(write: Callable[..., Series]) -> Callable[..., Series]:
    """The same arguments give the same bytes: a small series that this process has written before is copied."""
    kept: OrderedDict[bytes, tuple[Series, list[bytes]]] = OrderedDict()

    @functools.wraps(write)
    def again(folder: Path, hu: Any, **options: Any) -> Series:
        if any(map(callable, options.values())) or np.size(hu) > 2**17:
            return write(folder, hu, **options)
        key = pickle.dumps((np.ascontiguousarray(hu, float), sorted(options.items(), key=lambda item: item[0])))
        if key not in kept:
            series = write(folder, hu, **options)
            kept[key] = series, [path.read_bytes() for path in series.paths]
            if len(kept) > 100:
                kept.popitem(last=False)
            return series
        kept.move_to_end(key)
        series, contents = kept[key]
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        paths = tuple(folder / path.name for path in series.paths)
        for path, content in zip(paths, contents, strict=True):
            path.write_bytes(content)
        return replace(series, folder=folder, paths=paths)

    return again


@_remembered
def write_series(
    folder: Path,
    hu: Any,
    *,
    spacing: tuple[float, float] = (1.0, 1.0),
    positions: Any = None,
    origin: Sequence[float] = (0.0, 0.0, 0.0),
    iop: Sequence[float] = AXIAL,
    shear: tuple[float, float] = (0.0, 0.0),
    origins: Any = None,
    slope: Any = 1,
    intercept: Any = -1024,
    transfer_syntax: str = "explicit",
    bits_allocated: int = 16,
    bits_stored: int = 16,
    signed: bool = False,
    high_bits: int | None = None,
    padding_mask: Any = None,
    padding_value: int | None = None,
    padding_range: int | None = None,
    names: Callable[[int], str] | None = None,
    shuffle: int | None = None,
    patient_id: str = "P1",
    seed: Any = 0,
    series_uid: str | None = None,
    study_uid: str | None = None,
    frame_uid: str | None = None,
    edit: Edit | None = None,
) -> Series:
    """Write a CT Image Storage series, one file per slice.

    Parameters
    ----------
    folder : Path
        Made when missing.
    hu : (z, y, x) array_like
        HU in order along n; stored as rint((hu − intercept) / slope), which must fit the stored bits.
    spacing : (float, float)
        PixelSpacing: between rows, between columns.
    positions : (z,) array_like, optional
        Slice positions along n in mm from `origin`, increasing; default 0, 1, 2, …
    origin, iop, shear
        As in `slice_origins`.
    origins : (z, 3) array_like, optional
        ImagePositionPatient of each slice, instead of the four above.
    slope, intercept : float or (z,) array_like
        Rescale values; for each slice its own when arrays.
    transfer_syntax : str
        A key of `TRANSFER_SYNTAXES`.
    high_bits : int, optional
        Written into the bits above BitsStored (as overlays were) instead of the sign.
    padding_mask : (z, y, x) bool array_like, optional
        Voxels stored as `padding_value`.
    padding_value, padding_range : int, optional
        Stored values for PixelPaddingValue, PixelPaddingRangeLimit; not written when None.
    names : callable, optional
        File name of slice k; default ``0000.dcm``, …
    shuffle : int, optional
        Seed of a permutation of the default names and of InstanceNumber.
    edit : callable, optional
        ``edit(dataset, k)`` changes slice k just before it is saved, after compression.
    """
    hu = np.asarray(hu, float)
    depth = len(hu)
    if origins is None:
        positions = np.arange(depth, dtype=float) if positions is None else positions
        origins = slice_origins(positions, origin, iop, shear)
    stored, slopes, intercepts = _stored_values(hu, slope, intercept)
    if padding_mask is not None:
        stored[np.asarray(padding_mask)] = padding_value
    pixels = _pixel_words(stored, bits_allocated, bits_stored, signed, high_bits)

    key = (seed, patient_id)
    study_uid = study_uid or uid("study", *key)
    series_uid = series_uid or uid("series", *key)
    frame_uid = frame_uid or uid("frame", *key)
    sop_uids = tuple(uid("slice", series_uid, k) for k in range(depth))
    number = np.arange(depth) if shuffle is None else np.random.default_rng(shuffle).permutation(depth)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    paths, written = [], []
    for k in range(depth):
        ds = _file_dataset(CT, sop_uids[k], patient_id, study_uid, series_uid, frame_uid)
        _describe_pixels(ds, pixels[k].shape, bits_allocated, bits_stored, signed)
        ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
        ds.InstanceNumber = int(number[k]) + 1
        ds.PixelSpacing = [_ds(v) for v in spacing]
        ds.ImageOrientationPatient = [_ds(v) for v in iop]
        ds.ImagePositionPatient = [_ds(v) for v in origins[k]]
        ds.RescaleSlope, ds.RescaleIntercept = _ds(slopes[k]), _ds(intercepts[k])
        ds.RescaleType = "HU"
        if padding_value is not None:
            ds.PixelPaddingValue = padding_value
        if padding_range is not None:
            ds.PixelPaddingRangeLimit = padding_range
        written.append([float(v) for v in ds.ImagePositionPatient])
        _encode(ds, pixels[k], transfer_syntax)
        if edit is not None:
            edit(ds, k)
        path = folder / (names(k) if names else f"{number[k]:04d}.dcm")
        ds.save_as(path, enforce_file_format=True)
        paths.append(path)
    return Series(
        folder,
        tuple(paths),
        series_uid,
        study_uid,
        frame_uid,
        sop_uids,
        axes_of(iop),
        np.array(written),
        (float(spacing[0]), float(spacing[1])),
        hu.shape,
        patient_id,
    )


def write_enhanced(
    path: Path,
    hu: Any,
    *,
    spacing: tuple[float, float] = (1.0, 1.0),
    positions: Any = None,
    origin: Sequence[float] = (0.0, 0.0, 0.0),
    iop: Sequence[float] = AXIAL,
    shear: tuple[float, float] = (0.0, 0.0),
    slope: Any = 1,
    intercept: Any = -1024,
    order: Sequence[int] | None = None,
    transfer_syntax: str = "explicit",
    patient_id: str = "P1",
    seed: Any = 0,
    edit: Callable[[Dataset], None] | None = None,
) -> Series:
    """Write one Enhanced CT multi-frame file whose frame i is slice ``order[i]``; the rest as `write_series`.

    Rescale values stand in the shared functional groups, or per frame when they differ.
    """
    hu = np.asarray(hu, float)
    depth = len(hu)
    positions = np.arange(depth, dtype=float) if positions is None else positions
    origins = slice_origins(positions, origin, iop, shear)
    stored, slopes, intercepts = _stored_values(hu, slope, intercept)
    order = range(depth) if order is None else order
    key = (seed, patient_id)
    study_uid, series_uid, frame_uid = uid("study", *key), uid("series", *key), uid("frame", *key)
    sop_uid = uid("enhanced", *key)

    ds = _file_dataset(ENHANCED_CT, sop_uid, patient_id, study_uid, series_uid, frame_uid)
    _describe_pixels(ds, hu.shape[1:], 16, 16, False)
    ds.ImageType = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    ds.InstanceNumber = 1
    ds.NumberOfFrames = depth
    shared = Dataset()
    shared.PixelMeasuresSequence = [_item(PixelSpacing=[_ds(v) for v in spacing])]
    shared.PlaneOrientationSequence = [_item(ImageOrientationPatient=[_ds(v) for v in iop])]
    rescale = [
        _item(RescaleSlope=_ds(a), RescaleIntercept=_ds(b), RescaleType="HU")
        for a, b in zip(slopes, intercepts, strict=True)
    ]
    same = len(set(zip(slopes, intercepts, strict=True))) == 1
    if same:
        shared.PixelValueTransformationSequence = [rescale[0]]
    frames = []
    for number, k in enumerate(order):
        frame = Dataset()
        frame.FrameContentSequence = [_item(DimensionIndexValues=[number + 1], FrameAcquisitionNumber=1)]
        frame.PlanePositionSequence = [_item(ImagePositionPatient=[_ds(v) for v in origins[k]])]
        if not same:
            frame.PixelValueTransformationSequence = [rescale[k]]
        frames.append(frame)
    ds.SharedFunctionalGroupsSequence = Items([shared])
    ds.PerFrameFunctionalGroupsSequence = Items(frames)
    _encode(ds, _pixel_words(stored[list(order)], 16, 16, False, None), transfer_syntax)
    if edit is not None:
        edit(ds)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    ds.save_as(path, enforce_file_format=True)
    written = np.array([[float(_ds(v)) for v in row] for row in origins])
    return Series(
        path.parent,
        (path,),
        series_uid,
        study_uid,
        frame_uid,
        (sop_uid,) * depth,
        axes_of(iop),
        written,
        (float(spacing[0]), float(spacing[1])),
        hu.shape,
        patient_id,
        ENHANCED_CT,
    )


def polygon(series: Series, k: int, pixels: Any, dz: float = 0.0) -> np.ndarray:
    """A contour on slice `k` through pixel coordinates (n, 2) as (column, row); (n, 3) LPS."""
    return series.to_lps(k, pixels, dz)


def circle(
    series: Series, k: int, centre: tuple[float, float], radius: float, n: int = 720, dz: float = 0.0
) -> np.ndarray:
    """A regular n-gon inscribed in a circle of `radius` px about `centre` (column, row); (n, 3) LPS."""
    angle = 2 * np.pi * np.arange(n) / n
    return series.to_lps(k, np.asarray(centre) + radius * np.stack([np.cos(angle), np.sin(angle)], axis=-1), dz)


def rectangle(
    series: Series, k: int, low: tuple[float, float], high: tuple[float, float], dz: float = 0.0
) -> np.ndarray:
    """A rectangle from `low` to `high` (column, row) of slice `k`; (4, 3) LPS."""
    (c0, r0), (c1, r1) = low, high
    return series.to_lps(k, [(c0, r0), (c1, r0), (c1, r1), (c0, r1)], dz)


def write_rtstruct(
    path: Path,
    rois: Mapping[str, Sequence[Any]],
    series: Series,
    *,
    geometric_type: str | Mapping[str, str] = "CLOSED_PLANAR",
    references: bool = True,
    frame_uid: str | None = None,
    series_uid: str | None = None,
    sop_uids: Sequence[str] | None = None,
    transfer_syntax: str = "explicit",
    edit: Callable[[Dataset], None] | None = None,
) -> Path:
    """Write an RTSTRUCT.

    Parameters
    ----------
    rois : mapping of str to sequence of (n, 3) array_like
        Each ROI's contours, LPS mm.
    series : Series
        What it refers to; each contour references the slice nearest along n.
    geometric_type : str or mapping of ROI name to str
        ContourGeometricType.
    references : bool
        False leaves out the referenced series and every ContourImageSequence.
    frame_uid, series_uid, sop_uids : optional
        Instead of the series' own.
    edit : callable, optional
        ``edit(dataset)`` just before it is saved.
    """
    frame_uid = frame_uid or series.frame_uid
    sop_uids = series.sop_uids if sop_uids is None else sop_uids
    own = uid("rtstruct", series.series_uid, *rois)
    ds = _file_dataset(RTSTRUCT, own, series.patient_id, series.study_uid, uid("rt", own), "")
    del ds.FrameOfReferenceUID
    ds.file_meta.TransferSyntaxUID = TRANSFER_SYNTAXES[transfer_syntax]
    ds.Modality = "RTSTRUCT"
    ds.StructureSetLabel = "TEST"
    ds.ReferencedFrameOfReferenceSequence = [
        _reference(series, series_uid or series.series_uid, frame_uid, sop_uids, references)
    ]
    ds.StructureSetROISequence, ds.ROIContourSequence, ds.RTROIObservationsSequence = (
        Items(),
        Items(),
        Items(),
    )
    for number, (name, contours) in enumerate(rois.items(), start=1):
        kind = geometric_type if isinstance(geometric_type, str) else geometric_type.get(name, "CLOSED_PLANAR")
        ds.StructureSetROISequence.append(
            _item(
                ROINumber=number,
                ReferencedFrameOfReferenceUID=frame_uid,
                ROIName=name,
                ROIGenerationAlgorithm="",
            )
        )
        items = Items(_contour(points, kind, series, sop_uids, references) for points in contours)
        ds.ROIContourSequence.append(_item(ROIDisplayColor=[255, 0, 0], ReferencedROINumber=number))
        if items:
            ds.ROIContourSequence[-1].ContourSequence = items
        ds.RTROIObservationsSequence.append(
            _item(
                ObservationNumber=number,
                ReferencedROINumber=number,
                RTROIInterpretedType="",
                ROIInterpreter="",
            )
        )
    if edit is not None:
        edit(ds)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    ds.save_as(path, enforce_file_format=True)
    return path


def write_manifest(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    """Write a manifest CSV; the columns are the rows' keys in order of appearance, missing cells blank."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return path


def _stored_values(hu: np.ndarray, slope: Any, intercept: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    slopes, intercepts = np.broadcast_to(slope, len(hu)), np.broadcast_to(intercept, len(hu))
    stored = np.rint((hu - intercepts[:, None, None]) / slopes[:, None, None]).astype(np.int64)
    return stored, slopes, intercepts


def _contour(points: Any, kind: str, series: Series, sop_uids: Sequence[str], references: bool) -> Dataset:
    points = np.asarray(points, float).reshape(-1, 3)
    item = _item(
        ContourGeometricType=kind, NumberOfContourPoints=len(points), ContourData=[_ds(v) for v in points.ravel()]
    )
    if references:
        k = int(np.argmin(abs((series.origins - points[0]) @ series.axes[2])))
        item.ContourImageSequence = [
            _item(ReferencedSOPClassUID=series.sop_class, ReferencedSOPInstanceUID=sop_uids[k])
        ]
    return item


def _ds(value: float) -> str:
    return format_number_as_ds(float(value))


def _reference(series: Series, series_uid: str, frame_uid: str, sop_uids: Sequence[str], references: bool) -> Dataset:
    item = _item(FrameOfReferenceUID=frame_uid)
    if references:
        images = [
            _item(ReferencedSOPClassUID=series.sop_class, ReferencedSOPInstanceUID=sop)
            for sop in dict.fromkeys(sop_uids)
        ]
        one = _item(SeriesInstanceUID=series_uid, ContourImageSequence=images)
        study = _item(
            ReferencedSOPClassUID="1.2.840.10008.3.1.2.3.1",
            ReferencedSOPInstanceUID=series.study_uid,
            RTReferencedSeriesSequence=[one],
        )
        item.RTReferencedStudySequence = [study]
    return item


def _item(**values: Any) -> Dataset:
    ds = Dataset()
    for keyword, value in values.items():
        setattr(ds, keyword, value)
    return ds


def _file_dataset(sop_class: str, sop_uid: str, patient_id: str, study: str, series: str, frame: str) -> Dataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = sop_class, sop_uid
    meta.TransferSyntaxUID = TRANSFER_SYNTAXES["explicit"]
    ds = Dataset()
    ds.file_meta = meta
    ds.SOPClassUID, ds.SOPInstanceUID = sop_class, sop_uid
    ds.StudyDate, ds.StudyTime, ds.AccessionNumber = "20200102", "030405", ""
    ds.Modality, ds.Manufacturer, ds.SeriesDescription = "CT", "TEST", "synthetic"
    ds.PatientName, ds.PatientID, ds.PatientBirthDate, ds.PatientSex = (
        f"NAME^{patient_id}",
        patient_id,
        "19500102",
        "O",
    )
    ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.FrameOfReferenceUID = study, series, frame
    ds.StudyID, ds.SeriesNumber = "1", 1
    return ds


def _describe_pixels(ds: Dataset, shape: Sequence[int], allocated: int, stored: int, signed: bool) -> None:
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.Rows, ds.Columns = int(shape[0]), int(shape[1])
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = allocated, stored, stored - 1
    ds.PixelRepresentation = int(signed)


def _pixel_words(stored: np.ndarray, allocated: int, bits: int, signed: bool, high_bits: int | None) -> np.ndarray:
    low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
    if stored.min() < low or stored.max() > high:
        raise ValueError(f"stored values {stored.min()}..{stored.max()} do not fit {low}..{high}")
    if high_bits is not None:
        stored = stored & ((1 << bits) - 1) | high_bits << bits
    return (stored & ((1 << allocated) - 1)).astype(f"<u{allocated // 8}")


def _encode(ds: Dataset, words: np.ndarray, transfer_syntax: str) -> None:
    target = TRANSFER_SYNTAXES[transfer_syntax]
    data = words.astype(words.dtype.newbyteorder(">")) if transfer_syntax == "big-endian" else words
    raw = data.tobytes()
    ds.PixelData = raw + b"\0" * (len(raw) % 2)
    ds["PixelData"].VR = "OB" if words.itemsize == 1 else "OW"
    if transfer_syntax in _GDCM:
        _encode_gdcm(ds, transfer_syntax)
    elif transfer_syntax == "htj2k":
        _encode_htj2k(ds, words)
    elif target.is_encapsulated:
        ds.compress(target, generate_instance_uid=False, encoding_plugin=_PLUGINS[transfer_syntax])
    ds.file_meta.TransferSyntaxUID = target


_PLUGINS = {"rle": "pydicom", "jpeg-ls": "pyjpegls"}  # gdcm's RLE aborts on images of odd size
_GDCM = {
    "jpeg-lossless-14": "JPEGLosslessProcess14",
    "jpeg-lossless": "JPEGLosslessProcess14_1",
    "j2k": "JPEG2000Lossless",
}


def _encode_htj2k(ds: Dataset, words: np.ndarray) -> None:
    imagecodecs = pytest.importorskip("imagecodecs", reason="imagecodecs, which makes HTJ2K, is for numpy 2")
    signed = words.view(f"<i{words.itemsize}") if ds.PixelRepresentation else words
    ds.PixelData = pydicom.encaps.encapsulate([bytes(imagecodecs.htj2k_encode(signed, reversible=True))])
    ds["PixelData"].VR = "OB"
    ds["PixelData"].is_undefined_length = True


def _encode_gdcm(ds: Dataset, transfer_syntax: str) -> None:
    import gdcm

    with tempfile.TemporaryDirectory() as folder:
        source, coded = Path(folder, "raw.dcm"), Path(folder, "coded.dcm")
        ds.save_as(source, enforce_file_format=True)
        reader = gdcm.ImageReader()
        reader.SetFileName(str(source))
        if not reader.Read():
            raise RuntimeError("gdcm cannot read the uncompressed slice")
        change = gdcm.ImageChangeTransferSyntax()
        change.SetTransferSyntax(gdcm.TransferSyntax(getattr(gdcm.TransferSyntax, _GDCM[transfer_syntax])))
        change.SetInput(reader.GetImage())
        if not change.Change():
            raise RuntimeError(f"gdcm cannot encode {transfer_syntax}")
        writer = gdcm.ImageWriter()
        writer.SetFileName(str(coded))
        writer.SetFile(reader.GetFile())
        writer.SetImage(change.GetOutput())
        if not writer.Write():
            raise RuntimeError("gdcm cannot write")
        ds.PixelData = pydicom.dcmread(coded).PixelData
        ds["PixelData"].VR = "OB"
        ds["PixelData"].is_undefined_length = True
