"""The even-odd fill against exact rational arithmetic."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctpatch.lesion.raster import fill, winding

Path = list[tuple[float, float]]
Pixels = set[tuple[int, int]]

quarter = st.integers(-24, 24).map(lambda n: n / 4)
paths = st.lists(st.lists(st.tuples(quarter, quarter), min_size=3, max_size=8), min_size=1, max_size=3)


def filled(given_paths: Sequence[Path], *, rim: bool = True) -> Pixels:
    """Pixels that `fill` marks, as (row, column)."""
    corner, inside = fill([np.array(path, float) for path in given_paths], rim=rim)
    return {(int(row), int(column)) for row, column in np.argwhere(inside) + corner}


def edges(path: Path) -> list[tuple[Fraction, ...]]:
    return [(*map(Fraction, a), *map(Fraction, b)) for a, b in zip([path[-1], *path[:-1]], path, strict=True)]


def on_path(path: Path, row: int, column: int) -> bool:
    """Whether a pixel's centre lies on an edge, exactly. Quarter coordinates come no nearer than 1e-4 otherwise."""
    for x0, y0, x1, y1 in edges(path):
        on_line = (x1 - x0) * (row - y0) == (y1 - y0) * (column - x0)
        if on_line and min(x0, x1) <= column <= max(x0, x1) and min(y0, y1) <= row <= max(y0, y1):
            return True
    return False


def turns(path: Path, row: int, column: int) -> int:
    """Winding number of a pixel's centre that lies on no edge, by crossings of a ray to the right, exactly."""
    number = 0
    for x0, y0, x1, y1 in edges(path):
        if (y0 <= row) != (y1 <= row) and x0 + (row - y0) * (x1 - x0) / (y1 - y0) > column:
            number += 1 if y1 > y0 else -1
    return number


def exact(given_paths: Sequence[Path], *, rim: bool = True) -> Pixels:
    pixels = set()
    for row in range(-7, 8):
        for column in range(-7, 8):
            if any(on_path(path, row, column) for path in given_paths):
                pixels |= {(row, column)} if rim else set()
            elif sum(turns(path, row, column) for path in given_paths) % 2:
                pixels.add((row, column))
    return pixels


@settings(deadline=None)
@given(paths, st.booleans())
def test_fill_is_exact(given_paths: list[Path], rim: bool) -> None:
    assert filled(given_paths, rim=rim) == exact(given_paths, rim=rim)


@settings(deadline=None)
@given(paths)
def test_winding_is_exact(given_paths: list[Path]) -> None:
    (row0, column0), numbers = winding([np.array(path, float) for path in given_paths])
    for row, column in np.argwhere(np.ones_like(numbers)) + np.array([row0, column0]):
        if not any(on_path(path, row, column) for path in given_paths):
            expected = sum(turns(path, row, column) for path in given_paths)
            assert abs(numbers[row - row0, column - column0]) == abs(expected)


@settings(deadline=None)
@given(paths, st.randoms(use_true_random=False), st.tuples(st.integers(-1000, 1000), st.integers(-1000, 1000)))
def test_start_direction_order_repeated_points_and_place_change_nothing(
    given_paths: list[Path], rng, moved: tuple[int, int]
) -> None:
    other = []
    for path in given_paths:
        start = rng.randrange(len(path))
        turned = path[start:] + path[:start]
        turned = [point for point in turned for _ in range(rng.choice((1, 1, 2)))]
        turned = [*turned, turned[0]] if rng.random() < 0.5 else turned
        turned = turned[::-1] if rng.random() < 0.5 else turned
        other.append([(x + moved[0], y + moved[1]) for x, y in turned])
    rng.shuffle(other)
    expected = {(row + moved[1], column + moved[0]) for row, column in filled(given_paths)}
    assert filled(other) == expected


@pytest.mark.parametrize("offset", [0.0, 1e-7, -1e-7, 9e-7, -9e-7])
def test_centres_within_the_tolerance_of_a_path_are_on_it(offset: float) -> None:
    square = [(0 + offset, 0), (4 + offset, 0), (4 + offset, 3), (0 + offset, 3)]
    assert filled([square]) == {(row, column) for row in range(4) for column in range(5)}
    assert filled([square], rim=False) == {(row, column) for row in (1, 2) for column in (1, 2, 3)}


