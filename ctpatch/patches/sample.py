"""HU on planes through the native slices: each point from the two slices it lies between, where they really are.

value = (1−w)·B_k + w·B_{k+1}: B_k is bilinear interpolation in slice k at the point's orthogonal projection, w comes
from the two slices' own positions along n. The image reaches half a pixel beyond the outer pixel centres and half the
end spacing beyond the end slices (half the usual spacing, where that is a gap); there edge values are clamped, and
beyond it is air, never blended.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from ..compiled import compiled
from ..geometry import TIE, Floats, SliceStack, reach
from ..images.image import AIR, Box, Image
from ..recipe import SIZE
from .planes import Planes

Sampler = Callable[[slice], tuple[NDArray[np.int16], NDArray[np.int64]]]


def sample_planes(image: Image, planes: Planes, spacing: float) -> tuple[NDArray[np.int16], NDArray[np.int64]]:
    """Patches of an image, reading only the pixels around them; see `sampler`."""
    return sampler(image, planes, spacing)(slice(None))


def sampler(image: Image, planes: Planes, spacing: float) -> Sampler:
    """What samples some of an image's patches; the pixels around all of them are read here.

    Parameters
    ----------
    image : Image
    planes : Planes
    spacing : float
        mm between patch pixels.

    Returns
    -------
    function of a slice of the planes
        Threads may call it at once. It gives

        (N, 64, 64) int16
            HU: the float32 sample rounded half to even.
        (N,) int64
            How many pixels of each patch lie outside the image.
    """
    pixels = start, column, row = planes.pixels(spacing)
    box = needed_box(image.stack, start, column, row)
    row_spacing, column_spacing = image.stack.spacing
    offsets = image.stack.offsets[slice(*box.slices)]
    around = (
        bool((offsets[:, :2] == offsets[0, :2]).all()),  # here: with it numba loads scipy's BLAS
        image.read_hu(box),
        np.array([box.rows[0], box.columns[0]], np.float64),
        np.array(image.stack.shape),
        offsets,
        reach(image.stack.positions),
        np.array([1 / column_spacing, 1 / row_spacing]),
    )

    def sample(some: slice) -> tuple[NDArray[np.int16], NDArray[np.int64]]:
        places = [each[some] for each in pixels]
        values = np.empty((len(places[0]), SIZE, SIZE), np.int16)
        outside = np.zeros(len(values), np.int64)
        _sample(*around, *places, values, outside)
        return values, outside

    return sample


def needed_box(stack: SliceStack, start: Floats, column: Floats, row: Floats) -> Box:
    """The part of the image that patches can touch; at least two slices, two rows, two columns."""
    low, high = patch_extent(start, column, row)
    first, last = np.searchsorted(stack.positions, (low[2], high[2]))
    first, last = _range(int(first) - 1, int(last) + 1, len(stack))
    offsets = stack.offsets[first:last, :2]
    size = np.array(stack.spacing[::-1])
    begin = np.floor((low[:2] - offsets.max(axis=0)) / size).astype(int) - 1
    end = np.ceil((high[:2] - offsets.min(axis=0)) / size).astype(int) + 2
    rows, columns = _range(begin[1], end[1], stack.shape[0]), _range(begin[0], end[0], stack.shape[1])
    return Box((first, last), rows, columns)


def patch_extent(start: Floats, column: Floats, row: Floats) -> tuple[Floats, Floats]:
    """Lowest and highest stack coordinates (3,) of any pixel centre."""
    reach = SIZE - 1
    corners = np.stack([start, start + reach * column, start + reach * row, start + reach * (column + row)])
    return corners.min(axis=(0, 1)), corners.max(axis=(0, 1))


def _range(start: int, stop: int, size: int) -> tuple[int, int]:
    """[start, stop) moved and cut into [0, size), at least two long where there are two."""
    start = min(max(int(start), 0), max(size - 2, 0))
    return start, max(min(int(stop), size), min(start + 2, size))


# Scalars and unsigned indices: array views and the wrap-around of negative indices cost these loops a factor of 4.
@compiled(nogil=True)
def _sample(  # type: ignore[no-untyped-def]
    upright, hu, corner, shape, offsets, ends, scale, start, column, row, values, outside
):
    for n in range(len(values)):
        if upright and _well_inside(hu, corner, offsets, ends, scale, start[n], column[n], row[n]):
            _sample_inside(hu, corner, offsets, scale, start[n], column[n], row[n], values[n])
        else:
            outside[n] = _sample_anywhere(
                hu, corner, shape, offsets, ends, scale, start[n], column[n], row[n], values[n]
            )


@compiled()
def _well_inside(hu, corner, offsets, ends, scale, start, column, row):  # type: ignore[no-untyped-def]
    """Whether a patch's corners, and so all its pixels, lie clearly between pixel centres that were read."""
    for a, b in ((0, 0), (0, SIZE - 1), (SIZE - 1, 0), (SIZE - 1, SIZE - 1)):
        p = start + b * column + a * row
        x, y = (p[0] - offsets[0, 0]) * scale[0] - corner[1], (p[1] - offsets[0, 1]) * scale[1] - corner[0]
        if not (TIE <= x <= hu.shape[2] - 1 - TIE and TIE <= y <= hu.shape[1] - 1 - TIE):
            return False
        if not ends[0] + TIE <= p[2] <= ends[1] - TIE:
            return False
    return True


