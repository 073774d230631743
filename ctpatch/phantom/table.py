"""The phantom's manifest: text rows in, the same rows with `image`, `mask` and `roi` filled in out."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from ..errors import InputError, Problems
from ..manifest.text import is_missing
from ..scan.table import text_cell
from ..store import replacing
from . import gastric_tumour, nodule
from .anatomy import MAX_LESIONS, TRAITS
from .scanner import GEOMETRIES

SHAPING = {
    "body": ("label", *TRAITS),
    "stomach": (*gastric_tumour.STAGES, *gastric_tumour.SIGNS),
    "lung": nodule.SIGNS,
}
"""What shapes a lesion in each anatomy. In stomach and lung the diagnosis does not: it shows in what goes with it."""
NEEDED = ("patient_id", "label")
FILLED = ("image", "mask", "roi")
FOLDER_NAME = re.compile(r"\w([\w .-]{0,62}[\w-])?")
"""A patient id that is a folder name on every system and fits DICOM's 64 characters."""
ROI_NAME = re.compile(r"(?![=+@-])[^\\\x00-\x1f\x7f]{1,64}")
"""What DICOM's ROIName (VR LO) can hold and no spreadsheet takes for a formula: a manifest names it as it is."""

SEVERITY = re.compile(r"(0|1|0?\.[0-9]+|0\.|1\.0*)?")
"""A number from 0 to 1, or nothing."""


@dataclass(frozen=True)
class LesionRow:
    """One row: its line in the file, and its cells by column name in lower case."""

    line: int
    cells: Mapping[str, str]

    @property
    def patient_id(self) -> str:
        """The patient, as text."""
        return self.cells["patient_id"]

    @property
    def lesion_id(self) -> str:
        """The lesion, `1` when blank."""
        return self.cells.get("lesion_id") or "1"

    @property
    def roi(self) -> str:
        """The ROI's name, made from `lesion_id` when blank."""
        return self.cells.get("roi") or f"Lesion {self.lesion_id}"

    @property
    def geometry(self) -> str:
        """How the slices lie, `axial` when blank."""
        return (self.cells.get("geometry") or "axial").lower()

    @property
    def anatomy(self) -> str:
        """What is around the lesion, `body` when blank."""
        return (self.cells.get("anatomy") or "body").lower()

    @property
    def severity(self) -> float | None:
        """What the diagnosis and the signs come from, 0 to 1; None when blank."""
        cell = self.cells.get("severity", "")
        return float(cell) if cell else None


@dataclass(frozen=True)
class PhantomTable:
    """A checked manifest: column names as written, and its rows."""

    columns: tuple[str, ...]
    rows: tuple[LesionRow, ...]

    def by_patient(self) -> dict[str, tuple[LesionRow, ...]]:
        """Rows of each patient by `lesion_id`; patients in the order of the file."""
        patients: dict[str, list[LesionRow]] = {}
        for row in self.rows:
            patients.setdefault(row.patient_id, []).append(row)
        return {patient: tuple(sorted(found, key=lambda row: row.lesion_id)) for patient, found in patients.items()}

    def levels(self, row: LesionRow, rng: np.random.Generator) -> dict[str, float]:
        """Level in 0..1 of what shapes the row's lesion; a blank or absent one is drawn at random."""
        names = SHAPING[row.anatomy]
        levels = {
            name: _pick(self._scales[name], row.cells.get(column_of(name), ""), drawn)
            for name, drawn in zip(names, rng.random(len(names)), strict=True)
        }
        if row.anatomy != "body":
            drawn = float(rng.random())
            levels["severity"] = drawn if row.severity is None else row.severity
        return levels

    @cached_property
    def _scales(self) -> dict[str, dict[str, float]]:
        names = {name for row in self.rows for name in SHAPING[row.anatomy]}
        return {name: rank_levels(row.cells.get(column_of(name), "") for row in self.rows) for name in names}


def column_of(trait: str) -> str:
    """The manifest column of a trait, as `LesionRow.cells` has it."""
    return trait if trait == "label" else f"aux_{trait}".lower()


def rank_levels(cells: Iterable[str]) -> dict[str, float]:
    """Evenly spaced level in 0..1 of each distinct known value, in numeric order when all are numbers.

    A single value is at 0: there is nothing to tell apart.
    """
    values = {cell for cell in cells if not is_missing(cell)}
    try:
        ordered = sorted(values, key=lambda value: (float(value), value))
    except ValueError:
        ordered = sorted(values)
    return {value: rank / max(len(ordered) - 1, 1) for rank, value in enumerate(ordered)}


def read_table(path: Path) -> PhantomTable:
    """Read and check a phantom's manifest.

    Raises
    ------
    InputError
        When the file cannot be read as CSV or needed columns are missing.
    Problems
        When rows are wrong: all of them at once.
    """
    header, lines = _read_csv(path)
    names = [name.strip().lower() for name in header]
    _check_columns(names, path)
    uneven = [
        InputError(f"{len(cells)} cells under {len(names)} columns", "mend the row", path, row=line)
        for line, cells in lines
        if len(cells) != len(names)
    ]
    if uneven:
        raise Problems(uneven)
    rows = tuple(
        LesionRow(line, dict(zip(names, (cell.strip() for cell in cells), strict=True))) for line, cells in lines
    )
    table = PhantomTable(tuple(header), rows)
    problems = [*_row_problems(rows, path), *_patient_problems(table.by_patient(), path)]
    if problems:
        raise Problems(problems)
    return table


