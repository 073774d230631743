"""The test lesions that a model got most wrong and most right: patch, where it looked, characteristics."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from matplotlib import colormaps
from numpy.typing import NDArray
from PIL import Image
from torch.nn.functional import avg_pool2d, interpolate

from .compare import LESION, commonest, numbers, where_known
from .confusion import Levels
from .data import Cohort
from .tables import level_name, read_csv, run_files

SHOWN = 10
"""Lesions at each end."""
SIZE = 112
HEAT = 0.6
"""Most that the map covers of the patch."""
ATTENTION = "attention.npy"
"""In a run's folder: what `attention.class_maps` gave for the test lesions."""


@dataclass(frozen=True)
class Case:
    """A test lesion and what a run said of it.

    Attributes
    ----------
    patient_id, lesion_id, label, said : str
    share : float
        Probability that the run gave to the right class, averaged over its seeds.
    picture : str
        Data URI: the patch, and beside it where the network looked.
    looked : bool
        Whether the right half of the picture shows where; else nothing spoke for what was said, or nobody knows.
    characteristics : tuple of (str, str, str)
        Name, known level and predicted one; blank = unknown.
    """

    patient_id: str
    lesion_id: str
    label: str
    said: str
    share: float
    picture: str
    looked: bool
    characteristics: tuple[tuple[str, str, str], ...]


@dataclass(frozen=True)
class End:
    """The test lesions that a run classified wrongly, or rightly: how many, and at most ten, the extreme one first."""

    total: int
    shown: tuple[Case, ...]


def cases(folder: Path, cohort: Cohort) -> dict[str, dict[str, End]]:
    """Run -> `most wrong` and `most right` -> labelled test lesions."""
    told = ranked(read_csv(folder / "predictions.csv"), cohort.classes)
    levels = _levels(read_csv(folder / "auxiliary.csv"), cohort.levels)
    found = {}
    for run, table in told.items():
        maps = _maps([file for file in run_files(folder, ATTENTION) if file.parts[-3] == run])
        right = table["said"] == table["label"]
        ends = {"most wrong": table[~right], "most right": table[right].iloc[::-1]}
        found[run] = {
            end: End(
                len(rows),
                tuple(_case(row, cohort, maps, levels.get(run, {})) for _, row in rows.iloc[:SHOWN].iterrows()),
            )
            for end, rows in ends.items()
        }
    return found


def ranked(predictions: pd.DataFrame, classes: Sequence[str]) -> dict[str, pd.DataFrame]:
    """For each run the labelled test lesions by the probability of their class, least first: columns said, share."""
    columns = [f"p_{name}" for name in classes]
    table = where_known(numbers(predictions), "label")
    found = {}
    for run, rows in table.groupby("run", sort=False):
        mean = rows.groupby([*LESION, "label"])[columns].mean().reset_index()
        values = mean[columns].to_numpy()
        right = mean["label"].map(list(classes).index).to_numpy()
        mean["said"] = np.array(classes, dtype=object)[values.argmax(axis=1)]
        mean["share"] = values[np.arange(len(mean)), right]
        found[str(run)] = mean.sort_values(["share", *LESION], kind="stable")
    return found


def _levels(auxiliary: pd.DataFrame, named: Levels) -> dict[str, dict[tuple[str, str], list[tuple[str, str, str]]]]:
    """Run -> lesion -> (task, known level, the level that most seeds predict)."""
    found: dict[str, dict[tuple[str, str], list[tuple[str, str, str]]]] = {}
    if "task" not in auxiliary:  # single-task runs only
        return found
    rows = auxiliary[auxiliary["split"] == "test"]
    for (run, *lesion, task), seeds in rows.groupby(["run", *LESION, "task"], sort=False):
        names = named.get(str(task), {})
        said = level_name(commonest(seeds["predicted"]), names)
        line = (str(task), level_name(seeds["level"].iloc[0], names), said)
        found.setdefault(str(run), {}).setdefault((str(lesion[0]), str(lesion[1])), []).append(line)
    return found


def _maps(files: Sequence[Path]) -> NDArray[np.float32]:
    """The seeds' maps, each scaled to its own greatest value, averaged; empty where there are none."""
    maps = [np.load(file).astype(np.float32) for file in files]
    if not maps or any(one.size == 0 or one.shape != maps[0].shape for one in maps):
        return np.zeros((0, 0, 0, 0), np.float32)
    scaled = [one / np.maximum(one.max(axis=(1, 2, 3), keepdims=True), 1e-6) for one in maps]
    return np.asarray(np.mean(scaled, axis=0), np.float32)


def _case(
    row: pd.Series,
    cohort: Cohort,
    maps: NDArray[np.float32],
    levels: Mapping[tuple[str, str], list[tuple[str, str, str]]],
) -> Case:
    who = str(row["patient_id"]), str(row["lesion_id"])
    patches = cohort.patches["test"]
    lesions = patches.lesion.cpu().numpy()
    mine = (cohort.lesions["patient_id"] == who[0]) & (cohort.lesions["lesion_id"] == who[1])
    number = int(np.flatnonzero(mine)[0])
    first = int(np.flatnonzero(lesions == number)[0])
    grey = _grey(cohort, first)
    order = int(np.searchsorted(np.unique(lesions), number))
    heat = maps[order, cohort.classes.index(row["said"])] if len(maps) else np.zeros((0, 0), np.float32)
    looked = bool(heat.size and heat.max() > 0)
    picture = np.concatenate([np.stack([grey] * 3, axis=-1), *([heated(grey, heat)] if looked else [])], axis=1)
    return Case(*who, row["label"], row["said"], float(row["share"]), _uri(picture), looked, tuple(levels.get(who, ())))


def _grey(cohort: Cohort, patch: int) -> NDArray[np.uint8]:
    """A test patch in the window that shows most, (SIZE, SIZE)."""
    patches = cohort.patches["test"]
    widest = cohort.windows.index(shown_window(cohort))
    levels = patches.rendering.levels(patches.hu[patch : patch + 1])[:, widest : widest + 1]
    return avg_pool2d(levels, 2)[0, 0].round().byte().cpu().numpy()


def shown_window(cohort: Cohort) -> Sequence[int]:
    """HU at which a picture is black and white: the window that shows most."""
    return max(cohort.windows, key=lambda window: window[1] - window[0])


def heated(grey: NDArray[np.uint8], heat: NDArray[np.float32]) -> NDArray[np.uint8]:
    """A picture (SIZE, SIZE) under a map of any size, the map's greatest value brightest; (SIZE, SIZE, 3)."""
    smooth = interpolate(torch.from_numpy(heat)[None, None], (SIZE, SIZE), mode="bilinear")[0, 0].numpy()
    smooth = smooth / smooth.max()
    share = HEAT * smooth[..., None]
    return np.rint((1 - share) * grey[..., None] + share * 255 * colormaps["plasma"](smooth)[..., :3]).astype(np.uint8)


def _uri(picture: NDArray[np.uint8]) -> str:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "WEBP", quality=75)
    return "data:image/webp;base64," + base64.b64encode(file.getvalue()).decode()
