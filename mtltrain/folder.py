"""The run folder of `mtltrain fit`: what is unfinished is trained, what is finished stays as it is."""

from __future__ import annotations

import hashlib
import io
import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import torchvision
from numpy.typing import NDArray
from torch import Tensor

from ctpatch.store import IMAGENET, CtpatchError, InputError, PatchStore, data_card, flow, lock, open_store, unlock

from . import Settings, __version__, fit, models
from .attention import class_maps
from .backbones import TIMM, named, published
from .cards import model_card
from .cases import ATTENTION
from .checkpoints import load_checkpoint, load_weights
from .cohort import Cohort, digests, read_cohort
from .compare import evaluate
from .data import DevicePatches, Rendering, class_index, load_patches
from .device import guarded
from .files import read_csv, read_json, run_files, write, write_csv, write_json
from .pool import SAME
from .report import write_report
from .scores import LESION
from .tasks import Characteristic, select

Rows = NDArray[np.int64]
Tables = Sequence[NDArray[np.float64]]

FIXED = ("store_sha256", *SAME)
"""Entries of config.json in which all calls on one run folder agree; but for the device."""

GROWING = ("arch", "seeds", "device", "versions")
"""Entries to which a later call may add."""
RESULTS = ("metrics.json", "predictions.csv", "auxiliary.csv", "history.csv", "report.html", "model_card.md")


def fit_folder(
    path: Path,
    out: Path,
    archs: Sequence[str],
    seeds: Sequence[int],
    settings: Settings,
    *,
    weights: Path | None = None,
    positive: str | None = None,
    order: Sequence[str] | None = None,
    graph: bool = False,
    log: Callable[[str], None] = lambda line: None,
    watch: fit.Watch = lambda batches, title: batches,
) -> dict[str, Any]:
    """Train each architecture with each seed, compare them, and leave everything in `out`; `graph` as in `fit.train`.

    Returns
    -------
    dict
        `metrics.json`; see `mtltrain.compare.evaluate`.

    Raises
    ------
    InputError
        Before anything trains: if the store cannot be trained on, no characteristic is left for the multi-task
        architectures, pre-trained weights cannot be had, or `out` is in use, or holds runs of another store or other
        settings, or files of something else.
    CtpatchError
        While training: see `fit.train`.
    """
    _refuse_foreign(out)
    if graph and settings.device != "cuda":
        raise InputError(f"--cuda-graph, but the device is {settings.device}", "leave it out, or use --device cuda")
    with open_store(path) as store, guarded(settings):
        cohort = read_cohort(store, positive, order, settings.device, named(settings.backbone).normalisation)
        table, tasks = select(cohort, settings.chosen_tasks)
        _refuse_misuse(archs, len(table), tasks, weights)
        if any(arch.endswith("tl") for arch in archs):
            settings = replace(settings, tl_weights=_weights_name(settings.backbone, weights))
        runs = [fit.Run(arch, seed, settings, cohort, tasks) for seed in seeds for arch in archs]
        start = _pretrained([run for run in _unfinished(runs, out) if run.arch.endswith("tl")], weights)
        config = asdict(settings) | _described(store, cohort, settings.backbone)
        config |= {"arch": list(archs), "seeds": list(seeds), "device": [settings.device]}
        config["selection"] = [line.line() for line in table]
        with locked(out):
            _write_config(out, config)
            told = [f"auxiliary task {task.name}: {task.told}" for task in tasks]
            for line in (*cohort.counted, *cohort.notes, *told):
                log(line)
            for leftover in out.glob("*.*.[0-9]*.tmp"):  # of a killed call
                leftover.unlink()
            for finished in run_files(out, "predictions.csv"):  # as a call killed meanwhile left it
                _clear(finished.parent)
            for run in _unfinished(runs, out):
                history = fit.train(run, out / run.name, start, log, watch, graph=graph)
                _finish(run, out / run.name, history)
                _clear(out / run.name)
            write(out / "data_card.md", data_card(store))
            return _evaluate(out, cohort, config["selection"], flow(store))


