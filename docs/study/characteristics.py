"""The paper's Table 1 over the study's folds: Spearman's r of each characteristic, from the stores by scipy."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
from design import FOLDS, POSITIVE
from scipy.stats import spearmanr

FILE = Path(__file__).parent / "characteristics.csv"


def from_stores(root: Path) -> pd.DataFrame:
    """A line per cohort, fold and characteristic of two levels: name, known training lesions n, r, p of Student's t."""
    lines = []
    for cohort in POSITIVE:
        for fold in range(1, FOLDS + 1):
            path = root / "stores" / f"{cohort}-{fold}of{FOLDS}.h5"
            if path.exists():
                lines += [{"cohort": cohort, "fold": fold, **line} for line in _described(path, POSITIVE[cohort])]
    return pd.DataFrame(lines, columns=["cohort", "fold", "name", "n", "r", "p"]).round(6)


def joined(table: pd.DataFrame, earlier: pd.DataFrame) -> pd.DataFrame:
    """The lines of `table`, and those of earlier stores that were not made again, in the study's order."""
    keys = ["cohort", "fold"]
    again = earlier.set_index(keys).index.isin(table.set_index(keys).index)
    both = pd.concat([table, earlier[~again]]) if len(table) else earlier
    order = both["cohort"].map(list(POSITIVE).index)
    return (
        both.assign(order=order).sort_values(["order", "fold"], kind="stable", ignore_index=True).drop(columns="order")
    )


def differing(root: Path, table: pd.DataFrame) -> Iterator[str]:
    """Where a run folder's own Table 1 says something else; p only where it is Student's too."""
    for (cohort, fold), rows in table.groupby(["cohort", "fold"]):
        for path in sorted((root / "runs").glob(f"{cohort}/*/main/fold-{fold}/metrics.json")):
            told = {line["name"]: line for line in json.loads(path.read_text())["selection"]}
            for row in rows.itertuples():
                said = told[row.name]
                same = [np.isclose(said["r"], row.r, atol=1e-6), said["n"] == row.n]
                same += [np.isclose(said["p"], row.p, atol=1e-6)] if said["test"] == "t distribution" else []
                if not all(same):
                    yield f"{path}: {row.name} is {said}, recomputed {row.r}, {row.p}"


def _described(path: Path, positive: str) -> Iterator[dict[str, object]]:
    with h5py.File(path, locking=False) as file:
        train = file["lesions/split"][:] == b"train"
        label = file["lesions/label"][:][train] == positive.encode()
        for name in sorted(file["lesions/aux"]):
            level = file[f"lesions/aux/{name}"][:][train]
            known = np.isfinite(level)
            if len(np.unique(level[known])) < 2:
                continue
            found = spearmanr(level[known], label[known])
            yield {"name": name, "n": int(known.sum()), "r": found.statistic, "p": found.pvalue}
