"""What a store's patches say of one lesion, and the patches that stand for all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..images.image import AIR
from ..patches.render import render
from ..recipe import SIZE, WINDOWS
from ..store import SplitView
from .noise import noise
from .pictures import data_uri, halved, widest, windowed

AIR_MAX = -900
"""A patch of which 99 % is no denser holds air only."""
SHOWN = 12
"""Patches shown of a lesion."""
ODD_SHOWN = 6
"""And of those that hold air only, or lie half outside."""
PLANES = ("xy", "xz", "yz")
HU_EDGES = np.arange(-1024, 1025, 32)
"""Bins of the HU histograms."""
QUANTILES = (0.05, 0.5, 0.95)


@dataclass(frozen=True, eq=False)
class PatchFacts:
    """What the patches of a lesion say.

    Attributes
    ----------
    count : int
    air, outside, constant : int
        Patches of air only; of which at least half is −1024 HU (outside the image, or padding); of one HU.
    hu : (float, float, float)
        5th, 50th and 95th percentile of HU within a pixel of the centres of original patches, which lie in the lesion.
    noise : float
        HU, in the slices' plane, after interpolation; NaN where there is too little soft tissue.
    histogram : (bins,) int
        Of the original patches' HU, by `HU_EDGES`; what lies beyond is in the end bins.
    """

    count: int
    air: int
    outside: int
    constant: int
    hu: tuple[float, float, float]
    noise: float
    histogram: NDArray[np.int64]


@dataclass(frozen=True)
class Shown:
    """A patch as the network sees it: data URI, `xy`, `xz` or `yz`, and 0 or the number of the moved copy."""

    picture: str
    plane: str
    copy: int


@dataclass(frozen=True, eq=False)
class PatchesLook:
    """Facts, the patches shown, those of them that are odd, and the first one small and grey."""

    facts: PatchFacts
    shown: tuple[Shown, ...]
    odd: tuple[Shown, ...]
    thumbnail: str


def look_at_patches(view: SplitView, rows: range, spacing: float, windows: Sequence[Sequence[int]]) -> PatchesLook:
    """Read a lesion's patches, rows `rows` of its split."""
    chosen = slice(rows.start, rows.stop)
    hu, plane, copy = (np.asarray(getattr(view, name)[chosen]) for name in ("hu", "plane", "copy"))
    air, outside = air_only(hu), half_outside(hu)
    original = hu[copy == 0]
    flat = original[(plane == 0)[copy == 0]]
    middle = original[:, SIZE // 2 - 1 : SIZE // 2 + 2, SIZE // 2 - 1 : SIZE // 2 + 2]
    facts = PatchFacts(
        len(hu),
        int(air.sum()),
        int(outside.sum()),
        int((np.ptp(hu, axis=(1, 2)) == 0).sum()),
        quantiles(middle),
        noise(flat.astype(np.float32), (spacing, spacing)),
        np.histogram(np.clip(original, HU_EDGES[0], HU_EDGES[-1]), HU_EDGES)[0],
    )
    odd = np.flatnonzero(air | outside)[:ODD_SHOWN]
    shown = [
        tuple(
            Shown(data_uri(picture), PLANES[plane[k]], int(copy[k]))
            for k, picture in zip(indices, seen(hu[indices], windows), strict=True)
        )
        for indices in (representative(copy), odd)
    ]
    return PatchesLook(facts, shown[0], shown[1], data_uri(windowed(hu[0], widest(windows))) if len(hu) else "")


def air_only(hu: NDArray[np.int16]) -> NDArray[np.bool_]:
    """Which patches (N, 64, 64) are air but for a hundredth."""
    return np.asarray((hu > AIR_MAX).mean(axis=(1, 2)) < 0.01)


def half_outside(hu: NDArray[np.int16]) -> NDArray[np.bool_]:
    """Which patches (N, 64, 64) are half or more of what stands for the outside of an image."""
    return np.asarray((hu == AIR).mean(axis=(1, 2)) >= 0.5)


def representative(copy: NDArray[np.uint8]) -> NDArray[np.intp]:
    """Twelve patches: the first originals, in turn through the planes, then a moved copy of each where there are."""
    originals, moved = np.flatnonzero(copy == 0), np.flatnonzero(copy == 1)
    half = max(SHOWN // 2, SHOWN - len(moved))
    return np.concatenate([originals[:half], moved[: SHOWN - min(half, len(originals))]])


def quantiles(values: NDArray[np.int16] | NDArray[np.float32]) -> tuple[float, float, float]:
    """`QUANTILES` of HU; NaN where there are none."""
    if not values.size:
        return (np.nan, np.nan, np.nan)
    low, middle, high = np.quantile(values, QUANTILES)
    return float(low), float(middle), float(high)


def seen(hu: NDArray[np.int16], windows: Sequence[Sequence[int]]) -> list[NDArray[np.uint8]]:
    """Patches (N, 64, 64) as the network sees them, at half its resolution; by other windows than ctpatch's, as is."""
    if [tuple(window) for window in windows] == list(WINDOWS):
        return [halved(picture) for picture in render(hu)]
    return [np.stack([windowed(patch, window) for window in windows], axis=-1) for patch in hu]
