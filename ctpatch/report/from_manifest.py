"""What the image and the contours of a manifest's row say of one lesion."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ..build.one_lesion import LesionPlan, plan_read, read_row
from ..contours.roi import DrawnROI, VoxelROI
from ..errors import CtpatchError, InputError, public
from ..geometry import SliceStack
from ..images.image import Box, Image
from ..lesion.lattice import lesion_lattice
from ..manifest import Row
from ..recipe import Recipe
from .from_store import quantiles
from .noise import noise
from .shape import Part, holes, pieces, volume_mm3
from .views import Views, draw_views, ends

SAME_MM = 1e-6
"""Patch centres that are no farther from the store's are the same."""


@dataclass(frozen=True)
class MaskFacts:
    """What the contours say.

    Attributes
    ----------
    voxels, slices : int
    volume_ml : float
    hu : (float, float, float)
        5th, 50th and 95th percentile of the lesion's voxels.
    holes, pieces : tuple of Part
        Holes by slice, and parts apart from the largest; the largest of each first.
    cut : tuple of str
        Borders of the image that the lesion touches.
    """

    voxels: int
    slices: int
    volume_ml: float
    hu: tuple[float, float, float]
    holes: tuple[Part, ...]
    pieces: tuple[Part, ...]
    cut: tuple[str, ...]


@dataclass(frozen=True)
class ScanFacts:
    """What the image says.

    Attributes
    ----------
    pixel_mm : float
        Geometric mean of the spacing of rows and of columns.
    slice_mm : float
        Median spacing of the slices; `slice_range_mm` is the narrowest and the widest.
    noise : float
        HU, in the slice through the centre; NaN where there is too little soft tissue.
    """

    pixel_mm: float
    slice_mm: float
    slice_range_mm: tuple[float, float]
    noise: float


@dataclass(frozen=True)
class RowLook:
    """What a row showed.

    Attributes
    ----------
    scan : ScanFacts or None
        None where the row could not be read.
    mask : MaskFacts or None
        None also where a marked centre stands for it.
    views : Views or None
    differs : str
        What is not as it was when the store was built; empty when all is.
    drawn : VoxelROI or None
        The lesion's voxels, until they are compared with those of the patient's other lesions.
    series : str
        The image that they are of.
    centre : (float, float, float) or None
        Where the lesion's middle, or the marked centre, is: DICOM LPS, mm.
    place : str
        Which of the slices is nearest to it, counted from which end.
    twins : tuple of str
        Which lesions of the patient before it have all but the same voxels.
    """

    scan: ScanFacts | None = None
    mask: MaskFacts | None = None
    views: Views | None = None
    differs: str = ""
    drawn: VoxelROI | None = None
    series: str = ""
    centre: tuple[float, float, float] | None = None
    place: str = ""
    twins: tuple[str, ...] = ()


def look_at_row(
    row: Row, recipe: Recipe, windows: Sequence[Sequence[int]], centers: NDArray[np.float64], label: str, split: str
) -> RowLook:
    """Read a row's image and contours as a build does; `centers` (N, 3), `label` and `split` are the store's."""
    row = replace(row, split=split)
    try:
        image, roi = read_row(row, recipe)
        plan = plan_read(row, image, roi, recipe)
        centre, lattice = plan.planes.point[0], None
        if plan.mask is not None:
            lattice = lesion_lattice(plan.mask, plan.image.stack, recipe.spacing_mm)
            centre = lattice.middle()
        stack = plan.image.stack
        k = int(np.abs(stack.positions - centre[2]).argmin())
        x, y, z = stack.to_lps(centre).tolist()
        return RowLook(
            scan_facts(plan.image, k),
            mask_facts(plan.mask, plan.image, roi) if plan.mask else None,
            draw_views(plan.image, lattice, centre, recipe.spacing_mm, windows),
            _difference(plan, centers, label),
            plan.mask,
            plan.image.uid,
            (x, y, z),
            f"{k + 1} of {len(stack)}, counted from {ends(stack.axes[2])[0]}",
        )
    except CtpatchError as problem:
        found = problem.found if isinstance(problem, InputError) else str(problem)
        return RowLook(differs=f"its image or contours cannot be read any more: {public(found)}")
    except OSError as error:
        return RowLook(differs=f"its image or contours cannot be read any more: {error.strerror}")


def scan_facts(image: Image, k: int) -> ScanFacts:
    """Spacing of an image, and the noise in its slice `k`."""
    stack = image.stack
    steps = np.diff(stack.positions)
    (hu,) = image.read_hu(Box((k, k + 1), (0, stack.shape[0]), (0, stack.shape[1])))
    return ScanFacts(
        float(np.sqrt(stack.spacing[0] * stack.spacing[1])),
        float(np.median(steps)),
        (float(steps.min()), float(steps.max())),
        noise(hu[None], stack.spacing),
    )


def mask_facts(mask: VoxelROI, image: Image, roi: DrawnROI | VoxelROI | None = None) -> MaskFacts:
    """Size, HU and shape of a lesion; `roi` is what its voxels are made of."""
    ends = [(int(low), int(low + size)) for low, size in zip(mask.corner, mask.voxels.shape, strict=True)]
    return MaskFacts(
        int(mask.voxels.sum()),
        int(mask.voxels.any(axis=(1, 2)).sum()),
        volume_mm3(mask, image.stack) / 1000,
        quantiles(image.read_hu(Box(*ends))[mask.voxels]),
        holes(mask, roi, image.stack),
        pieces(mask, image.stack),
        touched(mask, image.stack),
    )


def touched(mask: VoxelROI, stack: SliceStack) -> tuple[str, ...]:
    """Borders of the image that a mask reaches; more of the lesion may lie beyond."""
    sides = ("first slice", "last slice"), ("first row", "last row"), ("first column", "last column")
    found = []
    for (first, last), low, size, whole in zip(
        sides, mask.corner, mask.voxels.shape, (len(stack), *stack.shape), strict=True
    ):
        found += [first] * (low == 0) + [last] * (low + size == whole)
    return tuple(found)


def _difference(plan: LesionPlan, centers: NDArray[np.float64], label: str) -> str:
    if plan.row.label != label:
        return "the manifest gives it another label than the store"
    now = plan.image.stack.to_lps(plan.planes.point)
    if now.shape != centers.shape or not np.allclose(now, centers, rtol=0, atol=SAME_MM):
        return "the store's patches were not cut from this outline: image, contours or manifest have changed since"
    return ""
