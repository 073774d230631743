"""The lesion part of the independent reading of the contract: contours, LIDC-IDRI outlines, lattice points.

Coordinates are DICOM LPS in mm, arrays (z, y, x), pixel coordinates (row, column). Nothing of the package is
imported.
"""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
import pydicom
from oracle import TIE, Series
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

# --------------------------------------------------------------------------------------------- lesion


def rtstruct_contours(path: Path, roi: str) -> list[np.ndarray]:
    """The ROI's contours, each (M, 3) in mm, as they stand in the file."""
    ds = pydicom.dcmread(path)
    (number,) = {item.ROINumber for item in ds.StructureSetROISequence if item.ROIName.strip() == roi}
    (drawn,) = (item for item in ds.ROIContourSequence if item.ReferencedROINumber == number)
    return [np.array(item.ContourData, dtype=np.float64).reshape(-1, 3) for item in drawn.ContourSequence]


def lesion_voxels(series: Series, contours: Sequence[np.ndarray], *, rims: bool = True) -> np.ndarray:
    """(K, rows, columns) bool: the voxels of contours (M, 3) in mm, by the design's rule.

    Parameters
    ----------
    rims
        Whether voxels within 1e-6 px of a path are in (DICOM) or out (LIDC XML).
    """
    mask = np.zeros(series.hu.shape, dtype=bool)
    planes = np.array([float(np.mean(contour @ series.n)) for contour in contours])
    for k, plane in plane_of_slice(series, planes).items():
        chosen = [contours[i] for i in np.flatnonzero(np.abs(planes - plane) < 1e-3)]
        paths = [np.stack(series.project(k, contour), axis=1) for contour in chosen]
        mask[k] = filled(distinct(paths), series.hu.shape[1:], rims=rims)
    return mask


def plane_of_slice(series: Series, planes: np.ndarray) -> dict[int, float]:
    """For each slice with one, the position along n of the contour plane that it takes."""
    z, (below, above) = series.z, series.halves
    levels, taken = np.unique(np.round(planes, 6)), {}
    for k in range(len(z)):
        offset = levels - z[k]
        near = levels[(offset >= -below[k] * (1 + 2 * TIE)) & (offset <= above[k] * (1 + 2 * TIE))]
        if len(near):
            distance = np.abs(near - z[k])
            taken[k] = float(near[distance <= distance.min() + TIE][0])
    return taken


