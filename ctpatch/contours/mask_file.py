"""What every file of contours or voxels offers, whatever its format: its ROIs, what they refer to, one on an image."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Protocol

from ..dicom.header import Header
from ..errors import InputError
from ..images.image import Image, patient_digest
from ..manifest import FORMULA, MISSING
from ..recipe import Recipe
from .roi import DrawnROI, References, VoxelROI

NO_WORDS: frozenset[str] = frozenset()
"""Of a row that accepts nothing unusual."""
DEFAULTS = Recipe()
OTHER_PATIENT = "PatientID of the contours is not that of the images: another patient's contours?"


@dataclass(frozen=True)
class ListedROI:
    """One ROI of a file.

    Attributes
    ----------
    roi : str
        The manifest cell that names it.
    refers : References
    columns : mapping of str to str
        Further cells of its row.
    is_lesion : bool
        Whether its format knows nothing but lesions; otherwise it may be an organ.
    """

    roi: str
    refers: References
    columns: Mapping[str, str] = field(default_factory=dict)
    is_lesion: bool = False


class MaskFile(Protocol):
    """An opened RTSTRUCT, DICOM SEG, LIDC-IDRI XML or label map."""

    @property
    def patient_id(self) -> str:
        """The file's PatientID; empty where it has none."""
        ...

    def references(self, roi: str | None = None) -> References:
        """What one ROI refers to; without a name what the whole file does, its ROIs unread.

        Raises
        ------
        InputError
            When `roi` names none or several.
        """
        ...

    def rois(self) -> Iterator[ListedROI | InputError | str]:
        """Each ROI in the file's order, why one cannot be used, and what else deserves a line."""
        ...

    def read(
        self, roi: str, image: Image, accept: Set[str] = NO_WORDS, recipe: Recipe = DEFAULTS
    ) -> DrawnROI | VoxelROI:
        """One ROI that belongs to an image.

        Parameters
        ----------
        roi : str
            The manifest's cell; blank where the file has exactly one.
        image : Image
        accept : set of str
            What a careful person decided about this row (`manifest.rows.ACCEPTED`).
        recipe : Recipe

        Raises
        ------
        InputError
            When there is no such ROI, it is ambiguous or damaged, or it is of another image or grid and the row does
            not accept that.
        """
        ...


def patient_notes(mask: MaskFile, image: Image) -> tuple[str, ...]:
    """A note where contours and images have different PatientIDs: no refusal, de-identification changes them too."""
    theirs, ours = patient_digest(mask.patient_id), image.person.patient
    return (OTHER_PATIENT,) if theirs and ours and theirs != ours else ()


def patient_of(header: Header) -> str:
    """The PatientID of a DICOM file, read as that of images is; empty where it says nothing."""
    text = header.text("PatientID").strip()
    return "" if text.casefold() in MISSING else text


def named_like(wanted: str, names: Sequence[str]) -> list[int]:
    """Which names are `wanted`, but for width and surrounding space; where none is, but for case too."""
    plain = [normal(name) for name in names]
    exact = [i for i, name in enumerate(plain) if name == normal(wanted)]
    return exact or [i for i, name in enumerate(plain) if name.casefold() == normal(wanted).casefold()]


def normal(text: str) -> str:
    """A name without what only looks: width, surrounding space."""
    return unicodedata.normalize("NFKC", text).strip()


def cell_of(number: int, name: str, chosen: Callable[[str], int]) -> str:
    """The text that names an ROI in a manifest: its name, or its number where the name is no safe or unique cell.

    Raises
    ------
    InputError
        When `chosen`, which gives the number that a cell means, finds it by neither.
    """
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
