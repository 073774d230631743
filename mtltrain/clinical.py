"""What reviewers of a diagnostic model ask for beside discrimination (CLAIM 2024, TRIPOD+AI).

Calibration, an operating point that the test lesions had no part in, and net benefit, of one class against the rest.

Van Calster et al., BMC Medicine 17:230 (2019), for calibration; Youden, Cancer 3:32 (1950); Vickers & Elkin, Med.
Decis. Making 26:565 (2006), for net benefit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize
from scipy.special import expit
from sklearn.metrics import roc_curve

from .metrics import Z95, Estimate, Floats, average, clusters, few_patients, proportion

EPSILON = float(np.finfo(np.float64).eps)
"""Probabilities of 0 and 1 have no logit; they, and what is nearer to them than this, count as this far from it."""
FEWEST_CLUSTERS = 10
"""Patients below which a regression's errors that are clustered by patient are far too small (Cameron & Miller, J.
Human Resources 50:317, 2015), and of a single one undefined."""
EXTREME = 36.0
"""Log odds beyond which a probability is 0 or 1 but for `EPSILON`."""
SOLVED = 1e-6
"""How near to zero a likelihood's slope is at its top, and how much it must be curved there, per lesion."""

THRESHOLDS = np.arange(1, 100) / 100
"""Threshold probabilities of the decision curve."""

PER_BIN, MOST_BINS = 10, 10
"""Lesions in a bin of the reliability curve, at least, and bins, at most."""


def calibration(
    score: ArrayLike, truth: ArrayLike, patients: ArrayLike | None = None, rest: ArrayLike | None = None
) -> dict[str, Any]:
    """How far probabilities are from frequencies.

    Parameters
    ----------
    score : array, shape (lesions,)
        Probability of the class.
    truth : bool array, shape (lesions,)
    patients : array, shape (lesions,), optional
        The patient of each lesion; where one recurs, errors are clustered by patient. Default: all differ.
    rest : array, shape (lesions,), optional
        Probability of all other classes, which next to 0 says more than 1 - score. Default: 1 - score.

    Returns
    -------
    dict
        - brier: mean squared error of the probability; percentiles of a patient bootstrap
        - intercept: calibration in the large, a of logit P(truth) = a + logit(score); 0 is right; without an interval,
          as the slope, where patients recur and are fewer than `FEWEST_CLUSTERS`
        - slope: b of logit P(truth) = a + b logit(score); 1 is right, less is overconfident
        - bins: list of {predicted (mean score), observed (share of the class, an estimate), lesions}, bins of equal
          numbers of lesions: the reliability curve
    """
    p, true = np.asarray(score, np.float64), np.asarray(truth, bool)
    who = np.arange(len(true)) if patients is None else np.asarray(patients)
    against = 1 - p if rest is None else np.asarray(rest, np.float64)
    odds = np.log(p.clip(EPSILON, 1)) - np.log(against.clip(EPSILON, 1))
    return {
        "brier": average((p - true) ** 2, who),
        "intercept": _recalibrated(odds, true, who, slope=False),
        "slope": _recalibrated(odds, true, who, slope=True),
        "bins": reliability(p, true, who),
    }


def youden(score: ArrayLike, truth: ArrayLike) -> float | None:
    """The threshold with the highest sensitivity + specificity - 1, the highest of equals; None where none is above 0.

    A lesion is called positive where its score is the threshold or higher.
    """
    true = np.asarray(truth, bool)
    if true.all() or not true.any():
        return None
    false_rate, true_rate, thresholds = roc_curve(true, score)
    m, n = int(true.sum()), int((~true).sum())
    gain = np.rint(true_rate * m) * n - np.rint(false_rate * n) * m  # whole numbers: equal ones are found equal
    best = int(np.argmax(gain))
    return float(thresholds[best]) if gain[best] > 0 else None


def operating_point(folds: Sequence[tuple[float | None, Any, Any, Any]]) -> dict[str, Any]:
    """Accuracy of the test lesions at thresholds that were chosen on others.

    Parameters
    ----------
    folds : sequence of (threshold, scores, truth, patients)
        One for a single split; for cross-validation one per fold, each with a threshold of its own.

    Returns
    -------
    dict
        thresholds (one per fold), and the estimates accuracy, sensitivity, specificity
    """
    thresholds = [threshold for threshold, *_ in folds]
    if None in thresholds:
        nothing = Estimate(None, reason="no threshold on the validation lesions is better than chance")
        return {"thresholds": thresholds, "accuracy": nothing, "sensitivity": nothing, "specificity": nothing}
    said = np.concatenate([np.asarray(score) >= threshold for threshold, score, _, _ in folds])
    true, who = (np.concatenate([np.asarray(fold[k]) for fold in folds]) for k in (2, 3))
    return {
        "thresholds": thresholds,
        "accuracy": proportion(said == true, who),
        "sensitivity": proportion(said[true], who[true]),
        "specificity": proportion(~said[~true], who[~true]),
    }


