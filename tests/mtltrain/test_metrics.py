"""Against scikit-learn, statsmodels, scipy, the papers' formulas written out, and simulation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax
from scipy.stats import binomtest, norm
from sklearn.metrics import roc_auc_score
from statsmodels.stats.contingency_tables import mcnemar as statsmodels_mcnemar
from statsmodels.stats.proportion import proportion_confint

from mtltrain.metrics import Estimate, auc, average, compare_auc, mcnemar, one_vs_rest, proportion, ranking

# lesions: (true, score of one model, of another), with ties, at least two lesions of each class
LESIONS = st.lists(st.tuples(st.booleans(), st.integers(0, 6), st.integers(0, 6)), min_size=4, max_size=40).filter(
    lambda rows: 2 <= sum(row[0] for row in rows) <= len(rows) - 2
)


def placements(score, truth):
    """V10 and V01 by comparing each pair."""
    x, y = score[truth], score[~truth]
    psi = (x[:, None] > y) + 0.5 * (x[:, None] == y)
    return psi.mean(axis=1), psi.mean(axis=0)


def delong(first, second, truth):
    """DeLong's covariance matrix of two AUCs, O(n²)."""
    v10, v01 = (np.array(part) for part in zip(placements(first, truth), placements(second, truth), strict=True))
    return np.cov(v10) / v10.shape[1] + np.cov(v01) / v01.shape[1]


def obuchowski(first, second, truth, patients):
    """Obuchowski's (1997) covariance matrix of two AUCs, patient by patient as printed."""
    m, n, names = truth.sum(), (~truth).sum(), np.unique(patients)
    x, y = np.zeros((2, len(names))), np.zeros((2, len(names)))
    for r, score in enumerate((first, second)):
        v10, v01 = placements(score, truth)
        for i, name in enumerate(names):
            mine10, mine01 = v10[patients[truth] == name], v01[patients[~truth] == name]
            x[r, i] = mine10.sum() - len(mine10) * v10.mean()
            y[r, i] = mine01.sum() - len(mine01) * v10.mean()
    i10, i01, both = len(set(patients[truth])), len(set(patients[~truth])), len(names)
    s10, s01 = i10 / ((i10 - 1) * m) * x @ x.T, i01 / ((i01 - 1) * n) * y @ y.T
    s11 = both / (both - 1) * x @ y.T
    return s10 / m + s01 / n + (s11 + s11.T) / (m * n)


def logit_interval(value, variance):
    centre, half = np.log(value / (1 - value)), 1.959963984540054 * np.sqrt(variance) / (value * (1 - value))
    return [1 / (1 + np.exp(-(centre + sign * half))) for sign in (-1, 1)]


def cohort(rng, patients, lesions=3, shift=1.0, cluster=0.7):
    """Clustered lesions of two equally good models: patient, true class, scores (2, lesions)."""
    patient = np.repeat(np.arange(patients), rng.integers(1, lesions + 1, patients))
    truth = rng.random(patient.size) < np.clip(0.5 + 0.3 * rng.normal(size=patients), 0.05, 0.95)[patient]
    scores = shift * truth + cluster * rng.normal(size=(2, patients))[:, patient] + rng.normal(size=(2, patient.size))
    return patient, truth, scores + 0.5 * rng.normal(size=patient.size)


@settings(max_examples=60, deadline=None)
@given(LESIONS)
def test_auc_and_its_variance_are_those_of_sklearn_and_delong(rows):
    truth, score = np.array([row[0] for row in rows]), np.array([row[1] for row in rows])
    found, variance = auc(score, truth), delong(score, score, truth)[0, 0]
    assert found.value == pytest.approx(roc_auc_score(truth, score), abs=1e-12)
    if variance > 1e-14:
        assert [found.low, found.high] == pytest.approx(logit_interval(found.value, variance), abs=1e-9)
    else:
        assert (found.low, found.high, found.reason) == (None, None, "DeLong's variance is zero")


