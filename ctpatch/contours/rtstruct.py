"""RTSTRUCT: the closed planar contours of one ROI."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..dicom.dataset import parsing, read_dataset
from ..errors import InputError
from ..geometry import Floats
from .roi import DrawnROI

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

RT_STRUCTURE_SET = "1.2.840.10008.5.1.4.1.1.481.3"
_CONTOUR_DATA = 0x30060050
_DECIMALS = re.compile(rb"[ 0-9.eE+\\-]*")
_CLOSED = ("CLOSED_PLANAR",)
_XOR = ("CLOSEDPLANAR_XOR", "CLOSED_PLANAR_XOR")


def read_rtstruct(path: Path, roi: str, *, point: bool = False) -> DrawnROI:
    """One ROI of an RTSTRUCT.

    Parameters
    ----------
    path : Path
        An RTSTRUCT file.
    roi : str
        ROI name, or ROI number where names repeat; blank when the file has a single ROI with contours. A name that
        differs in case, width or surrounding space is accepted when only one does.
    point : bool
        Whether a single POINT is welcome (as the centre of a val/test row).

    Returns
    -------
    DrawnROI
        With one contour of one point for a POINT.

    Raises
    ------
    InputError
        When the ROI is not there, is ambiguous, has no contours, or has contours that enclose no area.
    """
    return drawn_roi(read_structure_set(path), roi, path, point=point)


def drawn_roi(dataset: Dataset, roi: str, path: Path, *, point: bool = False) -> DrawnROI:
    """One ROI of the data set of an RTSTRUCT; see `read_rtstruct`."""
    with parsing(path):
        return _drawn_roi(dataset, roi, path, point)


def _drawn_roi(dataset: Dataset, roi: str, path: Path, point: bool) -> DrawnROI:
    names = roi_names(dataset)
    if not roi:  # an ROI that was named but never drawn does not make the choice ambiguous
        names = {number: names.get(number, "") for number in contoured_rois(dataset)} or names
    number, name = choose_roi(roi, names, path)
    owners = [
        str(i.get("ROIName", "")) for i in dataset.get("StructureSetROISequence") or () if i.get("ROINumber") == number
    ]
    if len(owners) > 1:
        raise InputError(f"ROI number {number} is used by {owners}", "export the RTSTRUCT again", path)
    items = [c for entry in dataset.get("ROIContourSequence") or () for c in _contours_of(entry, number)]
    if not items:
        raise InputError(f"ROI {name!r} has no contours", "name another ROI, or contour it", path)
    contours = tuple(_points(item, name, path) for item in items)
    kinds = Counter(str(item.get("ContourGeometricType", "")).strip().upper() for item in items)
    _check_kinds(kinds, contours, name, point, path)
    return DrawnROI(
        name=name,
        contours=contours,
        frame_of_reference=_frame_of_reference(dataset, number),
        series_uid=referenced_series(dataset),
        sop_uids=frozenset(
            str(image.get("ReferencedSOPInstanceUID", ""))
            for item in items
            for image in item.get("ContourImageSequence") or ()
        ),
        xor=any(kind in _XOR for kind in kinds),
    )


def read_structure_set(path: Path) -> Dataset:
    """The data set of an RTSTRUCT file, refused when it is another kind of object."""
    dataset = read_dataset(path, force=True)
    with parsing(path):
        if dataset.get("SOPClassUID") != RT_STRUCTURE_SET:
            found = f"a DICOM file of modality {dataset.get('Modality', 'unknown')}, not an RTSTRUCT"
            raise InputError(found, "give an RTSTRUCT, DICOM SEG, LIDC XML or label map as mask", path)
    return dataset


def roi_names(dataset: Dataset) -> dict[int, str]:
    """ROI numbers with contours or without, and their names."""
    items = dataset.get("StructureSetROISequence") or ()
    return {int(n): str(item.get("ROIName", "")).strip() for item in items if (n := item.get("ROINumber")) is not None}


def contoured_rois(dataset: Dataset) -> tuple[int, ...]:
    """Numbers of the ROIs that have at least one contour."""
    entries = dataset.get("ROIContourSequence") or ()
    numbers = (entry.get("ReferencedROINumber") for entry in entries if entry.get("ContourSequence"))
    return tuple(dict.fromkeys(int(number) for number in numbers if number is not None))


def choose_roi(roi: str, names: dict[int, str], path: Path) -> tuple[int, str]:
    """Number and name of the ROI meant by `roi`.

    Raises
    ------
    InputError
        When none or several are meant; the message lists them.
    """
    listing = ", ".join(f"{number} {name!r}" for number, name in sorted(names.items())) or "none"
    if not roi:
        if len(names) == 1:
            return next(iter(names.items()))
        raise InputError(f"{len(names)} ROIs: {listing}", "name one in the column roi", path)
    for same in (lambda name: name == roi, lambda name: _folded(name) == _folded(roi)):
        numbers = [number for number, name in names.items() if same(name)]
        if len(numbers) == 1:
            return numbers[0], names[numbers[0]]
        if len(numbers) > 1:
            found = f"{len(numbers)} ROIs are named like {roi!r}: numbers {', '.join(map(str, numbers))}"
            raise InputError(found, "give the ROI number in the column roi", path)
    if roi.isdecimal() and int(roi) in names:
        return int(roi), names[int(roi)]
    raise InputError(f"no ROI {roi!r} among {listing}", "mend the column roi", path)


def _folded(name: str) -> str:
    return unicodedata.normalize("NFKC", name).strip().casefold()


def _contours_of(entry: Dataset, number: int) -> Iterable[Dataset]:
    return entry.get("ContourSequence") or () if entry.get("ReferencedROINumber") == number else ()


def _points(item: Dataset, name: str, path: Path) -> Floats:
    """Points of one contour, (n, 3) mm LPS, straight from the element's text: any VR, any length."""
    raw = item.get_item(_CONTOUR_DATA)
    value = raw.value if raw is not None else None
    try:
        parts = _decimals(value) if isinstance(value, bytes) else ([] if value is None else list(value))
        numbers = np.array(parts).astype(np.float64)
    except (ValueError, TypeError):
        raise InputError(f"ContourData of ROI {name!r} is not numbers", "export the RTSTRUCT again", path) from None
    if not numbers.size or numbers.size % 3 or not np.isfinite(numbers).all():
        found = f"ContourData of ROI {name!r} has {numbers.size} numbers, not finite x, y, z triplets"
        raise InputError(found, "export the RTSTRUCT again", path)
    return numbers.reshape(-1, 3)


