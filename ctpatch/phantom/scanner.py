"""How the slices of a simulated series lie: axial, oblique, with a tilted gantry, or unevenly spaced."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..geometry import Floats, SliceStack, make_stack, orthonormal_axes

GEOMETRIES = ("axial", "oblique", "tilt", "uneven")
FIELD_OF_VIEW_MM = 96.0
LENGTH_MM = 64.0
PIXEL_SPACINGS_MM = (0.9, 1.1, 1.3)
SLICE_SPACINGS_MM = (2.0, 2.5, 3.0)
OBLIQUE_DEGREES = 20.0
"""Largest rotation about each patient axis of an oblique series."""
TILT_DEGREES = (10.0, 20.0)


@dataclass(frozen=True, eq=False)
class Scan:
    """A simulated acquisition.

    Attributes
    ----------
    stack : SliceStack
        Where the slices lie.
    centre : (3,) float64
        Middle of the imaged volume in mm LPS.
    thickness : float
        Slice thickness in mm.
    tilt : float
        Gantry tilt in degrees.
    """

    stack: SliceStack
    centre: Floats
    thickness: float
    tilt: float


def make_scan(geometry: str, rng: np.random.Generator) -> Scan:
    """Slices of a random patient position, pixel size and spacing, lying as `geometry` says.

    `axial`: slices along the patient's axis. `oblique`: rotated about all three axes. `tilt`: the table moves along
    the patient's axis, not along the slices' normal, so that the stack is sheared. `uneven`: spacing doubles half
    way.
    """
    centre = np.array([0.0, -150.0, -300.0]) + rng.uniform(-20, 20, 3)
    row_mm, column_mm = rng.choice(PIXEL_SPACINGS_MM, 2)
    if rng.random() < 0.5:
        column_mm = row_mm
    thickness = float(rng.choice(SLICE_SPACINGS_MM))
    angles = rng.uniform(-OBLIQUE_DEGREES, OBLIQUE_DEGREES, 3)
    tilt = float(rng.uniform(*TILT_DEGREES)) if geometry == "tilt" else 0.0

    turn = angles if geometry == "oblique" else np.array([tilt, 0.0, 0.0])
    axes = orthonormal_axes(_rotation(turn)[:, :2].T)
    if geometry == "uneven":
        thickness = SLICE_SPACINGS_MM[0]
    table = np.array([0.0, 0.0, 1.0]) if geometry == "tilt" else axes[2]
    shape = (int(np.ceil(FIELD_OF_VIEW_MM / row_mm)), int(np.ceil(FIELD_OF_VIEW_MM / column_mm)))
    corner = (shape[1] - 1) / 2 * column_mm * axes[0] + (shape[0] - 1) / 2 * row_mm * axes[1]
    origins = centre - corner + np.outer(_steps(thickness, geometry == "uneven"), table)
    stack, _ = make_stack(axes, origins, (row_mm, column_mm), shape)
    return Scan(stack, centre, thickness, tilt)


def _steps(spacing: float, uneven: bool) -> Floats:
    half = np.arange(0.0, LENGTH_MM / 2, spacing)
    above = np.arange(0.0, LENGTH_MM / 2, 2 * spacing) if uneven else half
    return np.concatenate([-half[:0:-1], above])


def _rotation(degrees: Floats) -> Floats:
    (cx, cy, cz), (sx, sy, sz) = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    about_x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    return about_z @ about_y @ about_x
