"""How noisy a CT is, whatever kernel it was reconstructed with."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d, uniform_filter

WINDOW_MM = 7.0
"""Side of the squares whose standard deviations are looked at."""
TISSUE_HU = (0.0, 100.0)
"""Mean HU of the squares that count: soft tissue."""
FEWEST = 200
"""Fewer squares of soft tissue than this say nothing."""
_BIN, _MOST = 0.5, 200.0


def noise(hu: NDArray[np.float32], spacing: Sequence[float]) -> float:
    """The commonest standard deviation in small squares of soft tissue, HU; NaN where there is too little of it.

    Global noise level (Christianson et al., Automated technique to measure noise in clinical CT, AJR 205, 2015): most
    squares lie within one tissue, so the mode of their standard deviations is the noise's, while edges and vessels make
    its tail. It measures how strong the grain is, not how fine: estimators from neighbours' differences or wavelets
    call a smooth kernel quiet.

    Parameters
    ----------
    hu : (N, rows, columns)
        Slices, or patches in the slices' plane.
    spacing : (float, float)
        mm between rows, between columns.
    """
    sides = [max(3, 2 * round(WINDOW_MM / step / 2) + 1) for step in spacing]
    if hu.shape[1] <= sides[0] or hu.shape[2] <= sides[1]:
        return math.nan
    size, count = (1, *sides), sides[0] * sides[1]
    values = hu.astype(np.float64)
    mean, square = uniform_filter(values, size), uniform_filter(values**2, size)
    rows, columns = (slice(side // 2, -(side // 2)) for side in sides)  # squares that lie within the picture
    mean, square = mean[:, rows, columns], square[:, rows, columns]
    tissue = (mean >= TISSUE_HU[0]) & (mean <= TISSUE_HU[1])
    deviation = np.sqrt(np.maximum(square - mean**2, 0)[tissue] * count / (count - 1))
    if deviation.size < FEWEST:
        return math.nan
    counts, edges = np.histogram(deviation, np.arange(0, _MOST + _BIN, _BIN))
    return float(edges[gaussian_filter1d(counts.astype(np.float64), 2).argmax()] + _BIN / 2)
