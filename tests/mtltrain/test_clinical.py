"""Calibration, operating point and net benefit against scikit-learn, statsmodels' Logit and counting."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq
from scipy.special import expit, logit
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss, confusion_matrix
from statsmodels.api import Logit

from mtltrain.clinical import THRESHOLDS, calibration, net_benefit, operating_point, youden
from mtltrain.metrics import proportion


def lesions(n=150, seed=0, *, slope=1.8, intercept=0.6):
    """Scores that are overconfident and too high, unless said otherwise."""
    rng = np.random.default_rng(seed)
    chance = rng.uniform(0.05, 0.95, n)
    return expit(slope * logit(chance) + intercept), rng.uniform(size=n) < chance


def test_calibration_of_single_lesions():
    score, truth = lesions()
    found = calibration(score, truth)
    assert found["brier"].value == pytest.approx(brier_score_loss(truth, score))
    assert found["brier"].low < found["brier"].value < found["brier"].high
    large = brentq(lambda a: (truth - expit(a + logit(score))).sum(), -5, 5)
    assert found["intercept"].value == pytest.approx(large, abs=1e-6)
    fitted = Logit(truth.astype(float), np.column_stack([np.ones(150), logit(score)])).fit(disp=0)
    assert found["slope"].value == pytest.approx(fitted.params[1], abs=1e-6)
    assert [found["slope"].low, found["slope"].high] == pytest.approx(fitted.conf_int()[1], abs=1e-5)
    assert found["intercept"].value < 0
    assert found["slope"].value < 1


def test_several_lesions_of_a_patient_do_not_count_as_patients():
    """Each lesion four times: the estimates stay, and so do clustered intervals, but for the sandwich's own error."""
    score, truth = lesions(60, slope=1, intercept=0)
    once, patients = calibration(score, truth, np.arange(60)), np.repeat(np.arange(60), 4)
    four = calibration(np.repeat(score, 4), np.repeat(truth, 4), patients)
    naive = calibration(np.repeat(score, 4), np.repeat(truth, 4))
    for name in ("intercept", "slope", "brier"):
        assert four[name].value == pytest.approx(once[name].value)
        width, single, wrong = (each[name].high - each[name].low for each in (four, once, naive))
        assert width == pytest.approx(single, rel=0.3)
        assert wrong < 0.6 * single


@pytest.mark.parametrize("patients", [1, 2, 9, 10])
def test_few_patients_with_several_lesions_have_no_clustered_interval(patients):
    score, truth = lesions(40)
    found = calibration(score, truth, np.arange(40) % patients)
    for name in ("intercept", "slope"):
        assert found[name].value == pytest.approx(calibration(score, truth)[name].value)
        assert found[name].reason == ("" if patients == 10 else f"lesions of {patients} patients only")
        assert (found[name].low is None) == (patients < 10)


def test_of_thresholds_that_are_equally_good_the_highest():
    """By whole numbers: as rates 1 - 2/3 and 1/3 - 0 differ in their last bits."""
    assert youden([0.8, 0.8, 0.4, 0.6, 11 / 15, 0.6], [0, 1, 0, 1, 1, 0]) == 11 / 15


def test_clustered_slope_is_the_sandwich():
    score, truth = lesions(90)
    cluster = np.arange(90) // 3
    fitted = Logit(truth.astype(float), np.column_stack([np.ones(90), logit(score)])).fit(
        disp=0, cov_type="cluster", cov_kwds={"groups": cluster}
    )
    found = calibration(score, truth, cluster)["slope"]
    assert [found.low, found.high] == pytest.approx(fitted.conf_int()[1], abs=1e-5)


def test_reliability_curve():
    score, truth = lesions()
    bins = calibration(score, truth)["bins"]
    observed, predicted = calibration_curve(truth, score, n_bins=10, strategy="quantile")
    assert [item["predicted"] for item in bins] == pytest.approx(predicted)
    assert [item["observed"].value for item in bins] == pytest.approx(observed)
    assert [item["lesions"] for item in bins] == [15] * 10
    assert len(calibration(score[:35], truth[:35])["bins"]) == 3
    assert [item["lesions"] for item in calibration(np.full(40, 0.3), truth[:40])["bins"]] == [40]


UNDEFINED = {
    "one class": ([0.2, 0.4, 0.6], [True] * 3, "a class has no test lesion"),
    "no lesion": ([], [], "a class has no test lesion"),
    "one probability": ([0.5] * 4, [True, False] * 2, "one probability"),
    "separated": ([0.1, 0.2, 0.7, 0.9], [False, False, True, True], "separate"),
    "separated but for a tie": ([0.1, 0.4, 0.4, 0.9], [False, False, True, True], "separate"),
    "all wrong": ([0.9, 0.8, 0.1, 0.2], [False, False, True, True], "separate"),
}


@pytest.mark.parametrize(("score", "truth", "reason"), UNDEFINED.values(), ids=UNDEFINED)
def test_slopes_that_are_none(score, truth, reason):
    found = calibration(score, truth)["slope"]
    assert found.value is None
    assert reason in found.reason


