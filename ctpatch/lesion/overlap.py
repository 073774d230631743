"""How the closed paths of one slice relate: the same path twice, nested, apart — or partly overlapping."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..errors import InputError
from ..geometry import TIE, Floats
from .raster import winding

if TYPE_CHECKING:
    from shapely.geometry.base import BaseGeometry

SLIVER_PX = 0.01
"""Mean width, along the shorter path, of an overlap or overhang that is rounding of the coordinates."""


def combine(paths: Sequence[Floats], rule: str) -> tuple[list[Floats], list[str]]:
    """Paths to be filled together by the even-odd rule, and notes.

    Parameters
    ----------
    paths : sequence of (n, 2) float64
        The closed paths of one slice, in pixels.
    rule : {"", "union", "xor"}
        What partly overlapping paths mean.

    Raises
    ------
    InputError
        When paths partly overlap and there is no rule.
    """
    if len(paths) == 1:
        return list(paths), []
    distinct = list({_signature(path): path for path in paths}.values())
    twice = len(paths) - len(distinct)
    notes = [f"{twice} contours are drawn twice and count once"] if twice else []
    pairs, nested = _relations(distinct)
    if nested:
        inner = len({j for pair in nested for j in pair})
        notes.append(
            f"{inner} contours are nested with others: by the even-odd rule inner ones are holes, or islands in them"
        )
    pairs = pairs if rule != "xor" else []
    if pairs and not rule:
        found = f"{len(pairs)} pairs of contours on one slice partly overlap"
        raise InputError(found, "redraw them, or put overlap=union or overlap=xor into the column accept")
    if pairs:
        notes.append(f"{len(pairs)} pairs of contours partly overlap; their union is taken")
        distinct = _united(distinct, pairs)
    return distinct, notes


def has_channel(path: Floats) -> bool:
    """Whether a closed path runs along an edge one way and back, as a keyhole's channel does."""
    edges = set(_edges(path))
    return any((b, a) in edges for a, b in edges)


def is_joined(path: Floats) -> bool:
    """Whether channels join a closed path out of loops none of which crosses itself, as a keyhole with its holes."""
    turns = [winding([loop])[1] for loop in _loops(path)] if has_channel(path) else []
    return bool(turns) and all(each.max(initial=0) - each.min(initial=0) <= 1 for each in turns)


def _edges(path: Floats) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """From where to where a closed path goes, to within `TIE`; steps on the spot are none."""
    points = [tuple(point) for point in np.rint(path / TIE).astype(np.int64).tolist()]
    return [(a, b) for a, b in zip(points, points[1:] + points[:1], strict=True) if a != b]


def _loops(path: Floats) -> list[Floats]:
    """What is left of a closed path without the edges that it runs along one way and back, joined where it ends."""
    edges = _edges(path)
    known = set(edges)
    left = {i for i, (a, b) in enumerate(edges) if (b, a) not in known}
    begins = {edges[i][0]: i for i in left if (i - 1) % len(edges) not in left}
    loops = []
    while left:
        loop, i = [], min(left)
        while i in left:
            left.remove(i)
            loop.append(edges[i][0])
            following = (i + 1) % len(edges)
            i = following if following in left else begins.get(edges[i][1], -1)
        loops.append(np.array(loop, np.float64) * TIE)
    return loops


def _signature(path: Floats) -> bytes:
    """Equal for the same closed path whatever its first point and direction."""
    rounded = np.rint(path / TIE).astype(np.int64)
    rounded = rounded[(rounded != np.roll(rounded, 1, axis=0)).any(axis=1)]
    if not len(rounded):
        return path[:1].tobytes()
    first = rounded[np.lexsort(rounded.T[::-1])[0]]
    starts = np.flatnonzero((rounded == first).all(axis=1))
    turned = [np.roll(rounded, -s, axis=0) for s in starts] + [np.roll(rounded[::-1], s + 1, axis=0) for s in starts]
    return min(t.tobytes() for t in turned)


def _relations(paths: Sequence[Floats]) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """Pairs that partly overlap, and pairs of which one lies inside the other."""
    low, high = np.array([path.min(axis=0) for path in paths]), np.array([path.max(axis=0) for path in paths])
    meet = (low[:, None] < high).all(axis=-1)
    near = [(int(i), int(j)) for i, j in np.argwhere(np.triu(meet & meet.T, 1))]
    areas = {i: _area(paths[i]) for i in sorted({i for pair in near for i in pair})}
    kinds = [_relation(areas[i], areas[j]) for i, j in near]
    partly, nested = ([pair for pair, kind in zip(near, kinds, strict=True) if kind == k] for k in ("partly", "nested"))
    return partly, nested


def _relation(a: BaseGeometry, b: BaseGeometry) -> str:
    """`apart`, `nested`, or `partly` when each has area of its own — or both are all but the same."""
    both = a.intersection(b).area
    sliver = SLIVER_PX * min(a.length, b.length)
    if both <= sliver:
        return "apart"
    only_a, only_b = a.area - both > sliver, b.area - both > sliver
    return "partly" if only_a == only_b else "nested"


def _area(path: Floats) -> BaseGeometry:
    """What a path encloses by the even-odd rule."""
    import shapely

    polygon = shapely.Polygon(path)
    return polygon if polygon.is_valid else shapely.make_valid(polygon, method="linework")


def _united(paths: Sequence[Floats], pairs: Sequence[tuple[int, int]]) -> list[Floats]:
    """Paths in which each cluster of partly overlapping ones is replaced by the outline of its union."""
    import shapely

    cluster = list(range(len(paths)))
    for i, j in pairs:
        old, new = cluster[j], cluster[i]
        cluster = [new if c == old else c for c in cluster]
    result = []
    for c in sorted(set(cluster)):
        members = [path for path, own in zip(paths, cluster, strict=True) if own == c]
        if len(members) == 1:
            result += members
            continue
        union = shapely.union_all([_area(path) for path in members])
        for polygon in getattr(union, "geoms", [union]):
            if polygon.geom_type == "Polygon":
                result += [np.asarray(ring.coords)[:-1] for ring in (polygon.exterior, *polygon.interiors)]
    return result
