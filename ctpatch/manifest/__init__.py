"""The manifest: a CSV with one row per lesion, read as text, all its problems reported together.

The file is read in one pass (`table`); then come the checks that need every row (`checks`). Nothing here opens more of
an image or a mask than its first byte. `split` assigns splits where the manifest has none.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path

from ..errors import InputError, Problems, one_line
from .checks import (
    all_levels,
    class_notes,
    column_notes,
    doubles,
    file_problems,
    label_problems,
    look_alikes,
    split_problems,
    two_splits,
    with_aux,
)
from .rows import ACCEPTED, SPLITS, Manifest, Row, manifest_digest, overlap_rule
from .table import COLUMNS, PROBLEMS_MAX, Columns, Draft, encoding_problem, read_columns, read_rows
from .text import FORMULA, MISSING, guarded, patient_key, unguarded

__all__ = [
    "ACCEPTED",
    "COLUMNS",
    "FORMULA",
    "MISSING",
    "PROBLEMS_MAX",
    "SPLITS",
    "Examined",
    "Manifest",
    "Row",
    "class_notes",
    "examine_manifest",
    "guarded",
    "manifest_digest",
    "overlap_rule",
    "patient_key",
    "read_manifest",
    "unguarded",
]


@dataclass(frozen=True)
class Examined:
    """What a manifest says and what is wrong with it.

    Attributes
    ----------
    manifest : Manifest
        Of the rows that have no problem of their own.
    problems : tuple of InputError
        Those of the other rows, each with its line and patient.
    lesions : int
        Rows that could be read, with a problem or without.
    """

    manifest: Manifest
    problems: tuple[InputError, ...]
    lesions: int


def read_manifest(path: str | os.PathLike[str]) -> Manifest:
    """Read a manifest and check all that can be checked without opening an image.

    Parameters
    ----------
    path : path
        CSV in UTF-8 (with or without BOM), separated by commas, semicolons or tabs. Relative paths in it are
        relative to its folder.

    Returns
    -------
    Manifest

    Raises
    ------
    InputError
        When the file is not a table in UTF-8 at all.
    Problems
        All problems of the header, or else all problems of the rows, each with its line and patient.
    """
    examined = examine_manifest(path)
    if examined.problems:
        raise Problems(examined.problems)
    return examined.manifest


def examine_manifest(path: str | os.PathLike[str]) -> Examined:
    """Read a manifest as `read_manifest`, whose errors are those of the header alone: of the rows they are values."""
    path = Path(path)
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            columns = read_columns(file)
            drafts, problems = read_rows(file, columns, _root(path))
    except InputError as error:
        raise Problems(_placed([error], path)) from None
    except UnicodeDecodeError:
        raise encoding_problem(path) from None
    except OSError as error:
        found = f"the manifest cannot be read ({error.strerror})"
        raise InputError(found, "give the path of a CSV file", path) from None
    if not drafts and not problems:
        raise InputError("the manifest has a header but no rows", "add one row per lesion", path.name)
    return _assemble(path, columns, drafts, problems)


def _assemble(path: Path, columns: Columns, drafts: list[Draft], unread: list[InputError]) -> Examined:
    """The manifest of the rows that could be read, and every problem they have."""
    levels, aux_problems, aux_notes = all_levels(columns, drafts)
    drafts.sort(key=lambda draft: (draft.row.patient_id, draft.row.lesion_id, draft.row.line))
    rows = [draft.row for draft in drafts]
    has_split = any(row.split for row in rows)
    found = chain(
        unread,
        aux_problems,
        chain.from_iterable(split_problems(row, has_split) for row in rows),
        label_problems(rows),
        look_alikes(drafts),
        two_splits(rows),
        doubles(rows),
        file_problems(rows, _root(path)),
    )
    problems = list(islice(found, PROBLEMS_MAX))
    usable = _without_problems(drafts, problems)
    classes = tuple(sorted({row.label for row in rows if row.label}))
    counts = () if problems else class_notes(rows, classes)
    notes = map(one_line, (*column_notes(columns, has_split), *aux_notes, *counts))
    manifest = Manifest(path, with_aux(usable, columns, levels), classes, levels, has_split, tuple(notes))
    return Examined(manifest, _placed(problems, path), len(rows))


def _without_problems(drafts: list[Draft], problems: list[InputError]) -> list[Draft]:
    """The rows of which nothing was found, nor of a file that they name: each of those is told once."""
    if len(problems) >= PROBLEMS_MAX:  # nobody knows what the rest has
        return []
    lines, files = {problem.row for problem in problems}, {problem.where for problem in problems} - {""}
    return [
        draft
        for draft in drafts
        if draft.row.line not in lines and not {draft.row.image_text, draft.row.mask_text} & files
    ]


def _root(path: Path) -> Path:
    """What relative paths of a manifest are relative to; absolute, so that no later change of directory matters."""
    return Path(os.path.abspath(path)).parent


def _placed(problems: Iterable[InputError], path: Path) -> tuple[InputError, ...]:
    """The problems in the order of their lines, placed in the manifest where they are not about another file."""
    flat = [inner for p in problems for inner in (p.problems if isinstance(p, Problems) else (p,))]
    placed = [p.at(where=path.name) for p in sorted(flat, key=lambda p: p.row or 0)]
    if len(placed) >= PROBLEMS_MAX:
        placed.append(InputError(f"there are {len(placed)} problems or more", "mend these first", path.name))
    return tuple(placed)
