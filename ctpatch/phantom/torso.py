"""What abdomen and chest have in common: skin, fat and muscle around a cavity, ribs, and the spine with its muscles."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ..geometry import Floats
from .canvas import Canvas, Grain, Warp
from .shapes import Ellipsoid, Plane, Tube

AIR_HU, FAT_HU, MUSCLE_HU, SKIN_HU = -1000.0, -104.0, 56.0, 20.0
CORTEX_HU, MARROW_HU, DISC_HU, CORD_HU = 560.0, 165.0, 85.0, 30.0
SKIN_MM, CORTEX_MM = 1.6, 1.0
ENDLESS = 1e4
VERTEBRA_MM, DISC_MM = 31.0, 7.0
"""From disc to disc, and a disc's height."""
RIB_STEP_MM, RIB_DROP_MM, RIB_MM = 26.0, 120.0, 4.6
"""From rib to rib; how much lower a rib's front is than its back; its radius."""


@dataclass(frozen=True, eq=False)
class Torso:
    """The wall of the body about x = y = 0.

    Attributes
    ----------
    half_width, half_depth : float
        Of the skin in mm.
    fat, muscle : float
        Thickness under the skin in mm.
    phase : float
        Where along z the discs and ribs are, in mm.
    """

    half_width: float
    half_depth: float
    fat: float
    muscle: float
    phase: float

    @property
    def spine_y(self) -> float:
        """Middle of the vertebral bodies."""
        return self.half_depth - 74.0

    @cached_property
    def _skin(self) -> Ellipsoid:
        return Ellipsoid((0, 0, 0), (self.half_width, self.half_depth, ENDLESS))

    @cached_property
    def _ribs(self) -> tuple[tuple[Tube, Tube], ...]:
        """Each rib and its marrow."""
        inward = self.fat + 0.55 * self.muscle
        angles = np.linspace(0.16, 2.6, 20)
        x, y = (self.half_width - inward) * np.sin(angles), (self.half_depth - inward) * np.cos(angles)
        drop = RIB_DROP_MM * (angles / angles[-1]) ** 1.2
        lines = [
            np.stack([side * x, y, number * RIB_STEP_MM + self.phase - drop], axis=1)
            for side in (-1, 1)
            for number in range(-6, 11)
        ]
        radii = np.full(len(angles), RIB_MM)
        return tuple((Tube(line, radii), Tube(line, radii - 1.5 * CORTEX_MM)) for line in lines)

    @property
    def room(self) -> tuple[float, float]:
        """Half width and half depth of the cavity."""
        return self.half_width - self.fat - self.muscle, self.half_depth - self.fat - self.muscle

    @property
    def skin(self) -> tuple[float, float]:
        """Half width and half depth of the body."""
        return self.half_width, self.half_depth

    def paint_wall(self, canvas: Canvas) -> Plane:
        """Skin, fat, muscle in two layers; everything inside is fat. Returns mm inside the cavity."""
        depth = canvas.depth(self._skin)
        canvas.fill(depth, SKIN_HU)
        canvas.fill(depth - SKIN_MM, FAT_HU)
        between = np.exp(-(((depth - self.fat - 0.45 * self.muscle) / 0.8) ** 2))
        canvas.fill(np.minimum(depth - self.fat, self.fat + self.muscle - depth), MUSCLE_HU - 60 * between)
        return depth - (self.fat + self.muscle)

    def paint_bones(self, canvas: Canvas) -> None:
        """Ribs, spine and the muscles along it."""
        y = self.spine_y
        for side in (-1, 1):
            canvas.paint(Ellipsoid((side * 34, y + 34, 0), (25, 20, ENDLESS), side * 12), MUSCLE_HU)
            canvas.paint(Ellipsoid((side * 62, y + 37, 0), (14, 9, ENDLESS), -side * 25), MUSCLE_HU - 4)
        for rib, marrow in self._ribs:
            canvas.paint(rib, CORTEX_HU)
            canvas.paint(marrow, MARROW_HU, 2 * CORTEX_MM)
        self._paint_vertebra(canvas, y, (canvas.z - self.phase) % VERTEBRA_MM - VERTEBRA_MM / 2)

    def _paint_vertebra(self, canvas: Canvas, y: float, level: float) -> None:
        """A vertebra `level` mm above its middle, or the disc between two: arch and processes, canal, body."""
        z = canvas.z
        arch = canvas.depth(Ellipsoid((0, y + 23, 0), (16, 11, ENDLESS)))
        spinous = canvas.depth(Tube(np.array([(0, y + 30, z), (0, y + 47, z)]), np.array([4.5, 3.0])))
        transverse = canvas.depth(Tube(np.array([(-29, y + 24, z), (0, y + 18, z), (29, y + 24, z)]), np.full(3, 3.6)))
        processes = np.maximum(spinous - max(0.0, abs(level) - 9.0), transverse - abs(level) / 2)
        _paint_bone(canvas, np.maximum(arch, processes))
        canvas.fill(canvas.depth(Ellipsoid((0, y + 22.5, 0), (9.5, 7.5, ENDLESS))), CORD_HU)
        body = canvas.depth(Ellipsoid((0, y, 0), (22, 16.5, ENDLESS)))
        if VERTEBRA_MM / 2 - abs(level) < DISC_MM / 2:
            canvas.fill(body, DISC_HU)
        else:
            _paint_bone(canvas, body)


def make_torso(rng: np.random.Generator, width: tuple[float, float], depth: tuple[float, float]) -> Torso:
    """A random torso."""
    return Torso(
        half_width=float(rng.uniform(*width)),
        half_depth=float(rng.uniform(*depth)),
        fat=float(rng.uniform(9, 22)),
        muscle=float(rng.uniform(11, 15)),
        phase=float(rng.uniform(0, VERTEBRA_MM)),
    )


@dataclass(frozen=True, eq=False)
class Scene(ABC):
    """A part of a body with a lesion; coordinates as in `shapes`.

    Attributes
    ----------
    torso : Torso
        The wall of the body.
    field : (2, 2) float64
        What is imaged: lowest and highest x, and y, in mm.
    centre : (3,) float64
        Middle of the lesion.
    half_height : float
        How far above and below its middle the lesion may reach, in mm.
    warp : Warp
    fine, coarse : Grain
        Of the tissues.
    """

    torso: Torso
    field: Floats
    centre: Floats
    half_height: float
    warp: Warp
    fine: Grain
    coarse: Grain

    def paint(self, x: Plane, y: Plane, z: float, k: int) -> tuple[Plane, Plane]:
        """HU of the plane at `z`, and mm inside the lesion there; `k` is the plane's number."""
        canvas = Canvas.blank(x, y, z, self.warp, AIR_HU, self.torso.skin)
        fine, coarse = (grain.plane(k, canvas.hu.shape) for grain in (self.fine, self.coarse))
        cavity = self.torso.paint_wall(canvas)
        lesion = self.paint_inside(canvas, cavity, fine, coarse)
        return canvas.hu, lesion

    @abstractmethod
    def paint_inside(self, canvas: Canvas, cavity: Plane, fine: Plane, coarse: Plane) -> Plane:
        """Paint what is in the cavity, and the bones; returns mm inside the lesion."""


def _paint_bone(canvas: Canvas, depth: Plane) -> None:
    canvas.fill(depth, CORTEX_HU)
    canvas.fill(depth - 1.5 * CORTEX_MM, MARROW_HU, 2 * CORTEX_MM)
