"""RTSTRUCT: the closed planar contours of one ROI."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..dicom.dataset import parsing, read_dataset
from ..errors import InputError
from ..geometry import Floats
from ..images.image import Image
from ..recipe import Recipe
from .mask_file import DEFAULTS, NO_WORDS, ListedROI, cell_of, normal
from .reference import check_reference
from .roi import CENTER_ONLY, DrawnROI, References

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

RT_STRUCTURE_SET = "1.2.840.10008.5.1.4.1.1.481.3"
EXPORT_AGAIN = "export the RTSTRUCT again"
_CONTOUR_DATA = 0x30060050
_DECIMALS = re.compile(rb"[ 0-9.eE+\\-]*")
_CLOSED = "CLOSED_PLANAR"
_XOR = ("CLOSEDPLANAR_XOR", "CLOSED_PLANAR_XOR")


@dataclass(frozen=True, eq=False)
class StructureSet:
    """An RTSTRUCT as a `MaskFile`."""

    path: Path
    dataset: Dataset
    patient_id: str = ""

    def references(self, roi: str | None = None) -> References:
        """The series, when it is a single one, and the images and frame of one ROI."""
        with parsing(self.path):
            if roi is None:
                return References(_referenced_series(self.dataset))
            number, _, items = self._chosen(roi)
            return self._references(number, items)

    def rois(self) -> Iterator[ListedROI | InputError]:
        """Each ROI, and why one has no contours or no cell that names it."""
        for number, name in self.names.items():
            try:
                cell = cell_of(number, name, lambda text: choose_roi(text, self.names)[0])
                yield ListedROI(cell, self.references(cell))
            except InputError as error:
                yield error

    def read(self, roi: str, image: Image, accept: Set[str] = NO_WORDS, recipe: Recipe = DEFAULTS) -> DrawnROI:
        """One ROI's contours, which lie on the image's slices."""
        with parsing(self.path):
            drawn = self.drawn(roi, accept)
            return replace(drawn, notes=drawn.notes + check_reference(drawn, image, accept))

    def drawn(self, roi: str, accept: Set[str] = NO_WORDS) -> DrawnROI:
        """One ROI as drawn.

        Parameters
        ----------
        roi : str
            ROI name, or ROI number where names repeat; blank when the file has a single ROI with contours. A name that
            differs in case, width or surrounding space is accepted when only one does.
        accept : set of str
            The row's words: `stray` leaves contours of fewer than three points out, whatever their type.

        Raises
        ------
        InputError
            When the ROI is not there, is ambiguous, has no contours, or has contours that enclose no area, but for a
            single POINT.
        """
        with parsing(self.path):
            number, name, items = self._chosen(roi)
            kinds = [str(item.get("ContourGeometricType", "")).strip().upper() for item in items]
            contours = [_points(item, name) for item in items]
            kept, notes = [0], tuple[str, ...]()
            if kinds != ["POINT"] or len(contours[0]) != 1:
                _check_kinds(kinds, contours, name)
                kept, notes = _without_strays(contours, name, accepted="stray" in accept)
            return DrawnROI(
                name,
                contours=tuple(contours[i] for i in kept),
                refers=self._references(number, items),
                images=tuple(_images(items[i]) for i in kept),
                xor=any(kinds[i] in _XOR for i in kept),
                notes=notes,
            )

    @cached_property
    def names(self) -> dict[int, str]:
        """ROI numbers with contours or without, and their names."""
        with parsing(self.path):
            items = self.dataset.get("StructureSetROISequence") or ()
            numbered = ((item.get("ROINumber"), str(item.get("ROIName", "")).strip()) for item in items)
            return {int(number): name for number, name in numbered if number is not None}

    @cached_property
    def contours(self) -> dict[int, list[Dataset]]:
        """The contours of each ROI that has any, by its number."""
        found: dict[int, list[Dataset]] = {}
        for entry in self.dataset.get("ROIContourSequence") or ():
            number, items = entry.get("ReferencedROINumber"), entry.get("ContourSequence")
            if number is not None and items:
                found.setdefault(int(number), []).extend(items)
        return found

    def _chosen(self, roi: str) -> tuple[int, str, list[Dataset]]:
        """Number, name and contours of the ROI meant."""
        names = self.names
        if not roi:  # an ROI that was named but never drawn does not make the choice ambiguous
            names = {number: names.get(number, "") for number in self.contours} or names
        number, name = choose_roi(roi, names)
        items = self.dataset.get("StructureSetROISequence") or ()
        owners = [str(item.get("ROIName", "")) for item in items if item.get("ROINumber") == number]
        if len(owners) > 1:
            raise InputError(f"ROI number {number} is used by {owners}", EXPORT_AGAIN)
        if number not in self.contours:
            raise InputError(f"ROI {name!r} has no contours", "name another ROI, or contour it")
        return number, name, self.contours[number]

    def _references(self, number: int, items: Sequence[Dataset]) -> References:
        sop_uids = frozenset[str]().union(*map(_images, items))
        return References(_referenced_series(self.dataset), sop_uids, _frame_of_reference(self.dataset, number))


def open_rtstruct(path: Path, patient_id: str = "") -> StructureSet:
    """Read an RTSTRUCT file, whose PatientID its header has told; it is refused when it is another kind of object."""
    dataset = read_dataset(path, force=True)
    with parsing(path):
        if dataset.get("SOPClassUID") != RT_STRUCTURE_SET:
            found = f"a DICOM file of modality {dataset.get('Modality', 'unknown')}, not an RTSTRUCT"
            raise InputError(found, "give an RTSTRUCT, DICOM SEG, LIDC XML or label map as mask")
    return StructureSet(path, dataset, patient_id)


def choose_roi(roi: str, names: Mapping[int, str]) -> tuple[int, str]:
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
        raise InputError(f"{len(names)} ROIs: {listing}", "name one in the column roi")
    for same in (lambda name: name == roi, lambda name: _folded(name) == _folded(roi)):
        numbers = [number for number, name in names.items() if same(name)]
        if len(numbers) == 1:
            return numbers[0], names[numbers[0]]
        if len(numbers) > 1:
            found = f"{len(numbers)} ROIs are named like {roi!r}: numbers {', '.join(map(str, numbers))}"
            raise InputError(found, "give the ROI number in the column roi")
    if roi.isdecimal() and int(roi) in names:
        return int(roi), names[int(roi)]
    raise InputError(f"no ROI {roi!r} among {listing}", "mend the column roi")


def _folded(name: str) -> str:
    return normal(name).casefold()


def _images(item: Dataset) -> frozenset[str]:
    """The images that one contour is said to be drawn on."""
    named = item.get("ContourImageSequence") or ()
    return frozenset(str(image.get("ReferencedSOPInstanceUID", "")) for image in named) - {""}


def _points(item: Dataset, name: str) -> Floats:
    """Points of one contour, (n, 3) mm LPS, straight from the element's text: any VR, any length."""
    raw = item.get_item(_CONTOUR_DATA)
    value = raw.value if raw is not None else None
    try:
        parts = _decimals(value) if isinstance(value, bytes) else ([] if value is None else list(value))
        numbers = np.array(parts).astype(np.float64)
    except (ValueError, TypeError):
        raise InputError(f"ContourData of ROI {name!r} is not numbers", EXPORT_AGAIN) from None
    lost = not numbers.size and item.get("NumberOfContourPoints")  # an empty contour is a stray one
    if lost or numbers.size % 3 or not np.isfinite(numbers).all():
        found = f"ContourData of ROI {name!r} has {numbers.size} numbers, not finite x, y, z triplets"
        raise InputError(found, EXPORT_AGAIN)
    return numbers.reshape(-1, 3)


