import json

import numpy as np
import pytest

from ctpatch.errors import InputError
from ctpatch.recipe import BuildOptions, Recipe


@pytest.mark.parametrize(
    "choice",
    [
        *({"patches": 2.5}, {"patches": "3"}, {"patches": None}, {"patches": float("nan")}, {"patches": float("inf")}),
        *({"seed": "a"}, {"seed": 0.5}, {"spacing_mm": "wide"}, {"shift_mm": [1, 2]}, {"rgb": "no"}, {"rgb": None}),
    ],
)
def test_a_choice_that_would_have_to_change_is_refused_by_name(choice):
    with pytest.raises(InputError, match=f"^{next(iter(choice))} of the recipe is "):
        Recipe(**choice)


def test_equal_recipes_are_written_alike():
    given = Recipe(seed=np.int64(3), patches=np.int16(2), shift_mm=1, spacing_mm=np.int32(1), rgb=np.True_)
    assert json.dumps(given.document()) == json.dumps(Recipe(3, 2, shift_mm=1.0, spacing_mm=1.0).document())


@pytest.mark.parametrize("fold", [(0, 3), (4, 3), (-1, 3), (1, 1), (1.0, 3), (1,), (), 0, "1/3"])
def test_no_fold(fold):
    with pytest.raises(InputError, match="1 <= i <= k"):
        BuildOptions(fold=fold)


@pytest.mark.parametrize("jobs", [0, -2, 1.5, "2", None])
def test_no_number_of_jobs(jobs):
    with pytest.raises(InputError, match="--jobs is "):
        BuildOptions(jobs=jobs)


def test_what_a_refused_lesion_cannot_do():
    with pytest.raises(InputError, match=r"--on-error is 'ignore'\. Do: give stop or skip"):
        BuildOptions(on_error="ignore")
