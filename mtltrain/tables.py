"""`metrics.json` laid out as text: tables, what is undefined and why, and a sentence on each comparison."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd

HEADS = {
    "name": "",
    "run": "",
    "first": "",
    "second": "against",
    "r": "Spearman r",
    "test": "p from",
    "n": "lesions",
    "auc": "AUC",
    "brier": "Brier score",
    "auc_difference": "AUC difference",
    "p_auc": "p (DeLong)",
    "first_only": "only MTL right",
    "second_only": "only STL right",
    "majority": "training majority",
    "p_mcnemar": "p (McNemar)",
}
"""Column titles where they are not the key itself."""

CLUSTERED = {"p_auc": "p (Obuchowski)", "p_mcnemar": "p (McNemar, by patient)"}
"""Where a patient has several lesions."""

CLINICAL, CALIBRATION = ("calibration", "operating_point", "net_benefit"), ("brier", "intercept", "slope")

FLOW = "Flow of patients and lesions"
"""Title of the last of the tables."""

CALIBRATED = 100
"""Test lesions of each class below which calibration says little (Collins et al., Stat. Med. 35:214, 2016)."""

FEWEST = 10
"""Test lesions of each class below which the intervals are too narrow and p is too small."""

LEVEL = 0.05
"""p below which a difference is called one."""

SHOWN = (0.1, 0.2, 0.3, 0.4, 0.5)
"""Of the decision curve's thresholds those that the table has."""


def tables(metrics: Mapping[str, Any]) -> dict[str, pd.DataFrame]:
    """Title -> table of text with the row names in its index, for all of `metrics` that has rows."""
    test, runs = metrics["test"], metrics["runs"]
    tested = f"{test['lesions']} test lesions of {test['patients']} patients: " + ", ".join(
        f"{n} of class {name}{' (positive)' * (name == metrics['positive'])}" for name, n in test["counts"].items()
    )
    counts = {run_name(run): len(entry["seeds"]) for run, entry in runs.items()}
    uneven = len(set(counts.values())) > 1
    several, clustered = max(counts.values(), default=0) > 1, test["patients"] < test["lesions"]
    averaged = "Probabilities averaged over the seeds" if several else f"Table 2. {tested}"
    if uneven:  # an average of more networks is the better for that alone
        averaged += f" ({', '.join(f'{n} of {run}' for run, n in counts.items())})"
    folds = [{"run": run} | entry["over_folds"] for run, entry in runs.items() if "over_folds" in entry]
    seeds = [{"run": run, "seeds": len(entry["seeds"])} | entry["over_seeds"] for run, entry in runs.items()]
    tasks = [{key: row[key] for key in row if key != "over_seeds"} for row in metrics["auxiliary"]]
    tests = [{key: row[key] for key in row if key != "seeds"} for row in metrics["tests"]]
    made = {
        "Table 1. Characteristics against the label, training lesions": metrics["selection"],
        f"Table 2. {tested}; mean ± SD over the seeds": seeds if several else [],
        f"{averaged}; value (95 % CI{', by patient' * clustered})": [
            {"run": run} | entry["metrics"] for run, entry in runs.items()
        ],
        f"Mean ± SD of the {metrics.get('folds')} folds' own figures": folds,
        f"MTL against STL{', over the seeds that both have' * uneven}": tests,
        "Auxiliary tasks, test lesions where known": tasks,
        **_clinical(metrics),
        FLOW: metrics.get("flow", []),
    }
    heads = HEADS | CLUSTERED if clustered else HEADS
    return {title: _frame(rows, heads) for title, rows in made.items() if rows}


