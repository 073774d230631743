"""Organs of the abdomen: each paints itself where there is room."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from .canvas import Canvas
from .shapes import EDGE_MM, Ellipsoid, Plane, Shape, Tube, blend, lay
from .torso import FAT_HU

GRAIN_HU = 4.0
GAS_HU, STOOL_HU, FLUID_HU = -980.0, 20.0, 14.0


class Organ(Protocol):
    """Whatever lies in the abdomen."""

    def paint(self, canvas: Canvas, room: Plane, grain: Plane) -> None:
        """Paint it; `room` is mm inside of where it may be."""
        ...


@dataclass(frozen=True, eq=False)
class Solid:
    """One tissue in one or several shapes, and vessels in it."""

    shapes: tuple[Shape, ...]
    hu: float
    vessels: tuple[Tube, ...] = ()
    vessel_hu: float = 0.0

    def paint(self, canvas: Canvas, room: Plane, grain: Plane) -> None:
        """See `Organ.paint`."""
        hu = self.hu + GRAIN_HU * grain
        for shape in self.shapes:
            canvas.paint(shape, hu, within=room)
        if self.vessels:
            inside = np.minimum(np.maximum.reduce([canvas.depth(shape) for shape in self.shapes]), room) - 3
            for vessel in self.vessels:
                canvas.paint(vessel, self.vessel_hu, within=inside)


@dataclass(frozen=True, eq=False)
class Kidney:
    """A kidney: bright cortex, pyramids in it, and a sinus of fat."""

    outline: Ellipsoid
    sinus: Ellipsoid
    cortex_hu: float
    pyramid_hu: float

    def paint(self, canvas: Canvas, room: Plane, grain: Plane) -> None:
        """See `Organ.paint`."""
        if canvas.window(self.outline.bounds) is None:
            return
        depth = np.minimum(canvas.depth(self.outline), room)
        canvas.fill(depth, self.cortex_hu + GRAIN_HU * grain)
        columns = np.sin(canvas.bent_x / 3.5) * np.sin(canvas.bent_y / 3.5)
        canvas.fill(np.minimum(depth - 6 - 4 * columns, 12 - depth), self.pyramid_hu, 2.0)
        canvas.fill(np.minimum(depth - 6, canvas.depth(self.sinus)), FAT_HU + 25, 2.0)


@dataclass(frozen=True, eq=False)
class Bowel:
    """A piece of bowel: its wall, in `pouches` per mm along it, around fluid or stool with gas above `gas_y`."""

    tube: Tube
    wall: float
    wall_hu: float
    content_hu: float
    gas_y: float
    pouch: float

    def paint(self, canvas: Canvas, room: Plane, grain: Plane) -> None:
        """See `Organ.paint`."""
        window = canvas.window(self.tube.bounds)
        if window is None:
            return
        depth, along = self.tube.locate(canvas.bent_x[window], canvas.bent_y[window], canvas.z, EDGE_MM)
        depth = np.minimum(depth - self.pouch * np.abs(np.sin(1.7 * along)), room[window])
        hu, gas = canvas.hu[window], blend(self.gas_y - canvas.y[window[0], None])
        lay(hu, depth, self.wall_hu)
        content = self.content_hu + 6 * self.pouch * grain[window]
        lay(hu, depth - self.wall, content + (GAS_HU - content) * gas)
