"""A ground-glass nodule of partly solid density, and its signs; told in mm from its middle."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from ..geometry import Floats
from .airways import GAS_HU, Airway
from .canvas import Canvas
from .phenotype import grown, sign_strength
from .shapes import Ellipsoid, Plane, Tube, across, smooth_tube, sphere, unit

SIGNS = ("lobulation", "spiculation", "spine_like_process", "air_bronchogram", "cusp_angle", "foam_like_sign")
GLASS_HU, CORE_HU, SPICULE_HU, VESSEL_HU, BRONCHUS_HU = -620.0, -20.0, -260.0, 10.0, -380.0
LOBES, SPICULES, SPINES, BUBBLES = 8, 56, 10, 16
LOBE_RAD, CUSP_RAD, SPINE_MM = 0.4, 0.62, 2.0
"""Width of a lobe, half the angle of a cusp's foot, half the width of a spine."""


@dataclass(frozen=True, eq=False)
class Nodule:
    """A nodule: from its middle it reaches `radius` mm, and more or less in some directions.

    Attributes
    ----------
    centre : (3,) float64
    radius : float
    stretch : (3,) float64
        Of the radius along x, y, z.
    lobes, spines : (n, 3) float64
        Directions of the lobes and of the spine-like processes.
    cusp : (3,) float64
        Direction of the cusp.
    lobe, cusp_height : float
        How deep the notches between lobes are and how high the cusp is, as parts of the radius.
    spine_mm : (n,) float64
        Lengths of the spine-like processes.
    hu : float
        Of the ground glass.
    core : float
        Radius of the solid part in mm; 0 where there is none.
    core_centre : (3,) float64
    spicules, bubbles, airways, vessels : tuple of shapes
    """

    centre: Floats
    radius: float
    stretch: Floats
    lobes: Floats
    spines: Floats
    cusp: Floats
    lobe: float
    cusp_height: float
    spine_mm: Floats
    hu: float
    core: float
    core_centre: Floats
    spicules: tuple[Tube, ...]
    airways: tuple[Airway, ...]
    bubbles: tuple[Ellipsoid, ...]
    vessels: tuple[Tube, ...]

    @cached_property
    def bounds(self) -> Floats:
        """See `Shape.bounds`."""
        reach = self.radius * float(self.stretch.max()) * (1 + self.cusp_height) + float(self.spine_mm.max())
        return np.array([self.centre - reach, self.centre + reach])

    @property
    def half_height(self) -> float:
        """How far above and below its middle it reaches, in mm."""
        directions = sphere(500, np.random.default_rng(0)).T
        return float(abs(self.reach(directions) * directions[2]).max()) + 1.0

    def reach(self, direction: Floats | Plane) -> Plane:
        """Mm from the middle to the surface in directions (3, ...) of length 1."""
        base = self.radius / np.sqrt(sum((d / s) ** 2 for d, s in zip(direction, self.stretch.tolist(), strict=True)))

        def angle(towards: Floats) -> Plane:
            return np.arccos(np.clip(sum(d * t for d, t in zip(direction, towards.tolist(), strict=True)), -1, 1))

        lobe = np.maximum.reduce([np.exp(-0.5 * (angle(lobe) / LOBE_RAD) ** 2) for lobe in self.lobes])
        reach = base * (
            1 + self.lobe * (lobe - 0.7) + self.cusp_height * np.maximum(1 - angle(self.cusp) / CUSP_RAD, 0)
        )
        for spine, height in zip(self.spines, self.spine_mm.tolist(), strict=True):
            reach = reach + height * np.exp(-((angle(spine) * self.radius / SPINE_MM) ** 4))
        return reach

    def depth(self, x: Plane, y: Plane, z: float) -> Plane:
        """See `Shape.depth`; along the radius."""
        cx, cy, cz = self.centre.tolist()
        away = np.stack([x - cx, y - cy, np.full_like(x, z - cz)])
        distance = np.maximum(np.linalg.norm(away, axis=0), 1e-3)
        return self.reach(away / distance) - distance

    def paint(self, canvas: Canvas, grain: Plane) -> Plane:
        """Paint it over the lung; returns mm inside it."""
        depth = canvas.depth(self)
        for spicule in self.spicules:
            canvas.paint(spicule, SPICULE_HU)
        density = np.clip(depth / self.radius, 0, 1)
        canvas.fill(depth, np.maximum(self.hu + 110 * density + 45 * grain, canvas.hu), 1.4)
        if self.core > 0:
            core = canvas.depth(Ellipsoid(self.core_centre, (self.core, self.core, 0.9 * self.core)))
            canvas.fill(np.minimum(core + 1.3 * grain, depth - 1), CORE_HU + 15 * grain, 2.0)
        for vessel in self.vessels:
            canvas.paint(vessel, VESSEL_HU)
        for airway in self.airways:
            airway.paint(canvas)
        for bubble in self.bubbles:
            canvas.paint(bubble, GAS_HU, within=depth - 0.7)
        return depth


