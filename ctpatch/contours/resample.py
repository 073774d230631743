"""Masks that come as voxels, laid onto the image's grid: as they are where the grids are one, else by nearest voxel."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..geometry import Floats, Frame, half_spacings, nearest_pixels, nearest_slices
from .roi import VoxelROI

GRID_TOLERANCE_MM = 1e-3
DIRECTION_TOLERANCE = 1e-4
"""Two grids are one when each corner of each slice is within `GRID_TOLERANCE_MM`, plus what a direction off by
`DIRECTION_TOLERANCE` makes of its distance from the first voxel: rounded headers, never near half a voxel."""

Mask = NDArray[np.bool_]


def slice_corners(frame: Frame) -> Floats:
    """Centres of the four corner voxels of each slice in mm LPS, (K, 4, 3)."""
    sides = (np.array([0, n - 1]) * step for n, step in zip(frame.shape, frame.spacing, strict=True))
    corners = np.array([y * frame.axes[1] + x * frame.axes[0] for y, x in itertools.product(*sides)])
    return frame.origins[:, None] + corners


def fits(corners: Floats, frame: Frame, slices: Any = slice(None)) -> bool:
    """Whether slice corners (K, 4, 3) are those of `frame`, or of some of its slices, to within the tolerances."""
    expected = slice_corners(frame)[slices]
    allowed = GRID_TOLERANCE_MM + DIRECTION_TOLERANCE * np.linalg.norm(expected - frame.origins[0], axis=-1)
    return bool((np.linalg.norm(corners - expected, axis=-1) <= allowed).all())


def wrong_grid(source: Frame, frame: Frame) -> InputError:
    """The refusal of a mask on another grid, with both grids."""
    found = f"the mask's grid, {describe(source)}, is not the image's, {describe(frame)}"
    return InputError(found, "save the mask on the image's grid, or accept `resample` (nearest voxel) for this row")


def describe(frame: Frame) -> str:
    """A grid in words: size, spacing, origin, direction."""
    steps = sorted({f"{step:.8g}" for step in np.diff(frame.positions)}, key=float)
    between = "–".join(dict.fromkeys((steps[0], steps[-1]))) if steps else "?"
    origin = ", ".join(f"{v:.8g}" for v in frame.origins[0])
    direction = "; ".join(" ".join(f"{v:.4g}" for v in np.round(axis, 6) + 0.0) for axis in frame.axes)
    size = f"{frame.shape[1]} × {frame.shape[0]} × {len(frame)} voxels"
    return f"{size} of {frame.spacing[1]:.8g} × {frame.spacing[0]:.8g} × {between} mm at ({origin}) along ({direction})"


def bounding_roi(name: str, voxels: Mask, first_slice: int = 0, notes: tuple[str, ...] = ()) -> VoxelROI:
    """The True voxels, of which there must be one, of whole slices from `first_slice` on."""
    box = _bounds(voxels)
    corner = (first_slice + box[0].start, box[1].start, box[2].start)
    return VoxelROI(name, corner, voxels[box].copy(), notes=notes)


def resampled_roi(name: str, voxels: Mask, source: Frame, frame: Frame, notes: tuple[str, ...] = ()) -> VoxelROI:
    """A mask of another grid as an ROI of `frame`'s.

    Raises
    ------
    InputError
        When no voxel of `frame` is in it.
    """
    placed = resample(voxels, source, frame)
    before, after = volume_mm3(voxels, source), volume_mm3(placed, frame)
    if not after:
        raise InputError(
            f"none of its {before:.4g} mm³ reaches a voxel of the image", "check that mask and image belong together"
        )
    note = f"mask resampled to the image's grid by nearest voxel: {before:.4g} mm³ became {after:.4g} mm³"
    return bounding_roi(name, placed, notes=(*notes, note))


def volume_mm3(voxels: Mask, frame: Frame) -> float:
    """Volume of a mask (K, rows, columns), each slice as thick as it reaches."""
    thickness = np.sum(half_spacings(frame.positions), axis=0)
    return float(np.count_nonzero(voxels, axis=(1, 2)) @ thickness * frame.spacing[0] * frame.spacing[1])


def resample(voxels: Mask, source: Frame, frame: Frame) -> Mask:
    """Each voxel of `frame` as the nearest one of `source`: nearest slice along n, then pixel at the projection.

    On a tie it is in when any tied voxel is; beyond half a voxel outside `source` it is not.

    Parameters
    ----------
    voxels : (Z, Y, X) bool
        On `source`'s grid; at least one is True.

    Returns
    -------
    (K, rows, columns) bool
    """
    out = np.zeros((len(frame), *frame.shape), bool)
    around = frame.to_frame(_surroundings(voxels, source))
    for k in np.flatnonzero((frame.positions >= around[:, 2].min()) & (frame.positions <= around[:, 2].max())):
        index = frame.to_pixels(around, int(k))
        low = np.maximum(np.floor(index.min(axis=0)), 0).astype(int)
        high = np.minimum(np.ceil(index.max(axis=0)).astype(int) + 1, frame.shape[::-1])
        x, y = (np.arange(a, b) for a, b in zip(low, high, strict=True))
        if len(x) and len(y):
            rows = y[:, None, None] * frame.spacing[0] * frame.axes[1]
            points = frame.origins[k] + rows + x[:, None] * frame.spacing[1] * frame.axes[0]
            out[k, y[0] : y[-1] + 1, x[0] : x[-1] + 1] = _nearest(voxels, source, points)
    return out


def _nearest(voxels: Mask, source: Frame, points: Floats) -> Mask:
    """Whether the nearest voxel to each LPS point (..., 3), or any on a tie, is True."""
    inside = np.zeros(points.shape[:-1], bool)
    place = source.to_frame(points)
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


def _surroundings(voxels: Mask, source: Frame) -> Floats:
    """LPS points, (n, 3), whose bounding box in any frame holds every point that is nearest to a True voxel."""
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
