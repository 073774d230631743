"""A run folder's files: CSV and JSON that are whole or absent, and say the same when they are read again."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

from ctpatch.store import guarded, replacing, unguarded

from . import ARCHS

TEXT = ["patient_id", "lesion_id", "label", "task"]
"""Columns whose text comes from a manifest."""


def run_files(folder: Path, name: str) -> list[Path]:
    """The file of this name in each run of a run folder; a copy of a run, made beside it by hand, is no run."""
    found = sorted(folder.glob(f"*/seed-*/{name}"))
    return [p for p in found if p.parts[-3] in ARCHS and re.fullmatch("seed-(0|[1-9][0-9]*)", p.parts[-2])]


def write(path: Path, content: str | bytes) -> None:
    """Write a file so that it is whole or absent; one that says the same already is left alone."""
    data = content.encode() if isinstance(content, str) else content
    if not path.exists() or path.read_bytes() != data:
        path.parent.mkdir(parents=True, exist_ok=True)
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
    write(path, _mapped(table, guarded).to_csv(index=False, lineterminator="\n"))


def read_csv(path: Path) -> pd.DataFrame:
    """Read what `write_csv` wrote, everything as text: `007` stays `007`, what is unknown is ""."""
    return _mapped(pd.read_csv(path, dtype=str, keep_default_na=False), unguarded)


def _mapped(table: pd.DataFrame, function: Callable[[str], str]) -> pd.DataFrame:
    return table.assign(**{name: table[name].astype(str).map(function) for name in TEXT if name in table})
