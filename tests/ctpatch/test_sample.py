"""HU on planes: linear phantoms, the zones at the image's border, and the slice-by-slice formula."""

import numpy as np
import oracle
import pytest

from ctpatch.geometry import SliceStack
from ctpatch.patches import sample
from ctpatch.patches.planes import Planes, center_plane
from ctpatch.patches.sample import needed_box, patch_extent, sample_planes

AIR = -1024
EVEN = (0.0, 2.0, 4.0, 6.0, 8.0, 10.0)
UNEVEN = (0.0, 2.0, 3.5, 6.0, 9.2, 11.5)


class MemoryImage:
    """An image in memory that notes which box was read."""

    def __init__(self, hu, positions, spacing=(1.25, 1.0), shear=(0.0, 0.0), origin=(0.0, 0.0)):
        self.hu = np.asarray(hu, np.float32)
        offsets = [(origin[0] + shear[0] * z, origin[1] + shear[1] * z, z) for z in positions]
        # stack coordinates start at the first voxel; the axes are the identity, so LPS is the stack
        self.stack = SliceStack(np.eye(3), np.array(offsets), spacing, self.hu.shape[1:])
        self.boxes = []

    def read_hu(self, box):
        self.boxes.append(box)
        part = tuple(slice(*ends) for ends in (box.slices, box.rows, box.columns))
        return np.ascontiguousarray(self.hu[part])


def linear(positions, shape=(40, 48), gradient=(1.0, 2.0, 5.0), shear=(0.0, 0.0), spacing=(1.25, 1.0)):
    """HU = x + 2y + 5z at every voxel of the sheared stack."""
    z = np.array(positions)[:, None, None]
    y = np.arange(shape[0])[None, :, None] * spacing[0] + shear[1] * z
    x = np.arange(shape[1])[None, None, :] * spacing[1] + shear[0] * z
    hu = gradient[0] * x + gradient[1] * y + gradient[2] * z
    return MemoryImage(np.broadcast_to(hu, (len(positions), *shape)), positions, spacing, shear)


def planes_at(points, plane=0, angle=0.0, shift=(0.0, 0.0)):
    points = np.atleast_2d(np.asarray(points, float))
    n = len(points)
    return Planes(
        np.full(n, plane, np.uint8), np.ones(n, np.uint8), points, np.full(n, float(angle)), np.tile(shift, (n, 1))
    )


def coordinates(planes, spacing):
    """Stack coordinates of all pixels, (N, 64, 64, 3)."""
    start, column, row = planes.pixels(spacing)
    a, b = np.indices((64, 64))
    return start[:, None, None] + b[None, ..., None] * column[:, None, None] + a[None, ..., None] * row[:, None, None]


def by_the_formula(image, at):
    """The design's value at each point, one by one, in float64: no vectorised code shared with what is tested."""
    return np.array([value_at(image, *point) for point in at.reshape(-1, 3)]).reshape(at.shape[:-1])


def value_at(image, x, y, z):
    positions, hu = image.stack.positions, image.hu
    first, last = positions[0], positions[-1]
    below, above = oracle.reaches(positions)
    if z < first - below[0] - 1e-9 or z > last + above[-1] + 1e-9:
        return AIR
    k = max(i for i in range(len(positions) - 1) if positions[i] <= max(z, first))
    w = min(max((z - positions[k]) / (positions[k + 1] - positions[k]), 0.0), 1.0)
    total = 0.0
    for j, share in ((k, 1 - w), (k + 1, w)):
        if share < 1e-9:
            continue
        layer = value_in_slice(image, j, x, y)
        if layer is None:
            return AIR
        total += share * layer
    assert hu.ndim == 3
    return total


