"""What stands out in a cohort: lesions to look at first, and groups that were scanned differently."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import mannwhitneyu

from ..geometry import Floats
from .cohort import ACQUISITION, UNITS, Looked

FEW_VOXELS = 30
SMALL_MM = 3.0
FAR = 3.5
"""Modified z-score beyond which a value is far from the cohort's (Iglewicz & Hoaglin, 1993)."""
FEWEST_LESIONS = 8
"""A cohort of fewer lesions has no usual values."""
TELLS_AUC, TELLS_P = 0.7, 0.01
"""A quantity tells groups apart from this AUC and p on."""
FEWEST_PATIENTS = 5

KINDS = {
    "changed": "the manifest shows something else than the store was built from: build again",
    "not in the manifest": "no outline can be shown: give the manifest that the store was built from",
    "tiny or flat": f"fewer than {FEW_VOXELS} voxels, a single slice, or under {SMALL_MM:g} mm: a slip of the mouse?",
    "cut off": "the outline reaches the border of the image: part of the lesion may be missing",
    "holes": "contours with holes: meant so, or two outlines in one another?",
    "pieces": "the outline is in several parts: a stray contour, or another lesion?",
    "air only": "patches of nothing but air: an outline beside the patient, or in the lung's emptiness?",
    "half outside": "patches that are half or more padding, or outside the image",
    "constant": "patches of a single HU",
    "unusual HU": "median HU far from the cohort's: other tissue, contrast medium, or no HU at all?",
    "unusual size": "diameter far from the cohort's: a mistaken spacing, or a stray contour?",
    "unusual noise": "noise far from the cohort's",
    "unusual spacing": "pixel or slice spacing far from the cohort's",
    "note": "the build said something about it",
}
"""What a lesion may stand out by, in the order in which to look, and what that means."""
_UNUSUAL = {
    "hu": "unusual HU",
    "diameter_mm": "unusual size",
    "noise": "unusual noise",
    "pixel_mm": "unusual spacing",
    "slice_mm": "unusual spacing",
}


@dataclass(frozen=True)
class Finding:
    """What is to be seen of a lesion; `kind` is one of `KINDS`."""

    kind: str
    text: str


def lesion_findings(looked: Looked, diameter_mm: float, notes: Sequence[str]) -> Iterator[Finding]:
    """What stands out in a lesion by itself."""
    row, facts = looked.row, looked.patches.facts
    if row is not None and row.differs:
        yield Finding("changed", row.differs)
    mask = row.mask if row else None
    if mask is None:
        if diameter_mm < SMALL_MM:
            yield Finding("tiny or flat", f"{diameter_mm:.1f} mm")
    else:
        if mask.voxels < FEW_VOXELS or mask.slices == 1:
            yield Finding("tiny or flat", f"{mask.voxels} voxels in {slices(mask.slices)}")
        if mask.cut:
            yield Finding("cut off", f"reaches the {', '.join(mask.cut)}")
        if mask.holes:
            yield Finding("holes", f"on {mask.holes} of {slices(mask.slices)}")
        if mask.pieces > 1:
            yield Finding("pieces", f"{mask.pieces} parts that do not touch")
    for kind, count in (("air only", facts.air), ("half outside", facts.outside), ("constant", facts.constant)):
        if count:
            yield Finding(kind, f"{count} of {facts.count} patches")
    yield from (Finding("note", note) for note in notes)


def slices(count: int) -> str:
    """So many slices in words."""
    return f"{count} slice{'s' * (count != 1)}"


def unusual(table: pd.DataFrame) -> Iterator[tuple[int, Finding]]:
    """Lesions whose measures are far from the cohort's, each with its row in `table`."""
    for column, kind in _UNUSUAL.items():
        values = table[column].to_numpy(np.float64)
        score = modified_z(np.log(values) if column == "diameter_mm" else values)
        low, high = np.nanquantile(values, (0.25, 0.75)) if np.isfinite(values).any() else (np.nan, np.nan)
        for k in np.flatnonzero(np.abs(score) > FAR):
            yield int(k), Finding(kind, f"{UNITS[column]}: {values[k]:.3g}; half of the cohort {low:.3g} to {high:.3g}")


def modified_z(values: Floats) -> Floats:
    """0.6745 (x − median) / MAD; zeros where too few are known or more than half are equal."""
    known = values[np.isfinite(values)]
    middle = np.median(known) if len(known) else 0.0
    spread = np.median(np.abs(known - middle)) if len(known) else 0.0
    if len(known) < FEWEST_LESIONS or spread == 0:
        return np.zeros(len(values))
    return np.nan_to_num(0.6745 * (values - middle) / spread)


@dataclass(frozen=True)
class Difference:
    """A group that was scanned differently from the rest.

    Attributes
    ----------
    by : str
        `label`, `split` or `site`.
    group : str
    column : str
        One of `ACQUISITION`.
    auc : float
        Chance that a patient of the group has the greater value than one of the others.
    p : float
        Of the Mann-Whitney test, two-sided, not adjusted.
    medians : (float, float)
        Of the group, and of the others.
    """

    by: str
    group: str
    column: str
    auc: float
    p: float
    medians: tuple[float, float]


def group_differences(table: pd.DataFrame) -> list[Difference]:
    """Classes, splits and sites that can be told from the others by how they were scanned; one value per patient."""
    found = []
    for by in (name for name in ("label", "split", "site") if name in table):
        patients = table.groupby(["patient_id", by])[list(ACQUISITION)].median().reset_index()
        groups = sorted(patients[by].unique())
        for group in groups[1:] if len(groups) == 2 else groups:  # of two, each is the other's rest
            mine = patients[by] == group
            for column in ACQUISITION:
                one, rest = (patients.loc[side, column].dropna().to_numpy() for side in (mine, ~mine))
                if difference := _compared(one, rest):
                    found.append(Difference(by, str(group), column, *difference))
    return sorted(found, key=lambda d: -abs(d.auc - 0.5))


def _compared(one: Floats, rest: Floats) -> tuple[float, float, tuple[float, float]] | None:
    if min(len(one), len(rest)) < FEWEST_PATIENTS or np.ptp(np.concatenate([one, rest])) == 0:
        return None
    test = mannwhitneyu(one, rest)
    auc = float(test.statistic) / (len(one) * len(rest))
    if max(auc, 1 - auc) < TELLS_AUC or test.pvalue >= TELLS_P:
        return None
    return auc, float(test.pvalue), (float(np.median(one)), float(np.median(rest)))
