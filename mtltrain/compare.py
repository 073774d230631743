"""From predictions to the paper's two tables and to the tests of MTL against STL."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ctpatch.store import InputError

from .metrics import Estimate, auc, compare_auc, mcnemar, one_vs_rest, proportion

SCHEMA = "mtltrain-metrics-1"
LESION = ["patient_id", "lesion_id"]
METHODS = {
    False: {"auc": "DeLong", "proportions": "Wilson", "auc_test": "paired DeLong", "test": "exact McNemar"},
    True: {
        "auc": "DeLong clustered by patient (Obuchowski)",
        "proportions": "patient bootstrap (Wilson where no patient recurs)",
        "auc_test": "paired DeLong clustered by patient (Obuchowski)",
        "test": "exact McNemar with signs flipped per patient",
    },
}
# what `tables` shows of each list in metrics.json: key -> column title
SELECTION = {"name": "", "r": "Spearman r", "p": "p", "n": "lesions", "kept": "kept", "reason": "reason"}
TESTS = {
    "first": "",
    "second": "against",
    "auc_difference": "AUC difference",
    "p_auc": "p (DeLong)",
    "first_only": "only MTL right",
    "second_only": "only STL right",
    "p_mcnemar": "p (McNemar)",
}
AUXILIARY = {
    "run": "",
    "task": "task",
    "lesions": "lesions",
    "accuracy": "accuracy",
    "majority": "training majority",
    "p_mcnemar": "p (McNemar)",
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

    def averaged(self, run: str) -> NDArray[np.float64]:
        """Each lesion's probabilities averaged over the run's seeds."""
        return np.mean(list(self.runs[run].values()), axis=0)


def read_predictions(path: Path) -> pd.DataFrame:
    """Read `predictions.csv` with text as text: `007` stays `007`, a blank label is ""."""
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    return table.astype({name: float for name in table if str(name).startswith("p_")} | {"seed": int})


def scores(predictions: pd.DataFrame, classes: Sequence[str]) -> Scores:
    """Gather the labelled test lesions of `predictions`; columns and errors as for `evaluate`."""
    test = _known(predictions, "label").sort_values(LESION)
    lesions = test[[*LESION, "label"]].drop_duplicates().to_numpy()
    runs: dict[str, dict[int, NDArray[np.float64]]] = {}
    for run, seed in predictions[["run", "seed"]].drop_duplicates().itertuples(index=False):
        rows = test[(test["run"] == run) & (test["seed"] == seed)]
        if not np.array_equal(rows[[*LESION, "label"]].to_numpy(), lesions):
            raise InputError(
                f"run {run}, seed {seed}, does not predict the {len(lesions)} labelled test lesions once each",
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
) -> dict[str, Any]:
    """Compute what `metrics.json` holds from the labelled test lesions.

    Parameters
    ----------
    predictions : DataFrame
        Columns run (`mtl-tl`, `mtl-ri`, `stl-tl`, `stl-ri`), seed, patient_id, lesion_id, split, label (blank =
        unknown: predicted, not scored) and `p_<class>` for each class.
    classes : sequence of str
        All classes, in the order of the network's outputs.
    positive : str, optional
        With two classes, the positive one; default: the last in sorted order.
    selection : sequence of mappings
        Rows of Table 1: name, r, p, n, kept, reason.
    auxiliary : DataFrame, optional
        One row per run, seed, lesion and task: run, seed, patient_id, lesion_id, split, task, level (the true one;
        blank = unknown), predicted, majority (the training lesions' commonest level).

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
        - tests: list of {first, second, auc_difference (estimate), p_auc, first_only, second_only (lesions that only
          this run has right), p_mcnemar}, of the averaged probabilities, not adjusted for their number
        - selection: the rows passed in
        - auxiliary: list of {run, task, lesions, accuracy (estimate; of the level that most seeds predict), over_seeds,
          majority (accuracy of always saying the training majority), p_mcnemar (against that)}

    Raises
    ------
    InputError
        If the runs or seeds do not cover the same labelled test lesions once each.
    """
    names = list(classes)
    group = scores(predictions, names)
    index = names.index(sorted(names)[-1] if positive is None else positive)
    tested = predictions[predictions["split"] == "test"][LESION].drop_duplicates()
    patients = len(set(group.patients))
    starts = [start for start in ("tl", "ri") if {f"mtl-{start}", f"stl-{start}"} <= set(group.runs)]
    return _plain(
        {
            "schema": SCHEMA,
            "classes": names,
            "positive": names[index] if len(names) == 2 else None,
            "methods": METHODS[patients < len(group.labels)],
            "test": {
                "lesions": len(group.labels),
                "patients": patients,
                "unlabelled": len(tested) - len(group.labels),
                "counts": dict(zip(names, np.bincount(group.labels, minlength=len(names)), strict=True)),
            },
            "runs": {run: _run(group, run, names, index) for run in group.runs},
            "tests": [_test(group, f"mtl-{start}", f"stl-{start}", index) for start in starts],
            "selection": selection,
            "auxiliary": [] if auxiliary is None else list(_auxiliary(auxiliary)),
        }
    )


def load_metrics(folder: Path) -> dict[str, Any]:
    """Read a run folder's `metrics.json`; an `InputError` where there is none of this schema."""
    try:
        metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        metrics = None
    if not isinstance(metrics, dict) or metrics.get("schema") != SCHEMA:
        raise InputError(f"no metrics.json of schema {SCHEMA}", "name a folder that `mtltrain fit` finished", folder)
    return metrics


def tables(metrics: Mapping[str, Any]) -> dict[str, pd.DataFrame]:
    """Title -> table of text with the row names in its index, for all of `metrics` that has rows."""
    test, positive = metrics["test"], metrics["positive"]
    tested = f"{test['lesions']} test lesions of {test['patients']} patients: " + ", ".join(
        f"{count} of class {name}{' (positive)' * (name == positive)}" for name, count in test["counts"].items()
    )
    several = any(len(entry["seeds"]) > 1 for entry in metrics["runs"].values())
    averaged = "Probabilities averaged over the seeds" if several else f"Table 2. {tested}"
    made = {
        "Table 1. Characteristics against the label, training lesions": _list_rows(metrics["selection"], SELECTION),
        f"Table 2. {tested}; mean ± SD over the seeds": _seed_rows(metrics) if several else [],
        f"{averaged}; value (95 % CI)": _result_rows(metrics),
        "MTL against STL": _list_rows(metrics["tests"], TESTS),
        "Auxiliary tasks, test lesions where known": _list_rows(metrics["auxiliary"], AUXILIARY),
    }
    return {title: _frame(rows) for title, rows in made.items() if rows}


def format_tables(metrics: Mapping[str, Any]) -> str:
    """Lay out `tables` and the reasons for what is undefined as plain text."""
    laid = [f"{title}\n{table.to_string()}" for title, table in tables(metrics).items()]
    return "\n\n".join([*laid, "\n".join(reasons(metrics))]).rstrip()


def format_comparison(folders: Mapping[str, Mapping[str, Any]]) -> str:
    """Lay out Table 2 of several run folders (name -> metrics) as one; several seeds: their averaged probabilities."""
    rows = []
    for name, metrics in folders.items():
        for row, entry in zip(_result_rows(metrics), metrics["runs"].values(), strict=True):
            size = {"lesions": str(metrics["test"]["lesions"]), "seeds": str(len(entry["seeds"]))}
            rows.append({"": f"{name} {row.pop('')}"} | size | row)
    return _frame(rows).to_string()


def reasons(metrics: Mapping[str, Any]) -> list[str]:
    """Why something in Table 2 or in the tests is undefined, one line each."""
    rows = {run_name(run): entry["metrics"] for run, entry in metrics["runs"].items()}
    found = {f"{run} {_head(name)}": item for run, row in rows.items() for name, item in row.items()}
    for test in metrics["tests"]:
        found[f"{run_name(test['first'])} against {run_name(test['second'])}"] = test["auc_difference"]
    return [f"{name}: {item['reason']}" for name, item in found.items() if item["reason"]]


def run_name(run: str) -> str:
    """Name a run as the paper does: `mtl-tl` is MTL+TL."""
    return run.upper().replace("-", "+")


def _known(table: pd.DataFrame, column: str) -> pd.DataFrame:
    """The test rows whose `column` is not blank."""
    return table[(table["split"] == "test") & table[column].notna() & (table[column] != "")]


def _estimates(
    table: NDArray[np.float64], labels: NDArray[np.int64], names: list[str], positive: int, patients: NDArray[Any]
) -> dict[str, Estimate]:
    """Table 2's row for one set of probabilities, shape (lesions, classes)."""
    chosen = table.argmax(axis=1)
    row = {
        "auc": auc(*one_vs_rest(table, labels, positive), patients),
        "accuracy": proportion(chosen == labels, patients),
    }
    for k in [positive] if len(names) == 2 else range(len(names)):
        suffix = "" if len(names) == 2 else f" {names[k]}"
        mine = labels == k
        row["sensitivity" + suffix] = proportion(chosen[mine] == k, patients[mine])
        row["specificity" + suffix] = proportion(chosen[~mine] != k, patients[~mine])
    return row


def _run(group: Scores, run: str, names: list[str], positive: int) -> dict[str, Any]:
    seeds = group.runs[run]
    alone = np.arange(group.labels.size)  # the seeds' intervals go unused: no bootstrap for them
    single = [_estimates(table, group.labels, names, positive, alone) for table in seeds.values()]
    metrics = _estimates(group.averaged(run), group.labels, names, positive, group.patients)
    spread = {name: _spread([row[name].value for row in single]) for name in metrics}
    return {"seeds": list(seeds), "metrics": metrics, "over_seeds": spread}


def _spread(values: list[float | None]) -> dict[str, Any]:
    known = [value for value in values if value is not None]
    whole = bool(values) and len(known) == len(values)
    sd = stdev(known) if whole and len(known) > 1 else None
    return {"values": values, "mean": mean(known) if whole else None, "sd": sd}


def _test(group: Scores, first: str, second: str, positive: int) -> dict[str, Any]:
    one, two = group.averaged(first), group.averaged(second)
    ours, truth = one_vs_rest(one, group.labels, positive)
    difference, p = compare_auc(ours, one_vs_rest(two, group.labels, positive)[0], truth, group.patients)
    right, other = one.argmax(axis=1) == group.labels, two.argmax(axis=1) == group.labels
    return {
        "first": first,
        "second": second,
        "auc_difference": difference,
        "p_auc": p,
        "first_only": (right & ~other).sum(),
        "second_only": (other & ~right).sum(),
        "p_mcnemar": mcnemar(right, other, group.patients) if right.size else None,
    }


def _auxiliary(table: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """Accuracy of each run and task."""
    for (run, task), rows in _known(table, "level").groupby(["run", "task"], sort=False):
        vote = rows.groupby(LESION)[["level", "predicted", "majority"]].agg(_commonest)
        right, usual = (vote[name].to_numpy() == vote["level"].to_numpy() for name in ("predicted", "majority"))
        patients = vote.index.get_level_values(0).to_numpy()
        yield {
            "run": run,
            "task": task,
            "lesions": len(vote),
            "accuracy": proportion(right, patients),
            "over_seeds": _spread(list((rows["predicted"] == rows["level"]).groupby(rows["seed"]).mean())),
            "majority": usual.mean(),
            "p_mcnemar": mcnemar(right, usual, patients),
        }


def _commonest(column: pd.Series) -> Any:
    return column.mode().iloc[0]


def _result_rows(metrics: Mapping[str, Any]) -> list[dict[str, str]]:
    return [
        {"": run_name(run)} | {_head(k): _cell(k, v) for k, v in entry["metrics"].items()}
        for run, entry in metrics["runs"].items()
    ]


def _seed_rows(metrics: Mapping[str, Any]) -> list[dict[str, str]]:
    return [
        {"": run_name(run), "seeds": str(len(entry["seeds"]))}
        | {_head(k): f"{_cell(k, v['mean'])} ± {_cell(k, v['sd'])}" for k, v in entry["over_seeds"].items()}
        for run, entry in metrics["runs"].items()
    ]


def _list_rows(items: Sequence[Mapping[str, Any]], columns: Mapping[str, str]) -> list[dict[str, str]]:
    return [{title: _cell(key, item[key]) for key, title in columns.items()} for item in items]


def _head(name: str) -> str:
    return "AUC" if name == "auc" else name


def _cell(key: str, value: Any) -> str:
    if value is None:
        return "undefined"
    if isinstance(value, Mapping):
        if value["low"] is None:
            return _cell(key, value["value"]) + (" (CI undefined)" if value["value"] is not None else "")
        return "{value:.3f} ({low:.3f} to {high:.3f})".format(**value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return "< 0.001" if key.startswith("p") and value < 0.001 else f"{value:.3f}"
    return run_name(value) if key in ("run", "first", "second") else str(value)


def _frame(rows: Sequence[Mapping[str, str]]) -> pd.DataFrame:
    """Rows under their names; lying on its side if too wide for a terminal (more than two classes)."""
    table = pd.DataFrame(rows).fillna("")
    table = table.set_index(table.columns[0]).rename_axis(None)
    return table.T if table.shape[1] > 6 else table


def _plain(value: Any) -> Any:
    """Python's own values for numpy's and for estimates, and None for NaN: strict JSON."""
    if isinstance(value, Estimate):
        value = asdict(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and np.isnan(value) else value
