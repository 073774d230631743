"""One side of the chest without contrast, around a ground-glass nodule."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ..geometry import Floats
from .airways import BRONCHUS_MM, GAS_HU, Airway, bronchus, grow
from .canvas import Canvas, Grain, Warp
from .nodule import Nodule, make_nodule
from .shapes import Ellipsoid, Plane, Shape, Tube, smooth_tube, sphere, unit
from .torso import ENDLESS, FAT_HU, Scene, Torso, make_torso

LUNG_HU, VESSEL_HU, BLOOD_HU, FISSURE_HU, OESOPHAGUS_HU = -868.0, 25.0, 42.0, -640.0, 35.0
PLEURA_MM, CLEAR_MM = 1.2, 24.0
"""Between lung and wall; from a nodule's middle to the mediastinum at least."""
FREE_MM, THIN_MM = 2.0, 0.9
"""Vessels come no nearer to a nodule's surface than this, but for thin ones: it is a nodule and not their end."""
SLOPE_HU = 0.35
"""By how much HU per mm the lung is denser towards the back, where it lies."""
HALF_WIDTH_MM, HALF_DEPTH_MM = (158.0, 172.0), (104.0, 116.0)
FIELD_MM = ((-4.0, 162.0), (-108.0, 110.0))
"""What is imaged: the nodule's side, from the midline (x = 0) outwards."""

Mediastinum = tuple[tuple[Shape, float], ...]
"""Its shapes with their HU, from back to front."""


@dataclass(frozen=True, eq=False)
class Chest(Scene):
    """One patient's chest; the origin is in the middle of the body, at the nodule's height.

    `side` is 1 with a nodule in the left lung, −1 in the right.
    """

    side: int
    nodule: Nodule
    mediastinum: Mediastinum
    vessels: tuple[Tube, ...]
    bronchi: tuple[Airway, ...]
    fissure: Floats
    lung_hu: float

    def paint_inside(self, canvas: Canvas, cavity: Plane, fine: Plane, coarse: Plane) -> Plane:
        """See `Scene.paint_inside`."""
        canvas.fill(cavity, FAT_HU + 8)
        middle = np.maximum.reduce([canvas.depth(shape) for shape, _ in self.mediastinum])
        for shape, hu in self.mediastinum:
            canvas.paint(shape, hu, within=cavity)
        self.torso.paint_bones(canvas)
        self._paint_lung(canvas, np.minimum(cavity - PLEURA_MM, -middle - 2), 9 * fine + 9 * coarse)
        return self.nodule.paint(canvas, coarse)

    def _paint_lung(self, canvas: Canvas, lung: Plane, grain: Plane) -> None:
        canvas.fill(lung, self.lung_hu + SLOPE_HU * canvas.bent_y + grain)
        nx, ny, nz, offset = self.fissure.tolist()
        off = np.abs(nx * canvas.bent_x + ny * canvas.bent_y + nz * canvas.z - offset)
        canvas.fill(np.minimum(0.5 - off, lung), FISSURE_HU)
        near = lung + 3
        for vessel in self.vessels:
            canvas.paint(vessel, VESSEL_HU, within=near)
        for airway in self.bronchi:
            airway.paint(canvas, near)


