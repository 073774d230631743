"""Cell texts: what a spreadsheet would run comes back from its guard, and ids of one patient have one key."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ctpatch.manifest import FORMULA, guarded, patient_key, unguarded


@given(st.text(max_size=12))
@example("=1+1")
@example("'=1+1")
@example("''@a")
@example("'plain")
def test_a_guarded_text_is_no_formula_and_comes_back(text):
    assert not guarded(text).startswith(FORMULA)
    assert unguarded(guarded(text)) == text


@pytest.mark.parametrize("text", ["007", "a=b", "", "'", "P-1"])
def test_what_is_no_formula_stays_as_it_is(text):
    assert guarded(text) == text
    assert unguarded(text) == text


@pytest.mark.parametrize(
    ("one", "other"), [("007", "7"), ("P01", "p1"), (" P1", "P1"), ("Ｐ1", "P1"), ("P\u200b1", "P1")]
)
def test_ids_of_one_patient_have_one_key(one, other):
    assert patient_key(one) == patient_key(other)


@pytest.mark.parametrize(("one", "other"), [("P10", "P1"), ("P100", "P10"), ("0", ""), ("A1", "B1")])
def test_ids_of_two_patients_have_two(one, other):
    assert patient_key(one) != patient_key(other)
