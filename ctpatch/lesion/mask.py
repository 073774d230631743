"""From contours to voxels: which voxels of the CT's own grid a drawn ROI holds.

Each slice takes the contour plane nearest to it, at most half a spacing away, and `raster` fills the plane's
paths in the slice's pixel grid. Nothing is rounded, averaged or painted on another slice.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass, replace
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from ..contours.roi import CENTER_ONLY, DrawnROI, VoxelROI, boxed
from ..errors import InputError
from ..geometry import (
    POSITION_TOLERANCE_MM,
    STRAY_FACTOR,
    TIE,
    Floats,
    Gap,
    SliceStack,
    find_gaps,
    half_spacings,
    nearest_slices,
)
from ..images.image import Image, refuse_faults
from ..manifest import overlap_rule
from .between import fill_between
from .overlap import combine, is_joined
from .raster import Corner, fill, winding

SELF_CROSSING_TOLERANCE = 0.05
"""Share of a path's area that may depend on the fill rule (even-odd or non-zero)."""
PLANE_TOLERANCE_SPACING = 0.1
"""Share of the slice spacing within which contours lie in one plane, rounding or a shaky hand aside."""
MAX_SPAN_PX = 2**24
"""Bounding box of one slice's contours beyond which they are garbage."""


@dataclass(frozen=True, eq=False)
class ContourPlane:
    """Contours at one position along n: stack coordinates, (n, 3) each."""

    z: float
    contours: tuple[Floats, ...]


def mask_on_image(roi: DrawnROI | VoxelROI, image: Image, accept: Set[str] = frozenset()) -> VoxelROI:
    """Voxels of a ROI, as `lesion_mask`; an error too where the image has a fault between its ends."""
    stack = image.stack
    if isinstance(roi, DrawnROI):
        places = [float(np.mean(stack.to_stack(points)[:, 2])) for points in roi.contours]
    else:
        places = stack.positions[[roi.corner[0], roi.corner[0] + len(roi.voxels) - 1]].tolist()
    refuse_faults(image, min(places), max(places))
    return lesion_mask(roi, stack, accept)


def lesion_mask(roi: DrawnROI | VoxelROI, stack: SliceStack, accept: Set[str] = frozenset()) -> VoxelROI:
    """Voxels of a ROI.

    Parameters
    ----------
    roi : DrawnROI or VoxelROI
        Voxels are kept as they are.
    stack : SliceStack
        The image's geometry.
    accept : set of str
        The row's words: `overlap=union` and `overlap=xor` combine partly overlapping contours of one slice, `gap`
        leaves contours on a missing slice out; without them these are errors. `between` fills slices without a
        contour between two that have one.

    Returns
    -------
    VoxelROI
        `voxels` (Z, Y, X) bool on the image's grid from `corner`.

    Raises
    ------
    InputError
        When a contour lies on no slice, is not planar, overlaps another without a rule, or no voxel is inside.
    """
    if isinstance(roi, VoxelROI):
        roi = fill_between(roi, stack) if "between" in accept else roi
        return replace(roi, notes=(*roi.notes, *_end_notes(roi, stack)))
    if roi.point is not None:
        raise InputError(f"ROI {roi.name!r} has contours that enclose nothing: 1 POINT", CENTER_ONLY)
    taken, ignored, missing = planes_of_slices(roi, stack, gaps="gap" in accept)
    rule = "xor" if roi.xor else overlap_rule(accept)
    notes = [_left_out(gap, count) for gap, count in Counter(missing).items()]
    notes += [_nearer(z, stack) for z in ignored]
    layers, on_slices = {}, dict[str, list[int]]()
    for k, plane in taken.items():
        paths, path_notes = combine(_pixel_paths(plane, stack, k), rule)
        layers[k] = fill(paths)
        for note in (*path_notes, *_crossing_notes(paths, k)):
            on_slices.setdefault(note, []).append(k)
    notes += [f"{_named(slices)}: {note}" for note, slices in on_slices.items()]
    if len(roi.contours) == 1 and not any(inside.any() for _, inside in layers.values()):
        layers = {k: _nearest_pixel(plane.contours[0], stack, k) for k, plane in taken.items()}
        notes.append("the only contour encloses no voxel centre; the voxel nearest to its middle is the lesion")
    corner, voxels, clipped = _assemble(layers, stack)
    if clipped:
        notes.append(f"{clipped:.2%} of the lesion lies outside the image and is clipped")
    mask = VoxelROI(roi.name, corner, voxels, notes=(*roi.notes, *notes))
    mask = fill_between(mask, stack) if "between" in accept else mask
    return replace(mask, notes=(*mask.notes, *_extent_notes(mask, stack)))


