"""What is simulated: a body and its lesions, as outlines and as HU.

A lesion is defined slice by slice in stack coordinates (mm along r, c, n). Its cross-section is the star-shaped polygon
whose vertices stand at `VERTICES` equal angles about the lesion's axis: that polygon is the drawn contour, and a voxel
is in the lesion exactly when its centre is in that polygon.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ..geometry import Floats, SliceStack

TRAITS = ("lobulation", "spiculation", "rim", "texture")
"""Characteristics that shape a lesion; their manifest columns are `aux_lobulation` and so on."""
MAX_LESIONS = 3
RING_MM = 18.0
"""Distance of several lesions from the body's axis: enough that the largest ones do not touch."""
VERTICES = 180
ANGLE = 2 * np.pi / VERTICES
CAP = 0.95
"""Part of the half height up to which a lesion reaches: it ends flat, never in a contour smaller than a pixel."""
EDGE_MM = 1.0
"""Width over which one tissue's HU blends into the next, its middle on the outline."""
AIR_HU, FAT_HU, TISSUE_HU, NOISE_HU = -1000.0, -100.0, 40.0, 14.0
LABEL_HU, LABEL_MM = 25.0, 0.9
"""What the label adds to a lesion's mean HU and radius."""
RIM_HU = 60.0
TEXTURE_HU = (4.0, 30.0)
"""Standard deviation of the texture at its lowest and highest level."""
LOBES, SPIKES, OVAL = 0.15, 0.35, 0.08
"""Amplitudes as parts of the radius: at the highest level; of every lesion."""
SPIKE_WIDTH = 0.12
"""Standard deviation of a spike in radians."""
TWIST = 0.05
"""Radians by which the outline turns per mm along n."""
TEXTURE_VOXELS = 0.8
"""Standard deviation of the blur that correlates a lesion's texture."""


@dataclass(frozen=True, eq=False)
class SimulatedLesion:
    """A lesion: ellipsoidal, with lobes and spikes on its outline.

    Attributes
    ----------
    centre : (3,) float64
        SliceStack coordinates in mm.
    radius, half_height : float
        Mm in the slice and along n.
    outline : (VERTICES,) float64
        Radius at each angle as a part of `radius`.
    hu : float
        Mean HU.
    rim_hu, texture_hu : float
        HU added towards the outline; standard deviation of the texture.
    """

    centre: Floats
    radius: float
    half_height: float
    outline: Floats
    hu: float
    rim_hu: float
    texture_hu: float

    def radii(self, dz: float) -> Floats | None:
        """Radius in mm at each vertex of the cross-section `dz` mm above the centre; None beyond the lesion."""
        t = dz / self.half_height
        if abs(t) > CAP:
            return None
        return self.outline * (self.radius * math.sqrt(1 - t * t))

    def angles(self, dz: float) -> Floats:
        """Angles of the vertices of the cross-section `dz` mm above the centre, from r towards c."""
        return np.arange(VERTICES, dtype=np.float64) * ANGLE + TWIST * dz

    def depth(self, x: Floats, y: Floats, dz: float) -> Floats:
        """How far points lie inside the cross-section's outline, in mm along the radius; negative outside.

        `x`, `y` are mm along r and c from the centre. The outline between two vertices of radii a and b, at angles 0
        and δ, is their chord: ρ(φ) = a·b·sin δ / (a·sin φ + b·sin(δ − φ)).
        """
        radii = self.radii(dz)
        if radii is None:
            return np.full(np.broadcast(x, y).shape, -np.inf)
        turn = (np.arctan2(y, x) - TWIST * dz) % (2 * np.pi)
        vertex = np.minimum((turn / ANGLE).astype(np.intp), VERTICES - 1)
        phi = turn - vertex * ANGLE
        a, b = radii[vertex], radii[(vertex + 1) % VERTICES]
        return a * b * np.sin(ANGLE) / (a * np.sin(phi) + b * np.sin(ANGLE - phi)) - np.hypot(x, y)

    def contours(self, stack: SliceStack) -> dict[int, Floats]:
        """The polygon on each slice the lesion reaches, (VERTICES, 3) mm LPS by slice."""
        found = {}
        for k, z in enumerate(stack.positions):
            dz = float(z - self.centre[2])
            radii = self.radii(dz)
            if radii is not None:
                angles = self.angles(dz)
                steps = np.stack([radii * np.cos(angles), radii * np.sin(angles), np.full(VERTICES, dz)], axis=-1)
                found[k] = stack.to_lps(self.centre + steps)
        return found


@dataclass(frozen=True, eq=False)
class Body:
    """An elliptic cylinder along the patient's axis through `centre` (mm LPS), fat around soft tissue."""

    centre: Floats
    half_width: float
    half_depth: float
    fat: float

    def hu(self, points: Floats) -> Floats:
        """HU at LPS points (..., 3)."""
        x, y, _ = np.moveaxis(points - self.centre, -1, 0)
        inside = (1 - np.hypot(x / self.half_width, y / self.half_depth)) * self.half_depth
        return AIR_HU + (FAT_HU - AIR_HU) * _blend(inside) + (TISSUE_HU - FAT_HU) * _blend(inside - self.fat)