def _clinical(metrics: Mapping[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Calibration, operating point and net benefit: title -> rows, one per run, and per class of more than two."""
    entries = _entries(metrics)
    if not entries:
        return {}
    curve = metrics["decision_curve"]
    places = [curve["thresholds"].index(threshold) for threshold in SHOWN]
    benefits = {name: entry["net_benefit"] for name, entry in entries.items()}
    benefits |= {f"all called {name}": values for name, values in curve["all"].items()}
    points = {name: entry["operating_point"] for name, entry in entries.items()}
    return {
        f"Calibration, test lesions; right: intercept 0, slope 1{_judged(metrics)}": [
            {"name": name} | {key: entry["calibration"][key] for key in CALIBRATION} for name, entry in entries.items()
        ],
        "Operating point chosen on the validation lesions (Youden), test lesions": [
            {"name": name, "threshold": ", ".join(map(_threshold, point["thresholds"]))}
            | {key: point[key] for key in ("accuracy", "sensitivity", "specificity")}
            for name, point in points.items()
        ],
        "Net benefit at threshold probabilities (decision curve), test lesions": [
            {"name": name} | {f"at {curve['thresholds'][k]:g}": values[k] for k in places}
            for name, values in benefits.items()
        ],
    }


def _judged(metrics: Mapping[str, Any]) -> str:
    few = min(metrics["test"]["counts"].values(), default=0) < CALIBRATED
    return f"; hardly to be judged with fewer than {CALIBRATED} of a class" if few else ""


def _entries(metrics: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """What `mtltrain.clinical` found by run, and class of more than two; older files have none."""
    return {
        run_name(run) + f" {name}" * (metrics["positive"] is None): {key: entry[key][name] for key in CLINICAL}
        for run, entry in metrics["runs"].items()
        for name in entry.get("calibration", {})
    }


def format_tables(metrics: Mapping[str, Any]) -> str:
    """Lay out `tables` and the reasons for what is undefined as plain text."""
    laid = [f"{title}\n{table.to_string()}" for title, table in tables(metrics).items()]
    return "\n\n".join([*laid, "\n".join(reasons(metrics))]).rstrip()


def format_comparison(folders: Mapping[str, Mapping[str, Any]]) -> str:
    """Lay out Table 2 of several run folders (name -> metrics) as one; several seeds: their averaged probabilities."""
    positive = {folder: metrics["positive"] or "each" for folder, metrics in folders.items()}
    differ = len(set(positive.values())) > 1
    rows = [
        {"name": f"{folder} {run_name(run)}", "lesions": metrics["test"]["lesions"], "seeds": len(entry["seeds"])}
        | ({"positive": positive[folder]} if differ else {})
        | entry["metrics"]
        for folder, metrics in folders.items()
        for run, entry in metrics["runs"].items()
    ]
    return _frame(rows).to_string()


def reasons(metrics: Mapping[str, Any]) -> list[str]:
    """Why something in the tables is undefined, one line each."""
    found = {
        f"{run_name(run)} {HEADS.get(name, name)}": item
        for run, entry in metrics["runs"].items()
        for name, item in entry["metrics"].items()
    }
    for name, entry in _entries(metrics).items():
        found |= {f"{name} {HEADS.get(key, key)}": entry["calibration"][key] for key in CALIBRATION}
        point = entry["operating_point"]
        found[f"{name} operating point"] = point["accuracy"]
        if not point["accuracy"]["reason"]:
            found |= {f"{name} {key} at the operating point": point[key] for key in ("sensitivity", "specificity")}
    for test in metrics["tests"]:
        found[f"{run_name(test['first'])} against {run_name(test['second'])}"] = test["auc_difference"]
    return [f"{name}: {item['reason']}" for name, item in found.items() if item["reason"]]


def verdicts(metrics: Mapping[str, Any]) -> list[str]:
    """What each comparison has shown, a sentence each."""
    found, counts = [], metrics.get("test", {}).get("counts", {})
    few = ", ".join(f"{n} of class {name}" for name, n in counts.items() if n < FEWEST)
    doubt = f" Few test lesions ({few}): the interval is too narrow and p too small." if few else ""
    for test in metrics["tests"]:
        gap, p = test["auc_difference"], test["p_auc"]
        pair = f"{run_name(test['first'])} against {run_name(test['second'])}"
        if gap["value"] is None or gap["low"] is None or p is None:
            found.append(f"{pair}: undefined ({gap['reason'] or 'too few lesions'}).")
            continue
        value, low, high = (_told(gap[key], sign="+") for key in ("value", "low", "high"))
        told = f"AUC {value} (95 % CI {low} to {high}), "
        told += f"p = {_cell('p', p)}".replace("= <", "<")
        shown = "no difference shown" if p >= LEVEL else "a difference in these lesions"
        found.append(f"{pair}: {told}: {shown}.{doubt}")
    return found


def run_name(run: str) -> str:
    """Name a run as the paper does: `mtl-tl` is MTL+TL."""
    return run.upper().replace("-", "+")


def _frame(rows: Iterable[Mapping[str, Any]], heads: Mapping[str, str] = HEADS) -> pd.DataFrame:
    """Rows under their names; lying on its side where it is wide (more than two classes) and narrower so."""
    table = pd.DataFrame([{heads.get(k, k): _cell(k, v) for k, v in row.items()} for row in rows]).fillna("")
    table = table.set_index("").rename_axis(None)
    if table.shape[1] <= 6:
        return table
    return min(table, table.T, key=lambda laid: len(laid.to_string().partition("\n")[0]))


def _cell(key: str, value: Any) -> str:
    if isinstance(value, Mapping):
        return _spread(**value) if "sd" in value else _estimate(**value)
    if value is None:
        return "undefined"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        is_p = key.startswith("p")
        return "< 0.001" if is_p and value < 0.001 else _told(value, LEVEL if is_p else 0.0)
    return run_name(value) if key in ("run", "first", "second") else str(value)


def _estimate(value: float | None, low: float | None, high: float | None, reason: str) -> str:
    if value is None or low is None:
        return _cell("", value) + ("" if value is None else " (CI undefined)")
    return f"{_told(value)} ({_told(low)} to {_told(high)})"


def _told(value: float | None, edge: float = 0.0, sign: str = "") -> str:
    """A number with three decimals, or as many as it takes to be seen on its side of `edge`, up to six."""
    if value is None:
        return "undefined"
    side = np.sign(value - edge)
    places = next((n for n in range(3, 6) if np.sign(round(value, n) - edge) == side), 6)
    return f"{value:{sign}.{places}f}"


def _threshold(value: float | None) -> str:
    """A probability that lesions are compared with: near 0 and 1 by its digits, which `0.000` would not tell."""
    if value is None or value in (0, 1) or 0.001 <= value <= 0.999:
        return _cell("", value)
    return f"{value:.3g}" if value < 0.5 else f"1 - {1 - value:.3g}"


def _spread(values: list[float | None], mean: float | None, sd: float | None) -> str:
    return f"{_cell('', mean)} ± {_cell('', sd)}"
