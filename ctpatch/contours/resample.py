"""Masks that come as voxels, laid onto the image's grid: as they are where the grids are one, else by nearest voxel."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..geometry import Floats, SliceStack, half_spacings, nearest_pixels, nearest_slices, position_tolerance
from .roi import VoxelROI

TOLD_MM = 1e-3
"""A mask's grid that is farther off the image's than this is said to be."""
DIRECTION_TOLERANCE = 1e-4
"""Two grids are one when each corner of each slice is within the tolerance of slice positions, plus what a direction
off by `DIRECTION_TOLERANCE` makes of its distance from the first voxel: rounded headers, never near half a voxel."""

Mask = NDArray[np.bool_]


def slice_corners(stack: SliceStack) -> Floats:
    """Centres of the four corner voxels of each slice in mm LPS, (K, 4, 3)."""
    sides = (np.array([0, n - 1]) * step for n, step in zip(stack.shape, stack.spacing, strict=True))
    corners = np.array([y * stack.axes[1] + x * stack.axes[0] for y, x in itertools.product(*sides)])
    return stack.origins[:, None] + corners


@dataclass(frozen=True)
class Place:
    """Where a mask's voxel (0, 0, 0) lies in an image, and how far in mm its grid is off at most."""

    slice: int
    row: int
    column: int
    off_mm: float

    @property
    def notes(self) -> tuple[str, ...]:
        """What deserves a line in the report."""
        if self.off_mm <= TOLD_MM:
            return ()
        return (f"the grid of the mask is rounded: it is up to {self.off_mm:.2g} mm off that of the image",)


def off_grid(corners: Floats, expected: Floats, stack: SliceStack) -> float | None:
    """Largest distance in mm of points (..., 3) from where `stack` has them; None where it is more than rounding."""
    # the mask of a series with rounded positions is even: it is off by what its own and the series' rounding make
    positions, spacings = stack.positions, (*stack.spacing[::-1], float(np.median(np.diff(stack.positions))))
    tolerance = np.array([position_tolerance(spacing) for spacing in spacings])
    uneven = float(np.abs(positions - np.linspace(0, positions[-1], len(positions))).max())
    tolerance[2] += min(uneven, tolerance[2])
    turned = DIRECTION_TOLERANCE * np.linalg.norm(expected - stack.origins[0], axis=-1, keepdims=True)
    away = (corners - expected) @ stack.axes.T
    if (np.abs(away) > tolerance + turned).any():
        return None
    return float(np.linalg.norm(away, axis=-1).max())


def place_of(source: SliceStack, stack: SliceStack) -> Place | None:
    """Where a mask's grid lies on the image's: the same, or cut out of it (or around it); None where they differ.

    A grid of just as many voxels is the image's or none: one that is a whole voxel off is a mistake.
    """
    whole = (len(source), source.shape) == (len(stack), stack.shape)
    first = stack.to_stack(source.origins)
    k = int(np.abs(stack.positions - first[0, 2]).argmin()) if not whole else 0
    below = 0 if whole else int(np.abs(first[:, 2] - stack.positions[k]).argmin())  # the first slice may lie outside
    low, count = k - below, len(source)
    inside = slice(max(-low, 0), min(len(stack) - low, count))
    slices = range(low + inside.start, low + inside.stop)
    column, row = (0, 0) if whole else np.rint(stack.to_pixels(first[inside.start], slices[0])).astype(int).tolist()
    moved = row * stack.spacing[0] * stack.axes[1] + column * stack.spacing[1] * stack.axes[0]
    part = SliceStack(stack.axes, stack.origins[slices.start : slices.stop] + moved, stack.spacing, source.shape)
    off = off_grid(slice_corners(source)[inside], slice_corners(part), stack)
    return None if off is None else Place(low, row, column, off)


def wrong_grid(source: SliceStack, stack: SliceStack) -> InputError:
    """The refusal of a mask on another grid, with both grids."""
    found = f"the mask's grid, {describe(source)}, is not the image's, {describe(stack)}"
    return InputError(found, "save the mask on the image's grid, or accept `resample` (nearest voxel) for this row")


def describe(stack: SliceStack) -> str:
    """A grid in words: size, spacing, origin, direction."""
    steps = sorted({f"{step:.8g}" for step in np.diff(stack.positions)}, key=float)
    between = "–".join(dict.fromkeys((steps[0], steps[-1]))) if steps else "?"
    origin = ", ".join(f"{v:.8g}" for v in stack.origins[0])
    direction = "; ".join(" ".join(f"{v:.4g}" for v in np.round(axis, 6) + 0.0) for axis in stack.axes)
    size = f"{stack.shape[1]} × {stack.shape[0]} × {len(stack)} voxels"
    return f"{size} of {stack.spacing[1]:.8g} × {stack.spacing[0]:.8g} × {between} mm at ({origin}) along ({direction})"


