"""From predictions to what `metrics.json` holds: the paper's Table 2, and the tests of MTL against STL."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ctpatch.store import InputError

from .clinical import THRESHOLDS, calibration, net_benefit, operating_point, youden
from .files import read_csv, read_json
from .metrics import Estimate, Floats, auc, compare_auc, mcnemar, others, proportion, ranking
from .scores import LESION, Scores, scores, votes, where_known

SCHEMA = "mtltrain-metrics-1"
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
    group = scores(predictions, classes, positive)
    parts = [part for _, part in predictions.groupby("fold")] if "fold" in predictions else [predictions]
    folds = [(scores(part, classes, positive, "val"), scores(part, classes, positive)) for part in parts]
    starts = [start for start in ("tl", "ri") if {f"mtl-{start}", f"stl-{start}"} <= set(group.runs)]
    test = _tested(predictions, group)
    return plain(
        {
            "schema": SCHEMA,
            "classes": group.classes,
            "positive": group.positive,
            "methods": METHODS[test["patients"] < test["lesions"]],
            "test": test,
            "runs": {run: _run(group, run) | _clinical(group, folds, run) for run in group.runs},
            "decision_curve": {"thresholds": list(THRESHOLDS), "all": _treat_all(group)},
            "tests": [_test(group, f"mtl-{start}", f"stl-{start}") for start in starts],
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


def other_lesions(folders: Sequence[Path]) -> str:
    """What to say where run folders were not tested on the same lesions; "" where they were, or nobody knows."""
    try:
        known = [where_known(read_csv(folder / "predictions.csv"), "label") for folder in folders]
        tested = [set(rows[[*LESION, "label"]].itertuples(index=False, name=None)) for rows in known]
    except (OSError, ValueError, KeyError):  # only metrics.json was kept, or the table is somebody else's
        return ""
    shared, met = set.intersection(*tested), set.union(*tested)
    told = f"Not the same test lesions: {len(shared)} are in all of these folders, {len(met)} in one or more."
    return "" if shared == met else told


def _tested(predictions: pd.DataFrame, group: Scores) -> dict[str, Any]:
    lesions, classes = len(group.labels), group.classes
    return {
        "lesions": lesions,
        "patients": len(set(group.patients)),
        "unlabelled": len(predictions[predictions["split"] == "test"][LESION].drop_duplicates()) - lesions,
        "counts": dict(zip(classes, np.bincount(group.labels, minlength=len(classes)), strict=True)),
    }


def _estimates(group: Scores, table: Floats, patients: NDArray[Any]) -> dict[str, Estimate]:
    """Table 2's row for one set of probabilities of the lesions, shape (lesions, classes)."""
    said = table.argmax(axis=1)
    row = {
        "auc": auc(*group.problems(ranking(table)), patients),
        "accuracy": proportion(said == group.labels, patients),
    }
    for name in group.told:
        k, suffix = group.classes.index(name), f" {name}" * (group.positive is None)
        mine = group.labels == k
        row["sensitivity" + suffix] = proportion(said[mine] == k, patients[mine])
        row["specificity" + suffix] = proportion(said[~mine] != k, patients[~mine])
    return row


def _run(group: Scores, run: str) -> dict[str, Any]:
    seeds = group.runs[run]
    alone = np.arange(group.labels.size)  # the seeds' intervals go unused: no bootstrap for them
    single = [_estimates(group, table, alone) for table in seeds.values()]
    metrics = _estimates(group, group.averaged(run), group.patients)
    over_seeds = {name: spread([row[name].value for row in single]) for name in metrics}
    return {"seeds": list(seeds), "metrics": metrics, "over_seeds": over_seeds}


def _clinical(group: Scores, folds: Sequence[tuple[Scores, Scores]], run: str) -> dict[str, Any]:
    """What `mtltrain.clinical` finds of a run; `folds` are the validation and the test lesions of each fold."""
    found: dict[str, Any] = {"calibration": {}, "operating_point": {}, "net_benefit": {}}
    rest = group.problems(others(group.averaged(run)))[0]
    for k, name in enumerate(group.told):
        score, truth = group.problem(run, name)
        found["calibration"][name] = calibration(score, truth, group.patients, rest[k])
        found["net_benefit"][name] = list(net_benefit(score, truth))
        found["operating_point"][name] = operating_point(
            [(youden(*val.problem(run, name)), *test.problem(run, name), test.patients) for val, test in folds]
        )
    return found


def _treat_all(group: Scores) -> dict[str, list[float]]:
    everyone = np.ones(group.labels.size)
    return {name: list(net_benefit(everyone, group.labels == group.classes.index(name))) for name in group.told}


def spread(values: Sequence[float | None]) -> dict[str, Any]:
    """Values of one figure with their mean and SD, None where one of them is."""
    column = pd.Series([*values], dtype=float)  # with one undefined, mean and SD are
    return {"values": [*values], "mean": column.mean(skipna=False), "sd": column.std(skipna=False)}


def _test(group: Scores, first: str, second: str) -> dict[str, Any]:
    seeds = [seed for seed in group.runs[first] if seed in group.runs[second]]
    pair = {"first": first, "second": second, "seeds": seeds}
    if not seeds:
        undefined = Estimate(None, reason="no seed is in both")
        return pair | {"auc_difference": undefined} | dict.fromkeys(["p_auc", "first_only", "second_only", "p_mcnemar"])
    one, two = (group.averaged(run, seeds) for run in (first, second))
    ours, truth = group.problems(ranking(one))
    difference, p = compare_auc(ours, group.problems(ranking(two))[0], truth, group.patients)
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
    rows = where_known(table, "level").astype({"level": float, "predicted": float})
    by_seed = (rows["predicted"] == rows["level"]).groupby([rows["run"], rows["task"], rows["seed"]]).mean()
    for (run, task), vote in votes(table).dropna(subset="level").groupby(["run", "task"], sort=False):
        right, usual = (vote[name].to_numpy() == vote["level"].to_numpy() for name in ("predicted", "majority"))
        patients = vote.index.get_level_values("patient_id").to_numpy()
        yield {
            "run": run,
            "task": task,
            "lesions": len(vote),
            "accuracy": proportion(right, patients),
            "over_seeds": spread(by_seed.xs((run, task)).tolist()),
            "majority": usual.mean(),
            "p_mcnemar": mcnemar(right, usual, patients),
        }


def plain(value: Any) -> Any:
    """What strict JSON would give back: Python's own values for numpy's and for estimates, and None for NaN."""
    return json.loads(json.dumps(value, default=_python), parse_constant=lambda _: None)


def _python(value: Any) -> Any:
    return asdict(value) if isinstance(value, Estimate) else value.item()
