"""From a scene to a series: slices through a lesion and around it, as a scanner shows them, and its contours."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..geometry import Floats, make_stack
from .abdomen import make_abdomen
from .anatomy import make_body, make_lesions, simulate_hu
from .chest import make_chest
from .noise import SHARP, STANDARD, Kernel, Scanner, body_noise
from .outlines import outlines
from .scanner import Scan, make_scan
from .shapes import Plane
from .torso import Scene

REACH_MM = 32.0
"""What is imaged above and below a lesion: as far as a patch of 64 pixels of 0.5 mm reaches, turned and moved."""
PLANE_MM = 1.6
"""A slice is the mean of planes about this far apart: three at 5 mm, two at 2.5 mm, else one."""
READER_MM = 0.3
"""Standard deviation of how far outside or inside of a lesion's edge a reader draws."""
HU_RANGE = -1024, 3071


MakeScene = Callable[[Mapping[str, float], np.random.Generator, np.random.Generator], Scene]


@dataclass(frozen=True)
class Examination:
    """How a part of the body is imaged.

    Attributes
    ----------
    make : callable
        A scene of given levels, by the patient's generator and the lesion's own.
    pixels : (float, float)
        Range of the pixel spacing in mm.
    slices : mapping of float to float
        Thickness of the slices in mm, and how often it is that.
    kernel : Kernel
    noise : (float, float)
        Range of its standard deviation in HU, in the middle of the body with slices of 1 mm.
    """

    make: MakeScene
    pixels: tuple[float, float]
    slices: Mapping[float, float]
    kernel: Kernel
    noise: tuple[float, float]


EXAMINATIONS = {
    "stomach": Examination(make_abdomen, (0.66, 0.78), {5.0: 0.55, 2.5: 0.30, 1.25: 0.15}, STANDARD, (20.0, 27.0)),
    "lung": Examination(make_chest, (0.62, 0.76), {1.0: 1.0}, SHARP, (26.0, 40.0)),
}
"""A GE LightSpeed in the venous phase; a Philips iCT without contrast."""


@dataclass(frozen=True, eq=False)
class Series:
    """HU (z, y, x) int16, where the slices lie, and each lesion's contours, (n, 3) mm LPS by slice."""

    hu: NDArray[np.int16]
    scan: Scan
    contours: tuple[Mapping[int, Floats], ...]


def examine_body(
    geometry: str,
    levels: Sequence[Mapping[str, float]],
    rng: np.random.Generator,
    streams: Sequence[np.random.Generator],
) -> Series:
    """The series of a plain body with lesions of the given levels; `streams` are the lesions' own generators."""
    scan = make_scan(geometry, rng)
    body = make_body(scan.centre, rng)
    lesions = make_lesions(scan.stack.to_stack(scan.centre), levels, streams)
    hu = simulate_hu(scan.stack, body, lesions, rng, streams)
    return Series(hu, scan, tuple(lesion.contours(scan.stack) for lesion in lesions))


def examine(anatomy: str, level: Mapping[str, float], rng: np.random.Generator, own: np.random.Generator) -> Series:
    """The series of a patient with a lesion of the given levels; `own` is the lesion's generator."""
    how = EXAMINATIONS[anatomy]
    scene = how.make(level, rng, own)
    pixel = float(rng.uniform(*how.pixels))
    thickness = float(rng.choice(list(how.slices), p=list(how.slices.values())))
    x, y = (np.arange(low, high, pixel, dtype=np.float32) for low, high in scene.field)
    reach = scene.half_height + REACH_MM
    z = float(scene.centre[2]) + np.arange(-reach, reach + thickness, thickness)
    noise = body_noise(x, y, scene.torso.skin, float(rng.uniform(*how.noise)) / math.sqrt(thickness))
    hu, lesion = _image(scene, x, y, z, Scanner(pixel, how.kernel, noise), rng)

    table = rng.uniform((-12, -190, -420), (12, -150, -180))
    origins = np.stack([np.full(len(z), x[0]), np.full(len(z), y[0]), z], axis=1) + table
    stack, _ = make_stack(np.eye(3), origins, (pixel, pixel), (len(y), len(x)))
    contours = outlines(lesion + np.float32(own.normal(0, READER_MM)), stack)
    return Series(hu, Scan(stack, scene.centre + table, thickness, 0.0), (contours,))


def _image(
    scene: Scene, x: Plane, y: Plane, z: Floats, scanner: Scanner, rng: np.random.Generator
) -> tuple[NDArray[np.int16], Plane]:
    """HU of slices at `z`, and mm inside the lesion, (z, y, x) both: each slice is the mean of planes within it."""
    thickness = float(z[1] - z[0])
    count = max(1, round(thickness / PLANE_MM))
    offsets = (np.arange(count) - (count - 1) / 2) * thickness / count
    hu = np.empty((len(z), len(y), len(x)), np.int16)
    lesion = np.empty(hu.shape, np.float32)
    for k, middle in enumerate(z.tolist()):
        planes = [scene.paint(x, y, middle + off, k * count + n) for n, off in enumerate(offsets.tolist())]
        shown = scanner.show(np.mean([plane for plane, _ in planes], axis=0), rng)
        hu[k] = np.rint(np.clip(shown, *HU_RANGE))
        lesion[k] = planes[count // 2][1]
    return hu, lesion
