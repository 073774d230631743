"""The study's patch stores: three folds of each cohort, and copies of them whose training lesions were changed."""

from __future__ import annotations

import runpy
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
from design import COPIES, FOLDS, PATCHES, Cell
from scipy.stats import spearmanr

from ctpatch import StoreWriter, open_store
from ctpatch.manifest import SPLITS, Row
from ctpatch.manifest.split import assign_splits

COLUMNS = ("plane", "copy", "center", "angle", "shift")
LESION = ("patient_id", "lesion_id", "split", "label", "series", "diameter_mm", "n_readers")


def make(cell: Cell, root: Path, crops: Path) -> Path:
    """The cell's store below `root`, made where it is not there yet from `crops` (LIDC) or `root`/cohorts."""
    path = root / "stores" / f"{cell.store}.h5"
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists():
        return path
    plain = Cell(cell.cohort, cell.backbone, "main", cell.fold, cell.seed, cell.archs)
    if cell.store != plain.store:
        derive(make(plain, root, crops), path, cell.variant)
    elif cell.cohort == "lidc":
        _lidc(crops, path, cell.fold)
    else:
        _simulated(cell, root / "cohorts" / cell.cohort, path)
    return path


def derive(source: Path, path: Path, variant: str) -> None:
    """A copy of a store in which the training lesions are changed; validation and test stay as they are.

    Parameters
    ----------
    source, path : Path
        The store to read, and the one to write.
    variant : str
        `blank`: a random half of all known levels is unknown. `shuffled`: whole rows of characteristics change places
        between the lesions, so that what they say of one another stays and what they say of the picture is lost.
        `patients10`, `patients30`: so many percent of the patients of each class (at least one), with their lesions.
    """
    with open_store(source) as store:
        lesions = changed(store.lesions, variant, np.random.default_rng(int(source.stem[-4])))
        aux = store.aux_levels
        made = {"recipe": store.recipe | {"study": variant}, "provenance": store.provenance}
        parts = {split: _by_lesion(store.split(split)) for split in SPLITS}
        with StoreWriter(path, label_classes=store.label_classes, aux_levels=aux, rgb=False, **made) as writer:
            for index, row in lesions.iterrows():
                levels = {name: row[f"aux_{name}"] for name in aux}
                writer.add(**row[list(LESION)], **parts[row["split"]][index], aux=levels)


def changed(lesions: pd.DataFrame, variant: str, rng: np.random.Generator) -> pd.DataFrame:
    """The table of a store's lesions as `variant` wants it, see `derive`; the rows left keep their index."""
    train = lesions["split"] == "train"
    names = list(lesions.filter(regex="^aux_"))
    table = lesions.copy()
    if variant == "shuffled":
        table.loc[train, names] = rng.permutation(table.loc[train, names].to_numpy())
    elif variant == "blank":
        known = table.loc[train, names]
        table.loc[train, names] = known.mask(rng.random(known.shape) < 0.5)
    else:
        share = int(variant.removeprefix("patients")) / 100
        strata = table[train].groupby("patient_id")["label"].max()
        kept = [_some(sorted(strata.index[strata == label]), share, rng) for label in sorted(set(strata))]
        table = table[~train | table["patient_id"].isin(np.concatenate(kept))]
    return table


def tasks(store: Path, positive: str, variant: str) -> list[str]:
    """What `--tasks` gets: NAME=W for each auxiliary task; `store` is the fold's, with no label changed.

    Spearman's |r| over its training lesions, kept where p < 0.05 but for `unrelated`,
    which keeps all that have two levels. `equal` gives each the mean of the kept ones' |r|, so that the auxiliary
    losses weigh as much in all. `shuffled` keeps the tasks and weights that the labels had in their places.
    """
    with open_store(store) as opened:
        train = opened.lesions[opened.lesions["split"] == "train"]
    label = (train["label"] == positive).astype(int)
    found = {}
    for name in train.filter(regex="^aux_"):
        known = train[name].notna()
        if train.loc[known, name].nunique() > 1:
            found[name.removeprefix("aux_")] = spearmanr(train.loc[known, name], label[known])
    kept = {name: abs(r.statistic) for name, r in found.items() if variant == "unrelated" or r.pvalue < 0.05}
    if variant == "equal":
        kept = dict.fromkeys(kept, float(np.mean(list(kept.values()))))
    return [f"{name}={weight:.6f}" for name, weight in kept.items()]


def _some(patients: list[str], share: float, rng: np.random.Generator) -> np.ndarray:
    return rng.permutation(patients)[: max(1, round(share * len(patients)))]


def _by_lesion(view: Any) -> Mapping[int, dict[str, np.ndarray]]:
    """Each lesion's patches and what was drawn for them."""
    whole = {name: np.asarray(getattr(view, name)) for name in ("hu", "lesion", *COLUMNS)}
    lesion = whole.pop("lesion")
    return {index: {name: values[lesion == index] for name, values in whole.items()} for index in np.unique(lesion)}


def _lidc(crops: Path, path: Path, fold: int) -> None:
    example = _example()
    table, hu = example.read_crops(crops)
    rows = [Row(2, patient, "", "", label=label) for patient, label in table.groupby("patient")["label"].max().items()]
    split = {row.patient_id: row.split for row in assign_splits(rows, seed=0, fold=(fold, FOLDS))}
    example.write_store(path, table, hu, split, COPIES, 0, False)


def _simulated(cell: Cell, cohort: Path, path: Path) -> None:
    patches, augment = PATCHES[cell.cohort]
    call = ["build", "--manifest", cohort / f"{cell.cohort}.csv", "--fold", f"{cell.fold}/{FOLDS}", "--out", path]
    call += ["--patches", patches, "--augment", augment, "--no-rgb"]
    subprocess.run([Path(sys.executable).with_name("ctpatch"), *call], check=True)


def _example() -> SimpleNamespace:
    return SimpleNamespace(**runpy.run_path(str(Path(__file__).parents[1] / "examples" / "lidc_crops.py")))
