import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctpatch.lesion.lattice import LesionLattice
from ctpatch.patches.planes import Planes, center_plane, lesion_rng, random_planes

UNIT = {"r": (1, 0, 0), "c": (0, 1, 0), "n": (0, 0, 1)}
AXES = [("r", "c"), ("r", "n"), ("c", "n")]  # xy, xz, yz
OPTIONS = {"patches": 100, "copies": 2, "rotate": 180.0, "shift": 5.0}


@pytest.fixture(scope="module")
def lattice():
    inside = np.random.default_rng(2).random((5, 8, 9)) < 0.4
    return LesionLattice(0.5, (2, -4, 11), inside)


def as_the_design_says(lattice, seed, patient_id, lesion_id):
    """The stream of draws, from the design's words alone."""
    text = f"ctpatch-1\0{seed}\0{patient_id}\0{lesion_id}"
    start = int.from_bytes(hashlib.sha256(text.encode("utf-8")).digest()[:16], "big")
    rng = np.random.Generator(np.random.PCG64(start))
    z, y, x = np.nonzero(lattice.inside)
    chosen = rng.integers(0, len(z), 100)
    points = [(0.5 * (x[i] + 11), 0.5 * (y[i] - 4), 0.5 * (z[i] + 2)) for i in chosen]
    return points, rng.uniform(-180, 180, (100, 2)), rng.uniform(-5, 5, (100, 2, 2))


@pytest.mark.parametrize("ids", [(0, "007", "1"), (12345678901234567890, "Ä", "β 2"), (-3, "", "")])
def test_stream_is_the_design_s(lattice, ids):
    planes = random_planes(lattice, lesion_rng(*ids), **OPTIONS)
    points, angles, shifts = as_the_design_says(lattice, *ids)
    assert len(planes) == 300
    for n in range(100):
        for copy in range(3):
            row = 3 * n + copy
            assert (planes.plane[row], planes.copy[row]) == (n % 3, copy)
            np.testing.assert_array_equal(planes.point[row], points[n])
            assert planes.angle[row] == (angles[n, copy - 1] if copy else 0)
            np.testing.assert_array_equal(planes.shift[row], shifts[n, copy - 1] if copy else (0, 0))


def test_ids_are_not_run_together():
    streams = {
        tuple(lesion_rng(*ids).integers(0, 2**40, 3)) for ids in [(0, "1", "11"), (0, "11", "1"), (1, "1", "11")]
    }
    assert len(streams) == 3


def test_counts(lattice):
    planes = random_planes(lattice, lesion_rng(0, "p", "1"), **OPTIONS)
    assert np.bincount(planes.plane).tolist() == [102, 99, 99]
    assert np.bincount(planes.plane[planes.copy == 0]).tolist() == [34, 33, 33]
    assert np.bincount(planes.copy).tolist() == [100, 100, 100]
    assert (planes.plane.dtype, planes.copy.dtype) == (np.uint8, np.uint8)


@pytest.mark.parametrize(("patches", "copies", "per_plane"), [(1, 0, [1]), (5, 0, [2, 2, 1]), (4, 3, [8, 4, 4])])
def test_other_counts(lattice, patches, copies, per_plane):
    planes = random_planes(lattice, lesion_rng(0, "p", "1"), **{**OPTIONS, "patches": patches, "copies": copies})
    assert len(planes) == patches * (1 + copies)
    assert np.bincount(planes.plane).tolist() == per_plane


def test_ranges(lattice):
    planes = random_planes(lattice, lesion_rng(0, "p", "1"), **{**OPTIONS, "rotate": 10.0, "shift": 0.0})
    assert 5 < np.abs(planes.angle).max() <= 10
    assert not planes.shift.any()


def test_points_are_uniform_over_the_lesion(lattice):
    planes = random_planes(lattice, lesion_rng(0, "p", "1"), **{**OPTIONS, "patches": 10_000, "copies": 0})
    counts = np.unique(planes.point, axis=0, return_counts=True)[1]
    expected = 10_000 / len(lattice)
    assert len(counts) == len(lattice)
    chi_squared = ((counts - expected) ** 2 / expected).sum()
    assert abs(chi_squared - len(lattice)) < 5 * np.sqrt(2 * len(lattice))


@given(
    plane=st.integers(0, 2),
    angle=st.floats(-180, 180),
    shift=st.tuples(st.floats(-5, 5), st.floats(-5, 5)),
    spacing=st.sampled_from([0.5, 1.25]),
)
def test_pixels_lie_where_the_formula_says(plane, angle, shift, spacing):
    p = np.array([12.5, -3.0, 40.25])
    planes = Planes(np.array([plane], np.uint8), np.ones(1, np.uint8), p[None], np.array([angle]), np.array([shift]))
    start, column, row = (v[0] for v in planes.pixels(spacing))
    u, v = (np.array(UNIT[name], float) for name in AXES[plane])
    theta = np.deg2rad(angle)
    moved_u, moved_v = np.cos(theta) * u + np.sin(theta) * v, -np.sin(theta) * u + np.cos(theta) * v
    for a, b in [(0, 0), (32, 32), (63, 0), (5, 60)]:
        wanted = p + shift[0] * u + shift[1] * v + spacing * ((b - 32) * moved_u + (a - 32) * moved_v)
        np.testing.assert_allclose(start + b * column + a * row, wanted, atol=1e-10)


def test_unmoved_pixels_are_exact():
    planes = Planes(np.arange(3, dtype=np.uint8), np.zeros(3, np.uint8), np.ones((3, 3)), np.zeros(3), np.zeros((3, 2)))
    start, column, row = planes.pixels(0.5)
    np.testing.assert_array_equal(column, [[0.5, 0, 0], [0.5, 0, 0], [0, 0.5, 0]])
    np.testing.assert_array_equal(row, [[0, 0.5, 0], [0, 0, 0.5], [0, 0, 0.5]])
    np.testing.assert_array_equal(start, [[-15, -15, 1], [-15, 1, -15], [1, -15, -15]])


def test_center_plane_is_one_unmoved_xy_plane():
    planes = center_plane(np.array([1.0, 2.0, 3.0]))
    assert (len(planes), planes.plane[0], planes.copy[0], planes.angle[0]) == (1, 0, 0, 0)
    np.testing.assert_array_equal(planes.point, [[1, 2, 3]])
    np.testing.assert_array_equal(planes.shift, [[0, 0]])