def within(voxels: Mask, place: Place, stack: SliceStack) -> bool:
    """Whether the True voxels, of which there must be one, all lie in the image."""
    ends = zip(_bounds(voxels), (place.slice, place.row, place.column), (len(stack), *stack.shape), strict=True)
    return all(part.start + first >= 0 and part.stop + first <= size for part, first, size in ends)


def placed_roi(name: str, voxels: Mask, place: Place, notes: tuple[str, ...] = ()) -> VoxelROI:
    """The True voxels, of which there must be one, where they lie in the image."""
    box = _bounds(voxels)
    corner = (place.slice + box[0].start, place.row + box[1].start, place.column + box[2].start)
    return VoxelROI(name, corner, voxels[box].copy(), notes=(*notes, *place.notes))


def resampled_roi(
    name: str, voxels: Mask, source: SliceStack, stack: SliceStack, notes: tuple[str, ...] = ()
) -> VoxelROI:
    """A mask of another grid as an ROI of `stack`'s.

    Raises
    ------
    InputError
        When no voxel of `stack` is in it.
    """
    placed = resample(voxels, source, stack)
    before, after = volume_mm3(voxels, source), volume_mm3(placed, stack)
    if not after:
        raise InputError(
            f"none of its {before:.4g} mm³ reaches a voxel of the image", "check that mask and image belong together"
        )
    note = f"mask resampled to the image's grid by nearest voxel: {before:.4g} mm³ became {after:.4g} mm³"
    return placed_roi(name, placed, Place(0, 0, 0, 0.0), (*notes, note))


def volume_mm3(voxels: Mask, stack: SliceStack) -> float:
    """Volume of a mask (K, rows, columns), each slice as thick as it reaches."""
    thickness = np.sum(half_spacings(stack.positions), axis=0)
    return float(np.count_nonzero(voxels, axis=(1, 2)) @ thickness * stack.spacing[0] * stack.spacing[1])


def resample(voxels: Mask, source: SliceStack, stack: SliceStack) -> Mask:
    """Each voxel of `stack` as the nearest one of `source`: nearest slice along n, then pixel at the projection.

    On a tie it is in when any tied voxel is; beyond half a voxel outside `source` it is not.

    Parameters
    ----------
    voxels : (Z, Y, X) bool
        On `source`'s grid; at least one is True.

    Returns
    -------
    (K, rows, columns) bool
    """
    out = np.zeros((len(stack), *stack.shape), bool)
    around = stack.to_stack(_surroundings(voxels, source))
    for k in np.flatnonzero((stack.positions >= around[:, 2].min()) & (stack.positions <= around[:, 2].max())):
        index = stack.to_pixels(around, int(k))
        low = np.maximum(np.floor(index.min(axis=0)), 0).astype(int)
        high = np.minimum(np.ceil(index.max(axis=0)).astype(int) + 1, stack.shape[::-1])
        x, y = (np.arange(a, b) for a, b in zip(low, high, strict=True))
        if len(x) and len(y):
            rows = y[:, None, None] * stack.spacing[0] * stack.axes[1]
            points = stack.origins[k] + rows + x[:, None] * stack.spacing[1] * stack.axes[0]
            out[k, y[0] : y[-1] + 1, x[0] : x[-1] + 1] = _nearest(voxels, source, points)
    return out


def _nearest(voxels: Mask, source: SliceStack, points: Floats) -> Mask:
    """Whether the nearest voxel to each LPS point (..., 3), or any on a tie, is True."""
    inside = np.zeros(points.shape[:-1], bool)
    place = source.to_stack(points)
    for z in np.moveaxis(nearest_slices(source.positions, place[..., 2]), -1, 0):
        x, y = np.moveaxis((place[..., :2] - source.offsets[z, :2]) / source.spacing[::-1], -1, 0)
        pairs = (nearest_pixels(n, index) for n, index in zip(source.shape, (y, x), strict=True))
        for i, j in itertools.product(*(np.moveaxis(pair, -1, 0) for pair in pairs)):
            inside |= (z >= 0) & (i >= 0) & (j >= 0) & voxels[z, i, j]
    return inside


def _bounds(voxels: Mask) -> tuple[slice, slice, slice]:
    along = (np.flatnonzero(voxels.any(axis=axes)) for axes in ((1, 2), (0, 2), (0, 1)))
    z, y, x = (slice(int(found[0]), int(found[-1]) + 1) for found in along)
    return z, y, x


def _surroundings(voxels: Mask, source: SliceStack) -> Floats:
    """LPS points, (n, 3), whose bounding box in any stack holds every point that is nearest to a True voxel."""
    z, y, x = _bounds(voxels)
    below, above = half_spacings(source.positions)
    return np.array(
        [
            source.origins[k]
            + source.spacing[0] * i * source.axes[1]
            + source.spacing[1] * j * source.axes[0]
            + up * source.axes[2]
            for k in range(z.start, z.stop)
            for i, j in itertools.product((y.start - 1, y.stop), (x.start - 1, x.stop))
            for up in (-1.01 * below[k], 1.01 * above[k])
        ]
    )
