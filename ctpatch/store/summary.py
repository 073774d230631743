"""What is in a store, in a few lines."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from ..errors import one_line
from ..manifest import SPLITS
from ..notes import Note, gathered
from . import PatchStore, open_store

MOST_LEVELS = 20
"""Levels without names are counted one by one up to this many."""


def describe_store(path: Path, *, verbose: bool = False) -> list[str]:
    """Lines that say what a store holds."""
    with open_store(path) as store:
        lines = [
            f"{path}: ctpatch store, {path.stat().st_size / 1e6:.1f} MB, sha256 {store.digest[:16]}…",
            *_splits(store),
            *_characteristics(store),
            *(f"skipped: patient {s.patient_id} lesion {s.lesion_id}: {s.reason}" for s in store.skipped.itertuples()),
            *_recipe(store, verbose=verbose),
        ]
    return [one_line(line) for line in lines]  # a stranger's store may hold terminal codes


def _splits(store: PatchStore) -> Iterator[str]:
    table = store.lesions
    for split in SPLITS:
        part = table[table.split == split]
        classes = ", ".join(f"{name or 'no label'} {n}" for name, n in part.label.value_counts().sort_index().items())
        view = store.split(split)
        yield (
            f"{split:5s}  {part.patient_id.nunique()} patients, {len(part)} lesions ({classes or 'none'}), "
            f"{len(view)} patches{'' if view.rgb is not None else ', HU only'}"
        )
    known = table.diameter_mm.dropna()
    if len(known):
        yield f"longest in-slice diameter {known.min():.1f} to {known.max():.1f} mm, median {known.median():.1f} mm"


def _characteristics(store: PatchStore) -> Iterator[str]:
    for name, levels in store.aux_levels.items():
        values: pd.Series[float] = store.lesions[f"aux_{name}"]
        found = sorted(values.dropna().unique())
        others = [value for value in found if value not in levels]
        named = levels | {value: f"({value:g})" for value in others if len(others) <= MOST_LEVELS}
        counts = [f"{level}: {int((values == value).sum())}" for value, level in named.items()]
        yield f"aux_{name}: " + ", ".join([*counts, f"unknown: {int(values.isna().sum())}"])


def _recipe(store: PatchStore, *, verbose: bool) -> Iterator[str]:
    recipe, provenance = store.recipe, store.provenance
    shown = ("seed", "patches", "augment", "rotate_deg", "shift_mm", "spacing_mm")
    if chosen := [f"{name} {recipe[name]}" for name in shown if name in recipe]:
        yield "recipe: " + ", ".join(chosen)
    if versions := _object(provenance, "versions"):
        yield "made with " + ", ".join(f"{name} {version}" for name, version in versions.items())
    told = _object(provenance, "notes").items()
    notes = [Note(who, str(note)) for who, lines in told for note in (lines if isinstance(lines, list) else [lines])]
    yield from (f"note: {note}" for note in (notes if verbose else gathered(notes)))


def _object(document: Mapping[str, Any], name: str) -> dict[str, Any]:
    """A JSON object in a document; empty when there is none, or what another program put there is none."""
    value = document.get(name)
    return value if isinstance(value, dict) else {}
