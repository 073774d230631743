"""The test lesions that a model got most wrong and most right: patch, where it looked, characteristics."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib import colormaps
from numpy.typing import NDArray
from PIL import Image
from torch.nn.functional import avg_pool2d, interpolate

from .cohort import Cohort
from .confusion import Levels, level_name
from .files import run_files
from .scores import LESION, Scores
from .tables import run_name

SHOWN = 10
"""Lesions at each end."""
SIZE = 112
HEAT = 0.6
"""Most that the map covers of the patch."""
ATTENTION = "attention.npy"
"""In a run's folder: what `attention.class_maps` gave for the test lesions."""

Lesion = tuple[str, str]
"""patient_id, lesion_id"""
Told = tuple[str, str, str]
"""A characteristic's name, its known level and the predicted one; blank = unknown."""


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
    characteristics : tuple of Told
    """

    patient_id: str
    lesion_id: str
    label: str
    said: str
    share: float
    picture: str
    looked: bool
    characteristics: tuple[Told, ...]


@dataclass(frozen=True)
class End:
    """The test lesions that a run classified wrongly, or rightly: how many, and at most ten, the extreme one first."""

    total: int
    shown: tuple[Case, ...]


def cases(folder: Path, cohort: Cohort, group: Scores, votes: pd.DataFrame) -> dict[str, dict[str, End]]:
    """Run -> `most wrong` and `most right` -> labelled test lesions; `votes` as of `scores.votes`."""
    levels = _levels(votes, cohort.levels)
    found: dict[str, dict[str, End]] = {}
    for run in group.runs:
        table = ranked(group, run)
        maps = _maps([file for file in run_files(folder, ATTENTION) if file.parts[-3] == run])
        right = table["said"] == table["label"]
        found[run_name(run)] = {}
        for end, rows in (("most wrong", table[~right]), ("most right", table[right][::-1])):
            shown = [_case(row, cohort, maps, levels.get(run, {})) for row in rows[:SHOWN].itertuples()]
            found[run_name(run)][end] = End(len(rows), tuple(shown))
    return found


def ranked(group: Scores, run: str) -> pd.DataFrame:
    """The lesions by the probability of their class, least first: patient_id, lesion_id, label, said, share."""
    names, table = np.array(group.classes, dtype=object), group.averaged(run)
    told = {"label": names[group.labels], "said": names[table.argmax(axis=1)]}
    share = table[np.arange(len(table)), group.labels]
    return group.lesions.assign(**told, share=share).sort_values(["share", *LESION], kind="stable")


def _levels(votes: pd.DataFrame, named: Levels) -> dict[str, dict[Lesion, list[Told]]]:
    """What each run says of each lesion's characteristics."""
    found: dict[str, dict[Lesion, list[Told]]] = {}
    for (run, task, *lesion), level, predicted in votes[["level", "predicted"]].itertuples(name=None):
        names = named.get(task, {})
        line = task, level_name(level, names), level_name(predicted, names)
        found.setdefault(run, {}).setdefault((lesion[0], lesion[1]), []).append(line)
    return found


def _maps(files: Sequence[Path]) -> NDArray[np.float32]:
    """The seeds' maps, each scaled to its own greatest value, averaged; empty where there are none."""
    maps = [np.load(file).astype(np.float32) for file in files]
    if not maps or any(one.size == 0 or one.shape != maps[0].shape for one in maps):
        return np.zeros((0, 0, 0, 0), np.float32)
    scaled = [one / np.maximum(one.max(axis=(1, 2, 3), keepdims=True), 1e-6) for one in maps]
    return np.asarray(np.mean(scaled, axis=0), np.float32)


def _case(row: Any, cohort: Cohort, maps: NDArray[np.float32], levels: Mapping[Lesion, Sequence[Told]]) -> Case:
    who = row.patient_id, row.lesion_id
    rows, first = cohort.patches["test"].first_of_lesions()
    number = np.flatnonzero((cohort.lesions[LESION].to_numpy() == who).all(axis=1))[0]
    place = int(np.searchsorted(rows, number))
    grey = _grey(cohort, int(first[place]))
    heat = maps[place, cohort.classes.index(row.said)] if len(maps) else np.zeros((0, 0), np.float32)
    looked = bool(heat.size and heat.max() > 0)
    picture = np.concatenate([np.stack([grey] * 3, axis=-1), *([heated(grey, heat)] if looked else [])], axis=1)
    return Case(*who, row.label, row.said, row.share, _uri(picture), looked, tuple(levels.get(who, ())))


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
