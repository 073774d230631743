"""A tumour of the stomach's wall and its signs; `q` is how far along the wall a point is, 1 at the tumour's border."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ..geometry import Floats
from .canvas import Canvas
from .phenotype import grown, sign_strength
from .shapes import Ellipsoid, Plane, Tube, across, blend, disc, smooth_tube
from .stomach import Stomach, WallPlace

SIGNS = ("nodular_sign", "cord_outside_serosa", "fat_infiltration", "high_enhanced_layer")
STAGES = ("clinical_T_stage", "clinical_N_stage")
SITES = (0.36, 0.76)
"""Part of the axis where tumours are: body and antrum."""
TUMOUR_HU, LAYER_HU, LAYER_MM = 88.0, 172.0, 3.0
VESSEL_HU, NODE_HU, CORD_HU, HAZE_HU = 150.0, 90.0, 75.0, 95.0
CORDS = 30
NODES = (1, 2, 5, 8)
"""Nodes at the lowest to the highest clinical N stage."""


@dataclass(frozen=True, eq=False)
class Tumour:
    """A tumour and what is in the fat around it.

    Attributes
    ----------
    along : float
        Where on the axis, in mm.
    towards : (3,) float64
        From the axis to the tumour's middle.
    half_length, half_width : float
        Along and around the axis, in mm.
    thickness, outside : float
        How thick, and how far beyond the serosal surface, in mm.
    crater : float
        Part of the thickness that an ulcer takes.
    rough : float
        Unevenness of its surfaces in mm.
    hu : float
    layer, haze : float
        Strength of the inner layer's enhancement and of the fat's infiltration, 0 to 1.
    nodules, nodes : tuple of Ellipsoid
        Knobs on the outer surface; lymph nodes in the fat.
    cords, vessels : tuple of Tube
        In the fat.
    """

    along: float
    towards: Floats
    half_length: float
    half_width: float
    thickness: float
    outside: float
    crater: float
    rough: float
    hu: float
    layer: float
    haze: float
    nodules: tuple[Ellipsoid, ...]
    nodes: tuple[Ellipsoid, ...]
    cords: tuple[Tube, ...]
    vessels: tuple[Tube, ...]

    def spread(self, place: WallPlace) -> Plane:
        """How far along the wall from the tumour's middle: q."""
        tx, ty, tz = self.towards.tolist()
        x, y, z = place.outward
        angle = np.arccos(np.clip(x * tx + y * ty + z * tz, -1, 1))
        return np.hypot((place.along - self.along) / self.half_length, angle * place.radius / self.half_width)

    def surfaces(self, q: Plane, wall: Plane, grain: Plane) -> tuple[Plane, Plane]:
        """How far it reaches outside of the serosal surface, and inside of it, in mm."""
        dome = np.sqrt(np.clip(1 - q**2, 0, 1))
        inside = (self.thickness - wall) * dome * (1 - self.crater * np.exp(-((q / 0.4) ** 2)))
        return self.outside * dome + self.rough * grain * dome, wall + inside + 0.8 * grain * dome

    def depth(self, canvas: Canvas, w: Plane, q: Plane, outer: Plane, inner: Plane) -> Plane:
        """Mm inside the tumour."""
        depth = np.minimum(np.minimum(w + outer, inner - w), (1 - q) * min(self.half_length, self.half_width))
        for nodule in self.nodules:
            depth = np.maximum(depth, np.minimum(canvas.depth(nodule), inner - w))
        return depth

    def paint_fat(self, canvas: Canvas, outside: Plane, q: Plane, grain: Plane, cavity: Plane) -> None:
        """What the fat of the cavity shows, `outside` mm outside of the tumour: infiltration, vessels, nodes, cords."""
        fog = np.exp(-np.maximum(outside, 0) / 8 - np.maximum(q - 0.4, 0) ** 2 * 1.5)
        canvas.hu += HAZE_HU * self.haze * fog * np.clip(0.75 + 0.45 * grain, 0, 1.4)
        for vessel in self.vessels:
            canvas.paint(vessel, VESSEL_HU, within=cavity)
        for node in self.nodes:
            canvas.paint(node, NODE_HU, 1.2, cavity)
        for cord in self.cords:
            canvas.paint(cord, CORD_HU, within=cavity)

    def paint(self, canvas: Canvas, depth: Plane, inside: Plane, grain: Plane) -> None:
        """The tumour; its layer lies against the lumen, `inside` mm away."""
        layer = blend(LAYER_MM - inside, 1.5) * self.layer
        canvas.fill(depth, self.hu + 7 * grain + (LAYER_HU - self.hu) * layer, 1.2)


