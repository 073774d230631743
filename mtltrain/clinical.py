"""What reviewers of a diagnostic model ask for beside discrimination (CLAIM 2024, TRIPOD+AI).

Calibration, an operating point that the test lesions had no part in, and net benefit, of one class against the rest.

Van Calster et al., BMC Medicine 17:230 (2019), for calibration; Youden, Cancer 3:32 (1950); Vickers & Elkin, Med.
Decis. Making 26:565 (2006), for net benefit.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.special import logit
from sklearn.metrics import roc_curve
from statsmodels.genmod.families import Binomial
from statsmodels.genmod.generalized_linear_model import GLM
from statsmodels.tools.sm_exceptions import ModelWarning

from .metrics import Estimate, average, proportion

Floats = NDArray[np.float64]

EPSILON = float(np.finfo(np.float64).eps)
"""Probabilities of 0 and 1 have no logit; they count as this far from it."""

THRESHOLDS = np.arange(1, 100) / 100
"""Threshold probabilities of the decision curve."""

FEWEST_CLUSTERS = 10
"""Patients below which errors that are clustered by patient are far too small (Cameron & Miller, J. Human Resources
50:317, 2015), and of a single one undefined."""

PER_BIN, MOST_BINS = 10, 10
"""Lesions in a bin of the reliability curve, at least, and bins, at most."""


def calibration(score: ArrayLike, truth: ArrayLike, patients: ArrayLike | None = None) -> dict[str, Any]:
    """How far probabilities are from frequencies.

    Parameters
    ----------
    score : array, shape (lesions,)
        Probability of the class.
    truth : bool array, shape (lesions,)
    patients : array, shape (lesions,), optional
        The patient of each lesion; where one recurs, errors are clustered by patient. Default: all differ.

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
    return {
        "brier": average((p - true) ** 2, who),
        "intercept": _recalibrated(p, true, who, slope=False),
        "slope": _recalibrated(p, true, who, slope=True),
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


def _recalibrated(p: Floats, true: NDArray[np.bool_], patients: NDArray[Any], *, slope: bool) -> Estimate:
    """Intercept, or slope, of the logistic regression of the truth on the score's logit."""
    if true.all() or not true.any():
        return Estimate(None, reason="a class has no test lesion")
    x = logit(p.clip(EPSILON, 1 - EPSILON))
    if slope and np.ptp(x) == 0:
        return Estimate(None, reason="all lesions have one probability")
    if slope and (x[true].min() >= x[~true].max() or x[true].max() <= x[~true].min()):
        return Estimate(None, reason="the probabilities separate the classes")  # the likelihood has no maximum
    ones = np.ones_like(x)
    cluster = np.unique(patients, return_inverse=True)[1]
    count = int(cluster.max()) + 1
    recurs = count < cluster.size
    few = f"lesions of {count} patients only" if recurs and count < FEWEST_CLUSTERS else ""
    how = {"cov_type": "cluster", "cov_kwds": {"groups": cluster}} if recurs and not few else {}
    model = GLM(true.astype(float), np.column_stack([ones, x]) if slope else ones, Binomial(), None if slope else x)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", ModelWarning)  # no convergence
            warnings.simplefilter("error", RuntimeWarning)
            fitted = model.fit(**how)
            low, high = np.asarray(fitted.conf_int())[-1]
    except (ModelWarning, RuntimeWarning, np.linalg.LinAlgError):
        return Estimate(None, reason="the logistic regression does not converge")
    value = float(fitted.params[-1])
    return Estimate(value, reason=few) if few else Estimate(value, float(low), float(high))


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
