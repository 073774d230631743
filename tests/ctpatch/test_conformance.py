"""Voxels of drawn shapes against closed forms, on many grids and contour planes, and against third-party masks.

Shapes are stacks of circles and rectangles, so whether a voxel is in is a matter of a few comparisons. A circle
is drawn as an inscribed 720-gon: only for voxels between the two (less than 1e-3 px) is the polygon itself asked,
by the oracle's brute force.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import oracle
import oracle_lesion
import pytest
import shapely
import SimpleITK as sitk
import synthetic as syn

from ctpatch.contours.roi import DrawnROI
from ctpatch.errors import InputError
from ctpatch.geometry import SliceStack
from ctpatch.lesion.mask import lesion_mask

DATA = Path(__file__).parents[3] / "shared" / "data"
CORNERS = 720
Circles = list[tuple[float, float, float]]  # centre x, y and radius, mm
Boxes = list[tuple[float, float, float, float]]  # x from, y from, x to, y to, mm


# --------------------------------------------------------------------------------------------- shapes


@dataclass(frozen=True)
class Shape:
    """A solid as nested or separate circles and boxes at each height above its centre; even-odd."""

    circles: Callable[[float], Circles] = lambda height: []
    boxes: Callable[[float], Boxes] = lambda height: []
    keyhole: bool = False

    def paths(self, height: float) -> list[np.ndarray]:
        """Closed paths (M, 2) of (x, y) in mm."""
        angle = 2 * np.pi * np.arange(CORNERS) / CORNERS
        ring = np.stack([np.cos(angle), np.sin(angle)], axis=1)
        paths = [np.array([x, y]) + radius * ring for x, y, radius in self.circles(height)]
        paths += [np.array([(a, b), (c, b), (c, d), (a, d)]) for a, b, c, d in self.boxes(height)]
        if self.keyhole and paths:
            outer, inner = paths
            return [np.concatenate([outer, outer[:1], inner[:1], inner[:0:-1], inner[:1]])]
        return [path[::-1] if i % 2 else path for i, path in enumerate(paths)]

    def inside(self, x: np.ndarray, y: np.ndarray, height: float, tie: float) -> tuple[np.ndarray, np.ndarray]:
        """Which points are in by closed form, and which lie between a circle and its polygon."""
        odd, on, between = (np.zeros(x.shape, dtype=bool) for _ in range(3))
        for cx, cy, radius in self.circles(height):
            distance = np.hypot(x - cx, y - cy)
            odd ^= distance < radius
            between |= (distance > radius * np.cos(np.pi / CORNERS) - tie) & (distance < radius + tie)
        for a, b, c, d in self.boxes(height):
            depth = np.minimum.reduce([x - a, c - x, y - b, d - y])
            odd ^= depth > 0
            on |= np.abs(depth) <= tie
        return odd | on, between


def ball(radius: float, x: float = 0.0, y: float = 0.0) -> Callable[[float], Circles]:
    return lambda height: [(x, y, np.sqrt(radius**2 - height**2))] if abs(height) < radius else []


def joined(*parts: Callable[[float], Circles]) -> Callable[[float], Circles]:
    return lambda height: [circle for part in parts for circle in part(height)]


def torus(ring: float, tube: float) -> Callable[[float], Circles]:
    def circles(height: float) -> Circles:
        half = np.sqrt(max(tube**2 - height**2, 0))
        return [(0.0, 0.0, ring + half), (0.0, 0.0, ring - half)] if half > 1e-9 else []

    return circles


def cylinder(height: float, *radii: float) -> Callable[[float], Circles]:
    return lambda h: [(0.0, 0.0, radius) for radius in radii] if abs(h) <= height else []


def cube(*halves: float) -> Callable[[float], Boxes]:
    return lambda height: [(-half, -half, half, half) for half in halves if abs(height) <= half]


SHAPES = {
    **{f"sphere {radius}": Shape(ball(radius)) for radius in (3, 5, 8, 13, 20, 40)},
    "cube": Shape(boxes=cube(5)),
    "hollow cube": Shape(boxes=cube(9, 4)),
    "hollow sphere": Shape(joined(ball(15), ball(9))),
    "torus": Shape(torus(12, 5)),
    "two rods": Shape(lambda height: [(-9, 0, 4), (9, 0, 4)] if abs(height) < 9 else []),
    "thin shell": Shape(joined(ball(14), ball(13.7))),
    "two pieces": Shape(joined(ball(7, -9), ball(6, 8, 3))),
    "ring in ring": Shape(cylinder(7, 16, 12, 8, 4)),
    "keyhole": Shape(cylinder(7, 15, 6), keyhole=True),
    "square keyhole": Shape(
        boxes=lambda height: [(-12, -12, 12, 12), (-5, -5, 5, 5)] if abs(height) < 7 else [], keyhole=True
    ),
}


# ---------------------------------------------------------------------------------------------- grids


def stack(
    spacing: tuple[float, float],
    positions: np.ndarray,
    iop: tuple[float, ...] = syn.AXIAL,
    shear: tuple[float, float] = (0.0, 0.0),
) -> oracle.Series:
    """An empty image 100 mm wide about (0, 0, 0)."""
    shape = (len(positions), round(100 / spacing[0]), round(100 / spacing[1]))
    r, c = syn.axes_of(iop)[:2]
    corner = -(shape[2] // 2) * spacing[1] * r - (shape[1] // 2) * spacing[0] * c
    origins = corner + syn.slice_origins(positions, iop=iop, shear=shear)
    return oracle.Series(np.broadcast_to(np.zeros(1), shape), origins, r, c, spacing[1], spacing[0])


EVEN = np.arange(-46, 47, 2.0)
UNEVEN = np.cumsum(np.tile([1.2, 1.8, 2.6, 1.8], 12)) - 45  # no step over 1.5 times both beside it: a gap
OBLIQUE = syn.rotation_iop((20.0, -15.0, 30.0))
STACKS = {
    "axial": stack((1.0, 1.0), EVEN),
    "row and column spacing": stack((2.0, 0.8), EVEN),
    "oblique": stack((1.0, 1.0), EVEN, OBLIQUE),
    "uneven coronal": stack((1.25, 1.0), UNEVEN, syn.CORONAL),
    "sheared": stack((1.0, 1.0), EVEN, shear=(0.25, -0.1)),
}
# centre of the shape in pixels and in steps of 2 mm between slices, distance of the contour planes in mm
PLACES = (
    (0.0, 0.0, 0.0, 2.0),
    (0.5, 0.5, 0.5, 2.0),
    (0.0, 0.5, -0.5, 2.0),
    (0.25, -0.4, 0.3, 2.0),
    (0.37, 0.11, -0.21, 1.0),
    (0.5, 0.0, 0.25, 1.0),
    (1e-7, -1e-7, 0.0, 4.0),
    (0.123, 0.456, 0.499, 3.0),
)


def stack_of(series: oracle.Series) -> SliceStack:
    axes = np.stack([series.r, series.c, series.n])
    return SliceStack(axes, series.origins, (series.row_step, series.column_step), series.hu.shape[1:])


def voxels(series: oracle.Series, contours: list[np.ndarray]) -> np.ndarray:
    """ctpatch's answer on the whole grid."""
    roi = lesion_mask(DrawnROI("GTV", tuple(contours)), stack_of(series))
    mask = np.zeros(series.hu.shape, dtype=bool)
    mask[tuple(slice(a, a + n) for a, n in zip(roi.corner, roi.voxels.shape, strict=True))] = roi.voxels
    return mask


