"""A DICOM Segmentation object (PS3.3 A.51) as it lies in its file: segments, frames, masks.

pydicom reads it, only the frames of the segment asked for.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..dicom.dataset import DEFLATED, parsing, read_dataset
from ..dicom.header import EXPLICIT_LITTLE, IMPLICIT_LITTLE
from ..dicom.pixel_data import DECODERS, LOSSY, decode, native_frame, refuse_unknown
from ..errors import InputError
from ..geometry import orthonormal_axes
from ..images.voxel_grid import Grid, checked_size, make_grid
from .resample import Mask
from .roi import References

SEGMENTATION = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7")
"""Segmentation Storage, and Label Map Segmentation Storage."""
FRACTION = 0.5
"""A voxel of a FRACTIONAL segment is in from this fraction on."""
EXPORT_AGAIN = "export the segmentation again"
_NATIVE = (IMPLICIT_LITTLE, EXPLICIT_LITTLE, DEFLATED)
_TOGETHER = 32
"""Coded frames that are in memory at once."""
_HEADER = ("SOPClassUID", "FrameOfReferenceUID", "ReferencedSeriesSequence", "SegmentSequence", "SegmentationType")


@dataclass(frozen=True)
class SegInfo:
    """What a segmentation says of itself.

    Attributes
    ----------
    refers : References
    kind : str
        BINARY, FRACTIONAL or LABELMAP.
    segments : tuple of (int, str)
        Number and label of each segment; without the background of a LABELMAP.
    """

    refers: References
    kind: str
    segments: tuple[tuple[int, str], ...]


@dataclass(frozen=True, eq=False)
class SegFrame:
    """Frame `index` of the pixel data: a grid one voxel deep, SpacingBetweenSlices and SliceThickness (0: unknown)."""

    index: int
    grid: Grid
    between: float
    thickness: float


def seg_info(path: Path) -> SegInfo:
    """Read what a segmentation refers to and its segments; no pixels.

    Raises
    ------
    InputError
        When it cannot be read or is no segmentation.
    """
    dataset = read_dataset(path, force=True, stop_before_pixels=True, specific_tags=list(_HEADER))
    with parsing(path):
        return _info(dataset)


def segment_masks(path: Path, kind: str, number: int) -> list[tuple[SegFrame, Mask]]:
    """The frames of segment `number` that are not empty, as masks (rows, columns).

    Raises
    ------
    InputError
        When the file is damaged.
    """
    dataset = read_dataset(path, force=True)
    with parsing(path):
        frames = _frames(dataset, kind, number)
        least = FRACTION * int(_need(dataset, "MaximumFractionalValue")) if kind == "FRACTIONAL" else 1
        shown = []
        for frame, values in zip(frames, _stored(path, dataset, [frame.index for frame in frames]), strict=True):
            mask = values == number if kind == "LABELMAP" else values >= least
            if mask.any():
                shown.append((frame, mask))
        return shown


def _info(dataset: Any) -> SegInfo:
    if dataset.get("SOPClassUID") not in SEGMENTATION:
        raise InputError("not a DICOM segmentation", "give a DICOM SEG, RTSTRUCT, LIDC XML or label map")
    kind = str(_need(dataset, "SegmentationType"))
    if kind not in ("BINARY", "FRACTIONAL", "LABELMAP"):
        raise InputError(f"SegmentationType {kind!r} is unknown", EXPORT_AGAIN)
    referenced = dataset.get("ReferencedSeriesSequence") or ()
    series = frozenset(str(_need(item, "SeriesInstanceUID")) for item in referenced)
    images = (image for item in referenced for image in item.get("ReferencedInstanceSequence") or ())
    sop_uids = frozenset(str(image.get("ReferencedSOPInstanceUID", "")) for image in images) - {""}
    items = _need(dataset, "SegmentSequence")
    segments = tuple((int(_need(item, "SegmentNumber")), str(item.get("SegmentLabel", ""))) for item in items)
    segments = tuple((number, label) for number, label in segments if number or kind != "LABELMAP")  # 0: background
    if len({number for number, _ in segments}) < len(segments):
        raise InputError("two segments have one number", EXPORT_AGAIN)
    refers = References(series, sop_uids, str(dataset.get("FrameOfReferenceUID") or ""))
    return SegInfo(refers, kind, segments)


def _frames(dataset: Any, kind: str, number: int) -> list[SegFrame]:
    """The frames that may show segment `number`."""
    groups = _need(dataset, "PerFrameFunctionalGroupsSequence")
    shared = (dataset.get("SharedFunctionalGroupsSequence") or [{}])[0]
    if len(groups) != int(_need(dataset, "NumberOfFrames")):
        raise InputError(f"NumberOfFrames is {dataset.NumberOfFrames}, described are {len(groups)}", EXPORT_AGAIN)
    size = (int(_need(dataset, "Columns")), int(_need(dataset, "Rows")), 1)
    checked_size((*size[:2], len(groups)))
    frames = []
    for index, group in enumerate(groups):
        segment = _group(group, shared, "SegmentIdentificationSequence") if kind != "LABELMAP" else None
        if segment is None or int(_need(segment, "ReferencedSegmentNumber")) == number:
            frames.append(_frame(index, group, shared, size))
    return frames


def _frame(index: int, group: Any, shared: Any, size: tuple[int, int, int]) -> SegFrame:
    measures = _group(group, shared, "PixelMeasuresSequence")
    position = _need(_group(group, shared, "PlanePositionSequence"), "ImagePositionPatient")
    axes = orthonormal_axes(_need(_group(group, shared, "PlaneOrientationSequence"), "ImageOrientationPatient"))
    rows, columns = (float(v) for v in _need(measures, "PixelSpacing"))
    if not min(rows, columns) > 0:
        raise InputError(f"PixelSpacing {rows:g}\\{columns:g}", EXPORT_AGAIN)
    grid = make_grid(size, [float(v) for v in position], axes * np.array([[columns], [rows], [1.0]]))
    depth = (float(measures.get(name) or 0) for name in ("SpacingBetweenSlices", "SliceThickness"))
    return SegFrame(index, grid, *depth)


def _group(group: Any, shared: Any, name: str) -> Any:
    return (group.get(name) or _need(shared, name))[0]


def _need(dataset: Any, name: str) -> Any:
    value = dataset.get(name)
    if not value and value != 0:
        raise InputError(f"{name} is missing", EXPORT_AGAIN)
    return value


def _stored(path: Path, dataset: Any, indices: Sequence[int]) -> Iterator[NDArray[Any]]:
    """Stored values of some frames, (rows, columns) each."""
    shape, bits = (int(dataset.Rows), int(dataset.Columns)), int(_need(dataset, "BitsAllocated"))
    pixels, syntax = _need(dataset, "PixelData"), dataset.file_meta.get("TransferSyntaxUID")
    if syntax in DECODERS and syntax not in LOSSY:
        refuse_unknown(syntax, path)
        for start in range(0, len(indices), _TOGETHER):
            yield from decode(path, str(syntax), shape, indices[start : start + _TOGETHER])
        return
    if not (syntax in _NATIVE if syntax else dataset.original_encoding[1]):  # without a name: native, little endian
        found = f"no decoder for transfer syntax {syntax.name} ({syntax})" if syntax else "big-endian pixel data"
        raise InputError(found, "convert it to an uncompressed transfer syntax")
    if bits not in (1, 8, 16):
        raise InputError(f"BitsAllocated is {bits}", EXPORT_AGAIN)
    expected = (shape[0] * shape[1] * int(dataset.NumberOfFrames) * bits + 7) // 8
    each = (shape[0] * shape[1] * bits + 7) // 8 * int(dataset.NumberOfFrames)
    if bits == 1 and each > expected + 1 and 0 <= len(pixels) - each <= 1:
        found = f"each frame is padded to whole bytes: {len(pixels)} bytes of pixel data, not {expected}"
        raise InputError(found, EXPORT_AGAIN)
    if not 0 <= len(pixels) - expected <= 1:
        raise InputError(f"{len(pixels)} bytes of pixel data, not {expected}", "copy the file again from its source")
    yield from (native_frame(pixels, bits, shape, index) for index in indices)
