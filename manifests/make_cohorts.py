"""Makes agc.csv and ggn.csv, the paper's two cohorts as simulated patients: `python manifests/make_cohorts.py`.

One latent-variable model draws both; README.md, beside this file, writes it down. Seeds are tried in order, and the
first cohort is taken whose correlations are those of the paper's Table 1.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri
from scipy.stats import spearmanr

from ctpatch.manifest import Row
from ctpatch.manifest.split import assign_splits

LABEL_LOADING = 0.8
"""Correlation of the severity with the score that decides the diagnosis."""
R_TOLERANCE = 0.03
ALPHA, CLEAR = 0.05, 0.1
"""A related characteristic has p below the first, an unrelated one above the second, so that no test is in doubt."""

Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class Characteristic:
    """A column of the manifest.

    Attributes
    ----------
    name : str
        The column without `aux_`.
    shares : mapping of str to float
        How often each level occurs, from the lowest to the highest; what is written is the key.
    loading : float
        Correlation of the severity with the score that decides the level; 0 for what is not related.
    r : float
        Spearman's r with the diagnosis in the paper's Table 1; 0 for what is not related.
    blank : float
        Part of the patients in whom it is unknown.
    """

    name: str
    shares: Mapping[str, float]
    loading: float = 0.0
    r: float = 0.0
    blank: float = 0.08

    def levels(self, score: Numbers) -> NDArray[np.intp]:
        """Level (0, 1, ...) of each standard normal score."""
        return np.searchsorted(ndtri(np.cumsum([*self.shares.values()])[:-1]), score)


@dataclass(frozen=True)
class Design:
    """A cohort as the paper describes it: `classes` holds the patients of the lower and of the higher class."""

    name: str
    anatomy: str
    classes: Mapping[str, int]
    characteristics: Sequence[Characteristic]


def sign(name: str, share: float, loading: float = 0.0, r: float = 0.0, blank: float = 0.08) -> Characteristic:
    """A sign that is there in `share` of the patients."""
    return Characteristic(name, {"absent": 1 - share, "present": share}, loading, r, blank)


def marker(name: str, share: float, blank: float) -> Characteristic:
    """A serum level, raised in `share` of the patients and related to nothing; a reader sorts words: normal is 0."""
    return Characteristic(name, {"normal": 1 - share, "raised": share}, blank=blank)


AGC = Design(
    "agc",
    "stomach",
    {"T3": 153, "T4": 204},
    (
        Characteristic("clinical_T_stage", {"2": 0.13, "3": 0.45, "4": 0.42}, 0.66, 0.38, 0.05),
        Characteristic("clinical_N_stage", {"0": 0.30, "1": 0.27, "2": 0.25, "3": 0.18}, 0.40, 0.24, 0.06),
        sign("nodular_sign", 0.45, 0.54, 0.28),
        sign("cord_outside_serosa", 0.48, 0.66, 0.35),
        sign("fat_infiltration", 0.55, 0.66, 0.35),
        sign("high_enhanced_layer", 0.42, 0.67, 0.35, 0.10),
        marker("CEA_level", 0.24, 0.11),
        marker("CA199_level", 0.20, 0.12),
        marker("CA724_level", 0.28, 0.15),
    ),
)
GGN = Design(
    "ggn",
    "lung",
    {"non-invasive": 113, "IAC": 123},
    (
        sign("lobulation", 0.60, 0.56, 0.29, 0.06),
        sign("spiculation", 0.45, 0.64, 0.34, 0.06),
        sign("spine_like_process", 0.38, 0.69, 0.36),
        sign("air_bronchogram", 0.35, 0.71, 0.37, 0.07),
        sign("cusp_angle", 0.40, blank=0.10),
        sign("foam_like_sign", 0.35, blank=0.10),
    ),
)


@dataclass(frozen=True, eq=False)
class Draw:
    """A cohort drawn from a design: severity 0..1, the rank of the class, the levels (−1 unknown), by patient."""

    design: Design
    severity: Numbers
    label: NDArray[np.intp]
    levels: Mapping[str, NDArray[np.intp]] = field(default_factory=dict)

    def rows(self) -> Iterator[dict[str, str]]:
        """The lines of the manifest."""
        design, words = self.design, [*self.design.classes]
        for i, (severity, label) in enumerate(zip(self.severity, self.label, strict=True)):
            cells = {"patient_id": f"{design.name.upper()}{i + 1:03d}", "image": "", "mask": "", "label": words[label]}
            for characteristic in design.characteristics:
                level = self.levels[characteristic.name][i]
                cells[f"aux_{characteristic.name}"] = [*characteristic.shares, ""][level]
            yield cells | {"anatomy": design.anatomy, "severity": f"{severity:.3f}"}

    def correlation(self, name: str, chosen: NDArray[np.bool_]) -> tuple[float, float]:
        """Spearman's r and p of a characteristic with the label, over the `chosen` patients in whom it is known."""
        known = chosen & (self.levels[name] >= 0)
        r, p = spearmanr(self.levels[name][known], self.label[known])
        return float(r), float(p)


def draw(design: Design, seed: int) -> Draw:
    """Severity, then the label's score, then each characteristic's and its blanks; all standard normal."""
    rng, n = np.random.default_rng(seed), sum(design.classes.values())
    severity = rng.standard_normal(n)

    def score(loading: float) -> Numbers:
        return loading * severity + np.sqrt(1 - loading**2) * rng.standard_normal(n)

    lower = next(iter(design.classes.values()))
    label = (score(LABEL_LOADING).argsort().argsort() >= lower).astype(np.intp)
    levels = {}
    for characteristic in design.characteristics:
        level = characteristic.levels(score(characteristic.loading))
        level[rng.choice(n, round(characteristic.blank * n), replace=False)] = -1
        levels[characteristic.name] = level
    return Draw(design, ndtr(severity), label, levels)


def like_the_paper(cohort: Draw) -> bool:
    """Whether each r is that of Table 1, and Table 1 comes of the default split's training patients."""
    everyone, training = np.ones(len(cohort.label), bool), _training(cohort)
    for characteristic in cohort.design.characteristics:
        r, p_all = cohort.correlation(characteristic.name, everyone)
        _, p = cohort.correlation(characteristic.name, training)
        if characteristic.r:
            right = abs(r - characteristic.r) < R_TOLERANCE and p < ALPHA
        else:
            right = min(p, p_all) > CLEAR
        if not right:
            return False
    return True


def _training(cohort: Draw) -> NDArray[np.bool_]:
    rows = [Row(i, cells["patient_id"], "1", "", label=cells["label"]) for i, cells in enumerate(cohort.rows())]
    return np.array([row.split == "train" for row in assign_splits(rows, seed=0)])


def make(design: Design) -> tuple[int, Draw]:
    """The first seed whose cohort is like the paper's, and that cohort."""
    return next((seed, cohort) for seed in count() if like_the_paper(cohort := draw(design, seed)))


def write(cohort: Draw, path: Path) -> None:
    """Write the manifest."""
    rows = [*cohort.rows()]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def main() -> None:
    """Write both manifests beside this file."""
    for design in (AGC, GGN):
        write(make(design)[1], Path(__file__).with_name(f"{design.name}.csv"))


if __name__ == "__main__":
    main()
