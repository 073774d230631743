"""Vessels and bronchi of a lung: trees that grow from the hilum and end before the pleura."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ..geometry import Floats
from .canvas import Canvas
from .shapes import Plane, Tube, across, unit

GAS_HU, WALL_HU, WALL_MM = -975.0, -250.0, 0.6
THINNEST_MM = 0.42
BRONCHUS_MM = 1.7
"""Vessels thinner than this have no bronchus that is seen beside them."""


@dataclass(frozen=True, eq=False)
class Airway:
    """A tube of gas with a wall."""

    lumen: Tube
    wall: float
    hu: float

    @cached_property
    def _outer(self) -> Tube:
        return Tube(self.lumen.points, self.lumen.radii + self.wall)

    def paint(self, canvas: Canvas, within: Plane | None = None) -> None:
        """Paint wall and gas; where `within` is given, no farther than that is positive."""
        canvas.paint(self._outer, self.hu, within=within)
        canvas.paint(self.lumen, GAS_HU, within=within)


def bronchus(vessel: Tube, beside: Floats) -> Airway:
    """The bronchus that goes with a piece of a vessel, on the side of the unit vector `beside`."""
    inner = 0.62 * vessel.radii
    return Airway(Tube(vessel.points + beside * (vessel.radii + inner + WALL_MM)[:, None], inner), WALL_MM, WALL_HU)


def grow(
    start: Floats, direction: Floats, radius: float, inside: Callable[[Floats], bool], rng: np.random.Generator
) -> list[Tube]:
    """A tree from `start`: each piece bends a little and forks, one arm thicker than the other.

    It goes on where `inside` is true of a piece's end, and until it is `THINNEST_MM` thin.
    """
    branches, waiting = [], [(start, direction, radius)]
    while waiting:
        start, direction, radius = waiting.pop()
        length = (8 + 3.5 * radius) * rng.uniform(0.7, 1.3)
        bent = unit(direction + 0.22 * rng.standard_normal(3))
        middle = start + direction * length / 2
        end = middle + bent * length / 2
        turn, arms = across(bent, rng), rng.uniform((0.78, 0.5), (0.92, 0.72))
        if not inside(end):
            continue
        branches.append(Tube(np.array([start, middle, end]), radius * np.array([1, 0.95, 0.88])))
        for arm, angle in zip(arms.tolist(), (0.35, -0.8), strict=True):
            if radius * arm > THINNEST_MM:
                waiting.append((end, unit(bent + angle * turn), radius * arm))
    return branches
