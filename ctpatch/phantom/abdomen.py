"""The upper abdomen in the portal venous phase, around a stomach with a tumour."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ..geometry import Floats
from .canvas import Canvas, Grain, Warp
from .gastric_tumour import Tumour, make_tumour
from .organs import FLUID_HU, STOOL_HU, Bowel, Kidney, Organ, Solid
from .shapes import Ellipsoid, Plane, Tube, across, smooth_tube, unit
from .stomach import Stomach, make_stomach
from .torso import ENDLESS, FAT_HU, MUSCLE_HU, Scene, Torso, make_torso

LIVER_HU, SPLEEN_HU, PANCREAS_HU, KIDNEY_HU, PYRAMID_HU = 108.0, 120.0, 96.0, 190.0, 145.0
AORTA_HU, CAVA_HU, PORTAL_HU, BOWEL_HU, BILE_HU = 154.0, 138.0, 166.0, 96.0, 8.0
ENHANCEMENT_SD = 0.06
"""How much the enhancement of all organs differs between patients, as a part."""
GAP_MM, TUMOUR_GAP_MM = 3.5, 14.0
"""Fat between the stomach and other organs; what comes to it over a tumour, whose surface is seen in fat."""
HALF_WIDTH_MM, HALF_DEPTH_MM = (146.0, 164.0), (102.0, 114.0)
FIELD_MM = ((-118.0, 160.0), (-118.0, 116.0))
"""What is imaged, along x and y: the stomach and the left side whole, the right side cut off in the liver."""


@dataclass(frozen=True, eq=False)
class Abdomen(Scene):
    """One patient's upper abdomen; the origin is in the middle of the body."""

    stomach: Stomach
    tumour: Tumour
    organs: tuple[Organ, ...]
    vessels: tuple[Solid, ...]

    def paint_inside(self, canvas: Canvas, cavity: Plane, fine: Plane, coarse: Plane) -> Plane:
        """See `Scene.paint_inside`."""
        canvas.fill(cavity, FAT_HU + 6 + 5 * coarse)

        place = self.stomach.place(canvas)
        q, wall = self.tumour.spread(place), self.stomach.thickness(place)
        outer, inner = self.tumour.surfaces(q, wall, coarse)
        lesion = self.tumour.depth(canvas, place.w, q, outer, inner)
        outside = -np.maximum(place.w + outer, lesion)

        self.tumour.paint_fat(canvas, outside, q, coarse, cavity - 2)
        room = np.minimum(outside - GAP_MM - TUMOUR_GAP_MM * np.exp(-((q / 1.5) ** 2)), cavity - 1.5)
        for organ in self.organs:
            organ.paint(canvas, room, fine)
        for vessel in self.vessels:
            vessel.paint(canvas, np.minimum(outside, cavity) - 1, fine)
        self.torso.paint_bones(canvas)
        self.stomach.paint_wall(canvas, place.w, wall)
        lumen = place.w - np.maximum(wall, inner)
        self.tumour.paint(canvas, lesion, -lumen, fine + coarse)
        self.stomach.paint_lumen(canvas, lumen)
        return lesion


def make_abdomen(level: Mapping[str, float], rng: np.random.Generator, own: np.random.Generator) -> Abdomen:
    """A random abdomen; `own` is the tumour's generator, `level` its severity, stages and signs, each 0 to 1."""
    torso = make_torso(rng, HALF_WIDTH_MM, HALF_DEPTH_MM)
    stomach = make_stomach(torso.room, rng)
    tumour = make_tumour(stomach, level, own)
    e = float(rng.normal(1, ENHANCEMENT_SD))
    return Abdomen(
        torso=torso,
        field=np.array(FIELD_MM),
        centre=stomach.point(tumour.along, tumour.towards, 0.0),
        half_height=max(tumour.half_length, tumour.half_width) + 3.0,
        stomach=stomach,
        tumour=tumour,
        organs=_organs(torso, e, rng),
        vessels=(*_vessels(torso.spine_y, e, rng), *_mesentery(torso, e, rng)),
        warp=Warp.random(rng, (45, 110), 5.0),
        fine=Grain.random(rng, 1.2),
        coarse=Grain.random(rng, 2.6),
    )


def _organs(torso: Torso, e: float, rng: np.random.Generator) -> tuple[Organ, ...]:
    """Organs at their usual places, all shifted a little; `e` multiplies what they take up of the contrast."""
    (dx, dy, dz), y, left = rng.normal(0, 5, 3).tolist(), torso.spine_y, torso.room[0]
    liver = (
        Ellipsoid((-84 + dx, -6 + dy, 18 + dz), (72, 78, 82)),
        Ellipsoid((-6 + dx, -64 + dy, 14 + dz), (66, 30, 58), -12),
    )
    gallbladder = Ellipsoid((-44 + dx, -30 + dy, -44 + dz), (15, 20, 28), 25)
    spleen = Ellipsoid((left - 15, 26 + dy, 14 + dz), (25, 50, 54), -24)
    pancreas = ((-36 + dx, y - 36, dz - 44), (-8, y - 58, dz - 26), (34, y - 48, dz - 14), (86, y - 12, dz + 8))
    return (
        *(_kidney(side * 60 + dx, y + 14, top + dz, e) for side, top in ((-1, -52), (1, -38))),
        Solid(liver, LIVER_HU * e, _liver_tree(np.array([-34 + dx, 4 + dy, dz]), rng), PORTAL_HU * e),
        Solid((gallbladder,), BILE_HU),
        Solid((spleen,), SPLEEN_HU * e),
        Solid((smooth_tube(pancreas, (15, 10, 11, 9)),), PANCREAS_HU * e),
        _colon(left, dy, dz, e, rng),
        *(_jejunum(y, e, rng) for _ in range(8)),
    )


