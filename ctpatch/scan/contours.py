"""What is drawn in one RTSTRUCT, DICOM SEG or LIDC-IDRI XML: each ROI, what it refers to, and a check on an image."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from ..contours.lidc import LidcLesion, LidcRead, place_lesion, read_lidc
from ..contours.reference import check_reference as check_drawn
from ..contours.roi import DrawnROI
from ..contours.rtstruct import choose_roi, drawn_roi, read_structure_set, roi_names
from ..contours.seg import check_reference as check_seg
from ..contours.seg import choose_segment
from ..contours.seg_file import SegInfo, seg_info
from ..dicom.dataset import parsing
from ..errors import InputError
from ..images.image import Image
from ..lesion.mask import lesion_mask
from ..manifest import FORMULA

OTHER_FRAME = "its frame of reference is not the image's: put frame into the column accept if you know that they agree"
_SHOWN = 6


@dataclass(frozen=True, eq=False)
class Drawn:
    """One ROI.

    Attributes
    ----------
    roi : str
        The manifest cell that names it.
    series_uids, sop_uids : frozenset of str
        Series and images it refers to.
    frame_of_reference : str
        Empty when the file does not say.
    check : callable
        Raises InputError where the ROI does not fit an image; gives notes where it does.
    columns : mapping of str to str
        Further cells of its row.
    """

    roi: str
    series_uids: frozenset[str]
    sop_uids: frozenset[str]
    frame_of_reference: str
    check: Callable[[Image], tuple[str, ...]]
    columns: Mapping[str, str] = field(default_factory=dict)


_Item = Drawn | InputError | str


@dataclass(frozen=True, eq=False)
class Contents:
    """A file's ROIs, why others cannot be used, and what else deserves a line."""

    drawn: tuple[Drawn, ...]
    problems: tuple[InputError, ...]
    notes: tuple[str, ...]


def read_contours(path: Path, kind: str) -> Contents:
    """What is drawn in a file, in the file's order."""
    items: list[_Item]
    try:
        items = list(_READERS[kind](path))
    except InputError as error:
        items = [error]
    return Contents(
        tuple(item for item in items if isinstance(item, Drawn)),
        tuple(item.at(where=path) for item in items if isinstance(item, InputError)),
        tuple(item for item in items if isinstance(item, str)),
    )


def differ(uid: str, other: str) -> bool:
    """Two identifiers, both known, that are not the same."""
    return len({uid, other} - {""}) > 1


def _read_rtstruct(path: Path) -> Iterator[_Item]:
    dataset = read_structure_set(path)
    with parsing(path):
        names = roi_names(dataset)
    for number, name in names.items():
        try:
            cell = _cell(number, name, lambda text: choose_roi(text, names, path)[0])
            roi = drawn_roi(dataset, cell, path)
        except InputError as error:
            yield error
            continue
        uids = frozenset({roi.series_uid} - {""})
        yield Drawn(cell, uids, roi.sop_uids, roi.frame_of_reference, partial(_check_drawn, roi))


def _check_drawn(roi: DrawnROI, image: Image) -> tuple[str, ...]:
    other = differ(roi.frame_of_reference, image.frame_of_reference)
    notes = check_drawn(roi, image, accept_frame=other)
    return (*((OTHER_FRAME,) if other else notes), *_overlap(roi, image))


def _overlap(roi: DrawnROI, image: Image) -> tuple[str, ...]:
    """Whether the contours make a mask only once somebody says how overlapping ones combine."""
    try:
        lesion_mask(roi, image.stack)
    except InputError as error:
        lesion_mask(roi, image.stack, overlap="union")  # what a rule does not mend is refused
        return (f"ROI {roi.name!r}: {error.found}. Do: {error.do}",)
    return ()


def _read_seg(path: Path) -> Iterator[_Item]:
    info = seg_info(path)
    for number, label in info.segments:
        try:
            cell = _cell(number, label, lambda text: choose_segment(info.segments, text)[0])
        except InputError as error:
            yield error
            continue
        uids = frozenset(info.series_uids)
        yield Drawn(cell, uids, frozenset(), info.frame_of_reference, partial(_check_seg, info))


def _check_seg(info: SegInfo, image: Image) -> tuple[str, ...]:
    other = differ(info.frame_of_reference, image.frame_of_reference)
    notes = check_seg(info, image, frame_ok=other)
    return (OTHER_FRAME,) if other else notes


def _read_lidc(path: Path) -> Iterator[_Item]:
    read = read_lidc(path)
    uids = frozenset({read.series_uid} - {""})
    for lesion in read.lesions:
        check = partial(_check_lesion, read, lesion)
        yield Drawn(str(lesion.number), uids, read.sop_uids, "", check, _ratings(lesion))
    if read.small:
        places = [f"({z:g}, {row:g}, {column:g})" for z, row, column in read.small[:_SHOWN]]
        more = ", …" if len(read.small) > _SHOWN else ""
        shown = f"{', '.join(places)}{more}"
        yield f"{len(read.small)} marks of nodules < 3 mm, which have no outline: (z, row, column) {shown}"


def _check_lesion(read: LidcRead, lesion: LidcLesion, image: Image) -> tuple[str, ...]:
    return place_lesion(read, lesion, image).notes


def _ratings(lesion: LidcLesion) -> dict[str, str]:
    """The characteristics as aux columns; malignancy, from which labels are made, and the number of readers plain."""
    levels = {name: "" if level is None else str(level) for name, level in lesion.ratings.items()}
    plain = {"malignancy": levels.pop("malignancy"), "readers": str(lesion.n_readers)}
    return plain | {f"aux_{name.lower()}": level for name, level in levels.items()}


_READERS = {"rtstruct": _read_rtstruct, "seg": _read_seg, "lidc": _read_lidc}


def _cell(number: int, name: str, chosen: Callable[[str], int]) -> str:
    """The text that names an ROI in a manifest: its name, or its number where the name is no safe or unique cell."""
    text = unicodedata.normalize("NFC", name.strip())
    if text and text.isprintable() and not text.startswith(FORMULA):
        try:
            if chosen(text) == number:
                return text
        except InputError:  # several of one name: the number tells them apart
            pass
    if chosen(str(number)) != number:
        found = f"ROI {number} {name!r} has neither a name nor a number of its own"
        raise InputError(found, "rename it in the software that drew it")
    return str(number)