def make_body(centre: Floats, rng: np.random.Generator) -> Body:
    """A body of random size about `centre` (mm LPS)."""
    return Body(centre, float(rng.uniform(42, 45)), float(rng.uniform(39, 41)), float(rng.uniform(3, 5)))


def make_lesions(
    middle: Floats, levels: Sequence[Mapping[str, float]], streams: Sequence[np.random.Generator]
) -> tuple[SimulatedLesion, ...]:
    """The lesions of one patient about `middle` (stack coordinates): one near it, several on a ring around it.

    `levels` and `streams` hold each lesion's levels (label and `TRAITS`, 0..1) and its own generator.
    """
    lesions = []
    for number, (level, rng) in enumerate(zip(levels, streams, strict=True)):
        angle = 2 * np.pi * number / len(levels)
        ring = RING_MM * np.array([np.cos(angle), np.sin(angle), 0.0]) if len(levels) > 1 else rng.uniform(-8, 8, 3)
        lesions.append(_make_lesion(middle + ring, level, rng))
    return tuple(lesions)


def simulate_hu(
    stack: SliceStack,
    body: Body,
    lesions: Sequence[SimulatedLesion],
    rng: np.random.Generator,
    streams: Sequence[np.random.Generator],
) -> NDArray[np.int16]:
    """HU of every voxel, (z, y, x) int16: body, lesions with their texture, and noise.

    `rng` makes the noise, `streams` each lesion's texture.
    """
    shape = (len(stack), *stack.shape)
    hu = rng.normal(0.0, NOISE_HU, shape)
    textures = [_texture(shape, lesion.texture_hu, own) for lesion, own in zip(lesions, streams, strict=True)]
    for k in range(len(stack)):
        points = pixel_centres(stack, k)
        plane = body.hu(stack.to_lps(points))
        for lesion, texture in zip(lesions, textures, strict=True):
            plane = _add_lesion(plane, lesion, points, texture[k])
        hu[k] += plane
    return np.rint(np.maximum(hu, -1024)).astype(np.int16)


def pixel_centres(stack: SliceStack, k: int) -> Floats:
    """SliceStack coordinates of slice `k`'s pixel centres, (rows, columns, 3)."""
    (rows, columns), (row_mm, column_mm) = stack.shape, stack.spacing
    x, y, z = stack.offsets[k]
    grid = np.meshgrid(x + column_mm * np.arange(columns), y + row_mm * np.arange(rows))
    return np.stack([*grid, np.full(stack.shape, z)], axis=-1)


def _make_lesion(centre: Floats, level: Mapping[str, float], rng: np.random.Generator) -> SimulatedLesion:
    radius = 7.2 + LABEL_MM * level["label"] + rng.uniform(-0.8, 0.8)
    return SimulatedLesion(
        centre=centre,
        radius=radius,
        half_height=radius * rng.uniform(0.9, 1.3),
        outline=_outline(level["lobulation"], level["spiculation"], rng),
        hu=TISSUE_HU + 40 + LABEL_HU * level["label"] + rng.uniform(-16, 16),
        rim_hu=RIM_HU * level["rim"],
        texture_hu=TEXTURE_HU[0] + (TEXTURE_HU[1] - TEXTURE_HU[0]) * level["texture"],
    )


def _outline(lobulation: float, spiculation: float, rng: np.random.Generator) -> Floats:
    angles = np.arange(VERTICES) * ANGLE
    oval = OVAL * np.cos(2 * (angles - rng.uniform(0, np.pi)))
    lobes = np.cos(rng.integers(4, 7) * (angles - rng.uniform(0, 2 * np.pi)))
    count = rng.integers(6, 10)
    tips = 2 * np.pi * (np.arange(count) + rng.uniform(0, 0.6, count)) / count
    apart = (angles[:, None] - tips + np.pi) % (2 * np.pi) - np.pi
    spikes = np.exp(-0.5 * (apart / SPIKE_WIDTH) ** 2).max(axis=1)
    return 1 + oval + LOBES * lobulation * lobes + SPIKES * spiculation * spikes


def _texture(shape: tuple[int, ...], sd: float, rng: np.random.Generator) -> Floats:
    blurred = ndimage.gaussian_filter(rng.normal(size=shape), TEXTURE_VOXELS)
    return sd * blurred / blurred.std()


def _add_lesion(plane: Floats, lesion: SimulatedLesion, points: Floats, texture: Floats) -> Floats:
    x, y, dz = np.moveaxis(points - lesion.centre, -1, 0)
    depth = lesion.depth(x, y, float(dz[0, 0]))
    if not (depth > -EDGE_MM).any():
        return plane
    rim = lesion.rim_hu * np.exp(-np.maximum(depth, 0.0) / (0.25 * lesion.radius))
    return plane + _blend(depth) * (lesion.hu + rim + texture - plane)


def _blend(depth: Floats) -> Floats:
    return np.clip(depth / EDGE_MM + 0.5, 0.0, 1.0)