def value_in_slice(image, k, x, y):
    rows, columns = image.stack.shape
    i = (x - image.stack.offsets[k, 0]) / image.stack.spacing[1]
    j = (y - image.stack.offsets[k, 1]) / image.stack.spacing[0]
    if not (-0.5 - 1e-9 <= i <= columns - 0.5 + 1e-9 and -0.5 - 1e-9 <= j <= rows - 0.5 + 1e-9):
        return None
    i, j = min(max(i, 0), columns - 1), min(max(j, 0), rows - 1)
    c, r = min(int(i), columns - 2), min(int(j), rows - 2)
    fx, fy = i - c, j - r
    corner = image.hu[k, r : r + 2, c : c + 2].astype(float)
    return np.array([1 - fy, fy]) @ corner @ np.array([1 - fx, fx])


@pytest.mark.parametrize("positions", [EVEN, UNEVEN])
@pytest.mark.parametrize("shear", [(0.0, 0.0), (0.3, -0.2)])
@pytest.mark.parametrize(("plane", "angle"), [(0, 0), (1, 0), (2, 0), (0, 33), (1, -120), (2, 77)])
def test_linear_phantom_is_exact_inside(positions, shear, plane, angle):
    image = linear(positions, shear=shear)
    planes = planes_at([[22, 24, 5.25], [24.3, 22.1, 4.0]], plane, angle, (0.7, -1.2))
    hu, outside = sample_planes(image, planes, 0.3)
    at = coordinates(planes, 0.3)
    inside = (at[..., 2] >= 0) & (at[..., 2] <= positions[-1])  # shear bends nothing: still one linear function
    wanted = at @ np.array([1.0, 2.0, 5.0])
    assert inside.sum() > 1500
    assert np.abs(hu - wanted)[inside].max() <= 0.5 + 1e-3
    assert hu.dtype == np.int16
    assert outside.shape == (2,)


@pytest.mark.parametrize("positions", [EVEN, UNEVEN])
@pytest.mark.parametrize("shear", [(0.0, 0.0), (0.45, -0.3)])
def test_texture_follows_the_formula_everywhere(positions, shear):
    rng = np.random.default_rng(3)
    image = MemoryImage(rng.integers(-1000, 1000, (6, 14, 12)), positions, (1.25, 1.0), shear)
    for plane, angle, point in [(0, 0, (5, 8, 4.4)), (1, 20, (6, 7, 5)), (2, -65, (3, 9, 8)), (0, 140, (0, 0, -0.7))]:
        planes = planes_at(point, plane, angle, (0.31, 0.17))
        hu, outside = sample_planes(image, planes, 0.31)
        wanted = by_the_formula(image, coordinates(planes, 0.31))
        assert np.abs(hu - wanted).max() <= 0.5 + 1e-3
        assert outside[0] >= np.count_nonzero((wanted == AIR) & (hu == AIR)) > 0


def test_rounding_is_half_to_even():
    """Values k + ½ at the middles between columns."""
    hu = np.broadcast_to(np.arange(48.0), (6, 40, 48))
    patch, _ = sample_planes(MemoryImage(hu, EVEN, (1.0, 1.0)), planes_at((24.0, 20.0, 4.0)), 0.5)
    np.testing.assert_array_equal(patch[0, 32], np.rint(24 + 0.5 * (np.arange(64) - 32)))
    assert 24 in patch[0, 32]
    assert np.count_nonzero(patch[0, 32] == 24) == 3  # 23.5, 24, 24.5


def test_zones_in_plane():
    """Half a pixel beyond the outer centres the edge value holds; beyond is air, and nothing between."""
    hu = np.full((6, 9, 11), 100.0)
    hu[:, :, 0] = 300
    hu[:, 0, :] = 500
    image = MemoryImage(hu, EVEN, (2.0, 1.0))
    patch, outside = sample_planes(image, planes_at((0.0, 8.0, 4.0)), 0.1)
    row = patch[0, 32]  # y = 8 mm
    x = 0.1 * (np.arange(64) - 32)
    assert (row[x < -0.5 - 1e-6] == AIR).all()
    assert (row[np.abs(x + 0.25) <= 0.25 + 1e-9] == 300).all()
    assert (row[x > 1] == 100).all()
    column = sample_planes(image, planes_at((5.0, 0.0, 4.0)), 0.1)[0][0, :, 32]  # 2 mm between rows
    assert (column[x < -1 - 1e-6] == AIR).all()
    assert (column[(x >= -1 - 1e-9) & (x <= 0)] == 500).all()
    assert outside[0] == np.count_nonzero(patch == AIR)
    assert set(np.unique(patch)) <= {AIR, *range(100, 301)}


