"""Table 1: who becomes an auxiliary task, by scipy's own Spearman on the training lesions."""

from itertools import permutations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import fisher_exact, rankdata, spearmanr

from ctpatch import InputError
from mtltrain.cohort import Cohort
from mtltrain.tasks import PERMUTATIONS, select, spearman, targets

LABEL = list("aabbabababbbaabb")


def cohort(order=("a", "b"), **aux):
    n = len(LABEL)
    lesions = pd.DataFrame({"split": ["train"] * n + ["test"] * 2, "label": [*LABEL, "a", "b"]})
    for name, values in aux.items():
        lesions[f"aux_{name}"] = np.array(values, float)
    label = np.array([order.index(name) for name in lesions["label"]])
    return Cohort(lesions, tuple(sorted(order)), tuple(order), label, {}, (), "")


def related(*test):
    values = [{"a": 1, "b": 3}[name] for name in LABEL]
    values[0], values[2] = np.nan, 1
    return [*values, *test]


def test_pearson_of_the_ranks():
    values = np.array(related(1, 1))
    row = select(cohort(x=values))[0][0]
    known = np.isfinite(values[:16])
    ranks = [rankdata(v) for v in (values[:16][known], np.array(LABEL)[known])]
    assert row.r == pytest.approx(np.corrcoef(ranks)[0, 1], abs=1e-12)
    assert (row.n, row.kept, row.name) == (15, True, "x")


def test_test_lesions_take_no_part():
    first, second = (select(cohort(x=related(*test)))[0] for test in ((1, 1), (3, np.nan)))
    assert first == second


def test_weight_is_positive_for_a_negative_correlation():
    rows, tasks = select(cohort(order=("b", "a"), x=related(1, 1)))
    assert rows[0].r < 0 < tasks[0].weight == -rows[0].r


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ([2.0] * 18, "constant"),
        ([np.nan] * 14 + [1, 2, 1, 2], "fewer than 3 known"),
        ([1, 2] * 9, "p >= 0.05"),
        ([np.nan] * 18, "fewer than 3 known"),
    ],
)
def test_dropped(values, reason):
    rows, tasks = select(cohort(x=values))
    assert (rows[0].reason, rows[0].kept, tasks) == (reason, False, [])


def test_wanted_ones_whatever_their_p():
    """|r| by numpy: the ranks of two levels are a linear function of them."""
    made = cohort(x=related(1, 1), weak=[1, 2] * 9, other=[1, 2, 3] * 6)
    rows, tasks = select(made, {"weak": None, "x": 0.25})
    assert [row.kept for row in rows] == [True, False, False]
    assert [(task.name, task.task()["weight"]) for task in tasks] == [
        ("x", 0.25),
        ("weak", pytest.approx(abs(np.corrcoef([1, 2] * 8, np.array(LABEL) == "b")[0, 1]), abs=1e-12)),
    ]


@pytest.mark.parametrize("name", ["age", "one"])
def test_wanted_ones_that_cannot_be_tasks(name):
    with pytest.raises(InputError, match=f"--tasks {name}"):
        select(cohort(x=related(1, 1), one=[2.0] * 18), {"x": None, name: 1.0})


def test_targets_mask_what_training_never_saw():
    made = cohort(x=related(3, 2))
    _, tasks = select(made)
    assert tasks[0].levels == (1.0, 3.0)
    assert tasks[0].majority == 3.0
    index = targets(made, tasks)
    assert index.shape == (18, 1)
    assert index[[0, 1, 3, 16, 17], 0].tolist() == [-1, 0, 1, 1, -1]


def enumerated(first, second):
    """Share of all orders of `first` whose |r| is no smaller than the one found, by scipy's r."""
    found = abs(spearmanr(first, second).statistic)
    others = [abs(spearmanr(order, second).statistic) for order in permutations(first)]
    return np.mean([other > found - 1e-9 for other in others])


@pytest.mark.parametrize(
    ("first", "second", "p"),
    [
        ([0, 0, 1], [0, 0, 1], 1 / 3),
        ([0, 0, 0, 1, 1, 1], [0, 0, 0, 1, 1, 1], 1 / 10),
        ([0, 0, 1, 1], [1, 2, 3, 3], None),
        ([0, 1, 0, 2, 2], [3, 2, 5, 1, 1], None),
        ([0, 1, 0, 1, 1, 0], [1.5, 2, 1.5, 4, 3, 9], None),
    ],
)
def test_exact_p_is_enumeration(first, second, p):
    found = spearman(np.array(first), np.array(second))
    assert found[0] == pytest.approx(spearmanr(first, second).statistic)
    assert found[1] == pytest.approx(enumerated(first, second))
    assert found[1] == pytest.approx(p or found[1])
    assert found[2] == "exact"


@pytest.mark.parametrize(("positive", "n", "cases"), [(1, 12, 1), (5, 200, 100), (9, 40, 20), (14, 29, 14)], ids=str)
def test_drawn_permutations_agree_with_fishers_test(positive, n, cases):
    """All positive lesions have the sign: of two-valued characteristics Fisher's exact p is that of |r|."""
    sign, label = np.arange(n) < positive, np.arange(n) < cases
    exact = fisher_exact([[positive, 0], [max(0, cases - positive), n - max(positive, cases)]]).pvalue
    _, p, test = spearman(sign, label)
    assert test == "permutation"
    assert p == pytest.approx(exact, abs=4 * np.sqrt(exact / PERMUTATIONS) + 2 / PERMUTATIONS)
    assert spearman(sign, label)[1] == p


def test_many_lesions_have_scipys_p():
    rng = np.random.default_rng(0)
    values, label = rng.integers(0, 4, 60), rng.integers(0, 2, 60)
    assert spearman(values, label) == (*map(float, spearmanr(values, label)), "t distribution")


def test_known_in_three_lesions_is_no_task():
    values = np.full(18, np.nan)
    values[[0, 1, 2]] = [1, 1, 2]  # a, a, b
    row = select(cohort(x=values))[0][0]
    assert (row.r, row.p, row.test) == (pytest.approx(1), pytest.approx(1 / 3), "exact")
    assert row.reason == "p >= 0.05"
