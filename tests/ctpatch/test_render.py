"""Rendering against the design's formula in pure Python integers and fractions, and against torch."""

import subprocess
import sys
from fractions import Fraction
from math import floor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctpatch.patches.render import render, rendered

WINDOWS = [(-800, -200), (-200, 400), (-1000, 400)]


def taps(i):
    """The two input pixels of output pixel i and the second one's weight, exactly; edges clamped."""
    place = min(max(Fraction(2 * i + 1, 2) * Fraction(64, 224) - Fraction(1, 2), Fraction(0)), Fraction(63))
    lower = min(floor(place), 62)
    return lower, lower + 1, place - lower


def upsampled(patch, i, j):
    """HU at output pixel (i, j) as a fraction."""
    (a, b, v), (c, d, w) = taps(i), taps(j)
    top = (1 - w) * int(patch[a, c]) + w * int(patch[a, d])
    bottom = (1 - w) * int(patch[b, c]) + w * int(patch[b, d])
    return (1 - v) * top + v * bottom


def level(hu, low, high):
    """Round half up of 255 · clipped share, by the design's integer formula; the fraction says the same."""
    x = 196 * hu
    assert x.denominator == 1
    t = min(max(int(x) - 196 * low, 0), 196 * (high - low))
    value = (510 * t + 196 * (high - low)) // (392 * (high - low))
    share = Fraction(min(max(hu, low), high) - low, high - low)
    assert value == floor(255 * share + Fraction(1, 2))
    return value


patches = st.one_of(
    st.integers(0, 2**32).map(lambda seed: np.random.default_rng(seed).integers(-1024, 3000, (64, 64))),
    st.integers(0, 2**32).map(lambda seed: np.random.default_rng(seed).integers(-32768, 32768, (64, 64))),
    st.sampled_from([-32768, -1024, -1000, -800, -500, -200, 0, 100, 400, 401, 32767]).map(
        lambda value: np.full((64, 64), value)
    ),
)


@settings(max_examples=25, deadline=None)
@given(patch=patches, seed=st.integers(0, 2**32))
def test_render_is_the_integer_formula(patch, seed):
    patch = patch.astype(np.int16)
    (rgb,) = render(patch[None])
    rng = np.random.default_rng(seed)
    pixels = [(0, 0), (223, 223), (0, 223), (1, 2), (222, 221), *rng.integers(0, 224, (150, 2)).tolist()]
    for i, j in pixels:
        hu = upsampled(patch, i, j)
        assert rgb[i, j].tolist() == [level(hu, *window) for window in WINDOWS]


def exact_upsampling(patches):
    """196 · HU at every output pixel of patches (..., 64, 64), as int64."""
    weights = np.zeros((224, 64), np.int64)
    for i in range(224):
        lower, upper, w = taps(i)
        weights[i, lower], weights[i, upper] = int(14 * (1 - w)), int(14 * w)
    return weights @ patches.astype(np.int64) @ weights.T


def test_whole_patches_are_the_integer_formula():
    """At 98 of 100 of the 274,401 places of the widest window, the ends among them."""
    patches = np.random.default_rng(0).integers(-1100, 500, (80, 64, 64)).astype(np.int16)
    x, rgb = exact_upsampling(patches), render(patches)
    for channel, (low, high) in enumerate(WINDOWS):
        t = np.clip(x - 196 * low, 0, 196 * (high - low))
        wanted = (510 * t + 196 * (high - low)) // (392 * (high - low))
        np.testing.assert_array_equal(rgb[..., channel], wanted)
    assert len(np.unique(t)) > 0.98 * (196 * (high - low) + 1)


def test_levels_at_the_windows_ends():
    for value, wanted in {
        -1000: [0, 0, 0],
        -800: [0, 0, 36],
        -500: [128, 0, 91],
        -200: [255, 0, 146],
        100: [255, 128, 200],
        400: [255, 255, 255],
        3000: [255, 255, 255],
    }.items():
        rgb = render(np.full((1, 64, 64), value, np.int16))
        assert np.unique(rgb.reshape(-1, 3), axis=0).tolist() == [wanted]


def test_upsampling_comes_before_windowing():
    """A step from −1000 to 3000 HU: windowing first would put its middle at half the levels."""
    patch = np.full((1, 64, 64), -1000, np.int16)
    patch[:, :, 32:] = 3000
    line = render(patch)[0, 100, :, 1].astype(int)
    hu = [upsampled(patch[0], 100, j) for j in range(224)]
    assert line.tolist() == [level(value, -200, 400) for value in hu]
    assert sorted(set(line)) == [0, 255]  # at 1/14 to 13/14 of a 4000 HU step nothing falls within the window but ends


def realistic_patches():
    """Noise over soft tissue, fat, lung and bone: what CT patches hold."""
    rng = np.random.default_rng(4)
    base = rng.choice([-1024, -850, -100, 40, 60, 300], (40, 8, 8))
    smooth = np.repeat(np.repeat(base, 8, axis=1), 8, axis=2)
    return (smooth + rng.normal(0, 25, smooth.shape)).clip(-1024, 3071).round().astype(np.int16)


def test_torch_differs_by_one_level_at_ties_only():
    torch = pytest.importorskip("torch", reason="torch is an extra")
    patches = realistic_patches()
    hu = torch.from_numpy(patches).to(torch.float32)[:, None]
    up = torch.nn.functional.interpolate(hu, (224, 224), mode="bilinear", align_corners=False)[:, 0].numpy()
    rgb, x = render(patches).astype(int), exact_upsampling(patches)
    assert np.abs(up - x / 196).max() < 0.02  # HU: torch's float32 coordinates
    different, pixels = 0, 0
    for channel, (low, high) in enumerate(WINDOWS):
        exact = 255 * np.clip(x - 196 * low, 0, 196 * (high - low)) / (196 * (high - low))
        theirs = np.floor(255 * (np.clip(up, low, high) - low) / (high - low) + 0.5).astype(int)
        off = np.abs(theirs - rgb[..., channel])
        assert off.max() <= 1
        assert np.abs(exact - np.floor(exact) - 0.5)[off > 0].max() < 0.02 * 255 / (high - low)  # of the tie
        different, pixels = different + np.count_nonzero(off), pixels + off.size
    assert different / pixels <= 1e-4


def test_shapes_and_nothing_at_all():
    assert render(np.zeros((0, 64, 64), np.int16)).shape == (0, 224, 224, 3)
    for shape in ((64, 64), (1, 32, 64), (1, 64, 64, 1)):
        with pytest.raises(ValueError, match="patches must be"):
            render(np.zeros(shape, np.int16))


def test_views_are_rendered_as_they_are():
    hu = np.random.default_rng(1).integers(-1024, 1000, (4, 64, 64)).astype(np.int16)
    np.testing.assert_array_equal(render(hu[::-2, :, ::-1]), render(np.ascontiguousarray(hu[::-2, :, ::-1])))


def test_one_by_one_they_are_the_same_pictures():
    hu = np.random.default_rng(2).integers(-1024, 1000, (5, 64, 64)).astype(np.int16)
    for n, picture in enumerate(rendered(hu)):
        np.testing.assert_array_equal(picture, render(hu)[n])
    assert n == 4
    assert list(rendered(hu[:0])) == []


def test_rendering_imports_no_torch():
    code = "import sys, ctpatch.patches.render; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "False"