def distinct(paths: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The paths without repeats: the same closed path from another start or run backwards is a repeat."""
    kept: dict[tuple, np.ndarray] = {}
    for path in paths:
        points = [tuple(point) for point in np.round(path, 9)]
        points = points[:-1] if points[0] == points[-1] and len(points) > 1 else points
        turns = [run[i:] + run[:i] for run in (points, points[::-1]) for i in range(len(points))]
        kept.setdefault(min(map(tuple, turns)), path)
    return list(kept.values())


def filled(paths: Sequence[np.ndarray], shape: tuple[int, ...], *, rims: bool = True) -> np.ndarray:
    """(rows, columns) bool: pixel centres by the even-odd rule over closed paths of (row, column)."""
    mask = np.zeros(shape, dtype=bool)
    points = np.concatenate(paths)
    low = np.maximum(np.floor(points.min(axis=0)).astype(int) - 1, 0)
    high = np.minimum(np.ceil(points.max(axis=0)).astype(int) + 2, shape)
    if (low >= high).any():
        return mask
    row, column = (low[:, None] + np.indices(high - low).reshape(2, -1)).astype(np.int64)
    mask[row, column] = inside(paths, row, column, rims=rims)
    return mask


def inside(paths: Sequence[np.ndarray], row: np.ndarray, column: np.ndarray, *, rims: bool = True) -> np.ndarray:
    """(M,) bool: whether each (row, column) is inside, in extended precision."""
    row, column = row.astype(np.longdouble)[:, None], column.astype(np.longdouble)[:, None]
    odd, on = np.zeros(len(row), dtype=bool), np.zeros(len(row), dtype=bool)
    for path in paths:
        start = path.astype(np.longdouble)
        end = np.roll(start, -1, axis=0)
        odd ^= _crossings(row, column, start, end) % 2 == 1
        on |= _distance(row, column, start, end) <= TIE
    return (odd | on) if rims else (odd & ~on)


def _crossings(row: np.ndarray, column: np.ndarray, start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """How many edges the ray towards greater columns crosses; of its two ends an edge owns one."""
    spans = (start[:, 0] <= row) != (end[:, 0] <= row)
    rise = np.where(start[:, 0] == end[:, 0], 1, end[:, 0] - start[:, 0])
    where = start[:, 1] + (row - start[:, 0]) * ((end[:, 1] - start[:, 1]) / rise)
    return (spans & (where > column)).sum(axis=1)


def _distance(row: np.ndarray, column: np.ndarray, start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Distance (px) of each (row, column) to the nearest of the segments."""
    edge = end - start
    length2 = (edge**2).sum(axis=1)
    per_px = edge / np.where(length2 == 0, 1, length2)[:, None]
    down, right = row - start[:, 0], column - start[:, 1]
    t = np.clip(down * per_px[:, 0] + right * per_px[:, 1], 0, 1)
    gap2 = (down - t * edge[:, 0]) ** 2 + (right - t * edge[:, 1]) ** 2
    return np.sqrt(gap2.min(axis=1))


# ------------------------------------------------------------------------------------------ LIDC-IDRI

Voxels = frozenset[tuple[float, int, int]]  # (imageZposition, row, column)


@dataclass(frozen=True)
class Outline:
    """What one reader drew of one nodule."""

    reader: int
    voxels: Voxels
    ratings: dict[str, int]


@dataclass(frozen=True)
class LidcLesion:
    """One lesion of a LIDC-IDRI scan: its consensus voxels and the readers who outlined it."""

    voxels: Voxels
    readers: tuple[int, ...]
    ratings: dict[str, int]  # medians, halves rounded up

    def mask(self, series: Series) -> np.ndarray:
        """(K, rows, columns) bool on an axial series whose slices must all be there."""
        mask = np.zeros(series.hu.shape, dtype=bool)
        for z, row, column in self.voxels:
            (k,) = np.flatnonzero(np.abs(series.origins[:, 2] - z) < 0.01)
            mask[k, row, column] = True
        return mask


def lidc_lesions(path: Path, shape: tuple[int, int], least: Fraction = Fraction(1, 2)) -> list[LidcLesion]:
    """The lesions of a LIDC-IDRI XML on (rows, columns) slices, in the order of their centroids (z, y, x)."""
    outlines = lidc_outlines(path, shape)
    share = np.array([[bool(a.voxels & b.voxels) for b in outlines] for a in outlines])
    count, group = connected_components(coo_matrix(share), directed=False)
    lesions = [_consensus([outlines[i] for i in np.flatnonzero(group == g)], least) for g in range(count)]
    return sorted(lesions, key=lambda lesion: tuple(np.mean(list(lesion.voxels), axis=0)))


def _consensus(members: list[Outline], least: Fraction) -> LidcLesion:
    readers = tuple(outline.reader for outline in members)
    assert len(set(readers)) == len(readers), "two outlines of one reader"
    votes = Counter(voxel for outline in members for voxel in outline.voxels)
    voxels = frozenset(voxel for voxel, count in votes.items() if count >= least * len(members))
    names = {name for outline in members for name in outline.ratings}
    known = {name: [o.ratings[name] for o in members if name in o.ratings] for name in names}
    medians = {name: int(np.floor(np.median(values) + 0.5)) for name, values in known.items()}
    return LidcLesion(voxels, readers, medians)


def lidc_outlines(path: Path, shape: tuple[int, int]) -> list[Outline]:
    """Every nodule outline of more than a single point."""
    root = ElementTree.parse(path).getroot()
    space = {"n": root.tag[1:].split("}")[0]}
    found = []
    for reader, session in enumerate(root.findall("n:readingSession", space)):
        for nodule in session.findall("n:unblindedReadNodule", space):
            rois = [_lidc_roi(roi, space) for roi in nodule.findall("n:roi", space)]
            ratings = nodule.find("n:characteristics", space)
            if max(len(points) for _, points in rois) > 1:
                named = {} if ratings is None else {i.tag.split("}")[1]: int(i.text or 0) for i in ratings}
                found.append(Outline(reader, _lidc_voxels(rois, shape), named))
    return found


def _lidc_roi(roi: ElementTree.Element, space: dict[str, str]) -> tuple[float, np.ndarray]:
    """(z, points (M, 2) as (row, column)) of one slice's path."""

    def number(parent: ElementTree.Element, tag: str) -> float:
        return float(parent.findtext(f"n:{tag}", "nan", space))

    points = [(number(edge, "yCoord"), number(edge, "xCoord")) for edge in roi.findall("n:edgeMap", space)]
    return round(number(roi, "imageZposition"), 2), np.array(points)  # slices are not told apart by less


def _lidc_voxels(rois: list[tuple[float, np.ndarray]], shape: tuple[int, int]) -> Voxels:
    masks = {z: filled([p for level, p in rois if level == z], shape, rims=False) for z, _ in rois}
    return frozenset((z, int(row), int(column)) for z in masks for row, column in np.argwhere(masks[z]))


# -------------------------------------------------------------------------------------------- lattice


@dataclass(frozen=True)
class Lattice:
    """The 0.5 mm lattice points of a lesion, in (z, y, x) C order."""

    indices: np.ndarray  # (N, 3) int, (z, y, x)
    points: np.ndarray  # (N, 3) float64, mm

    @property
    def centre(self) -> np.ndarray:
        """The point nearest the points' mean; on a tie the first in (z, y, x) order. In whole numbers."""
        low = self.indices - self.indices.min(axis=0)
        distance2 = ((len(low) * low - low.sum(axis=0)) ** 2).sum(axis=1)
        return self.points[distance2.argmin()]


def lesion_lattice(series: Series, voxels: np.ndarray, spacing: float = 0.5) -> Lattice:
    """Every lattice point whose nearest voxel (any of the tied ones) is in the lesion."""
    anchor, (below, above) = series.origins[0], series.halves
    found: set[tuple[int, int, int]] = set()
    for k in np.flatnonzero(voxels.any(axis=(1, 2))):
        height = series.z[k] - series.z[0]
        low, high = height - below[k] * (1 + 2 * TIE), height + above[k] * (1 + 2 * TIE)
        layers = range(int(np.ceil(low / spacing)), int(np.floor(high / spacing)) + 1)
        rows_columns = _layer(series, voxels[k], series.origins[k] - anchor, spacing)
        found.update((layer, j, i) for layer in layers for j, i in rows_columns)
    indices = np.array(sorted(found))
    return Lattice(indices, anchor + spacing * (indices[:, ::-1] @ np.stack([series.r, series.c, series.n])))


def _layer(series: Series, voxels: np.ndarray, offset: np.ndarray, spacing: float) -> list[tuple[int, int]]:
    """(j, i) of the lattice points over one slice whose nearest pixels are in the lesion."""
    axes = []
    for step, direction, size, axis in (
        (series.row_step, series.c, voxels.shape[0], 1),
        (series.column_step, series.r, voxels.shape[1], 0),
    ):
        used = np.flatnonzero(voxels.any(axis=axis))
        shift = float(offset @ direction)
        low, high = (used[0] - 1) * step + shift, (used[-1] + 1) * step + shift
        index = np.arange(int(np.floor(low / spacing)), int(np.ceil(high / spacing)) + 1)
        pixel = (index * spacing - shift) / step
        axes.append((index, np.floor(pixel + 0.5 - TIE).astype(int), np.floor(pixel + 0.5 + TIE).astype(int), size))
    (j, *rows, height), (i, *columns, width) = axes
    inside = np.zeros((len(j), len(i)), dtype=bool)
    for row in rows:
        for column in columns:
            present = ((row >= 0) & (row < height))[:, None] & ((column >= 0) & (column < width))[None]
            inside |= present & voxels[np.clip(row, 0, height - 1)[:, None], np.clip(column, 0, width - 1)[None]]
    return [(int(j[a]), int(i[b])) for a, b in np.argwhere(inside)]
