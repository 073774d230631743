"""Label maps in NIfTI, NRRD and MetaImage files: whole numbers on a grid, one number one ROI."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import InputError, located
from ..images.image import Image
from ..images.volume import VolumeFile, open_volume
from ..recipe import Recipe
from .mask_file import DEFAULTS, NO_WORDS, ListedROI
from .resample import Mask, bounding_roi, fits, resampled_roi, slice_corners, wrong_grid
from .roi import References, VoxelROI

LABEL_TOLERANCE = 1e-6
"""How far a label may be from a whole number and still be meant as one."""
_SHOWN = 10


@dataclass(frozen=True)
class LabelMap:
    """A label map as a `MaskFile`; it does not say which image it was drawn on, its grid must tell."""

    path: Path

    def references(self, roi: str | None = None) -> References:
        """None."""
        return References()

    def rois(self) -> Iterator[ListedROI]:
        """None: nothing says which image they would go with."""
        return iter(())

    def read(self, roi: str, image: Image, accept: Set[str] = NO_WORDS, recipe: Recipe = DEFAULTS) -> VoxelROI:
        """The voxels of one label's value; the file's axes may be permuted and flipped against the image's."""
        file, stack = open_volume(self.path), image.stack
        grid, reorder = file.grid.towards(stack.axes)
        with located(self.path):
            source = grid.stack()
            same = (len(source), source.shape) == (len(stack), stack.shape) and fits(slice_corners(source), stack)
            if not (same or "resample" in accept):
                raise wrong_grid(source, stack)
            value = _choose(_labels(file), roi)
            voxels = reorder(_where(file, value))
            return bounding_roi(str(value), voxels) if same else resampled_roi(str(value), voxels, source, stack)


def _labels(file: VolumeFile) -> list[int]:
    found: set[int] = set()
    for plane in file.stored:
        with np.errstate(all="ignore"):  # what is infinite or no number is refused, not warned of
            values = file.values(plane)
            values = values[values != 0]
            labels = values if values.dtype.kind in "iu" else np.rint(values)
            odd = values[~(np.abs(values - labels) <= LABEL_TOLERANCE)]
        if odd.size:
            raise InputError(
                f"value {odd[0]:g} is not a whole number", "give a label map, not an image or probabilities"
            )
        found.update(np.unique(labels).tolist())
    return sorted(int(label) for label in found - {0})


def _where(file: VolumeFile, value: int) -> Mask:
    """The voxels of label `value`, (k, j, i), plane by plane."""
    mask = np.empty(file.grid.size[::-1], bool)
    for plane, out in zip(file.stored, mask, strict=True):
        values = file.values(plane)
        out[...] = (values if values.dtype.kind in "iu" else np.rint(values)) == value
    return mask


def _choose(labels: Sequence[int], roi: str) -> int:
    text = roi.strip()
    present = ", ".join(map(str, labels[:_SHOWN])) + (f", … ({len(labels)} labels)" if len(labels) > _SHOWN else "")
    if not labels:
        raise InputError("the mask is empty: every voxel is 0", "give the mask that holds the lesion")
    if not text and len(labels) == 1:
        return labels[0]
    if not text:
        raise InputError(f"the mask holds several labels: {present}", "name the lesion's label in `roi`")
    if not re.fullmatch(r"[+-]?\d+(\.0*)?", text):
        raise InputError(f"roi {text!r} is not a label value; present: {present}", "give one of these in `roi`")
    value = int(text.partition(".")[0])
    if value not in labels:
        raise InputError(f"no voxel has label {value}; present: {present}", "give one of these in `roi`")
    return value
