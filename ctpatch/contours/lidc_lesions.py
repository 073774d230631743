"""Lesions of an LIDC-IDRI scan, from its XML alone: the readers' outlines as voxels, clustered by what they share.

An outline traces the outermost pixels that are *not* nodule: a voxel is in when the slice's paths enclose it and none
passes through it; a path with inclusion FALSE cuts out what it encloses and what it passes through. Pixel indices
count from 0 at the centre of the first pixel.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from ..errors import InputError, short_uid
from ..geometry import POSITION_TOLERANCE_MM
from ..lesion.raster import Corner, fill
from .lidc_xml import MAX_INDEX, LidcNodule, LidcPath, parse_lidc

RATINGS = {
    "subtlety": 5,
    "internalStructure": 4,
    "calcification": 6,
    "sphericity": 5,
    "margin": 5,
    "lobulation": 5,
    "spiculation": 5,
    "texture": 5,
    "malignancy": 5,
}
"""The characteristics by their XML names, and the highest level of each; the lowest is 1."""
CONSENSUS = 0.5
"""Fraction of the outlining readers who must agree on a voxel. Lesion numbers are always counted with this one."""
MAX_PIXELS = 2**24
"""Pixels in the bounding boxes of one file's paths; the largest scan has a tenth of it."""

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


@dataclass(frozen=True, eq=False)
class LidcRead:
    """What an LIDC-IDRI XML file says about a CT series.

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

    @property
    def sop_uids(self) -> frozenset[str]:
        """SOPInstanceUIDs of the slices that were drawn on."""
        return frozenset(plane.sop_uid for plane in self.planes if plane.sop_uid)


def read_lidc(path: Path) -> LidcRead:
    """Read an LIDC-IDRI XML file and cluster the outlines of its readers into lesions.

    Raises
    ------
    InputError
        When the file cannot be read as LIDC-IDRI CT readings. What is wrong with one lesion is in its `problems`.
    """
    series_uid, nodules = parse_lidc(path)
    outlined = [nodule for nodule in nodules if nodule.outlined]
    try:
        planes, index = _planes([drawn for nodule in outlined for drawn in nodule.paths])
        _refuse_huge(drawn for nodule in outlined for drawn in nodule.paths)
    except InputError as error:
        raise error.at(where=path) from None
    outlines = [_rasterise(nodule, index) for nodule in outlined]
    lesions = [_lesion(group, planes) for group in _cluster(outlines)]
    lesions.sort(key=lambda lesion: _order(lesion, planes))
    small = sorted(min(map(_mark, nodule.paths)) for nodule in nodules if not nodule.outlined)
    numbered = tuple(replace(lesion, number=n) for n, lesion in enumerate(lesions, start=1))
    return LidcRead(path, series_uid, planes, numbered, tuple(small))


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


def _rasterise(nodule: LidcNodule, index: dict[tuple[float, str], int]) -> _Outline:
    by_plane: dict[int, list[LidcPath]] = defaultdict(list)
    for drawn in nodule.paths:
        by_plane[index[drawn.z, drawn.sop_uid]].append(drawn)
    layers, problems = [np.empty((0, 3), np.int64)], []
    for plane, paths in sorted(by_plane.items()):
        (row, column), inside, overlap = _enclosed(_distinct(paths))
        if overlap:
            problems.append(f"two paths of {_name(nodule)} overlap at z = {paths[0].z:g} mm ({overlap} px)")
        if not any(drawn.inclusion for drawn in paths):  # cut out of which slice's outline, nobody can tell
            problems.append(f"an exclusion of {_name(nodule)} at z = {paths[0].z:g} mm is in no outline's slice")
        pixels = np.argwhere(inside) + np.array([row, column])
        layers.append(np.insert(pixels, 0, plane, axis=1))
    return _Outline(nodule, np.concatenate(layers), tuple(problems))


def _distinct(paths: Sequence[LidcPath]) -> list[LidcPath]:
    """The paths without those that repeat another one, from whichever point and whichever way round."""

    def edges(drawn: LidcPath) -> tuple[bool, tuple[object, ...]]:
        points = [tuple(point) for point in drawn.points.tolist()]
        sides = zip(points, points[1:] + points[:1], strict=True)
        return drawn.inclusion, tuple(sorted(tuple(sorted(side)) for side in sides))

    return list({edges(drawn): drawn for drawn in paths}.values())


def _enclosed(paths: Sequence[LidcPath]) -> tuple[Corner, NDArray[np.bool_], int]:
    """What the paths of one nodule enclose on one slice, and how many pixels lie in two inclusions at once.

    A voxel is in when it lies in one more inclusion than exclusions (a ring may hold an island) and on no path. For
    properly nested paths that is the even-odd rule; an exclusion that reaches outside never adds anything.
    """
    (row0, column0), inside = fill([drawn.points for drawn in paths], rim=False)
    depth = np.zeros(inside.shape, np.int32)
    for drawn in paths:
        (row, column), own = fill([drawn.points], rim=False)
        rows, columns = own.shape
        part = depth[row - row0 : row - row0 + rows, column - column0 : column - column0 + columns]
        part += own if drawn.inclusion else -own.astype(np.int32)
    return (row0, column0), inside & (depth == 1), int((depth > 1).sum())


def _cluster(outlines: Sequence[_Outline]) -> Iterator[list[_Outline]]:
    """Outlines that share a voxel, directly or through others."""
    owner = np.repeat(np.arange(len(outlines)), [len(outline.voxels) for outline in outlines])
    codes = np.concatenate([_codes(outline.voxels) for outline in outlines] or [np.empty(0, np.int64)])
    order = np.argsort(codes, kind="stable")
    shared = np.flatnonzero(np.diff(codes[order]) == 0)
    links = owner[order[shared]], owner[order[shared + 1]]
    graph = coo_array((np.ones(len(shared)), links), shape=(len(outlines),) * 2)
    labels = connected_components(graph, directed=False)[1] if outlines else []
    for label in np.unique(labels):
        yield [outlines[i] for i in np.flatnonzero(labels == label).tolist()]


def _codes(voxels: Voxels) -> NDArray[np.int64]:
    """One integer for each voxel, in the order of (plane, row, column)."""
    plane, row, column = voxels.T
    return (plane * 2 * (MAX_INDEX + 1) + row + MAX_INDEX) * 2 * (MAX_INDEX + 1) + column + MAX_INDEX


def _lesion(group: Sequence[_Outline], planes: Sequence[LidcPlane]) -> LidcLesion:
    by_reader: dict[int, list[Voxels]] = defaultdict(list)
    for outline in group:
        by_reader[outline.nodule.reader].append(outline.voxels)
    masks = [np.unique(np.concatenate(parts), axis=0) for parts in by_reader.values()]
    voxels, votes = np.unique(np.concatenate(masks), axis=0, return_counts=True)
    nodules = [outline.nodule for outline in group]
    ratings, wrong = _ratings(nodules)
    empty = () if len(voxels) else (f"contour encloses no voxel ({', '.join(map(_name, nodules))})",)
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
        wrong += [
            f"{name} of {_name(n)} is {text[:40]!r}, not 1 to {highest}" for n, text in given if text not in levels
        ]
        known = [int(text) for _, text in given if text in levels]
        medians[name] = math.floor(np.median(known) + 0.5) if known else None
    return medians, tuple(wrong)


def _name(nodule: LidcNodule) -> str:
    return f"nodule {nodule.name[:40]!r} of reader {nodule.reader + 1}"


def _mark(drawn: LidcPath) -> tuple[float, float, float]:
    column, row = drawn.points[0].tolist()
    return drawn.z, row, column
