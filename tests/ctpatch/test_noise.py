"""Blur and noise of the simulated scanner, measured as physicists measure those of real ones."""

from __future__ import annotations

import numpy as np
import pytest

from ctpatch.phantom.noise import SHARP, STANDARD, Scanner, body_noise

PIXEL = 0.7
SHAPE = (256, 192)


def radial(spectrum: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean of a power spectrum in rings of 0.05 cycles per mm, and the rings' middle."""
    f = np.hypot(np.fft.fftfreq(SHAPE[0], PIXEL)[:, None], np.fft.fftfreq(SHAPE[1], PIXEL))
    ring = (f / 0.05).astype(int)
    count = np.bincount(ring.ravel())
    return np.bincount(ring.ravel(), spectrum.ravel())[:14] / count[:14], (np.arange(14) + 0.5) * 0.05


@pytest.mark.parametrize("kernel", [STANDARD, SHARP])
def test_noise_power_spectrum_is_the_ramps_times_the_kernels(kernel):
    scanner, rng = Scanner(PIXEL, kernel, np.full(SHAPE, 12, np.float32)), np.random.default_rng(0)
    slices = np.array([scanner.show(np.zeros(SHAPE, np.float32), rng) for _ in range(30)])
    assert slices.std() == pytest.approx(12, rel=0.01)
    power, f = radial((abs(np.fft.fft2(slices)) ** 2).mean(axis=0))
    expected = kernel.nps(f)
    np.testing.assert_allclose(power / power.sum(), expected / expected.sum(), atol=0.012)
    assert 0.15 < f[np.argmax(power)] < 0.4
    assert abs(np.mean(slices[1:] * slices[:-1])) < 0.5  # slices are independent


def test_an_edges_blur_is_the_kernels():
    """The transfer function from the edge spread function of a straight edge, without noise."""
    edge = np.zeros(SHAPE, np.float32)
    edge[:, 60:130] = 1000
    shown = Scanner(PIXEL, STANDARD, np.zeros(SHAPE, np.float32)).show(edge, np.random.default_rng(0))
    before, after = (abs(np.fft.rfft(row)) for row in (edge[100], shown[100]))
    f = np.fft.rfftfreq(SHAPE[1], PIXEL)
    sure = before > 100
    np.testing.assert_allclose((after / np.maximum(before, 1))[sure], STANDARD.mtf(f)[sure], atol=1e-3)
    assert STANDARD.mtf(np.array([0.42])) == pytest.approx(0.5)


def test_noise_is_most_in_the_middle_of_the_body():
    x, y = np.arange(-100, 101, dtype=np.float32), np.arange(-80, 81, dtype=np.float32)
    noise = body_noise(x, y, (100.0, 80.0), 20.0)
    assert noise[80, 100] == 20
    assert noise[80, 0] == pytest.approx(12)
    assert noise[0, 100] == pytest.approx(12)
    assert noise.min() == pytest.approx(8)
