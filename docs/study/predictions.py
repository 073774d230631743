"""Test predictions of the study's runs: from the run folders, and as docs/study/predictions/ keeps them.

`predictions/` has a file per cohort: a row per lesion (patient and lesion are numbers in an order drawn by chance, so
that no identifier of LIDC-IDRI stands here), its test fold, whether it is positive, and for each run, named
backbone/variant/architecture/seed, the probability of being so, to 9 digits.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from design import FOLDS, POSITIVE, Cell

KEYS = ["patient", "lesion", "fold", "positive"]


def from_runs(runs: Path) -> dict[str, pd.DataFrame]:
    """Each cohort's test predictions; columns as in `predictions/`, blank in the folds that a run has not finished."""
    found: dict[str, list[pd.Series]] = {}
    for cohort, backbone, variant in sorted({path.parts[-4:-1] for path in runs.glob("*/*/*/fold-*")}):
        parts = [test_rows(runs / cohort / backbone / variant / f"fold-{fold}", fold) for fold in range(1, FOLDS + 1)]
        table = pd.concat(parts)
        table["positive"] = (table["label"] == POSITIVE[cohort]).astype(int)
        for (arch, seed), rows in table.groupby(["run", "seed"]):
            column = rows.set_index(["patient_id", "lesion_id", "fold", "positive"])[f"p_{POSITIVE[cohort]}"]
            found.setdefault(cohort, []).append(column.rename(f"{backbone}/{variant}/{arch}/{seed}"))
    return {cohort: _numbered(pd.concat(columns, axis=1)) for cohort, columns in found.items()}


def test_rows(folder: Path, fold: int) -> pd.DataFrame:
    """The test rows of a run folder's finished runs, as each run left them."""
    files = sorted(folder.glob("*/seed-*/predictions.csv"))
    if not files:
        return pd.DataFrame(columns=["run", "seed", "patient_id", "lesion_id", "label", "fold"])
    ids = {"patient_id": str, "lesion_id": str, "label": str}
    table = pd.concat([pd.read_csv(file, dtype=ids, keep_default_na=False) for file in files])
    return table[(table["split"] == "test") & (table["label"] != "")].assign(fold=fold)


def _numbered(table: pd.DataFrame) -> pd.DataFrame:
    """Numbers for identifiers: patients by the SHA-256 of theirs, their lesions in their own order."""
    shares = table.isna().groupby(level="fold").mean()
    if not shares.isin([0, 1]).all(axis=None):
        raise SystemExit("runs of one fold were not tested on the same lesions")
    table = table.reset_index()
    order = {p: hashlib.sha256(f"study {p}".encode()).hexdigest() for p in table["patient_id"]}
    number = {p: i for i, p in enumerate(sorted(order, key=order.__getitem__), 1)}
    table = table.sort_values(["patient_id", "lesion_id"])
    table.insert(0, "patient", table["patient_id"].map(number))
    table.insert(1, "lesion", table.groupby("patient").cumcount() + 1)
    return table.drop(columns=["patient_id", "lesion_id"]).sort_values(["patient", "lesion"], ignore_index=True)


def write_predictions(cohorts: dict[str, pd.DataFrame], folder: Path) -> None:
    """One CSV a cohort."""
    folder.mkdir(exist_ok=True)
    for cohort, table in cohorts.items():
        table.to_csv(folder / f"{cohort}.csv", index=False, float_format="%.9g", lineterminator="\n")


def read_predictions(folder: Path) -> dict[str, pd.DataFrame]:
    """What `write_predictions` wrote, in the order of the paper's cohorts."""
    return {cohort: pd.read_csv(folder / f"{cohort}.csv") for cohort in POSITIVE if (folder / f"{cohort}.csv").exists()}


def holds(cohorts: dict[str, pd.DataFrame], cell: Cell) -> bool:
    """Whether the tables have the cell's runs, in its fold."""
    table = cohorts.get(cell.cohort, pd.DataFrame(columns=KEYS))
    return {*cell.runs} <= {*table} and bool(table.loc[table["fold"] == cell.fold, cell.runs].notna().all(axis=None))


def joined(ours: dict[str, pd.DataFrame], kept: dict[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
    """What run folders hold, and from `kept` the runs that they do not.

    Raises
    ------
    SystemExit
        Other lesions than before were tested; also where the run folders of a cohort are not of all folds yet.
    """
    tables = kept | ours
    for cohort in sorted({*ours} & {*kept}):
        new, old = (side[cohort].set_index(KEYS) for side in (ours, kept))
        if not new.index.equals(old.index):
            raise SystemExit(f"{cohort}: the run folders are not of all lesions of predictions/, or of others")
        both = new.combine_first(old)
        tables[cohort] = both[sorted(both)].reset_index()
    return tables


def differing(ours: dict[str, pd.DataFrame], kept: dict[str, pd.DataFrame]) -> Iterator[str]:
    """Where the run folders say something else than `predictions/`, which may hold more runs than are left of them."""
    for cohort, one in sorted(ours.items()):
        two = kept.get(cohort, pd.DataFrame()).reindex(columns=list(one))
        two = two.where(one.notna()) if len(one) == len(two) else two
        if len(one) != len(two) or not np.allclose(one, two, rtol=1e-8, atol=0, equal_nan=True):
            yield f"predictions/{cohort}.csv is not what the run folders hold"
