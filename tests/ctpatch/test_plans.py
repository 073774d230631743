"""Plans between a run's two passes: used when they are of this run and its files, and never trusted otherwise."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import cohort
import numpy as np
import pytest
import SimpleITK

import ctpatch.build.one_lesion
from ctpatch.build.one_lesion import LesionPlan, cut_lesion, plan_lesion
from ctpatch.build.parts import inputs_digest
from ctpatch.build.plans import Plans
from ctpatch.errors import InputError
from ctpatch.images import folder
from ctpatch.manifest import Row, read_manifest
from ctpatch.recipe import Recipe

RECIPE = Recipe(patches=3, augment=1)


@pytest.fixture
def row(tmp_path: Path) -> Row:
    return read_manifest(cohort.write_cohort(tmp_path, ("train",))).rows[0]


@pytest.fixture
def plans(tmp_path: Path) -> Plans:
    (tmp_path / "parts").mkdir()
    return Plans(tmp_path / "parts", RECIPE)


@pytest.fixture
def anew(monkeypatch: pytest.MonkeyPatch) -> list[Row]:
    """Who was planned."""
    planned: list[Row] = []

    def counted(row: Row, recipe: Recipe) -> LesionPlan:
        planned.append(row)
        return plan_lesion(row, recipe)

    monkeypatch.setattr(ctpatch.build.one_lesion, "plan_lesion", counted)
    return planned


def test_what_was_planned_is_cut_as_if_it_were_planned_now(plans: Plans, row: Row, anew: list[Row]) -> None:
    plans.make(row)
    lesion, patches, notes = cut_lesion(plans.take(row, inputs_digest(row)), RECIPE)
    assert anew == [row]
    same, expected, told = cut_lesion(plan_lesion(row, RECIPE), RECIPE)
    assert (lesion, notes, patches.images) == (same, told, expected.images)
    for name, values in expected.columns.items():
        np.testing.assert_array_equal(patches.columns[name], values)


def test_headers_of_a_folder_are_kept_until_a_plan_is_taken(plans: Plans, row: Row) -> None:
    kept = folder._read_folder.cache_info
    before = kept().misses
    plans.make(row)
    plans.make(replace(row, lesion_id="another"))
    assert (kept().currsize, kept().misses - before) == (1, 1)
    plans.take(row, inputs_digest(row))
    assert kept().currsize == 0


def test_a_plan_is_used_once_and_its_file_gone(plans: Plans, row: Row, anew: list[Row]) -> None:
    plans.make(row)
    for made in (1, 2):
        plans.take(row, inputs_digest(row))
        assert (len(anew), list(plans.parts.iterdir())) == (made, [])


def test_files_that_changed_in_between_are_read_again(plans: Plans, row: Row, anew: list[Row]) -> None:
    plans.make(row)
    os.utime(next(row.image.iterdir()), ns=(1, 1))
    plans.take(row, inputs_digest(row))
    assert len(anew) == 2


class Trap:
    """What says so when it is unpickled."""

    opened: ClassVar[list[str]] = []

    def __getstate__(self) -> str:
        return "a trap"

    def __setstate__(self, state: str) -> None:
        Trap.opened.append(state)


@pytest.mark.parametrize("damage", ["none", "another run's", "flipped", "cut off", "empty"])
def test_what_this_run_did_not_write_is_never_unpickled(
    plans: Plans, row: Row, damage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Trap, "opened", [])
    with monkeypatch.context() as patch:
        patch.setattr(ctpatch.build.one_lesion, "plan_lesion", lambda row, recipe: Trap())
        (Plans(plans.parts, RECIPE) if damage == "another run's" else plans).make(row)
    (file,) = plans.parts.iterdir()
    whole = bytearray(file.read_bytes())
    whole[-1] ^= damage == "flipped"
    file.write_bytes(whole[: {"cut off": -1, "empty": 0}.get(damage, len(whole))])
    taken = plans.take(row, inputs_digest(row))
    assert Trap.opened == (["a trap"] if damage == "none" else [])
    assert isinstance(taken, Trap if damage == "none" else LesionPlan)


def test_only_its_owner_reads_a_plan(plans: Plans, row: Row) -> None:
    plans.make(row)
    (file,) = plans.parts.iterdir()
    assert file.stat().st_mode & 0o077 == 0
    assert file.name.endswith(".tmp")  # cleared up by the next build


def test_of_a_volume_file_only_the_header_is_read(tmp_path: Path, plans: Plans, row: Row, anew: list[Row]) -> None:
    """A plan would keep its voxels."""
    volume = replace(row, image_text=str(tmp_path / "ct.nii"))
    SimpleITK.WriteImage(SimpleITK.Image(4, 5, 6, SimpleITK.sitkInt16), str(volume.image))
    plans.make(volume)
    assert (anew, list(plans.parts.iterdir())) == ([], [])
    volume.image.write_bytes(b"no header")
    with pytest.raises(InputError):
        plans.make(volume)
