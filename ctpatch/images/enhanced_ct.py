"""Enhanced multi-frame CT: the frames of one file as slices, in whatever order they lie there."""

from __future__ import annotations

from collections.abc import Set
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
    )


def _frame_types(*places: Dataset | None) -> list[str]:
    items = [_first(place, "CTImageFrameTypeSequence") for place in places]
    return [str(word) for item in items if item is not None for word in item.get("FrameType") or ()]


def _first(dataset: Dataset | None, sequence: str) -> Dataset | None:
    items = dataset.get(sequence) if dataset is not None else None
    return items[0] if items else None
