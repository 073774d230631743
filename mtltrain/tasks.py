"""Which characteristics become auxiliary tasks: the paper's Table 1."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import spearmanr
from torch import Tensor

from .data import UNKNOWN, Cohort

ALPHA = 0.05
FEWEST = 3
"""Fewer known training lesions than this have no rank correlation worth a test."""


@dataclass(frozen=True)
class Task:
    """An auxiliary classification task: its `levels` (those seen in training, ascending), weight and majority level."""

    name: str
    levels: tuple[float, ...]
    weight: float
    majority: float


@dataclass(frozen=True)
class Row:
    """A characteristic's line of Table 1: known training lesions, Spearman's r and p, and why it was dropped."""

    name: str
    n: int
    r: float | None = None
    p: float | None = None
    reason: str = ""

    @property
    def kept(self) -> bool:
        """Whether it becomes a task."""
        return not self.reason


def select(cohort: Cohort) -> tuple[list[Row], list[Task]]:
    """Table 1 and the tasks kept: p < 0.05 in Spearman's test against the label over the training lesions."""
    train = cohort.lesions[cohort.lesions["split"] == "train"]
    known = train.filter(regex="^aux_")
    columns = {str(name).removeprefix("aux_"): known[name].to_numpy(np.float64) for name in known}
    rank = train["label"].map(cohort.order.index).to_numpy()
    rows = [_row(name, column, rank) for name, column in columns.items()]
    return rows, [_task(row, columns[row.name]) for row in rows if row.kept]


def _row(name: str, values: NDArray[np.float64], rank: NDArray[np.int64]) -> Row:
    known = np.isfinite(values)
    n = int(known.sum())
    if n < FEWEST:
        return Row(name, n, reason=f"fewer than {FEWEST} known")
    if np.ptp(values[known]) == 0 or np.ptp(rank[known]) == 0:
        return Row(name, n, reason="constant")
    r, p = (float(v) for v in spearmanr(values[known], rank[known]))
    return Row(name, n, r, p, "" if p < ALPHA else f"p >= {ALPHA}")


def _task(row: Row, values: NDArray[np.float64]) -> Task:
    assert row.r is not None
    found, counts = np.unique(values[np.isfinite(values)], return_counts=True)
    return Task(row.name, tuple(found.tolist()), abs(row.r), float(found[counts.argmax()]))


def targets(cohort: Cohort, tasks: Sequence[Task]) -> Tensor:
    """Level index of each lesion and task, shape (lesions, tasks) int64; -1 where unknown or unseen in training."""
    index = np.full((len(cohort.lesions), len(tasks)), UNKNOWN, np.int64)
    for k, task in enumerate(tasks):
        known = {level: i for i, level in enumerate(task.levels)}
        index[:, k] = [known.get(float(v), UNKNOWN) for v in cohort.lesions[f"aux_{task.name}"]]
    return torch.from_numpy(index)


def as_dict(row: Row) -> dict[str, Any]:
    """The row as `metrics.json` keeps it."""
    return {"name": row.name, "r": row.r, "p": row.p, "n": row.n, "kept": row.kept, "reason": row.reason}
