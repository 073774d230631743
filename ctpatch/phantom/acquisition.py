"""From a scene to a series: slices through a lesion and what is around it, as a scanner shows them, and its contours."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from skimage.measure import approximate_polygon, find_contours

from ..geometry import Floats, make_stack
from .abdomen import make_abdomen
from .anatomy import make_body, make_lesions, simulate_hu
from .chest import make_chest
from .noise import SHARP, STANDARD, Kernel, Scanner, body_noise
from .scanner import Scan, make_scan
from .shapes import Plane
from .torso import Torso

REACH_MM = 32.0
"""What is imaged above and below a lesion: as far as a patch reaches (64 pixels of 0.5 mm on a plane turned and moved)."""
PLANE_MM = 1.7
"""A slice is the mean of planes about this far apart."""
READER_MM = 0.3
"""Standard deviation of how far outside or inside of a lesion's edge a reader draws."""
VERTEX_PX, SMALLEST_PX = 0.15, 8.0
"""How far a contour's edge may be from the lesion's; no contour has a smaller area (pixels²)."""


class Scene(Protocol):
    """A part of a body with a lesion; coordinates as in `shapes`."""

    torso: Torso

    @property
    def field(self) -> Floats:
        """What is imaged: lowest and highest x, and y, in mm."""
        ...

    @property
    def centre(self) -> Floats:
        """Middle of the lesion, (3,)."""
        ...

    @property
    def half_height(self) -> float:
        """How far above and below its middle the lesion may reach, in mm."""
        ...

    def paint(self, x: Plane, y: Plane, z: float, k: int) -> tuple[Plane, Plane]:
        """HU of the plane at `z`, and mm inside the lesion there; `k` is the plane's number."""
        ...


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


def examine(
    anatomy: str, level: Mapping[str, float], rng: np.random.Generator, own: np.random.Generator
) -> Series:
    """The series of a patient with a lesion of the given levels; `own` is the lesion's generator."""
    examination = EXAMINATIONS[anatomy]
    scene = examination.make(level, rng, own)
    pixel, thickness = float(rng.uniform(*examination.pixels)), float(
        rng.choice(list(examination.slices), p=list(examination.slices.values()))
    )
    x, y = (np.arange(low, high, pixel, dtype=np.float32) for low, high in scene.field)
    reach = scene.half_height + REACH_MM
    z = float(scene.centre[2]) + np.arange(-reach, reach + thickness, thickness)
    noise = float(rng.uniform(*examination.noise)) / thickness**0.5
    scanner = Scanner(pixel, examination.kernel, body_noise(x, y, scene.torso.skin, noise))

    origins = np.stack([np.full(len(z), x[0]), np.full(len(z), y[0]), z], axis=1, dtype=np.float64)
    origins += rng.uniform((-12, -190, -420), (12, -150, -180))
    stack, _ = make_stack(np.eye(3), origins, (pixel, pixel), (len(y), len(x)))
    drawn = float(own.normal(0, READER_MM))
    hu, contours = np.empty((len(z), *stack.shape), np.int16), {}
    count = max(1, round(thickness / PLANE_MM))
    offsets = (np.arange(count) - (count - 1) / 2) * thickness / count
    for k, middle in enumerate(z.tolist()):
        planes = [scene.paint(x, y, middle + off, k * count + n) for n, off in enumerate(offsets.tolist())]
        shown = scanner.show(np.mean([plane for plane, _ in planes], axis=0), rng)
        hu[k] = np.rint(np.clip(shown, -1024, 3071))
        outline = _outline(planes[count // 2][1] + drawn)
        if outline is not None:
            column_row = outline[:, ::-1] * pixel
            contours[k] = stack.origins[k] + np.pad(column_row, ((0, 0), (0, 1)))
    return Series(hu, Scan(stack, stack.origins.mean(axis=0), thickness, 0.0), (_one_run(contours),))


def _outline(depth: Plane) -> Floats | None:
    """The largest outline of where `depth` is positive, (n, 2) as row and column; None where there is none."""
    found = [
        approximate_polygon(line, VERTEX_PX)[:-1]
        for line in find_contours(np.maximum(depth, -1e3), 0.0)
        if (line[0] == line[-1]).all()
    ]
    areas = [_area(points) for points in found]
    return found[int(np.argmax(areas))] if areas and max(areas) >= SMALLEST_PX else None


def _area(points: Floats) -> float:
    y, x = points.T
    return float(abs(x @ np.roll(y, 1) - y @ np.roll(x, 1))) / 2


def _one_run(contours: Mapping[int, Floats]) -> dict[int, Floats]:
    """The contours of the slices that follow each other about the largest: a reader outlines one lesion."""
    middle = max(contours, key=lambda k: _area(contours[k][:, :2]))
    first = last = middle
    while first - 1 in contours:
        first -= 1
    while last + 1 in contours:
        last += 1
    return {k: contours[k] for k in range(first, last + 1)}
