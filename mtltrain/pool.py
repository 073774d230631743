"""One result from the folds of a cross-validation: every patient is tested once, by networks that never saw them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import pandas as pd

from ctpatch.store import InputError

from . import Settings
from .cohort import alike
from .compare import evaluate, load_metrics, plain, spread
from .files import read_csv, read_json

SAME = ("windows", "normalisation", "classes", "order", *(field.name for field in fields(Settings)))
"""Entries of config.json in which folds agree; the store and, as within a folder, the device may differ."""

Entries = dict[str, Any]
"""Of metrics.json or config.json."""


def pool_folds(folders: Sequence[Path]) -> tuple[dict[str, Any], pd.DataFrame]:
    """Put the out-of-fold predictions of several run folders together and evaluate them as one test.

    A lesion's probabilities come from its own fold's networks, averaged over the seeds. Folds share no test patient, so
    intervals and paired tests are those of a single split, clustered by patient where one has several lesions. The
    operating point is chosen in each fold on its own validation lesions. Pooling takes probabilities of different
    networks for comparable; beside it stand mean and SD of the folds' own figures.

    Parameters
    ----------
    folders : sequence of paths
        Run folders, one per fold.

    Returns
    -------
    metrics : dict
        As of `mtltrain.compare.evaluate`, with folds (their number), missing_folds (numbers, where the stores are folds
        of `ctpatch build --fold`), and over_folds in each run: name -> {values (one per fold), mean, sd}.
    predictions : DataFrame
        All rows of the folders' `predictions.csv`, with fold: 1, 2, ...

    Raises
    ------
    InputError
        If one is no run folder, the folders were not made alike, or a test patient is in two of them.
    """
    if len(folders) < 2:
        raise InputError(f"--pool of {len(folders)} folder", "name the run folders of all folds")
    for folder in folders:
        if not (folder / "config.json").exists():
            raise InputError("no run folder: it has no config.json", "name folders that `mtltrain fit` made", folder)
    alone = [load_metrics(folder) for folder in folders]
    configs = [read_json(folder / "config.json") for folder in folders]
    _refuse_unlike(folders, alone, configs)
    predictions, auxiliary = (_joined(folders, name) for name in ("predictions.csv", "auxiliary.csv"))
    _refuse_shared_patients(predictions, folders)
    metrics = evaluate(predictions, alone[0]["classes"], alone[0]["positive"], auxiliary=auxiliary)
    metrics |= {"folds": len(folders), "missing_folds": _missing(configs)}
    for run, entry in metrics["runs"].items():
        each = [fold["runs"][run]["metrics"] for fold in alone]
        entry["over_folds"] = {name: spread([row[name]["value"] for row in each]) for name in entry["metrics"]}
    return plain(metrics), predictions


def _joined(folders: Sequence[Path], name: str) -> pd.DataFrame:
    parts = [read_csv(folder / name).assign(fold=number) for number, folder in enumerate(folders, 1)]
    return pd.concat(parts, ignore_index=True)


def _refuse_unlike(folders: Sequence[Path], metrics: Sequence[Entries], configs: Sequence[Entries]) -> None:
    """Raise InputError unless the folders hold the same runs and seeds, made with the same settings."""
    made = [
        _made(config) | {"runs and seeds": {run: sorted(entry["seeds"]) for run, entry in found["runs"].items()}}
        for config, found in zip(configs, metrics, strict=True)
    ]
    for folder, one in zip(folders, made, strict=True):
        for key, value in one.items():
            if value != made[0].get(key, value):  # an earlier version wrote less down
                found = f"made with {key} = {value}, {folders[0]} with {made[0][key]}"
                raise InputError(found, "pool folds that were trained alike", folder)


def _made(config: Entries) -> Entries:
    """What folds have in common: settings, and the recipe of the store but for rows' exceptions and for pictures."""
    recipe, fold = config.get("recipe") or {}, config.get("fold")
    return (
        {key: config.get(key) for key in SAME if key != "device"}
        | {f"the store's {key}": value for key, value in recipe.items() if key not in ("rows", "rgb")}
        | ({"the number of folds": fold[1]} if fold else {})
    )


def _missing(configs: Sequence[Entries]) -> list[int]:
    """Folds of the cross-validation that are in none of the folders; empty where the stores do not say."""
    folds = [config["fold"] for config in configs if config.get("fold")]
    return sorted({*range(1, folds[0][1] + 1)} - {n for n, _ in folds}) if len(folds) == len(configs) else []


def _refuse_shared_patients(predictions: pd.DataFrame, folders: Sequence[Path]) -> None:
    test = predictions[predictions["split"] == "test"]
    patients = test["patient_id"].map(alike)
    shared = test.groupby(patients)["fold"].nunique().loc[lambda count: count > 1]
    if len(shared):
        rows = test[patients == shared.index[0]]
        first, where = rows["patient_id"].iloc[0], [str(folders[fold - 1]) for fold in sorted(set(rows["fold"]))]
        raise InputError(
            f"{len(shared)} patients are tested in several folders, {first} in {' and '.join(where)}",
            "pool the folds of one cross-validation: ctpatch build --fold 1/5 and so on, one mtltrain fit each",
        )