def _left_out(gap: Gap, count: int) -> str:
    """That contours lie where a slice is missing; it begins as all that is said of the gap does."""
    return f"{gap}; {'its contour is' if count == 1 else f'the contours on {count} planes there are'} left out"


def _nearer(z: float, stack: SliceStack) -> str:
    k = int(np.abs(stack.positions - z).argmin())
    away = abs(z - float(stack.positions[k]))
    return f"a contour {away:.4g} mm off slice {k + 1} is ignored: its slice has a nearer one"


def _named(slices: Sequence[int]) -> str:
    """Slices, counted from 1, with runs of them as ranges."""
    runs = [list(run) for _, run in groupby(enumerate(sorted(slices)), key=lambda pair: pair[1] - pair[0])]
    shown = ", ".join(f"{run[0][1] + 1}" + (f"–{run[-1][1] + 1}" if len(run) > 1 else "") for run in runs)
    return f"slice{'s' if len(slices) > 1 else ''} {shown}"


def planes_of_slices(
    roi: DrawnROI, stack: SliceStack, *, gaps: bool
) -> tuple[dict[int, ContourPlane], list[float], list[Gap]]:
    """The contours on each slice; positions of those whose slices have nearer ones, and gaps of those whose is missing.

    Raises
    ------
    InputError
        As `contour_planes` and `assign_planes`; and when a slice is missing, unless the row accepts `gaps`.
    """
    planes = contour_planes(roi, stack)
    missing = [(plane.z, gap) for gap in find_gaps(stack.positions) for plane in planes if gap.misses(plane.z)]
    if missing and not gaps:
        _, gap = missing[0]
        raise InputError(f"{gap} where a contour lies", gap.do, kind="gap")
    absent = {z for z, _ in missing}
    present = [plane for plane in planes if plane.z not in absent]
    return *assign_planes(present, stack), [gap for _, gap in missing]


def contour_planes(roi: DrawnROI, stack: SliceStack) -> tuple[ContourPlane, ...]:
    """Contours grouped by their position along n, in its order.

    Raises
    ------
    InputError
        When the points of a contour leave its plane by half a slice spacing or more.
    """
    steps = np.diff(stack.positions)
    _, above = half_spacings(stack.positions)
    placed = []
    for points in roi.contours:
        contour = stack.to_stack(points)
        z = float(np.mean(contour[:, 2]))
        half = above[np.clip(np.searchsorted(stack.positions, z) - 1, 0, len(steps) - 1)]
        away = float(np.abs(contour[:, 2] - z).max())
        if away >= half:
            found = f"a contour of ROI {roi.name!r} leaves its plane by {away:.4g} mm"
            raise InputError(f"{found}, half a slice spacing is {half:.4g} mm", "contour in the plane of the slices")
        placed.append((z, contour))
    placed.sort(key=lambda item: item[0])
    tolerance = max(POSITION_TOLERANCE_MM, PLANE_TOLERANCE_SPACING * float(np.median(steps)))
    starts = [i for i, (z, _) in enumerate(placed) if i == 0 or z - placed[i - 1][0] > tolerance]
    groups = [placed[a:b] for a, b in zip(starts, [*starts[1:], len(placed)], strict=True)]
    return tuple(ContourPlane(float(np.mean([z for z, _ in g])), tuple(c for _, c in g)) for g in groups)


def assign_planes(planes: Sequence[ContourPlane], stack: SliceStack) -> tuple[dict[int, ContourPlane], list[float]]:
    """The plane of each slice that has one, and positions of planes whose slices all have a nearer one.

    Of two equally near planes a slice takes the one at the lower position.

    Raises
    ------
    InputError
        When a plane is farther than half the local spacing from every slice: its slice is missing.
    """
    taken: dict[int, ContourPlane] = {}
    steps, pairs = np.diff(stack.positions), nearest_slices(stack.positions, [plane.z for plane in planes])
    _refuse_elsewhere(planes, stack.positions)
    for plane, pair in zip(planes, pairs, strict=True):  # by increasing z: a later one must be nearer, not just as near
        if pair[0] < 0:
            away = float(np.abs(stack.positions - plane.z).min())
            half = float(steps[0 if plane.z < 0 else -1]) / 2
            found = f"a contour lies {away:.4g} mm from the nearest slice, half a spacing is {half:.4g} mm"
            raise InputError(f"{found}: its slice is missing", "complete the series, or delete the contour")
        for k in {int(pair[0]), int(pair[1])}:
            margin = TIE * float(steps[max(k - 1, 0)])
            position = stack.positions[k]
            if k not in taken or abs(plane.z - position) < abs(taken[k].z - position) - margin:
                taken[k] = plane
    used = {id(plane) for plane in taken.values()}
    return dict(sorted(taken.items())), [plane.z for plane in planes if id(plane) not in used]


