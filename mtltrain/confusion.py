"""Known against predicted, counted: the diagnosis by each run, each characteristic by each multi-task run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from .scores import Scores
from .tables import run_name

Levels = Mapping[str, Mapping[float, str]]
"""For each characteristic the names of its levels."""


def diagnoses(group: Scores) -> dict[str, pd.DataFrame]:
    """Run -> labelled test lesions by class (rows) and the class the run says (columns), seeds averaged."""
    names = dict(enumerate(group.classes))
    return {
        run_name(run): _counted(pd.Series(group.labels), pd.Series(group.averaged(run).argmax(axis=1)), names)
        for run in group.runs
    }


def characteristics(votes: pd.DataFrame, levels: Levels) -> dict[str, pd.DataFrame]:
    """Run and task -> test lesions by known level (rows) and predicted one (columns), of `scores.votes`."""
    found = {}
    for (run, task), vote in votes.dropna(subset="level").groupby(["run", "task"], sort=False):
        met = sorted({*vote["level"], *vote["predicted"]})
        names = {level: level_name(level, levels.get(str(task), {})) for level in met}
        found[f"{run_name(str(run))}, {task}"] = _counted(vote["level"], vote["predicted"], names)
    return found


def level_name(level: float, names: Mapping[float, str]) -> str:
    """A characteristic's level by its name, or its number where it has none; "" where it is unknown."""
    return "" if np.isnan(level) else names.get(level) or f"{level:g}"


def _counted(known: pd.Series, said: pd.Series, names: Mapping[Any, str]) -> pd.DataFrame:
    counts = pd.crosstab(known, said).reindex(index=[*names], columns=[*names], fill_value=0)
    return pd.DataFrame(
        counts.to_numpy(), [f"known {name}" for name in names.values()], [f"said {name}" for name in names.values()]
    )
