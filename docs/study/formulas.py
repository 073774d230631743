"""AUC, its interval and the paired test, by other code than mtltrain's.

AUC is scikit-learn's. DeLong's covariance is summed over all pairs of lesions, as Obuchowski (Biometrics 53:567, 1997)
writes it for clusters; with one lesion a patient it is DeLong's own.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit
from scipy.stats import norm
from sklearn.metrics import roc_auc_score

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Side:
    """One network's AUC over some lesions, and each lesion's mean kernel minus it, per class."""

    auc: float
    positive: Floats
    negative: Floats


@dataclass(frozen=True)
class Interval:
    """A value, its standard error, 95 % interval and, of a difference, two-sided p."""

    value: float
    se: float
    low: float
    high: float
    p: float = float("nan")


def exact_order(likely: Floats, rest: Floats) -> Floats:
    """A score in the order of a probability, by the rest's where that is smaller: next to 1 float64 has fewer steps."""
    with np.errstate(divide="ignore"):
        return np.where(likely <= rest, np.log(likely), -np.log(rest))


def side(score: Floats, positive: NDArray[np.bool_]) -> Side:
    """DeLong's components by counting pairs: 1 where the positive lesion scores higher, 1/2 where both are equal."""
    above = score[positive][:, None] - score[~positive][None, :]
    kernel = np.where(above > 0, 1.0, np.where(above == 0, 0.5, 0.0))
    auc = float(roc_auc_score(positive, score))
    return Side(auc, kernel.mean(axis=1) - auc, kernel.mean(axis=0) - auc)


def variance(positive: Floats, negative: Floats, truth: NDArray[np.bool_], patient: NDArray[np.int64]) -> float:
    """Obuchowski's variance of a linear combination of AUCs from the same combination of their components."""
    m, n = len(positive), len(negative)
    of_positive, of_negative = patient[truth], patient[~truth]
    clusters = sorted(set(patient))
    sums = np.array([[positive[of_positive == c].sum(), negative[of_negative == c].sum()] for c in clusters])
    with_positive, with_negative, all_ = len(set(of_positive)), len(set(of_negative)), len(clusters)
    s10 = with_positive / ((with_positive - 1) * m) * (sums[:, 0] ** 2).sum()
    s01 = with_negative / ((with_negative - 1) * n) * (sums[:, 1] ** 2).sum()
    s11 = all_ / (all_ - 1) * (sums[:, 0] * sums[:, 1]).sum()
    return float(s10 / m + s01 / n + 2 * s11 / (m * n))


def auc(score: Floats, truth: NDArray[np.bool_], patient: NDArray[np.int64]) -> Interval:
    """AUC with an interval that is symmetric on the logit scale."""
    one = side(score, truth)
    se = variance(one.positive, one.negative, truth, patient) ** 0.5
    half = norm.ppf(0.975) * se / (one.auc * (1 - one.auc)) if se else 0.0
    return Interval(one.auc, se, float(expit(logit(one.auc) - half)), float(expit(logit(one.auc) + half)))


def difference(first: Floats, second: Floats, truth: NDArray[np.bool_], patient: NDArray[np.int64]) -> Interval:
    """AUC of `first` minus that of `second`, on the same lesions."""
    one, two = side(first, truth), side(second, truth)
    value = one.auc - two.auc
    se = variance(one.positive - two.positive, one.negative - two.negative, truth, patient) ** 0.5
    return _two_sided(value, se)


def mean(found: list[Interval]) -> Interval:
    """Mean of differences that were found on different patients, hence independent."""
    value, se = sum(one.value for one in found) / len(found), sum(one.se**2 for one in found) ** 0.5 / len(found)
    return _two_sided(value, se)


def _two_sided(value: float, se: float) -> Interval:
    half = float(norm.ppf(0.975)) * se
    return Interval(value, se, value - half, value + half, float(2 * norm.sf(abs(value) / se)))


def detectable(se: float, alpha: float, power: float = 0.8) -> float:
    """The difference that a two-sided test finds with this power, at this standard error."""
    return float((norm.ppf(1 - alpha / 2) + norm.ppf(power)) * se)


def holm(p: list[float]) -> list[float]:
    """Holm's adjusted p, in the order given."""
    order = np.argsort(p)
    adjusted, highest = [0.0] * len(p), 0.0
    for rank, place in enumerate(order):
        highest = max(highest, min(1.0, (len(p) - rank) * p[place]))
        adjusted[place] = highest
    return adjusted
