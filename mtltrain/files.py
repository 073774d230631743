"""Files that are whole or absent, and a run folder that one call at a time writes into."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import pandas as pd

from ctpatch.store import InputError

TEXT = ["patient_id", "lesion_id", "label", "task"]
"""Columns whose text comes from a manifest."""

FORMULA = r"[-=+@\t\r]"
"""What a spreadsheet takes for the beginning of a formula (CWE-1236)."""


@contextmanager
def replacing(path: Path, *, keep: bool = False) -> Iterator[IO[bytes]]:
    """A file that takes the name `path` once it is complete and on disk; with `keep`, the old one stays as `.old`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(path.name + ".tmp")
    with aside.open("wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())
    if keep and path.exists():
        path.replace(path.with_suffix(".old"))
    aside.replace(path)


def write(path: Path, content: str | bytes) -> None:
    """Write a file so that it is whole or absent; one that says the same already is left alone."""
    data = content.encode() if isinstance(content, str) else content
    if not path.exists() or path.read_bytes() != data:
        with replacing(path) as file:
            file.write(data)


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Write strict JSON: no NaN."""
    write(path, json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; empty where there is none."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def write_csv(path: Path, table: pd.DataFrame) -> None:
    """Write a table; text that a spreadsheet would run as a formula gets an apostrophe, which `read_csv` takes off."""
    write(path, _replaced(table, rf"^(?='*{FORMULA})", "'").to_csv(index=False, lineterminator="\n"))


def read_csv(path: Path) -> pd.DataFrame:
    """Read what `write_csv` wrote, everything as text: `007` stays `007`, what is unknown is ""."""
    return _replaced(pd.read_csv(path, dtype=str, keep_default_na=False), rf"^'(?='*{FORMULA})", "")


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a folder, made where it is missing; the system lets go of it however the process ends.

    Raises
    ------
    InputError
        If another process holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            found = "another mtltrain fit is at work in this folder"
            raise InputError(found, "wait for it, or name another folder with --out", folder) from None
        yield


def _replaced(table: pd.DataFrame, pattern: str, by: str) -> pd.DataFrame:
    columns = [name for name in TEXT if name in table]
    return table.assign(**{name: table[name].astype(str).str.replace(pattern, by, regex=True) for name in columns})
