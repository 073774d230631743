"""From predictions to what `metrics.json` holds: the paper's Table 2, and the tests of MTL against STL."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ctpatch.store import InputError

from .clinical import THRESHOLDS, calibration, net_benefit, operating_point, youden
from .metrics import Estimate, auc, compare_auc, mcnemar, one_vs_rest, others, proportion, ranking
from .tables import read_json

SCHEMA = "mtltrain-metrics-1"
LESION = ["patient_id", "lesion_id"]
INTERVAL = "symmetric on the logit scale; of a difference of AUCs on its own"
METHODS = {
    False: {
        "auc": "DeLong",
        "auc_interval": INTERVAL,
        "proportions": "Wilson",
        "auc_test": "paired DeLong",
        "test": "exact McNemar",
        "calibration": "logistic regression; Brier score by patient bootstrap",
    },
    True: {
        "auc": "DeLong clustered by patient (Obuchowski)",
        "auc_interval": INTERVAL,
        "proportions": "patient bootstrap (Wilson where no patient recurs)",
        "auc_test": "paired DeLong clustered by patient (Obuchowski)",
        "test": "exact McNemar with signs flipped per patient",
        "calibration": "logistic regression, errors clustered by patient; Brier score by patient bootstrap",
    },
}


@dataclass(frozen=True)
class Scores:
    """The labelled test lesions, and the probabilities that each seed of each run gives them.

    Attributes
    ----------
    patients : array of str, shape (lesions,)
    labels : int array, shape (lesions,)
    runs : run -> seed -> array, shape (lesions, classes)
    """

    patients: NDArray[Any]
    labels: NDArray[np.int64]
    runs: dict[str, dict[int, NDArray[np.float64]]]

    def averaged(self, run: str, seeds: Sequence[int] | None = None) -> NDArray[np.float64]:
        """Each lesion's probabilities averaged over the run's seeds, or some of them."""
        tables = self.runs[run]
        return np.mean([tables[seed] for seed in (tables if seeds is None else seeds)], axis=0)


def numbers(predictions: pd.DataFrame) -> pd.DataFrame:
    """`predictions.csv`, its numbers as numbers where `mtltrain.tables.read_csv` gave text."""
    return predictions.astype({name: float for name in predictions if str(name).startswith("p_")} | {"seed": int})


def scores(predictions: pd.DataFrame, classes: Sequence[str], split: str = "test") -> Scores:
    """Gather the labelled lesions of a split of `predictions`; columns and errors as for `evaluate`."""
    predictions = numbers(predictions)
    test = where_known(predictions, "label", split).sort_values(LESION)
    lesions = test[[*LESION, "label"]].drop_duplicates().to_numpy()
    runs: dict[str, dict[int, NDArray[np.float64]]] = {}
    for run, seed in predictions[["run", "seed"]].drop_duplicates().itertuples(index=False):
        rows = test[(test["run"] == run) & (test["seed"] == seed)]
        if not np.array_equal(rows[[*LESION, "label"]].to_numpy(), lesions):
            raise InputError(
                f"run {run}, seed {seed}, does not predict the {len(lesions)} labelled {split} lesions once each",
                "train all runs on one store",
            )
        runs.setdefault(run, {})[int(seed)] = rows[[f"p_{name}" for name in classes]].to_numpy(np.float64)
    labels = [list(classes).index(label) for label in lesions[:, 2]]
    return Scores(lesions[:, 0], np.array(labels, dtype=np.int64), runs)


def evaluate(
    predictions: pd.DataFrame,
    classes: Sequence[str],
    positive: str | None = None,
    *,
    selection: Sequence[Mapping[str, Any]] = (),
    auxiliary: pd.DataFrame | None = None,
    flow: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """Compute what `metrics.json` holds from the labelled test lesions.

    Parameters
    ----------
    predictions : DataFrame
        `predictions.csv`: run (`mtl-tl`, `mtl-ri`, `stl-tl`, `stl-ri`), seed, patient_id, lesion_id, split, label
        (blank = unknown: predicted, not scored) and `p_<class>` for each class. Of several folds together: fold.
    classes : sequence of str
        All classes, in the order of the network's outputs.
    positive : str, optional
        With two classes, the positive one; default: the last in sorted order.
    selection : sequence of mappings
        Rows of Table 1: name, r, p, n, kept, reason, test (where p is from: `t distribution`; `exact`, all orders;
        `permutation`, 99,999 of them).
    auxiliary : DataFrame, optional
        One row per run, seed, lesion and task: run, seed, patient_id, lesion_id, split, task, level (the true one;
        blank = unknown; one unseen in training counts as missed), predicted, majority (the training lesions' commonest
        level).
    flow : sequence of mappings
        Rows of the flow of patients and lesions, `ctpatch.store.flow`.

    Returns
    -------
    dict
        None where undefined. An *estimate* is {value, low, high, reason}: with 95 % interval, and why there is none.

        - schema, classes, positive (None with more than two classes), methods
        - test: lesions, patients, unlabelled, counts (class -> lesions)
        - runs: run -> {seeds, metrics: name -> estimate, over_seeds: name -> {values (one per seed), mean, sd}}.
          Names: auc, accuracy, sensitivity, specificity; with more than two classes auc (macro one-vs-rest), accuracy
          and `sensitivity <class>`, `specificity <class>` for each. Estimates are of the probabilities averaged over
          the seeds; a lesion's class is its most probable one, the first of equals.
          Each run also has, of the averaged probabilities and by class (the positive one; with more than two each
          against the rest; see `mtltrain.clinical`): calibration: {brier, intercept, slope (estimates), bins: list of
          {predicted, observed (estimate), lesions}}; operating_point: {thresholds (Youden's on the validation
          lesions, one per fold), accuracy, sensitivity, specificity (estimates on the test lesions)}; net_benefit: a
          value per threshold of the decision curve
        - decision_curve: {thresholds, all: class -> net benefit of calling every lesion so}
        - tests: list of {first, second, seeds, auc_difference (estimate), p_auc, first_only, second_only (lesions that
          only this run has right), p_mcnemar}, of the probabilities averaged over the seeds that both runs have: an
          average of five networks is better than one network, whatever they are. Not adjusted for their number
        - selection, flow: the rows passed in
        - auxiliary: list of {run, task, lesions, accuracy (estimate; of the level that most seeds predict, the smallest
          of equally many), over_seeds, majority (accuracy of always saying the training majority), p_mcnemar (against
          that)}

    Raises
    ------
    InputError
        If the runs or seeds do not cover the same labelled test lesions once each.
    """
    names = list(classes)
    group = scores(predictions, names)
    index = names.index(sorted(names)[-1] if positive is None else positive)
    parts = [part for _, part in predictions.groupby("fold")] if "fold" in predictions else [predictions]
    folds = [(scores(part, names, "val"), scores(part, names)) for part in parts]
    starts = [start for start in ("tl", "ri") if {f"mtl-{start}", f"stl-{start}"} <= set(group.runs)]
    test = _tested(predictions, group, names)
    return plain(
        {
            "schema": SCHEMA,
            "classes": names,
            "positive": names[index] if len(names) == 2 else None,
            "methods": METHODS[test["patients"] < test["lesions"]],
            "test": test,
            "runs": {
                run: _run(group, run, names, index) | _clinical(group, folds, run, names, index) for run in group.runs
            },
            "decision_curve": {"thresholds": list(THRESHOLDS), "all": _treat_all(group, names, index)},
            "tests": [_test(group, f"mtl-{start}", f"stl-{start}", index) for start in starts],
            "selection": selection,
            "flow": flow,
            "auxiliary": [] if auxiliary is None or auxiliary.empty else list(_auxiliary(auxiliary)),
        }
    )


def load_metrics(folder: Path) -> dict[str, Any]:
    """Read a run folder's `metrics.json`; an `InputError` where there is none of this schema."""
    metrics = read_json(folder / "metrics.json")
    if metrics.get("schema") != SCHEMA:
        raise InputError(f"no metrics.json of schema {SCHEMA}", "name a folder that `mtltrain fit` finished", folder)
    return metrics


