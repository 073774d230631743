"""Stomachs and lungs: every sign looks like its name, and nothing else changes with it."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from ctpatch.phantom import nodule
from ctpatch.phantom.acquisition import EXAMINATIONS
from ctpatch.phantom.shapes import Plane, sphere
from ctpatch.phantom.table import SHAPING

PIXEL = 0.8
PLANES_MM = (-6.0, -2.0, 2.0, 6.0)
PATIENTS = {"stomach": 7, "lung": 5}
HALF_MM = {"stomach": 60.0, "lung": 42.0}


@cache
def picture(anatomy: str, *changed: tuple[str, float]) -> tuple[Plane, Plane, Plane]:
    """HU, depth in the lesion and distance from its middle (planes, rows, columns), of the same patient always."""
    level = dict.fromkeys(SHAPING[anatomy], 0.0) | {"severity": 0.5} | dict(changed)
    seed = PATIENTS[anatomy]
    scene = EXAMINATIONS[anatomy].make(level, np.random.default_rng(seed), np.random.default_rng(seed + 1000))
    steps = np.arange(-HALF_MM[anatomy], HALF_MM[anatomy], PIXEL, dtype=np.float32)
    x, y, z = (np.float32(middle) for middle in scene.centre)
    planes = [scene.paint(x + steps, y + steps, float(z) + dz, k) for k, dz in enumerate(PLANES_MM)]
    flat = np.hypot(steps, steps[:, None])
    return (*map(np.array, zip(*planes, strict=True)), np.array([np.hypot(flat, dz) for dz in PLANES_MM]))


def changes(anatomy: str, *signs: str) -> tuple[Plane, Plane, Plane]:
    """By how many HU the signs change the picture; depth in the lesion without and with them."""
    before, depth, _ = picture(anatomy)
    after, deeper, _ = picture(anatomy, *((sign, 1.0) for sign in signs))
    return after - before, depth, deeper


@pytest.mark.parametrize(
    ("anatomy", "sign"), [(anatomy, sign) for anatomy in EXAMINATIONS for sign in SHAPING[anatomy]]
)
def test_a_sign_changes_the_lesion_and_its_neighbourhood_only(anatomy, sign):
    change, _, _ = changes(anatomy, sign)
    _, _, distance = picture(anatomy)
    assert abs(change).max() > 40
    assert abs(change[distance > (56 if anatomy == "stomach" else 38)]).max(initial=0) < 0.1


def test_a_tumour_is_enhanced_wall_between_water_and_fat():
    hu, depth, _ = picture("stomach")
    assert hu[depth > 2].mean() == pytest.approx(90, abs=25)
    for low, high, least in ((-130, -80, 0.1), (0, 30, 0.1), (60, 140, 0.1)):  # fat, water, wall and organs
        assert np.mean((hu > low) & (hu < high)) > least


def test_fat_infiltration_veils_the_fat_next_to_the_tumour():
    hu, _, _ = picture("stomach")
    change, depth, deeper = changes("stomach", "fat_infiltration")
    fat = (hu < -70) & (hu > -150)
    np.testing.assert_array_equal(depth, deeper)
    near = fat & (picture("stomach")[2] < 26)
    far = fat & (picture("stomach")[2] > 50)
    assert change[near].mean() > 8
    assert change[far].mean() < 1
    assert hu[near].mean() + change[near].mean() < 0


def test_cords_are_thin_bright_lines_in_the_fat():
    hu, _, _ = picture("stomach")
    change, depth, deeper = changes("stomach", "cord_outside_serosa")
    np.testing.assert_array_equal(depth, deeper)
    lines = (hu < -60) & (change > 60)
    assert lines.sum() * PIXEL**2 > 10
    inner = lines[:, 2:-2, 2:-2] & lines[:, :-4, 2:-2] & lines[:, 4:, 2:-2] & lines[:, 2:-2, :-4] & lines[:, 2:-2, 4:]
    assert inner.sum() < 0.02 * lines.sum()


def test_nodules_stand_out_of_the_serosa():
    hu, _, _ = picture("stomach")
    _, depth, deeper = changes("stomach", "nodular_sign")
    out = (deeper > 0) & (depth < 0)
    assert out.sum() > 0.05 * (depth > 0).sum()
    assert np.median(hu[out]) < -50  # where there was fat


def test_the_high_enhanced_layer_lies_against_the_lumen():
    change, depth, _ = changes("stomach", "high_enhanced_layer")
    bright = change > 30
    assert bright.sum() > 0.05 * (depth > 0).sum()
    assert depth[bright].max() < 5
    assert (depth[bright] > -1.5).all()
    assert change[depth > 5].max() < 20


def test_stages_grow_outwards_and_bring_nodes():
    _, depth, deeper = changes("stomach", "clinical_T_stage")
    assert (deeper > 0).sum() > 1.1 * (depth > 0).sum()
    change, depth, deeper = changes("stomach", "clinical_N_stage")
    np.testing.assert_array_equal(depth, deeper)
    assert change[depth < -3].max() > 120


def test_a_nodule_is_ground_glass_in_lung():
    hu, depth, _ = picture("lung")
    assert np.median(hu[(depth > 1) & (depth < 3)]) == pytest.approx(-560, abs=130)
    lung = (depth < -3) & (hu < -700)
    assert hu[lung].mean() == pytest.approx(-868, abs=50)
    assert lung.mean() > 0.5


@pytest.mark.parametrize("sign", ["lobulation", "spine_like_process"])
def test_outlines_are_less_round(sign):
    _, depth, deeper = changes("lung", sign)

    def roundness(d: Plane) -> float:
        inside = np.pad(d > 0, ((0, 0), (1, 1), (1, 1)))
        edge = sum((inside != np.roll(inside, 1, axis)).sum() for axis in (1, 2))
        return float(inside.sum() / edge**2)

    assert roundness(deeper) < 0.9 * roundness(depth)


def test_a_cusp_is_one_corner():
    centre, hilum = np.array([80.0, 10, 0]), np.array([34.0, 4, 10])
    level = dict.fromkeys(nodule.SIGNS, 0.0) | {"severity": 0.5}
    before, after = (
        nodule.make_nodule(centre, hilum, level | {"cusp_angle": cusp}, np.random.default_rng(3)) for cusp in (0.0, 1.0)
    )
    directions = sphere(4000, np.random.default_rng(0)).T
    growth = after.reach(directions) / before.reach(directions)
    apart = np.arccos(np.clip(after.cusp @ directions, -1, 1))
    assert (growth[apart > nodule.CUSP_RAD] == 1).all()
    assert growth.max() > 1.3
    assert apart[growth.argmax()] < 0.1


def test_spicules_are_thin_lines_in_the_lung_around():
    change, depth, deeper = changes("lung", "spiculation")
    np.testing.assert_array_equal(depth, deeper)
    lines = (change > 150) & (depth < -1)
    assert lines.sum() * PIXEL**2 > 8
    assert depth[lines].min() < -4
    assert (lines & np.roll(lines, 2, 1) & np.roll(lines, -2, 1) & np.roll(lines, 2, 2)).sum() == 0


@pytest.mark.parametrize("sign", ["air_bronchogram", "foam_like_sign"])
def test_air_in_the_nodule(sign):
    change, depth, deeper = changes("lung", sign)
    hu, _, _ = picture("lung", (sign, 1.0))
    np.testing.assert_array_equal(depth, deeper)
    air = (change < -200) & (depth > 0)
    assert 2 < air.sum() * PIXEL**2 / len(PLANES_MM) < 60
    assert hu[air].min() < -900
