"""What a scene is painted on: one slice at a time, its coordinates bent so that nothing in it is a perfect ellipse."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ..geometry import Floats
from .shapes import EDGE_MM, Plane, Shape, lay, unit

WAVES = 6
TILE = 96
"""Voxels after which a grain repeats."""


@dataclass(frozen=True, eq=False)
class Warp:
    """A smooth bending of space: waves (n, 3) per mm, their phases and their shifts of x and y in mm (n, 2)."""

    waves: Floats
    phases: Floats
    shifts: Floats

    @classmethod
    def random(cls, rng: np.random.Generator, wavelengths: tuple[float, float], mm: float) -> Warp:
        """Bends by about `mm` over the given range of wavelengths in mm."""
        waves = unit(rng.standard_normal((WAVES, 3))) * (2 * np.pi / rng.uniform(*wavelengths, (WAVES, 1)))
        return cls(waves, rng.uniform(0, 2 * np.pi, WAVES), mm * rng.standard_normal((WAVES, 2)) / math.sqrt(WAVES))

    @property
    def reach(self) -> float:
        """The most by which it shifts a point, in mm."""
        return float(abs(self.shifts).sum(axis=0).max())

    def apply(self, x: Plane, y: Plane, z: float, share: Plane) -> tuple[Plane, Plane]:
        """Bent coordinates at rows y (n,) and columns x (m,), (n, m) each; by `share` of the shifts."""
        bent_x, bent_y = np.zeros((2, len(y), len(x)), np.float32)
        for (kx, ky, kz), phase, (dx, dy) in zip(
            self.waves.tolist(), self.phases.tolist(), self.shifts.tolist(), strict=True
        ):
            px, py = kx * x, ky * y[:, None] + (kz * z + phase)
            wave = np.sin(px) * np.cos(py) + np.cos(px) * np.sin(py)
            bent_x += dx * wave
            bent_y += dy * wave
        return x + share * bent_x, y[:, None] + share * bent_y


@dataclass(frozen=True, eq=False)
class Grain:
    """Correlated noise of unit variance, fixed in space: the unevenness of a tissue. It repeats after `TILE` voxels."""

    tile: Plane

    @classmethod
    def random(cls, rng: np.random.Generator, voxels: float) -> Grain:
        """Grain of a Gaussian autocorrelation whose standard deviation is about `voxels`."""
        f2 = [np.fft.fftfreq(TILE) ** 2, np.fft.fftfreq(TILE) ** 2, np.fft.rfftfreq(TILE) ** 2]
        kernel = np.exp(-((np.pi * voxels) ** 2) * (f2[0][:, None, None] + f2[1][:, None] + f2[2]))
        noise = np.fft.irfftn(np.fft.rfftn(rng.standard_normal((TILE,) * 3)) * kernel)  # TILE is even
        return cls((noise / noise.std()).astype(np.float32))

    def plane(self, k: int, shape: tuple[int, int]) -> Plane:
        """The grain in slice `k` of pixels `shape`."""
        rows, columns = (-(-size // TILE) for size in shape)
        return np.tile(self.tile[k % TILE], (rows, columns))[: shape[0], : shape[1]]


@dataclass(eq=False)
class Canvas:
    """One slice being painted.

    Attributes
    ----------
    x, y : (columns,), (rows,) float32
        Straight coordinates of the pixel centres in mm.
    z : float
    bent_x, bent_y : Plane
        Where the pixels are in the scene.
    margin : float
        How far bent coordinates may be from straight ones.
    hu : Plane
        What has been painted so far.
    """

    x: Plane
    y: Plane
    z: float
    bent_x: Plane
    bent_y: Plane
    margin: float
    hu: Plane

    @classmethod
    def blank(cls, x: Plane, y: Plane, z: float, warp: Warp, hu: float, ellipse: tuple[float, float]) -> Canvas:
        """A slice of `hu` everywhere; outside of an ellipse of these half axes it is hardly bent."""
        centred = 1 - np.hypot(x / ellipse[0], y[:, None] / ellipse[1])
        bent_x, bent_y = warp.apply(x, y, z, np.clip(3 * centred, 0.2, 1))
        return cls(x, y, z, bent_x, bent_y, warp.reach, np.full(bent_x.shape, hu, np.float32))

    def window(self, bounds: Floats) -> tuple[slice, slice] | None:
        """Rows and columns that a shape of these bounds may reach; None where there are none."""
        (x0, y0, z0), (x1, y1, z1) = bounds.tolist()
        if not z0 - EDGE_MM <= self.z <= z1 + EDGE_MM:
            return None
        more = self.margin + EDGE_MM
        columns = slice(*np.searchsorted(self.x, (x0 - more, x1 + more)).tolist())
        rows = slice(*np.searchsorted(self.y, (y0 - more, y1 + more)).tolist())
        return None if rows.start == rows.stop or columns.start == columns.stop else (rows, columns)

    def depth(self, shape: Shape) -> Plane:
        """Depth in a shape all over the slice; −inf beyond its bounds."""
        depth = np.full(self.hu.shape, -np.inf, np.float32)
        if window := self.window(shape.bounds):
            depth[window] = shape.depth(self.bent_x[window], self.bent_y[window], self.z)
        return depth

    def paint(self, shape: Shape, hu: float | Plane, edge: float = EDGE_MM, within: Plane | None = None) -> None:
        """Paint a shape; where `within` is given, no farther than that is positive."""
        if window := self.window(shape.bounds):
            depth = shape.depth(self.bent_x[window], self.bent_y[window], self.z)
            if within is not None:
                depth = np.minimum(depth, within[window])
            lay(self.hu[window], depth, hu if isinstance(hu, float) else hu[window], edge)

    def fill(self, depth: Plane, hu: float | Plane, edge: float = EDGE_MM) -> None:
        """Paint where `depth` is positive."""
        lay(self.hu, depth, hu, edge)
