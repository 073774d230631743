import hashlib
import random
from collections import Counter
from fractions import Fraction
from math import floor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctpatch.errors import InputError
from ctpatch.manifest import Row
from ctpatch.manifest.split import assign_splits, parse_fold

HALF = Fraction(1, 2)


def one_lesion_each(**counts):
    labels = [label for label, count in counts.items() for _ in range(count)]
    return [Row(i + 2, f"P{i:04d}", "1", "ct", label=label) for i, label in enumerate(labels)]


def expected_counts(n):
    val, test = floor(Fraction(n, 10) + HALF), floor(Fraction(3 * n, 10) + HALF)
    return Counter(val=val, test=test, train=n - val - test)


def splits_by_patient(rows):
    return {row.patient_id: row.split for row in rows}


cohorts = st.lists(
    st.tuples(st.text("0123456789abéß ", min_size=1, max_size=3), st.sampled_from(["T2", "T3", "T4"])),
    min_size=1,
    max_size=60,
).map(lambda pairs: [Row(i + 2, p, str(i), "ct", label=label) for i, (p, label) in enumerate(pairs)])


@pytest.mark.parametrize(("first", "second", "patches"), [(153, 204, 64_200), (113, 123, 42_300)])
def test_the_papers_cohorts(first, second, patches):
    rows = assign_splits(one_lesion_each(a=first, b=second), seed=0)
    train = sum(row.split == "train" for row in rows)
    assert abs(train * 300 - patches) <= 300
    for label, n in (("a", first), ("b", second)):
        assert Counter(row.split for row in rows if row.label == label) == expected_counts(n)


def test_order_within_a_stratum_is_that_of_the_documented_digest():
    rows = assign_splits(one_lesion_each(a=10), seed=7)

    def digest(row):
        return hashlib.sha256(b"ctpatch-split-1\x007\x00" + row.patient_id.encode()).hexdigest()

    assert [row.split for row in sorted(rows, key=digest)] == ["val"] + ["test"] * 3 + ["train"] * 6


def test_a_patient_counts_once_in_the_stratum_of_its_last_class():
    single = one_lesion_each(T3=4, T4=16)
    extra = [Row(99, row.patient_id, "2", "ct", label="T3") for row in single]
    rows = assign_splits(single + extra, seed=1)
    t4 = {row.patient_id for row in single if row.label == "T4"}
    assert Counter(split for p, split in splits_by_patient(rows).items() if p in t4) == expected_counts(16)
    assert splits_by_patient(rows) == splits_by_patient(assign_splits(single, seed=1))


def test_seed_matters_and_rows_keep_everything_else():
    rows = one_lesion_each(a=50)
    assert splits_by_patient(assign_splits(rows, seed=0)) != splits_by_patient(assign_splits(rows, seed=1))
    assert [row.line for row in assign_splits(rows, seed=0)] == [row.line for row in rows]


@given(cohorts, st.integers(0, 2**64), st.randoms(use_true_random=False))
def test_each_patient_is_in_one_split_whatever_the_order(rows, seed, rng):
    assigned = assign_splits(rows, seed=seed)
    assert len({(row.patient_id, row.split) for row in assigned}) == len({row.patient_id for row in rows})
    shuffled = random.Random(rng.random()).sample(rows, len(rows))
    assert splits_by_patient(assign_splits(shuffled, seed=seed)) == splits_by_patient(assigned)


@given(cohorts, st.integers(0, 9))
def test_counts_of_every_stratum_follow_the_formula(rows, seed):
    splits = splits_by_patient(assign_splits(rows, seed=seed))
    stratum = {p: max(row.label for row in rows if row.patient_id == p) for p in splits}
    for label, n in Counter(stratum.values()).items():
        assert Counter(splits[p] for p in splits if stratum[p] == label) == expected_counts(n)


@given(st.integers(1, 40), st.integers(1, 40), st.integers(2, 10), st.integers(0, 9))
def test_folds_test_each_patient_exactly_once(a, b, k, seed):
    rows = one_lesion_each(a=a, b=b)
    if min(a, b) < k:
        with pytest.raises(InputError, match="too few for each of"):
            assign_splits(rows, seed=seed, fold=(1, k))
        return
    folds = [assign_splits(rows, seed=seed, fold=(i, k)) for i in range(1, k + 1)]
    tested = Counter(row.patient_id for fold in folds for row in fold if row.split == "test")
    assert tested == Counter(row.patient_id for row in rows)
    for label, n in (("a", a), ("b", b)):
        for fold in folds:
            counts = Counter(row.split for row in fold if row.label == label)
            assert counts["test"] in (n // k, -(-n // k))
            assert counts["val"] == floor(Fraction(n, 10) + HALF)
            assert counts["train"] == n - counts["test"] - counts["val"] > 0


def test_fold_order_is_contiguous_and_cyclic():
    rows = sorted(
        one_lesion_each(a=10),
        key=lambda row: hashlib.sha256(f"ctpatch-split-1\0{3}\0{row.patient_id}".encode()).digest(),
    )
    letters = {i: "".join(row.split[1] for row in assign_splits(rows, seed=3, fold=(i, 5))) for i in (1, 5)}
    assert letters == {1: "ee" + "a" + "r" * 7, 5: "a" + "r" * 7 + "ee"}


@pytest.mark.parametrize("fold", [None, (1, 2)])
def test_a_manifest_with_splits_is_left_to_the_manifest(fold):
    rows = [Row(2, "P", "1", "ct", label="a", split="train")]
    with pytest.raises(InputError, match="has its own splits"):
        assign_splits(rows, seed=0, fold=fold)


@pytest.mark.parametrize("fold", [(0, 3), (4, 3), (-1, 3), (1, 1)])
def test_no_fold(fold):
    with pytest.raises(InputError, match="1 <= i <= k"):
        assign_splits(one_lesion_each(a=10), seed=0, fold=fold)


def test_parse_fold():
    assert parse_fold("2/5") == (2, 5)


@pytest.mark.parametrize("text", ["", "0/5", "6/5", "1/1", "1", "a/b", "-1/5", "1/5/2", "²/5", "1/" + "9" * 5000])
def test_parse_fold_refuses(text):
    with pytest.raises(InputError, match="1 <= i <= k"):
        parse_fold(text)