def where_known(table: pd.DataFrame, column: str, split: str = "test") -> pd.DataFrame:
    """The rows of a split whose `column` is not blank."""
    return table[(table["split"] == split) & table[column].notna() & (table[column] != "")]


def _tested(predictions: pd.DataFrame, group: Scores, names: list[str]) -> dict[str, Any]:
    lesions = len(group.labels)
    return {
        "lesions": lesions,
        "patients": len(set(group.patients)),
        "unlabelled": len(predictions[predictions["split"] == "test"][LESION].drop_duplicates()) - lesions,
        "counts": dict(zip(names, np.bincount(group.labels, minlength=len(names)), strict=True)),
    }


def _estimates(
    table: NDArray[np.float64], labels: NDArray[np.int64], names: list[str], positive: int, patients: NDArray[Any]
) -> dict[str, Estimate]:
    """Table 2's row for one set of probabilities, shape (lesions, classes)."""
    said = table.argmax(axis=1)
    row = {
        "auc": auc(*one_vs_rest(ranking(table), labels, positive), patients),
        "accuracy": proportion(said == labels, patients),
    }
    for k in [positive] if len(names) == 2 else range(len(names)):
        suffix, mine = "" if len(names) == 2 else f" {names[k]}", labels == k
        row["sensitivity" + suffix] = proportion(said[mine] == k, patients[mine])
        row["specificity" + suffix] = proportion(said[~mine] != k, patients[~mine])
    return row


