"""LIDC-IDRI outlines as voxels, and the lesions that they make: outlines of different readers that share voxels.

What is wrong with one lesion stands in the way of that lesion, not of the file's others.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from ..errors import InputError, short_uid
from ..geometry import POSITION_TOLERANCE_MM
from ..manifest import overlap_rule
from .lidc_xml import RATINGS, RULES, LidcNodule, LidcPath, enclosed

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
    twice : tuple of str
        Readers with several outlines in it: it can be used only if they count as one.
    overlaps : tuple of str
        Paths that overlap: it can be used only by a rule for that.
    by_rule : dict of str to (voxels, votes)
        Voxels and votes by each such rule, `union` and `xor`, where paths overlap.
    notes : tuple of str
        What deserves a line in the report.
    """

    number: int
    centroid: tuple[float, float, float]
    voxels: Voxels
    votes: NDArray[np.int64]
    nodules: tuple[tuple[int, str], ...]
    ratings: dict[str, int | None]
    problems: tuple[str, ...]
    twice: tuple[str, ...] = ()
    overlaps: tuple[str, ...] = ()
    by_rule: dict[str, tuple[Voxels, NDArray[np.int64]]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def n_readers(self) -> int:
        """Readers who outlined it."""
        return len({reader for reader, _ in self.nodules})

    def agreed(self, consensus: float) -> Voxels:
        """The voxels that at least the fraction `consensus` of the outlining readers have in."""
        return self.voxels[self.votes >= consensus * self.n_readers - 1e-9]

    def accepted(self, accept: Set[str]) -> LidcLesion:
        """The lesion with what a row accepts of it decided.

        Raises
        ------
        InputError
            When it has a problem that the row does not accept.
        """
        rule = overlap_rule(accept)
        if self.problems:
            raise InputError("; ".join(self.problems), "correct the XML file or leave this lesion out")
        if self.overlaps and not rule:
            do = "correct the XML file, or put overlap=union or overlap=xor into the column accept"
            raise InputError("; ".join(self.overlaps), do)
        if self.twice and "readers" not in accept:
            do = "put readers into the column accept if they are one, or leave this lesion out"
            raise InputError("; ".join(self.twice), do, kind="readers")
        voxels, votes = self.by_rule.get(rule, (self.voxels, self.votes))
        said = (*self.notes, *(f"{what}; they count as one" for what in self.twice))
        said += tuple(f"{what}; combined by {rule}" for what in self.overlaps)
        return replace(self, voxels=voxels, votes=votes, notes=said)

    @property
    def columns(self) -> Mapping[str, str]:
        """The characteristics as aux columns; malignancy, from which labels are made, and the readers plain."""
        levels = {name: "" if level is None else str(level) for name, level in self.ratings.items()}
        plain = {"malignancy": levels.pop("malignancy"), "readers": str(self.n_readers)}
        return plain | {f"aux_{name.lower()}": level for name, level in levels.items()}


def find_lesions(nodules: Sequence[LidcNodule]) -> tuple[tuple[LidcPlane, ...], tuple[LidcLesion, ...]]:
    """The slices that outlined nodules were drawn on, and their lesions, numbered.

    Raises
    ------
    InputError
        When the outlines are larger than any scan's.
    """
    paths = [drawn for nodule in nodules for drawn in nodule.paths]
    planes, index, doubtful = _planes(paths)
    _refuse_huge(paths)
    outlines = [_rasterise(nodule, index, doubtful) for nodule in nodules]
    lesions = [_lesion(group, planes) for group in _cluster(outlines)]
    lesions.sort(key=lambda lesion: _order(lesion, planes))
    return planes, tuple(replace(lesion, number=n) for n, lesion in enumerate(lesions, start=1))


# ------------------------------------------------------------------------------------ outlines to voxels


def _planes(
    paths: Iterable[LidcPath],
) -> tuple[tuple[LidcPlane, ...], dict[tuple[float, str], int], dict[tuple[float, str], str]]:
    """The slices drawn on, which of them a path's (z, SOP UID) means, and what is wrong with such a pair.

    A slice is known by its SOP UID, else by z. Where paths put one image at several z, those are wrong that differ
    from most of its paths.
    """
    heights: dict[str, Counter[float]] = defaultdict(Counter)
    for drawn in paths:
        heights[drawn.sop_uid][drawn.z] += 1
    unnamed = heights.pop("", Counter())
    doubtful = {(z, uid): said for uid, zs in heights.items() for z, said in _other_heights(uid, zs).items()}
    meant = {(z, uid): LidcPlane(min(zs), uid) for uid, zs in heights.items() for z in zs}
    meant |= {(z, uid): LidcPlane(z, uid) for z, uid in doubtful}
    for z in unnamed:
        named = {plane for (height, _), plane in meant.items() if height == z and plane.sop_uid}
        meant[z, ""] = named.pop() if len(named) == 1 else LidcPlane(z, "")
    planes = tuple(sorted(set(meant.values())))
    return planes, {key: planes.index(plane) for key, plane in meant.items()}, doubtful


def _other_heights(uid: str, heights: Counter[float]) -> dict[float, str]:
    """What is wrong with each z of an image that is not where most of its paths have it; nothing where all agree."""
    low, high = min(heights), max(heights)
    if high - low <= POSITION_TOLERANCE_MM:
        return {}
    (usual, most), *others = heights.most_common()
    tied = any(count == most and abs(z - usual) > POSITION_TOLERANCE_MM for z, count in others)
    found = f"image {short_uid(uid)} is said to lie at z = {low:g} and at {high:g} mm"
    return {z: found for z in heights if tied or abs(z - usual) > POSITION_TOLERANCE_MM}


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
    overlaps: tuple[str, ...]
    by_rule: Mapping[str, Voxels]


def _rasterise(
    nodule: LidcNodule, index: Mapping[tuple[float, str], int], doubtful: Mapping[tuple[float, str], str]
) -> _Outline:
    by_plane: dict[int, list[LidcPath]] = defaultdict(list)
    for drawn in nodule.paths:
        by_plane[index[drawn.z, drawn.sop_uid]].append(drawn)
    pairs = dict.fromkeys((drawn.z, drawn.sop_uid) for drawn in nodule.paths)
    problems = [f"{doubtful[pair]} ({nodule})" for pair in pairs if pair in doubtful]
    layers: dict[str, list[Voxels]] = {rule: [np.empty((0, 3), np.int64)] for rule in ("", *RULES)}
    overlaps = []
    for plane, paths in sorted(by_plane.items()):
        (row, column), masks, overlap = enclosed(paths)
        if overlap:
            overlaps.append(f"two paths of {nodule} overlap at z = {paths[0].z:g} mm ({overlap} px)")
        if not any(drawn.inclusion for drawn in paths):  # cut out of which slice's outline, nobody can tell
            problems.append(f"an exclusion of {nodule} at z = {paths[0].z:g} mm is in no outline's slice")
        for rule, inside in masks.items():
            pixels = np.argwhere(inside) + np.array([row, column])
            layers[rule].append(np.insert(pixels, 0, plane, axis=1))
    voxels = {rule: np.concatenate(parts) for rule, parts in layers.items()}
    return _Outline(nodule, voxels.pop(""), tuple(problems), tuple(overlaps), voxels)


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
    voxels, votes = _votes([(outline.nodule.reader, outline.voxels) for outline in group])
    nodules = [outline.nodule for outline in group]
    ratings, wrong = _ratings(nodules)
    empty = () if len(voxels) else (f"contour encloses no voxel ({', '.join(map(str, nodules))})",)
    drawn = tuple(problem for outline in group for problem in outline.problems)
    named = tuple(sorted((nodule.reader, nodule.name) for nodule in nodules))
    overlaps = tuple(overlap for outline in group for overlap in outline.overlaps)
    lesion = LidcLesion(
        0, (math.nan,) * 3, voxels, votes, named, ratings, (*drawn, *empty), _twice(nodules), overlaps, notes=wrong
    )
    if overlaps:
        of_readers = {rule: [(o.nodule.reader, o.by_rule[rule]) for o in group] for rule in RULES}
        lesion = replace(lesion, by_rule={rule: _votes(parts) for rule, parts in of_readers.items()})
    return replace(lesion, centroid=_centroid(lesion, nodules, planes))


def _votes(outlines: Sequence[tuple[int, Voxels]]) -> tuple[Voxels, NDArray[np.int64]]:
    """Every voxel that a reader's outlines have in, and how many readers."""
    by_reader: dict[int, list[Voxels]] = defaultdict(list)
    for reader, voxels in outlines:
        by_reader[reader].append(voxels)
    masks = [np.unique(np.concatenate(parts), axis=0) for parts in by_reader.values()]
    return np.unique(np.concatenate(masks), axis=0, return_counts=True)


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
    """Medians over the readers (of a reader's several outlines their median), halves rounded up; and ratings that are
    none: they count as unknown.
    """
    medians: dict[str, int | None] = {}
    wrong = []
    for name, highest in RATINGS.items():
        levels = [str(level) for level in range(1, highest + 1)]
        given = [(nodule, nodule.ratings[name]) for nodule in nodules if name in nodule.ratings]
        odd = [(nodule, text) for nodule, text in given if text not in levels]
        wrong += [f"{name} of {n} is {text[:40]!r}, not 1 to {highest}: unknown" for n, text in odd]
        known: dict[int, list[int]] = defaultdict(list)
        for nodule, text in given:
            known[nodule.reader] += [int(text)] if text in levels else []
        of_readers = [np.median(levels_) for levels_ in known.values() if levels_]
        medians[name] = math.floor(np.median(of_readers) + 0.5) if of_readers else None
    return medians, tuple(wrong)
