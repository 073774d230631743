"""The lesion on the lattice against a brute-force reading of the rule."""

import itertools

import numpy as np
import oracle
from hypothesis import given
from hypothesis import strategies as st

from ctpatch.contours.roi import VoxelROI
from ctpatch.geometry import TIE, SliceStack
from ctpatch.lesion.lattice import LesionLattice, lesion_lattice

SHAPE = (5, 6)


def stack_of(widths, shear, spacing):
    """A stack whose slices move by `shear` (r, c) mm from one to the next."""
    positions = np.concatenate([[0.0], np.cumsum(widths)])
    moved = np.outer(np.arange(len(positions)), shear)
    return SliceStack(np.eye(3), np.column_stack([moved, positions]), spacing, SHAPE)


def brute(mask, stack, spacing):
    """Every lattice point around the whole image, each looked at on its own; a set of (z, y, x) indices."""
    voxels = {tuple(at) for at in np.argwhere(mask.voxels) + mask.corner}
    low = np.floor((stack.offsets.min(axis=0) - 10) / spacing).astype(int)
    high = np.ceil((stack.offsets.max(axis=0) + 15) / spacing).astype(int)
    found = set()
    lines = [range(a, b) for a, b in zip(low[::-1], high[::-1], strict=True)]
    for z in lines[0]:
        slices = tied_slices(stack.positions, z * spacing)
        for k in slices:
            rows = {y: tied_pixels((y * spacing - stack.offsets[k, 1]) / stack.spacing[0], SHAPE[0]) for y in lines[1]}
            columns = {
                x: tied_pixels((x * spacing - stack.offsets[k, 0]) / stack.spacing[1], SHAPE[1]) for x in lines[2]
            }
            for y, x in itertools.product(lines[1], lines[2]):
                if any((k, j, i) in voxels for j in rows[y] for i in columns[x]):
                    found.add((z, y, x))
    return found


def tied_slices(positions, z):
    return sorted(oracle.nearest_slices(positions, z, TIE))


def tied_pixels(index, size):
    return [i for i in range(size) if abs(i - index) <= 0.5 + TIE]


def points_of(lattice):
    return {tuple(int(v) for v in at) for at in np.argwhere(lattice.inside) + lattice.corner}


boxes = st.tuples(st.integers(0, 2), st.integers(0, 3), st.integers(0, 4))
rois = st.builds(
    lambda corner, bits: VoxelROI("r", corner, np.array(bits, bool).reshape(2, 2, 2)),
    boxes,
    st.lists(st.booleans(), min_size=8, max_size=8).filter(any),
)
# multiples of the lattice's spacing give ties everywhere, the others none
frames = st.builds(
    stack_of,
    st.lists(st.sampled_from([0.5, 1.0, 1.7, 2.5]), min_size=3, max_size=3),
    st.tuples(st.sampled_from([0.0, 0.25, -0.5, 0.33]), st.sampled_from([0.0, 0.5, -0.77])),
    st.tuples(st.sampled_from([0.5, 1.0, 0.93, 1.5]), st.sampled_from([1.0, 2.0, 0.71])),
)


@given(mask=rois, stack=frames, spacing=st.sampled_from([0.5, 0.8]))
def test_lattice_is_brute_force(mask, stack, spacing):
    wanted = brute(mask, stack, spacing)
    lattice = lesion_lattice(mask, stack, spacing)
    if wanted:
        assert points_of(lattice) == wanted
    else:
        assert len(lattice) == 1


def test_ties_belong_to_any_tied_voxel():
    """1 mm voxels on a 0.5 mm lattice: a point on a border belongs to both sides, so 3 points a side and 27 in all."""
    stack = stack_of([1.0, 1.0, 1.0], (0.0, 0.0), (1.0, 1.0))
    for corner in ((1, 2, 3), (0, 0, 0), (3, 4, 5)):
        lattice = lesion_lattice(VoxelROI("r", corner, np.ones((1, 1, 1), bool)), stack, 0.5)
        around = [range(2 * c - 1, 2 * c + 2) for c in corner]
        assert points_of(lattice) == set(itertools.product(*around))