@pytest.mark.parametrize(("end", "edge"), [(0, 700), (-1, 900)])
def test_zones_along_the_normal(end, edge):
    """Half the end spacing beyond the end slices; 2 mm below, 2.3 mm above in UNEVEN."""
    hu = np.full((6, 20, 20), 100.0)
    hu[0], hu[-1] = 700, 900
    image = MemoryImage(hu, UNEVEN)
    reach = 1.0 if end == 0 else 1.15
    patch, _ = sample_planes(image, planes_at((10, 10, UNEVEN[end]), plane=1), 0.05)
    beyond = (0.05 * (np.arange(64) - 32)) * (-1 if end == 0 else 1)
    column = patch[0, :, 32]
    assert (column[beyond > reach + 1e-6] == AIR).all()
    assert (column[(beyond >= 0) & (beyond <= reach + 1e-9)] == edge).all()
    assert np.count_nonzero(beyond > reach + 1e-6) > 5


def test_beyond_a_stray_end_slice_the_image_reaches_as_usual():
    hu = np.full((4, 20, 20), 100.0)
    image = MemoryImage(hu, (0.0, 2.0, 4.0, 104.0))
    patch, _ = sample_planes(image, planes_at((10, 10, 104), plane=1), 0.5)
    column = patch[0, :, 32]
    assert (column[:35] == 100).all()  # 32: the slice itself
    assert (column[35:] == AIR).all()


def test_border_is_never_blended_with_air():
    image = MemoryImage(np.full((6, 14, 12), 1000.0), UNEVEN, (1.25, 1.0), (0.45, -0.3))
    for plane, angle in [(0, 0), (1, 0), (2, 0), (0, 31), (1, 62), (2, -17)]:
        for point in [(0, 0, 0), (11, 16, 11.5), (5, 8, 12), (-3, 5, 5)]:
            patch, outside = sample_planes(image, planes_at(point, plane, angle), 0.5)
            assert set(np.unique(patch)) <= {AIR, 1000}
            assert outside[0] == np.count_nonzero(patch == AIR)


@pytest.mark.parametrize(
    "point", [(500.0, 10.0, 5.0), (10.0, -500.0, 5.0), (10.0, 10.0, 400.0), (-300.0, -300.0, -300.0)]
)
def test_far_away_everything_is_air(point):
    image = linear(EVEN)
    patch, outside = sample_planes(image, planes_at(point), 0.5)
    assert (patch == AIR).all()
    assert outside.tolist() == [64 * 64]


@pytest.mark.parametrize("point", [(20, 22, 0), (20, 22, 10), (20, 22, 6.0)])
def test_plane_within_a_slice_needs_no_neighbour(point):
    image = linear(EVEN)
    patch, _ = sample_planes(image, center_plane(np.array(point, float)), 0.5)
    at = coordinates(center_plane(np.array(point, float)), 0.5)
    assert np.abs(patch - at @ (1.0, 2.0, 5.0)).max() <= 0.5 + 1e-3


def test_only_the_box_around_the_planes_is_read():
    image = linear(tuple(np.arange(0.0, 100.0, 2.0)), shape=(200, 210))
    planes = planes_at((100, 120, 51.0))
    sample_planes(image, planes, 0.5)
    (box,) = image.boxes
    low, high = patch_extent(*planes.pixels(0.5))
    assert box.slices == (25, 27)
    assert box.columns[0] >= low[0] - 3
    assert box.columns[1] <= high[0] + 4
    assert box.rows[0] >= low[1] / 1.25 - 3
    assert box.rows[1] <= high[1] / 1.25 + 4


