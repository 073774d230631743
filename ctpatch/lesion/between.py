"""Slices without a contour between two that have one, filled by shape-based interpolation.

Raya & Udupa, IEEE Trans Med Imaging 9:32 (1990): between the signed distances to the outlines of two slices the
distance of a slice between them is interpolated linearly; what is not outside is in.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt, shift

from ..geometry import TIE, Floats, SliceStack


def fill_between(voxels: NDArray[np.bool_], first: int, stack: SliceStack) -> tuple[NDArray[np.bool_], int]:
    """A mask with its empty slices filled, and how many were.

    Parameters
    ----------
    voxels : (Z, Y, X) bool
        From slice `first` of the stack on; its first and last slice are not empty.
    first : int
    stack : SliceStack

    Returns
    -------
    (Z, Y, X) bool
        A slice stays empty where the outlines beside it do not overlap.
    int
    """
    drawn = np.flatnonzero(voxels.any(axis=(1, 2)))
    filled = voxels.copy()
    for below, above in zip(drawn[:-1].tolist(), drawn[1:].tolist(), strict=True):
        if above - below == 1:
            continue
        distances = [_signed_distance(voxels[k], stack.spacing) for k in (below, above)]
        for k in range(below + 1, above):
            z = stack.positions[first + np.array([below, k, above])]
            share = float((z[1] - z[0]) / (z[2] - z[0]))
            moved = (
                _moved(distance, stack, first + other, first + k)
                for distance, other in zip(distances, (below, above), strict=True)
            )
            low, high = moved
            filled[k] = ((1 - share) * low + share * high > 0)[1:-1, 1:-1]
    return filled, int(np.count_nonzero(filled.any(axis=(1, 2)))) - len(drawn)


def _signed_distance(layer: NDArray[np.bool_], spacing: tuple[float, float]) -> Floats:
    """Distance in mm to the border between pixels, above 0 inside; a pixel wider on each side."""
    padded = np.pad(layer, 1)
    inside = distance_transform_edt(padded, sampling=spacing)
    outside = distance_transform_edt(~padded, sampling=spacing)
    half = min(spacing) / 2  # the border lies between the centres that distances are taken from
    return np.where(padded, inside - half, half - outside)


def _moved(distance: Floats, stack: SliceStack, k: int, to: int) -> Floats:
    """Distances of slice `k` at the pixels of slice `to`, which in a tilted stack lie elsewhere along n."""
    pixels = (stack.offsets[to, 1::-1] - stack.offsets[k, 1::-1]) / stack.spacing
    if np.abs(pixels).max() < TIE:
        return distance
    return np.asarray(shift(distance, -pixels, order=1, mode="nearest"), np.float64)
