"""Pictures as a page holds them: data URIs, and outlines as paths."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from skimage.measure import approximate_polygon, find_contours

QUALITY = 70
"""Of WebP, in percent: a thousand lesions have to fit into one page."""
STRAIGHT_PX = 0.3
"""How far an outline may be moved to have fewer points."""


def data_uri(picture: NDArray[np.uint8]) -> str:
    """A picture (rows, columns) or (rows, columns, 3) as the text of an image's address."""
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "WEBP", quality=QUALITY)
    return "data:image/webp;base64," + base64.b64encode(file.getvalue()).decode()


def halved(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A picture of half the size; each pixel is the mean of four."""
    rows, columns = picture.shape[0] // 2, picture.shape[1] // 2
    four = picture.reshape(rows, 2, columns, 2, *picture.shape[2:])
    return np.rint(four.mean(axis=(1, 3))).astype(np.uint8)


def windowed(hu: NDArray[np.int16], window: Sequence[int]) -> NDArray[np.uint8]:
    """HU as grey levels: black at a window's lower end and below, white at its upper end and above."""
    low, high = window
    return np.rint(255 * (np.clip(hu.astype(np.float32), low, high) - low) / (high - low)).astype(np.uint8)


def widest(windows: Sequence[Sequence[int]]) -> Sequence[int]:
    """The window that shows most."""
    return max(windows, key=lambda window: window[1] - window[0])


def outline(inside: NDArray[np.bool_]) -> str:
    """An SVG path along the borders of a mask; a pixel (row a, column b) covers [b, b+1] × [a, a+1]."""
    rings = find_contours(np.pad(inside, 1).astype(np.float32), 0.5)
    return "".join(_ring(approximate_polygon(ring, STRAIGHT_PX) - 0.5) for ring in rings)


def _ring(points: NDArray[np.float64]) -> str:
    return "M" + "L".join(f"{x:.4g} {y:.4g}" for y, x in points[:-1]) + "Z"
