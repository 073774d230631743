"""From records to rows, and the problems that single cells have."""

from __future__ import annotations

import math
import re
import sys
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TextIO, TypeVar

from ..errors import InputError
from .file import CELL_MAX, Header, records, shape_problem
from .rows import ACCEPTED, Row
from .text import NUMBER, is_missing, quoted

PROBLEMS_MAX = 10_000
"""Problems that are reported together; further ones only cost memory."""

T = TypeVar("T")
_UNUSABLE: tuple[float, float, float] | None = (math.nan, math.nan, math.nan)  # a center is there, but not a point


@dataclass(frozen=True, slots=True)
class Draft:
    """A row, and what only the checks over all rows can judge: the id as typed, the characteristics as text."""

    row: Row
    typed_id: str
    aux: tuple[str, ...]


def read_rows(file: TextIO, header: Header, root: Path) -> tuple[list[Draft], list[InputError]]:
    """All rows that can be read, and the problems of their cells."""
    drafts, problems = [], []
    try:
        for line, cells in records(file, header.delimiter):
            if (shape := shape_problem(cells, header)) is not None:
                at = header.known["patient_id"]
                problems.append(shape.at(row=line, patient=cells[at][:CELL_MAX] if at < len(cells) else ""))
            else:
                draft, found = _draft(line, cells, header, root)
                drafts.append(draft)
                problems += found
            if len(problems) >= PROBLEMS_MAX:
                break
    except InputError as error:
        problems.append(error)
    return drafts, problems


@dataclass(frozen=True, slots=True)
class _Record:
    """The cells of one record by column, and the problems found in them."""

    cells: Sequence[str]
    known: Mapping[str, int]
    problems: list[InputError] = field(default_factory=list)

    def typed(self, column: str) -> str:
        return self.cells[self.known[column]] if column in self.known else ""

    def text(self, column: str) -> str:
        return unicodedata.normalize("NFC", self.typed(column))

    def parsed(self, parse: Callable[[str], T], column: str, otherwise: T) -> T:
        try:
            return parse(self.text(column))
        except InputError as error:
            self.problems.append(error)
            return otherwise


def _draft(line: int, cells: Sequence[str], header: Header, root: Path) -> tuple[Draft, list[InputError]]:
    """One record as a row, with the problems of its single cells."""
    record = _Record(cells, header.known)
    row = Row(
        line=line,
        patient_id=record.parsed(_patient_id, "patient_id", ""),
        lesion_id=sys.intern(record.text("lesion_id") or "1"),
        image_text=record.typed("image"),  # a file name keeps its Unicode form
        mask_text=record.typed("mask"),
        roi=sys.intern(record.text("roi")),
        series_uid=record.text("series_uid"),
        label=sys.intern(record.text("label")),
        split=sys.intern(record.text("split").casefold()),
        center=record.parsed(_center, "center", _UNUSABLE),
        accept=record.parsed(_accept, "accept", frozenset()),
        root=root,
    )
    if not row.image_text:
        record.problems.append(InputError("image is blank", "give a DICOM folder or a volume file"))
    aux = tuple(sys.intern(unicodedata.normalize("NFC", cells[i])) for i in header.aux.values())
    draft = Draft(row, record.typed("patient_id"), aux)
    return draft, [problem.at(patient=row.patient_id, row=line) for problem in record.problems]


def _patient_id(text: str) -> str:
    if is_missing(text):
        raise InputError(f"patient_id is {quoted([text]) if text else 'blank'}", "give the patient's pseudonym")
    return text


def _center(text: str) -> tuple[float, float, float] | None:
    """`x y z` in mm LPS; None when blank."""
    if not text:
        return None
    words = text.split()
    numbers = [float(word) for word in words if NUMBER.fullmatch(word) and "," not in word]
    if len(words) != 3 or len(numbers) != 3 or not all(map(math.isfinite, numbers)):
        do = "give x y z in mm (DICOM LPS) with spaces between, such as -12.5 40 -310"
        raise InputError(f"center {quoted([text])} is not three numbers", do)
    return numbers[0], numbers[1], numbers[2]


@lru_cache(maxsize=256)
def _accept(text: str) -> frozenset[str]:
    """Words of `ACCEPTED` separated by spaces, commas or semicolons."""
    words = frozenset(re.split(r"[\s,;]+", text.casefold())) - {""}
    if unknown := sorted(words - set(ACCEPTED)):
        raise InputError(f"accept has the unknown word {quoted(unknown)}", f"use only {', '.join(ACCEPTED)}")
    if {"overlap=union", "overlap=xor"} <= words:
        raise InputError("accept has both overlap=union and overlap=xor", "decide for one of them")
    return words