def _refuse_elsewhere(planes: Sequence[ContourPlane], positions: Floats) -> None:
    """Refuse planes that all lie so far off that it is not slices that are missing, but another series or body part."""
    nearest = min((float(np.abs(positions - plane.z).min()) for plane in planes), default=0.0)
    if nearest > STRAY_FACTOR * float(np.diff(positions).max()):
        found = f"the nearest of the contours lies {nearest:.4g} mm from all slices"
        raise InputError(found, "give the series that they were drawn on, or contours drawn on this one")


def _pixel_paths(plane: ContourPlane, stack: SliceStack, k: int) -> list[Floats]:
    """The plane's paths in slice `k` as (column, row).

    Raises
    ------
    InputError
        When they span more pixels than any slice has: they are garbage, and would cost memory.
    """
    paths = [stack.to_pixels(contour, k) for contour in plane.contours]
    width, height = np.ptp(np.concatenate(paths), axis=0).tolist()
    if width * height > MAX_SPAN_PX:
        found = f"the contours on slice {k + 1} span {width:.4g} × {height:.4g} px"
        raise InputError(found, "redraw them, or check that they were drawn on this series")
    return paths


def _crossing_notes(paths: Sequence[Floats], k: int) -> list[str]:
    """A note for each path that winds round a pixel twice or both ways.

    Raises
    ------
    InputError
        When such a path crosses itself and the fill rule decides over more than `SELF_CROSSING_TOLERANCE` of it.
    """
    notes = []
    for path in paths:
        _, turns = winding([path])
        if not turns.size or (turns.max() <= 1 and turns.min() >= -1 and turns.max() * turns.min() >= 0):
            continue
        filled, even_odd = np.count_nonzero(turns), np.count_nonzero(turns & 1)
        if filled - even_odd > SELF_CROSSING_TOLERANCE * filled and not is_joined(path):
            found = f"a contour on slice {k + 1} crosses itself: {even_odd} pixels by the even-odd rule"
            raise InputError(f"{found}, {filled} by the non-zero rule", "redraw the contour")
        notes.append("a contour crosses or touches itself; the even-odd rule decides")
    return notes


def _nearest_pixel(contour: Floats, stack: SliceStack, k: int) -> tuple[Corner, NDArray[np.bool_]]:
    """The pixel nearest to the middle of a contour; of equally near ones the first."""
    points = stack.to_pixels(contour, k)
    column, row = np.ceil((points.min(axis=0) + points.max(axis=0)) / 2 - 0.5 - TIE).astype(int)
    return (int(row), int(column)), np.ones((1, 1), np.bool_)


def _assemble(
    layers: dict[int, tuple[Corner, NDArray[np.bool_]]], stack: SliceStack
) -> tuple[tuple[int, int, int], NDArray[np.bool_], float]:
    """The corner of one box around all layers' voxels inside the image, its content, and the share outside it."""
    found = [
        np.column_stack([np.full(len(at), k), at + corner])
        for k, (corner, inside) in layers.items()
        if len(at := np.argwhere(inside))
    ]
    if not found:
        raise InputError("the contours enclose no voxel", "check that they were drawn on this series")
    voxels = np.concatenate(found)
    visible = voxels[((voxels[:, 1:] >= 0) & (voxels[:, 1:] < stack.shape)).all(axis=1)]
    if not len(visible):
        raise InputError("the contours lie outside the image in-plane", "check that they were drawn on this series")
    return *boxed(visible), 1 - len(visible) / len(voxels)


def _extent_notes(mask: VoxelROI, stack: SliceStack) -> Iterator[str]:
    if empty := np.count_nonzero(~mask.voxels.any(axis=(1, 2))):
        yield f"{empty} slices between the lesion's first and last have no contour; kept as drawn"
    yield from _end_notes(mask, stack)


def _end_notes(mask: VoxelROI, stack: SliceStack) -> Iterator[str]:
    if mask.corner[0] == 0 or mask.corner[0] + len(mask.voxels) == len(stack):
        yield "the lesion reaches the first or last slice: part of it may be missing"