def test_points_beyond_every_voxel_are_never_in():
    stack = stack_of([1.0, 4.0, 3.0], (0.0, 0.0), (1.0, 1.0))
    lattice = lesion_lattice(VoxelROI("r", (0, 0, 0), np.ones((4, *SHAPE), bool)), stack, 0.5)
    z, y, x = (sorted({p[axis] * 0.5 for p in points_of(lattice)}) for axis in range(3))
    assert (z[0], z[-1]) == (-0.5, 9.5)
    assert (y[0], y[-1]) == (-0.5, 4.5)
    assert (x[0], x[-1]) == (-0.5, 5.5)


def test_a_voxel_does_not_reach_into_a_gap():
    """4 mm between slices 1 mm apart: half a millimetre is reached from below, half of 2 mm from above."""
    stack = stack_of([1.0, 4.0, 2.0], (0.0, 0.0), (1.0, 1.0))
    lattice = lesion_lattice(VoxelROI("r", (0, 0, 0), np.ones((4, *SHAPE), bool)), stack, 0.5)
    assert sorted({p[0] * 0.5 for p in points_of(lattice)}) == [-0.5, 0, 0.5, 1, 1.5, *np.arange(4, 8.25, 0.5)]


def test_voxels_between_lattice_points_keep_the_nearest_point():
    stack = stack_of([0.1, 0.1], (0.0, 0.0), (0.1, 0.1))
    lattice = lesion_lattice(VoxelROI("r", (1, 2, 1), np.ones((1, 1, 2), bool)), stack, 0.5)
    assert points_of(lattice) == {(0, 0, 0)}
    lattice = lesion_lattice(VoxelROI("r", (1, 4, 4), np.ones((1, 1, 1), bool)), stack, 0.5)
    assert points_of(lattice) == {(0, 1, 1)}  # 0.4 mm is nearer to 0.5 than to 0


shapes = st.tuples(st.integers(1, 4), st.integers(1, 4), st.integers(1, 5))
lattices = shapes.flatmap(
    lambda shape: (
        st.lists(st.booleans(), min_size=int(np.prod(shape)), max_size=int(np.prod(shape)))
        .filter(any)
        .map(lambda bits: LesionLattice(0.5, (-3, 4, 7), np.array(bits, bool).reshape(shape)))
    )
)


@given(lattice=lattices)
def test_points_are_numbered_in_c_order(lattice):
    indices = np.argwhere(lattice.inside) + lattice.corner
    assert len(lattice) == len(indices)
    order = np.random.default_rng(0).permutation(np.repeat(np.arange(len(indices)), 2))
    np.testing.assert_array_equal(lattice.points(order), indices[order][:, ::-1] * 0.5)


@given(lattice=lattices)
def test_middle_is_the_first_of_the_points_nearest_to_the_mean(lattice):
    indices = np.argwhere(lattice.inside) + lattice.corner
    squared = ((indices - indices.mean(axis=0)) ** 2).sum(axis=1)
    first = indices[np.flatnonzero(squared <= squared.min() + 1e-9)[0]]
    np.testing.assert_array_equal(lattice.middle(), first[::-1] * 0.5)


def test_middle_of_a_hollow_lesion_lies_on_its_shell():
    z, y, x = np.indices((31, 41, 41)) - np.array([15, 20, 20]).reshape(3, 1, 1, 1)
    distance = np.sqrt(z**2 + y**2 + x**2)
    shell = (distance > 9) & (distance < 14)
    middle = LesionLattice(1.0, (0, 0, 0), shell).middle()
    indices = np.argwhere(shell)
    squared = ((indices - (15, 20, 20)) ** 2).sum(axis=1)
    np.testing.assert_array_equal(middle, indices[squared == squared.min()][0][::-1])
