"""One manifest row: from its files to planes (without decoding a pixel), and from planes to patches."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..contours import open_mask, patient_notes
from ..contours.roi import DrawnROI, References, VoxelROI
from ..errors import InputError, located
from ..geometry import Floats, SliceStack, find_gaps, nearest_pixels, reach
from ..images.image import Image, refuse_faults
from ..images.series import read_series
from ..lesion.lattice import LesionLattice, lesion_lattice
from ..lesion.mask import mask_on_image
from ..manifest import Row
from ..patches.planes import Planes, center_plane, lesion_rng, random_planes
from ..patches.render import rendered
from ..patches.sample import patch_extent, sampler
from ..recipe import SIZE, Recipe
from ..store.records import Lesion, Patches, deflate
from ..store.schema import PATCHES

NO_REFERENCES = References()
_SHARE = 32
"""Patches that are worth a thread."""


@dataclass(frozen=True, eq=False)
class LesionPlan:
    """Where a lesion's patches are cut; everything but the pixels.

    Attributes
    ----------
    row : Row
    image : Image
    mask : VoxelROI or None
        None where a marked centre stands for it.
    planes : Planes
    notes : tuple of str
        What deserves a line in the report.
    """

    row: Row
    image: Image
    mask: VoxelROI | None
    planes: Planes
    notes: tuple[str, ...]


def plan_lesion(row: Row, recipe: Recipe) -> LesionPlan:
    """Read a row's headers and contours and place its planes.

    Raises
    ------
    InputError
        When anything about the image, the contours or their fit is wrong; without patient and line.
    """
    return plan_read(row, *read_row(row, recipe), recipe)


def plan_read(row: Row, image: Image, roi: DrawnROI | VoxelROI | None, recipe: Recipe) -> LesionPlan:
    """The plan of a row whose image and ROI are read (`read_row`), as `plan_lesion`."""
    marked: ArrayLike | None = row.center
    if marked is None and row.split != "train" and isinstance(roi, DrawnROI):
        marked = roi.point
    mask: VoxelROI | None = None
    lattice: LesionLattice | None = None
    notes: tuple[str, ...] = ("cut at the marked centre", *(roi.notes if roi else ()))
    if marked is not None:
        planes = center_plane(_inside(image.stack, np.array(marked), row))
    else:
        assert roi is not None
        with located(row.mask or ""):
            mask = mask_on_image(roi, image, row.accept)
        lattice, notes = lesion_lattice(mask, image.stack, recipe.spacing_mm), mask.notes
        planes = _place(lattice, row, recipe)
    notes += tuple(_check_reach(image, planes, lattice, row, recipe))
    return LesionPlan(row, image, mask, planes, _said_once(image.notes + notes, image.stack))


def cut_lesion(plan: LesionPlan, recipe: Recipe, *, keep_uid: bool = False) -> tuple[Lesion, Patches, tuple[str, ...]]:
    """Sample, render and compress the patches of a plan; also notes."""
    row, planes = plan.row, plan.planes
    hu, images, notes = _images(plan, recipe)
    columns = {
        "plane": planes.plane,
        "copy": planes.copy,
        "center": plan.image.stack.to_lps(planes.point),
        "angle": planes.angle,
        "shift": planes.shift,
    }
    lesion = Lesion(
        row.patient_id,
        row.lesion_id,
        row.split,
        row.label,
        series=plan.image.uid if keep_uid else hashlib.sha256(plan.image.uid.encode()).hexdigest(),
        diameter_mm=longest_diameter(plan.mask, plan.image.stack) if plan.mask else float("nan"),
        n_readers=plan.mask.n_readers if plan.mask else 0,
        aux=dict(row.aux),
    )
    patches = Patches(hu, images, {name: np.asarray(v, PATCHES[name].dtype) for name, v in columns.items()})
    return lesion, patches, notes


def _threads(recipe: Recipe) -> int:
    """How many share a lesion: HU alone take too short a time, and a build's workers are told to use one."""
    return 2 if recipe.rgb and os.environ.get("OMP_NUM_THREADS") != "1" else 1


