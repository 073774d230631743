"""Lesions of an LIDC-IDRI scan: the readers' outlines as voxels, clustered by what they share, placed in the CT.

The pixel indices of an outline belong to the very series that the readers saw. Its slices are found by SOPInstanceUID,
else by imageZposition, which is the z of a slice's ImagePositionPatient.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError, located, short_uid
from ..geometry import POSITION_TOLERANCE_MM, POSITION_TOLERANCE_SPACING, TIE, half_spacings
from ..images.image import Image
from ..recipe import Recipe
from .lidc_lesions import CONSENSUS, LidcLesion, LidcPlane, Voxels, find_lesions
from .lidc_xml import parse_lidc
from .mask_file import DEFAULTS, NO_WORDS, ListedROI
from .roi import References, VoxelROI, boxed

READERS_SERIES = "give the series that the readers saw"
_SHOWN = 6


@dataclass(frozen=True, eq=False)
class LidcRead:
    """What an LIDC-IDRI XML file says about a CT series; a `MaskFile`.

    Attributes
    ----------
    path : Path
        The file.
    series_uid : str
        SeriesInstanceUID that the readers saw; empty when the file does not say.
    planes : tuple of LidcPlane
        Slices that were drawn on, by z.
    lesions : tuple of LidcLesion
        By number.
    small : tuple of (float, float, float)
        Where a reader marked a nodule < 3 mm by a single point: z in mm, row, column. Never a mask.
    """

    patient_id: ClassVar[str] = ""

    path: Path
    series_uid: str
    planes: tuple[LidcPlane, ...]
    lesions: tuple[LidcLesion, ...]
    small: tuple[tuple[float, float, float], ...]

    def references(self, roi: str | None = None) -> References:
        """The series that the readers saw, and the slices that they drew on."""
        return References(frozenset({self.series_uid} - {""}), frozenset(plane.sop_uid for plane in self.planes) - {""})

    def rois(self) -> Iterator[ListedROI | str]:
        """Each lesion with the readers' ratings, and where nodules < 3 mm are marked."""
        for lesion in self.lesions:
            yield ListedROI(str(lesion.number), self.references(), lesion.columns, is_lesion=True)
        if self.small:
            places = [f"({z:g}, {row:g}, {column:g})" for z, row, column in self.small[:_SHOWN]]
            shown = ", ".join(places) + (", …" if len(self.small) > _SHOWN else "")
            yield f"{len(self.small)} marks of nodules < 3 mm, which have no outline: (z, row, column) {shown}"

    def read(self, roi: str, image: Image, accept: Set[str] = NO_WORDS, recipe: Recipe = DEFAULTS) -> VoxelROI:
        """One lesion as voxels that the recipe's share of the readers have in."""
        return self.place(self.find(roi), image, recipe.lidc_consensus, accept)

    def find(self, roi: str) -> LidcLesion:
        """The lesion that a manifest's `roi` names; blank when there is exactly one."""
        count, text = len(self.lesions), roi.strip()
        if not count:
            found = f"no nodule is outlined ({len(self.small)} marks of nodules < 3 mm, which have no mask)"
            raise InputError(found, "drop the row", self.path)
        if not text and count == 1:
            return self.lesions[0]
        if text.isascii() and text.isdigit() and len(text) < 10 and 1 <= int(text) <= count:
            return self.lesions[int(text) - 1]
        found = f"there is no lesion {text[:40]!r}" if text else "roi names no lesion"
        raise InputError(f"{found}; the file has {count}", f"give roi a number from 1 to {count}", self.path)

    def place(
        self, lesion: LidcLesion, image: Image, consensus: float = CONSENSUS, accept: Set[str] = NO_WORDS
    ) -> VoxelROI:
        """A lesion as the voxels of `image` that the fraction `consensus` of its readers have in, above 0 and up to 1.

        Raises
        ------
        InputError
            When its outlines enclose nothing or contradict each other, or its slices are not in `image`.
        """
        try:
            lesion = lesion.accepted(accept)
            planes, voxels = _consensus(self.planes, lesion, consensus)
            slices, notes = _match(planes, self.series_uid, image, accepted="frame" in accept)
            voxels = np.column_stack([slices[voxels[:, 0]], voxels[:, 1:]])
            voxels, clipped = _clip(voxels, image.stack.shape)
        except InputError as error:
            found = f"lesion {lesion.number}: {error.found}"
            raise InputError(found, error.do, self.path, kind=error.kind) from None
        corner, box = boxed(voxels)
        if undrawn := int((~box.any(axis=(1, 2))).sum()):
            clipped += (f"{undrawn} slices between its first and last are not in it",)
        return VoxelROI(str(lesion.number), corner, box, lesion.n_readers, (*lesion.notes, *notes, *clipped))