@settings(max_examples=60, deadline=None)
@given(LESIONS)
def test_paired_test_is_delongs(rows):
    truth, first, second = (np.array(column) for column in zip(*rows, strict=True))
    cov = delong(first, second, truth)
    difference, p = compare_auc(first, second, truth)
    backward, same_p = compare_auc(second, first, truth)
    assert difference.value == pytest.approx(roc_auc_score(truth, first) - roc_auc_score(truth, second), abs=1e-12)
    assert (backward.value, same_p) == (-difference.value, p)
    variance = cov[0, 0] + cov[1, 1] - 2 * cov[0, 1]
    if variance > 1e-14:
        assert p == pytest.approx(2 * norm.sf(abs(difference.value) / np.sqrt(variance)), abs=1e-9)
        assert difference.high - difference.low == pytest.approx(2 * 1.959963984540054 * np.sqrt(variance))
    else:
        assert p == (1.0 if difference.value == 0 else None)


@pytest.mark.parametrize("seed", range(5))
def test_clustered_variance_and_test_are_obuchowskis(seed):
    patient, truth, (first, second) = cohort(np.random.default_rng(seed), 30)
    cov = obuchowski(first, second, truth, patient)
    found = auc(first, truth, patient)
    assert [found.low, found.high] == pytest.approx(logit_interval(found.value, cov[0, 0]), abs=1e-10)
    difference, p = compare_auc(first, second, truth, [f"patient {name}" for name in patient])
    z = difference.value / np.sqrt(cov[0, 0] + cov[1, 1] - 2 * cov[0, 1])
    assert p == pytest.approx(2 * norm.sf(abs(z)), abs=1e-10)


def test_one_lesion_a_patient_is_not_clustered():
    rng = np.random.default_rng(3)
    truth, scores, names = rng.random(50) < 0.4, rng.normal(size=(2, 50)), rng.permutation(50)
    assert auc(scores[0], truth, names) == auc(scores[0], truth)
    assert compare_auc(*scores, truth, names)[1] == pytest.approx(compare_auc(*scores, truth)[1], rel=1e-12)


def test_the_same_auc_whichever_class_is_the_positive_one():
    """Probabilities that float64 cannot tell from 1, as of a network with large logits, are ranked by the rest's."""
    logits = np.array([[0, 40.0], [0, 50], [0, 60], [0, 45], [3, 1], [2, 1], [1, 1]])
    table, labels = softmax(logits, axis=1), np.array([0, 1, 1, 0, 1, 0, 1])
    assert (table[:4, 1] == 1).all()
    found = [auc(*one_vs_rest(ranking(table), labels, positive)).value for positive in (0, 1)]
    assert found[0] == found[1] == pytest.approx(roc_auc_score(labels, logits[:, 1] - logits[:, 0]))
    three = np.random.default_rng(0).dirichlet(np.ones(3), 40)
    assert np.array_equal(ranking(three).argsort(axis=0), three.argsort(axis=0))


def test_an_average_that_no_resampling_changes_has_no_interval():
    assert average([0.1] * 7).reason == "all resampled patients give the same value"


def test_of_mirrored_problems_the_interval_is_that_of_one():
    """Each problem's shares have the small-sample factor of its own classes."""
    rng = np.random.default_rng(2)
    truth, score = np.arange(11) < 2, rng.normal(size=11)
    one, both = auc(score, truth), auc([score, -score], [truth, ~truth])
    assert [both.value, both.low, both.high] == pytest.approx([one.value, one.low, one.high])


def test_macro_auc_is_sklearns():
    rng = np.random.default_rng(0)
    labels, table = rng.integers(0, 3, 60), rng.dirichlet(np.ones(3), 60)
    scores, truth = one_vs_rest(table, labels, 2)
    assert auc(scores, truth).value == pytest.approx(roc_auc_score(labels, table, multi_class="ovr"), abs=1e-12)
    two = one_vs_rest(table[:, :2], labels % 2, 1)
    assert np.array_equal(two[0], table[:, [1]].T)
    assert np.array_equal(two[1], labels[None] % 2 == 1)


