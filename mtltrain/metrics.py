"""Statistics of diagnostic accuracy: every estimate with its interval, or with the reason why there is none.

Lesions of one patient are not independent. Each function takes `patients`, the patient of each lesion; where
one recurs the clustered method is used, and where none does it is the textbook one: Obuchowski's variance
becomes DeLong's, and the test that flips signs per patient becomes the exact McNemar test.

DeLong, DeLong & Clarke-Pearson, Biometrics 44:837 (1988); Sun & Xu, IEEE Signal Proc. Lett. 21:1389 (2014);
Obuchowski, Biometrics 53:567 (1997); Wilson, J. Am. Stat. Assoc. 22:209 (1927); McNemar, Psychometrika 12:153
(1947).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit, logit
from scipy.stats import binomtest, norm, rankdata

Floats = NDArray[np.float64]

Z95 = float(norm.ppf(0.975))
RESAMPLES = 2000
FEWEST_PATIENTS = 6
"""Patients below which errors that are clustered by patient are far too small: with five patients of five lesions a
test at 0.05 finds a difference where none is in one of eight simulated cohorts, with two in three of ten."""
ROUNDING = 1e-12
"""Share of a sum of squares that is rounding."""


@dataclass(frozen=True)
class Estimate:
    """A value with its 95 % interval; what is undefined is None, and `reason` says why."""

    value: float | None
    low: float | None = None
    high: float | None = None
    reason: str = ""


class Components(NamedTuple):
    """An AUC and each lesion's share in its error: DeLong's (V10 - AUC) / m and (V01 - AUC) / n.

    Shares are of shape (problems, lesions).
    """

    auc: float
    positive: Floats
    negative: Floats


def one_vs_rest(probabilities: ArrayLike, labels: ArrayLike, positive: int) -> tuple[Floats, NDArray[np.bool_]]:
    """Set up the binary problems whose mean AUC is reported.

    Parameters
    ----------
    probabilities : array, shape (lesions, classes)
        The network's softmax output.
    labels : int array, shape (lesions,)
        Class index of each lesion.
    positive : int
        Index of the positive class; used with two classes only.

    Returns
    -------
    scores, truth : arrays, shape (problems, lesions)
        One problem with two classes, else one per class (macro one-vs-rest).
    """
    table = np.asarray(probabilities, dtype=np.float64)
    classes = np.array([positive]) if table.shape[1] == 2 else np.arange(table.shape[1])
    return table[:, classes].T, np.asarray(labels) == classes[:, None]


def others(probabilities: ArrayLike) -> Floats:
    """The probability of all other classes together, without the rounding of 1 - p; (lesions, classes) as they are."""
    table = np.asarray(probabilities, dtype=np.float64)
    return np.stack([np.delete(table, k, axis=1).sum(axis=1) for k in range(table.shape[1])], axis=1)


def ranking(probabilities: ArrayLike) -> Floats:
    """Scores that rank lesions as their probabilities do, by the rest's where a class has more than half.

    Next to 1 float64 takes probabilities for equal that differ by less than 1e-16; next to 0 it does not. So the AUC is
    the same whichever of two classes is the positive one. Of shape (lesions, classes) as they are.
    """
    table, rest = np.asarray(probabilities, dtype=np.float64), others(probabilities)
    with np.errstate(divide="ignore"):
        scores: Floats = np.where(table <= rest, np.log(2 * table), -np.log(2 * rest))
    return scores


def auc(scores: ArrayLike, truth: ArrayLike, patients: ArrayLike | None = None) -> Estimate:
    """Area under the ROC curve (Mann-Whitney, ties count half) with DeLong's or Obuchowski's 95 % interval.

    The interval is symmetric on the logit scale, so it stays within 0 to 1. For simulated binormal scores of
    10 to 150 lesions a class and AUCs of 0.5 to 0.95 it covers the truth 93-98 % of the time where it is defined, which
    an AUC of 1 is not; the plain interval, 84-95 %.

    Parameters
    ----------
    scores, truth : arrays, shape (lesions,) or (problems, lesions)
        Several problems give the mean of their AUCs.
    patients : array, shape (lesions,), optional
        Default: each lesion is a patient of its own.
    """
    score, true, cluster = _aligned(scores, truth, patients)
    if _one_class(true):
        return Estimate(None, reason="a class has no test lesion")
    mean, positive, negative = _components(score, true)
    variance, reason = _variance(positive, negative, true, cluster)
    if not variance:
        return Estimate(mean, reason=reason)
    half = Z95 * np.sqrt(variance) / (mean * (1 - mean))
    return Estimate(mean, float(expit(logit(mean) - half)), float(expit(logit(mean) + half)))


def compare_auc(
    first: ArrayLike, second: ArrayLike, truth: ArrayLike, patients: ArrayLike | None = None
) -> tuple[Estimate, float | None]:
    """Paired DeLong (or Obuchowski) test of two models on the same lesions; shapes as for `auc`.

    Returns
    -------
    difference : Estimate
        AUC of `first` minus that of `second`, with a 95 % interval from DeLong's covariance.
    p : float or None
        Two-sided; exactly 1 where the two models rank the lesions alike, None where the test is undefined.
    """
    score, true, cluster = _aligned(first, truth, patients)
    if _one_class(true):
        return Estimate(None, reason="a class has no test lesion"), None
    one, two = _components(score, true), _components(np.atleast_2d(second), true)
    value = one.auc - two.auc
    shares = one.positive - two.positive, one.negative - two.negative
    if value == 0 and not any(share.any() for share in shares):
        return Estimate(value, reason="both models rank the lesions alike"), 1.0
    variance, reason = _variance(*shares, true, cluster)
    if not variance:
        return Estimate(value, reason=reason), None
    error = float(np.sqrt(variance))
    return Estimate(value, value - Z95 * error, value + Z95 * error), float(2 * norm.sf(abs(value) / error))


def proportion(hits: ArrayLike, patients: ArrayLike | None = None) -> Estimate:
    """Share of `hits` (bool per lesion) with its 95 % interval.

    Wilson's; where a patient recurs, the percentiles of 2000 patient bootstraps (with 20 to 50 patients of up to four
    lesions they cover a simulated truth about 93 % of the time), and none with fewer patients than `FEWEST_PATIENTS`.
    """
    hit = np.asarray(hits, dtype=np.float64)
    if not hit.size:
        return Estimate(None, reason="no test lesion to count")
    cluster = _clusters(patients, hit.size)
    if cluster.max() + 1 < hit.size:
        return _bootstrap(hit, cluster)
    wilson = binomtest(int(hit.sum()), hit.size).proportion_ci(method="wilson")
    return Estimate(float(hit.mean()), float(wilson.low), float(wilson.high))


def average(values: ArrayLike, patients: ArrayLike | None = None) -> Estimate:
    """Mean of a value per lesion with the percentiles of 2000 patient bootstraps."""
    value = np.asarray(values, dtype=np.float64)
    if not value.size:
        return Estimate(None, reason="no test lesion to count")
    return _bootstrap(value, _clusters(patients, value.size))


def mcnemar(first: ArrayLike, second: ArrayLike, patients: ArrayLike | None = None) -> float:
    """Two-sided p of the exact McNemar test; `first` and `second` say which lesions each model got right.

    Under the null hypothesis each patient's difference, summed over the lesions, is as likely as its opposite.
    All sign patterns are counted; with one lesion a patient that is McNemar's binomial.
    """
    gains = np.asarray(first, dtype=np.int64) - np.asarray(second, dtype=np.int64)
    sums = np.bincount(_clusters(patients, gains.size), gains).astype(np.int64)
    chances = np.ones(1)
    for size in abs(sums[sums != 0]):
        flip = np.zeros(2 * size + 1)
        flip[[0, -1]] = 0.5
        chances = np.convolve(chances, flip)
    outcomes = np.arange(chances.size) - chances.size // 2
    return min(1.0, float(chances[abs(outcomes) >= abs(sums.sum())].sum()))


def _aligned(
    scores: ArrayLike, truth: ArrayLike, patients: ArrayLike | None
) -> tuple[Floats, NDArray[np.bool_], NDArray[np.int64]]:
    score, true = np.atleast_2d(np.asarray(scores, np.float64)), np.atleast_2d(np.asarray(truth, bool))
    return score, true, _clusters(patients, true.shape[1])


def _one_class(truth: NDArray[np.bool_]) -> bool:
    return not (truth.any(axis=1) & (~truth).any(axis=1)).all()


def _clusters(patients: ArrayLike | None, lesions: int) -> NDArray[np.int64]:
    return np.arange(lesions) if patients is None else clusters(patients)


def _components(scores: ArrayLike, truth: NDArray[np.bool_]) -> Components:
    """Components of the mean of the problems (rows)."""
    problems = [_problem(row, true) for row, true in zip(np.asarray(scores), truth, strict=True)]
    each, positive, negative = (np.array(part) for part in zip(*problems, strict=True))
    return Components(float(each.mean()), positive / len(each), negative / len(each))


def _problem(score: Floats, true: NDArray[np.bool_]) -> tuple[float, Floats, Floats]:
    """AUC and shares of one problem by Sun & Xu's midranks.

    Numerators are whole numbers, so what is equal or zero comes out so exactly.
    """
    m, n = int(true.sum()), int((~true).sum())
    ranks = rankdata(score)
    won = np.zeros(score.size)  # twice the pairs in which this lesion and one of the other class are in order
    won[true] = 2 * (ranks[true] - rankdata(score[true]))
    won[~true] = 2 * (m - ranks[~true] + rankdata(score[~true]))
    pairs = won[true].sum()
    positive = np.where(true, m * won - pairs, 0) / (2 * n * m**2)
    negative = np.where(true, 0, n * won - pairs) / (2 * m * n**2)
    return pairs / (2 * m * n), positive, negative


def _variance(
    positive: Floats, negative: Floats, truth: NDArray[np.bool_], cluster: NDArray[np.int64]
) -> tuple[float, str]:
    """Obuchowski's variance of a linear combination of AUCs, or 0 and the reason why it is undefined.

    Shares have the small-sample factor of the patients that carry them, of one problem's two classes that of all.
    """
    if reason := few_patients(cluster):
        return 0.0, reason
    carriers = np.array([[np.unique(cluster[row]).size for row in side] for side in (truth, ~truth)])
    if carriers.min() < 2:
        return 0.0, "a class has lesions of one patient only"
    a, b = (np.array([np.bincount(cluster, row) for row in side]) for side in (positive, negative))
    own, other = np.sqrt(carriers / (carriers - 1))
    both = np.outer(own, other)
    np.fill_diagonal(both, (cluster.max() + 1) / cluster.max())
    parts = np.outer(own, own) * (a @ a.T), np.outer(other, other) * (b @ b.T), 2 * both * (a @ b.T)
    variance = float(sum(part.sum() for part in parts))
    if variance <= ROUNDING * float((a**2).sum() + (b**2).sum()):  # of several classes it can be below zero
        return 0.0, "DeLong's variance is zero"
    return variance, ""


def clusters(patients: ArrayLike) -> NDArray[np.int64]:
    """The number of each lesion's patient, 0, 1, ..., in the order of their names."""
    return np.unique(np.asarray(patients), return_inverse=True)[1]


def few_patients(cluster: NDArray[np.int64], fewest: int = FEWEST_PATIENTS) -> str:
    """Why lesions of these patients (numbered 0, 1, ...) have no interval; empty where they have one."""
    count = int(cluster.max()) + 1
    return f"lesions of {count} patients only" if count < min(fewest, cluster.size) else ""


def _bootstrap(values: Floats, cluster: NDArray[np.int64]) -> Estimate:
    """Mean and percentile interval over patients drawn with replacement."""
    hits, lesions = np.bincount(cluster, values), np.bincount(cluster)
    value, patients = float(hits.sum() / lesions.sum()), hits.size
    if reason := few_patients(cluster):
        return Estimate(value, reason=reason)
    draws = np.random.default_rng(0).multinomial(patients, np.full(patients, 1 / patients), size=RESAMPLES)
    low, high = np.quantile((draws @ hits) / (draws @ lesions), [0.025, 0.975])
    if high - low <= 1e-12 * abs(value):  # but for rounding
        return Estimate(value, reason="all resampled patients give the same value")
    return Estimate(value, float(low), float(high))
