"""The file: its encoding, its header, its records."""

from __future__ import annotations

import csv
import difflib
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from ..errors import InputError, Problems
from .text import quoted

COLUMNS = ("patient_id", "lesion_id", "image", "mask", "roi", "series_uid", "label", "split", "center", "accept")
AUX_PREFIX = "aux_"
HEADER_MAX = 65536
"""Characters the header line may hold (below the limit of the `csv` module for one cell)."""
CELL_MAX = 4096
"""Characters a cell may hold: the longest path Linux takes."""
_DELIMITERS = (",", ";", "\t")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


@dataclass(frozen=True)
class Header:
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


def read_header(file: TextIO) -> Header:
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
    parsed = {d: tuple(name.strip() for name in next(csv.reader([text], delimiter=d))) for d in _DELIMITERS}
    delimiter = max(parsed, key=lambda d: sum(is_known(name) for name in parsed[d]))
    names = parsed[delimiter]
    header = Header(
        delimiter,
        names,
        {name.casefold(): i for i, name in enumerate(names) if name.casefold() in COLUMNS},
        {name[len(AUX_PREFIX) :]: i for i, name in enumerate(names) if name.casefold().startswith(AUX_PREFIX)},
        tuple(name for name in names if name and not is_known(name)),
    )
    if problems := list(_header_problems(header)):
        raise Problems(problems)
    return header


def is_known(name: str) -> bool:
    """Whether a column has a meaning here."""
    return name.casefold() in COLUMNS or name.casefold().startswith(AUX_PREFIX)


def _header_problems(header: Header) -> Iterator[InputError]:
    counts = Counter(name.casefold() for name in header.names if name)
    for name in (name for name, count in counts.items() if count > 1):
        yield InputError(f"column {quoted([name])} is there {counts[name]} times", "keep one of them", row=1)
    for name in header.aux:
        if name != name.strip() or not name.strip(".") or "/" in name or _CONTROL.search(name):
            found = f"column {quoted([AUX_PREFIX + name])} has no usable name"
            yield InputError(found, f"name it {AUX_PREFIX}<characteristic>, without /", row=1)
    needed = {"patient_id", "image"} | (set() if "split" in header.known else {"mask", "label"})
    missing = needed - set(header.known)
    for name in header.ignored:
        if suggestion := _near_miss(name, header):
            missing.discard(suggestion)
            do = f"name it {suggestion}, or else unlike it"
            yield InputError(f"column {quoted([name])} is not known", do, row=1)
    if missing:
        needs = ", ".join(name for name in COLUMNS if name in missing)
        yield InputError(f"needed columns are missing: {needs} (found {quoted(header.names)})", "add them", row=1)


def _near_miss(name: str, header: Header) -> str:
    """The known column that an unknown one was probably meant to be; only columns that are not there count."""
    squeezed = re.sub(r"[\W_]", "", name.casefold())
    if squeezed.startswith("aux"):
        return f"{AUX_PREFIX}<characteristic>"
    wanted = {column.replace("_", ""): column for column in COLUMNS if column not in header.known}
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


def shape_problem(cells: Sequence[str], header: Header) -> InputError | None:
    """Why a record cannot be a row: too few or many cells, control characters, an endless cell."""
    if len(cells) != len(header.names):
        do = "give every line one cell per column, in quotes where it holds the separator"
        return InputError(f"the line has {len(cells)} cells, the header {len(header.names)}", do)
    for name, cell in zip(header.names, cells, strict=True):
        if match := _CONTROL.search(cell):
            found = f"column {quoted([name])} holds a line break or control character (U+{ord(match[0]):04X})"
            return InputError(found, "remove it, and check that quotes are closed")
        if len(cell) > CELL_MAX and is_known(name):
            found = f"column {quoted([name])} holds {len(cell)} characters"
            return InputError(found, f"use {CELL_MAX} at most, and check that quotes are closed")
    return None
