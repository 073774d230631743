"""The CSV file as a table: its encoding, its columns, its records, and each record as a draft of a row."""

from __future__ import annotations

import csv
import difflib
import math
import os
import re
import sys
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TextIO, TypeVar

from ..errors import InputError, Problems
from .rows import ACCEPTED, Row
from .text import NUMBER, SHORTENED, is_missing, quoted

COLUMNS = (
    *("patient_id", "lesion_id", "image", "mask", "roi", "series_uid", "acquisition"),
    *("label", "split", "center", "accept"),
)
AUX_PREFIX = "aux_"
HEADER_MAX = 65536
"""Characters the header line may hold (below the limit of the `csv` module for one cell)."""
CELL_MAX = 4096
"""Characters a cell may hold: the longest path Linux takes."""
_DELIMITERS = (",", ";", "\t")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
PROBLEMS_MAX = 10_000
"""Problems that are reported together; further ones only cost memory."""

T = TypeVar("T")
_UNUSABLE: tuple[float, float, float] | None = (math.nan, math.nan, math.nan)  # a center is there, but not a point


@dataclass(frozen=True)
class Columns:
    """Where each column is; `ignored` are the unknown ones."""

    delimiter: str
    names: tuple[str, ...]
    known: Mapping[str, int]
    aux: Mapping[str, int]
    ignored: tuple[str, ...]


def encoding_problem(path: Path) -> InputError:
    """Names the first line that is not UTF-8: the decoder itself only knows its place in a buffer."""
    with open(path if path.is_file() else os.devnull, "rb") as file:  # a pipe cannot be read twice
        for line, raw in enumerate(file, start=1):
            try:
                raw.decode("utf-8")
            except UnicodeDecodeError as error:
                found = f"the manifest is not UTF-8 text (byte 0x{raw[error.start]:02x} in line {line})"
                return InputError(found, "save it as 'CSV UTF-8'", path.name, row=line)
    return InputError("the manifest is not UTF-8 text", "save it as 'CSV UTF-8'", path.name)


def read_columns(file: TextIO) -> Columns:
    """Find the delimiter that gives the most known columns, and the columns.

    Raises
    ------
    Problems
        For columns that are missing, twice there or misspelt.
    """
    text = file.readline(HEADER_MAX)
    if not text.strip() or "\0" in text or len(text) == HEADER_MAX:
        found = "is blank, holds NUL bytes or has no end"
        raise InputError(f"the header line {found}", "save the manifest as a CSV file in UTF-8", row=1)
    text = unicodedata.normalize("NFC", text)
    if text.casefold().startswith("sep="):
        raise InputError(
            f"the first line is a spreadsheet's {text.strip()!r}, not the header", "delete that line", row=1
        )
    parsed = {d: tuple(name.strip() for name in next(csv.reader([text], delimiter=d))) for d in _DELIMITERS}
    delimiter = max(parsed, key=lambda d: sum(is_known(name) for name in parsed[d]))
    names = parsed[delimiter]
    columns = Columns(
        delimiter,
        names,
        {name.casefold(): i for i, name in enumerate(names) if name.casefold() in COLUMNS},
        {name[len(AUX_PREFIX) :]: i for i, name in enumerate(names) if name.casefold().startswith(AUX_PREFIX)},
        tuple(name for name in names if name and not is_known(name)),
    )
    if problems := list(_header_problems(columns)):
        raise Problems(problems)
    return columns


def is_known(name: str) -> bool:
    """Whether a column has a meaning here."""
    return name.casefold() in COLUMNS or name.casefold().startswith(AUX_PREFIX)


def _header_problems(columns: Columns) -> Iterator[InputError]:
    counts = Counter(name.casefold() for name in columns.names if name)
    for name in (name for name, count in counts.items() if count > 1):
        yield InputError(f"column {quoted([name])} is there {counts[name]} times", "keep one of them", row=1)
    for name in columns.aux:
        if name != name.strip() or not name.strip(".") or "/" in name or _CONTROL.search(name):
            found = f"column {quoted([AUX_PREFIX + name])} has no usable name"
            yield InputError(found, f"name it {AUX_PREFIX}<characteristic>, without /", row=1)
    needed = {"patient_id", "image"} | (set() if "split" in columns.known else {"mask", "label"})
    missing = needed - set(columns.known)
    for name in columns.ignored:
        if suggestion := _near_miss(name, columns):
            missing.discard(suggestion)
            do = f"name it {suggestion}, or else unlike it"
            yield InputError(f"column {quoted([name])} is not known", do, row=1)
    if missing:
        needs = ", ".join(name for name in COLUMNS if name in missing)
        yield InputError(f"needed columns are missing: {needs} (found {quoted(columns.names)})", "add them", row=1)