@compiled()
def _sample_inside(hu, corner, offsets, scale, start, column, row, values):  # type: ignore[no-untyped-def]
    """What `_sample_anywhere` gives for a patch well inside an upright stack, without asking at each pixel."""
    x0, y0, z, last, k = offsets[0, 0], offsets[0, 1], offsets[:, 2].copy(), len(offsets) - 2, 0
    sx, sy, sz, cx, cy, cz = start[0], start[1], start[2], column[0], column[1], column[2]
    rx, ry, rz = row[0], row[1], row[2]
    for a in range(SIZE):
        w = 0.0
        for b in range(SIZE):
            px, py, pz = sx + b * cx + a * rx, sy + b * cy + a * ry, sz + b * cz + a * rz
            if b == 0 or cz != 0.0:  # a row along the slices has one share of them
                while k < last and pz >= z[k + 1]:
                    k += 1
                while k > 0 and pz < z[k]:
                    k -= 1
                w = min(max((pz - z[k]) / (z[k + 1] - z[k]), 0.0), 1.0)
            x, y = (px - x0) * scale[0] - corner[1], (py - y0) * scale[1] - corner[0]
            i, j = int(x), int(y)
            lower = _between(hu, k, i, j, x - i, y - j)
            values[a, b] = np.rint(np.float32((1.0 - w) * lower + w * _between(hu, k + 1, i, j, x - i, y - j)))


@compiled()
def _sample_anywhere(hu, corner, shape, offsets, ends, scale, start, column, row, values):  # type: ignore[no-untyped-def]
    """Fills one patch; how many of its pixels lie outside the image."""
    x0, y0, z = offsets[:, 0].copy(), offsets[:, 1].copy(), offsets[:, 2].copy()
    last, k, missed = len(z) - 2, 0, 0
    low, high = ends[0], ends[1]
    begin, right, bottom = -0.5 - TIE, shape[1] - 0.5 + TIE, shape[0] - 0.5 + TIE
    sx, sy, sz, cx, cy, cz = start[0], start[1], start[2], column[0], column[1], column[2]
    rx, ry, rz = row[0], row[1], row[2]
    for a in range(SIZE):
        for b in range(SIZE):
            px, py, pz = sx + b * cx + a * rx, sy + b * cy + a * ry, sz + b * cz + a * rz
            while k < last and pz >= z[k + 1]:
                k += 1
            while k > 0 and pz < z[k]:
                k -= 1
            w = min(max((pz - z[k]) / (z[k + 1] - z[k]), 0.0), 1.0)
            x, y = (px - x0[k]) * scale[0], (py - y0[k]) * scale[1]
            x1, y1 = (px - x0[k + 1]) * scale[0], (py - y0[k + 1]) * scale[1]
            # a slice whose share is none, or rounding, does not put the point outside
            below = w >= 1.0 - TIE or (begin <= x <= right and begin <= y <= bottom)
            above = w <= TIE or (begin <= x1 <= right and begin <= y1 <= bottom)
            if low <= pz <= high and below and above:
                lower = _bilinear(hu, k, corner, x, y)
                values[a, b] = np.rint(np.float32((1.0 - w) * lower + w * _bilinear(hu, k + 1, corner, x1, y1)))
            else:
                values[a, b] = AIR
                missed += 1
    return missed


@compiled(inline="always")
def _bilinear(hu, k, corner, x, y):  # type: ignore[no-untyped-def]
    """Slice k at pixel (x, y) of the image, clamped to the pixel centres of the part that was read."""
    x = min(max(x - corner[1], 0.0), hu.shape[2] - 1.0)
    y = min(max(y - corner[0], 0.0), hu.shape[1] - 1.0)
    i, j = min(int(x), hu.shape[2] - 2), min(int(y), hu.shape[1] - 2)
    return _between(hu, k, i, j, x - i, y - j)


@compiled(inline="always")
def _between(hu, k, i, j, fx, fy):  # type: ignore[no-untyped-def]
    """Slice k between the four pixels from (i, j) on."""
    at, left, up = np.uint64(k), np.uint64(i), np.uint64(j)
    right, down = left + np.uint64(1), up + np.uint64(1)
    upper = (1.0 - fx) * hu[at, up, left] + fx * hu[at, up, right]
    return (1.0 - fy) * upper + fy * ((1.0 - fx) * hu[at, down, left] + fx * hu[at, down, right])
