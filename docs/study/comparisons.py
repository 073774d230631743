"""What is compared with what: a run is named backbone/variant/architecture, a cohort is a table of `predictions`."""

from __future__ import annotations

from itertools import product

import pandas as pd
from formulas import Floats, Interval, auc, difference
from predictions import KEYS
from sklearn.metrics import accuracy_score, recall_score, roc_auc_score


def seeds(table: pd.DataFrame, run: str) -> list[int]:
    """Seeds with which a run, backbone/variant/architecture, is finished."""
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


def versus(table: pd.DataFrame, first: str, second: str) -> tuple[list[int], Interval, list[float]] | None:
    """Seeds that both have, the pooled difference, and each fold's own; None where they share no seed."""
    both = sorted({*seeds(table, first)} & {*seeds(table, second)})
    if not both:
        return None
    one, two = averaged(table, first, both), averaged(table, second, both)
    truth, patient, fold = table["positive"].to_numpy(bool), table["patient"].to_numpy(), table["fold"].to_numpy()
    folds = [roc_auc_score(truth[fold == f], one[fold == f]) for f in sorted(set(fold))]
    folds = [a - roc_auc_score(truth[fold == f], two[fold == f]) for a, f in zip(folds, sorted(set(fold)), strict=True)]
    return both, difference(one, two, truth, patient), folds


def each_run(cohorts: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """`runs.csv`: a line per training, its own figures on its fold's test lesions."""
    lines = []
    for cohort, table in cohorts.items():
        for name, fold in product([c for c in table if c not in KEYS], sorted(set(table["fold"]))):
            part = table[table["fold"] == fold]
            run, _, seed = name.rpartition("/")
            numbers = row(part, run, [int(seed)])
            backbone, variant, arch = run.split("/")
            place = {"cohort": cohort, "backbone": backbone, "variant": variant, "architecture": arch}
            value = {key: getattr(number, "value", number) for key, number in numbers.items()}
            lines.append(place | {"seed": int(seed), "fold": fold, "lesions": len(part)} | value)
    return pd.DataFrame(lines).round(6)
