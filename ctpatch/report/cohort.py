"""The cohort in tables: who is in which split and class, characteristics, sizes, and how the CTs were taken."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..errors import InputError
from ..manifest import SPLITS
from ..manifest.table import read_columns, records
from ..store import PatchStore
from .from_manifest import RowLook
from .from_store import PatchesLook

UNLABELLED = "no label"
UNITS = {
    "diameter_mm": "longest in-slice diameter, mm",
    "hu": "median HU of the lesion",
    "noise": "noise, HU",
    "pixel_mm": "pixel spacing, mm",
    "slice_mm": "slice spacing, mm",
    "padding": "patches half outside, %",
}
"""Numeric columns of `measures`, and what they are."""
ACQUISITION = ("noise", "pixel_mm", "slice_mm", "padding")
"""Those that say how a CT was taken and nothing of the disease."""


MOST_LEVELS, RANGES = 10, 5
"""A characteristic of more levels is shown in so many ranges."""


@dataclass(frozen=True, eq=False)
class Looked:
    """A lesion that was looked at."""

    patches: PatchesLook
    row: RowLook | None


def measures(store: PatchStore, looked: Sequence[Looked], sites: Sequence[str] | None = None) -> pd.DataFrame:
    """One row per lesion: patient_id, split, label, site (where told) and the columns of `UNITS`; NaN = unknown.

    HU and noise are the image's where there is a manifest, else the patches': the two are never mixed.
    """
    lesions = store.lesions
    table = lesions[["patient_id", "split", "label", "diameter_mm"]].copy()
    table["label"] = table["label"].replace("", UNLABELLED)
    if sites is not None:
        table["site"] = [f"site {place}" if place else "unknown" for place in numbered(sites)]
    facts = [one.patches.facts for one in looked]
    if any(one.row for one in looked):
        found = [_from_row(one.row) for one in looked]
    else:
        found = [(fact.hu[1], fact.noise, np.nan, np.nan) for fact in facts]
    table[["hu", "noise", "pixel_mm", "slice_mm"]] = np.array(found).reshape(-1, 4)
    table["padding"] = [100 * fact.outside / max(fact.count, 1) for fact in facts]
    return table


def _from_row(row: RowLook | None) -> tuple[float, float, float, float]:
    hu = row.mask.hu[1] if row and row.mask else np.nan
    scan = row.scan if row else None
    return (hu, scan.noise, scan.pixel_mm, scan.slice_mm) if scan else (hu, np.nan, np.nan, np.nan)


def numbered(sites: Sequence[str]) -> list[int]:
    """A number from 1 for each name in their sorted order, 0 for a blank one: names stay off the page."""
    order = {name: k for k, name in enumerate(sorted(set(sites) - {""}), start=1)}
    return [order.get(name, 0) for name in sites]


def site_column(manifest: Path, column: str) -> dict[int, str]:
    """By line what a manifest that was read before says in a column that ctpatch has no meaning for.

    Raises
    ------
    InputError
        When there is no such column.
    """
    with open(manifest, encoding="utf-8-sig", newline="") as file:
        columns = read_columns(file)
        if column not in columns.names:
            found = f"--site {column}, but the manifest has no such column"
            raise InputError(found, "name one of its columns", manifest.name)
        place = columns.names.index(column)
        return {line: cells[place] for line, cells in records(file, columns.delimiter)}


def split_table(table: pd.DataFrame, n_patches: pd.Series[int]) -> pd.DataFrame:
    """Patients, lesions and patches of each split and class, with totals; indexed by (split, class)."""
    counted = table.assign(n_patches=n_patches)
    rows: dict[tuple[str, str], list[Any]] = {}
    for split in splits(table):
        part = counted[counted["split"] == split]
        for name in classes(part):
            rows[split, name] = _counts(part[part["label"] == name])
        rows[split, "all"] = _counts(part)
    rows["all", "all"] = _counts(counted)
    return _frame(rows, ["patients", "lesions", "patches"])


def characteristic_tables(store: PatchStore) -> dict[str, pd.DataFrame]:
    """For each characteristic the lesions of each class at each level, and those where it is blank."""
    labels = store.lesions["label"].replace("", UNLABELLED).rename("class")
    found = {}
    for name, levels in store.aux_levels.items():
        words, order = _words(store.lesions[f"aux_{name}"], levels)
        found[name] = pd.crosstab(labels, words).reindex(columns=[*order, "blank"], fill_value=0)
    return found


def _words(values: pd.Series[float], levels: Mapping[float, str]) -> tuple[pd.Series[str], list[str]]:
    """Each value's level in words, and the levels in their order; many numbers are gathered in ranges."""
    known = sorted(set(levels) | set(values.dropna()))
    if len(known) > MOST_LEVELS:
        ranges = pd.qcut(values, RANGES, precision=2, duplicates="drop")
        order = [f"{one.left:g} to {one.right:g}" for one in ranges.cat.categories]
        return ranges.cat.rename_categories(order).astype(object).fillna("blank"), order
    names = {value: levels.get(value) or f"{value:g}" for value in known}
    return values.map(names).fillna("blank"), list(names.values())


def quantile_table(table: pd.DataFrame, column: str) -> pd.DataFrame:
    """Number, least, quartiles and greatest of a column by split and class."""
    rows: dict[tuple[str, str], list[Any]] = {}
    for split in splits(table):
        for name in classes(table):
            values = table.loc[(table["split"] == split) & (table["label"] == name), column].dropna()
            if len(values):
                rows[split, name] = [len(values), *values.quantile([0, 0.25, 0.5, 0.75, 1])]
    return _frame(rows, ["lesions", "least", "25 %", "median", "75 %", "greatest"])


def figure(value: float) -> str:
    """A number with three digits, from 1,000 on without decimals."""
    return f"{value:,.0f}" if abs(value) >= 999.5 else f"{value:.3g}"


def acquisition_table(table: pd.DataFrame, by: str) -> pd.DataFrame:
    """Median and quartiles of what says how the CTs were taken, by the groups of a column."""
    rows = {}
    ordered = {"label": classes, "split": splits}.get(by, lambda table: sorted(set(table[by])))
    for group in ordered(table):
        part = table[table[by] == group]
        spread = (part[name].dropna().quantile([0.25, 0.5, 0.75]) for name in ACQUISITION)
        rows[group] = [
            "—" if s.isna().all() else f"{figure(s[0.5])} ({figure(s[0.25])} to {figure(s[0.75])})" for s in spread
        ]
    return pd.DataFrame.from_dict(rows, "index", columns=[UNITS[name] for name in ACQUISITION]).rename_axis(
        {"label": "class"}.get(by, by)
    )


def classes(table: pd.DataFrame) -> list[str]:
    """Class names in sorted order, the unlabelled last."""
    return sorted(set(table["label"]), key=lambda name: (name == UNLABELLED, name))


def splits(table: pd.DataFrame) -> list[str]:
    """The splits that have lesions, in their order."""
    return [name for name in SPLITS if (table["split"] == name).any()]


def _counts(part: pd.DataFrame) -> list[int]:
    return [part["patient_id"].nunique(), len(part), int(part["n_patches"].sum())]


def _frame(rows: Mapping[tuple[str, str], list[Any]], columns: list[str]) -> pd.DataFrame:
    index = pd.MultiIndex.from_tuples(list(rows), names=["split", "class"])
    return pd.DataFrame(list(rows.values()), index, columns)