def test_probabilities_of_0_and_1_have_a_calibration():
    score, truth = lesions()
    found = calibration(np.r_[score, 0, 1], np.r_[truth, True, False])
    assert all(np.isfinite([found[name].low, found[name].high]).all() for name in ("intercept", "slope"))


scored = st.lists(st.tuples(st.integers(0, 8).map(lambda k: k / 8), st.booleans()), min_size=2, max_size=30)


@settings(max_examples=100, deadline=None)
@given(scored)
def test_youden_is_the_best_of_all_thresholds(pairs):
    score, truth = (np.array(column) for column in zip(*pairs, strict=True))
    found = youden(score, truth)
    if truth.all() or not truth.any():
        assert found is None
        return
    index = {t: (score >= t)[truth].mean() - (score >= t)[~truth].mean() for t in np.unique(score)}
    best = max(index.values())
    if best <= 1e-12:
        assert found is None or index[found] <= 1e-12
    else:
        assert index[found] == pytest.approx(best)


def test_operating_point_of_folds():
    """Each fold's test lesions are called at their own fold's threshold, then counted together."""
    parts = [lesions(40, seed) for seed in (1, 2)]
    folds = [
        (t, score, truth, np.arange(40) + 40 * k)
        for k, (t, (score, truth)) in enumerate(zip((0.3, 0.8), parts, strict=True))
    ]
    found = operating_point(folds)
    tables = [confusion_matrix(truth, score >= t) for t, score, truth, _ in folds]
    (tn, fp), (fn, tp) = sum(tables)
    assert found["thresholds"] == [0.3, 0.8]
    assert found["sensitivity"].value == pytest.approx(tp / (tp + fn))
    assert found["specificity"].value == pytest.approx(tn / (tn + fp))
    assert found["accuracy"] == proportion(np.arange(80) < tp + tn)
    none = operating_point([folds[0], (None, *folds[1][1:])])
    assert none["sensitivity"].value is None
    assert "validation" in none["sensitivity"].reason


def test_net_benefit_by_counting():
    score, truth = lesions(60)
    score[:3] = 0.25, 0.5, 0.99  # on a threshold: called
    found = net_benefit(score, truth)
    for threshold, value in zip(THRESHOLDS, found, strict=True):
        (_, fp), (_, tp) = confusion_matrix(truth, score >= threshold, labels=[False, True])
        assert value == pytest.approx(tp / 60 - fp / 60 * threshold / (1 - threshold))
    share = truth.mean()
    everyone = net_benefit(np.ones(60), truth)
    assert everyone == pytest.approx(share - (1 - share) * THRESHOLDS / (1 - THRESHOLDS))
    assert (net_benefit(np.zeros(60), truth) == 0).all()
    assert np.isnan(net_benefit([], [])).all()


@pytest.mark.parametrize("sd", [3, 15, 25])
@pytest.mark.parametrize("clustered", [False, True])
def test_saturated_probabilities_have_the_intercept_that_solves_its_equation(sd, clustered):
    """statsmodels' GLM gives 7e14 for some of these, and says that it has converged."""
    for seed in range(30):
        rng = np.random.default_rng(seed)
        truth = rng.random(40) < 0.5
        z = np.clip(rng.normal(size=40) * sd + np.where(truth, sd, -sd), -35.9, 35.9)
        patients = np.arange(40) // 2 if clustered else np.arange(40)
        found = calibration(expit(z), truth, patients, expit(-z))["intercept"]
        root = brentq(lambda a, z=z, truth=truth: (truth - expit(a + z)).sum(), -80, 80)
        assert found.value == pytest.approx(root, abs=1e-4)
        if not clustered:
            error = 1 / np.sqrt((expit(root + z) * expit(-root - z)).sum())
            assert found.high - found.low == pytest.approx(2 * 1.959964 * error, rel=1e-3)


@pytest.mark.parametrize("share", [0.6, 1.0])
def test_where_most_probabilities_are_0_or_1_there_is_no_calibration(share):
    rng = np.random.default_rng(0)
    truth = rng.random(50) < 0.5
    sure = np.arange(50) < share * 50
    score = np.where(sure, np.where(rng.random(50) < 0.8, truth, ~truth), rng.uniform(0.2, 0.8, 50))
    found = calibration(score, truth)
    for name in ("intercept", "slope"):
        assert (found[name].value, found[name].reason) == (None, "most probabilities are 0 or 1")


def test_a_network_that_says_nearly_the_same_of_all_has_a_slope():
    """Whatever it says: the slope is of the log odds' spread, not of where they lie."""
    rng = np.random.default_rng(0)
    z, truth = rng.normal(size=80), rng.random(80) < 0.5
    slopes = [calibration(expit(middle + 0.002 * z), truth)["slope"] for middle in (0.0, 0.85, -2.0)]
    expected = Logit(truth.astype(float), np.column_stack([np.ones(80), z])).fit(disp=0)
    for slope in slopes:
        assert slope.value * 0.002 == pytest.approx(expected.params[1], rel=1e-4)
        assert slope.low * 0.002 == pytest.approx(expected.conf_int()[1][0], rel=1e-3)
