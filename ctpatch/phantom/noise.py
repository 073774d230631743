"""How a scanner shows a slice: the kernel's blur, and noise with a power spectrum of filtered back-projection."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import fft

from .shapes import Plane


@dataclass(frozen=True)
class Kernel:
    """A reconstruction kernel by its modulation transfer function exp(−ln 2 (f / f50)^2.4).

    Attributes
    ----------
    f50 : float
        Cycles per mm at which half of the contrast is left.
    """

    f50: float

    def mtf(self, f: Plane) -> Plane:
        """The transfer function at spatial frequencies `f` in cycles per mm."""
        return np.exp(-math.log(2) * (f / self.f50) ** 2.4)

    def nps(self, f: Plane) -> Plane:
        """Shape of the noise power spectrum: the ramp filter's |f| times the kernel's transfer squared.

        White noise of the projections is filtered by f·MTF and spread over 2πf by back-projection (Riederer et al.,
        Phys. Med. Biol. 23:446, 1978; Kijewski and Judy, Phys. Med. Biol. 32:565, 1987).
        """
        return f * self.mtf(f) ** 2


STANDARD = Kernel(0.42)
"""Soft tissue."""
SHARP = Kernel(0.58)
"""Lung."""


class Scanner:
    """Blurs slices of one size and spacing by a kernel, and adds noise.

    Parameters
    ----------
    spacing : float
        Of the pixels in mm.
    kernel : Kernel
    noise : Plane
        Standard deviation at each pixel in HU.
    """

    def __init__(self, spacing: float, kernel: Kernel, noise: Plane) -> None:
        rows, columns = shape = noise.shape
        f = np.hypot(fft.fftfreq(rows, spacing)[:, None], fft.rfftfreq(columns, spacing)).astype(np.float32)
        self._shape, self._mtf, self._sd = shape, kernel.mtf(f), noise
        spectrum = np.sqrt(kernel.nps(f))
        power = (fft.irfft2(spectrum, shape) ** 2).sum()
        self._noise = spectrum / math.sqrt(power)

    def show(self, plane: Plane, rng: np.random.Generator) -> Plane:
        """The slice as the scanner shows it."""
        white = rng.standard_normal(self._shape, np.float32)
        blurred = fft.irfft2(fft.rfft2(plane) * self._mtf, self._shape)
        noise = fft.irfft2(fft.rfft2(white) * self._noise, self._shape)
        return (blurred + self._sd * noise).astype(np.float32)


def body_noise(x: Plane, y: Plane, skin: tuple[float, float], noise: float) -> Plane:
    """Noise of a body whose skin is an ellipse of half axes `skin`: most in its middle, whose rays are weakest.

    `noise` is its standard deviation in the middle; the skin has 6/10 of it, and air far outside the least, 4/10.
    """
    return (noise * np.clip(1 - 0.4 * np.hypot(x / skin[0], y[:, None] / skin[1]) ** 2, 0.4, 1)).astype(np.float32)
