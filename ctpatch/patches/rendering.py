"""What turns HU into pictures: the constants of their exact levels, and a network's normalisation of the channels.

Whoever renders, by whatever means (`render` on a CPU, tensors on a GPU), takes them from here. Each level is
floor((scale · t + divisor / 2) / divisor), t = clip(X − low, 0, width), X = 196 · (upsampled HU): the design's
(510 t + width) // (2 width) in lowest terms. All of these are whole numbers that `low`'s dtype holds, so one correctly
rounded division gives the level.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..recipe import RENDERED_SIZE, SIZE

PARTS = 14
"""The weights' denominator: 224 / 64 = 7 / 2, so output pixel i lies at (4i − 5) / 14 of the input."""

UNIT = PARTS * PARTS

Windows = Sequence[Sequence[int]]
"""(lowest, highest) HU of the R, G and B channel, as `PatchStore.windows` gives them."""

Normalisation = tuple[Sequence[float], Sequence[float]]
"""Mean and standard deviation of the channels, in levels / 255."""

IMAGENET: Normalisation = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""As most published weights expect; a constant, so nothing of val or test enters it."""


@dataclass(frozen=True, eq=False)
class Rendering:
    """From HU to (level / 255 − mean) / std by a store's windows.

    Attributes
    ----------
    lower, weight : arrays, shape (224,)
        Of each picture row or column: the patch's row or column before it, and the share of the next in fourteenths.
    low, width, scale, divisor : arrays, shape (3,)
        Of each channel in 1/196 HU; 255 / width in lowest terms is scale / divisor. Their dtype is the one in which
        every value stays a whole number that it holds: float32 for the paper's windows.
    gain, offset : arrays, shape (3,), float32
        (level / 255 − mean) / std is gain · level − offset.
    """

    lower: NDArray[np.int64]
    weight: NDArray[np.int32]
    low: NDArray[np.floating]
    width: NDArray[np.floating]
    scale: NDArray[np.floating]
    divisor: NDArray[np.floating]
    gain: NDArray[np.float32]
    offset: NDArray[np.float32]

    @classmethod
    def of(cls, windows: Windows, normalisation: Normalisation = IMAGENET) -> Rendering:
        """The rendering by these windows, normalised for these weights.

        Raises
        ------
        InputError
            If a window reaches so far that not even float64 is exact, or there are not three finite means and three
            standard deviations above 0.
        """
        low, high = UNIT * np.array(windows, dtype=object).T  # Python's own whole numbers, of any size
        width = high - low
        common = np.gcd(width, 255)
        dtype = _exact(low, width // common)
        low, width, scale, divisor = (n.astype(dtype) for n in (low, width, 255 // common, width // common))
        mean, std = np.array(channels(normalisation), np.float32)
        gain, offset = np.float32(1) / (np.float32(255) * std), mean / std
        return cls(*taps(), low, width, scale, divisor, gain, offset)


@lru_cache
def rendering_by(windows: tuple[tuple[int, int], ...], normalisation: Normalisation = IMAGENET) -> Rendering:
    """`Rendering.of` these, made once; both have to be tuples."""
    return Rendering.of(windows, normalisation)


def taps() -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """Lower neighbour of each output pixel, and the upper neighbour's weight in fourteenths."""
    place = np.clip(4 * np.arange(RENDERED_SIZE) - 5, 0, PARTS * (SIZE - 1))
    lower = np.minimum(place // PARTS, SIZE - 2)
    return lower, (place - PARTS * lower).astype(np.int32)


def _exact(low: NDArray[np.object_], divisor: NDArray[np.object_]) -> type[np.floating]:
    """The dtype that holds each value on the way from int16 HU to levels as the whole number it is."""
    most = max(UNIT * 2**15 + abs(low).max(), 256 * divisor.max())
    for dtype, limit in ((np.float32, 2**24), (np.float64, 2**53)):
        if most < limit:
            return dtype
    raise InputError("rendering windows of more than 10^11 HU", "build the store with windows of CT values")


def channels(normalisation: Normalisation) -> Normalisation:
    """The same as tuples of numbers; an `InputError` unless it is three finite means and three deviations above 0."""
    try:
        mean, std = (tuple(float(value) for value in values) for values in normalisation)
        good = len(mean) == len(std) == 3 and bool(np.isfinite(mean + std).all()) and np.float32(min(std)) > 0
    except (TypeError, ValueError):
        good = False
    if not good:
        found = f"normalisation {normalisation!r:.80}"
        raise InputError(found, "give three means and three standard deviations, each above 0")
    return mean, std
