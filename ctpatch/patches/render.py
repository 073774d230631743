"""From HU to pictures: 64 → 224 pixels, then three CT windows as R, G, B, in whole numbers; and to a network's input.

Bilinear upsampling with half-pixel centres and clamped edges (what `torch.nn.functional.interpolate(mode="bilinear",
align_corners=False)` computes) puts output pixel i at (4i − 5)/14 of the input, so its weights are multiples of 1/14
and X = 196 · (upsampled HU) is a whole number. Upsampling comes before windowing: the other order is off by up to 59
levels at an edge. `rendering` has the formula of the levels, whose numbers a floating-point type holds exactly.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..compiled import compiled
from ..recipe import RENDERED_SIZE, SIZE, WINDOWS
from .rendering import PARTS, Rendering, rendering_by


def render(hu: NDArray[np.int16]) -> NDArray[np.uint8]:
    """RGB pictures of patches.

    Parameters
    ----------
    hu : (N, 64, 64) int16
        Patches in HU.

    Returns
    -------
    (N, 224, 224, 3) uint8
        level = round_half_up(255 · clip(HU − low, 0, high − low) / (high − low)) of the upsampled HU.
    """
    hu = _checked(hu)
    rgb = np.empty((len(hu), RENDERED_SIZE, RENDERED_SIZE, 3), np.uint8)
    _render(hu, *_constants(rendering_by(WINDOWS)), rgb)
    return rgb


def rendered(hu: NDArray[np.int16]) -> Iterator[NDArray[np.uint8]]:
    """The same pictures one by one, (224, 224, 3) each, all in one piece of memory: each is gone when the next comes.

    A picture that is hashed or compressed at once is still in the processor's cache.
    """
    hu, constants = _checked(hu), _constants(rendering_by(WINDOWS))
    rgb = np.empty((1, RENDERED_SIZE, RENDERED_SIZE, 3), np.uint8)
    for n in range(len(hu)):
        _render(hu[n : n + 1], *constants, rgb)
        yield rgb[0]


def network_input(
    hu: NDArray[np.int16], rendering: Rendering, out: NDArray[np.float32] | None = None
) -> NDArray[np.float32]:
    """The network's input for patches, in one pass; several threads may call it at once.

    Parameters
    ----------
    hu : (N, 64, 64) int16
        Patches in HU.
    rendering : Rendering
    out : (N, 3, 224, 224) float32, optional
        C-contiguous; where the pictures go, instead of into new memory.

    Returns
    -------
    (N, 3, 224, 224) float32
        gain · level − offset, with the levels of `render` exactly; `out` where it was given.

    Raises
    ------
    ValueError
        When `hu` or `out` has another shape, type or layout.
    """
    hu = _checked(hu)
    shape = (len(hu), 3, RENDERED_SIZE, RENDERED_SIZE)
    if out is None:
        out = np.empty(shape, np.float32)
    elif out.shape != shape or out.dtype != np.float32 or not out.flags.c_contiguous or not out.flags.writeable:
        raise ValueError(f"out must be a C-contiguous float32 array {shape} to write to, not {out.dtype} {out.shape}")
    _normalise(hu, *_constants(rendering), rendering.gain, rendering.offset, out)
    return out


def _checked(hu: NDArray[np.int16]) -> NDArray[np.int16]:
    """Patches as the kernels take them; a ValueError where they are of another shape."""
    hu = np.ascontiguousarray(hu, dtype=np.int16)
    if hu.ndim != 3 or hu.shape[1:] != (SIZE, SIZE):
        raise ValueError(f"patches must be (N, {SIZE}, {SIZE}), not {hu.shape}")
    return hu


def _constants(by: Rendering) -> tuple[NDArray[Any], ...]:
    """A rendering as the kernels take it: all numbers in one type, indices unsigned, which saves the wrap-around."""
    return by.lower.astype(np.uint64), by.weight.astype(by.low.dtype), by.low, by.width, by.scale, by.divisor


@compiled(nogil=True)
def _render(hu, lower, weight, low, width, scale, divisor, rgb):  # type: ignore[no-untyped-def]
    wide, line = np.empty((SIZE, RENDERED_SIZE), low.dtype), np.empty(RENDERED_SIZE, low.dtype)
    levels = np.empty((3, RENDERED_SIZE), np.uint8)
    for n in range(len(hu)):
        _widen(hu[n], lower, weight, wide)
        for i in range(RENDERED_SIZE):
            _line(wide[lower[i]], wide[lower[i] + np.uint64(1)], weight[i], line)
            for c in range(3):
                _levels(line, low[c], width[c], scale[c], divisor[c], levels[c])
            out = rgb[n, i].reshape(3 * RENDERED_SIZE)  # by four indices, the stores are not seen to be side by side
            for j in range(RENDERED_SIZE):
                out[3 * j], out[3 * j + 1], out[3 * j + 2] = levels[0, j], levels[1, j], levels[2, j]


@compiled(nogil=True)
def _normalise(hu, lower, weight, low, width, scale, divisor, gain, offset, out):  # type: ignore[no-untyped-def]
    wide, line = np.empty((SIZE, RENDERED_SIZE), low.dtype), np.empty(RENDERED_SIZE, low.dtype)
    for n in range(len(hu)):
        _widen(hu[n], lower, weight, wide)
        for i in range(RENDERED_SIZE):
            _line(wide[lower[i]], wide[lower[i] + np.uint64(1)], weight[i], line)
            for c in range(3):
                _levels(line, low[c], width[c], scale[c], divisor[c], out[n, c, i])
                _scale(out[n, c, i], gain[c], offset[c])


@compiled(nogil=True)
def _widen(patch, lower, weight, wide):  # type: ignore[no-untyped-def]
    """14 times each row of a patch, upsampled."""
    row, parts = np.empty(SIZE, wide.dtype), wide.dtype.type(PARTS)
    for a in range(SIZE):
        for b in range(SIZE):
            row[b] = patch[a, b]
        for j in range(RENDERED_SIZE):
            wide[a, j] = (parts - weight[j]) * row[lower[j]] + weight[j] * row[lower[j] + np.uint64(1)]


@compiled(nogil=True)
def _line(upper, under, weight, line):  # type: ignore[no-untyped-def]
    """X between two such rows."""
    rest = line.dtype.type(PARTS) - weight
    for j in range(RENDERED_SIZE):
        line[j] = rest * upper[j] + weight * under[j]


# The numbers are no elements of arrays: those might change as the row is written, and nothing would be vectorised.
@compiled(nogil=True)
def _levels(line, low, width, scale, divisor, row):  # type: ignore[no-untyped-def]
    """A picture row's levels of one channel."""
    zero, half = np.float32(0), divisor / np.float32(2)
    for j in range(RENDERED_SIZE):
        row[j] = np.int32((scale * min(max(line[j] - low, zero), width) + half) / divisor)


@compiled(nogil=True)
def _scale(row, gain, offset):  # type: ignore[no-untyped-def]
    """The same normalised, in place."""
    for j in range(RENDERED_SIZE):
        row[j] = row[j] * gain - offset
