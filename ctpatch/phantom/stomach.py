"""The stomach: a bent tube with a folded wall around water and gas, and coordinates in that wall."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ..geometry import Floats
from .canvas import Canvas
from .shapes import Plane, Tube, blend, smooth_tube, unit

AXIS = (
    (60, 28, 90), (72, 16, 66), (76, -4, 40), (68, -24, 14), (54, -40, -12), (32, -52, -32), (6, -56, -44),
    (-20, -50, -42), (-38, -36, -32),
)  # fmt: skip
RADII = (30, 37, 38, 35, 31, 27, 23, 17, 9)
"""The axis from fundus to pylorus and the radius there, in mm."""
ZERO_ANGLE = (0.0, 0.85, -0.53)
"""Where angles about the axis begin: nearly perpendicular to all of it."""
SCATTER_MM, SIZE = 5.0, (0.82, 1.02)
"""How far a patient's axis is from that, as a standard deviation; what his radii are multiplied by."""
CLEAR_MM = 11.0
"""Between the stomach and the wall of the cavity."""
REACH_MM = 34.0
"""How far outside of the stomach the wall's coordinates are told."""
WATER_HU, GAS_HU, MUCOSA_HU, WALL_HU = 12.0, -990.0, 128.0, 76.0
MUCOSA_MM = 1.6


@dataclass(frozen=True, eq=False)
class WallPlace:
    """Where the pixels of a slice are in the wall.

    Attributes
    ----------
    w : Plane
        Mm inside the outer (serosal) surface; −inf beyond `REACH_MM`.
    along : Plane
        Mm along the axis.
    radius : Plane
        Of the stomach there.
    outward : Plane
        Unit vector from the axis, (3, rows, columns).
    angle : Plane
        Of that about the axis, in rad.
    """

    w: Plane
    along: Plane
    radius: Plane
    outward: Plane
    angle: Plane


@dataclass(frozen=True, eq=False)
class Stomach:
    """A stomach.

    Attributes
    ----------
    tube : Tube
        Its outer surface.
    wall, fold : float
        Thickness of the wall, and of its folds on top of that, in mm.
    folds : int
        How many run along it.
    gas_y : float
        Gas is above: where y is less (the patient lies on his back).
    """

    tube: Tube
    wall: float
    fold: float
    folds: int
    gas_y: float

    @cached_property
    def lengths(self) -> Floats:
        """Mm along the axis at each of its points."""
        return np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(self.tube.points, axis=0), axis=1))])

    @cached_property
    def _side(self) -> Floats:
        """Across the axis and `ZERO_ANGLE`, at each of the axis's points."""
        return np.cross(unit(np.gradient(self.tube.points, axis=0)), ZERO_ANGLE)

    def axis(self, along: float) -> tuple[Floats, Floats, float]:
        """Point of the axis, direction and radius at `along` mm."""
        points, ends = self.tube.points, np.clip([along - 2, along + 2], 0, self.lengths[-1])
        low, middle, high = (
            np.array([np.interp(at, self.lengths, points[:, i]) for i in range(3)]) for at in (ends[0], along, ends[1])
        )
        return middle, unit(high - low), float(np.interp(along, self.lengths, self.tube.radii))

    def point(self, along: float, towards: Floats, outside: float, turn: float = 0.0) -> Floats:
        """The point `outside` mm beyond the surface, in a direction from the axis that is turned about it (rad)."""
        middle, tangent, radius = self.axis(along)
        across = unit(towards - (towards @ tangent) * tangent)
        direction = math.cos(turn) * across + math.sin(turn) * np.cross(tangent, across)
        return middle + (radius + outside) * direction

    def place(self, canvas: Canvas) -> WallPlace:
        """Where the pixels are in the wall."""
        shape = canvas.hu.shape
        zeros = np.zeros((6, *shape), np.float32)
        place = WallPlace(np.full(shape, -np.inf, np.float32), zeros[0], zeros[1], zeros[2:5], zeros[5])
        window = canvas.window(self.tube.bounds + np.array([[-REACH_MM], [REACH_MM]]))
        if window:
            x, y = canvas.bent_x[window], canvas.bent_y[window]
            place.w[window], number = self.tube.locate(x, y, canvas.z, REACH_MM)
            steps = np.arange(len(self.lengths))
            place.along[window] = np.interp(number, steps, self.lengths)
            place.radius[window] = np.interp(number, steps, self.tube.radii)
            axis = [np.interp(number, steps, self.tube.points[:, i]) for i in range(3)]
            away = x - axis[0], y - axis[1], canvas.z - axis[2]
            place.outward[:, *window] = away / np.maximum(np.sqrt(_dot(away, away)), 1e-3)
            side = [np.interp(number, steps, self._side[:, i]) for i in range(3)]
            place.angle[window] = np.arctan2(_dot(away, side), _dot(away, ZERO_ANGLE))
        return place

    def thickness(self, place: WallPlace) -> Plane:
        """Of the wall with its folds, in mm."""
        waves = np.cos(self.folds * place.angle + 0.6 * np.sin(place.along / 11) + 1.3 * np.sin(place.along / 27))
        return (self.wall + self.fold * np.maximum(waves, 0)).astype(np.float32)

    def paint_wall(self, canvas: Canvas, w: Plane, wall: Plane) -> None:
        """Muscle outside, mucosa inside; `wall` is the thickness of both. `paint_lumen` comes after."""
        canvas.fill(w, WALL_HU)
        canvas.fill(w - wall + MUCOSA_MM, MUCOSA_HU)

    def paint_lumen(self, canvas: Canvas, inside: Plane) -> None:
        """Water, and gas above it, `inside` mm inside the lumen."""
        gas = blend(self.gas_y - canvas.y[:, None])
        canvas.fill(inside, WATER_HU + (GAS_HU - WATER_HU) * gas)


def make_stomach(room: tuple[float, float], rng: np.random.Generator) -> Stomach:
    """A random stomach in a cavity of half axes `room`."""
    drift = rng.standard_normal((len(AXIS), 3)) * SCATTER_MM
    points = np.array(AXIS) + (drift + np.roll(drift, 1, axis=0) + np.roll(drift, -1, axis=0)) / 2
    radii = rng.uniform(*SIZE) * np.array(RADII)
    free = np.array(room) - radii[:, None] - CLEAR_MM
    points[:, :2] /= np.maximum(np.linalg.norm(points[:, :2] / free, axis=1, keepdims=True), 1)
    return Stomach(
        tube=smooth_tube(points, radii.tolist(), pieces=2),
        wall=float(rng.uniform(2.4, 3.6)),
        fold=float(rng.uniform(0.5, 3.0)),
        folds=int(rng.integers(6, 10)),
        gas_y=float(rng.uniform(-80, -35)),
    )


def _dot(a: Sequence[Floats], b: Sequence[Floats] | Sequence[float]) -> Floats:
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]