def write_table(path: Path, table: PhantomTable, places: Sequence[Sequence[str]]) -> Path:
    """Write `table` with the cells of `FILLED` replaced by `places`, one triple per row."""
    known = {name.strip().lower() for name in table.columns}
    names = [*(name.strip() for name in table.columns), *(name for name in FILLED if name not in known)]
    lines = io.StringIO()
    writer = csv.writer(lines, lineterminator="\n")
    writer.writerow(names)
    for row, place in zip(table.rows, places, strict=True):
        text = {name: text_cell(cell) for name, cell in row.cells.items()}
        cells = {**text, **dict(zip(FILLED, place, strict=True))}
        writer.writerow([cells[name.lower()] for name in names])
    with replacing(path) as file:
        file.write(lines.getvalue().encode())
    return path


def _read_csv(path: Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            header = file.readline()
            file.seek(0)
            reader = csv.reader(file, delimiter=max(",;\t", key=header.count), strict=True)
            lines = [(reader.line_num, cells) for cells in reader if any(cell.strip() for cell in cells)]
    except OSError as error:
        raise InputError(
            f"the manifest cannot be read ({error.strerror})", "give an existing CSV file", path
        ) from error
    except (csv.Error, UnicodeDecodeError) as error:
        raise InputError(f"not a CSV file in UTF-8 ({error})", "save the manifest as CSV UTF-8", path) from error
    if len(lines) < 2:
        raise InputError(f"{len(lines)} lines", "give a header and at least one row", path)
    return lines[0][1], lines[1:]


def _check_columns(names: Sequence[str], path: Path) -> None:
    missing = [name for name in NEEDED if name not in names]
    if missing:
        shown = ", ".join(names)
        raise InputError(f"no column {' and '.join(missing)} among {shown}", "add it", path, row=1)
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError(f"column {', '.join(twice)} stands twice", "remove one of them", path, row=1)


def _row_problems(rows: Iterable[LesionRow], path: Path) -> Iterable[InputError]:
    for row in rows:
        if not FOLDER_NAME.fullmatch(row.patient_id):
            yield InputError(
                f"patient_id {row.patient_id!r} cannot name a folder",
                "use up to 64 letters, digits, spaces, dots, hyphens and underscores",
                path,
                row=row.line,
            )
        if not ROI_NAME.fullmatch(row.roi):
            yield InputError(
                f"{row.roi!r} cannot name a DICOM ROI",
                "use up to 64 characters without backslash, none of =+-@ first",
                path,
                row.patient_id,
                row.line,
            )
        for what, known in (("geometry", GEOMETRIES), ("anatomy", SHAPING)):
            if getattr(row, what) not in known:
                found = f"unknown {what} {getattr(row, what)!r}"
                yield InputError(found, f"use one of {', '.join(known)}", path, row.patient_id, row.line)
        if row.anatomy != "body" and row.geometry != "axial":
            found = f"geometry {row.geometry} in a {row.anatomy}"
            yield InputError(found, "leave the geometry blank", path, row.patient_id, row.line)
        if not SEVERITY.fullmatch(row.cells.get("severity", "")):
            found = f"severity {row.cells['severity']!r}"
            yield InputError(found, "use a number from 0 to 1, or leave it blank", path, row.patient_id, row.line)


def _patient_problems(patients: Mapping[str, Sequence[LesionRow]], path: Path) -> Iterable[InputError]:
    folders: dict[str, str] = {}
    for patient, rows in patients.items():
        other = folders.setdefault(patient.casefold(), patient)
        last = rows[-1].line
        if other != patient:
            yield InputError(f"its folder is also that of patient {other}", "rename one", path, patient, rows[0].line)
        if len(rows) > MAX_LESIONS:
            found = f"{len(rows)} lesions; a phantom holds up to {MAX_LESIONS}"
            yield InputError(found, "give the others a patient of their own", path, patient, last)
        if len(rows) > 1 and any(row.anatomy != "body" for row in rows):
            yield InputError(
                "several lesions, not all in a body", "give each a patient of its own", path, patient, last
            )
        if len({row.geometry for row in rows}) > 1:
            found = f"geometries {', '.join(sorted({row.geometry for row in rows}))} of one patient"
            yield InputError(found, "give all rows of a patient the same one", path, patient, last)
        for column in ("lesion_id", "roi"):
            values = [getattr(row, column) for row in rows]
            if len(set(values)) < len(values):
                yield InputError(
                    f"{column} {', '.join(values)}: not distinct", "number the lesions", path, patient, last
                )


def _pick(scale: Mapping[str, float], value: str, drawn: float) -> float:
    # An unknown characteristic is there all the same; only the manifest does not say which it is.
    levels = list(scale.values()) or [0.0]
    return levels[int(drawn * len(levels))] if is_missing(value) else scale[value]
