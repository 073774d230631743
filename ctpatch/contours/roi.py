"""What a reader of contours or masks hands on: one ROI, either drawn or as voxels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import short_uid
from ..geometry import Floats

CENTER_ONLY = "use a POINT only as the centre of a val or test row"


@dataclass(frozen=True)
class References:
    """The series, images and frame of reference that contours were drawn on; empty where their file does not say."""

    series_uids: frozenset[str] = frozenset()
    sop_uids: frozenset[str] = frozenset()
    frame_of_reference: str = ""

    @property
    def series(self) -> str:
        """The series in a message."""
        return ", ".join(map(short_uid, sorted(self.series_uids))) or "(none)"


@dataclass(frozen=True, eq=False)
class DrawnROI:
    """Closed planar contours as drawn; what is inside is decided by `lesion.mask`.

    Attributes
    ----------
    name : str
        The ROI's name in its file.
    contours : tuple of (n, 3) float64
        Points in mm LPS; each path is closed implicitly and has at least three points, but for a single POINT.
    refers : References
        What they were drawn on.
    images : tuple of frozenset of str
        The SOPInstanceUIDs that each contour names; empty where the file has none.
    xor : bool
        CLOSEDPLANAR_XOR: overlapping contours are combined by XOR, as declared.
    notes : tuple of str
        What deserves a line in the report.
    """

    name: str
    contours: tuple[Floats, ...]
    refers: References = References()
    images: tuple[frozenset[str], ...] = ()
    xor: bool = False
    notes: tuple[str, ...] = ()

    @property
    def point(self) -> Floats | None:
        """The one point, (3,), of a ROI that is no outline but a POINT."""
        return self.contours[0][0] if len(self.contours) == 1 and len(self.contours[0]) == 1 else None


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


def boxed(voxels: NDArray[np.int64]) -> tuple[tuple[int, int, int], NDArray[np.bool_]]:
    """Voxels (m, 3), at least one, as the corner of the smallest box around them and its content."""
    corner = voxels.min(axis=0)
    box = np.zeros(voxels.max(axis=0) - corner + 1, np.bool_)
    box[tuple((voxels - corner).T)] = True
    k, row, column = corner.tolist()
    return (k, row, column), box
