"""The run folder of `mtltrain fit`: what is unfinished is trained, what is finished stays as it is."""

from __future__ import annotations

import json
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import torchvision
from numpy.typing import NDArray
from torch import Tensor

from ctpatch.store import InputError, PatchStore, open_store

from . import __version__, checkpoint, fit, models
from .compare import LESION, evaluate, load_metrics, read_predictions
from .data import Cohort, class_index, load_patches, read_cohort
from .report import write_report
from .tasks import Task, as_dict, select

Rows = NDArray[np.int64]
Tables = Sequence[NDArray[np.float64]]

FIXED = ("store_sha256", "classes", "order", *(field.name for field in fields(fit.Settings)))
"""Entries of config.json in which all calls on one run folder agree."""

GROWING = ("arch", "seeds", "versions")
"""Entries to which a later call may add."""


def fit_folder(
    path: Path,
    out: Path,
    archs: Sequence[str],
    seeds: Sequence[int],
    settings: fit.Settings,
    *,
    weights: Path | None = None,
    positive: str | None = None,
    order: Sequence[str] | None = None,
    log: Callable[[str], None] = lambda line: None,
    watch: fit.Watch = lambda batches, title: batches,
) -> dict[str, Any]:
    """Train each architecture with each seed, compare them, and leave everything in `out`.

    Returns
    -------
    dict
        `metrics.json`; see `mtltrain.compare.evaluate`.

    Raises
    ------
    InputError
        Before anything trains: if the store cannot be trained on, no characteristic is left for the multi-task
        architectures, pre-trained weights cannot be had, or `out` holds runs of another store or other settings.
    """
    with open_store(path) as store:
        cohort = read_cohort(store, positive, order)
        table, tasks = select(cohort)
        _refuse_misuse(archs, len(table), tasks, weights)
        settings = replace(settings, tl_weights=models.weights_name(settings.backbone, weights))
        runs = [fit.Run(arch, seed, settings, cohort, tasks, store.digest) for seed in seeds for arch in archs]
        todo = [run for run in runs if not (out / run.name / "predictions.csv").exists()]
        start = _pretrained([run for run in todo if run.arch.endswith("tl")], weights)
        selection = [as_dict(row) for row in table]
        config = {**asdict(settings), **_described(store, cohort), "selection": selection}
        _write_config(out, {**config, "arch": list(archs), "seeds": list(seeds), "versions": [versions()]})
        for line in (*cohort.notes, *(f"auxiliary task {task.name}: |r| {task.weight:.2f}" for task in tasks)):
            log(line)
        for run in todo:
            history = fit.train(run, store, out / run.name, start, log, watch)
            _finish(run, store, out / run.name, pd.DataFrame(history))
    return _evaluate(out, cohort, selection)


def predict_folder(folder: Path, path: Path, splits: Sequence[str], device: torch.device) -> pd.DataFrame:
    """Probabilities that every finished run in `folder` gives a store's lesions; columns as in `predictions.csv`.

    Raises
    ------
    InputError
        If there is no finished run, or the store has other classes.
    """
    found = [path.with_name("best.pt") for path in sorted(folder.glob("*/seed-*/predictions.csv"))]
    if not found:
        raise InputError("there is no finished run", "name a folder that `mtltrain fit` made", folder)
    parts = []
    with open_store(path) as store:
        split = {name: load_patches(store, name, device) for name in splits}
        for state in map(checkpoint.load, found):
            class_index(store.lesions["label"], state["run"]["classes"])  # refuses other classes
            net = fit.load_network(state, device)
            outputs = [fit.predict(net, patches) for patches in split.values() if len(patches.hu)]
            parts += [_predictions(state["run"], store.lesions, *output) for output in outputs]
    if not parts:
        raise InputError(f"no lesion in {' or '.join(splits)}", "name a --split that the store has", path)
    return pd.concat(parts)


def write_csv(path: Path, table: pd.DataFrame) -> None:
    """Write a table; text that a spreadsheet would run as a formula gets a leading apostrophe."""
    ids = table.filter(LESION)
    safe = {str(name): ids[name].str.replace(r"^(?=[=+@])", "'", regex=True) for name in ids}
    checkpoint.write_text(path, table.assign(**safe).to_csv(index=False, lineterminator="\n"))


def _refuse_misuse(archs: Sequence[str], characteristics: int, tasks: Sequence[Task], weights: Path | None) -> None:
    if weights and not any(arch.endswith("tl") for arch in archs):
        raise InputError(f"--weights {weights}, but no architecture starts from them", "add --arch mtl-tl or stl-tl")
    if not tasks and any(arch.startswith("mtl") for arch in archs):
        found = f"none of {characteristics} characteristics is related to the label (p < 0.05), so MTL has no tasks"
        raise InputError(found, "train --arch stl-tl stl-ri, or add aux_ columns to the manifest")


