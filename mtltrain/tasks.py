"""Which characteristics become auxiliary tasks: the paper's Table 1."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import permutation_test, rankdata, spearmanr
from torch import Tensor

from ctpatch.store import InputError

from .cohort import Cohort
from .data import UNKNOWN

ALPHA = 0.05
FEWEST = 3
"""Fewer known training lesions than this have no rank correlation worth a test."""

SMALL_N, SMALL_MARGIN = 30, 10
"""With fewer lesions, or fewer outside the commonest level or class, p is counted over permutations: scipy's own p
comes from Student's t, which is 0 wherever |r| = 1 and keeps a sign of five lesions in 200, all of one class (exact
p = 0.06)."""

PERMUTATIONS = 99_999
"""All n! are counted where there are no more than these (n up to 8); else so many are drawn, always the same ones."""


@dataclass(frozen=True)
class Characteristic:
    """A line of Table 1, from the training lesions where it is known: why it was dropped, or the task it becomes.

    `n` lesions, Spearman's `r` and `p` and the `test` that p is of, the `levels` seen (ascending) and the commonest of
    them, `majority`; `given`, the weight that the caller wants.
    """

    name: str
    n: int
    r: float | None = None
    p: float | None = None
    test: str = ""
    reason: str = ""
    levels: tuple[float, ...] = ()
    majority: float | None = None
    given: float | None = None

    @property
    def kept(self) -> bool:
        """Whether it becomes a task."""
        return not self.reason

    @property
    def weight(self) -> float:
        """w_k of equation 3."""
        return abs(self.r or 0.0) if self.given is None else self.given

    @property
    def told(self) -> str:
        """Its weight in words."""
        return f"|r| {self.weight:.2f}" if self.given is None else f"weight {self.weight:g}"

    def line(self) -> dict[str, Any]:
        """The line as `metrics.json` keeps it."""
        return {key: getattr(self, key) for key in ("name", "r", "p", "n", "kept", "reason", "test")}

    def task(self) -> dict[str, Any]:
        """The task as a checkpoint keeps it."""
        return {"name": self.name, "levels": list(self.levels), "weight": self.weight, "majority": self.majority}


def select(
    cohort: Cohort, wanted: Mapping[str, float | None] | None = None
) -> tuple[list[Characteristic], list[Characteristic]]:
    """Table 1, and of it what is kept: p < 0.05 in Spearman's test against the label over the training lesions.

    Where there are `wanted` ones, these are kept instead, whatever their p, each with its weight (None: |r|).

    Raises
    ------
    InputError
        If a wanted characteristic is not there, or has no two levels over the training lesions.
    """
    train = cohort.lesions[cohort.lesions["split"] == "train"]
    rank = train["label"].map(cohort.order.index).to_numpy()
    known = train.filter(regex="^aux_").astype(np.float64)
    table = [_describe(str(name).removeprefix("aux_"), known[name].to_numpy(), rank) for name in known]
    return table, [line for line in table if line.kept] if not wanted else _wanted(table, wanted)


def _wanted(table: Sequence[Characteristic], wanted: Mapping[str, float | None]) -> list[Characteristic]:
    lines = {line.name: line for line in table}
    for name in wanted:
        if name not in lines:
            raise InputError(f"--tasks {name}, which is no characteristic", f"take some of {', '.join(lines)}")
        if len(lines[name].levels) < 2:
            raise InputError(f"--tasks {name}, but its training lesions are {lines[name].reason}", "leave it out")
    return [replace(line, given=wanted[line.name]) for line in table if line.name in wanted]


def _describe(name: str, values: NDArray[np.float64], rank: NDArray[np.int64]) -> Characteristic:
    known = np.isfinite(values)
    values, rank, n = values[known], rank[known], int(known.sum())
    if n < FEWEST:
        return Characteristic(name, n, reason=f"fewer than {FEWEST} known")
    if np.ptp(values) == 0 or np.ptp(rank) == 0:
        return Characteristic(name, n, reason="constant")
    r, p, test = spearman(values, rank)
    levels, counts = np.unique(values, return_counts=True)
    reason = "" if p < ALPHA else f"p >= {ALPHA}"
    return Characteristic(name, n, r, p, test, reason, tuple(levels.tolist()), float(levels[counts.argmax()]))


def spearman(first: NDArray[Any], second: NDArray[Any]) -> tuple[float, float, str]:
    """Spearman's r, its two-sided p, and how p was found: `t distribution`, `exact` or `permutation`.

    Parameters
    ----------
    first, second : arrays, shape (lesions,)
        Neither is constant.
    """
    r, p = map(float, spearmanr(first, second))
    n = len(first)
    margins = [n - int(np.unique(values, return_counts=True)[1].max()) for values in (first, second)]
    if n >= SMALL_N and min(margins) >= SMALL_MARGIN:
        return r, p, "t distribution"
    # |r| times what no permutation changes, in whole numbers: equal ones are found equal
    one, two = ((2 * rankdata(values)).astype(np.int64) - n - 1 for values in (first, second))
    found = permutation_test(
        (one,),
        lambda order, axis=-1: abs(order @ two),
        permutation_type="pairings",
        alternative="greater",
        vectorized=True,
        n_resamples=PERMUTATIONS,
        batch=max(1, 10**6 // n),
        rng=np.random.default_rng(0),
    )
    return r, float(found.pvalue), "exact" if math.factorial(n) <= PERMUTATIONS else "permutation"


def targets(cohort: Cohort, tasks: Sequence[Characteristic]) -> Tensor:
    """Level index of each lesion and task, shape (lesions, tasks) int64; -1 where unknown or unseen in training."""
    index = np.full((len(cohort.lesions), len(tasks)), UNKNOWN, np.int64)
    for k, task in enumerate(tasks):
        place = {level: i for i, level in enumerate(task.levels)}
        index[:, k] = [place.get(float(value), UNKNOWN) for value in cohort.lesions[f"aux_{task.name}"]]
    return torch.from_numpy(index)
