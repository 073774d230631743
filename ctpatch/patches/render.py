"""From HU to the network's picture: 64 → 224 pixels, then three CT windows as R, G, B — in exact integers.

Bilinear upsampling with half-pixel centres and clamped edges (what `torch.nn.functional.interpolate(mode="bilinear",
align_corners=False)` computes) puts output pixel i at (4i − 5)/14 of the input, so its weights are multiples of 1/14
and X = 196 · (upsampled HU) is an integer. Upsampling comes before windowing: the other order is off by up to 59
levels at an edge.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from ..compiled import compiled
from ..recipe import RENDERED_SIZE, SIZE, WINDOWS
from .rendering import PARTS, UNIT, checked, taps


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
    hu = checked(hu)
    rgb = np.empty((len(hu), RENDERED_SIZE, RENDERED_SIZE, 3), np.uint8)
    _render(hu, *taps(), rgb)
    return rgb


def rendered(hu: NDArray[np.int16]) -> Iterator[NDArray[np.uint8]]:
    """The same pictures one by one, (224, 224, 3) each, all in one piece of memory: each is gone when the next comes.

    A picture that is hashed or compressed at once is still in the processor's cache.
    """
    hu, weights = checked(hu), taps()
    rgb = np.empty((1, RENDERED_SIZE, RENDERED_SIZE, 3), np.uint8)
    for n in range(len(hu)):
        _render(hu[n : n + 1], *weights, rgb)
        yield rgb[0]


@compiled(nogil=True)
def _render(hu, index, weight, rgb):  # type: ignore[no-untyped-def]
    wide = np.empty((SIZE, RENDERED_SIZE), np.int32)
    for n in range(len(hu)):
        for a in range(SIZE):
            for j in range(RENDERED_SIZE):
                w = weight[j]
                wide[a, j] = (PARTS - w) * np.int32(hu[n, a, index[j]]) + w * np.int32(hu[n, a, index[j] + 1])
        for i in range(RENDERED_SIZE):
            upper, lower, w = wide[index[i]], wide[index[i] + 1], weight[i]
            out = rgb[n, i].reshape(3 * RENDERED_SIZE)  # by four indices, the stores are not seen to be side by side
            for j in range(RENDERED_SIZE):
                x = (PARTS - w) * upper[j] + w * lower[j]
                out[3 * j], out[3 * j + 1], out[3 * j + 2] = _level(x, 0), _level(x, 1), _level(x, 2)


@compiled(inline="always")
def _level(x, channel):  # type: ignore[no-untyped-def]
    """The level that X stands for in a window; unsigned, since that division is a multiplication."""
    low, high = WINDOWS[channel]
    width = np.uint32(UNIT * (high - low))
    t = np.uint32(min(max(x - np.int32(UNIT * low), np.int32(0)), np.int32(UNIT * (high - low))))
    return (np.uint32(510) * t + width) // (np.uint32(2) * width)