def drawn(series: oracle.Series, shape: Shape, centre: np.ndarray, step: float) -> dict[float, list[np.ndarray]]:
    """The contours (M, 3) in mm of each height at which there are any."""
    heights = {float(height): shape.paths(height) for height in np.arange(-48, 48.1, step)}
    place = {h: centre + h * series.n for h, paths in heights.items() if paths}
    axes = np.stack([series.r, series.c])
    return {h: [origin + path @ axes for path in heights[h]] for h, origin in place.items()}


def closed_form(
    series: oracle.Series, shape: Shape, centre: np.ndarray, contours: dict[float, list[np.ndarray]]
) -> np.ndarray:
    """The voxels that the rule says are in."""
    planes = {float((centre + height * series.n) @ series.n): height for height in contours}
    mask = np.zeros(series.hu.shape, dtype=bool)
    for k, plane in oracle_lesion.plane_of_slice(series, np.array(list(planes))).items():
        height = planes[min(planes, key=lambda q: abs(q - plane))]
        row, column = np.indices(series.hu.shape[1:])
        offset = (series.origins[k] - centre) @ np.stack([series.r, series.c]).T
        x, y = column * series.column_step + offset[0], row * series.row_step + offset[1]
        mask[k], unsure = shape.inside(x, y, height, oracle.TIE * min(series.row_step, series.column_step))
        paths = [np.stack(series.project(k, contour), axis=1) for contour in contours[height]]
        mask[k][unsure] = oracle_lesion.inside(paths, row[unsure], column[unsure])
    return mask


# ---------------------------------------------------------------------------------------------- tests


