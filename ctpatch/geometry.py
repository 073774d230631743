"""Where the slices of a CT series lie, and the isotropic lattice laid over them.

Lengths are mm, coordinates DICOM LPS, arrays (z, y, x). `r` is the direction of increasing column index
(ImageOrientationPatient[0:3]), `c` of increasing row index (IOP[3:6]), `n` = r × c. A slice is where its own
ImagePositionPatient says: spacings may differ, and a tilted stack keeps its shear.

*SliceStack coordinates* of a point are its (x, y, z) along (r, c, n) from the centre of the first voxel of the first
slice. Most of ctpatch works in them; LPS is needed only at the borders (contours in, patch centres out).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .errors import InputError

Floats = NDArray[np.float64]

TIE = 1e-6
"""Pixels (or fractions of a slice spacing) within which two voxels are equally near, or a point is on a path."""
POSITION_TOLERANCE_MM = 0.01
"""Two positions closer than this, or than 1 % of the spacing, are the same position written twice."""
POSITION_TOLERANCE_SPACING = 0.01
ORIENTATION_TOLERANCE_PX = 0.1
"""How far the orientation noise of one slice may move that slice's farthest corner."""
AXES_TOLERANCE = 1e-3
"""Departure of an ImageOrientationPatient from orthonormality that is still rounding."""
GAP_FACTOR = 1.5
"""A spacing wider than this times every adjacent one is a gap: a slice is missing there."""
STRAY_FACTOR = 5
"""A first or last slice farther off than this many times the usual spacing is no neighbour of a missing one."""


def position_tolerance(spacing: float) -> float:
    """How far apart in mm two positions may lie and be one position, at a slice spacing of `spacing` mm."""
    return max(POSITION_TOLERANCE_MM, POSITION_TOLERANCE_SPACING * spacing)


@dataclass(frozen=True, eq=False)
class SliceStack:
    """Geometry of a stack of parallel CT slices, ordered along their normal.

    Attributes
    ----------
    axes : (3, 3) float64
        Rows r, c, n: orthonormal, right-handed, LPS.
    origins : (K, 3) float64
        Centre of voxel (0, 0) of each slice in mm LPS, by increasing position along n.
    spacing : (float, float)
        Distance in mm between rows, and between columns (the order of DICOM's PixelSpacing).
    shape : (int, int)
        Rows, columns.
    """

    axes: Floats
    origins: Floats
    spacing: tuple[float, float]
    shape: tuple[int, int]

    @cached_property
    def offsets(self) -> Floats:
        """SliceStack coordinates of each slice's first voxel, (K, 3): x along r, y along c, z along n."""
        return self.to_stack(self.origins)

    @cached_property
    def positions(self) -> Floats:
        """Position of each slice along n in mm from the first slice, (K,), increasing."""
        return np.ascontiguousarray(self.offsets[:, 2])

    def __len__(self) -> int:
        return len(self.origins)

    def to_stack(self, points: ArrayLike) -> Floats:
        """LPS points (..., 3) in stack coordinates (..., 3)."""
        return (np.asarray(points, np.float64) - self.origins[0]) @ self.axes.T

    def to_lps(self, points: ArrayLike) -> Floats:
        """SliceStack coordinates (..., 3) as LPS points (..., 3)."""
        return np.asarray(points, np.float64) @ self.axes + self.origins[0]

    def to_pixels(self, points: ArrayLike, k: int) -> Floats:
        """SliceStack coordinates (..., 3) projected along n into slice `k`: (..., 2) as (column, row) indices."""
        points = np.asarray(points, np.float64)
        row_spacing, column_spacing = self.spacing
        return (points[..., :2] - self.offsets[k, :2]) / (column_spacing, row_spacing)

    def centres(self, voxels: NDArray[np.intp]) -> Floats:
        """SliceStack coordinates (n, 3) of the centres of voxels (n, 3), which are (slice, row, column)."""
        points = self.offsets[voxels[:, 0]]
        points[:, :2] += voxels[:, :0:-1] * self.spacing[::-1]
        return points


@dataclass(frozen=True)
class Gap:
    """A place where a slice is missing: between slices `below` and `below + 1`, `width` mm apart.

    Attributes
    ----------
    below : int
    start, stop : float
        Positions in mm of the two slices beside it.
    usual_below, usual_above : float
        Spacings in mm below and above it: voxels beside it reach half as far into it (one stands for both at an end).
    stray : int or None
        The first or last slice where it lies that far from all others that it is no part of the stack.
    """

    below: int
    start: float
    stop: float
    usual_below: float
    usual_above: float
    stray: int | None = None

    @property
    def width(self) -> float:
        """Distance between the two neighbours in mm."""
        return self.stop - self.start

    def misses(self, z: float) -> bool:
        """Whether position `z` lies in it, farther than the voxels beside it reach."""
        margin = TIE * self.width
        return self.start + self.usual_below / 2 + margin < z < self.stop - self.usual_above / 2 - margin

    @property
    def do(self) -> str:
        """What to do about it."""
        mend = "complete the series" if self.stray is None else "take that slice out of the series"
        return f"{mend}, or put gap into the column accept"

    def __str__(self) -> str:
        if self.stray is not None:
            return f"slice {self.stray + 1} lies {self.width:.4g} mm from all others: a stray slice"
        return f"{self.width:.4g} mm between slices {self.below + 1} and {self.below + 2}: a slice is missing"