@pytest.mark.parametrize(
    ("truth", "scores", "value", "reason"),
    [
        ([1, 1, 1], [0.1, 0.2, 0.3], None, "a class has no test lesion"),
        ([], [], None, "a class has no test lesion"),
        ([1, 0, 0], [0.5, 0.2, 0.7], 0.5, "a class has lesions of one patient only"),
        ([1, 1, 0, 0], [3, 4, 1, 2], 1.0, "DeLong's variance is zero"),
        ([1, 1, 0, 0], [1, 1, 1, 1], 0.5, "DeLong's variance is zero"),
    ],
)
def test_undefined_is_never_a_number(truth, scores, value, reason):
    assert auc(scores, truth) == Estimate(value, reason=reason)


def test_identical_and_equally_ranking_models_have_p_1():
    truth, score = np.array([1, 0, 1, 0, 1]), np.array([0.9, 0.3, 0.2, 0.4, 0.7])
    for other in (score, score**3):
        assert compare_auc(score, other, truth) == (Estimate(0.0, reason="both models rank the lesions alike"), 1.0)
    perfect = compare_auc(truth, np.zeros(5), truth)
    assert perfect == (Estimate(0.5, reason="DeLong's variance is zero"), None)
    assert compare_auc([1, 2], [2, 1], [1, 1]) == (Estimate(None, reason="a class has no test lesion"), None)


@pytest.mark.parametrize(("hits", "n"), [(0, 5), (5, 5), (1, 1), (30, 71), (105, 106)])
def test_wilson_is_that_of_statsmodels(hits, n):
    found = proportion(np.arange(n) < hits)
    assert found.value == hits / n
    assert (found.low, found.high) == pytest.approx(proportion_confint(hits, n, method="wilson"), abs=1e-12)


def test_proportion_undefined():
    assert proportion([]) == Estimate(None, reason="no test lesion to count")
    assert proportion([True, True, True], ["a", "a", "b"]).low is None


def test_bootstrap_interval_is_that_of_resampled_patients():
    rng = np.random.default_rng(1)
    patient = np.repeat(np.arange(40), rng.integers(1, 5, 40))
    hit = rng.random(patient.size) < 0.7
    drawn = [np.concatenate([hit[patient == i] for i in rng.integers(0, 40, 40)]).mean() for _ in range(4000)]
    found = proportion(hit, patient)
    assert found.value == hit.mean()
    assert [found.low, found.high] == pytest.approx(np.quantile(drawn, [0.025, 0.975]), abs=0.012)
    assert proportion(hit, patient) == found


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60))
def test_mcnemar_is_that_of_statsmodels_and_scipy(pairs):
    first, second = np.array(pairs).T
    b, c = int((first & ~second).sum()), int((second & ~first).sum())
    table = [[int((first & second).sum()), b], [c, int((~first & ~second).sum())]]
    found = mcnemar(first, second)
    assert found == pytest.approx(statsmodels_mcnemar(table, exact=True).pvalue, abs=1e-12)
    assert found == pytest.approx(binomtest(b, b + c).pvalue if b + c else 1.0, abs=1e-12)


def test_clustered_mcnemar_counts_every_sign_pattern():
    patient = np.array([0, 0, 0, 1, 1, 2, 3, 3, 4])
    first, second = np.array([1, 1, 0, 1, 1, 1, 0, 1, 1]), np.array([0, 0, 0, 0, 0, 0, 1, 1, 1])
    sums = np.array([2, 2, 1, -1, 0])
    signs = np.array(np.meshgrid(*[[-1, 1]] * 5)).reshape(5, -1)
    assert mcnemar(first, second, patient) == pytest.approx((abs(sums @ signs) >= 4).mean())
    assert mcnemar(first, first, patient) == 1.0


@pytest.mark.parametrize(("positives", "negatives", "true"), [(61, 45, 0.8), (37, 34, 0.9), (20, 20, 0.7)])
def test_coverage_of_the_auc_interval(positives, negatives, true):
    rng, hits = np.random.default_rng(7), 0
    truth = np.arange(positives + negatives) < positives
    for _ in range(2000):
        found = auc(rng.normal(size=truth.size) + truth * norm.ppf(true) * np.sqrt(2), truth)
        hits += found.low <= true <= found.high
    assert 0.935 <= hits / 2000 <= 0.97


