"""DICOM Segmentation objects on an image's grid: frames in any order, sparse, flipped, of one segment."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..dicom.dataset import parsing, read_dataset
from ..errors import InputError, short_uid
from ..geometry import POSITION_TOLERANCE_MM, POSITION_TOLERANCE_SPACING, Floats, SliceStack, position_tolerance
from ..images.image import Image
from ..images.voxel_grid import Grid
from .reference import OTHER_IMAGE, other_frame
from .resample import DIRECTION_TOLERANCE, Mask, bounding_roi, fits, resampled_roi, wrong_grid
from .roi import VoxelROI
from .seg_file import EXPORT_AGAIN, FRACTION, Plane, SegInfo, decode, read_info, read_planes, seg_info

__all__ = ["check_reference", "choose_segment", "read_seg", "seg_info"]


def read_seg(path: str | Path, roi: str, image: Image, *, frame_ok: bool = False, resample: bool = False) -> VoxelROI:
    """Read one segment onto the image's grid.

    Parameters
    ----------
    path : path
    roi : str
        The segment's label (compared after NFKC and strip; letter case counts only where it must) or its number; blank
        when there is a single segment.
    image : Image
    frame_ok : bool
        Accept another frame of reference, or a reference to another series.
    resample : bool
        Take the nearest voxel where the grids differ.

    Raises
    ------
    InputError
        When the file cannot be read, belongs to another image, has no such segment, or a frame of it is not on the
        image's grid.
    """
    path = Path(path)
    try:
        return _placed(path, roi, image, frame_ok, resample)
    except InputError as error:
        raise error.at(where=path) from None


def _placed(path: Path, roi: str, image: Image, frame_ok: bool, resample: bool) -> VoxelROI:
    dataset = read_dataset(path, force=True)
    with parsing(path):
        info = read_info(dataset)
    notes = check_reference(info, image, frame_ok)
    number, label = choose_segment(info.segments, roi)
    name = label or str(number)
    with parsing(path):
        shown = decode(path, dataset, read_planes(dataset, info.kind, number), info.kind, number)
    if not shown:
        raise InputError(f"segment {number} ({label!r}) is empty", "name another one in `roi`, or leave the row out")
    if info.kind == "FRACTIONAL":
        notes += (f"fractional segmentation: voxels of at least {FRACTION:g} are in",)
    problem = _misfit([plane for plane, _ in shown], image.stack)
    if problem is None:
        return bounding_roi(name, *_on_slices(shown, image.stack), notes)
    if not resample:
        raise problem
    return resampled_roi(name, *_dense(shown), image.stack, notes)


def choose_segment(segments: Sequence[tuple[int, str]], roi: str) -> tuple[int, str]:
    """The one segment that `roi` names by label or number.

    Raises
    ------
    InputError
        When none or several are meant.
    """
    listed = ", ".join(f"{number} {label!r}" for number, label in segments) or "none"
    wanted = _normal(roi)
    if not wanted:
        found = list(segments)
    else:
        found = [s for s in segments if _normal(s[1]) == wanted]
        found = found or [s for s in segments if _normal(s[1]).casefold() == wanted.casefold()]
        found += [s for s in segments if str(s[0]) == wanted and s not in found]
    if len(found) == 1:
        return found[0]
    if not found:
        raise InputError(f"no segment {roi!r}; there are: {listed}", "give a segment's label or number in `roi`")
    if not wanted:
        raise InputError(f"several segments: {listed}", "give a segment's label or number in `roi`")
    numbers = " and ".join(str(number) for number, _ in found)
    raise InputError(f"roi {roi!r} means segments {numbers}; there are: {listed}", "give the segment's number in `roi`")


def check_reference(info: SegInfo, image: Image, frame_ok: bool = False) -> tuple[str, ...]:
    """Notes on how a segmentation and an image belong together.

    Raises
    ------
    InputError
        When they do not, and `frame_ok` does not say otherwise.
    """
    if not image.sop_uids:
        return ("the image is a volume file without UIDs: the segmentation was placed by its coordinates alone",)
    if notes := other_frame(info.frame_of_reference, image, frame_ok):
        return notes
    if image.uid in info.series_uids:
        return ()
    if info.frame_of_reference and image.frame_of_reference:
        return ("the segmentation refers to another series, or to none, of the same frame of reference",)
    if frame_ok:
        return ("a segmentation that refers to another series, or to none, was accepted",)
    theirs = ", ".join(map(short_uid, info.series_uids)) or "(none)"
    found = f"it refers to series {theirs}, not to {short_uid(image.uid)}, and shares no FrameOfReferenceUID with it"
    raise InputError(found, OTHER_IMAGE)


def _normal(text: str) -> str:
    return unicodedata.normalize("NFKC", text).strip()


def _misfit(planes: Sequence[Plane], stack: SliceStack) -> InputError | None:
    """Why these frames are not slices of the image; None when they are."""
    for plane in planes:
        grid, reorder = plane.grid.towards(stack.axes)
        k, off = _nearest_slice(grid, stack)
        corners = np.array([[grid.origin + steps @ grid.steps[:2] for steps in _ends(grid)]])
        on_it = corners - off * stack.axes[2]
        if reorder.order[2] != 2 or grid.size[:2] != stack.shape[::-1] or not fits(on_it, stack, [k]):
            return wrong_grid(_as_stack(planes), stack)
        if not fits(corners, stack, [k]):
            found = f"frame {plane.index + 1} is {abs(off):.3g} mm from the nearest slice of the image"
            return InputError(found, "give the series it was drawn on, or accept `resample` for this row")
    return None


def _ends(grid: Grid) -> list[tuple[int, int]]:
    return [(i, j) for j in (0, grid.size[1] - 1) for i in (0, grid.size[0] - 1)]


def _nearest_slice(grid: Grid, stack: SliceStack) -> tuple[int, float]:
    """The slice nearest to a plane, and how far along n the plane is from it."""
    off = stack.to_stack(grid.origin)[2] - stack.positions
    k = int(np.abs(off).argmin())
    return k, float(off[k])


def _on_slices(shown: Sequence[tuple[Plane, Mask]], stack: SliceStack) -> tuple[Mask, int]:
    """Masks of planes that fit as whole slices, and the first of these slices."""
    slices: dict[int, Mask] = {}
    for plane, mask in shown:
        grid, reorder = plane.grid.towards(stack.axes)
        k, _ = _nearest_slice(grid, stack)
        if k in slices:
            raise InputError(f"two frames of the segment lie on slice {k + 1} of the image", EXPORT_AGAIN)
        slices[k] = reorder(mask[None])[0]
    first = min(slices)
    voxels = np.zeros((max(slices) - first + 1, *stack.shape), bool)
    for k, mask in slices.items():
        voxels[k - first] = mask
    return voxels, first


def _as_stack(planes: Sequence[Plane]) -> SliceStack:
    """The planes as a stack, in order along their normal; all must be oriented as the first."""
    grid = planes[0].grid
    lengths = np.linalg.norm(grid.steps, axis=1)
    axes = grid.steps / lengths[:, None]
    origins = np.array(sorted((plane.grid.origin for plane in planes), key=lambda point: point @ axes[2]))
    return SliceStack(axes, origins, (lengths[1], lengths[0]), (grid.size[1], grid.size[0]))


def _dense(shown: Sequence[tuple[Plane, Mask]]) -> tuple[Mask, SliceStack]:
    """Sparse planes as an evenly spaced stack, after an empty plane: so a single one is a stack too."""
    shown = sorted(shown, key=lambda item: float(item[0].grid.origin @ item[0].grid.steps[2]))
    planes = [plane for plane, _ in shown]
    if not all(np.allclose(p.grid.steps, planes[0].grid.steps, rtol=0, atol=DIRECTION_TOLERANCE) for p in planes):
        raise InputError("its frames differ in orientation or pixel spacing", EXPORT_AGAIN)
    stack = _as_stack(planes)
    step = _step(planes[0], np.diff(stack.positions))
    index = np.rint(stack.positions / step).astype(int)
    move = (stack.origins[-1] - stack.origins[0]) / index[-1] if index[-1] else step * stack.axes[2]
    apart = np.linalg.norm(stack.origins - stack.origins[0] - index[:, None] * move, axis=1).max()
    if apart > position_tolerance(step):
        raise InputError(f"its frames are not evenly spaced: one is {apart:.3g} mm off", "save it on the image's grid")
    places = np.arange(-1, index[-1] + 1)[:, None]
    voxels = np.zeros((len(places), *stack.shape), bool)
    voxels[index + 1] = [mask for _, mask in shown]
    return voxels, SliceStack(stack.axes, stack.origins[0] + places * move, stack.spacing, stack.shape)


def _step(plane: Plane, steps: Floats) -> float:
    """Distance between neighbouring planes in mm; where planes are left out it must be known for sure."""
    declared = plane.between or (0.0 if len(steps) else plane.thickness)
    step = float(steps.min()) if len(steps) else declared
    if step <= POSITION_TOLERANCE_MM:
        raise InputError("two frames lie at one position, or a single one has no thickness", EXPORT_AGAIN)
    if declared and abs(step - declared) > POSITION_TOLERANCE_SPACING * step:
        found = f"its frames are {step:.6g} mm apart but SpacingBetweenSlices is {declared:.6g} mm"
        raise InputError(found, "save it on the image's grid")
    return step