@pytest.mark.parametrize("point", [(0, 0, 0), (47, 48, 10), (-900, 20, 5), (900, 900, 900)])
def test_box_is_within_the_image_and_two_wide(point):
    image = linear(EVEN)
    box = needed_box(image.stack, *planes_at(point).pixels(0.5))
    for (start, stop), size in zip((box.slices, box.rows, box.columns), image.hu.shape, strict=True):
        assert 0 <= start <= stop - 2
        assert stop <= size


def test_neighbours_do_not_change_a_patch():
    image = linear(UNEVEN, shear=(0.2, 0.1))
    points = [(10, 12, 3), (30, 33, 8.1), (20, 5, 11)]
    together, _ = sample_planes(image, planes_at(points, 1, 25), 0.5)
    for n, point in enumerate(points):
        np.testing.assert_array_equal(sample_planes(image, planes_at(point, 1, 25), 0.5)[0][0], together[n])


# -- The loop for patches well inside, against the one that asks at each pixel ------------------------------------


@pytest.mark.parametrize("shear", [(0.0, 0.0), (0.3, -0.2)])
@pytest.mark.parametrize("positions", [EVEN, UNEVEN])
def test_patches_inside_are_sampled_as_if_they_were_not(positions, shear):
    """Bit by bit in float32, before rounding: in the middle of the image, across its borders, and turned either way."""
    rng = np.random.default_rng(7)
    image = MemoryImage(rng.normal(0, 400, (6, 90, 110)), positions, (0.9, 0.8), shear)
    points = rng.uniform((20, 20, 1), (60, 55, 9), (60, 3))
    planes = Planes(
        np.arange(60).astype(np.uint8) % 3,
        np.ones(60, np.uint8),
        points,
        np.where(np.arange(60) % 2, rng.uniform(-180, 180, 60), 0.0),
        rng.uniform(-3, 3, (60, 2)),
    )

    def sampled(well_inside):
        values = np.empty((60, 64, 64), np.float32)
        outside = np.zeros(60, np.int64)
        start, column, row = planes.pixels(0.15)
        box = needed_box(image.stack, start, column, row)
        corner = np.array([box.rows[0], box.columns[0]], float)
        offsets, scale = image.stack.offsets[slice(*box.slices)], np.array([1 / 0.8, 1 / 0.9])
        hu, ends = image.read_hu(box), sample.reach(image.stack.positions)
        inside = 0
        for n in range(60):
            at = start[n], column[n], row[n], values[n]
            if well_inside and sample._well_inside(hu, corner, offsets, ends, scale, *at[:3]):
                sample._sample_inside(hu, corner, offsets, scale, *at)
                inside += 1
            else:
                shape = np.array(image.stack.shape)
                outside[n] = sample._sample_anywhere(hu, corner, shape, offsets, ends, scale, *at)
        return values, outside, inside

    plain, missed, _ = sampled(well_inside=False)
    got, outside = sample_planes(image, planes, 0.15)
    np.testing.assert_array_equal(got, np.rint(plain).astype(np.int16))
    np.testing.assert_array_equal(outside, missed)
    if shear == (0.0, 0.0):
        fast, _, inside = sampled(well_inside=True)
        assert 20 < inside < 60
        np.testing.assert_array_equal(fast.view(np.uint32), plain.view(np.uint32))


def test_some_of_the_planes_are_sampled_as_among_all():
    image = linear(EVEN)
    planes = planes_at(np.random.default_rng(1).uniform((0, 0, 0), (40, 40, 10), (9, 3)), plane=2, angle=30.0)
    hu, outside = sample_planes(image, planes, 0.5)
    some = sample.sampler(image, planes, 0.5)
    for part in (slice(0, 4), slice(4, 9), slice(2, 3)):
        np.testing.assert_array_equal(some(part)[0], hu[part])
        np.testing.assert_array_equal(some(part)[1], outside[part])
