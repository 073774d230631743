import numpy as np
import oracle
import pytest
import synthetic
from hypothesis import given
from hypothesis import strategies as st

from ctpatch.errors import InputError
from ctpatch.geometry import (
    TIE,
    find_gaps,
    half_spacings,
    make_stack,
    nearest_pixels,
    nearest_slices,
    orthonormal_axes,
)

steps = st.lists(st.sampled_from([0.5, 1.0, 1.25, 2.5, 3.0, 7.0]), min_size=1, max_size=8)


def positions_of(widths):
    return np.concatenate([[0.0], np.cumsum(widths)])


@given(widths=steps, share=st.floats(-0.2, 1.2), snap=st.booleans())
def test_nearest_slices_is_brute_force(widths, share, snap):
    positions = positions_of(widths)
    z = share * positions[-1]
    if snap:  # on the middles between slices, where the ties are
        z = np.round(z * 8) / 8
    low, high = nearest_slices(positions, z)
    assert {int(low), int(high)} - {-1} == oracle.nearest_slices(positions, float(z), 2 * TIE)


ON_A_TIE = {0.5: (0, 1), 0.5 - 0.9e-6: (0, 1), 0.5 + 0.9e-6: (0, 1), 1.7: (1, 2)}
BESIDE_IT = {0.5 - 3e-6: (0, 0), 0.5 + 3e-6: (1, 1)}
AT_THE_ENDS = {-0.5: (0, 0), -0.51: (-1, -1)}
IN_THE_GAP = {3.1: (2, 2), 3.11: (-1, -1), 4.4: (-1, -1), 5.69: (-1, -1), 5.7: (3, 3), 7.1: (3, 3), 7.11: (-1, -1)}


@pytest.mark.parametrize(("z", "pair"), {**ON_A_TIE, **BESIDE_IT, **AT_THE_ENDS, **IN_THE_GAP}.items())
def test_ties_and_reach_of_slices(z, pair):
    assert tuple(nearest_slices(np.array([0.0, 1.0, 2.4, 6.4]), z)) == pair


@given(size=st.integers(1, 6), index=st.floats(-2, 8), snap=st.booleans())
def test_nearest_pixels_is_brute_force(size, index, snap):
    index = np.round(index * 2) / 2 if snap else index
    away = np.abs(np.arange(size) - index)
    wanted = set(np.flatnonzero(away <= 0.5 + TIE).tolist())
    assert set(nearest_pixels(size, index).tolist()) - {-1} == wanted


@pytest.mark.parametrize(
    ("widths", "below", "above"),
    [
        ([1, 1.4], [0.5, 0.5, 0.7], [0.5, 0.7, 0.7]),
        ([1, 3], [0.5, 0.5, 0.5], [0.5, 0.5, 0.5]),
        ([9, 1, 1.4], [0.5, 0.5, 0.5, 0.7], [0.5, 0.5, 0.7, 0.7]),
        ([1, 9, 2], [0.5, 0.5, 1, 1], [0.5, 0.5, 1, 1]),
        ([9], [4.5, 4.5], [4.5, 4.5]),
    ],
)
def test_half_spacings_at_the_ends_are_the_end_spacings_and_never_half_a_gap(widths, below, above):
    found = half_spacings(positions_of(widths))
    np.testing.assert_allclose(found, [below, above])


@pytest.mark.parametrize(
    ("widths", "found"),
    [
        ([3, 3, 6, 3], [2]),
        ([3, 3, 6, 6, 3], []),  # uneven spacing
        ([6, 3, 3], [0]),
        ([3, 3, 6], [2]),
        ([3, 4.5, 3], []),
        ([3, 4.505, 3], []),  # rounding
        ([3, 4.52, 3], [1]),
        ([3, 9], [1]),
        ([9], []),
        ([3, 6, 3, 9, 3], [1, 3]),
    ],
)
def test_gaps(widths, found):
    positions = positions_of(widths)
    gaps = find_gaps(positions)
    assert [gap.below for gap in gaps] == found
    assert all(gap.stray is None for gap in gaps)
    for gap in gaps:
        assert gap.width == pytest.approx(widths[gap.below])
        assert gap.start == pytest.approx(positions[gap.below])


@pytest.mark.parametrize(
    ("widths", "stray"), [([202.5, 2.5, 2.5], 0), ([2.5, 2.5, 202.5], 3), ([2.5, 202.5, 2.5], None), ([10, 2.5], None)]
)
def test_an_end_slice_far_from_all_others_is_a_stray(widths, stray):
    (gap,) = find_gaps(positions_of(widths))
    assert gap.stray == stray
    assert ("a stray slice" in str(gap)) == (stray is not None)
    assert ("take that slice out" in gap.do) == (stray is not None)


def test_axes_are_orthonormal_and_right_handed():
    iop = np.round(synthetic.rotation_iop((10, -20, 33)), 4)
    axes = orthonormal_axes(iop)
    np.testing.assert_allclose(axes @ axes.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(axes) == pytest.approx(1)
    np.testing.assert_allclose(axes[:2].ravel(), iop, atol=2e-4)


@pytest.mark.parametrize("iop", [(1, 0, 0, 1, 0, 0), (1, 0, 0, 0, 2, 0), (0,) * 6, (1, 0, 0, 0, np.nan, 0)])
def test_orientation_that_is_none(iop):
    with pytest.raises(InputError, match="not two perpendicular unit vectors"):
        orthonormal_axes(iop)


def test_single_slice_is_refused():
    with pytest.raises(InputError, match="single slice"):
        make_stack(np.eye(3), [[0, 0, 0]], (1, 1), (4, 4))


@given(order=st.permutations(range(5)), shear=st.tuples(st.floats(-0.5, 0.5), st.floats(-0.5, 0.5)))
def test_frame_sorts_along_the_normal_and_converts_both_ways(order, shear):
    iop = synthetic.rotation_iop((15, 5, -25))
    axes = synthetic.axes_of(iop)
    origins = synthetic.slice_origins([0, 1, 3, 4, 6], (-50, 20, 300), iop, shear)
    stack, found = make_stack(axes, origins[list(order)], (0.7, 0.9), (30, 40))
    np.testing.assert_array_equal(np.array(order)[found], range(5))
    np.testing.assert_allclose(stack.positions, [0, 1, 3, 4, 6], atol=1e-9)
    points = np.random.default_rng(0).normal(size=(4, 3)) * 50
    np.testing.assert_allclose(stack.to_lps(stack.to_stack(points)), points, atol=1e-9)
    voxels = synthetic.grid(axes, origins, (0.7, 0.9), (30, 40))
    np.testing.assert_allclose(stack.to_pixels(stack.to_stack(voxels[3, 7, 11]), 3), (11, 7), atol=1e-9)
