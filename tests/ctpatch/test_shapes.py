"""Shapes by their depth, against analytic distances and shapely's."""

from __future__ import annotations

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from ctpatch.phantom.canvas import Canvas, Grain, Warp
from ctpatch.phantom.shapes import Ellipsoid, Tube, blend, disc, smooth_tube, sphere

GRID = np.meshgrid(np.linspace(-30, 30, 61, dtype=np.float32), np.linspace(-30, 30, 61, dtype=np.float32))
STRAIGHT = Warp(np.zeros((0, 3)), np.zeros(0), np.zeros((0, 2)))


def canvas(z: float = 0.0) -> Canvas:
    x = np.linspace(-30, 30, 61, dtype=np.float32)
    return Canvas.blank(x, x, z, STRAIGHT, 0.0, (1e3, 1e3))


def test_a_spheres_depth_is_the_distance():
    x, y = GRID
    depth = Ellipsoid((3, -2, 1), (9, 9, 9)).depth(x, y, 4.0)
    np.testing.assert_allclose(depth, 9 - np.sqrt((x - 3) ** 2 + (y + 2) ** 2 + 9), atol=1e-3)


@settings(deadline=None, max_examples=40)
@given(st.tuples(*[st.floats(4, 20)] * 3), st.floats(-90, 90), st.floats(-10, 10))
def test_an_ellipsoid_is_positive_exactly_inside(radii, turn, z):
    x, y = GRID
    angle = np.radians(turn)
    u, v = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    quadric = (u / radii[0]) ** 2 + (v / radii[1]) ** 2 + (z / radii[2]) ** 2 - 1
    sure = abs(quadric) > 1e-3
    depth = Ellipsoid((0, 0, 0), radii, turn).depth(x, y, z)
    np.testing.assert_array_equal(depth[sure] > 0, quadric[sure] < 0)


def test_a_tubes_depth_is_shapelys_distance_from_its_line():
    line = np.array([(-20, -10, 0), (0, 12, 0), (15, 5, 0), (20, -20, 0)], float)
    x, y = GRID
    depth, along = Tube(line, np.full(4, 6.0)).locate(x, y, 0.0, 10.0)
    path = shapely.LineString(line[:, :2])
    expected = 6 - shapely.distance(path, shapely.points(x, y))
    near = expected > -9.99
    np.testing.assert_allclose(depth[near], expected[near], atol=1e-4)
    assert (depth[expected < -10.01] == -np.inf).all()
    lengths = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(line, axis=0), axis=1))])
    found = np.interp(along[near], np.arange(4), lengths)
    where = shapely.line_interpolate_point(path, found)
    np.testing.assert_allclose(shapely.distance(where, shapely.points(x, y)[near]), 6 - expected[near], atol=1e-3)


def test_a_tubes_radius_goes_from_point_to_point_and_it_ends_round():
    tube = Tube(np.array([(0, 0, -10), (0, 0, 10)], float), np.array([2.0, 6.0]))
    x = np.array([[0, 3, 9]], np.float32)
    np.testing.assert_allclose(tube.depth(x, np.zeros_like(x), 0.0), [[4, 1, -np.inf]])


def test_a_smooth_tube_goes_through_its_points():
    points = np.array([(0, 0, 0), (10, 5, 0), (12, 20, 5), (0, 30, 10)], float)
    tube = smooth_tube(points, (2, 4), pieces=3)
    np.testing.assert_allclose(tube.points[::3], points, atol=1e-9)
    np.testing.assert_allclose(tube.radii, np.linspace(2, 4, 10))


def test_points_are_spread_evenly():
    rng = np.random.default_rng(0)
    around, over = sphere(200, rng), disc(200, rng)
    np.testing.assert_allclose(np.linalg.norm(around, axis=1), 1)
    assert np.linalg.norm(around.mean(axis=0)) < 0.02
    np.testing.assert_allclose(around.T @ around / 200, np.eye(3) / 3, atol=0.02)
    assert (np.hypot(*over.T) < 1).all()
    assert np.mean(np.hypot(*over.T) < 0.5) == pytest.approx(0.25, abs=0.02)


# ---------------------------------------------------------------------------------------------- canvas


def test_painting_in_a_window_is_painting_everywhere():
    shapes = (
        Ellipsoid((8, -9, 2), (7, 12, 5), 30),
        Tube(np.array([(-25, 0, -3), (-5, 20, 4)], float), np.array([3.0, 1.5])),
    )
    for shape in shapes:
        for z in (-4.0, 0.5, 6.9):
            painted, whole = canvas(z), canvas(z)
            painted.paint(shape, 100.0)
            share = blend(shape.depth(whole.bent_x, whole.bent_y, z))
            np.testing.assert_allclose(painted.hu, 100 * share, atol=1e-3)


def test_within_keeps_a_shape_inside():
    here = canvas()
    here.paint(Ellipsoid((0, 0, 0), (20, 20, 20)), 100.0, within=here.bent_x)
    assert (here.hu[:, :30] < 1).all()
    assert here.hu[30, 45] == 100


def test_a_warp_bends_by_no_more_than_its_reach_and_hardly_outside():
    warp = Warp.random(np.random.default_rng(1), (40, 80), 5.0)
    x = np.linspace(-60, 60, 121, dtype=np.float32)
    bent = Canvas.blank(x, x, 7.0, warp, 0.0, (50.0, 50.0))
    shift = np.hypot(bent.bent_x - x, bent.bent_y - x[:, None])
    assert 2 < shift[60, 30:90].max() <= np.sqrt(2) * warp.reach
    assert shift[0].max() <= 0.2 * np.sqrt(2) * warp.reach + 1e-4


def test_grain_has_unit_variance_and_the_correlation_it_is_made_with():
    grain = Grain.random(np.random.default_rng(2), 2.0)
    tile = grain.tile
    assert tile.std() == pytest.approx(1, abs=1e-3)
    lag = [float((tile * np.roll(tile, step, axis=0)).mean()) for step in (1, 2, 4)]
    np.testing.assert_allclose(lag, np.exp(-np.square([1, 2, 4]) / (2 * 2.0**2)), atol=0.06)
    np.testing.assert_array_equal(grain.plane(5, (100, 200))[:96, 96:192], tile[5])
