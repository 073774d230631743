"""DICOM Segmentation objects on an image's grid: frames in any order, sparse, flipped, of one segment.

pydicom reads them. highdicom's volumes (0.28.2) know evenly spaced slices that lie straight above each other: a tilted
stack raises, an uneven one comes back with a slice more where a gap is double, and without ReferencedSegmentNumber
among the dimension indices there is none. They also run against row × column: index 0 is the highest slice.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import InputError, located, short_uid
from ..geometry import POSITION_TOLERANCE_MM, POSITION_TOLERANCE_SPACING, Floats, SliceStack, position_tolerance
from ..images.image import Image
from ..images.voxel_grid import Grid
from ..recipe import Recipe
from .mask_file import DEFAULTS, NO_WORDS, ListedROI, cell_of, named_like, normal
from .reference import OTHER_IMAGE, other_frame
from .resample import (
    DIRECTION_TOLERANCE,
    Mask,
    Place,
    off_grid,
    placed_roi,
    resampled_roi,
    slice_corners,
    wrong_grid,
)
from .roi import References, VoxelROI
from .seg_file import EXPORT_AGAIN, FRACTION, SegFrame, SegInfo, seg_info, segment_masks


@dataclass(frozen=True, eq=False)
class SegFile:
    """A DICOM SEG as a `MaskFile`; its pixels are read with a segment."""

    path: Path
    info: SegInfo
    patient_id: str = ""

    def references(self, roi: str | None = None) -> References:
        """The series, images and frame that the whole file refers to."""
        return self.info.refers

    def rois(self) -> Iterator[ListedROI | InputError]:
        """Each segment, and why none of its names tells it apart."""
        for number, label in self.info.segments:
            try:
                cell = cell_of(number, label, lambda text: choose_segment(self.info.segments, text)[0])
                yield ListedROI(cell, self.info.refers)
            except InputError as error:
                yield error

    def read(self, roi: str, image: Image, accept: Set[str] = NO_WORDS, recipe: Recipe = DEFAULTS) -> VoxelROI:
        """One segment on the image's grid.

        `roi` is its label (compared after NFKC and strip; letter case counts only where it must) or its number.
        """
        with located(self.path):
            notes = _belonging(self.info.refers, image, accept)
            number, label = choose_segment(self.info.segments, roi)
            shown = segment_masks(self.path, self.info.kind, number)
            if not shown:
                do = "name another one in `roi`, or leave the row out"
                raise InputError(f"segment {number} ({label!r}) is empty", do)
            if self.info.kind == "FRACTIONAL":
                notes += (f"fractional segmentation: voxels of at least {FRACTION:g} are in",)
            problem = _misfit([frame for frame, _ in shown], image.stack)
            if isinstance(problem, float):
                voxels, first = _on_slices(shown, image.stack)
                return placed_roi(label or str(number), voxels, Place(first, 0, 0, problem), notes)
            if "resample" not in accept:
                raise problem
            return resampled_roi(label or str(number), *_dense(shown), image.stack, notes)


def open_seg(path: Path, patient_id: str = "") -> SegFile:
    """Read what a segmentation refers to and its segments; see `seg_file.seg_info`. Its header told its PatientID."""
    return SegFile(path, seg_info(path), patient_id)


def choose_segment(segments: Sequence[tuple[int, str]], roi: str) -> tuple[int, str]:
    """The one segment that `roi` names by its label, or else by its number.

    Raises
    ------
    InputError
        When none or several are meant.
    """
    listed = ", ".join(f"{number} {label!r}" for number, label in segments) or "none"
    wanted = normal(roi)
    if not wanted:
        found = list(segments)
    else:
        found = [segments[i] for i in named_like(roi, [label for _, label in segments])]
        found = found or [segment for segment in segments if str(segment[0]) == wanted]
    if len(found) == 1:
        return found[0]
    if not found:
        raise InputError(f"no segment {roi!r}; there are: {listed}", "give a segment's label or number in `roi`")
    if not wanted:
        raise InputError(f"several segments: {listed}", "give a segment's label or number in `roi`")
    numbers = " and ".join(str(number) for number, _ in found)
    raise InputError(f"roi {roi!r} means segments {numbers}; there are: {listed}", "give the segment's number in `roi`")


def _belonging(refers: References, image: Image, accept: Set[str]) -> tuple[str, ...]:
    """Notes on how a segmentation and an image belong together; refused when they do not, unless the row accepts it."""
    if not image.sop_uids:
        return ("the image is a volume file without UIDs: the segmentation was placed by its coordinates alone",)
    if notes := other_frame(refers, image, accept):
        return notes
    if image.uid in refers.series_uids:
        elsewhere = refers.sop_uids and not refers.sop_uids & set(image.sop_uids)
        return ("the segmentation refers to other images of this series: another phase's?",) if elsewhere else ()
    if refers.frame_of_reference and image.frame_of_reference:
        return ("the segmentation refers to another series, or to none, of the same frame of reference",)
    if "frame" in accept:
        return ("a segmentation that refers to another series, or to none, was accepted",)
    found = f"it refers to series {refers.series}, not to {short_uid(image.uid)}"
    raise InputError(f"{found}, and shares no FrameOfReferenceUID with it", OTHER_IMAGE)


def _misfit(frames: Sequence[SegFrame], stack: SliceStack) -> InputError | float:
    """Why these frames are not slices of the image; how far in mm they are off at most, when they are."""
    farthest = 0.0
    expected = slice_corners(stack)
    for frame in frames:
        grid, reorder = frame.grid.towards(stack.axes)
        k, off = _nearest_slice(grid, stack)
        corners = np.array([[grid.origin + steps @ grid.steps[:2] for steps in _ends(grid)]])
        on_it = corners - off * stack.axes[2]
        flat = off_grid(on_it, expected[[k]], stack)
        if reorder.order[2] != 2 or grid.size[:2] != stack.shape[::-1] or flat is None:
            return wrong_grid(_as_stack(frames), stack)
        away = off_grid(corners, expected[[k]], stack)
        if away is None:
            found = f"frame {frame.index + 1} is {abs(off):.3g} mm from the nearest slice of the image"
            return InputError(found, "give the series it was drawn on, or accept `resample` for this row")
        farthest = max(farthest, away)
    return farthest


def _ends(grid: Grid) -> list[tuple[int, int]]:
    return [(i, j) for j in (0, grid.size[1] - 1) for i in (0, grid.size[0] - 1)]


def _nearest_slice(grid: Grid, stack: SliceStack) -> tuple[int, float]:
    """The slice nearest to a plane, and how far along n the plane is from it."""
    off = stack.to_stack(grid.origin)[2] - stack.positions
    k = int(np.abs(off).argmin())
    return k, float(off[k])


def _on_slices(shown: Sequence[tuple[SegFrame, Mask]], stack: SliceStack) -> tuple[Mask, int]:
    """Masks of frames that fit as whole slices, and the first of these slices."""
    slices: dict[int, Mask] = {}
    for frame, mask in shown:
        grid, reorder = frame.grid.towards(stack.axes)
        k, _ = _nearest_slice(grid, stack)
        if k in slices:
            raise InputError(f"two frames of the segment lie on slice {k + 1} of the image", EXPORT_AGAIN)
        slices[k] = reorder(mask[None])[0]
    first = min(slices)
    voxels = np.zeros((max(slices) - first + 1, *stack.shape), bool)
    for k, mask in slices.items():
        voxels[k - first] = mask
    return voxels, first


def _as_stack(frames: Sequence[SegFrame]) -> SliceStack:
    """The frames as a stack, in order along their normal; all must be oriented as the first."""
    grid = frames[0].grid
    lengths = np.linalg.norm(grid.steps, axis=1)
    axes = grid.steps / lengths[:, None]
    origins = np.array(sorted((frame.grid.origin for frame in frames), key=lambda point: point @ axes[2]))
    return SliceStack(axes, origins, (lengths[1], lengths[0]), (grid.size[1], grid.size[0]))


def _dense(shown: Sequence[tuple[SegFrame, Mask]]) -> tuple[Mask, SliceStack]:
    """Sparse frames as an evenly spaced stack, after an empty frame: so a single one is a stack too."""
    shown = sorted(shown, key=lambda item: float(item[0].grid.origin @ item[0].grid.steps[2]))
    frames = [frame for frame, _ in shown]
    if not all(np.allclose(p.grid.steps, frames[0].grid.steps, rtol=0, atol=DIRECTION_TOLERANCE) for p in frames):
        raise InputError("its frames differ in orientation or pixel spacing", EXPORT_AGAIN)
    stack = _as_stack(frames)
    step = _step(frames[0], np.diff(stack.positions))
    index = np.rint(stack.positions / step).astype(int)
    move = (stack.origins[-1] - stack.origins[0]) / index[-1] if index[-1] else step * stack.axes[2]
    apart = np.linalg.norm(stack.origins - stack.origins[0] - index[:, None] * move, axis=1).max()
    if apart > position_tolerance(step):
        raise InputError(f"its frames are not evenly spaced: one is {apart:.3g} mm off", "save it on the image's grid")
    places = np.arange(-1, index[-1] + 1)[:, None]
    voxels = np.zeros((len(places), *stack.shape), bool)
    voxels[index + 1] = [mask for _, mask in shown]
    return voxels, SliceStack(stack.axes, stack.origins[0] + places * move, stack.spacing, stack.shape)


def _step(frame: SegFrame, steps: Floats) -> float:
    """Distance between neighbouring frames in mm; where frames are left out it must be known for sure."""
    declared = frame.between or (0.0 if len(steps) else frame.thickness)
    step = float(steps.min()) if len(steps) else declared
    if step <= POSITION_TOLERANCE_MM:
        raise InputError("two frames lie at one position, or a single one has no thickness", EXPORT_AGAIN)
    if declared and abs(step - declared) > POSITION_TOLERANCE_SPACING * step:
        found = f"its frames are {step:.6g} mm apart but SpacingBetweenSlices is {declared:.6g} mm"
        raise InputError(found, "save it on the image's grid")
    return step