def net_benefit(score: ArrayLike, truth: ArrayLike) -> Floats:
    """Net benefit at each of `THRESHOLDS`: true positives less false ones at the threshold's odds, per lesion."""
    p, true = np.asarray(score, np.float64), np.asarray(truth, bool)
    if not true.size:
        return np.full(THRESHOLDS.size, np.nan)
    called = p >= THRESHOLDS[:, None]
    odds = THRESHOLDS / (1 - THRESHOLDS)
    benefit: Floats = (called & true).mean(axis=1) - odds * (called & ~true).mean(axis=1)
    return benefit


def _recalibrated(x: Floats, true: NDArray[np.bool_], patients: NDArray[Any], *, slope: bool) -> Estimate:
    """Intercept, or slope, of the logistic regression of the truth on the log odds `x`."""
    if true.all() or not true.any():
        return Estimate(None, reason="a class has no test lesion")
    if slope and np.ptp(x) == 0:
        return Estimate(None, reason="all lesions have one probability")
    if slope and (x[true].min() >= x[~true].max() or x[true].max() <= x[~true].min()):
        return Estimate(None, reason="the probabilities separate the classes")  # the likelihood has no maximum
    if np.mean(np.abs(x) > EXTREME) > 0.5:
        return Estimate(None, reason="most probabilities are 0 or 1")
    ones, offset = np.ones_like(x), np.zeros_like(x) if slope else x
    unit = float(x.std()) if slope else 1.0
    columns = [ones, (x - x.mean()) / unit] if slope else [ones]
    model = _Logistic(np.column_stack(columns), offset, true.astype(float))
    best = model.solved()
    if best is None:
        return Estimate(None, reason="the likelihood hardly depends on it")
    cluster = clusters(patients)
    value = float(best[-1]) / unit
    if few := few_patients(cluster, FEWEST_CLUSTERS):
        return Estimate(value, reason=few)
    half = Z95 * math.sqrt(model.covariance(best, cluster)[-1, -1]) / unit
    return Estimate(value, value - half, value + half)


@dataclass(frozen=True, eq=False)
class _Logistic:
    """A logistic regression of `y` on `design` (lesions, coefficients) with an offset.

    By a trust region, and with its errors computed here: where many probabilities are near 0 or 1 the usual iteration
    of weighted least squares (statsmodels 0.15) runs away, and its clustered errors divide by zero.
    """

    design: Floats
    offset: Floats
    y: Floats

    def solved(self) -> Floats | None:
        """The most likely coefficients; None where the likelihood hardly depends on them."""
        start = np.zeros(self.design.shape[1])
        how = {"method": "trust-exact", "jac": self._gradient, "hess": self._information, "options": {"gtol": 1e-9}}
        best = np.asarray(minimize(self._loss, start, **how).x)
        size = np.abs(self.design).sum(axis=0)
        curved = np.linalg.eigvalsh(self._information(best) / np.outer(size, size))[0] > SOLVED / len(self.y)
        return best if curved and (np.abs(self._gradient(best)) <= SOLVED * size).all() else None

    def covariance(self, beta: Floats, cluster: NDArray[np.int64]) -> Floats:
        """Of the coefficients: the information's inverse; where a patient recurs the sandwich of patients' scores.

        With the usual factor for few clusters (Cameron & Miller).
        """
        inverse = np.asarray(np.linalg.inv(self._information(beta)), np.float64)
        (n, k), groups = self.design.shape, int(cluster.max()) + 1
        if groups == n:
            return inverse
        scores = self.design * (self.y - self._chance(beta))[:, None]
        summed = np.array([np.bincount(cluster, column) for column in scores.T])
        factor = groups / (groups - 1) * (n - 1) / (n - k)
        return np.asarray(factor * inverse @ (summed @ summed.T) @ inverse)

    def _chance(self, beta: Floats) -> Floats:
        return np.asarray(expit(self.design @ beta + self.offset))

    def _loss(self, beta: Floats) -> float:
        eta = self.design @ beta + self.offset
        return float(np.logaddexp(0, eta).sum() - self.y @ eta)

    def _gradient(self, beta: Floats) -> Floats:
        return np.asarray(self.design.T @ (self._chance(beta) - self.y))

    def _information(self, beta: Floats) -> Floats:
        chance = self._chance(beta)
        return np.asarray((self.design.T * (chance * (1 - chance))) @ self.design)


def reliability(p: Floats, true: NDArray[np.bool_], patients: NDArray[Any]) -> list[dict[str, Any]]:
    """The bins of a reliability curve, see `calibration`; equal probabilities are in one bin."""
    if not p.size:
        return []
    place = pd.qcut(p, min(MOST_BINS, max(1, p.size // PER_BIN)), labels=False, duplicates="drop")
    place = np.nan_to_num(place.astype(float))  # of one probability throughout qcut makes no bin
    chosen = [place == k for k in np.unique(place)]
    return [
        {"predicted": p[k].mean(), "observed": proportion(true[k], patients[k]), "lesions": int(k.sum())}
        for k in chosen
    ]
