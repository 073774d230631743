"""LIDC-IDRI XML: one lesion, as voxels of the CT that the readers saw.

The pixel indices of an outline belong to that very series. Its slices are found by SOPInstanceUID, else by
imageZposition, which is the z of a slice's ImagePositionPatient.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError, short_uid
from ..geometry import POSITION_TOLERANCE_MM, POSITION_TOLERANCE_SPACING, TIE, Floats
from ..images.image import Image
from .lidc_lesions import CONSENSUS, LidcLesion, LidcPlane, LidcRead, Voxels, read_lidc
from .roi import VoxelROI

__all__ = ["CONSENSUS", "LidcLesion", "LidcRead", "find_lesion", "place_lesion", "read_lidc", "read_lidc_roi"]


def read_lidc_roi(path: Path, roi: str, image: Image, *, consensus: float = CONSENSUS) -> VoxelROI:
    """One lesion of an LIDC-IDRI XML file as voxels of a CT.

    Parameters
    ----------
    path : Path
        The XML file.
    roi : str
        Lesion number; may be blank when the file has exactly one lesion.
    image : Image
        The CT series that was read.
    consensus : float
        In are the voxels that at least this fraction of the outlining readers have in; 0 < consensus <= 1.

    Raises
    ------
    InputError
        When there is no such lesion, it is ambiguous, its outlines enclose nothing, or its slices are not in `image`.
    """
    read = read_lidc(path)
    return place_lesion(read, find_lesion(read, roi), image, consensus=consensus)


def find_lesion(read: LidcRead, roi: str) -> LidcLesion:
    """The lesion that a manifest's `roi` names; blank when there is exactly one."""
    count, text = len(read.lesions), roi.strip()
    if not count:
        found = f"no nodule is outlined ({len(read.small)} marks of nodules < 3 mm, which have no mask)"
        raise InputError(found, "drop the row", read.path)
    if not text and count == 1:
        return read.lesions[0]
    if text.isascii() and text.isdigit() and len(text) < 10 and 1 <= int(text) <= count:
        return read.lesions[int(text) - 1]
    found = f"there is no lesion {text[:40]!r}" if text else "roi names no lesion"
    raise InputError(f"{found}; the file has {count}", f"give roi a number from 1 to {count}", read.path)


def place_lesion(read: LidcRead, lesion: LidcLesion, image: Image, *, consensus: float = CONSENSUS) -> VoxelROI:
    """A lesion's consensus voxels in `image`; see `read_lidc_roi`."""
    try:
        planes, voxels = _consensus(read, lesion, consensus)
        slices, notes = _match(planes, read.series_uid, image)
        voxels = np.column_stack([slices[voxels[:, 0]], voxels[:, 1:]])
        voxels, clipped = _clip(voxels, image.stack.shape)
    except InputError as error:
        raise InputError(f"lesion {lesion.number}: {error.found}", error.do, read.path) from None
    corner = voxels.min(axis=0)
    box = np.zeros(voxels.max(axis=0) - corner + 1, np.bool_)
    box[tuple((voxels - corner).T)] = True
    k, row, column = corner.tolist()
    return VoxelROI(str(lesion.number), (k, row, column), box, lesion.n_readers, (*notes, *clipped, *_undrawn(box)))


def _consensus(read: LidcRead, lesion: LidcLesion, consensus: float) -> tuple[list[LidcPlane], Voxels]:
    """The consensus voxels, their planes counted within those that have any."""
    if not 0 < consensus <= 1:
        raise InputError(f"a consensus of {consensus:g} is no fraction", "give one above 0 and up to 1")
    if lesion.problems:
        raise InputError("; ".join(lesion.problems), "correct the XML file or leave this lesion out")
    voxels = lesion.agreed(consensus)
    if not len(voxels):
        found = f"no voxel is in {consensus:.0%} of the {lesion.n_readers} readers' outlines"
        raise InputError(found, "lower the consensus")
    drawn, index = np.unique(voxels[:, 0], return_inverse=True)
    return [read.planes[i] for i in drawn.tolist()], np.column_stack([index.ravel(), voxels[:, 1:]])


