"""Which planes are cut: random ones and moved copies of them in a training lesion, one through another's centre."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..geometry import Floats
from ..lesion.lattice import LesionLattice
from ..recipe import SIZE

AXES = np.array([[[1, 0, 0], [0, 1, 0]], [[1, 0, 0], [0, 0, 1]], [[0, 1, 0], [0, 0, 1]]], np.float64)
"""u, v of the planes xy, xz, yz in stack coordinates: u along a patch's columns, v along its rows."""


@dataclass(frozen=True, eq=False)
class Planes:
    """Where N patches are cut.

    Attributes
    ----------
    plane : (N,) uint8
        0 = xy, 1 = xz, 2 = yz.
    copy : (N,) uint8
        0 = original, 1… = moved copies.
    point : (N, 3) float64
        The point p in stack coordinates, mm; a moved copy's centre is p + shift.
    angle : (N,) float64
        Rotation about the plane's normal, degrees.
    shift : (N, 2) float64
        Shift along the plane's unmoved u and v, mm.
    """

    plane: NDArray[np.uint8]
    copy: NDArray[np.uint8]
    point: Floats
    angle: Floats
    shift: Floats

    def __len__(self) -> int:
        return len(self.plane)

    def pixels(self, spacing: float) -> tuple[Floats, Floats, Floats]:
        """SliceStack coordinates of each patch's pixel (0, 0), and the steps to the next column and row; (N, 3) each.

        pixel (a, b) = p + t_u·u + t_v·v + s·((b−32)·u' + (a−32)·v') with u' = cosθ·u + sinθ·v, v' = −sinθ·u + cosθ·v.
        """
        u, v = AXES[self.plane, 0], AXES[self.plane, 1]
        cosine, sine = np.cos(np.deg2rad(self.angle))[:, None], np.sin(np.deg2rad(self.angle))[:, None]
        column = spacing * (cosine * u + sine * v)
        row = spacing * (cosine * v - sine * u)
        centre = self.point + self.shift[:, :1] * u + self.shift[:, 1:] * v
        return centre - SIZE // 2 * (column + row), column, row


def lesion_rng(seed: int, patient_id: str, lesion_id: str) -> np.random.Generator:
    """The generator of a lesion's draws: the same whatever else is in the manifest, in whatever order."""
    digest = hashlib.sha256(f"ctpatch-1\0{seed}\0{patient_id}\0{lesion_id}".encode()).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest[:16], "big")))


def random_planes(
    lattice: LesionLattice, rng: np.random.Generator, *, patches: int, copies: int, rotate: float, shift: float
) -> Planes:
    """Planes of a training lesion, ordered by patch, then copy.

    Parameters
    ----------
    lattice : LesionLattice
    rng : numpy.random.Generator
        Drawn from in this order: points, angles, shifts.
    patches, copies : int
        Patches, and moved copies of each.
    rotate : float
        Largest rotation either way, degrees.
    shift : float
        Largest shift either way along each axis, mm.
    """
    points = lattice.points(rng.integers(0, len(lattice), patches))
    angle = rng.uniform(-rotate, rotate, (patches, copies))
    moved = rng.uniform(-shift, shift, (patches, copies, 2))
    each = 1 + copies
    return Planes(
        plane=np.repeat((np.arange(patches) % 3).astype(np.uint8), each),
        copy=np.tile(np.arange(each, dtype=np.uint8), patches),
        point=np.repeat(points, each, axis=0),
        angle=np.pad(angle, ((0, 0), (1, 0))).ravel(),
        shift=np.pad(moved, ((0, 0), (1, 0), (0, 0))).reshape(-1, 2),
    )


def center_plane(point: Floats) -> Planes:
    """The one xy plane of a val or test lesion, through `point` (stack coordinates, mm)."""
    return unmoved_planes(point.reshape(1, 3), 0)


def unmoved_planes(points: Floats, plane: int) -> Planes:
    """One plane after the other through points (N, 3; stack coordinates, mm): all xy (0), xz (1) or yz (2)."""
    count = len(points)
    kinds, copy = np.full(count, plane, np.uint8), np.zeros(count, np.uint8)
    return Planes(kinds, copy, points, angle=np.zeros(count), shift=np.zeros((count, 2)))