def orthonormal_axes(orientation: ArrayLike) -> Floats:
    """Rows r, c, n of an ImageOrientationPatient, re-orthonormalised; (3, 3).

    Raises
    ------
    InputError
        When the six numbers are not two perpendicular unit vectors to within `AXES_TOLERANCE`.
    """
    values = np.asarray(orientation, np.float64).reshape(2, 3)
    r, c = values
    if not np.isfinite(values).all() or not np.allclose(values @ values.T, np.eye(2), atol=AXES_TOLERANCE):
        shown = "\\".join(f"{v:g}" for v in values.ravel())
        raise InputError(
            f"ImageOrientationPatient {shown} is not two perpendicular unit vectors",
            "export the series again from its source",
        )
    r = r / np.linalg.norm(r)
    c = c - (c @ r) * r
    c = c / np.linalg.norm(c)
    return np.array([r, c, np.cross(r, c)])


def make_stack(
    axes: Floats, origins: ArrayLike, spacing: Sequence[float], shape: Sequence[int]
) -> tuple[SliceStack, NDArray[np.intp]]:
    """A stack over slices given in any order, and the order that sorts them along n.

    Raises
    ------
    InputError
        When there are fewer than two slices, which have no spacing, or fewer than two rows or columns.
    """
    points = np.asarray(origins, np.float64).reshape(-1, 3)
    if len(points) < 2:
        raise InputError("a single slice has no slice spacing", "give the whole series")
    if min(shape) < 2:
        raise InputError(f"slices of {shape[0]} × {shape[1]} pixels are no image", "give the whole series")
    order = np.argsort(points @ axes[2], kind="stable")
    stack = SliceStack(axes, points[order], (float(spacing[0]), float(spacing[1])), (int(shape[0]), int(shape[1])))
    return stack, order


def half_spacings(positions: Floats) -> tuple[Floats, Floats]:
    """How far each slice reaches below and above itself in mm, (K,) each.

    Half the spacing, at the ends the end spacing's; into a gap only half the usual spacing beside it.
    """
    above = np.diff(positions) / 2
    below = above.copy()
    for gap in find_gaps(positions):
        above[gap.below], below[gap.below] = gap.usual_below / 2, gap.usual_above / 2
    return np.concatenate([above[:1], below]), np.concatenate([above, below[-1:]])


def reach(positions: Floats) -> Floats:
    """Lowest and highest position along n that the image reaches, ties in; (2,)."""
    below, above = half_spacings(positions)
    return positions[[0, -1]] + np.array([-below[0], above[-1]]) * (1 + 2 * TIE)


def nearest_slices(positions: Floats, z: ArrayLike) -> NDArray[np.intp]:
    """The nearest slice to each position along n, and the other one on a tie.

    Parameters
    ----------
    positions : (K,) float64
        Slice positions in mm, increasing.
    z : (...,) array_like
        Positions in mm.

    Returns
    -------
    (..., 2) int
        Lowest and highest slice that is nearest within `TIE` of the local spacing; equal unless there is a tie;
        −1 where `z` is farther from every slice than they reach (`half_spacings`).
    """
    z = np.asarray(z, np.float64)
    below = np.clip(np.searchsorted(positions, z, side="right") - 1, 0, len(positions) - 2)
    step = positions[below + 1] - positions[below]
    t = (z - positions[below]) / step
    low = below + (t > 0.5 + TIE)
    high = below + (t >= 0.5 - TIE)
    down, up = half_spacings(positions)
    reached = np.where(
        t > 0.5 + TIE, np.abs(1 - t) <= down[below + 1] / step + TIE, np.abs(t) <= up[below] / step + TIE
    )
    return np.where(reached[..., None], np.stack([low, high], axis=-1), -1)


def nearest_pixels(size: int, index: ArrayLike) -> NDArray[np.intp]:
    """The nearest of `size` pixels to each continuous index, and the other one on a tie; (..., 2), −1 outside."""
    index = np.asarray(index, np.float64)
    pair = np.stack([np.ceil(index - 0.5 - TIE), np.floor(index + 0.5 + TIE)], axis=-1).astype(np.intp)
    return np.where((pair >= 0) & (pair < size), pair, -1)


def find_gaps(positions: Floats) -> tuple[Gap, ...]:
    """Places where a slice is missing: a spacing over `GAP_FACTOR` times every adjacent one, rounding aside.

    Two or more wide steps in a row are uneven spacing, not a gap. With two slices there is nothing to compare.
    """
    steps = np.diff(positions)
    if len(steps) < 2:
        return ()
    padded = np.concatenate([[0.0], steps, [0.0]])
    widest_neighbour = np.maximum(padded[:-2], padded[2:])
    found = np.flatnonzero(steps > GAP_FACTOR * widest_neighbour + POSITION_TOLERANCE_MM)
    return tuple(_gap(positions, steps.tolist(), int(k)) for k in found)


def _gap(positions: Floats, steps: list[float], k: int) -> Gap:
    beside = [steps[i] for i in (k - 1, k + 1) if 0 <= i < len(steps)]
    far = steps[k] > STRAY_FACTOR * max(beside)
    stray = 0 if far and k == 0 else k + 1 if far and k == len(steps) - 1 else None
    return Gap(k, float(positions[k]), float(positions[k + 1]), beside[0], beside[-1], stray)