def test_coverage_of_the_macro_auc_interval():
    rng = np.random.default_rng(11)

    def draw(n):
        labels = rng.integers(0, 3, n)
        return one_vs_rest(rng.normal(size=(n, 3)) + 1.2 * np.eye(3)[labels], labels, 2)

    true = auc(*draw(200_000)).value
    found = [auc(*draw(60)) for _ in range(500)]
    assert 0.93 <= np.mean([each.low <= true <= each.high for each in found]) <= 0.975


def test_clustered_interval_covers_where_the_plain_one_does_not():
    rng = np.random.default_rng(2)
    wide = cohort(rng, 100_000, lesions=6, cluster=1.5)
    true = auc(wide[2][0], wide[1]).value
    hits = np.zeros(2)
    for _ in range(400):
        patient, truth, scores = cohort(rng, 50, lesions=6, cluster=1.5)
        for k, found in enumerate((auc(scores[0], truth, patient), auc(scores[0], truth))):
            hits[k] += found.low <= true <= found.high
    assert 0.92 <= hits[0] / 400 <= 0.98
    assert hits[1] < hits[0] - 0.04 * 400


def test_coverage_of_the_patient_bootstrap():
    rng, hits = np.random.default_rng(4), 0
    for _ in range(250):
        patient = np.repeat(np.arange(50), rng.integers(1, 5, 50))
        found = proportion(rng.random(patient.size) < rng.beta(3.5, 1.5, 50)[patient], patient)
        hits += found.low <= 0.7 <= found.high
    assert 0.91 <= hits / 250 <= 0.98


@pytest.mark.parametrize("clustered", [False, True])
def test_type_one_error_is_nominal(clustered):
    rng, rejected = np.random.default_rng(5), np.zeros(2)
    for _ in range(600):
        patient, truth, scores = cohort(rng, 60, lesions=4 if clustered else 1)
        right = (scores > 0.5) == truth
        rejected += [compare_auc(*scores, truth, patient)[1] < 0.05, mcnemar(*right, patient) < 0.05]
    assert 0.03 <= rejected[0] / 600 <= 0.07
    assert 0.01 <= rejected[1] / 600 <= 0.06  # exact, so at most nominal


@pytest.mark.parametrize(("patients", "told"), [(2, False), (5, False), (6, True), (40, True)])
def test_of_few_patients_with_several_lesions_there_is_no_interval(patients, told):
    """By simulation: with five patients of five lesions a test at 0.05 errs in one of eight cohorts."""
    rng = np.random.default_rng(0)
    truth, cluster = np.arange(80) % 2 == 0, np.arange(80) % patients
    first, second = rng.normal(truth, 1), rng.normal(truth, 1)
    hits = rng.uniform(size=80) < 0.7
    estimates = [auc(first, truth, cluster), compare_auc(first, second, truth, cluster)[0]]
    estimates += [proportion(hits, cluster), average(first, cluster)]
    for estimate in estimates:
        assert (estimate.low is not None) == told
        assert estimate.reason == ("" if told else f"lesions of {patients} patients only")
    assert (compare_auc(first, second, truth, cluster)[1] is not None) == told


def test_a_variance_that_is_rounding_is_none():
    """Patients whose shares cancel, but for the last bits of what was divided before it was added."""
    first, second = [0, 0, 0, 1, 0, 1], [0, 1, 1, 2, 0, 1]
    truth, cluster = np.array([1, 0, 1, 0, 1, 1], bool), np.array([0, 0, 0, 1, 1, 1])
    blocks = range(5)  # ten patients
    parts = [np.concatenate([np.asarray(part) for _ in blocks]) for part in (first, second, truth)]
    patients = np.concatenate([cluster + 2 * block for block in blocks])
    difference, p = compare_auc(*parts, patients)
    assert difference.value == pytest.approx(0.25)
    assert (p, difference.low, difference.reason) == (None, None, "DeLong's variance is zero")
