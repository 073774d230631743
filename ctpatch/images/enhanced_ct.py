"""Enhanced multi-frame CT: the frames of one file as slices, in whatever order they lie there."""

from __future__ import annotations

from collections.abc import Sequence, Set
from pathlib import Path
from typing import TYPE_CHECKING

from ..dicom.dataset import parsing, read_dataset
from ..dicom.header import Header, finite, raw_value
from ..errors import InputError
from .ct_image import Slice, image_shape, padding_range, positive, rescale_slope, stored_format
from .units import check_units, mapped_units

if TYPE_CHECKING:
    from pydicom.dataset import Dataset


def read_frames(header: Header, accept: Set[str] = frozenset()) -> list[Slice]:
    """Each frame of an Enhanced CT image as a slice; `accept` holds the row's words.

    Raises
    ------
    InputError
        When a functional group that geometry or HU need is missing.
    """
    dataset = read_dataset(header.path, stop_before_pixels=True, force=True)
    with parsing(header.path):
        return _slices(header, dataset, accept)


def _slices(header: Header, dataset: Dataset, accept: Set[str]) -> list[Slice]:
    shared = _first(dataset, "SharedFunctionalGroupsSequence")
    per_frame = dataset.get("PerFrameFunctionalGroupsSequence") or []
    count = header.number("NumberOfFrames") or 1
    if len(per_frame) != count:
        found = f"{len(per_frame)} per-frame functional groups for {count} frames"
        raise InputError(found, "export the file again", header.path)
    if "MONOCHROME" not in header.text("PhotometricInterpretation") or count < 1:
        raise InputError("not a grey multi-frame image", "give the original file", header.path)
    return [_frame_slice(header, shared, group, number, accept) for number, group in enumerate(per_frame)]


def _frame_slice(header: Header, shared: Dataset | None, group: Dataset, number: int, accept: Set[str]) -> Slice:
    def numbers(sequence: str, keyword: str, size: int) -> tuple[float, ...]:
        for place in (group, shared):
            item = _first(place, sequence)
            if item is not None and keyword in item:
                text = raw_value(keyword, item.get_item(keyword))  # pydicom drops what NULs have overwritten
                return finite(keyword, str(text), size, header.path)
        raise InputError(f"{keyword} is missing in frame {number + 1}", "export the file again", header.path)

    pixel_value = "PixelValueTransformationSequence"
    transformation = _first(group, pixel_value) or _first(shared, pixel_value)
    kind = str(transformation.get("RescaleType", "")) if transformation else ""
    if "units" not in accept:
        check_units(header, kind, _frame_types(group, shared), mapped_units(group, shared))
    return Slice(
        header,
        position=numbers("PlanePositionSequence", "ImagePositionPatient", 3),
        orientation=numbers("PlaneOrientationSequence", "ImageOrientationPatient", 6),
        spacing=positive(header, "PixelSpacing", numbers("PixelMeasuresSequence", "PixelSpacing", 2)),
        shape=image_shape(header),
        format=stored_format(header),
        slope=rescale_slope(header, numbers(pixel_value, "RescaleSlope", 1)[0]),
        intercept=numbers(pixel_value, "RescaleIntercept", 1)[0],
        padding=None if "padding" in accept else padding_range(header),
        frame=number,
        own=_own(group, shared),
    )


_OWN = {
    "AcquisitionNumber": ("FrameContentSequence", "FrameAcquisitionNumber"),
    "TemporalPositionIdentifier": ("FrameContentSequence", "TemporalPositionIndex"),
    "AcquisitionTime": ("FrameContentSequence", "FrameAcquisitionDateTime"),
    "KVP": ("CTXRayDetailsSequence", "KVP"),
    "ConvolutionKernel": ("CTReconstructionSequence", "ConvolutionKernel"),
    "SliceThickness": ("PixelMeasuresSequence", "SliceThickness"),
}
"""Where a frame says what a single-frame image says under these keywords."""


def _own(group: Dataset, shared: Dataset | None) -> dict[str, str]:
    found = {}
    for keyword, (sequence, name) in _OWN.items():
        for place in (shared, group):  # a frame's own goes before what all share
            item = _first(place, sequence)
            if item is not None and (value := str(item.get(name, "") or "")):
                found[keyword] = value
    if types := _frame_types(group, shared):
        found["ImageType"] = "\\".join(types)
    return found


def check_concatenation(headers: Sequence[Header], path: Path) -> None:
    """Refuse several files in one series with multi-frame ones, unless they are all parts of one concatenation.

    A multi-frame image may be sent in parts (PS3.3 C.7.6.16.2.2.4); each part has its frames' own functional groups.
    """
    uids = {header.text("ConcatenationUID") for header in headers}
    if len(uids) > 1 or "" in uids:
        many = sum((header.number("NumberOfFrames") or 1) > 1 for header in headers)
        found = f"{len(headers)} files in one series with {many} multi-frame ones, which are no parts of one image"
        raise InputError(found, "give a folder with one of them", path)
    numbers = sorted(header.number("InConcatenationNumber") or 0 for header in headers)
    total = max(header.number("InConcatenationTotalNumber") or numbers[-1] for header in headers)
    missing = sorted(set(range(1, total + 1)) - set(numbers))
    if missing:
        found = f"part {', '.join(map(str, missing[:9]))} of {total} of the concatenated image is missing"
        raise InputError(found, "complete the series", path, kind="cut-off")
    if len(numbers) != total:
        raise InputError(f"{len(numbers)} parts of a concatenated image of {total}", "export the series again", path)


def _frame_types(*places: Dataset | None) -> list[str]:
    items = [_first(place, "CTImageFrameTypeSequence") for place in places]
    return [str(word) for item in items if item is not None for word in item.get("FrameType") or ()]


def _first(dataset: Dataset | None, sequence: str) -> Dataset | None:
    items = dataset.get(sequence) if dataset is not None else None
    return items[0] if items else None
