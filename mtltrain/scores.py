"""What the runs say of a split's lesions, from `predictions.csv` and `auxiliary.csv`: seeds averaged, or voting."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ctpatch.store import InputError

from .metrics import Floats, one_vs_rest

LESION = ["patient_id", "lesion_id"]


@dataclass(frozen=True, eq=False)
class Scores:
    """The labelled lesions of a split, and the probabilities that each seed of each run gives them.

    Attributes
    ----------
    classes : tuple of str
        In the order of the network's outputs.
    positive : str or None
        The positive class of two; None with more.
    lesions : DataFrame
        Columns patient_id, lesion_id.
    labels : int array, shape (lesions,)
    runs : run -> seed -> array, shape (lesions, classes)
    """

    classes: tuple[str, ...]
    positive: str | None
    lesions: pd.DataFrame
    labels: NDArray[np.int64]
    runs: dict[str, dict[int, Floats]]

    @property
    def patients(self) -> NDArray[np.object_]:
        """The patient of each lesion."""
        return self.lesions["patient_id"].to_numpy(dtype=object)

    @property
    def told(self) -> tuple[str, ...]:
        """The classes that are told from the rest: the positive one of two, each of more."""
        return self.classes if self.positive is None else (self.positive,)

    def averaged(self, run: str, seeds: Sequence[int] | None = None) -> Floats:
        """Each lesion's probabilities averaged over the run's seeds, or some of them."""
        tables = self.runs[run]
        return np.mean([tables[seed] for seed in (tables if seeds is None else seeds)], axis=0)

    def problem(self, run: str, name: str) -> tuple[Floats, NDArray[np.bool_]]:
        """The averaged probability of a class, and whether it is the lesion's; (lesions,) each."""
        return self.averaged(run)[:, self.classes.index(name)], self.labels == self.classes.index(name)

    def problems(self, table: Floats) -> tuple[Floats, NDArray[np.bool_]]:
        """Of scores (lesions, classes) those of each class in `told`, and the truth: see `metrics.one_vs_rest`."""
        return one_vs_rest(table, self.labels, self.classes.index(self.told[0]))


def numbers(predictions: pd.DataFrame) -> pd.DataFrame:
    """`predictions.csv`, its numbers as numbers where `mtltrain.files.read_csv` gave text."""
    return predictions.astype({name: float for name in predictions if str(name).startswith("p_")} | {"seed": int})


def where_known(table: pd.DataFrame, column: str, split: str = "test") -> pd.DataFrame:
    """The rows of a split whose `column` is not blank."""
    return table[(table["split"] == split) & table[column].notna() & (table[column] != "")]


def scores(
    predictions: pd.DataFrame, classes: Sequence[str], positive: str | None = None, split: str = "test"
) -> Scores:
    """Gather the labelled lesions of a split of `predictions`; columns as for `mtltrain.compare.evaluate`.

    With two classes the positive one is the last in sorted order, unless `positive` names it.

    Raises
    ------
    InputError
        If the runs or seeds do not cover the same lesions once each.
    """
    predictions = numbers(predictions)
    known = where_known(predictions, "label", split).sort_values(LESION)
    lesions = known[[*LESION, "label"]].drop_duplicates(ignore_index=True)
    runs: dict[str, dict[int, Floats]] = {}
    for run, seed in predictions[["run", "seed"]].drop_duplicates().itertuples(index=False):
        rows = known[(known["run"] == run) & (known["seed"] == seed)]
        if not np.array_equal(rows[[*LESION, "label"]].to_numpy(), lesions.to_numpy()):
            raise InputError(
                f"run {run}, seed {seed}, does not predict the {len(lesions)} labelled {split} lesions once each",
                "train all runs on one store",
            )
        runs.setdefault(run, {})[int(seed)] = rows[[f"p_{name}" for name in classes]].to_numpy(np.float64)
    labels = np.array([list(classes).index(label) for label in lesions.pop("label")], dtype=np.int64)
    return Scores(tuple(classes), (positive or max(classes)) if len(classes) == 2 else None, lesions, labels, runs)


def votes(auxiliary: pd.DataFrame) -> pd.DataFrame:
    """What the seeds of each run say of the test lesions' characteristics; `auxiliary` as for `compare.evaluate`.

    Returns
    -------
    DataFrame
        A row per run, task, patient_id and lesion_id (its index), of numbers: level (the known one, NaN = unknown),
        predicted (what most seeds say, the smallest of equally many) and majority. Without rows where no run has tasks.
    """
    keys, levels = ["run", "task", *LESION], ["level", "predicted", "majority"]
    table = auxiliary[auxiliary["split"] == "test"].reindex(columns=[*keys, *levels])
    table[levels] = table[levels].apply(pd.to_numeric)  # which takes "" for unknown
    return table.groupby(keys, sort=False).agg(_commonest)


def _commonest(levels: pd.Series) -> float:
    return float(levels.mode().min())
