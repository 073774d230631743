"""Lesions of an LIDC-IDRI scan: the readers' outlines as voxels, clustered by what they share, placed in the CT.

The pixel indices of an outline belong to the very series that the readers saw. Its slices are found by SOPInstanceUID,
else by imageZposition, which is the z of a slice's ImagePositionPatient.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from ..errors import InputError, located, short_uid
from ..geometry import POSITION_TOLERANCE_MM, POSITION_TOLERANCE_SPACING, TIE, half_spacings
from ..images.image import Image
from ..recipe import Recipe
from .lidc_xml import RATINGS, LidcNodule, LidcPath, enclosed, parse_lidc
from .mask_file import DEFAULTS, NO_WORDS, ListedROI
from .roi import References, VoxelROI, boxed

CONSENSUS = 0.5
"""Fraction of the outlining readers who must agree on a voxel. Lesion numbers are always counted with this one."""
MAX_PIXELS = 2**24
"""Pixels in the bounding boxes of one file's paths; the largest scan has a tenth of it."""
READERS_SERIES = "give the series that the readers saw"
_SHOWN = 6

Voxels = NDArray[np.int64]
"""(m, 3) as (plane, row, column)."""


@dataclass(frozen=True, order=True)
class LidcPlane:
    """A slice that was drawn on: imageZposition in mm, and its SOPInstanceUID (empty when the file does not say)."""

    z: float
    sop_uid: str


@dataclass(frozen=True, eq=False)
class LidcLesion:
    """One lesion: the outlines that share voxels, directly or through others.

    Attributes
    ----------
    number : int
        From 1, by centroid whatever the images.
    centroid : (float, float, float)
        Of the voxels that at least half of the outlining readers have in: z in mm, row, column.
    voxels : (m, 3) int64
        (plane, row, column), sorted, of every voxel that any reader has in; planes as in `LidcRead.planes`.
    votes : (m,) int64
        How many readers have it in.
    nodules : tuple of (int, str)
        Reading session (from 0) and noduleID of each outline.
    ratings : dict of str to (int or None)
        Median over the readers of every characteristic in `RATINGS`, halves rounded up; None when nobody says.
    problems : tuple of str
        Why it cannot be used; empty for nearly all.
    """

    number: int
    centroid: tuple[float, float, float]
    voxels: Voxels
    votes: NDArray[np.int64]
    nodules: tuple[tuple[int, str], ...]
    ratings: dict[str, int | None]
    problems: tuple[str, ...]

    @property
    def n_readers(self) -> int:
        """Readers who outlined it."""
        return len({reader for reader, _ in self.nodules})

    def agreed(self, consensus: float) -> Voxels:
        """The voxels that at least the fraction `consensus` of the outlining readers have in."""
        return self.voxels[self.votes >= consensus * self.n_readers - 1e-9]

    @property
    def columns(self) -> Mapping[str, str]:
        """The characteristics as aux columns; malignancy, from which labels are made, and the readers plain."""
        levels = {name: "" if level is None else str(level) for name, level in self.ratings.items()}
        plain = {"malignancy": levels.pop("malignancy"), "readers": str(self.n_readers)}
        return plain | {f"aux_{name.lower()}": level for name, level in levels.items()}


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
            yield ListedROI(str(lesion.number), self.references(), lesion.columns)
        if self.small:
            places = [f"({z:g}, {row:g}, {column:g})" for z, row, column in self.small[:_SHOWN]]
            shown = ", ".join(places) + (", …" if len(self.small) > _SHOWN else "")
            yield f"{len(self.small)} marks of nodules < 3 mm, which have no outline: (z, row, column) {shown}"

    def read(self, roi: str, image: Image, accept: Set[str] = NO_WORDS, recipe: Recipe = DEFAULTS) -> VoxelROI:
        """One lesion as voxels that the recipe's share of the readers have in."""
        return self.place(self.find(roi), image, recipe.lidc_consensus)

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

    def place(self, lesion: LidcLesion, image: Image, consensus: float = CONSENSUS) -> VoxelROI:
        """A lesion as the voxels of `image` that the fraction `consensus` of its readers have in, above 0 and up to 1.

        Raises
        ------
        InputError
            When its outlines enclose nothing or contradict each other, or its slices are not in `image`.
        """
        try:
            planes, voxels = _consensus(self.planes, lesion, consensus)
            slices, notes = _match(planes, self.series_uid, image)
            voxels = np.column_stack([slices[voxels[:, 0]], voxels[:, 1:]])
            voxels, clipped = _clip(voxels, image.stack.shape)
        except InputError as error:
            raise InputError(f"lesion {lesion.number}: {error.found}", error.do, self.path) from None
        corner, box = boxed(voxels)
        if undrawn := int((~box.any(axis=(1, 2))).sum()):
            clipped += (f"{undrawn} slices between its first and last are not in it",)
        return VoxelROI(str(lesion.number), corner, box, lesion.n_readers, (*notes, *clipped))


