"""The voxel grid of a volume file, and its axes reordered and flipped towards another set of axes."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import InputError
from ..geometry import ORIENTATION_TOLERANCE_PX, Floats, SliceStack, make_stack

LPS = np.eye(3)
"""Axes to align a volume with that has no series to follow."""
MAX_VOXELS = 2**31
"""More voxels than any CT has: a header that declares them is damaged or forged."""
FARTHEST_MM = 1e6
"""No voxel lies farther from the origin."""
FINEST_MM = 1e-4
"""No spacing is finer."""
_FLAT = 1e-3


@dataclass(frozen=True, eq=False)
class Grid:
    """Voxel centres at origin + i · steps[0] + j · steps[1] + k · steps[2].

    Attributes
    ----------
    size : (int, int, int)
        Voxels along i, j and k; i is the fastest in the file.
    origin : (3,) float64
        Centre of voxel (0, 0, 0) in mm LPS.
    steps : (3, 3) float64
        Rows: displacement in mm LPS of one voxel along i, j, k.
    """

    size: tuple[int, int, int]
    origin: Floats
    steps: Floats

    def towards(self, axes: Floats) -> tuple[Grid, Reorder]:
        """The same voxels with i, j, k closest to the rows of `axes`, and how to reorder an array likewise.

        The pair of axes with the largest |cosine| is matched first, as ITK does. For orthogonal steps the result has
        the handedness of `axes`, so that mirrored storage never mirrors the image.
        """
        cosines = np.abs(axes @ (self.steps / np.linalg.norm(self.steps, axis=1, keepdims=True)).T)
        order = [0, 0, 0]
        for _ in order:
            new, old = np.unravel_index(cosines.argmax(), (3, 3))
            order[new] = int(old)
            cosines[new, :] = cosines[:, old] = -1
        flips = np.einsum("ij,ij->i", axes, self.steps[order]) < 0
        size = tuple(self.size[a] for a in order)
        last = (np.array(size) - 1) * flips
        steps = self.steps[order]
        grid = Grid(size, self.origin + last @ steps, np.where(flips[:, None], -steps, steps))  # type: ignore[arg-type]
        return grid, Reorder(tuple(order), tuple(bool(f) for f in flips))  # type: ignore[arg-type]

    def stack(self) -> SliceStack:
        """A stack of slices along k, rows along j, columns along i; a shear of k is kept as that of a tilted gantry.

        Raises
        ------
        InputError
            When i and j are not perpendicular, i, j, k not right-handed, or there is a single slice.
        """
        r = self.steps[0] / np.linalg.norm(self.steps[0])
        n = np.cross(r, self.steps[1])
        n /= np.linalg.norm(n)
        axes = np.array([r, np.cross(n, r), n])
        spacing = np.linalg.norm(self.steps[1]), np.linalg.norm(self.steps[0])
        origins = self.origin + np.arange(self.size[2])[:, None] * self.steps[2]
        stack, _ = make_stack(axes, origins, spacing, (self.size[1], self.size[0]))  # type: ignore[arg-type]
        moved = (self.size[1] - 1) * np.linalg.norm(self.steps[1] - spacing[0] * axes[1])
        if moved > ORIENTATION_TOLERANCE_PX * min(spacing) or self.steps[2] @ n <= 0:
            found = f"rows and columns are not perpendicular: a corner is {moved:.3g} mm from a rectangle's"
            raise InputError(found, "resample the volume to an orthogonal grid")
        return stack


@dataclass(frozen=True)
class Reorder:
    """How `Grid.towards` reordered the axes: new axis a is old axis order[a], reversed where flips[a]."""

    order: tuple[int, int, int]
    flips: tuple[bool, bool, bool]

    def __call__(self, array: NDArray[Any]) -> NDArray[Any]:
        """A view of (k, j, i) `array` in the new (k, j, i) order."""
        forward = array.T.transpose(self.order)
        return forward[tuple(slice(None, None, -1 if flip else 1) for flip in self.flips)].T


def corner_indices(size: Sequence[int]) -> NDArray[np.intp]:
    """Indices (i, j, k) of the eight outermost voxels, (8, 3)."""
    return np.array(list(itertools.product(*((0, n - 1) for n in size))))


def checked_size(size: Sequence[int]) -> tuple[int, int, int]:
    """`size` as three positive numbers of voxels, not absurdly many.

    Raises
    ------
    InputError
        When it is not.
    """
    text = " × ".join(map(str, size))
    if len(size) != 3:
        raise InputError(f"a {len(size)}-D volume ({text})", "save the one 3-D scalar volume that is meant")
    if min(size) < 1 or size[0] * size[1] * size[2] > MAX_VOXELS:
        raise InputError(f"a volume of {text} voxels", "give a whole, undamaged CT volume")
    return size[0], size[1], size[2]


def make_grid(size: tuple[int, int, int], origin: ArrayLike, steps: ArrayLike) -> Grid:
    """A grid whose numbers are finite and sensible, and whose steps span space.

    Raises
    ------
    InputError
        When they are not.
    """
    grid = Grid(size, np.array(origin, np.float64), np.array(steps, np.float64))
    if grid.origin.shape != (3,) or grid.steps.shape != (3, 3):
        raise InputError("position or orientation is not given for three axes", "save the volume again in 3-D")
    farthest = np.abs(grid.origin + corner_indices(size) @ grid.steps).max()
    if not farthest <= FARTHEST_MM:
        raise InputError(
            f"the farthest voxel is {farthest:.3g} mm from the origin", "mend the position and directions in the header"
        )
    lengths = np.linalg.norm(grid.steps, axis=1)
    if lengths.min() < FINEST_MM or np.abs(np.linalg.det(grid.steps)) < _FLAT * lengths.prod():
        shown = ", ".join(f"{length:g}" for length in lengths)
        raise InputError(f"spacing {shown} mm and its directions do not span a volume", "mend the header's directions")
    return grid