def _near_miss(name: str, columns: Columns) -> str:
    """The known column that an unknown one was probably meant to be; only columns that are not there count."""
    squeezed = re.sub(r"[\W_]", "", name.casefold())
    if squeezed.startswith("aux"):
        return f"{AUX_PREFIX}<characteristic>"
    wanted = {column.replace("_", ""): column for column in COLUMNS if column not in columns.known}
    close = difflib.get_close_matches(squeezed, wanted, n=1, cutoff=0.8)
    return wanted[close[0]] if close else ""


def records(file: TextIO, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Line (where it starts) and stripped cells of each record; blank ones are passed over."""
    reader = csv.reader(file, delimiter=delimiter, strict=True)
    while True:
        line = reader.line_num + 2
        try:
            cells = [cell.strip() for cell in next(reader)]
        except StopIteration:
            return
        except csv.Error as error:
            do = "mend the quotes of this line (rows after it were not read)"
            raise InputError(f"the line is not CSV ({error})", do, row=line) from None
        if any(cells):
            yield line, cells


def shape_problem(cells: Sequence[str], columns: Columns) -> InputError | None:
    """Why a record cannot be a row: too few or many cells, control characters, an endless cell."""
    if len(cells) != len(columns.names):
        do = "give every line one cell per column, in quotes where it holds the separator"
        return InputError(f"the line has {len(cells)} cells, the header {len(columns.names)}", do)
    for name, cell in zip(columns.names, cells, strict=True):
        if match := _CONTROL.search(cell):
            found = f"column {quoted([name])} holds a line break or control character (U+{ord(match[0]):04X})"
            return InputError(found, "remove it, and check that quotes are closed")
        if len(cell) > CELL_MAX and is_known(name):
            found = f"column {quoted([name])} holds {len(cell)} characters"
            return InputError(found, f"use {CELL_MAX} at most, and check that quotes are closed")
    return None


@dataclass(frozen=True, slots=True)
class Draft:
    """A row, and what only the checks over all rows can judge: the id as typed, the characteristics as text."""

    row: Row
    typed_id: str
    aux: tuple[str, ...]


def read_rows(file: TextIO, columns: Columns, root: Path) -> tuple[list[Draft], list[InputError]]:
    """All rows that can be read, and the problems of their cells."""
    drafts, problems = [], []
    try:
        for line, cells in records(file, columns.delimiter):
            if (shape := shape_problem(cells, columns)) is not None:
                at = columns.known["patient_id"]
                problems.append(shape.at(row=line, patient=cells[at][:CELL_MAX] if at < len(cells) else ""))
            else:
                draft, found = _draft(line, cells, columns, root)
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


def _draft(line: int, cells: Sequence[str], columns: Columns, root: Path) -> tuple[Draft, list[InputError]]:
    """One record as a row, with the problems of its single cells."""
    record = _Record(cells, columns.known)
    row = Row(
        line=line,
        patient_id=record.parsed(_patient_id, "patient_id", ""),
        lesion_id=sys.intern(record.text("lesion_id") or "1"),
        image_text=record.typed("image"),  # a file name keeps its Unicode form
        mask_text=record.typed("mask"),
        roi=sys.intern(record.text("roi")),
        series_uid=record.text("series_uid"),
        acquisition=record.text("acquisition"),
        label=sys.intern(record.text("label")),
        split=sys.intern(record.text("split").casefold()),
        center=record.parsed(_center, "center", _UNUSABLE),
        accept=record.parsed(_accept, "accept", frozenset()),
        root=root,
    )
    if not row.image_text:
        record.problems.append(InputError("image is blank", "give a DICOM folder or a volume file"))
    aux = tuple(sys.intern(unicodedata.normalize("NFC", cells[i])) for i in columns.aux.values())
    draft = Draft(row, record.typed("patient_id"), aux)
    return draft, [problem.at(patient=row.patient_id, row=line) for problem in record.problems]


def _patient_id(text: str) -> str:
    if is_missing(text):
        raise InputError(f"patient_id is {quoted([text]) if text else 'blank'}", "give the patient's pseudonym")
    if SHORTENED.fullmatch(text):
        found = f"patient_id {quoted([text])} is a long number that a spreadsheet has shortened"
        raise InputError(found, "format the column as text and type the ids again")
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