def read_lidc(path: Path) -> LidcRead:
    """Read an LIDC-IDRI XML file and cluster the outlines of its readers into lesions.

    Raises
    ------
    InputError
        When the file cannot be read as LIDC-IDRI CT readings. What is wrong with one lesion is in its `problems`.
    """
    series_uid, nodules = parse_lidc(path)
    outlined = [nodule for nodule in nodules if nodule.outlined]
    paths = [drawn for nodule in outlined for drawn in nodule.paths]
    with located(path):
        planes, index = _planes(paths)
        _refuse_huge(paths)
    outlines = [_rasterise(nodule, index) for nodule in outlined]
    lesions = [_lesion(group, planes) for group in _cluster(outlines)]
    lesions.sort(key=lambda lesion: _order(lesion, planes))
    small = sorted(nodule.mark for nodule in nodules if not nodule.outlined)
    numbered = tuple(replace(lesion, number=n) for n, lesion in enumerate(lesions, start=1))
    return LidcRead(path, series_uid, planes, numbered, tuple(small))


# ------------------------------------------------------------------------------------ outlines to voxels


def _planes(paths: Iterable[LidcPath]) -> tuple[tuple[LidcPlane, ...], dict[tuple[float, str], int]]:
    """The slices drawn on, and which of them a path's (z, SOP UID) means: by SOP UID, else by z."""
    heights: dict[str, set[float]] = defaultdict(set)
    for drawn in paths:
        heights[drawn.sop_uid].add(drawn.z)
    unnamed = heights.pop("", set())
    for uid, zs in heights.items():
        if max(zs) - min(zs) > POSITION_TOLERANCE_MM:
            found = f"image {short_uid(uid)} is said to lie at z = {min(zs):g} and at {max(zs):g} mm"
            raise InputError(found, "correct the XML file")
    meant = {(z, uid): LidcPlane(min(zs), uid) for uid, zs in heights.items() for z in zs}
    for z in unnamed:
        named = {plane for (height, _), plane in meant.items() if height == z and plane.sop_uid}
        meant[z, ""] = named.pop() if len(named) == 1 else LidcPlane(z, "")
    planes = tuple(sorted(set(meant.values())))
    return planes, {key: planes.index(plane) for key, plane in meant.items()}


def _refuse_huge(paths: Iterable[LidcPath]) -> None:
    pixels = sum(int(np.ptp(drawn.points, axis=0).astype(np.int64).clip(1).prod()) for drawn in paths)
    if pixels > MAX_PIXELS:
        found = f"its outlines span {pixels} px, more than {MAX_PIXELS}"
        raise InputError(found, "take the file again from the collection")


@dataclass(frozen=True, eq=False)
class _Outline:
    """One reader's outline of a nodule as voxels."""

    nodule: LidcNodule
    voxels: Voxels
    problems: tuple[str, ...]


def _rasterise(nodule: LidcNodule, index: Mapping[tuple[float, str], int]) -> _Outline:
    by_plane: dict[int, list[LidcPath]] = defaultdict(list)
    for drawn in nodule.paths:
        by_plane[index[drawn.z, drawn.sop_uid]].append(drawn)
    layers, problems = [np.empty((0, 3), np.int64)], []
    for plane, paths in sorted(by_plane.items()):
        (row, column), inside, overlap = enclosed(paths)
        if overlap:
            problems.append(f"two paths of {nodule} overlap at z = {paths[0].z:g} mm ({overlap} px)")
        if not any(drawn.inclusion for drawn in paths):  # cut out of which slice's outline, nobody can tell
            problems.append(f"an exclusion of {nodule} at z = {paths[0].z:g} mm is in no outline's slice")
        pixels = np.argwhere(inside) + np.array([row, column])
        layers.append(np.insert(pixels, 0, plane, axis=1))
    return _Outline(nodule, np.concatenate(layers), tuple(problems))


# ------------------------------------------------------------------------------------ voxels to lesions


def _cluster(outlines: Sequence[_Outline]) -> Iterator[list[_Outline]]:
    """Outlines that share a voxel, directly or through others."""
    if not outlines:
        return
    owner = np.repeat(np.arange(len(outlines)), [len(outline.voxels) for outline in outlines])
    voxels = np.concatenate([outline.voxels for outline in outlines])
    order = np.lexsort(voxels.T)
    shared = np.flatnonzero((np.diff(voxels[order], axis=0) == 0).all(axis=1))
    links = owner[order[shared]], owner[order[shared + 1]]
    graph = coo_array((np.ones(len(shared)), links), shape=(len(outlines),) * 2)
    labels = connected_components(graph, directed=False)[1]
    for label in np.unique(labels):
        yield [outlines[i] for i in np.flatnonzero(labels == label).tolist()]


def _lesion(group: Sequence[_Outline], planes: Sequence[LidcPlane]) -> LidcLesion:
    by_reader: dict[int, list[Voxels]] = defaultdict(list)
    for outline in group:
        by_reader[outline.nodule.reader].append(outline.voxels)
    masks = [np.unique(np.concatenate(parts), axis=0) for parts in by_reader.values()]
    voxels, votes = np.unique(np.concatenate(masks), axis=0, return_counts=True)
    nodules = [outline.nodule for outline in group]
    ratings, wrong = _ratings(nodules)
    empty = () if len(voxels) else (f"contour encloses no voxel ({', '.join(map(str, nodules))})",)
    drawn = tuple(problem for outline in group for problem in outline.problems)
    named = tuple(sorted((nodule.reader, nodule.name) for nodule in nodules))
    lesion = LidcLesion(0, (math.nan,) * 3, voxels, votes, named, ratings, (*_twice(nodules), *drawn, *wrong, *empty))
    return replace(lesion, centroid=_centroid(lesion, nodules, planes))


