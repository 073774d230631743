"""Which pixel centres closed paths enclose, in the slice's own pixel grid and to the last bit of the coordinates.

A pixel is in when its centre has an odd number of crossings over all the paths (DICOM PS3.3 C.8.8.6.3 for nested
and keyhole contours), or when it lies within `TIE` of a path. Paths are (n, 2) float64 as (column, row) indices,
closed implicitly.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ..compiled import compiled
from ..geometry import TIE, Floats

Corner = tuple[int, int]


def fill(paths: Sequence[Floats], *, rim: bool = True) -> tuple[Corner, NDArray[np.bool_]]:
    """Pixels inside `paths` taken together, by the even-odd rule.

    Parameters
    ----------
    paths : sequence of (n, 2) float64
        Closed paths as (column, row) in pixels.
    rim : bool
        Whether pixels within `TIE` of a path are in (as in DICOM) or out (as in LIDC-IDRI, whose outlines trace the
        outermost excluded pixels).

    Returns
    -------
    (int, int)
        Row and column of the array's first element.
    (rows, columns) bool
        The paths' bounding box.
    """
    corner, turns = winding(paths)
    inside = (turns & 1).astype(np.bool_)
    for path in paths:
        _mark_rim(path, corner[0], corner[1], inside, rim)
    return corner, inside


def winding(paths: Sequence[Floats]) -> tuple[Corner, NDArray[np.int32]]:
    """Winding number of every pixel centre; its parity is the even-odd rule, non-zero the other common one."""
    if not paths:
        return (0, 0), np.zeros((0, 0), np.int32)
    low = np.ceil(np.min([path.min(axis=0) for path in paths], axis=0) - TIE).astype(int)
    high = np.floor(np.max([path.max(axis=0) for path in paths], axis=0) + TIE).astype(int)
    columns, rows = np.maximum(high - low + 1, 0)
    steps = np.zeros((rows, columns + 1), np.int32)
    for path in paths:
        _cross(path, int(low[1]), int(low[0]), steps)
    return (int(low[1]), int(low[0])), np.cumsum(steps, axis=1, dtype=np.int32)[:, :-1]


@compiled()
def _cross(path, row0, column0, steps):  # type: ignore[no-untyped-def]
    """Add ±1 where each row of pixel centres, walked by increasing column, crosses the path."""
    rows, width = steps.shape
    for i in range(len(path)):
        x0, y0 = path[i - 1]
        x1, y1 = path[i]
        turn = 1
        if y0 > y1:  # one direction for both, so that the two sides of a keyhole's channel cross at the same place
            x0, y0, x1, y1, turn = x1, y1, x0, y0, -1
        first = max(int(np.ceil(y0)), row0)
        for row in range(first, row0 + rows):
            if row >= y1:
                break
            x = x0 + (row - y0) * ((x1 - x0) / (y1 - y0))
            column = int(np.floor(x)) + 1 - column0
            steps[row - row0, min(max(column, 0), width - 1)] += turn


@compiled()
def _mark_rim(path, row0, column0, inside, value):  # type: ignore[no-untyped-def]
    """Set every pixel whose centre lies within `TIE` of the path."""
    for i in range(len(path)):
        x0, y0 = path[i - 1]
        dx, dy = path[i] - path[i - 1]
        steep = abs(dy) > abs(dx)
        start, step = (y0, dy) if steep else (x0, dx)
        low, high = min(start, start + step), max(start, start + step)
        for major in range(int(np.ceil(low - TIE)), int(np.floor(high + TIE)) + 1):
            t = (major - start) / step if step != 0.0 else 0.0
            t = min(max(t, 0.0), 1.0)
            x, y = x0 + t * dx, y0 + t * dy
            column, row = (int(np.rint(x)), major) if steep else (major, int(np.rint(y)))
            # distance to the line, not along the grid: a shallow edge comes nearer than its crossing tells
            nearest = t
            if dx * dx + dy * dy > 0.0:
                nearest = min(max(((column - x0) * dx + (row - y0) * dy) / (dx * dx + dy * dy), 0.0), 1.0)
            away = np.hypot(column - x0 - nearest * dx, row - y0 - nearest * dy)
            if away <= TIE:
                r, c = row - row0, column - column0
                if 0 <= r < inside.shape[0] and 0 <= c < inside.shape[1]:
                    inside[r, c] = value
