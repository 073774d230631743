"""Shapes in space by their depth: mm inside the surface, negative outside. All of them are painted slice by slice.

Coordinates are mm: x to the patient's left, y to his back, z to his head.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.interpolate import make_interp_spline

from ..compiled import compiled, vectorized
from ..geometry import Floats

Plane = NDArray[np.float32]
"""A value at each pixel of a slice, (rows, columns)."""

EDGE_MM = 0.8
"""Width over which one tissue's HU blends into the next, its middle on the surface."""
GOLDEN_ANGLE = math.pi * (3 - math.sqrt(5))


class Shape(Protocol):
    """Anything that knows where it is."""

    @property
    def bounds(self) -> Floats:
        """Lowest and highest x, y, z that it reaches, (2, 3)."""
        ...

    def depth(self, x: Plane, y: Plane, z: float) -> Plane:
        """Mm inside the surface at points of one slice."""
        ...


@dataclass(frozen=True, eq=False)
class Ellipsoid:
    """An ellipsoid, turned by `turn` degrees about z (from x towards y)."""

    centre: Sequence[float] | Floats
    radii: Sequence[float] | Floats
    turn: float = 0.0

    @cached_property
    def bounds(self) -> Floats:
        """See `Shape.bounds`; that of the sphere around it in the slice."""
        reach = (max(self.radii[:2]), max(self.radii[:2]), self.radii[2])
        return np.array([np.subtract(self.centre, reach), np.add(self.centre, reach)])

    def depth(self, x: Plane, y: Plane, z: float) -> Plane:
        """See `Shape.depth`; exact on the surface, to first order near it."""
        turn = math.radians(self.turn)
        numbers = z, *self.centre, *self.radii, math.cos(turn), math.sin(turn)
        return _ellipsoid(x, y, *map(np.float32, numbers))


@dataclass(frozen=True, eq=False)
class Tube:
    """Round pieces from point to point (n, 3), each with its radius (n,)."""

    points: Floats
    radii: Floats

    @cached_property
    def bounds(self) -> Floats:
        """See `Shape.bounds`."""
        reach = self.radii[:, None]
        return np.array([(self.points - reach).min(axis=0), (self.points + reach).max(axis=0)])

    def depth(self, x: Plane, y: Plane, z: float) -> Plane:
        """See `Shape.depth`; −inf where a slice is well off the tube."""
        return self.locate(x, y, z, EDGE_MM)[0]

    def locate(self, x: Plane, y: Plane, z: float, reach: float) -> tuple[Plane, Plane]:
        """Depth, and how far along the tube: 0 at the first point, 1 at the second, ...

        Farther than `reach` mm from all pieces the depth is −inf.
        """
        height, radius = self.points[:, 2], np.maximum(self.radii[:-1], self.radii[1:]) + reach
        low, high = np.minimum(height[:-1], height[1:]) - radius, np.maximum(height[:-1], height[1:]) + radius
        depth, along = np.full(x.shape, -np.inf, np.float32), np.zeros(x.shape, np.float32)
        pieces = np.flatnonzero((low <= z) & (z <= high))
        _tube(x, y, z, self.points, self.radii, pieces, reach, depth, along)
        return depth, along


def smooth_tube(points: ArrayLike, radii: Sequence[float], pieces: int = 4) -> Tube:
    """A tube along a spline through points (n, 3), `pieces` between each two; the radii are spread evenly along it."""
    line = np.asarray(points, np.float64)
    t = np.linspace(0, 1, len(line))
    fine = np.linspace(0, 1, pieces * (len(line) - 1) + 1)
    spline = make_interp_spline(t, line, min(3, len(line) - 1))
    return Tube(spline(fine), np.interp(fine, np.linspace(0, 1, len(radii)), radii))


def blend(depth: Plane, edge: float = EDGE_MM) -> Plane:
    """0 outside a surface, 1 inside, in between over `edge` mm."""
    return np.clip(depth / edge + 0.5, 0, 1)


