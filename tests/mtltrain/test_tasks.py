"""Table 1: who becomes an auxiliary task, by scipy's own Spearman on the training lesions."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import rankdata

from mtltrain.data import Cohort
from mtltrain.tasks import select, targets

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


def test_targets_mask_what_training_never_saw():
    made = cohort(x=related(3, 2))
    _, tasks = select(made)
    assert tasks[0].levels == (1.0, 3.0)
    assert tasks[0].majority == 3.0
    index = targets(made, tasks)
    assert index.shape == (18, 1)
    assert index[[0, 1, 3, 16, 17], 0].tolist() == [-1, 0, 1, 1, -1]
