"""The oracle against closed forms, shapely and SimpleITK, before it judges ctpatch."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import oracle
import oracle_lesion
import pytest
import shapely
import synthetic as syn

UNEVEN = np.array([0.0, 1.5, 3.0, 6.2, 7.2, 10.2, 11.7, 13.0, 16.0])
OBLIQUE = syn.rotation_iop((20.0, -15.0, 30.0))


def series(hu: np.ndarray, positions: np.ndarray, shear: tuple[float, float] = (0.0, 0.0)) -> oracle.Series:
    origins = syn.slice_origins(positions, (-9.0, 20.0, 30.7), OBLIQUE, shear)
    axes = syn.axes_of(OBLIQUE)
    return oracle.Series(hu, origins, axes[0], axes[1], 0.7, 0.9)


def random_planes(stack: oracle.Series, count: int, seed: int = 0) -> list[oracle.Plane]:
    rng = np.random.default_rng(seed)
    _, height, width = stack.hu.shape
    pixel = rng.uniform(0, (width * stack.column_step, height * stack.row_step, np.ptp(stack.z)), (count, 3))
    points = stack.origins[0] + pixel @ np.stack([stack.r, stack.c, stack.n])
    return oracle.train_planes(stack, points, rng, patches=count)


def test_slice_by_slice_equals_itk_on_a_regular_stack() -> None:
    stack = series(syn.texture_hu((9, 40, 48)), 2.1 * np.arange(9))
    planes = random_planes(stack, 40)
    values, edge = oracle.patches(stack, planes)
    itk = np.stack([oracle.itk_patch(oracle.itk_image(stack), plane) for plane in planes])
    assert np.abs(values - itk)[~edge].max() < 0.01
    assert 0.05 < (values == oracle.AIR).mean() < 0.95
    assert edge.mean() < 0.01


@pytest.mark.parametrize("shear", [(0.0, 0.0), (0.3, -0.2)])
def test_linear_function_is_reproduced_on_an_uneven_sheared_stack(shear: tuple[float, float]) -> None:
    origins = syn.slice_origins(UNEVEN, (-9.0, 20.0, 30.7), OBLIQUE, shear)
    field = syn.grid(syn.axes_of(OBLIQUE), origins, (0.9, 0.7), (40, 48)) @ (1.0, 2.0, 5.0)
    stack = series(field, UNEVEN, shear)
    rng = np.random.default_rng(1)
    pixel = rng.uniform((6, 6, 0), (27, 30, 16), (5000, 3))
    points = stack.origins[0] + pixel @ np.stack([stack.r, stack.c, stack.n])
    values, _ = oracle.values_at(stack, points)
    assert np.abs(values - points @ (1.0, 2.0, 5.0)).max() < 1e-9


def test_reach_is_half_a_pixel_and_half_the_end_spacing() -> None:
    stack = series(np.full((9, 40, 48), 7.0), UNEVEN)

    def value(x: float, y: float, z: float) -> float:
        return float(oracle.values_at(stack, (stack.origins[0] + x * stack.r + y * stack.c + z * stack.n)[None])[0][0])

    low, high = (-0.35, -0.45, -0.75), (47.5 * 0.7, 39.5 * 0.9, 16 + 1.5)
    inside = np.array([5.0, 5.0, 5.0])
    for axis in range(3):
        for bound, outwards in ((low, -1), (high, 1)):
            point = inside.copy()
            point[axis] = bound[axis]
            assert value(*point) == pytest.approx(7)
            point[axis] += outwards * 1e-3
            assert value(*point) == oracle.AIR


def test_sheared_stack_needs_every_contributing_slice() -> None:
    stack = series(np.full((9, 40, 48), 7.0), 2.0 * np.arange(9), (0.5, 0.0))
    first, second = stack.origins[:2]
    left = first - 0.3 * stack.r  # inside slice 0 only: slice 1 begins 1 mm further right
    points = np.stack([left, left + 0.2 * stack.n, left + 2.0 * stack.n, second - 0.3 * stack.r])
    assert oracle.values_at(stack, points)[0] == pytest.approx([7, oracle.AIR, oracle.AIR, 7])


def test_reader_sorts_rescales_and_fills_padding(tmp_path: Path) -> None:
    hu = syn.texture_hu((5, 6, 7), low=-1000)
    rim = np.zeros(hu.shape, dtype=bool)
    rim[:, 0] = True
    slope, intercept = [1, 0.5, 0.25, 1, 2], [-1024, -1000, -1000, -1024, -1000]
    hu = np.round(hu / 2) * 2
    syn.write_series(
        tmp_path,
        hu,
        slope=slope,
        intercept=intercept,
        shuffle=4,
        padding_mask=rim,
        padding_value=64000,
        padding_range=63000,
    )
    expected = np.where(rim, -1024, hu)
    assert np.array_equal(oracle.read_series(tmp_path).hu, expected)


@pytest.mark.parametrize("offset", [0.0, 0.25, 0.5, 1e-7, -1e-7, 1e-5])
def test_rectangle_is_closed_form(offset: float) -> None:
    low, high = (3 + offset, 4 + offset), (8 + offset, 11 + offset)
    path = np.array([low, (low[0], high[1]), high, (high[0], low[1])])
    row, column = np.indices((16, 16))
    eps = 1e-6
    expected = (row >= low[0] - eps) & (row <= high[0] + eps) & (column >= low[1] - eps) & (column <= high[1] + eps)
    assert np.array_equal(oracle_lesion.filled([path], (16, 16)), expected)
    rimless = (row > low[0] + eps) & (row < high[0] - eps) & (column > low[1] + eps) & (column < high[1] - eps)
    assert np.array_equal(oracle_lesion.filled([path], (16, 16), rims=False), rimless)


def test_random_polygons_equal_shapely() -> None:
    rng = np.random.default_rng(3)
    points = shapely.points(np.indices((30, 30)).reshape(2, -1).T.astype(float))
    for _ in range(40):
        count = rng.integers(3, 25)
        angle, radius = np.sort(rng.uniform(0, 2 * np.pi, count)), rng.uniform(4, 14, count)
        path = np.stack([15 + radius * np.sin(angle), 15 + radius * np.cos(angle)], axis=1)
        path = np.round(path * 2) / 2 if rng.random() < 0.5 else path
        shape = shapely.Polygon(path)
        if not shape.is_valid:
            continue
        expected = shapely.intersects(shape, points).reshape(30, 30)
        near = (shapely.distance(shape.exterior, points) < 1e-5).reshape(30, 30)
        expected |= near
        assert np.array_equal(oracle_lesion.filled([path], (30, 30)), expected)


def test_repeated_contour_counts_once() -> None:
    path = np.array([(2.0, 2.0), (2.0, 9.0), (9.0, 9.0), (9.0, 2.0)])
    again = np.roll(path[::-1], 1, axis=0)
    assert len(oracle_lesion.distinct([path, again, path + 0.5])) == 2


def test_planes_go_to_slices_by_the_rule() -> None:
    stack = series(np.zeros((4, 5, 5)), np.array([0.0, 2.0, 4.0, 8.0]))
    start = stack.z[0]

    def taken(*planes: float) -> dict[int, float]:
        found = oracle_lesion.plane_of_slice(stack, np.array(planes) + start)
        return {k: round(plane - start, 6) for k, plane in found.items()}

    assert taken(2.0, 4.0) == {1: 2.0, 2: 4.0}
    assert taken(1.0) == {0: 1.0, 1: 1.0}  # halfway: both
    assert taken(1.5, 2.5) == {1: 1.5}  # equally near: the lower
    assert taken(4.9, 7.1) == {2: 4.9, 3: 7.1}  # 4 mm after 2 is a gap, reached into by 1 mm
    assert taken(5.1, 6.0, 6.9) == {}
    assert taken(-1.0, 9.0) == {0: -1.0, 3: 9.0}
    assert taken(-1.1, 9.1) == {}


def test_lattice_of_one_voxel_with_ties() -> None:
    identity = oracle.Series(
        np.zeros((4, 4, 4)), np.array([(0, 0, z) for z in (0.0, 1, 3, 5)]), np.eye(3)[0], np.eye(3)[1], 1.0, 2.0
    )
    voxels = np.zeros((4, 4, 4), dtype=bool)
    voxels[1, 0, 2] = True
    lattice = oracle_lesion.lesion_lattice(identity, voxels)
    z, y, x = np.meshgrid(np.arange(1, 5), np.arange(-2, 3), np.arange(3, 6), indexing="ij")
    assert np.array_equal(lattice.indices, np.stack([z, y, x], axis=-1).reshape(-1, 3))
    assert np.array_equal(lattice.points, lattice.indices[:, ::-1] / 2)
    assert lattice.centre.tolist() == [2.0, 0.0, 1.0]  # z = 1 and 1.5 are equally near 1.25: the lower


def test_rendering_by_hand() -> None:
    ramp = np.zeros((64, 64), dtype=int)
    ramp[:, 1:] = 100
    shown = oracle.render(ramp)
    for column, weight in ((0, 0), (1, 0), (2, Fraction(3, 14)), (3, Fraction(1, 2)), (4, Fraction(11, 14)), (5, 1)):
        for channel, (low, high) in enumerate(oracle.WINDOWS):
            level = min(max(Fraction(100) * weight - low, 0), high - low) * 255 / (high - low)
            assert shown[7, column, channel] == int(level + Fraction(1, 2))