def read_lidc(path: Path) -> LidcRead:
    """Read an LIDC-IDRI XML file and cluster the outlines of its readers into lesions.

    Raises
    ------
    InputError
        When the file cannot be read as LIDC-IDRI CT readings. What is wrong with one lesion is in its `problems`.
    """
    series_uid, nodules = parse_lidc(path)
    with located(path):
        planes, lesions = find_lesions([nodule for nodule in nodules if nodule.outlined])
    small = sorted(nodule.mark for nodule in nodules if not nodule.outlined)
    return LidcRead(path, series_uid, planes, lesions, tuple(small))


# ------------------------------------------------------------------------------------ a lesion in the CT


def _consensus(planes: Sequence[LidcPlane], lesion: LidcLesion, consensus: float) -> tuple[list[LidcPlane], Voxels]:
    """The consensus voxels, their planes counted within those that have any."""
    if not 0 < consensus <= 1:
        raise InputError(f"a consensus of {consensus:g} is no fraction", "give one above 0 and up to 1")
    voxels = lesion.agreed(consensus)
    if not len(voxels):
        found = f"no voxel is in {consensus:.0%} of the {lesion.n_readers} readers' outlines"
        raise InputError(found, "lower the consensus")
    drawn, index = np.unique(voxels[:, 0], return_inverse=True)
    return [planes[i] for i in drawn.tolist()], np.column_stack([index.ravel(), voxels[:, 1:]])


def _match(
    planes: Sequence[LidcPlane], series_uid: str, image: Image, *, accepted: bool
) -> tuple[NDArray[np.intp], tuple[str, ...]]:
    """The slice of each plane, and notes when SOPInstanceUIDs did not tell.

    Pixel indices of another series mean nothing unless it has the same pixels: that z agrees does not say so, and the
    row has to `accept` it.
    """
    heights, z = image.stack.origins[:, 2], np.array([plane.z for plane in planes])
    by_uid = {uid: k for k, uid in enumerate(image.sop_uids)}
    named = np.array([by_uid.get(plane.sop_uid, -1) for plane in planes])
    slices = np.where(named >= 0, named, np.argmin(np.abs(heights[:, None] - z), axis=0))
    rising = heights if heights[-1] > heights[0] else -heights
    reach = np.minimum(*half_spacings(rising))[slices] + TIE  # a slice missing beside another stays missing
    if other := series_uid != image.uid:
        exact = np.maximum(POSITION_TOLERANCE_MM, 2 * POSITION_TOLERANCE_SPACING * reach)
        reach = np.where(named >= 0, reach, exact)
    away = np.abs(heights[slices] - z)
    wrong = np.flatnonzero(away > reach)
    if other and (named < 0).all():
        _refuse_other_series(series_uid, image, float(away.max()) if len(wrong) else 0.0, accepted=accepted)
    if len(wrong):
        i = int(wrong[0])
        raise _mismatch(planes[i], float(heights[slices[i]]), bool(named[i] >= 0), len(wrong))
    if len(set(slices.tolist())) < len(slices):
        raise InputError("two contour planes fall on one slice", READERS_SERIES)
    by_z = int((named < 0).sum())
    notes = [f"{by_z} of {len(planes)} contour planes matched to slices by z, not by SOPInstanceUID"] if by_z else []
    notes += [f"drawn on series {series_uid}, whose slices are also this series'"] if other and series_uid else []
    return slices, tuple(notes)


def _refuse_other_series(series_uid: str, image: Image, away: float, *, accepted: bool) -> None:
    """Neither series nor images are the readers': refused where a contour is `away` from slices, or not `accepted`."""
    found = "the file does not name the series that it was drawn on"
    if series_uid:
        found = f"drawn on series {short_uid(series_uid)}, not on {short_uid(image.uid)}"
    if away:
        raise InputError(f"{found}; a contour is {away:.4g} mm from any slice", READERS_SERIES)
    if not accepted:
        do = f"{READERS_SERIES}, or put frame into the column accept if this one has the same pixels"
        raise InputError(f"{found}; z agrees, but what the outlines count are pixels", do, kind="frame")


def _mismatch(plane: LidcPlane, height: float, named: bool, count: int) -> InputError:
    if named:
        found = f"image {short_uid(plane.sop_uid)} lies at z = {height:g} mm, its contour at {plane.z:g} mm"
        return InputError(found, "give the images that the readers saw")
    found = f"{count} of its slices missing: at z = {plane.z:g} mm the nearest is {abs(height - plane.z):.4g} mm away"
    return InputError(found, "add the missing slices or leave this lesion out")


def _clip(voxels: Voxels, shape: tuple[int, int]) -> tuple[Voxels, tuple[str, ...]]:
    """The voxels within the image's rows and columns, and a note of the fraction cut off."""
    inside = ((voxels[:, 1:] >= 0) & (voxels[:, 1:] < shape)).all(axis=1)
    if not inside.any():
        found = f"all of it lies outside the image of {shape[0]} rows and {shape[1]} columns"
        raise InputError(found, READERS_SERIES)
    cut = 1 - inside.mean()
    return voxels[inside], (f"{cut:.2%} of its voxels lie outside the image",) if cut else ()