def predict_folder(folder: Path, path: Path, splits: Sequence[str], device: torch.device) -> pd.DataFrame:
    """Probabilities that every finished run in `folder` gives a store's lesions; columns as in `predictions.csv`.

    Raises
    ------
    InputError
        If there is no finished run, or the store has other classes or windows.
    """
    found = [table.with_name("best.pt") for table in run_files(folder, "predictions.csv")]
    if not found:
        raise InputError("there is no finished run", "name a folder that `mtltrain fit` made", folder)
    batch = read_json(folder / "config.json").get("batch_size", Settings.batch_size)
    settings = Settings(device=str(device), batch_size=batch)
    with open_store(path) as store, guarded(settings, "use --device cpu, or a machine with more memory"):
        lesions, patches = store.lesions, [load_patches(store, split, device) for split in splits]
        if not any(map(len, patches)):
            raise InputError(f"no lesion in {' or '.join(splits)}", "name a --split that the store has", path)
        parts = []
        windows = {"windows": fit.listed(store.windows)}
        for file, state in zip(found, map(load_checkpoint, found), strict=True):
            class_index(lesions["label"], state["run"]["classes"])  # refuses other classes
            fit.refuse_difference(state["run"], windows, file, "take a store with the windows that it was made with")
            seen = Rendering.of(store.windows, device, state["run"].get("normalisation", IMAGENET))
            shown = [replace(part, rendering=seen) for part in patches]
            output = _output(fit.load_network(state, device), shown, state["run"]["batch_size"])
            parts.append(_predictions(state["run"], lesions, *output))
        return pd.concat(parts)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a run folder, made where it is missing; the system lets go of it however the process ends.

    Raises
    ------
    InputError
        If another process holds it, or the file system has no locks.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        file = lock(folder / ".lock")
    except InputError:  # in ctpatch build's words
        found = "the file system has no locks: two mtltrain fit at once could mix"
        raise InputError(found, "name a folder on another file system with --out", folder) from None
    if file is None:
        found = "another mtltrain fit is at work in this folder"
        raise InputError(found, "wait for it, or name another folder with --out", folder)
    try:
        yield
    finally:
        unlock(file)


def _refuse_foreign(out: Path) -> None:
    """Raise InputError where `out` has somebody's own files of names that a run folder has; a log may lie there."""
    found = [name for name in RESULTS if (out / name).exists()]
    if found and not (out / "config.json").exists():
        raise InputError(f"--out has a {found[0]} and is no run folder of mtltrain fit", "name another folder", out)


def _refuse_misuse(
    archs: Sequence[str], characteristics: int, tasks: Sequence[Characteristic], weights: Path | None
) -> None:
    if weights and not any(arch.endswith("tl") for arch in archs):
        raise InputError(f"--weights {weights}, but no architecture starts from them", "add --arch mtl-tl or stl-tl")
    if not tasks and any(arch.startswith("mtl") for arch in archs):
        found = f"none of {characteristics} characteristics is related to the label (p < 0.05), so MTL has no tasks"
        raise InputError(found, "train --arch stl-tl stl-ri, or add aux_ columns to the manifest")


def _unfinished(runs: Sequence[fit.Run], out: Path) -> list[fit.Run]:
    return [run for run in runs if not (out / run.name / "predictions.csv").exists()]


def _pretrained(runs: Sequence[fit.Run], file: Path | None) -> Mapping[str, Tensor]:
    """The weights that `runs` start from, known to be had and to fit before anything trains."""
    if not runs:
        return {}
    weights = load_weights(file) if file else published(runs[0].settings.backbone)
    models.load_pretrained(_outline(runs[0]), weights, file or "")
    return weights


def _outline(run: fit.Run) -> models.Network:
    """The run's network without memory for its tensors, where it can be built so."""
    try:
        with torch.device("meta"):
            return fit.build(run.identity)
    except NotImplementedError:  # RegNet computes with tensors while it is built
        return fit.build(run.identity)


def _weights_name(backbone: str, file: Path | None) -> str:
    """What identifies the pre-trained weights: their publisher's name, or a file's name and digest."""
    if file is None:
        return named(backbone).published_name
    try:
        return f"{file.name} sha256 {hashlib.sha256(file.read_bytes()).hexdigest()}"
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror})", "name a .pt file", file) from None


def _described(store: PatchStore, cohort: Cohort, backbone: str) -> dict[str, Any]:
    """What config.json says beside the settings, and what is asked of them."""
    versions = {module.__name__: str(module.__version__) for module in (torch, torchvision, np)}
    versions |= {"timm": version("timm")} if backbone.startswith(TIMM) else {}
    versions |= {"mtltrain": __version__, "python": platform.python_version(), "threads": str(torch.get_num_threads())}
    versions |= {"cpu": torch.backends.cpu.get_cpu_capability()}  # another one rounds otherwise: another network
    return {
        "store_sha256": cohort.digest,
        "windows": fit.listed(cohort.windows),
        "normalisation": fit.listed(cohort.normalisation),
        "classes": list(cohort.classes),
        "positive": cohort.positive,
        "order": list(cohort.order),
        "notes": list(cohort.notes),
        "versions": [versions],
        "store": store.path.name,
        "recipe": store.recipe,
        "fold": store.provenance.get("fold"),
        "training_patients": digests(cohort.lesions["patient_id"][cohort.lesions["split"] == "train"]),
    }


