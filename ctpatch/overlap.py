"""How the closed paths of one slice relate: the same path twice, nested, apart — or partly overlapping."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import InputError
from .geometry import TIE, Floats

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
    distinct = list({_signature(path): path for path in paths}.values())
    twice = len(paths) - len(distinct)
    notes = [f"{twice} contours are drawn twice and count once"] if twice else []
    pairs = _partly_overlapping(distinct) if rule != "xor" else []
    if pairs and not rule:
        found = f"{len(pairs)} pairs of contours on one slice partly overlap"
        raise InputError(found, "redraw them, or put overlap=union or overlap=xor into the column accept")
    if pairs:
        notes.append(f"{len(pairs)} pairs of contours partly overlap; their union is taken")
        distinct = _united(distinct, pairs)
    return distinct, notes


def crosses_itself(path: Floats) -> bool:
    """Whether two edges of a closed path cross in their insides; touching (a keyhole's channel) does not count."""
    start, end = path, np.roll(path, -1, axis=0)

    def side(points: Floats) -> Floats:
        """On which side of each edge (rows) each point (columns) lies, −1, 0 or 1."""
        edge, to = (end - start)[:, None], points[None] - start[:, None]
        area = edge[..., 0] * to[..., 1] - edge[..., 1] * to[..., 0]
        return np.where(np.abs(area) <= TIE * np.maximum(1.0, np.hypot(edge[..., 0], edge[..., 1])), 0.0, np.sign(area))

    apart = side(start) * side(end) < 0
    return bool((apart & apart.T).any())


def _signature(path: Floats) -> bytes:
    """Equal for the same closed path whatever its first point and direction."""
    rounded = np.rint(path / TIE).astype(np.int64)
    rounded = rounded[(rounded != np.roll(rounded, 1, axis=0)).any(axis=1)]
    if not len(rounded):
        return path[:1].tobytes()
    first = rounded[np.lexsort(rounded.T[::-1])[0]]
    starts = np.flatnonzero((rounded == first).all(axis=1))
    turned = [np.roll(way, -s, axis=0) for way, s in _ways(rounded, starts)]
    return min(t.tobytes() for t in turned)


def _ways(points: Any, starts: Any) -> list[tuple[Any, int]]:
    backwards = points[::-1]
    return [(points, int(s)) for s in starts] + [(backwards, len(points) - 1 - int(s)) for s in starts]


def _partly_overlapping(paths: Sequence[Floats]) -> list[tuple[int, int]]:
    near = [
        (i, j)
        for i, j in combinations(range(len(paths)), 2)
        if (paths[i].min(axis=0) < paths[j].max(axis=0)).all() and (paths[j].min(axis=0) < paths[i].max(axis=0)).all()
    ]
    if not near:
        return []
    areas = {i: _area(paths[i]) for pair in near for i in pair}
    return [(i, j) for i, j in near if _overlap_partly(areas[i], areas[j])]


def _overlap_partly(a: BaseGeometry, b: BaseGeometry) -> bool:
    """Neither apart nor nested: both share area, and each has area of its own — or both are all but the same."""
    both = a.intersection(b).area
    sliver = SLIVER_PX * min(a.length, b.length)
    if both <= sliver:
        return False
    only_a, only_b = a.area - both > sliver, b.area - both > sliver
    return only_a == only_b


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
