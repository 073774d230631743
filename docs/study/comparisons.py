"""What is compared with what: a run is named backbone/variant/architecture, a cohort is a table of `predictions`."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import pandas as pd
from design import FOLDS
from formulas import Floats, Interval, auc, difference, mean
from predictions import KEYS
from sklearn.metrics import accuracy_score, recall_score, roc_auc_score


@dataclass(frozen=True)
class Comparison:
    """Two runs on the same lesions: pooled AUCs, their difference, each fold's own difference, and their mean."""

    seeds: list[int]
    first: float
    second: float
    gap: Interval
    folds: list[float]
    within: Interval

    @property
    def whole(self) -> bool:
        """Whether all folds are finished."""
        return len(self.folds) == FOLDS


def seeds(table: pd.DataFrame, run: str) -> list[int]:
    """Seeds with which a run, backbone/variant/architecture, is finished in all folds."""
    if set(table.get("fold", ())) != set(range(1, FOLDS + 1)):
        return []
    return [seed for seed in begun(table, run) if table[f"{run}/{seed}"].notna().all()]


def begun(table: pd.DataFrame, run: str) -> list[int]:
    """Seeds with which a run is finished in one fold at least."""
    return sorted(int(name.rpartition("/")[2]) for name in table if name.rpartition("/")[0] == run)


def averaged(table: pd.DataFrame, run: str, chosen: list[int]) -> Floats:
    """A run's probabilities averaged over seeds."""
    return table[[f"{run}/{seed}" for seed in chosen]].to_numpy().mean(axis=1)


def row(table: pd.DataFrame, run: str, chosen: list[int]) -> dict[str, float | Interval]:
    """Pooled AUC, accuracy, sensitivity and specificity; a lesion is positive above 1/2, as the most probable class."""
    score, truth = averaged(table, run, chosen), table["positive"].to_numpy(bool)
    said = score > 0.5
    return {
        "auc": auc(score, truth, table["patient"].to_numpy()),
        "accuracy": accuracy_score(truth, said),
        "sensitivity": recall_score(truth, said),
        "specificity": recall_score(~truth, ~said),
    }


def versus(table: pd.DataFrame, first: str, second: str) -> Comparison | None:
    """Compare two runs over the seeds that both have; None where they share none.

    Where no seed has all folds, it is the first one's, over the folds that both have finished with it.
    """
    both = sorted({*seeds(table, first)} & {*seeds(table, second)})
    both = both or sorted({*begun(table, first)} & {*begun(table, second)})[:1]
    part = table.dropna(subset=[f"{run}/{seed}" for run in (first, second) for seed in both])
    if not both or part.empty:
        return None
    one, two = averaged(part, first, both), averaged(part, second, both)
    truth, patient, fold = part["positive"].to_numpy(bool), part["patient"].to_numpy(), part["fold"].to_numpy()
    gap = difference(one, two, truth, patient)
    places = [fold == number for number in sorted(set(fold))]
    own = [difference(one[p], two[p], truth[p], patient[p]) for p in places]
    folds = [found.value for found in own]
    return Comparison(both, roc_auc_score(truth, one), roc_auc_score(truth, two), gap, folds, mean(own))


def each_run(cohorts: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """`runs.csv`: a line per training, its own figures on its fold's test lesions."""
    lines = []
    for cohort, table in cohorts.items():
        for name, fold in product([c for c in table if c not in KEYS], sorted(set(table["fold"]))):
            part = table[(table["fold"] == fold) & table[name].notna()]
            if part.empty:
                continue
            run, _, seed = name.rpartition("/")
            numbers = row(part, run, [int(seed)])
            backbone, variant, arch = run.split("/")
            place = {"cohort": cohort, "backbone": backbone, "variant": variant, "architecture": arch}
            value = {key: getattr(number, "value", number) for key, number in numbers.items()}
            lines.append(place | {"seed": int(seed), "fold": fold, "lesions": len(part)} | value)
    return pd.DataFrame(lines).round(6)