def _decimals(value: bytes) -> list[bytes]:
    """The texts of a value; numpy alone would take some that are no decimal numbers, and cut others at a NUL."""
    text = value.rstrip(b"\0 \r\n")
    if not text:
        return []
    if text.endswith(b"\\") and text.count(b"\\") % 3 == 0:
        text = text[:-1]  # some exporters end the last value as the others; the count shows that none is missing
    if not _DECIMALS.fullmatch(text):
        raise ValueError
    return text.split(b"\\")


def _check_kinds(types: Sequence[str], contours: Sequence[Floats], name: str) -> None:
    """Refuse types that enclose nothing, or two; those of one or two points beside others are strays of any type."""
    kinds = Counter(kind for kind, points in zip(types, contours, strict=True) if len(points) >= 3) or Counter(types)
    if wrong := {kind: n for kind, n in kinds.items() if kind not in (_CLOSED, *_XOR)}:
        listing = ", ".join(f"{n} {kind or 'without type'}" for kind, n in sorted(wrong.items()))
        do = "draw closed planar contours" if "POINT" not in wrong else CENTER_ONLY
        raise InputError(f"ROI {name!r} has contours that enclose nothing: {listing}", do)
    if len(kinds) > 1:
        raise InputError(f"ROI {name!r} mixes {' and '.join(sorted(kinds))}", "export it as one kind")


def _without_strays(contours: list[Floats], name: str, *, accepted: bool) -> tuple[list[int], tuple[str, ...]]:
    """Which contours can enclose something, and a note of those left out: exports leave pieces of 1 or 2 points."""
    whole = [i for i, contour in enumerate(contours) if len(contour) >= 3]
    stray = len(contours) - len(whole)
    if stray and not (accepted and whole):
        do = "delete or redraw them" + (", or put stray into the column accept to leave them out" if whole else "")
        raise InputError(f"{stray} contours of ROI {name!r} have fewer than 3 points", do, kind="stray")
    said = f"{stray} contours of fewer than 3 points are left out; accepted by the manifest"
    return whole, (said,) if stray else ()


def _frame_of_reference(dataset: Dataset, number: int) -> str:
    for item in dataset.get("StructureSetROISequence") or ():
        if item.get("ROINumber") == number and item.get("ReferencedFrameOfReferenceUID"):
            return str(item.ReferencedFrameOfReferenceUID)
    items = list(dataset.get("ReferencedFrameOfReferenceSequence") or ())
    return str(items[0].get("FrameOfReferenceUID", "")) if len(items) == 1 else ""


def _referenced_series(dataset: Dataset) -> frozenset[str]:
    """The SeriesInstanceUID the structure set refers to, when it is a single one."""
    uids = {
        str(series.get("SeriesInstanceUID", ""))
        for reference in dataset.get("ReferencedFrameOfReferenceSequence") or ()
        for study in reference.get("RTReferencedStudySequence") or ()
        for series in study.get("RTReferencedSeriesSequence") or ()
    }
    return frozenset(uids - {""}) if len(uids) == 1 else frozenset()