def _match(planes: Sequence[LidcPlane], series_uid: str, image: Image) -> tuple[NDArray[np.intp], tuple[str, ...]]:
    """The slice of each plane, and a note when SOPInstanceUIDs did not tell."""
    heights, z = image.stack.origins[:, 2], np.array([plane.z for plane in planes])
    by_uid = {uid: k for k, uid in enumerate(image.sop_uids)}
    named = np.array([by_uid.get(plane.sop_uid, -1) for plane in planes])
    slices = np.where(named >= 0, named, np.argmin(np.abs(heights[:, None] - z), axis=0))
    reach = _reach(heights)
    other = series_uid not in ("", image.uid)
    # pixel indices of another series mean nothing unless its slices lie exactly where this one's do
    limit = np.maximum(POSITION_TOLERANCE_MM, 2 * POSITION_TOLERANCE_SPACING * reach) if other else reach
    away = np.abs(heights[slices] - z)
    wrong = np.flatnonzero(away > np.where(named >= 0, reach[slices], limit[slices]))
    foreign = other and (named < 0).all()
    if foreign and len(wrong):
        found = f"drawn on series {short_uid(series_uid)}, not on {short_uid(image.uid)}; "
        found += f"a contour is {away.max():.4g} mm from any slice"
        raise InputError(found, "give the series that the readers saw")
    if len(wrong):
        i = int(wrong[0])
        raise _mismatch(planes[i], float(heights[slices[i]]), bool(named[i] >= 0), len(wrong))
    if len(set(slices.tolist())) < len(slices):
        raise InputError("two contour planes fall on one slice", "give the series that the readers saw")
    return slices, _matching_notes(int((named < 0).sum()), len(planes), series_uid if other else "")


def _reach(heights: Floats) -> Floats:
    """Half the distance from each slice to its nearer neighbour in z: a slice missing beside it stays missing."""
    steps = np.abs(np.diff(heights))
    return np.minimum(np.append(steps, np.inf), np.insert(steps, 0, np.inf)) / 2 + TIE


def _mismatch(plane: LidcPlane, height: float, named: bool, count: int) -> InputError:
    if named:
        found = f"image {short_uid(plane.sop_uid)} lies at z = {height:g} mm, its contour at {plane.z:g} mm"
        return InputError(found, "give the images that the readers saw")
    found = f"{count} of its slices missing: at z = {plane.z:g} mm the nearest is {abs(height - plane.z):.4g} mm away"
    return InputError(found, "add the missing slices or leave this lesion out")


def _matching_notes(by_z: int, count: int, other: str) -> tuple[str, ...]:
    notes = [f"{by_z} of {count} contour planes matched to slices by z, not by SOPInstanceUID"] if by_z else []
    notes += [f"drawn on series {other}, whose slices are also this series'"] if other else []
    return tuple(notes)


def _clip(voxels: Voxels, shape: tuple[int, int]) -> tuple[Voxels, tuple[str, ...]]:
    """The voxels within the image's rows and columns, and a note of the fraction cut off."""
    inside = ((voxels[:, 1:] >= 0) & (voxels[:, 1:] < shape)).all(axis=1)
    if not inside.any():
        found = f"all of it lies outside the image of {shape[0]} rows and {shape[1]} columns"
        raise InputError(found, "give the series that the readers saw")
    cut = 1 - inside.mean()
    return voxels[inside], (f"{cut:.2%} of its voxels lie outside the image",) if cut else ()


def _undrawn(box: NDArray[np.bool_]) -> tuple[str, ...]:
    empty = int((~box.any(axis=(1, 2))).sum())
    return (f"{empty} slices between its first and last are not in it",) if empty else ()
