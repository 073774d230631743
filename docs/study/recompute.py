"""Recompute every number of docs/results.md from predictions, by other code than made them, and compare.

    python docs/study/recompute.py                    # from docs/study/predictions/, the study's test predictions
    python docs/study/recompute.py --root study       # from the run folders; also each folder's own metrics.json
    python docs/study/recompute.py --root study --write   # write predictions/, the other CSV files and the tables
    python docs/study/recompute.py --root study --add     # the same, beside what predictions/ has already

Exit status 1 where a number of results.md, runs.csv or a metrics.json is another one. Nothing here or in what it
imports is mtltrain's or ctpatch's.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import characteristics
import numpy as np
import pandas as pd
from formulas import auc, difference, exact_order
from predictions import differing, from_runs, joined, read_predictions, test_rows, write_predictions
from tables import check, write

HERE = Path(__file__).parent


def main() -> None:
    """Compare, or write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, help="where run.py left stores and run folders")
    parser.add_argument("--write", action="store_true", help="needs --root")
    parser.add_argument("--add", action="store_true", help="needs --root")
    args = parser.parse_args()
    writing = args.write or args.add
    if writing:
        found = from_runs(args.root / "runs")
        found = joined(found, read_predictions(HERE / "predictions")) if args.add else found
        write_predictions(found, HERE / "predictions")
        table = characteristics.from_stores(args.root)
        table = characteristics.joined(table, pd.read_csv(characteristics.FILE)) if args.add else table
        table.to_csv(characteristics.FILE, index=False, lineterminator="\n")
    kept = read_predictions(HERE / "predictions")
    wrong = list(check_root(args.root, kept)) if args.root else []
    (write if writing else check)(kept, wrong)
    print("\n".join(wrong) or "every number agrees")
    sys.exit(bool(wrong))


def check_root(root: Path, kept: dict[str, pd.DataFrame]) -> Iterator[str]:
    """Where run folders and stores say something else than the files beside this one, or than their own figures."""
    yield from differing(from_runs(root / "runs"), kept)
    table, told = characteristics.from_stores(root), pd.read_csv(characteristics.FILE)
    here = characteristics.joined(table, told)
    if list(here["name"]) != list(told["name"]) or not np.allclose(here[["n", "r", "p"]], told[["n", "r", "p"]]):
        yield "characteristics.csv is not what the stores hold"
    yield from characteristics.differing(root, table)
    for folder in sorted((root / "runs").glob("*/*/*/fold-*")):
        yield from check_folder(folder)


def check_folder(folder: Path) -> Iterator[str]:
    """AUC, interval, difference and p of a run folder's metrics.json, from the predictions of its runs."""
    table = test_rows(folder, 0)
    if table.empty or not (folder / "metrics.json").exists():
        return
    metrics = json.loads((folder / "metrics.json").read_text())
    wide = table.pivot(index=["patient_id", "lesion_id", "label"], columns=["run", "seed"])
    wide = wide.sort_index()
    other = next(name for name in metrics["classes"] if name != metrics["positive"])
    truth = (wide.index.get_level_values("label") == metrics["positive"]).astype(bool)
    patient = pd.factorize(wide.index.get_level_values("patient_id"))[0]
    likely, rest = (wide[f"p_{name}"].T.groupby("run").mean().T for name in (metrics["positive"], other))
    score = {run: exact_order(likely[run].to_numpy(), rest[run].to_numpy()) for run in metrics["runs"]}
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
