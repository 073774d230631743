"""Rows of a manifest as a CSV file."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..errors import InputError, relative
from ..manifest import FORMULA, guarded
from ..store import replacing

COLUMNS = ("patient_id", "image", "mask", "roi", "series_uid", "lesion_id", "label")


def write_rows(rows: Sequence[Mapping[str, str]], out: Path) -> None:
    """Write rows (see `ScanResult`) as a manifest, paths relative to its folder.

    Raises
    ------
    InputError
        When there is nothing to write, or `out` exists or cannot be written.
    """
    if not rows:
        raise InputError("there is no CT series to write of", "see the notes for what was left out", out)
    columns = list(dict.fromkeys((*COLUMNS, *(name for row in rows for name in row))))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    folder = Path(os.path.abspath(out)).parent
    for row in rows:
        paths = {name: path_cell(Path(row[name]), folder) for name in ("image", "mask") if row[name]}
        writer.writerow({name: text_cell(cell) for name, cell in row.items()} | paths)
    check_out(out)
    try:
        with replacing(Path(out)) as file:
            file.write(text.getvalue().encode())
    except OSError as error:
        raise InputError(f"cannot be written ({error.strerror})", "give another --out", out) from None


def check_out(out: Path) -> None:
    """Refuse, before a scan of hours, a place where no manifest can be written."""
    if os.path.lexists(out):
        raise InputError("there is a file of this name already", "give another --out", out)
    if not Path(os.path.abspath(out)).parent.is_dir():
        raise InputError("cannot be written: there is no such folder", "make it, or give another --out", out)


def path_cell(path: Path, folder: Path) -> str:
    """A path as seen from `folder`, which spreadsheets leave alone."""
    seen = relative(path, folder)
    if not os.path.exists(folder / seen):  # a link on the way makes .. mean another folder
        seen = relative(path.resolve(), folder.resolve())
    text = seen.replace(os.sep, "/")
    return f"./{text}" if text.startswith((*FORMULA, " ", "'")) else text


def text_cell(text: str) -> str:
    """A cell that no spreadsheet runs; numbers stay as they are."""
    if not text.startswith(FORMULA):
        return text
    try:
        float(text)
    except ValueError:
        return guarded(text)
    return text
