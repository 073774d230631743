"""Parts of a lesion apart from the rest, and holes in it: those that were drawn, not those that voxels make.

Where a contour has a neck or a cleft narrower than a pixel, its voxels fall apart or close around a pixel; a thin tip
that leans lies beside itself in the next slice. So parts have to be some way apart, and a hole takes a contour in
another.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_fill_holes, label
from scipy.spatial import cKDTree

from ..contours.roi import DrawnROI, VoxelROI
from ..geometry import Floats, SliceStack, half_spacings
from ..lesion.mask import planes_of_slices
from ..lesion.overlap import has_channel

NEAR_MM = 5.0
"""Parts this near are one: a build moves patches so far. In the next slice, as far aside as that is away will do."""
SPECK_MM3 = 14.0
"""Volume of a sphere of 3 mm, below which LIDC-IDRI's readers outlined no nodule."""
SPECK_SHARE = 0.01
"""Share of a lesion in which less than one of its hundred patches is cut. What is smaller than both is no finding."""
_TOWARDS = (("right", "left"), ("front", "back"), ("feet", "head"))


@dataclass(frozen=True)
class Part:
    """A part of a lesion, or a hole in it on one slice.

    Attributes
    ----------
    voxels : int
    mm3 : float
    slices : (int, int)
        The first and the last, counted from 1.
    towards : str
        Where a part lies from the largest: right, left, front, back, feet or head; of a hole empty.
    """

    voxels: int
    mm3: float
    slices: tuple[int, int]
    towards: str = ""


def pieces(mask: VoxelROI, stack: SliceStack) -> tuple[Part, ...]:
    """The parts that lie apart from the largest and what is near it (`NEAR_MM`), the largest of them first."""
    of, count = label(mask.voxels, np.ones((3, 3, 3)))
    if count == 1:
        return ()
    places, of = np.argwhere(mask.voxels) + mask.corner, of[mask.voxels]
    volumes = np.bincount(of, _voxel_mm3(stack)[places[:, 0]])
    order = np.argsort(-volumes, kind="stable")
    parts = [places[of == k] for k in order[volumes[order] >= _least(mask, stack)]]
    near = max(NEAR_MM, float(np.sqrt(2) * np.median(np.diff(stack.positions))))
    groups = []
    while parts:
        group, parts = _grown(parts, near, stack)
        groups.append(group)
    return tuple(_part(group, groups[0], stack) for group in groups[1:])


def _grown(
    parts: list[NDArray[np.intp]], near: float, stack: SliceStack
) -> tuple[NDArray[np.intp], list[NDArray[np.intp]]]:
    """The first part with all that is near it, and near that; and the others."""
    main, apart = parts[0], parts[1:]
    while apart:
        tree = cKDTree(stack.centres(main))
        reached = [bool(np.isfinite(tree.query(stack.centres(p), distance_upper_bound=near)[0]).any()) for p in apart]
        if not any(reached):
            break
        main = np.concatenate([main, *(part for part, is_near in zip(apart, reached, strict=True) if is_near)])
        apart = [part for part, is_near in zip(apart, reached, strict=True) if not is_near]
    return main, apart


def holes(mask: VoxelROI, roi: DrawnROI | VoxelROI | None, stack: SliceStack) -> tuple[Part, ...]:
    """The holes of each slice; the largest first."""
    every = range(mask.corner[0], mask.corner[0] + len(mask.voxels))
    chosen = _with_holes(roi, stack).intersection(every) if isinstance(roi, DrawnROI) else every
    each, least, found = _voxel_mm3(stack), _least(mask, stack), []
    for k in sorted(chosen):
        layer = mask.voxels[k - mask.corner[0]]
        inner, _ = label(binary_fill_holes(layer) & ~layer)
        for size in np.bincount(inner.ravel())[1:].tolist():
            found.append(Part(size, size * each[k], (k + 1, k + 1)))
    return tuple(sorted((hole for hole in found if hole.mm3 >= least), key=lambda hole: -hole.mm3))


def volume_mm3(mask: VoxelROI, stack: SliceStack) -> float:
    """Volume of a mask's voxels, each as high as its slice reaches."""
    return float(mask.voxels.sum(axis=(1, 2)) @ _voxel_mm3(stack)[mask.corner[0] :][: len(mask.voxels)])


def _voxel_mm3(stack: SliceStack) -> Floats:
    """Volume of a voxel of each slice."""
    return np.asarray(np.sum(half_spacings(stack.positions), axis=0) * stack.spacing[0] * stack.spacing[1])


def _least(mask: VoxelROI, stack: SliceStack) -> float:
    """Volume from which a part or hole of a lesion matters."""
    return min(SPECK_MM3, SPECK_SHARE * volume_mm3(mask, stack))


def _part(voxels: NDArray[np.intp], main: NDArray[np.intp], stack: SliceStack) -> Part:
    slices = voxels[:, 0]
    return Part(
        len(voxels),
        float(_voxel_mm3(stack)[slices].sum()),
        (int(slices.min()) + 1, int(slices.max()) + 1),
        _direction((stack.centres(voxels).mean(axis=0) - stack.centres(main).mean(axis=0)) @ stack.axes),
    )


def _direction(lps: Floats) -> str:
    axis = int(np.abs(lps).argmax())
    return _TOWARDS[axis][int(lps[axis] > 0)]


def _with_holes(roi: DrawnROI, stack: SliceStack) -> set[int]:
    """The slices that have a contour in another, or one that runs to and fro: they may have holes."""
    planes, _, _ = planes_of_slices(roi, stack, gaps=True)
    return {
        k
        for k, plane in planes.items()
        if len(plane.contours) > 1 or has_channel(stack.to_pixels(plane.contours[0], k))
    }
