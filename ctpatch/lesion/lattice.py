"""The lesion on the isotropic lattice: anchored at the first voxel of the first slice, axes (r, c, n)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ..contours.roi import VoxelROI
from ..geometry import TIE, Floats, SliceStack, half_spacings, nearest_pixels, nearest_slices

_EQUAL = 1e-9
"""Squared lattice steps within which two lattice points are equally far from the lesion's middle."""


@dataclass(frozen=True, eq=False)
class LesionLattice:
    """Lattice points in a lesion, in (z, y, x) C order.

    Attributes
    ----------
    spacing : float
        mm.
    corner : (int, int, int)
        Lattice index (z, y, x) of `inside[0, 0, 0]`; the lattice point (0, 0, 0) is the stack's origin.
    inside : (Z, Y, X) bool
    """

    spacing: float
    corner: tuple[int, int, int]
    inside: NDArray[np.bool_]

    @cached_property
    def _ends(self) -> NDArray[np.int64]:
        """How many points there are up to and with each z."""
        return np.cumsum([np.count_nonzero(plane) for plane in self.inside])

    def __len__(self) -> int:
        return int(self._ends[-1])

    def points(self, numbers: NDArray[np.int64]) -> Floats:
        """SliceStack coordinates in mm (x, y, z) of the points with these numbers; (N, 3)."""
        z = np.searchsorted(self._ends, numbers, side="right")
        indices = np.empty((len(numbers), 3), np.int64)
        for k in np.unique(z):  # a large lesion has millions of points; only the planes asked for are listed
            chosen = z == k
            flat = np.flatnonzero(self.inside[k])[numbers[chosen] - (self._ends[k - 1] if k else 0)]
            indices[chosen] = np.column_stack([np.full(len(flat), k), *np.divmod(flat, self.inside.shape[2])])
        return self._coordinates(indices)

    def middle(self) -> Floats:
        """SliceStack coordinates of the point nearest to the mean of all; of equally near ones the first. (3,)."""
        axes = [self.inside.sum(axis=tuple({0, 1, 2} - {axis})) for axis in range(3)]
        mean = np.array([np.arange(len(count)) @ count / count.sum() for count in axes])
        radius = 2.0
        while True:  # the nearest point is usually next to the mean: look there before looking everywhere
            low = np.maximum(np.floor(mean - radius).astype(int), 0)
            high = np.minimum(np.ceil(mean + radius).astype(int) + 1, self.inside.shape)
            near = np.argwhere(self.inside[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]) + low
            squared = ((near - mean) ** 2).sum(axis=1)
            if len(near) and squared.min() <= radius**2:
                return self._coordinates(near[np.flatnonzero(squared <= squared.min() + _EQUAL)[:1]])[0]
            radius *= 2

    def _coordinates(self, indices: NDArray[np.int64]) -> Floats:
        return np.asarray((indices + self.corner)[:, ::-1] * self.spacing, np.float64)


def lesion_lattice(mask: VoxelROI, stack: SliceStack, spacing: float) -> LesionLattice:
    """Lattice points whose nearest voxel is in the lesion.

    The nearest voxel is in the nearest slice along n, there the nearest pixel at the orthogonal projection; on a tie
    a point is in when any tied voxel is. A lesion so small that it catches no lattice point keeps the one nearest to
    its voxels' mean.

    Parameters
    ----------
    mask : VoxelROI
    stack : SliceStack
    spacing : float
        mm between lattice points.
    """
    low, high = _bounds(mask, stack, spacing)
    z, y, x = (np.arange(a, b + 1) for a, b in zip(low, high, strict=True))
    inside = np.zeros((len(z), len(y), len(x)), np.bool_)
    padded = np.pad(mask.voxels, ((0, 0), (1, 1), (1, 1)))
    pairs = nearest_slices(stack.positions, z * spacing)
    for k, layer in enumerate(padded, start=mask.corner[0]):
        if (near := (pairs == k).any(axis=1)).any():
            inside[near] |= _slice_points(layer, mask, stack, k, y * spacing, x * spacing)
    if not inside.any():
        return _single_point(mask, stack, spacing)
    return LesionLattice(spacing, (int(low[0]), int(low[1]), int(low[2])), inside)


def _bounds(mask: VoxelROI, stack: SliceStack, spacing: float) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Lowest and highest lattice index (z, y, x) that can be in the mask."""
    first, last = mask.corner[0], mask.corner[0] + len(mask.voxels) - 1
    below, above = half_spacings(stack.positions)
    down, up = below[first] * (1 + 4 * TIE), above[last] * (1 + 4 * TIE)
    start = np.array(mask.corner[1:]) - 0.5 - 2 * TIE
    stop = np.array(mask.corner[1:]) + mask.voxels.shape[1:] - 0.5 + 2 * TIE
    offsets = stack.offsets[first : last + 1, 1::-1]  # (y, x) of each slice
    low = np.array([stack.positions[first] - down, *(offsets.min(axis=0) + start * stack.spacing)])
    high = np.array([stack.positions[last] + up, *(offsets.max(axis=0) + stop * stack.spacing)])
    return np.ceil(low / spacing).astype(np.int64), np.floor(high / spacing).astype(np.int64)


def _slice_points(
    padded: NDArray[np.bool_], mask: VoxelROI, stack: SliceStack, k: int, y: Floats, x: Floats
) -> NDArray[np.bool_]:
    """Which points (y, x) have a nearest pixel in slice `k`'s part of the mask, padded by one pixel of False."""
    indices = []
    for axis, (at, size) in enumerate(zip((y, x), stack.shape, strict=True)):
        index = (at - stack.offsets[k, 1 - axis]) / stack.spacing[axis]
        pair = nearest_pixels(size, index) - mask.corner[1 + axis] + 1
        indices.append(np.clip(pair, 0, padded.shape[axis] - 1))
    rows, columns = indices
    tied = [range(1 + bool((pair[:, 0] != pair[:, 1]).any())) for pair in indices]
    result = np.zeros((len(y), len(x)), np.bool_)
    for i in tied[0]:
        for j in tied[1]:
            result |= padded[np.ix_(rows[:, i], columns[:, j])]
    return result


def _single_point(mask: VoxelROI, stack: SliceStack, spacing: float) -> LesionLattice:
    points = stack.centres(np.argwhere(mask.voxels) + mask.corner)
    x, y, z = np.ceil(points.mean(axis=0) / spacing - 0.5 - TIE).astype(int)
    return LesionLattice(spacing, (int(z), int(y), int(x)), np.ones((1, 1, 1), np.bool_))
