"""What a reader of contours or masks hands on: one ROI, either drawn or as voxels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..geometry import Floats


@dataclass(frozen=True, eq=False)
class DrawnROI:
    """Closed planar contours as drawn; what is inside is decided by `ctpatch.mask`.

    Attributes
    ----------
    name : str
        The ROI's name in its file.
    contours : tuple of (n, 3) float64
        Points in mm LPS; each path is closed implicitly and has at least three points.
    frame_of_reference : str
        FrameOfReferenceUID the points are given in; empty when the file does not say.
    series_uid : str
        SeriesInstanceUID the ROI refers to; empty when the file does not say.
    sop_uids : frozenset of str
        SOPInstanceUIDs the contours refer to.
    xor : bool
        CLOSEDPLANAR_XOR: overlapping contours are combined by XOR, as declared.
    notes : tuple of str
        What deserves a line in the report.
    """

    name: str
    contours: tuple[Floats, ...]
    frame_of_reference: str = ""
    series_uid: str = ""
    sop_uids: frozenset[str] = frozenset()
    xor: bool = False
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class VoxelROI:
    """Voxels of the image's own grid.

    Attributes
    ----------
    name : str
        The ROI's name, segment label, lesion number or label value.
    corner : (int, int, int)
        (slice, row, column) of `voxels[0, 0, 0]` in the image, slices in the stack's order.
    voxels : (Z, Y, X) bool
        The voxels; the box is no larger than needed and has at least one True.
    n_readers : int
        Readers who outlined it (LIDC); 0 when unknown.
    notes : tuple of str
        What deserves a line in the report.
    """

    name: str
    corner: tuple[int, int, int]
    voxels: NDArray[np.bool_]
    n_readers: int = 0
    notes: tuple[str, ...] = ()
