"""Known against predicted, counted: the diagnosis by each run, each characteristic by each multi-task run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from ctpatch.store import SPLITS

from .compare import LESION, Scores, commonest, where_known
from .tables import level_name, run_name

Levels = Mapping[str, Mapping[float, str]]
"""For each characteristic the names of its levels."""


def diagnoses(group: Scores, classes: Sequence[str]) -> dict[str, pd.DataFrame]:
    """Run -> labelled test lesions by class (rows) and the class the run says (columns), seeds averaged."""
    found = {}
    for run in group.runs:
        counts = np.zeros((len(classes), len(classes)), np.int64)
        np.add.at(counts, (group.labels, group.averaged(run).argmax(axis=1)), 1)
        found[run_name(run)] = _table(counts, classes, classes)
    return found


def characteristics(auxiliary: pd.DataFrame, levels: Levels) -> dict[str, pd.DataFrame]:
    """Run and task -> test lesions by known level (rows) and the level that most seeds predict (columns)."""
    if "task" not in auxiliary:  # single-task runs only
        return {}
    found = {}
    for (run, task), rows in where_known(auxiliary, "level").groupby(["run", "task"], sort=False):
        vote = rows.groupby(LESION)[["level", "predicted"]].agg(commonest)
        met = sorted({*vote["level"], *vote["predicted"]})
        counts = pd.crosstab(vote["level"], vote["predicted"]).reindex(index=met, columns=met, fill_value=0)
        names = [level_name(level, levels.get(str(task), {})) for level in met]
        found[f"{run_name(str(run))}, {task}"] = _table(counts.to_numpy(), names, names)
    return found


def _table(counts: Any, known: Sequence[str], said: Sequence[str]) -> pd.DataFrame:
    return pd.DataFrame(counts, [f"known {name}" for name in known], [f"said {name}" for name in said])


def flow(metrics: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Steps of the flow of patients as {name, patients, lesions, classes (text), arrow}; none in older files.

    The arrow is at the first split, to which and not from which the others are divided.
    """
    shown, rows = ("name", "patients", "lesions"), metrics.get("flow", [])
    first = next((row["name"] for row in rows if row["name"] in SPLITS), None)
    return [
        {key: row[key] for key in shown}
        | {"arrow": row["name"] == first}
        | {
            "classes": ", ".join(
                f"{name.removeprefix('class ')} {n}" for name, n in row.items() if name not in shown and n
            )
        }
        for row in rows
    ]