@pytest.mark.parametrize("grid", STACKS)
@pytest.mark.parametrize("name", SHAPES)
def test_shape_is_voxel_exact(name: str, grid: str) -> None:
    series, shape = STACKS[grid], SHAPES[name]
    for x, y, z, step in PLACES:
        centre = x * series.column_step * series.r + y * series.row_step * series.c + 2 * z * series.n
        contours = drawn(series, shape, centre, step)
        expected = closed_form(series, shape, centre, contours)
        found = voxels(series, [contour for paths in contours.values() for contour in paths])
        wrong = np.argwhere(found != expected)
        assert not len(wrong), f"{len(wrong)} of {expected.sum()} voxels, first {wrong[0]} at {(x, y, z, step)}"


@pytest.mark.parametrize("grid", STACKS)
def test_polygons_through_pixel_centres_are_voxel_exact(grid: str) -> None:
    """Corners on whole and half pixels, so that many centres lie on slanted edges and corners."""
    series, rng = STACKS[grid], np.random.default_rng(7)
    step, axes = np.array([series.row_step, series.column_step]), np.stack([series.c, series.r])
    for k in range(3, 43):
        count = rng.integers(3, 30)
        angle, radius = np.sort(rng.uniform(0, 2 * np.pi, count)), rng.uniform(3, 20, (count, 1))
        path = 22 + np.round(2 * radius * np.stack([np.sin(angle), np.cos(angle)], axis=1)) / 2
        if not shapely.Polygon(path).is_valid:
            continue
        expected = oracle_lesion.filled([path], series.hu.shape[1:])
        found = voxels(series, [series.origins[k] + (path * step) @ axes])
        assert np.array_equal(found[k], expected)
        assert found.sum() == expected.sum()


@pytest.mark.parametrize("radius", [20, 30])
def test_sphere_volume_is_within_one_percent(radius: int) -> None:
    series, rng = stack((1.0, 1.0), np.arange(-40, 41, 1.0)), np.random.default_rng(radius)
    counts = []
    for centre in rng.uniform(-0.5, 0.5, (5, 3)):
        contours = drawn(series, Shape(ball(radius)), centre, 1.0)
        counts.append(voxels(series, [path for paths in contours.values() for path in paths]).sum())
    assert np.mean(counts) == pytest.approx(4 / 3 * np.pi * radius**3, rel=0.01)


def test_direction_start_and_repetition_of_a_path_change_nothing() -> None:
    series = STACKS["oblique"]
    contours = drawn(series, SHAPES["hollow sphere"], np.array([0.3, 0.1, 0.7]), 2.0)
    paths = [path for level in contours.values() for path in level]
    expected = voxels(series, paths)
    assert np.array_equal(voxels(series, [path[::-1] for path in paths]), expected)
    assert np.array_equal(voxels(series, [np.roll(path, 100, axis=0) for path in paths]), expected)
    assert np.array_equal(voxels(series, [*paths, np.roll(paths[0][::-1], 7, axis=0)]), expected)
    assert np.array_equal(voxels(series, [np.concatenate([path, path[:1]]) for path in paths]), expected)


def test_contour_beyond_half_the_end_spacing_is_refused() -> None:
    series = STACKS["uneven coronal"]
    height = series.z[-1] + np.diff(series.z)[-1] / 2
    paths = [drawn(series, SHAPES["cube"], np.zeros(3), 1.0)[0.0][0] + q * series.n for q in (0.0, height - 1e-3)]
    assert voxels(series, paths)[-1].any()
    with pytest.raises(InputError):
        voxels(series, [*paths, paths[0] + (height + 0.02) * series.n])


@pytest.mark.parametrize("number", ["003", "019", "025"])
def test_sts_equals_the_third_party_mask(number: str, record_property: pytest.RecordProperty) -> None:
    folder = DATA / "sts" / f"STS_{number}"
    if not folder.exists():
        pytest.skip(f"no sts/STS_{number} under {DATA}")
    series = oracle.read_series(folder / "image")
    contours = oracle_lesion.rtstruct_contours(folder / "mask" / "RS.dcm", "GTV_Mass_CT")
    found = voxels(series, contours)
    image = sitk.ReadImage(folder / "nifti" / "CT_mask.nii.gz")
    np.testing.assert_allclose(image.GetOrigin(), series.origins[0], atol=1e-4)
    theirs = sitk.GetArrayFromImage(image) > 0
    record_property("dice", float(2 * (found & theirs).sum() / (found.sum() + theirs.sum())))
    assert np.array_equal(found, theirs)  # Dice 1: no voxel of these lies on a path, where conventions differ
    assert np.array_equal(oracle_lesion.lesion_voxels(series, contours), found)
    assert np.array_equal(oracle_lesion.lesion_voxels(series, contours, rims=False), found)