def make_tumour(stomach: Stomach, level: Mapping[str, float], rng: np.random.Generator) -> Tumour:
    """A tumour of the given severity, stages and signs, each 0 to 1."""
    strength = {name: sign_strength(level[name], rng) for name in SIGNS}
    size, thick, ragged = grown(level["severity"], 3, rng)
    stage = level["clinical_T_stage"]
    along = float(rng.uniform(*SITES) * stomach.lengths[-1])
    _, tangent, _ = stomach.axis(along)
    towards = across(tangent, rng)
    half_length, half_width = 15 + 9 * size + rng.uniform(-2, 2), 14 + 8 * size + rng.uniform(-2, 2)
    outside = 0.2 + 3.2 * stage * rng.uniform(0.3, 1)
    fat = _Fat(stomach, along, towards, half_length, half_width / stomach.axis(along)[2], outside, rng)
    return Tumour(
        along=along,
        towards=towards,
        half_length=float(half_length),
        half_width=float(half_width),
        thickness=float(11 + 5 * thick + 3 * stage + rng.uniform(-1.5, 1.5)),
        outside=float(outside),
        crater=float(rng.uniform(0, 0.6)),
        rough=float(0.3 + 0.9 * ragged * (0.4 + 0.6 * stage)),
        hu=float(TUMOUR_HU + rng.normal(0, 8)),
        layer=strength["high_enhanced_layer"],
        haze=strength["fat_infiltration"],
        nodules=fat.nodules(strength["nodular_sign"]),
        nodes=fat.nodes(level["clinical_N_stage"]),
        cords=fat.cords(strength["cord_outside_serosa"]),
        vessels=fat.vessels(),
    )


@dataclass(frozen=True, eq=False)
class _Fat:
    """Things around a tumour, each drawn whether or not the signs show it: one patient's stay where they are."""

    stomach: Stomach
    along: float
    towards: Floats
    half_length: float
    half_angle: float
    outside: float
    rng: np.random.Generator

    def _at(self, u: float, v: float, outside: float) -> Floats:
        """A point over the tumour; u, v are −1 and 1 at its borders along and around the axis."""
        along = self.along + u * self.half_length
        return self.stomach.point(along, self.towards, self.outside + outside, v * self.half_angle)

    def nodules(self, strength: float) -> tuple[Ellipsoid, ...]:
        radii = self.rng.uniform(4.5, 7, 7) * strength
        places = 0.75 * disc(7, self.rng)
        return tuple(Ellipsoid(self._at(u, v, -0.15 * r), (r, r, r)) for (u, v), r in zip(places, radii, strict=True))

    def nodes(self, stage: float) -> tuple[Ellipsoid, ...]:
        count = NODES[round(stage * (len(NODES) - 1))]
        places, turns = 1.5 * disc(NODES[-1], self.rng), self.rng.uniform(0, 180, NODES[-1])
        radii = self.rng.uniform(2.2, 3.0, (NODES[-1], 3)) + self.rng.uniform(0, 2.6, (NODES[-1], 1)) * stage
        away = self.rng.uniform(8, 17, NODES[-1])
        order = self.rng.permutation(NODES[-1])[:count]
        return tuple(Ellipsoid(self._at(places[i, 0], places[i, 1], away[i]), radii[i], turns[i]) for i in order)

    def cords(self, strength: float) -> tuple[Tube, ...]:
        places, lengths = 0.9 * self.rng.permutation(disc(CORDS, self.rng)), self.rng.uniform(12, 22, CORDS)
        drift, bends = self.rng.normal(0, 0.2, (CORDS, 2)), self.rng.normal(0, 0.8, (CORDS, 5, 3))
        steps, tubes = np.linspace(0, 1, 5), []
        for (u, v), length, (du, dv), bend in zip(places, lengths, drift, bends, strict=True):
            line = np.array([self._at(u + t * du, v + t * dv, -1 + t * length) for t in steps])
            tubes.append(smooth_tube(line + bend * steps[:, None], (1.5, 0.8), pieces=2))
        return tuple(tubes[: round(CORDS * strength)])

    def vessels(self) -> tuple[Tube, ...]:
        tubes = []
        for turn, away, radius in zip(
            np.arange(5) * 1.257 + self.rng.uniform(0, 1.2),
            self.rng.uniform(5, 9, 5),
            self.rng.uniform(0.9, 1.7, 5),
            strict=True,
        ):
            wobble = self.rng.normal(0, 1, (9, 2)) * (2.0, 0.12)
            steps = self.along + np.linspace(-70, 70, 9)
            line = [
                self.stomach.point(float(np.clip(at, 0, self.stomach.lengths[-1])), self.towards, away + a, turn + b)
                for at, (a, b) in zip(steps, wobble, strict=True)
            ]
            tubes.append(smooth_tube(line, (radius, radius), pieces=3))
        return tuple(tubes)
