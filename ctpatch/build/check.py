"""Every problem of a manifest, its series and its contours, without decoding the CT's pixels."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..contours.roi import VoxelROI
from ..errors import CtpatchError, InputError
from ..manifest import Examined, Row, class_notes, examine_manifest
from ..notes import Note
from ..recipe import Recipe, check_fold
from .assembly import CopyGuard, place_problem
from .one_lesion import LesionPlan, plan_lesion
from .run import Progress, split_rows

SAME_LESION_DICE = 0.9
"""Two lesions of one patient that overlap more than this are probably one."""


@dataclass(frozen=True)
class CheckResult:
    """What a check found.

    Attributes
    ----------
    lesions : int
        Of the manifest.
    problems : tuple of CtpatchError
        What is wrong in the table, and of all other rows those that a build would refuse, with the first thing wrong;
        by line.
    notes : tuple of str
        What deserves a look and refuses nothing.
    """

    lesions: int
    problems: tuple[CtpatchError, ...]
    notes: tuple[str, ...]


def check_manifest(
    path: str | os.PathLike[str],
    recipe: Recipe,
    fold: tuple[int, int] | None = None,
    progress: Progress | None = None,
) -> CheckResult:
    """Do everything that a build does up to the pixels, also of rows beside others that are wrong in the table.

    Raises
    ------
    InputError
        When the manifest cannot be read as a table, or `fold` does not suit it.
    """
    check_fold(fold)
    path = Path(path)
    examined = examine_manifest(path)
    manifest = examined.manifest
    rows = _rows(examined, recipe.seed, fold)
    problems: list[CtpatchError] = list(examined.problems)
    told = manifest.has_split or examined.problems  # classes are counted once all rows are in order
    notes = [*manifest.notes, *(() if told else class_notes(rows, manifest.label_classes))]
    copies, masks = CopyGuard(), LesionPairs()
    for done, row in enumerate(rows, start=1):
        try:
            plan = plan_lesion(row, recipe)
            if problem := copies.problem(row, plan.image.uid, plan.image.content, plan.image.person):
                raise problem
            said = (*plan.notes, *masks.notes(plan), *copies.notes(row, plan.image.person))
            notes += [Note(f"patient={row.patient_id} row={row.line}", note) for note in said]
        except CtpatchError as problem:
            problems.append(place_problem(problem, row, path))
        if progress:
            progress(done, len(rows), f"patient={row.patient_id} lesion={row.lesion_id}")
    if examined.problems:  # by line, as a table is mended; rows come by patient
        problems.sort(key=lambda problem: (isinstance(problem, InputError) and problem.row) or math.inf)
    return CheckResult(examined.lesions, tuple(problems), tuple(notes))


def _rows(examined: Examined, seed: int, fold: tuple[int, int] | None) -> tuple[Row, ...]:
    """The rows that have no problem of their own, with a split.

    Where others have one and splits are assigned, a row may come to another when all are there.
    """
    try:
        return split_rows(examined.manifest, seed, fold)
    except InputError:
        if not examined.problems:
            raise
        return ()  # there may be patients enough once the table is in order


class LesionPairs:
    """Masks of the patient at hand: rows come by patient, and only within one can lesions be the same."""

    def __init__(self) -> None:
        self._patient = ""
        self._known: list[tuple[Row, str, VoxelROI]] = []

    def notes(self, plan: LesionPlan) -> Iterator[str]:
        """A note for each earlier lesion of the patient with all but the same voxels."""
        for row, overlap in self.same(plan.row, plan.image.uid, plan.mask) if plan.mask else ():
            yield f"Dice {overlap:.2f} with the lesion of row {row.line}: the same lesion twice?"

    def same(self, row: Row, series: str, mask: VoxelROI) -> list[tuple[Row, float]]:
        """Each earlier lesion of the patient with all but the same voxels, and its Dice coefficient with this one."""
        if row.patient_id != self._patient:
            self._patient, self._known = row.patient_id, []
        overlaps = [(other, dice(known, mask)) for other, uid, known in self._known if uid == series]
        self._known.append((row, series, mask))
        return [(other, overlap) for other, overlap in overlaps if overlap > SAME_LESION_DICE]


def dice(a: VoxelROI, b: VoxelROI) -> float:
    """Dice coefficient of two masks on one grid."""
    low = np.maximum(a.corner, b.corner)
    high = np.minimum(np.add(a.corner, a.voxels.shape), np.add(b.corner, b.voxels.shape))
    if (high <= low).any():
        return 0.0
    pieces = [
        roi.voxels[tuple(slice(*ends) for ends in zip(low - roi.corner, high - roi.corner, strict=True))]
        for roi in (a, b)
    ]
    shared = np.count_nonzero(pieces[0] & pieces[1])
    return 2 * shared / (np.count_nonzero(a.voxels) + np.count_nonzero(b.voxels))