def make_nodule(centre: Floats, hilum: Floats, level: Mapping[str, float], rng: np.random.Generator) -> Nodule:
    """A nodule at `centre` of the given severity and signs, each 0 to 1; airways and vessels come from the hilum."""
    strength = {name: sign_strength(level[name], rng) for name in SIGNS}
    size, density, solid = grown(level["severity"], 3, rng)
    radius = float(4.5 + 6.5 * size + rng.uniform(0, 1.5))
    inward = unit(hilum - centre)
    lobes, spines, cusp = sphere(LOBES, rng), sphere(SPINES, rng), unit(sphere(1, rng)[0] * (1, 1, 0.3))
    core = radius * max(0.0, 0.75 * solid - 0.1) * rng.uniform(0.7, 1)
    nodule = Nodule(
        centre=centre,
        radius=radius,
        stretch=rng.uniform(0.88, 1.14, 3),
        lobes=lobes,
        spines=spines,
        cusp=cusp,
        lobe=0.6 * strength["lobulation"],
        cusp_height=0.8 * strength["cusp_angle"],
        spine_mm=strength["spine_like_process"] * rng.uniform(4.5, 7, SPINES),
        hu=float(GLASS_HU + 140 * (density - 0.5) + rng.normal(0, 30)),
        core=float(core),
        core_centre=centre + rng.normal(0, 0.16, 3) * radius,
        spicules=(),
        airways=_bronchogram(centre, radius, inward, strength["air_bronchogram"], rng),
        bubbles=_bubbles(centre, radius, strength["foam_like_sign"], rng),
        vessels=_feeders(centre, radius, inward, rng),
    )
    return replace(nodule, spicules=_spicules(nodule, strength["spiculation"], rng))


def _spicules(nodule: Nodule, strength: float, rng: np.random.Generator) -> tuple[Tube, ...]:
    lengths, bends = rng.uniform(5, 11, SPICULES), rng.normal(0, 0.9, (SPICULES, 3))
    tubes = []
    for direction, length, bend in zip(rng.permutation(sphere(SPICULES, rng)), lengths, bends, strict=True):
        surface = float(nodule.reach(direction))
        line = [nodule.centre + direction * (surface + t * length) + t * bend for t in (-0.2, 0.4, 1.0)]
        tubes.append(Tube(np.array(line), np.array([0.85, 0.6, 0.35])))
    return tuple(tubes[: round(SPICULES * strength)])


def _bronchogram(
    centre: Floats, radius: float, inward: Floats, strength: float, rng: np.random.Generator
) -> tuple[Airway, ...]:
    """A bronchus that comes from the hilum and forks within the nodule."""
    side, sway = across(inward, rng), rng.normal(0, 0.12, (5, 3))
    fork = centre + radius * (0.25 * inward + sway[0])
    ends = [
        centre + radius * (-0.75 * inward + 0.35 * side + sway[1]),
        centre + radius * (-0.35 * inward - 0.7 * side + sway[2]),
    ]
    start, middle = centre + radius * (1.5 * inward + sway[3]), centre + radius * (0.9 * inward + sway[4])
    trunk = smooth_tube([start, middle, fork], (1.5, 1.3))
    arms = [Tube(np.array([fork, end]), np.array([1.3, 0.8])) for end in ends]
    if strength < 0.3:
        return ()
    return tuple(
        Airway(Tube(tube.points, tube.radii * (0.6 + 0.5 * strength)), 0.5, BRONCHUS_HU) for tube in (trunk, *arms)
    )


def _bubbles(centre: Floats, radius: float, strength: float, rng: np.random.Generator) -> tuple[Ellipsoid, ...]:
    places = centre + rng.permutation(sphere(BUBBLES, rng)) * radius * rng.uniform(0.15, 0.75, (BUBBLES, 1))
    radii = rng.uniform(0.8, 1.6, BUBBLES)
    return tuple(Ellipsoid(place.tolist(), (r, r, r)) for place, r in zip(places, radii.tolist(), strict=True))[
        : round(BUBBLES * strength)
    ]


def _feeders(centre: Floats, radius: float, inward: Floats, rng: np.random.Generator) -> tuple[Tube, ...]:
    """Vessels from the hilum into the nodule."""
    tubes = []
    for _ in range(2):
        side, away = across(inward, rng), rng.uniform(0.2, 0.8)
        line = [
            centre + radius * (t * inward + away * s * side) for t, s in ((3.6, 1.8), (2, 1.0), (0.6, 0.7), (-0.6, 0.4))
        ]
        tubes.append(smooth_tube(line, (1.2, 0.9, 0.5)))
    return tuple(tubes)
