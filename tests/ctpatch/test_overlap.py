"""How closed paths of one slice relate: the same, nested, apart, partly overlapping; keyholes."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctpatch.errors import InputError
from ctpatch.lesion.overlap import combine, has_channel
from ctpatch.lesion.raster import fill

Rectangle = tuple[int, int, int, int]
Pixels = set[tuple[int, int]]


def path(of: Rectangle, moved: float = 0.0) -> np.ndarray:
    """The outline of pixels x0…x1, y0…y1, both included."""
    x0, y0, x1, y1 = of
    corners = [(x0 - 0.5, y0 - 0.5), (x1 + 0.5, y0 - 0.5), (x1 + 0.5, y1 + 0.5), (x0 - 0.5, y1 + 0.5)]
    return np.array(corners) + moved


def pixels(of: Rectangle) -> Pixels:
    x0, y0, x1, y1 = of
    return {(y, x) for y in range(y0, y1 + 1) for x in range(x0, x1 + 1)}


def filled(paths: Sequence[np.ndarray]) -> Pixels:
    corner, inside = fill(paths)
    return {(int(row), int(column)) for row, column in np.argwhere(inside) + corner}


def combined(rectangles: Sequence[Rectangle], rule: str) -> Pixels:
    return filled(combine([path(of) for of in rectangles], rule)[0])


rectangle = st.tuples(*[st.integers(0, 9)] * 4).map(
    lambda v: (min(v[0], v[2]), min(v[1], v[3]), max(v[0], v[2]), max(v[1], v[3]))
)


def partly(a: Rectangle, b: Rectangle) -> bool:
    one, other = pixels(a), pixels(b)
    return bool(one & other and one - other and other - one)


OUTER, INNER, ACROSS, APART = (0, 0, 9, 9), (2, 2, 5, 6), (7, 7, 12, 11), (20, 0, 25, 5)


@pytest.mark.parametrize("rule", ["", "union", "xor"])
def test_nested_and_separate_paths_are_left_as_they_are(rule: str) -> None:
    paths = [path(of) for of in (OUTER, INNER, APART)]
    kept, notes = combine(paths, rule)
    assert [id(one) for one in kept] == [id(one) for one in paths]
    assert [note for note in notes if "nested" not in note] == []
    assert filled(kept) == pixels(OUTER) - pixels(INNER) | pixels(APART)


@pytest.mark.parametrize("order", list(permutations((OUTER, ACROSS, INNER))))
def test_partly_overlapping_paths_need_a_rule_in_any_order(order: Sequence[Rectangle]) -> None:
    with pytest.raises(InputError, match="1 pairs of contours on one slice partly overlap") as caught:
        combined(order, "")
    assert "overlap=union or overlap=xor" in caught.value.do
    assert combined(order, "union") == pixels(OUTER) - pixels(INNER) | pixels(ACROSS)
    assert combined(order, "xor") == pixels(OUTER) ^ pixels(ACROSS) ^ pixels(INNER)


@settings(deadline=None, max_examples=300)
@given(rectangle, rectangle)
def test_two_rectangles(a: Rectangle, b: Rectangle) -> None:
    """Against sets of pixels: outlines between pixels leave no doubt about any of them."""
    one, other = pixels(a), pixels(b)
    nested = one ^ other if a != b else one
    if partly(a, b):
        with pytest.raises(InputError):
            combined((a, b), "")
        assert combined((a, b), "union") == one | other
    else:
        assert combined((a, b), "") == nested
        assert combined((a, b), "union") == nested
    assert combined((a, b), "xor") == nested


@settings(deadline=None)
@given(st.lists(rectangle, min_size=1, max_size=5, unique=True))
def test_xor_is_the_even_odd_rule_of_all(rectangles: list[Rectangle]) -> None:
    expected: Pixels = set()
    for one in rectangles:
        expected ^= pixels(one)
    assert combined(rectangles, "xor") == expected


@settings(deadline=None)
@given(st.integers(2, 6), st.integers(1, 5))
def test_a_chain_of_overlaps_is_one_union(n: int, width: int) -> None:
    chain = [(3 * i, i, 3 * i + 2 + width, i + 4) for i in range(n)]
    assert combined(chain, "union") == set().union(*map(pixels, chain))


def test_a_union_that_closes_around_a_hole_keeps_the_hole() -> None:
    frame = [(0, 0, 9, 1), (0, 8, 9, 9), (0, 0, 1, 9), (8, 0, 9, 9)]
    kept, notes = combine([path(of) for of in frame], "union")
    assert filled(kept) == set().union(*map(pixels, frame))
    assert notes == ["4 pairs of contours partly overlap; their union is taken"]


@settings(deadline=None)
@given(rectangle, st.integers(0, 3), st.booleans(), st.booleans(), st.sampled_from((0.0, 1e-9, -1e-9)))
def test_the_same_path_counts_once_however_it_is_written(
    of: Rectangle, start: int, backwards: bool, closed: bool, moved: float
) -> None:
    again = np.roll(path(of, moved), start, axis=0)
    again = np.concatenate([again, again[:1]]) if closed else again
    kept, notes = combine([path(of), again[::-1] if backwards else again], "")
    assert filled(kept) == pixels(of)
    assert notes == ["1 contours are drawn twice and count once"]


@pytest.mark.parametrize("moved", [1e-4, 1e-3, 0.009])
def test_two_paths_that_are_all_but_the_same_are_not_taken_for_a_hole(moved: float) -> None:
    """The even-odd rule would leave next to nothing of a contour drawn twice with other roundings."""
    with pytest.raises(InputError, match="partly overlap"):
        combine([path(OUTER), path(OUTER, moved)], "")
    assert filled(combine([path(OUTER), path(OUTER, moved)], "union")[0]) == pixels(OUTER)


@pytest.mark.parametrize("gap", [0.0, 1e-9, 0.005])
def test_a_shared_edge_is_no_overlap(gap: float) -> None:
    neighbour = path((10, 0, 14, 9)) - (gap, 0)
    kept, notes = combine([path(OUTER), neighbour], "")
    assert notes == []
    assert filled(kept) == pixels((0, 0, 14, 9))


@pytest.mark.parametrize("shift", [0.0, -0.005])
def test_a_hole_that_touches_the_outline_is_nested(shift: float) -> None:
    hole = path((0, 2, 3, 5)) + np.array([shift, 0])
    assert filled(combine([path(OUTER), hole], "")[0]) == pixels(OUTER) - pixels((0, 2, 3, 5))


# -- Paths that cross or touch themselves ----------------------------------------------------------------------------

BOW = [(0, 0), (10, 10), (10, 0), (0, 10)]
STAR = [(10 * np.cos(a), 10 * np.sin(a)) for a in 4 * np.pi * np.arange(5) / 5]
KEYHOLE = [(0, 0), (10, 0), (10, 10), (0, 10), (0, 5), (3, 5), (3, 7), (7, 7), (7, 3), (3, 3), (3, 5), (0, 5)]
TOUCHING = [(0, 0), (10, 0), (10, 10), (5, 0), (0, 10)]
TWICE = [(0, 0), (10, 0), (10, 10), (0, 10)] * 2
CONVEX = [(10 * np.cos(a), 10 * np.sin(a)) for a in np.linspace(0, 6.2, 100)]


@pytest.mark.parametrize(
    ("points", "channel"),
    [(BOW, False), (STAR, False), (KEYHOLE, True), (TOUCHING, False), (TWICE, False), (CONVEX, False)],
    ids=["bow", "star", "keyhole", "touching", "twice", "convex"],
)
@pytest.mark.parametrize("moved", [0.0, 0.37, 400.123])
def test_only_a_keyhole_has_a_channel(points: list[tuple[float, float]], channel: bool, moved: float) -> None:
    for way in (points, points[::-1], points[2:] + points[:2], [*points, points[0]]):
        assert has_channel(np.array(way, float) + moved) == channel


def test_a_bow_tie_and_a_partner_partly_overlap_by_what_they_enclose() -> None:
    bow = np.array(BOW, float)
    side = path((3, 0, 6, 1))  # in the notch between the two wings, where nothing is enclosed
    assert combine([bow, side], "")[1] == []
    with pytest.raises(InputError):
        combine([bow, path((0, 4, 9, 6))], "")
