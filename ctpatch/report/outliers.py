"""What stands out in a cohort: lesions to look at first, and groups that were scanned differently."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import mannwhitneyu

from ..contours import OTHER_PATIENT
from ..geometry import Floats
from .cohort import ACQUISITION, UNITS, Looked, figure
from .shape import Part

FEW_VOXELS = 30
SMALL_MM = 3.0
FAR = 3.5
"""Modified z-score beyond which a value is far from the cohort's (Iglewicz & Hoaglin, 1993)."""
FEWEST_LESIONS = 8
"""A cohort of fewer lesions has no usual values."""
TELLS_AUC, TELLS_P = 0.7, 0.01
"""A quantity tells groups apart from this AUC and p on."""
FEWEST_PATIENTS = 5

INTERCEPT_HU = (850, 1200)
"""So far off, a lesion lacks a RescaleIntercept (−1024 or −1000 as a rule) rather than being another tissue."""
_SHOWN = 3

KINDS = {
    "changed": "the manifest shows something else than the store was built from: build again",
    "not in the manifest": "no outline can be shown: give the manifest that the store was built from",
    "other patient": "contours and images have different PatientIDs: are both one patient's? Compare the two files",
    "same lesion": "all but the same voxels as another lesion of the patient: keep one of the two rows",
    "unusual HU": "median HU far from the cohort's. Is the outline beside the lesion? Draw it again. Is it about 1,000 "
    "HU off? RescaleIntercept is missing or wrong: export the images again. Else: another tissue or contrast medium",
    "unusual size": "diameter far from the cohort's: a mistaken spacing, or a stray contour?",
    "air only": "patches of nothing but air: an outline beside the patient, or in the lung's emptiness?",
    "half outside": "patches that are half or more padding, or outside the image",
    "constant": "patches of a single HU",
    "cut off": "the outline reaches the border of the image: part of the lesion may be missing",
    "unusual spacing": "pixel or slice spacing far from the cohort's",
    "unusual noise": "noise far from the cohort's",
    "tiny or flat": f"fewer than {FEW_VOXELS} voxels, a single slice, or under {SMALL_MM:g} mm: a slip of the mouse?",
    "pieces": "the outline is in several parts: a stray contour, or another lesion?",
    "holes": "a contour in another, or a hole in a mask: meant so, or two outlines in one another?",
    "note": "the build said something about it",
}
"""What a lesion may stand out by, and what that means: first what is most likely a fault, shape and notes last."""
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
    yield from (Finding("same lesion", twin) for twin in (row.twins if row else ()))
    mask = row.mask if row else None
    if mask is None:
        if diameter_mm < SMALL_MM:
            yield Finding("tiny or flat", f"{diameter_mm:.1f} mm")
    else:
        if mask.voxels < FEW_VOXELS or mask.slices == 1:
            yield Finding("tiny or flat", f"{mask.voxels} voxels in {counted(mask.slices, 'slice')}")
        if mask.cut:
            yield Finding("cut off", f"reaches the {', '.join(mask.cut)}")
        if mask.pieces:
            yield Finding("pieces", f"{_parts(mask.pieces)}, apart from the rest")
        if mask.holes:
            yield Finding("holes", _parts(mask.holes))
    for kind, count in (("air only", facts.air), ("half outside", facts.outside), ("constant", facts.constant)):
        if count:
            yield Finding(kind, f"{count} of {facts.count} patches")
    yield from (Finding("other patient" if note == OTHER_PATIENT else "note", note) for note in notes)


def counted(count: int, what: str) -> str:
    """So many slices, classes … in words."""
    return f"{count} {what}" if count == 1 else f"{count} {what}{'es' if what.endswith('s') else 's'}"


def _parts(parts: Sequence[Part]) -> str:
    """The largest of several parts or holes in words."""
    shown = [
        f"{part.voxels} voxels ({part.mm3:,.0f} mm³) on "
        + (f"slice {part.slices[0]}" if part.slices[0] == part.slices[1] else "slices {} to {}".format(*part.slices))
        + (f" towards the {part.towards}" if part.towards else "")
        for part in parts[:_SHOWN]
    ]
    return "; ".join(shown) + (f"; and {len(parts) - _SHOWN} smaller" if len(parts) > _SHOWN else "")


def unusual(table: pd.DataFrame) -> Iterator[tuple[int, Finding]]:
    """Lesions whose measures are far from the cohort's, each with its row in `table`."""
    for column, kind in _UNUSUAL.items():
        values = table[column].to_numpy(np.float64)
        score = modified_z(_logarithm(values) if column == "diameter_mm" else values)
        low, high = np.nanquantile(values, (0.25, 0.75)) if np.isfinite(values).any() else (np.nan, np.nan)
        for k in np.flatnonzero(np.abs(score) > FAR):
            text = f"{UNITS[column]}: {figure(values[k])}; half of the cohort {figure(low)} to {figure(high)}"
            yield int(k), Finding(kind, text + _intercept(values[k] - np.nanmedian(values)) if column == "hu" else text)


def _logarithm(values: Floats) -> Floats:
    """NaN of nothing: the diameter of a single voxel, which is told as tiny."""
    return np.log(np.where(values > 0, values, np.nan))


def _intercept(off: float) -> str:
    """What a difference of HU from the cohort's median hints at."""
    if not INTERCEPT_HU[0] <= abs(off) <= INTERCEPT_HU[1]:
        return ""
    cause = "RescaleIntercept missing?" if off > 0 else "RescaleIntercept applied twice?"
    return f"; about 1,000 HU too {'high' if off > 0 else 'low'}: {cause}"


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
