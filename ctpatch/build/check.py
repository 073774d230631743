"""Every problem of a manifest, its series and its contours, without decoding the CT's pixels."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..contours.roi import VoxelROI
from ..errors import CtpatchError
from ..manifest import Row, class_notes, read_manifest
from ..notes import Note
from ..recipe import Recipe
from .assembly import CopyGuard, place_problem
from .one_lesion import LesionPlan, plan_lesion
from .run import split_rows

SAME_LESION_DICE = 0.9
"""Two lesions of one patient that overlap more than this are probably one."""


@dataclass(frozen=True)
class CheckResult:
    """What a check found.

    Attributes
    ----------
    lesions : int
    problems : tuple of CtpatchError
        Lesions that a build would refuse, each once, with the first thing wrong.
    notes : tuple of str
        What deserves a look and refuses nothing.
    """

    lesions: int
    problems: tuple[CtpatchError, ...]
    notes: tuple[str, ...]


def check_manifest(
    path: Path,
    recipe: Recipe,
    fold: tuple[int, int] | None = None,
    progress: Callable[[int, int, str], None] | None = None,
) -> CheckResult:
    """Do everything that a build does up to the pixels.

    Raises
    ------
    InputError
        When the manifest itself is wrong: all its problems together.
    """
    manifest = read_manifest(path)
    rows = split_rows(manifest, recipe.seed, fold)
    problems: list[CtpatchError] = []
    notes = [*manifest.notes, *(() if manifest.has_split else class_notes(rows, manifest.label_classes))]
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
    return CheckResult(len(rows), tuple(problems), tuple(notes))


class LesionPairs:
    """Masks of the patient at hand: rows come by patient, and only within one can lesions be the same."""

    def __init__(self) -> None:
        self._patient = ""
        self._known: list[tuple[Row, str, VoxelROI]] = []

    def notes(self, plan: LesionPlan) -> Iterator[str]:
        """A note for each earlier lesion of the patient with all but the same voxels."""
        if plan.mask is None:
            return
        if plan.row.patient_id != self._patient:
            self._patient, self._known = plan.row.patient_id, []
        for row, series, mask in self._known:
            overlap = dice(mask, plan.mask) if series == plan.image.uid else 0.0
            if overlap > SAME_LESION_DICE:
                yield f"Dice {overlap:.2f} with the lesion of row {row.line}: the same lesion twice?"
        self._known.append((plan.row, plan.image.uid, plan.mask))


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