def make_chest(level: Mapping[str, float], rng: np.random.Generator, own: np.random.Generator) -> Chest:
    """A random chest; `own` is the nodule's generator, `level` its severity and signs, each 0 to 1."""
    torso, side = make_torso(rng, HALF_WIDTH_MM, HALF_DEPTH_MM), int(rng.choice((-1, 1)))
    hilum = np.array([side * 34.0, 4.0, rng.uniform(-25, 30)])
    mediastinum = _mediastinum(torso, side, hilum)
    nodule = make_nodule(_place(torso, side, mediastinum, rng), hilum, level, own)
    branches = _vessels(torso, side, hilum, nodule, rng)
    beside = unit(rng.standard_normal(3))
    return Chest(
        torso=torso,
        field=np.array([sorted(side * edge for edge in FIELD_MM[0]), FIELD_MM[1]]),
        centre=nodule.centre,
        half_height=nodule.half_height,
        side=side,
        nodule=nodule,
        mediastinum=mediastinum,
        vessels=tuple(branches),
        bronchi=tuple(bronchus(branch, beside) for branch in branches[::2] if branch.radii[0] > BRONCHUS_MM),
        fissure=np.append(unit(np.array([0.15 * side, 0.75, 0.65]) + rng.normal(0, 0.1, 3)), rng.uniform(-35, 35)),
        lung_hu=float(LUNG_HU + rng.normal(0, 18)),
        warp=Warp.random(rng, (50, 120), 4.0),
        fine=Grain.random(rng, 0.9),
        coarse=Grain.random(rng, 2.2),
    )


def _place(torso: Torso, side: int, mediastinum: Mediastinum, rng: np.random.Generator) -> Floats:
    """A place for a nodule: in the outer half of the lung, clear of the mediastinum."""
    width, depth = torso.room
    while True:
        angle, out = rng.uniform(-1.05, 1.05), rng.uniform(0.55, 0.76)
        point = np.array([side * width * out * np.cos(angle), depth * out * np.sin(angle), 0.0])
        x, y = point[:2, None, None].astype(np.float32)
        if max(float(shape.depth(x, y, 0.0)[0, 0]) for shape, _ in mediastinum) < -CLEAR_MM:
            return point


def _vessels(torso: Torso, side: int, hilum: Floats, nodule: Nodule, rng: np.random.Generator) -> list[Tube]:
    width, depth = torso.room

    def inside(point: Floats) -> bool:
        x, y, z = point
        return bool(np.hypot(x / width, y / depth) < 0.95 and side * x > 24 and abs(z) < 60)

    def free(branch: Tube) -> bool:
        nearest = np.linalg.norm(branch.points - nodule.centre, axis=1).min() - branch.radii[0] - nodule.radius
        return bool(nearest > FREE_MM or branch.radii[0] < THIN_MM)

    directions = [d for d in sphere(22, rng) if side * d[0] > -0.35]
    outwards = np.array([0.5 * side, 0, 0])
    starts = [(hilum + 6 * d, unit(d + outwards), rng.uniform(2.6, 4.6)) for d in directions]
    return [branch for start in starts for branch in grow(*start, inside, rng) if free(branch)]


def _mediastinum(torso: Torso, side: int, hilum: Floats) -> Mediastinum:
    """What lies between the lungs; the heart is below the hilum."""
    y, z = torso.spine_y, float(hilum[2])
    arch = ((24, y - 22, -200), (22, y - 20, z + 40), (12, y - 32, z + 62), (-6, -26, z + 52), (-16, -20, z))
    root = ((side * 4, -12, z - 4), (side * 22, 0, z), (side * 38, 4, z))
    trachea = ((0, y - 40, z + 200), (0, y - 40, z + 22), (side * 30, 2, z + 4))
    return (
        (Ellipsoid((0, y + 8, 0), (32, 30, ENDLESS)), 45.0),
        (Ellipsoid((0, -10, 0), (27, 52, ENDLESS)), FAT_HU + 12),
        (Ellipsoid((-22, -18, z + 30), (9, 11, 60)), BLOOD_HU),
        (Ellipsoid((18, -32, z - 78), (66, 50, 68), 25), BLOOD_HU + 5),
        (smooth_tube(arch, (11.5, 12.5, 15)), BLOOD_HU),
        (smooth_tube(root, (13, 12, 8)), BLOOD_HU),
        (Ellipsoid((3, y - 26, 0), (8, 6, ENDLESS)), OESOPHAGUS_HU),
        (Tube(np.array(trachea), np.array([8.5, 8, 5.5])), GAS_HU),
    )
