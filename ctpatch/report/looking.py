"""Every lesion of a store looked at: its patches, and where there is a manifest its image and contours."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import fields, replace
from pathlib import Path

import numpy as np

from ..build.check import LesionPairs
from ..build.engine import LocalRunner
from ..build.run import Progress
from ..errors import CtpatchError, InputError
from ..manifest import Row, read_manifest
from ..processes import WorkerDied
from ..recipe import Recipe
from ..store import PatchStore
from .cohort import Looked
from .from_manifest import look_at_row
from .from_store import look_at_patches


def manifest_rows(store: PatchStore, manifest_path: Path | None) -> list[Row | None] | None:
    """The manifest's row of each of the store's lesions, None where it has none; None without a manifest."""
    if manifest_path is None:
        return None
    manifest = read_manifest(manifest_path)
    found = {(row.patient_id, row.lesion_id): row for row in manifest.rows}
    ids = zip(store.lesions["patient_id"], store.lesions["lesion_id"], strict=True)
    rows = [found.get(pair) for pair in ids]
    if not any(rows):
        found_none = "the manifest has none of the store's lesions"
        raise InputError(found_none, "give the one that it was built from", manifest_path.name)
    return rows


def look_at_all(
    store: PatchStore, rows: Sequence[Row | None] | None, jobs: int, progress: Progress | None
) -> Iterator[Looked]:
    """Each lesion of the store, looked at; in worker processes where there are several."""
    recipe, lesions = recipe_of(store), store.lesions
    places = _places(store)
    calls = (
        (store, lesion.split, places[k], lesion.label, rows[k] if rows else None, recipe)
        for k, lesion in enumerate(lesions.itertuples())
    )
    pairs = LesionPairs()
    with closing(LocalRunner.sized(jobs, len(lesions)).run(look_at, calls)) as answers:
        for k, answer in enumerate(answers):
            if isinstance(answer, WorkerDied):
                who = f"patient={lesions.patient_id[k]} lesion={lesions.lesion_id[k]}"
                raise CtpatchError(f"{who}: its worker process ended ({answer}). Do: use fewer --jobs.")
            if progress:
                progress(k + 1, len(lesions), f"patient={lesions.patient_id[k]} lesion={lesions.lesion_id[k]}")
            yield _compared(answer, rows[k] if rows else None, pairs)


def _compared(looked: Looked, row: Row | None, pairs: LesionPairs) -> Looked:
    """A lesion with the patient's earlier ones that are all but the same; then its voxels are no longer needed."""
    if row is None or looked.row is None or looked.row.drawn is None:
        return looked
    same = pairs.same(row, looked.row.series, looked.row.drawn)
    twins = tuple(f"Dice {overlap:.2f} with lesion {other.lesion_id} of the patient" for other, overlap in same)
    return replace(looked, row=replace(looked.row, drawn=None, twins=twins))


def look_at(store: PatchStore, split: str, place: range, label: str, row: Row | None, recipe: Recipe) -> Looked:
    """One lesion's patches, rows `place` of its split, and its image and contours where there is a manifest's row."""
    view, windows = store.split(split), store.windows
    patches = look_at_patches(view, place, recipe.spacing_mm, windows)
    if row is None:
        return Looked(patches, None)
    centers = np.asarray(view.center[place.start : place.stop]) if view.center is not None else np.empty((0, 3))
    return Looked(patches, look_at_row(row, recipe, windows, centers, label, split))


def _places(store: PatchStore) -> list[range]:
    """The rows of each lesion's patches in its split; a store has them together, in the lesions' order."""
    numbers = {split: np.asarray(store.split(split).lesion) for split in store.lesions["split"].unique()}
    found = []
    for k, split in enumerate(store.lesions["split"]):
        start, stop = np.searchsorted(numbers[split], (k, k + 1))
        found.append(range(int(start), int(stop)))
    return found


def recipe_of(store: PatchStore) -> Recipe:
    """The recipe of a store; what another program's store does not say is as by default."""
    told, names = store.recipe, fields(Recipe)
    return Recipe(
        **{field.name: told[field.name] for field in names if type(told.get(field.name)) is type(field.default)}
    )
