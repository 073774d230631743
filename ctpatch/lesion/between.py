"""Slices without a contour between two that have one, filled by shape-based interpolation.

Raya & Udupa, IEEE Trans Med Imaging 9:32 (1990): between the signed distances to the outlines of two slices the
distance of a slice between them is interpolated linearly; what is not outside is in.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from ..contours.roi import VoxelROI, boxed
from ..geometry import TIE, Floats, SliceStack


def fill_between(roi: VoxelROI, stack: SliceStack) -> VoxelROI:
    """The ROI with slices filled that are empty between two that are not, and a note of how many.

    A slice stays empty where the outlines beside it do not overlap. Of a tilted stack the interpolation is along n.
    """
    first, (corner, voxels) = roi.corner[0], _with_room(roi, stack)
    drawn = np.flatnonzero(voxels.any(axis=(1, 2))).tolist()
    for below, above in pairwise(drawn):
        distances = {k: _signed_distance(voxels[k], stack.spacing) for k in (below, above) if above - below > 1}
        for k in range(below + 1, above):
            z = stack.positions[[first + below, first + k, first + above]]
            share = (z[1] - z[0]) / (z[2] - z[0])
            low, high = (_moved(distances[other], stack, first + other, first + k) for other in (below, above))
            voxels[k] = ((1 - share) * low + share * high > 0)[1:-1, 1:-1]
    if not (filled := np.count_nonzero(voxels.any(axis=(1, 2))) - len(drawn)):
        return roi
    corner, voxels = boxed(np.argwhere(voxels) + corner)
    note = f"{filled} slices without a contour are filled from those beside them"
    return replace(roi, corner=corner, voxels=voxels, notes=(*roi.notes, note))


def _with_room(roi: VoxelROI, stack: SliceStack) -> tuple[tuple[int, int, int], NDArray[np.bool_]]:
    """The voxels in a box that has room for what lies elsewhere in other slices of a tilted stack, and its corner."""
    offsets = stack.offsets[roi.corner[0] : roi.corner[0] + len(roi.voxels), 1::-1]
    room = np.ceil(np.ptp(offsets, axis=0) / stack.spacing - TIE).astype(int)
    start = np.array(roi.corner[1:])
    low = np.minimum(room, start)
    high = np.minimum(room, np.array(stack.shape) - start - roi.voxels.shape[1:])
    corner = (roi.corner[0], *(start - low).tolist())
    return corner, np.pad(roi.voxels, ((0, 0), (low[0], high[0]), (low[1], high[1])))


def _signed_distance(layer: NDArray[np.bool_], spacing: tuple[float, float]) -> Floats:
    """Distance in mm to the border between pixels, above 0 inside; a pixel wider on each side."""
    from scipy.ndimage import distance_transform_edt  # only where a row asks for it: a command starts the faster

    padded = np.pad(layer, 1)
    inside = distance_transform_edt(padded, sampling=spacing)
    outside = distance_transform_edt(~padded, sampling=spacing)
    half = min(spacing) / 2  # the border lies between the centres that distances are taken from
    return np.where(padded, inside - half, half - outside)


def _moved(distance: Floats, stack: SliceStack, k: int, to: int) -> Floats:
    """Distances of slice `k` at the pixels of slice `to`, which in a tilted stack lie elsewhere along n."""
    from scipy.ndimage import shift

    pixels = (stack.offsets[to, 1::-1] - stack.offsets[k, 1::-1]) / stack.spacing
    if np.abs(pixels).max() < TIE:
        return distance
    return np.asarray(shift(distance, -pixels, order=1, mode="nearest"), np.float64)