def _decimals(value: bytes) -> list[bytes]:
    """The texts of a value; numpy alone would take some that are no decimal numbers, and cut others at a NUL."""
    text = value.rstrip(b"\0")
    if not _DECIMALS.fullmatch(text):
        raise ValueError
    return text.split(b"\\")


def _check_kinds(kinds: Counter[str], contours: tuple[Floats, ...], name: str, point: bool, path: Path) -> None:
    if kinds == {"POINT": 1} and point and len(contours[0]) == 1:
        return
    if wrong := {kind: n for kind, n in kinds.items() if kind not in (*_CLOSED, *_XOR)}:
        listing = ", ".join(f"{n} {kind or 'without type'}" for kind, n in sorted(wrong.items()))
        do = (
            "use a POINT only as the centre of a val or test row" if "POINT" in wrong else "draw closed planar contours"
        )
        raise InputError(f"ROI {name!r} has contours that enclose nothing: {listing}", do, path)
    if len(kinds) > 1:
        raise InputError(f"ROI {name!r} mixes {' and '.join(sorted(kinds))}", "export it as one kind", path)
    if short := sum(len(contour) < 3 for contour in contours):
        raise InputError(f"{short} contours of ROI {name!r} have fewer than 3 points", "delete or redraw them", path)


def _frame_of_reference(dataset: Dataset, number: int) -> str:
    for item in dataset.get("StructureSetROISequence") or ():
        if item.get("ROINumber") == number and item.get("ReferencedFrameOfReferenceUID"):
            return str(item.ReferencedFrameOfReferenceUID)
    items = list(dataset.get("ReferencedFrameOfReferenceSequence") or ())
    return str(items[0].get("FrameOfReferenceUID", "")) if len(items) == 1 else ""


def referenced_series(dataset: Dataset) -> str:
    """The SeriesInstanceUID the structure set refers to, when it is a single one."""
    uids = {
        str(series.get("SeriesInstanceUID", ""))
        for reference in dataset.get("ReferencedFrameOfReferenceSequence") or ()
        for study in reference.get("RTReferencedStudySequence") or ()
        for series in study.get("RTReferencedSeriesSequence") or ()
    }
    return uids.pop() if len(uids) == 1 else ""
