"""From HU to the network's picture: 64 → 224 pixels, then three CT windows as R, G, B — in exact integers.

Bilinear upsampling with half-pixel centres and clamped edges (what `torch.nn.functional.interpolate(mode="bilinear",
align_corners=False)` computes) puts output pixel i at (4i − 5)/14 of the input, so its weights are multiples of 1/14
and X = 196 · (upsampled HU) is an integer. Upsampling comes before windowing: the other order is off by up to 59
levels at an edge.
"""

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import NDArray

from ..compiled import compiled
from ..recipe import RENDERED_SIZE, SIZE, WINDOWS
from .rendering import PARTS, UNIT, taps


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
    hu = np.ascontiguousarray(hu, dtype=np.int16)
    if hu.ndim != 3 or hu.shape[1:] != (SIZE, SIZE):
        raise ValueError(f"patches must be (N, {SIZE}, {SIZE}), not {hu.shape}")
    rgb = np.empty((len(hu), RENDERED_SIZE, RENDERED_SIZE, 3), np.uint8)
    index, weight = taps()
    _render(hu, index, weight, rgb)
    return rgb


@compiled()
def _render(hu, index, weight, rgb):  # type: ignore[no-untyped-def]
    wide = np.empty((SIZE, RENDERED_SIZE), np.int32)
    line = np.empty(RENDERED_SIZE, np.int32)
    for n in range(len(hu)):
        for a in range(SIZE):
            for j in range(RENDERED_SIZE):
                w = weight[j]
                wide[a, j] = (PARTS - w) * np.int32(hu[n, a, index[j]]) + w * np.int32(hu[n, a, index[j] + 1])
        for i in range(RENDERED_SIZE):
            upper, lower, w = wide[index[i]], wide[index[i] + 1], weight[i]
            for j in range(RENDERED_SIZE):
                line[j] = (PARTS - w) * upper[j] + w * lower[j]
            for channel in numba.literal_unroll((0, 1, 2)):
                _window(line, WINDOWS[channel][0], WINDOWS[channel][1], rgb[n, i], channel)


@compiled(inline="always")
def _window(line, low, high, out, channel):  # type: ignore[no-untyped-def]
    width = np.int32(UNIT * (high - low))
    for j in range(RENDERED_SIZE):
        t = min(max(line[j] - np.int32(UNIT * low), np.int32(0)), width)
        out[j, channel] = (510 * t + width) // (2 * width)