def lay(hu: Plane, depth: Plane, value: float | Plane, edge: float = EDGE_MM) -> None:
    """Lay `value` over `hu`, in place, where `depth` is positive; see `blend`."""
    _lay(hu, depth, np.asarray(value, np.float32), np.float32(edge), out=hu)


def unit(vector: Floats) -> Floats:
    """The vector (3,) or vectors (n, 3) at length 1."""
    return vector / np.linalg.norm(vector, axis=-1, keepdims=True)


def across(direction: Floats, rng: np.random.Generator) -> Floats:
    """A random unit vector (3,) perpendicular to `direction`."""
    return unit(np.cross(direction, rng.standard_normal(3)))


def disc(count: int, rng: np.random.Generator) -> Floats:
    """Points (count, 2) spread evenly over the unit disc: a sunflower's seeds, turned at random."""
    k = np.arange(count)
    angle, radius = GOLDEN_ANGLE * k + rng.uniform(0, 2 * np.pi), np.sqrt((k + 0.5) / count)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)


def sphere(count: int, rng: np.random.Generator) -> Floats:
    """Unit vectors (count, 3) spread evenly over the sphere, turned at random."""
    height = 1 - (2 * np.arange(count) + 1) / count
    angle, radius = GOLDEN_ANGLE * np.arange(count), np.sqrt(1 - height**2)
    points = np.stack([radius * np.cos(angle), radius * np.sin(angle), height], axis=1)
    return points @ np.linalg.qr(rng.standard_normal((3, 3)))[0]


@vectorized("f4(f4,f4,f4,f4)")
def _lay(hu, depth, value, edge):  # type: ignore[no-untyped-def]
    return hu + min(max(depth / edge + np.float32(0.5), np.float32(0)), np.float32(1)) * (value - hu)


@vectorized(f"f4({','.join(['f4'] * 11)})")
def _ellipsoid(x, y, z, cx, cy, cz, a, b, c, cos, sin):  # type: ignore[no-untyped-def]
    """|p/r| (1 − |p/r|) / |p/r²|: the distance that the level set's slope gives."""
    u, v, w = ((x - cx) * cos + (y - cy) * sin) / a, ((y - cy) * cos - (x - cx) * sin) / b, (z - cz) / c
    norm = math.sqrt(u * u + v * v + w * w)
    slope = math.sqrt((u / a) ** 2 + (v / b) ** 2 + (w / c) ** 2)
    return norm * (1 - norm) / slope if slope > 1e-9 else min(a, b, c)


@compiled()
def _tube(x, y, z, points, radii, pieces, reach, depth, along):  # type: ignore[no-untyped-def]
    for n in pieces:
        ax, ay, az, ra = points[n, 0], points[n, 1], points[n, 2], radii[n]
        dx, dy, dz, dr = points[n + 1, 0] - ax, points[n + 1, 1] - ay, points[n + 1, 2] - az, radii[n + 1] - ra
        length2, w = dx * dx + dy * dy + dz * dz, z - az
        widest = math.sqrt(length2) / 2 + max(ra, ra + dr)
        for i in range(x.shape[0]):
            for j in range(x.shape[1]):
                u, v = x[i, j] - ax, y[i, j] - ay
                near = widest + min(reach, -depth[i, j])  # of the piece's middle: farther points cannot be deeper
                if (u - dx / 2) ** 2 + (v - dy / 2) ** 2 + (w - dz / 2) ** 2 > near * near:
                    continue
                t = min(max((u * dx + v * dy + w * dz) / length2, 0.0), 1.0)
                inside = ra + dr * t - math.sqrt((u - t * dx) ** 2 + (v - t * dy) ** 2 + (w - t * dz) ** 2)
                if inside > max(depth[i, j], -reach):
                    depth[i, j], along[i, j] = inside, n + t
