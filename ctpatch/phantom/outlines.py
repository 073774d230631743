"""A lesion's contours, as a reader draws them: on each slice one polygon around the largest part of it."""

from __future__ import annotations

import numpy as np
from skimage.measure import approximate_polygon, find_contours

from ..geometry import Floats, SliceStack
from .shapes import Plane

VERTEX_PX, SMALLEST_PX = 0.15, 8.0
"""How far a polygon's edge may be from the lesion's; no polygon has a smaller area (pixels²)."""


def outlines(depth: Plane, stack: SliceStack) -> dict[int, Floats]:
    """Polygons (n, 3) in mm LPS around where `depth` (z, y, x) is positive, by slice.

    The slices are those that follow each other without a gap about the largest polygon: one lesion.
    """
    found = {k: polygon for k, plane in enumerate(depth) if (polygon := _largest(plane)) is not None}
    first = last = max(found, key=lambda k: _area(found[k]))
    while first - 1 in found:
        first -= 1
    while last + 1 in found:
        last += 1
    (row_mm, column_mm), offsets = stack.spacing, stack.offsets
    steps = {k: np.pad(found[k][:, ::-1] * (column_mm, row_mm), ((0, 0), (0, 1))) for k in range(first, last + 1)}
    return {k: stack.to_lps(offsets[k] + step) for k, step in steps.items()}


def _largest(depth: Plane) -> Floats | None:
    """Row and column (n, 2) of the vertices of the largest outline; None where there is none worth drawing."""
    lines = [line for line in find_contours(np.maximum(depth, -1e3), 0.0) if (line[0] == line[-1]).all()]
    polygons = [approximate_polygon(line, VERTEX_PX)[:-1] for line in lines]
    largest = max(polygons, key=_area, default=None)
    return largest if largest is not None and _area(largest) >= SMALLEST_PX else None


def _area(polygon: Floats) -> float:
    y, x = polygon.T
    return float(abs(x @ np.roll(y, 1) - y @ np.roll(x, 1))) / 2
