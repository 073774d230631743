"""A DICOM Segmentation object (PS3.3 A.51) as it lies in its file: segments, frames, masks.

pydicom reads it, only the frames of the segment asked for. Bit-packed frames are unpacked here, since pydicom 3.0 fails
on one that begins or ends within a byte.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..dicom import pixel_data as decoding
from ..dicom.dataset import parsing, read_dataset
from ..errors import InputError
from ..geometry import orthonormal_axes
from ..images.voxel_grid import Grid, checked_size, make_grid
from .resample import Mask

SEGMENTATION = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7")
"""Segmentation Storage, and Label Map Segmentation Storage."""
FRACTION = 0.5
"""A voxel of a FRACTIONAL segment is in from this fraction on."""
EXPORT_AGAIN = "export the segmentation again"
_NATIVE = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.1.99")
_ENCODED = ("1.2.840.10008.1.2.5", "1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.90")  # RLE, JPEG-LS, JPEG 2000
_TOGETHER = 32
"""Coded frames that are in memory at once."""
_HEADER = ("SOPClassUID", "FrameOfReferenceUID", "ReferencedSeriesSequence", "SegmentSequence", "SegmentationType")


@dataclass(frozen=True)
class SegInfo:
    """What a segmentation says of itself.

    Attributes
    ----------
    series_uids : tuple of str
        SeriesInstanceUIDs it refers to.
    frame_of_reference : str
        Empty when it does not say.
    kind : str
        BINARY, FRACTIONAL or LABELMAP.
    segments : tuple of (int, str)
        Number and label of each segment; without the background of a LABELMAP.
    """

    series_uids: tuple[str, ...]
    frame_of_reference: str
    kind: str
    segments: tuple[tuple[int, str], ...]


@dataclass(frozen=True, eq=False)
class Plane:
    """Frame `index` of the pixel data: a grid one voxel deep, SpacingBetweenSlices and SliceThickness (0: unknown)."""

    index: int
    grid: Grid
    between: float
    thickness: float


def seg_info(path: str | Path) -> SegInfo:
    """Read what a segmentation refers to and its segments; no pixels.

    Raises
    ------
    InputError
        When it cannot be read or is no segmentation.
    """
    path = Path(path)
    dataset = read_dataset(path, force=True, stop_before_pixels=True, specific_tags=list(_HEADER))
    with parsing(path):
        return read_info(dataset)


def read_info(dataset: Any) -> SegInfo:
    """What a data set says of itself as a segmentation; it must be one."""
    if dataset.get("SOPClassUID") not in SEGMENTATION:
        raise InputError("not a DICOM segmentation", "give a DICOM SEG, RTSTRUCT, LIDC XML or label map")
    kind = str(_need(dataset, "SegmentationType"))
    if kind not in ("BINARY", "FRACTIONAL", "LABELMAP"):
        raise InputError(f"SegmentationType {kind!r} is unknown", EXPORT_AGAIN)
    series = tuple(str(_need(item, "SeriesInstanceUID")) for item in dataset.get("ReferencedSeriesSequence") or ())
    items = _need(dataset, "SegmentSequence")
    segments = tuple((int(_need(item, "SegmentNumber")), str(item.get("SegmentLabel", ""))) for item in items)
    segments = tuple((number, label) for number, label in segments if number or kind != "LABELMAP")  # 0: background
    if len({number for number, _ in segments}) < len(segments):
        raise InputError("two segments have one number", EXPORT_AGAIN)
    return SegInfo(series, str(dataset.get("FrameOfReferenceUID") or ""), kind, segments)


def read_planes(dataset: Any, kind: str, number: int) -> list[Plane]:
    """The frames that may show segment `number`."""
    frames = _need(dataset, "PerFrameFunctionalGroupsSequence")
    shared = (dataset.get("SharedFunctionalGroupsSequence") or [{}])[0]
    if len(frames) != int(_need(dataset, "NumberOfFrames")):
        raise InputError(f"NumberOfFrames is {dataset.NumberOfFrames}, described are {len(frames)}", EXPORT_AGAIN)
    size = (int(_need(dataset, "Columns")), int(_need(dataset, "Rows")), 1)
    checked_size((*size[:2], len(frames)))
    planes = []
    for index, frame in enumerate(frames):
        segment = _group(frame, shared, "SegmentIdentificationSequence") if kind != "LABELMAP" else None
        if segment is None or int(_need(segment, "ReferencedSegmentNumber")) == number:
            planes.append(_plane(index, frame, shared, size))
    return planes


def _plane(index: int, frame: Any, shared: Any, size: tuple[int, int, int]) -> Plane:
    measures = _group(frame, shared, "PixelMeasuresSequence")
    position = _need(_group(frame, shared, "PlanePositionSequence"), "ImagePositionPatient")
    orientation = _need(_group(frame, shared, "PlaneOrientationSequence"), "ImageOrientationPatient")
    axes = orthonormal_axes(orientation)
    rows, columns = (float(v) for v in _need(measures, "PixelSpacing"))
    if not min(rows, columns) > 0:
        raise InputError(f"PixelSpacing {rows:g}\\{columns:g}", EXPORT_AGAIN)
    grid = make_grid(size, [float(v) for v in position], axes * np.array([[columns], [rows], [1.0]]))
    depth = (float(measures.get(name) or 0) for name in ("SpacingBetweenSlices", "SliceThickness"))
    return Plane(index, grid, *depth)


def _group(frame: Any, shared: Any, name: str) -> Any:
    return (frame.get(name) or _need(shared, name))[0]


def _need(dataset: Any, name: str) -> Any:
    value = dataset.get(name)
    if not value and value != 0:
        raise InputError(f"{name} is missing", EXPORT_AGAIN)
    return value


def decode(path: Path, dataset: Any, planes: Sequence[Plane], kind: str, number: int) -> list[tuple[Plane, Mask]]:
    """The frames of `planes` that are not empty, as masks (rows, columns)."""
    least = FRACTION * int(_need(dataset, "MaximumFractionalValue")) if kind == "FRACTIONAL" else 1
    shown = []
    for plane, values in zip(planes, _frames(path, dataset, [plane.index for plane in planes]), strict=True):
        mask = values == number if kind == "LABELMAP" else values >= least
        if mask.any():
            shown.append((plane, mask))
    return shown


def _frames(path: Path, dataset: Any, indices: list[int]) -> Iterator[NDArray[Any]]:
    """Stored values of some frames, (rows, columns) each."""
    rows, columns = dataset.Rows, dataset.Columns
    bits, pixels = int(_need(dataset, "BitsAllocated")), _need(dataset, "PixelData")
    syntax = dataset.file_meta.get("TransferSyntaxUID")
    if not (syntax in _NATIVE if syntax else dataset.original_encoding[1]):  # without a name: native, little endian
        yield from _encoded(path, dataset, syntax, indices)
        return
    if bits not in (1, 8, 16):
        raise InputError(f"BitsAllocated is {bits}", EXPORT_AGAIN)
    expected = (rows * columns * int(dataset.NumberOfFrames) * bits + 7) // 8
    if not 0 <= len(pixels) - expected <= 1:
        raise InputError(f"{len(pixels)} bytes of pixel data, not {expected}", "copy the file again from its source")
    data, size = np.frombuffer(pixels, np.uint8), rows * columns * bits
    for start in (index * size for index in indices):
        piece = data[start // 8 : (start + size + 7) // 8]
        if bits == 1:
            piece = np.unpackbits(piece, bitorder="little")[start % 8 : start % 8 + size]
        yield piece.view(np.uint8 if bits == 1 else f"<u{bits // 8}").reshape(rows, columns)


def _encoded(path: Path, dataset: Any, syntax: Any, indices: list[int]) -> Iterator[NDArray[Any]]:
    if syntax not in _ENCODED:
        found = f"no decoder for transfer syntax {syntax.name} ({syntax})" if syntax else "big-endian pixel data"
        raise InputError(found, "convert it to an uncompressed transfer syntax")
    for start in range(0, len(indices), _TOGETHER):
        some = indices[start : start + _TOGETHER]
        yield from decoding.decode(path, str(syntax), (dataset.Rows, dataset.Columns), some)
