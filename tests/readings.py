"""LIDC-IDRI XML for the tests: the paths, nodules and readings of up to four readers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import synthetic

SPACING = 2.5
"""Distance of the slices in mm where no series says otherwise."""
LEVELS = {
    "subtlety": 3,
    "internalStructure": 1,
    "calcification": 6,
    "sphericity": 4,
    "margin": 4,
    "lobulation": 2,
    "spiculation": 1,
    "texture": 5,
    "malignancy": 3,
}


@dataclass
class Roi:
    """One path as (column, row) points on the slice `k`."""

    k: int
    points: list[tuple[float, float]]
    inclusion: str = "TRUE"
    sop: str | None = ""  # "" means the slice's own
    z: float | None = None

    def xml(self) -> str:
        edges = "".join(f"<edgeMap><xCoord>{x}</xCoord><yCoord>{y}</yCoord></edgeMap>" for x, y in self.points)
        z = self.k * SPACING if self.z is None else self.z
        sop = "" if self.sop is None else f"<imageSOP_UID>{self.sop or sop_uid(self.k)}</imageSOP_UID>"
        return f"<roi><imageZposition>{z} </imageZposition>{sop}<inclusion>{self.inclusion}</inclusion>{edges}</roi>"


@dataclass
class Nodule:
    rois: list[Roi]
    name: str = "N"
    ratings: dict[str, object] = field(default_factory=dict)

    def xml(self) -> str:
        levels = "".join(f"<{name}>{level}</{name}>" for name, level in self.ratings.items())
        levels = f"<characteristics>{levels}</characteristics>" if levels else ""
        rois = "".join(roi.xml() for roi in self.rois)
        return f"<unblindedReadNodule><noduleID>{self.name}</noduleID>{levels}{rois}</unblindedReadNodule>"


def sop_uid(k: int) -> str:
    return f"1.2.3.{k + 100}"


def document(
    sessions: Sequence[Sequence[Nodule]], series: str = "1.2.3", xmlns: str = ' xmlns="http://www.nih.gov"'
) -> str:
    readings = "".join(f"<readingSession>{''.join(n.xml() for n in s)}</readingSession>" for s in sessions)
    header = f"<ResponseHeader><SeriesInstanceUid>{series}</SeriesInstanceUid></ResponseHeader>"
    return f'<?xml version="1.0"?><LidcReadMessage{xmlns}>{header}{readings}</LidcReadMessage>'


def doubts(lesion: Any) -> tuple[str, ...]:
    """All that is wrong with a lesion unless a row accepts it."""
    return (*lesion.problems, *lesion.twice, *lesion.overlaps)


def write(folder: Path, sessions: Sequence[Sequence[Nodule]], **options: str) -> Path:
    path = folder / "reads.xml"
    path.write_text(document(sessions, **options), encoding="utf-8")
    return path


def square(low: int, high: int, k: int = 0, **options: object) -> Roi:
    """A path through the corners of a square: rows and columns low+1 … high-1 are in."""
    return Roi(k, [(low, low), (high, low), (high, high), (low, high)], **options)  # type: ignore[arg-type]


def on(ct: synthetic.Series, roi: Roi) -> Roi:
    """The path on its slice of a real series: with that slice's SOPInstanceUID and z where it has none of its own."""
    sop = str(ct.sop_uids[roi.k]) if roi.sop == "" else roi.sop
    return Roi(roi.k, roi.points, roi.inclusion, sop, float(ct.origins[roi.k, 2]) if roi.z is None else roi.z)