def _write_config(out: Path, config: dict[str, Any]) -> None:
    """Write config.json, or extend the one there; refuse if it is of other settings."""
    path = out / "config.json"
    if path.exists():
        old = read_json(path)
        weights = old.get("tl_weights", "")  # empty where nothing has started from any so far
        config["tl_weights"] = config["tl_weights"] or weights
        said = [key for key in FIXED if key != "tl_weights" or weights]
        fit.refuse_difference(old, {key: config[key] for key in said}, path)
        before = {key: old[key] if isinstance(old[key], list) else [old[key]] for key in GROWING}  # once one device
        config |= {key: [*before[key], *(v for v in config[key] if v not in before[key])] for key in GROWING}
    write_json(path, config)


def _finish(run: fit.Run, folder: Path, history: list[dict[str, float]]) -> None:
    """Write the run's tables, predictions.csv last: it marks the run as finished."""
    state, cohort = load_checkpoint(folder / "best.pt"), run.cohort
    if state["history"] != history[: fit.best_epoch(history)]:
        raise CtpatchError(f"{folder}: best.pt is not of the best epoch. Do: delete this folder and train again.")
    net, batch_size = fit.load_network(state, torch.device(run.settings.device)), state["run"]["batch_size"]
    output = _output(net, [cohort.patches["val"], cohort.patches["test"]], batch_size)
    write_csv(folder / "history.csv", pd.DataFrame(history).assign(run=run.arch, seed=run.seed))
    write_csv(folder / "auxiliary.csv", _auxiliary(state["run"], cohort.lesions, *output))
    looked = io.BytesIO()
    np.save(looked, class_maps(net, cohort.patches["test"], batch_size))
    write(folder / ATTENTION, looked.getvalue())
    write_csv(folder / "predictions.csv", _predictions(state["run"], cohort.lesions, *output))


def _clear(folder: Path) -> None:
    """Remove what a finished run needs no more."""
    for leftover in {*folder.glob("last.*"), *folder.glob("best.old"), *folder.glob("*.tmp")}:
        leftover.unlink()


def _output(net: models.Network, splits: Sequence[DevicePatches], batch_size: int) -> tuple[Rows, Tables]:
    """Rows of the lesions in `splits`, and what a trained network says of them; see `models.predict`."""
    outputs = [models.predict(net, patches, batch_size) for patches in splits if len(patches)]
    tables = zip(*(tables for _, tables in outputs), strict=True)
    return np.concatenate([rows for rows, _ in outputs]), [np.concatenate(parts) for parts in tables]


def _predictions(run: Mapping[str, Any], lesions: pd.DataFrame, rows: Rows, tables: Tables) -> pd.DataFrame:
    known = lesions.iloc[rows][[*LESION, "split", "label"]].assign(run=run["arch"], seed=run["seed"])
    known[[f"p_{name}" for name in run["classes"]]] = tables[0]
    return known[["run", "seed", *known.columns.drop(["run", "seed"])]]


def _auxiliary(run: Mapping[str, Any], lesions: pd.DataFrame, rows: Rows, tables: Tables) -> pd.DataFrame:
    """Known and predicted level of each lesion and task; one that training never saw stays, and no network says it."""
    known = lesions.iloc[rows][[*LESION, "split"]].assign(run=run["arch"], seed=run["seed"])
    parts = [known.iloc[:0]]
    for task, table in zip(run["tasks"], tables[1:], strict=True):
        levels, true = np.array(task["levels"]), lesions.iloc[rows][f"aux_{task['name']}"]
        told = {"level": true, "predicted": levels[table.argmax(1)]}
        parts.append(known.assign(task=task["name"], **told, majority=task["majority"]))
    return pd.concat(parts[1:] or parts)


def _evaluate(
    out: Path, cohort: Cohort, selection: Sequence[Mapping[str, Any]], flow: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """Join the finished runs' tables and compare them; files that say the same already stay as they are."""
    runs = [path.parent for path in run_files(out, "predictions.csv")]
    tables = {}
    for name in ("auxiliary.csv", "history.csv", "predictions.csv"):
        tables[name] = pd.concat([read_csv(run / name) for run in runs], ignore_index=True)
        write_csv(out / name, tables[name])
    predictions, auxiliary = tables["predictions.csv"], tables["auxiliary.csv"]
    metrics = evaluate(
        predictions, cohort.classes, cohort.positive, selection=selection, auxiliary=auxiliary, flow=flow
    )
    write_json(out / "metrics.json", metrics)
    write(out / "model_card.md", model_card(read_json(out / "config.json"), metrics))
    write_report(out, cohort)
    return metrics