def _pretrained(runs: Sequence[fit.Run], file: Path | None) -> dict[str, Tensor]:
    """The weights that `runs` start from, known to be had and to fit before anything trains."""
    if not runs:
        return {}
    weights = models.read_weights(runs[0].settings.backbone, file)
    with torch.device("meta"):
        models.load_pretrained(fit.build(runs[0].identity), weights)
    return weights


def versions() -> dict[str, str]:
    """Versions of what computes, and with how many threads."""
    found = {module.__name__: str(module.__version__) for module in (torch, torchvision, np)}
    return {
        "mtltrain": __version__,
        "python": platform.python_version(),
        **found,
        "threads": str(torch.get_num_threads()),
    }


def _described(store: PatchStore, cohort: Cohort) -> dict[str, Any]:
    return {
        "store": store.path.name,
        "store_sha256": store.digest,
        "classes": list(cohort.classes),
        "positive": cohort.positive,
        "order": list(cohort.order),
        "recipe": store.recipe,
        "notes": list(cohort.notes),
    }


def _write_config(out: Path, config: dict[str, Any]) -> None:
    """Write config.json, or extend the one there; refuse if it is of other settings."""
    path = out / "config.json"
    config = json.loads(json.dumps(config))
    if path.exists():
        old = _read_config(path)
        fit.refuse_difference(old, {key: config[key] for key in FIXED}, path)
        config |= {key: [*old[key], *(v for v in config[key] if v not in old[key])] for key in GROWING}
        if config == old:
            return
    checkpoint.write_text(path, json.dumps(config, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def _read_config(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        config = None
    if not isinstance(config, dict):
        raise InputError("this is no config.json of mtltrain", "name another folder with --out", path)
    return config


def _finish(run: fit.Run, store: PatchStore, folder: Path, history: pd.DataFrame) -> None:
    """Write the run's tables, predictions.csv last: it marks the run as finished."""
    state, device = checkpoint.load(folder / "best.pt"), torch.device(run.settings.device)
    net = fit.load_network(state, device)
    split = [load_patches(store, name, device) for name in ("val", "test")]
    outputs = [fit.predict(net, patches) for patches in split if len(patches.hu)]
    write_csv(folder / "history.csv", history.assign(run=run.arch, seed=run.seed))
    for name, make in {"auxiliary.csv": _auxiliary, "predictions.csv": _predictions}.items():
        write_csv(folder / name, pd.concat([make(state["run"], run.cohort.lesions, *output) for output in outputs]))
    for name in ("last.pt", "last.old"):
        (folder / name).unlink(missing_ok=True)


def _predictions(run: Mapping[str, Any], lesions: pd.DataFrame, rows: Rows, tables: Tables) -> pd.DataFrame:
    known = lesions.iloc[rows][[*LESION, "split", "label"]].assign(run=run["arch"], seed=run["seed"])
    known[[f"p_{name}" for name in run["classes"]]] = tables[0]
    return known[["run", "seed", *known.columns.drop(["run", "seed"])]]


def _auxiliary(run: Mapping[str, Any], lesions: pd.DataFrame, rows: Rows, tables: Tables) -> pd.DataFrame:
    """True and predicted level of each lesion and task; a level unseen in training is unknown."""
    known = lesions.iloc[rows][[*LESION, "split"]].assign(run=run["arch"], seed=run["seed"])
    parts = []
    for task, table in zip(run["tasks"], tables[1:], strict=True):
        true = lesions.iloc[rows][f"aux_{task['name']}"]
        guess = np.array(task["levels"])[table.argmax(1)]
        parts.append(
            known.assign(
                task=task["name"],
                level=true.where(true.isin(task["levels"])),
                predicted=guess,
                majority=task["majority"],
            )
        )
    return pd.concat(parts) if parts else known.iloc[:0]


def _evaluate(out: Path, cohort: Cohort, selection: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Join the finished runs' tables and compare them; nothing is written when the folder says the same already."""
    report = out / "report.html"
    runs = sorted(path.parent for path in out.glob("*/seed-*/predictions.csv"))
    text = {name: _join([run / name for run in runs]) for name in ("auxiliary.csv", "history.csv", "predictions.csv")}
    if report.exists() and all((out / name).read_text(encoding="utf-8") == csv for name, csv in text.items()):
        return load_metrics(out)
    report.unlink(missing_ok=True)
    for name, csv in text.items():
        checkpoint.write_text(out / name, csv)
    auxiliary = pd.read_csv(out / "auxiliary.csv", dtype=str, keep_default_na=False)
    predictions = read_predictions(out / "predictions.csv")
    metrics = evaluate(
        predictions,
        cohort.classes,
        cohort.positive,
        selection=selection,
        auxiliary=auxiliary if len(auxiliary) else None,
    )
    checkpoint.write_text(
        out / "metrics.json", json.dumps(metrics, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    )
    write_report(out)
    return metrics


def _join(paths: Sequence[Path]) -> str:
    tables = [pd.read_csv(path, dtype=str, keep_default_na=False) for path in paths]
    return pd.concat(tables).to_csv(index=False, lineterminator="\n")