def _centroid(
    lesion: LidcLesion, nodules: Sequence[LidcNodule], planes: Sequence[LidcPlane]
) -> tuple[float, float, float]:
    voxels = lesion.agreed(CONSENSUS)
    voxels = voxels if len(voxels) else lesion.voxels
    if len(voxels):
        points = [(planes[plane].z, row, column) for plane, row, column in voxels.tolist()]
    else:
        points = [(p.z, y, x) for nodule in nodules for p in nodule.paths for x, y in p.points.tolist()]
    z, row, column = (math.fsum(values) / len(points) for values in zip(*points, strict=True))
    return z, row, column


def _order(lesion: LidcLesion, planes: Sequence[LidcPlane]) -> tuple[object, ...]:
    """By centroid; rounding must not decide between equal ones, so the first voxel does, or for empty ones a name."""
    first, names = lesion.voxels[:1].tolist(), sorted(name for _, name in lesion.nodules)
    return tuple(round(value, 6) for value in lesion.centroid), first, names, lesion.nodules


def _twice(nodules: Sequence[LidcNodule]) -> tuple[str, ...]:
    """Readers with several outlines in one lesion: which of them is theirs, or whether it is two, nobody can tell."""
    outlines = Counter(nodule.reader for nodule in nodules)
    return tuple(
        f"reader {reader + 1} has {count} outlines in one lesion, nodules "
        + ", ".join(sorted(repr(nodule.name[:40]) for nodule in nodules if nodule.reader == reader))
        for reader, count in sorted(outlines.items())
        if count > 1
    )


def _ratings(nodules: Sequence[LidcNodule]) -> tuple[dict[str, int | None], tuple[str, ...]]:
    """Medians over the readers, halves rounded up; and which ratings are none."""
    medians: dict[str, int | None] = {}
    wrong = []
    for name, highest in RATINGS.items():
        levels = [str(level) for level in range(1, highest + 1)]
        given = [(nodule, nodule.ratings[name]) for nodule in nodules if name in nodule.ratings]
        wrong += [f"{name} of {n} is {text[:40]!r}, not 1 to {highest}" for n, text in given if text not in levels]
        known = [int(text) for _, text in given if text in levels]
        medians[name] = math.floor(np.median(known) + 0.5) if known else None
    return medians, tuple(wrong)


# ------------------------------------------------------------------------------------ a lesion in the CT


def _consensus(planes: Sequence[LidcPlane], lesion: LidcLesion, consensus: float) -> tuple[list[LidcPlane], Voxels]:
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
    return [planes[i] for i in drawn.tolist()], np.column_stack([index.ravel(), voxels[:, 1:]])


def _match(planes: Sequence[LidcPlane], series_uid: str, image: Image) -> tuple[NDArray[np.intp], tuple[str, ...]]:
    """The slice of each plane, and notes when SOPInstanceUIDs did not tell."""
    heights, z = image.stack.origins[:, 2], np.array([plane.z for plane in planes])
    by_uid = {uid: k for k, uid in enumerate(image.sop_uids)}
    named = np.array([by_uid.get(plane.sop_uid, -1) for plane in planes])
    slices = np.where(named >= 0, named, np.argmin(np.abs(heights[:, None] - z), axis=0))
    reach = np.minimum(*np.abs(half_spacings(heights))) + TIE  # a slice missing beside another stays missing
    other = series_uid not in ("", image.uid)
    # pixel indices of another series mean nothing unless its slices lie exactly where this one's do
    limit = np.maximum(POSITION_TOLERANCE_MM, 2 * POSITION_TOLERANCE_SPACING * reach) if other else reach
    away = np.abs(heights[slices] - z)
    wrong = np.flatnonzero(away > np.where(named >= 0, reach[slices], limit[slices]))
    if other and (named < 0).all() and len(wrong):
        found = f"drawn on series {short_uid(series_uid)}, not on {short_uid(image.uid)}; "
        raise InputError(f"{found}a contour is {away.max():.4g} mm from any slice", READERS_SERIES)
    if len(wrong):
        i = int(wrong[0])
        raise _mismatch(planes[i], float(heights[slices[i]]), bool(named[i] >= 0), len(wrong))
    if len(set(slices.tolist())) < len(slices):
        raise InputError("two contour planes fall on one slice", READERS_SERIES)
    by_z = int((named < 0).sum())
    notes = [f"{by_z} of {len(planes)} contour planes matched to slices by z, not by SOPInstanceUID"] if by_z else []
    notes += [f"drawn on series {series_uid}, whose slices are also this series'"] if other else []
    return slices, tuple(notes)


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
