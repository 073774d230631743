"""Which patients train, validate and test: a stratified assignment that only the ids, labels and seed decide."""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from ..errors import InputError
from ..recipe import check_fold
from . import Row


def assign_splits(rows: Iterable[Row], *, seed: int, fold: tuple[int, int] | None = None) -> tuple[Row, ...]:
    r"""The rows with their `split`, all rows of a patient in the same one.

    A patient's stratum is the last in sorted order of its rows' labels. Within a stratum of n patients, ordered by
    sha256("ctpatch-split-1\0{seed}\0{patient_id}") (UTF-8), the first ⌊0.1n + ½⌋ are val, the next ⌊0.3n + ½⌋
    test, the rest train. So neither the order of the rows nor the patients of other strata matter.

    Parameters
    ----------
    rows : iterable of Row
        Rows without a split.
    seed : int
        The seed of the build.
    fold : (int, int), optional
        (i, k): the i-th of k cross-validation splits instead. In the same order, test is the i-th of k contiguous
        parts of nearly equal size, val the next ⌊0.1n + ½⌋ patients after it (cyclically), the rest train. Over
        the k folds each patient is tested exactly once.

    Returns
    -------
    tuple of Row
        In the order given.

    Raises
    ------
    InputError
        When `fold` is not 1 <= i <= k with k >= 2, rows have a split already, or a stratum has fewer than k patients.
    """
    check_fold(fold)
    rows = tuple(rows)
    if given := [row for row in rows if row.split]:
        found = f"the manifest has its own splits ({len(given)} of {len(rows)} rows)"
        raise InputError(found, "leave out --fold, or the column split", row=given[0].line)
    splits: dict[str, str] = {}
    for label, patients in _strata(rows, seed).items():
        splits |= _fold(label, patients, *fold) if fold else _portions(patients)
    return tuple(replace(row, split=splits[row.patient_id]) for row in rows)


def parse_fold(text: str) -> tuple[int, int]:
    """`"2/5"` as (2, 5).

    Raises
    ------
    InputError
        When it is not i/k with 1 <= i <= k and k >= 2.
    """
    fold = parse_share(text)
    check_fold(fold, f"'{text[:40]}'")
    return fold


def parse_share(text: str) -> tuple[int, int]:
    """`"2/5"` as (2, 5), and (0, 0) for what is no two numbers."""
    match = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", text.strip())
    return (int(match[1]), int(match[2])) if match else (0, 0)


def _strata(rows: Sequence[Row], seed: int) -> Mapping[str, list[str]]:
    """The patients of each stratum in the order of their digests."""
    last: dict[str, str] = {}
    for row in rows:
        last[row.patient_id] = max(row.label, last.get(row.patient_id, ""))
    strata = defaultdict(list)
    for patient in sorted(last, key=lambda patient: _digest(seed, patient)):
        strata[last[patient]].append(patient)
    return strata


def _digest(seed: int, patient_id: str) -> bytes:
    return hashlib.sha256(f"ctpatch-split-1\0{seed}\0{patient_id}".encode()).digest()


def _val_count(n: int) -> int:
    return (n + 5) // 10  # ⌊0.1n + ½⌋ without the rounding of floats


def _portions(patients: Sequence[str]) -> dict[str, str]:
    """First val, then test, then train."""
    n = len(patients)
    val, test = _val_count(n), (3 * n + 5) // 10
    return dict(zip(patients, ["val"] * val + ["test"] * test + ["train"] * (n - val - test), strict=True))


def _fold(label: str, patients: Sequence[str], i: int, k: int) -> dict[str, str]:
    """The i-th (from 1) of k folds of a stratum."""
    n = len(patients)
    if n < k:
        found = f"class '{label}' has {n} patients, too few for each of {k} folds to test one"
        raise InputError(found, f"use {n} folds at most" if n > 1 else "add a split column instead of --fold")
    start, stop = (i - 1) * n // k, i * n // k
    splits = dict.fromkeys(patients, "train") | dict.fromkeys(patients[start:stop], "test")
    return splits | {patients[j % n]: "val" for j in range(stop, stop + _val_count(n))}
