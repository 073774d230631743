"""Label maps in NIfTI, NRRD and MetaImage files: whole numbers on a grid, one number one ROI."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError, located
from ..images.image import Image
from ..images.volume import VolumeFile, open_volume
from ..recipe import Recipe
from .mask_file import DEFAULTS, NO_WORDS, ListedROI
from .resample import Mask, place_of, placed_roi, resampled_roi, within, wrong_grid
from .roi import References, VoxelROI
from .slicer_segments import choose_segment, listed, read_segments

LABEL_TOLERANCE = 1e-6
"""How far a label may be from a whole number and still be meant as one."""
FINE_SLOPE = 1e-2
"""A scaling of stored integers by less than this is a program's, of floats over all that the type holds."""
_SHOWN = 10


@dataclass(frozen=True)
class LabelMap:
    """A label map as a `MaskFile`; it does not say which image it was drawn on, its grid must tell."""

    patient_id: ClassVar[str] = ""

    path: Path

    def references(self, roi: str | None = None) -> References:
        """None."""
        return References()

    def rois(self) -> Iterator[ListedROI]:
        """None: nothing says which image they would go with."""
        return iter(())

    def read(self, roi: str, image: Image, accept: Set[str] = NO_WORDS, recipe: Recipe = DEFAULTS) -> VoxelROI:
        """The voxels of one label's value, or of one segment that 3D Slicer has named.

        The file's axes may be permuted and flipped against the image's, and it may hold a part of the image only.
        """
        file, stack = open_volume(self.path, layered=True), image.stack
        grid, reorder = file.grid.towards(stack.axes)
        i, j, k = (max(n, 2) for n in grid.size)  # cut down to one slice, row or column: an empty one more beside it
        added = [(0, more - n) for more, n in zip((k, j, i), grid.size[::-1], strict=True)]
        grid = replace(grid, size=(i, j, k))
        with located(self.path):
            source = grid.stack()
            place = place_of(source, stack)
            if place is None and "resample" not in accept:
                raise wrong_grid(source, stack)
            name, value, stored = self._chosen(file, roi)
            voxels = np.pad(reorder(_where(file, stored, value)), added)
            if not voxels.any():
                raise InputError(f"segment {name!r} is empty", "name another one in `roi`, or leave the row out")
            if place and within(voxels, place, stack):
                return placed_roi(name, voxels, place)
            if "resample" in accept:
                return resampled_roi(name, voxels, source, stack)
            raise InputError(f"voxels of {name!r} lie outside the image", "give the image that it was drawn on")

    def _chosen(self, file: VolumeFile, roi: str) -> tuple[str, int, NDArray[Any]]:
        """Name and value of the label that `roi` means, and the layer of stored values that it is in."""
        segments = read_segments(self.path)
        if segment := choose_segment(segments, roi):
            return segment.name, segment.label, file.layer(segment.layer)
        if segments and (len(segments) > 1 or file.layers > 1):
            found = f"roi {roi!r} is none of its segments" if roi else "several segments"
            raise InputError(f"{found}: {listed(segments)}", "give a segment's name in `roi`")
        if file.layers > 1:
            raise InputError(f"{file.layers} layers without names of segments", "save the one that is meant")
        value = _choose(_labels(file), roi)
        return str(value), value, file.stored


def _tolerance(file: VolumeFile) -> float:
    """`LABEL_TOLERANCE`; half a step of floats stored as scaled integers, as nibabel does with a CT's header."""
    scaled = file.dtype.kind in "iu" and abs(file.slope) < FINE_SLOPE
    return max(LABEL_TOLERANCE, abs(file.slope) / 2) if scaled else LABEL_TOLERANCE


def _labels(file: VolumeFile) -> list[int]:
    found: set[int] = set()
    tolerance = _tolerance(file)
    for plane in file.stored:
        with np.errstate(all="ignore"):  # what is infinite or no number is refused, not warned of
            values = file.values(plane)
            values = values[values != 0]
            labels = values if values.dtype.kind in "iu" else np.rint(values)
            odd = values[~(np.abs(values - labels) <= tolerance)]
        if odd.size:
            raise InputError(
                f"value {odd[0]:g} is not a whole number", "give a label map, not an image or probabilities"
            )
        found.update(np.unique(labels).tolist())
    return sorted(int(label) for label in found - {0})


def _where(file: VolumeFile, stored: NDArray[Any], value: int) -> Mask:
    """The voxels of label `value` among stored ones, (k, j, i), plane by plane."""
    mask = np.empty(file.grid.size[::-1], bool)
    for plane, out in zip(stored, mask, strict=True):
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
