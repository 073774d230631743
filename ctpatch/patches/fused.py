"""HU straight to a network's input in one pass: upsampled, windowed, rounded to levels and normalised in the cache."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..compiled import compiled
from ..recipe import RENDERED_SIZE, SIZE
from .rendering import PARTS, Rendering, checked


def network_input(
    hu: NDArray[np.int16], rendering: Rendering, out: NDArray[np.float32] | None = None
) -> NDArray[np.float32]:
    """The network's input for patches; several threads may call it at once.

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
    hu = checked(hu)
    shape = (len(hu), 3, RENDERED_SIZE, RENDERED_SIZE)
    if out is None:
        out = np.empty(shape, np.float32)
    elif out.shape != shape or out.dtype != np.float32 or not out.flags.c_contiguous or not out.flags.writeable:
        raise ValueError(f"out must be a C-contiguous float32 array {shape} to write to, not {out.dtype} {out.shape}")
    r = rendering
    _fuse(hu, r.lower, r.weight, r.low, r.width, r.scale, r.divisor, r.gain, r.offset, out)
    return out


@compiled(nogil=True)
def _fuse(hu, lower, weight, low, width, scale, divisor, gain, offset, out):  # type: ignore[no-untyped-def]
    real = low.dtype.type
    wide = np.empty((SIZE, RENDERED_SIZE), np.int32)
    line = np.empty(RENDERED_SIZE, low.dtype)
    for n in range(len(hu)):
        for a in range(SIZE):
            for j in range(RENDERED_SIZE):
                w, before = weight[j], lower[j]
                wide[a, j] = (PARTS - w) * np.int32(hu[n, a, before]) + w * np.int32(hu[n, a, before + 1])
        for i in range(RENDERED_SIZE):
            upper, under, w = wide[lower[i]], wide[lower[i] + 1], weight[i]
            for j in range(RENDERED_SIZE):
                line[j] = real(np.int32((PARTS - w) * upper[j] + w * under[j]))
            for c in range(3):
                _write(line, low[c], width[c], scale[c], divisor[c], gain[c], offset[c], out[n, c, i])


@compiled(nogil=True)
def _write(line, low, width, scale, divisor, gain, offset, row):  # type: ignore[no-untyped-def]
    # numbers, not elements of arrays: those might change as `row` is written, and nothing would be vectorised
    zero, half = np.float32(0), divisor / np.float32(2)
    for j in range(RENDERED_SIZE):
        level = np.floor((scale * min(max(line[j] - low, zero), width) + half) / divisor)
        row[j] = np.float32(level) * gain - offset