@pytest.mark.parametrize("offset", [1e-5, 1e-3, 0.4])
def test_centres_beyond_the_tolerance_are_not(offset: float) -> None:
    square = [(offset, offset), (4 - offset, offset), (4 - offset, 3 - offset), (offset, 3 - offset)]
    assert filled([square]) == {(row, column) for row in (1, 2) for column in (1, 2, 3)}


def test_a_shallow_edge_marks_only_pixels_within_the_tolerance() -> None:
    """Along the grid the edge passes 1e-7 under row 0's centres near its start, and leaves them by 1e-6 px there."""
    edge = [(0.0, -1e-7), (1000.0, 0.01), (1000.0, 5.5), (0.0, 5.5)]
    marked = {column for row, column in filled([edge]) if row == 0}
    assert marked == set(range(int(1e5 * (1e-6 + 1e-7)) + 1))


@pytest.mark.parametrize("low", [(0.5, 0.5), (-3.5, 2.5)])
@pytest.mark.parametrize("size", [1, 2, 15, 20])
def test_rectangles_between_pixels_have_their_exact_area(low: tuple[float, float], size: int) -> None:
    (x, y), w, h = low, size, size + 3
    assert len(filled([[(x, y), (x + w, y), (x + w, y + h), (x, y + h)]])) == w * h


def test_nested_paths_alternate() -> None:
    def square(half: float) -> Path:
        return [(-half, -half), (half, -half), (half, half), (-half, half)]

    assert len(filled([square(5.5), square(3.5), square(1.5)])) == 11**2 - 7**2 + 3**2


@pytest.mark.parametrize("y", [0.0, 0.25, 1 / 3])
def test_a_keyhole_channel_leaves_no_line(y: float) -> None:
    outer = [(-5.5, -5.5), (5.5, -5.5), (5.5, 5.5), (-5.5, 5.5), (-5.5, y)]
    inner = [(-2.5, y), (-2.5, 2.5), (2.5, 2.5), (2.5, -2.5), (-2.5, -2.5), (-2.5, y)]
    channel = {(0, column) for column in (-5, -4, -3)} if y == 0.0 else set()
    expected = {(r, c) for r in range(-5, 6) for c in range(-5, 6) if max(abs(r), abs(c)) > 2}
    assert filled([[*outer, *inner, (-5.5, y)]]) == expected
    assert filled([[*outer, *inner, (-5.5, y)]], rim=False) == expected - channel


def test_a_slanted_keyhole_channel_leaves_no_line() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        a, b = (-30.5, float(rng.uniform(-30, 30))), (-9.5, float(rng.uniform(-9, 9)))
        outer = [(-30.5, -30.5), (30.5, -30.5), (30.5, 30.5), (-30.5, 30.5), a]
        inner = [b, (-9.5, 9.5), (9.5, 9.5), (9.5, -9.5), (-9.5, -9.5), b]
        assert len(filled([[*outer, *inner, a]])) == 61**2 - 19**2


def test_paths_smaller_than_a_pixel_hold_no_centre() -> None:
    assert filled([[(0.3, 0.3), (0.6, 0.3), (0.6, 0.6)]]) == set()
    assert filled([]) == set()
    assert filled([[(2.0, 2.0)] * 3]) == {(2, 2)}


def test_many_edges_and_far_coordinates() -> None:
    angle = np.linspace(0, 2 * np.pi, 20_000, endpoint=False)
    circle = np.stack([511.3 + 200.25 * np.cos(angle), 4000.7 + 200.25 * np.sin(angle)], axis=-1)
    corner, inside = fill([circle])
    rows, columns = np.indices(inside.shape)
    away = np.hypot(rows + corner[0] - 4000.7, columns + corner[1] - 511.3)
    sure = np.abs(away - 200.25) > 1e-4
    assert np.array_equal(inside[sure], (away < 200.25)[sure])