def _run(group: Scores, run: str, names: list[str], positive: int) -> dict[str, Any]:
    seeds = group.runs[run]
    alone = np.arange(group.labels.size)  # the seeds' intervals go unused: no bootstrap for them
    single = [_estimates(table, group.labels, names, positive, alone) for table in seeds.values()]
    metrics = _estimates(group.averaged(run), group.labels, names, positive, group.patients)
    over_seeds = {name: spread([row[name].value for row in single]) for name in metrics}
    return {"seeds": list(seeds), "metrics": metrics, "over_seeds": over_seeds}


def _clinical(
    group: Scores, folds: Sequence[tuple[Scores, Scores]], run: str, names: list[str], positive: int
) -> dict[str, Any]:
    """What `mtltrain.clinical` finds of a run; `folds` are the validation and the test lesions of each fold."""
    found: dict[str, Any] = {"calibration": {}, "operating_point": {}, "net_benefit": {}}
    table = group.averaged(run)
    whole = one_vs_rest(table, group.labels, positive)
    rest = one_vs_rest(others(table), group.labels, positive)[0]
    sides = [[one_vs_rest(side.averaged(run), side.labels, positive) for side in fold] for fold in folds]
    for k, name in enumerate(_problems(names, positive)):
        score, truth = whole[0][k], whole[1][k]
        found["calibration"][name] = calibration(score, truth, group.patients, rest[k])
        found["net_benefit"][name] = list(net_benefit(score, truth))
        found["operating_point"][name] = operating_point(
            [
                (youden(val[0][k], val[1][k]), test[0][k], test[1][k], fold[1].patients)
                for (val, test), fold in zip(sides, folds, strict=True)
            ]
        )
    return found


def _treat_all(group: Scores, names: list[str], positive: int) -> dict[str, list[float]]:
    everyone = np.ones((group.labels.size, len(names)))
    problems = zip(_problems(names, positive), *one_vs_rest(everyone, group.labels, positive), strict=True)
    return {name: list(net_benefit(score, truth)) for name, score, truth in problems}


def _problems(names: list[str], positive: int) -> list[str]:
    """The class that each of `one_vs_rest`'s problems is about."""
    return [names[positive]] if len(names) == 2 else names


def spread(values: list[float | None]) -> dict[str, Any]:
    """Values of one figure with their mean and SD, None where one of them is."""
    column = pd.Series(values, dtype=float)  # with one undefined, mean and SD are
    return {"values": values, "mean": column.mean(skipna=False), "sd": column.std(skipna=False)}


def _test(group: Scores, first: str, second: str, positive: int) -> dict[str, Any]:
    seeds = [seed for seed in group.runs[first] if seed in group.runs[second]]
    pair = {"first": first, "second": second, "seeds": seeds}
    if not seeds:
        undefined = Estimate(None, reason="no seed is in both")
        return pair | {"auc_difference": undefined} | dict.fromkeys(["p_auc", "first_only", "second_only", "p_mcnemar"])
    one, two = (group.averaged(run, seeds) for run in (first, second))
    ours, truth = one_vs_rest(ranking(one), group.labels, positive)
    difference, p = compare_auc(ours, one_vs_rest(ranking(two), group.labels, positive)[0], truth, group.patients)
    right, other = one.argmax(axis=1) == group.labels, two.argmax(axis=1) == group.labels
    return pair | {
        "auc_difference": difference,
        "p_auc": p,
        "first_only": (right & ~other).sum(),
        "second_only": (other & ~right).sum(),
        "p_mcnemar": mcnemar(right, other, group.patients) if right.size else None,
    }


def _auxiliary(table: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """Accuracy of each run and task."""
    told = ["level", "predicted", "majority"]
    known = where_known(table, "level").astype(dict.fromkeys(told, float))
    for (run, task), rows in known.groupby(["run", "task"], sort=False):
        vote = rows.groupby(LESION)[told].agg(commonest)
        right, usual = (vote[name].to_numpy() == vote["level"].to_numpy() for name in ("predicted", "majority"))
        patients = vote.index.get_level_values(0).to_numpy()
        yield {
            "run": run,
            "task": task,
            "lesions": len(vote),
            "accuracy": proportion(right, patients),
            "over_seeds": spread(list((rows["predicted"] == rows["level"]).groupby(rows["seed"]).mean())),
            "majority": usual.mean(),
            "p_mcnemar": mcnemar(right, usual, patients),
        }


def commonest(levels: pd.Series) -> float:
    """The level that most seeds predict, of equally many the smaller; the numbers may stand as text."""
    return float(levels.astype(float).mode().iloc[0])


def plain(value: Any) -> Any:
    """What strict JSON would give back: Python's own values for numpy's and for estimates, and None for NaN."""
    return json.loads(json.dumps(value, default=_python), parse_constant=lambda _: None)


def _python(value: Any) -> Any:
    return asdict(value) if isinstance(value, Estimate) else value.item()