def _kidney(x: float, y: float, z: float, e: float) -> Kidney:
    side = math.copysign(1, x)
    outline = Ellipsoid((x, y, z), (25, 31, 54), side * 28)
    sinus = Ellipsoid((x - side * 13, y - 7, z), (12, 16, 28), side * 28)
    return Kidney(outline, sinus, KIDNEY_HU * e, PYRAMID_HU * e)


def _colon(left: float, dy: float, dz: float, e: float, rng: np.random.Generator) -> Bowel:
    """The transverse colon, up to the left flexure and down."""
    right = ((-98, dy - 24, dz - 88), (-84, dy - 66, dz - 70), (-20, -88, dz - 84), (50, -82, dz - 72))
    flexure = ((left - 18, -46, dz - 34), (left - 10, 2, dz - 8), (left - 16, 26, -90))
    tube = smooth_tube((*right, *flexure), (24, 21, 18, 18, 20, 21, 18))
    return Bowel(tube, 2.2, BOWEL_HU * 0.8 * e, STOOL_HU, float(rng.uniform(-92, -60)), 5.0)


def _jejunum(spine: float, e: float, rng: np.random.Generator) -> Bowel:
    """A loop left of the spine and below the stomach."""
    start = rng.uniform((25, -55, -100), (95, spine - 10, -28))
    line = start + np.cumsum(rng.normal(0, 1, (5, 3)) * (22, 14, 10), axis=0)
    return Bowel(smooth_tube(line, (11, 12, 11, 13, 11)), 2.6, BOWEL_HU * 1.15 * e, FLUID_HU, -ENDLESS, 1.5)


def _liver_tree(hilum: Floats, rng: np.random.Generator) -> tuple[Tube, ...]:
    """Portal branches from the hilum, and hepatic veins that run up to the cava."""
    tubes: list[Tube] = []

    def branch(start: Floats, direction: Floats, radius: float) -> None:
        if radius < 1.1:
            return
        middle = start + direction * radius * 4 + rng.normal(0, 1.5, 3)
        end = middle + unit(direction + 0.3 * rng.standard_normal(3)) * radius * 4
        tubes.append(smooth_tube([start, middle, end], (radius, radius * 0.84), pieces=2))
        side = across(direction, rng)
        for turn in (0.55, -0.65):
            branch(end, unit(direction + turn * side), radius * rng.uniform(0.68, 0.82))

    for direction in ((-1, 0.2, 0.1), (-0.7, -0.6, 0.4), (0.5, -0.9, 0.3)):
        branch(hilum, unit(np.array(direction)), 4.6)
    for direction in ((-1, 0.1, -0.5), (-0.5, -0.9, -0.4), (0.6, -0.9, -0.35)):
        branch(hilum + np.array([8, 14, 56]), unit(np.array(direction)), 4.4)
    return tuple(tubes)


def _vessels(spine: float, e: float, rng: np.random.Generator) -> tuple[Solid, ...]:
    """Crura; cava; aorta with coeliac trunk, splenic and superior mesenteric artery; portal and splenic vein."""
    y, sway = spine - 26, rng.normal(0, 2, 4).tolist()
    trunk = 12 + 4 * sway[3]
    crura = Ellipsoid((25, y + 8, 0), (4.5, 13, ENDLESS), 8), Ellipsoid((-5, y + 5, 0), (4.5, 12, ENDLESS), -8)
    cava = Ellipsoid((-24 + sway[2], y + 4, 0), (13, 9.5, ENDLESS), 10)
    arteries = (
        smooth_tube(((14 + sway[0], y, -150), (10, y - 1, 0), (4 + sway[1], y + 3, 150)), (9, 10, 11)),
        smooth_tube(((10, y - 8, trunk), (8, y - 20, trunk + 2), (-8, y - 26, trunk + 3)), (3.6, 3.2, 2.6)),
        smooth_tube(((8, y - 20, trunk + 2), (40, y - 22, trunk - 4), (92, y + 24, trunk)), (3, 2.6, 2.2)),
        smooth_tube(((11, y - 8, trunk - 16), (10, y - 18, trunk - 24), (6, y - 24, -120)), (3.6, 3.6, 3.4)),
    )
    veins = (
        smooth_tube(((-34, y - 8, 2), (-18, y - 18, -14), (0, y - 20, -24), (10, y - 24, -130)), (7, 7, 6, 5.5)),
        smooth_tube(((0, y - 20, -23), (34, y - 12, -15), (84, y + 20, 6), (100, y + 28, 12)), (5, 4.6, 4.2, 3.5)),
    )
    return (
        Solid(crura, MUSCLE_HU),
        Solid((cava,), CAVA_HU * e),
        Solid(arteries, AORTA_HU * e),
        Solid(veins, PORTAL_HU * e),
    )


def _mesentery(torso: Torso, e: float, rng: np.random.Generator) -> tuple[Solid, ...]:
    """Small vessels all over the fat."""
    tubes = []
    for _ in range(60):
        start = rng.uniform((-60, -torso.room[1], -90), (torso.room[0], torso.spine_y, 60))
        line = start + np.cumsum(rng.normal(0, 1, 3) * 6 + rng.normal(0, 3, (5, 3)), axis=0)
        tubes.append(smooth_tube(line, (rng.uniform(0.9, 1.9), 0.7), pieces=2))
    return (Solid(tuple(tubes), AORTA_HU * 0.8 * e),)
