"""Recompute every number of docs/results.md from predictions, by other code than made them, and compare.

    python docs/study/recompute.py                    # from docs/study/predictions/, the study's test predictions
    python docs/study/recompute.py --runs study/runs  # from the run folders; also each folder's own metrics.json
    python docs/study/recompute.py --runs study/runs --write   # write predictions/, runs.csv and the tables

Exit status 1 where a number of results.md, runs.csv or a metrics.json is another one. Nothing here or in what it
imports is mtltrain's or ctpatch's.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from formulas import auc, difference
from predictions import differing, from_runs, read_predictions, test_rows, write_predictions
from tables import check, write

HERE = Path(__file__).parent


def main() -> None:
    """Compare, or write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, help="the study's run folders")
    parser.add_argument("--write", action="store_true", help="needs --runs")
    args = parser.parse_args()
    cohorts = from_runs(args.runs) if args.runs else {}
    if args.write:
        write_predictions(cohorts, HERE / "predictions")
    kept = read_predictions(HERE / "predictions")
    wrong = list(differing(cohorts, kept)) if args.runs else []
    if args.runs:
        wrong += [line for folder in sorted(args.runs.glob("*/*/*/fold-*")) for line in check_folder(folder)]

    (write if args.write else check)(kept, wrong)
    print("\n".join(wrong) or "every number agrees")
    sys.exit(bool(wrong))


def check_folder(folder: Path) -> Iterator[str]:
    """AUC, interval, difference and p of a run folder's metrics.json, from the predictions of its runs."""
    table = test_rows(folder, 0)
    if table.empty or not (folder / "metrics.json").exists():
        return
    metrics = json.loads((folder / "metrics.json").read_text())
    wide = table.pivot(index=["patient_id", "lesion_id", "label"], columns=["run", "seed"])
    wide = wide[f"p_{metrics['positive']}"].sort_index()
    truth = (wide.index.get_level_values("label") == metrics["positive"]).astype(bool)
    patient = pd.factorize(wide.index.get_level_values("patient_id"))[0]
    score = {run: wide[run].to_numpy().mean(axis=1) for run in metrics["runs"]}
    pairs = [(entry["metrics"]["auc"], auc(score[run], truth, patient)) for run, entry in metrics["runs"].items()]
    for test in metrics["tests"]:
        found = difference(score[test["first"]], score[test["second"]], truth, patient)
        pairs.append((test["auc_difference"] | {"p": test["p_auc"]}, found))
    for said, found in pairs:
        for name in {"value", "low", "high", "p"} & set(said):
            if not np.isclose(said[name], getattr(found, name), rtol=1e-6, atol=1e-9):
                yield f"{folder}: {name} {said[name]} in metrics.json, {getattr(found, name)} recomputed"


if __name__ == "__main__":
    main()