def _images(plan: LesionPlan, recipe: Recipe) -> tuple[NDArray[np.int16], dict[str, list[bytes]], tuple[str, ...]]:
    """HU, compressed images by name, a stream per patch, notes; threads share patches of which pictures are made."""
    sample = sampler(plan.image, plan.planes, recipe.spacing_mm)

    def make(some: slice) -> tuple[NDArray[np.int16], NDArray[np.int64], dict[str, list[bytes]]]:
        hu, outside = sample(some)
        images = {"hu": deflate("hu", hu)}
        if recipe.rgb:
            images["rgb"] = deflate("rgb", rendered(hu))
        return hu, outside, images

    share = max(_SHARE, -(-len(plan.planes) // _threads(recipe)))
    shares = [slice(start, start + share) for start in range(0, len(plan.planes), share)]
    if len(shares) == 1:
        made = [make(shares[0])]
    else:
        with ThreadPoolExecutor(len(shares)) as threads:
            made = list(threads.map(make, shares))
    several, outside, images = zip(*made, strict=True)
    hu = np.concatenate(several)
    streams = {name: [stream for piece in images for stream in piece[name]] for name in images[0]}
    return hu, streams, tuple(_pixel_notes(hu, np.concatenate(outside)))


def read_row(row: Row, recipe: Recipe) -> tuple[Image, DrawnROI | VoxelROI | None]:
    """The image of a row, and its ROI unless a marked centre stands for it.

    A series is chosen by the row's `series_uid`, else by what the contours refer to.
    """
    if row.mask is None:
        return read_image(row), None
    if row.mask == row.image:
        raise InputError("the mask is the image itself", "give the lesion's contours or mask", row.mask)
    mask = open_mask(row.mask)
    if row.center is not None:
        return read_image(row, mask.references()), None
    image = read_image(row, mask.references(row.roi))
    roi = mask.read(row.roi, image, row.accept, recipe)
    return image, replace(roi, notes=(*patient_notes(mask, image), *roi.notes))


def read_image(row: Row, refers: References = NO_REFERENCES) -> Image:
    """A row's CT: a volume file, or a DICOM series."""
    from ..images.volume import is_volume_file, read_volume

    if is_volume_file(row.image):
        return read_volume(row.image, row.accept)
    return read_series(row.image, row.series_uid, refers.series_uids, refers.sop_uids, row.accept, row.acquisition)


def longest_diameter(mask: VoxelROI, stack: SliceStack) -> float:
    """Largest distance in mm between two voxel centres of one slice."""
    longest = 0.0
    for layer in mask.voxels:
        rows = np.flatnonzero(layer.any(axis=1))
        if not len(rows):
            continue
        first, last = layer[rows].argmax(axis=1), layer.shape[1] - 1 - layer[rows, ::-1].argmax(axis=1)
        y, x = np.tile(rows, 2) * stack.spacing[0], np.concatenate([first, last]) * stack.spacing[1]
        longest = max(longest, float((np.subtract.outer(y, y) ** 2 + np.subtract.outer(x, x) ** 2).max()))
    return math.sqrt(longest)


def _inside(stack: SliceStack, center: Floats, row: Row) -> Floats:
    """A marked centre in stack coordinates, refused outside the image."""
    point = stack.to_stack(center)
    low, high = reach(stack.positions)
    column, line = stack.to_pixels(point, int(np.abs(stack.positions - point[2]).argmin()))
    pixels = [nearest_pixels(n, at).max() for n, at in zip(stack.shape, (line, column), strict=True)]
    if not low <= point[2] <= high or min(pixels) < 0:
        shown = " ".join(f"{v:g}" for v in center)
        raise InputError(f"the centre {shown} mm lies outside the image", "give x y z in mm, DICOM LPS", row.image)
    return point


def _place(lattice: LesionLattice, row: Row, recipe: Recipe) -> Planes:
    if row.split != "train":
        return center_plane(lattice.middle())
    return random_planes(
        lattice,
        lesion_rng(recipe.seed, row.patient_id, row.lesion_id),
        patches=recipe.patches,
        copies=recipe.augment,
        rotate=recipe.rotate_deg,
        shift=recipe.shift_mm,
    )


def _check_reach(
    image: Image, planes: Planes, lattice: LesionLattice | None, row: Row, recipe: Recipe
) -> Iterator[str]:
    """Refuse a fault, or a missing slice unless the row accepts it, within reach of the lesion or its patches."""
    low, high = (extent[2] for extent in patch_extent(*planes.pixels(recipe.spacing_mm)))
    if lattice:
        low = min(low, lattice.corner[0] * recipe.spacing_mm)
        high = max(high, (lattice.corner[0] + len(lattice.inside) - 1) * recipe.spacing_mm)
    refuse_faults(image, low, high)
    for gap in find_gaps(image.stack.positions):
        if low >= gap.stop or high <= gap.start:
            continue
        if "gap" not in row.accept:
            raise InputError(f"{gap} where patches are cut", gap.do, row.image, kind="gap")
        yield f"{gap}; accepted by the manifest: HU are interpolated across"


def _said_once(notes: tuple[str, ...], stack: SliceStack) -> tuple[str, ...]:
    """The notes, what begins with the same gap as one."""
    for head in map(str, find_gaps(stack.positions)):
        if told := [note for note in notes if note.startswith(head)]:
            whole = head + "".join(note.removeprefix(head) for note in told)
            notes = tuple(whole if note == told[0] else note for note in notes if note not in told[1:])
    return notes


def _pixel_notes(hu: NDArray[np.int16], outside: NDArray[np.int64]) -> Iterator[str]:
    if mostly := np.count_nonzero(outside > SIZE * SIZE // 2):
        yield f"{mostly} of {len(hu)} patches lie more than half outside the image"
    if saturated := np.count_nonzero(hu == np.iinfo(np.int16).max):
        yield f"{saturated} pixels are saturated at {np.iinfo(np.int16).max} HU"
    if constant := np.count_nonzero(hu.min(axis=(1, 2)) == hu.max(axis=(1, 2))):
        yield f"{constant} patches are constant"
