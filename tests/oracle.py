"""An independent reading of the contract: slow, plain, and sharing no line with ctpatch.

Everything here is written from the design alone with numpy, scipy, pydicom and SimpleITK. Coordinates are
DICOM LPS in mm, arrays (z, y, x), intensities HU, as in the package; nothing of the package is imported.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache, cached_property
from pathlib import Path

import numpy as np
import pydicom
import SimpleITK as sitk
from pydicom.dataset import Dataset
from scipy.ndimage import map_coordinates

AIR = -1024.0
SIZE = 64
TIE = 1e-6  # px: what lies within it of an edge lies on it
WINDOWS = ((-800, -200), (-200, 400), (-1000, 400))


# --------------------------------------------------------------------------------------------- series


@dataclass(frozen=True)
class Series:
    """CT slices in order along n, each with its own ImagePositionPatient."""

    hu: np.ndarray  # (K, rows, columns) float64
    origins: np.ndarray  # (K, 3) centre of each slice's first pixel, mm
    r: np.ndarray  # direction of increasing column index
    c: np.ndarray  # direction of increasing row index
    column_step: float  # mm between columns, along r
    row_step: float  # mm between rows, along c

    @cached_property
    def n(self) -> np.ndarray:
        return np.cross(self.r, self.c)

    @cached_property
    def z(self) -> np.ndarray:
        """(K,) positions of the slices along n, mm."""
        return self.origins @ self.n

    @cached_property
    def halves(self) -> tuple[np.ndarray, np.ndarray]:
        """How far each slice reaches in mm (below, above)."""
        return reaches(self.z)

    def project(self, k: int, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(row, column) of the points' orthogonal projections in slice k, in pixels."""
        offset = points - self.origins[k]
        return offset @ self.c / self.row_step, offset @ self.r / self.column_step


def reaches(z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How far slices at increasing `z` reach (below, above): half the spacing, at the ends the end spacing's.

    A step over 1.5 times each one beside it is a gap: from either side it is reached into by half the step there, from
    an end by half the only step beside it.
    """
    steps = np.diff(z).tolist()
    up, down = list(steps), list(steps)
    for i, step in enumerate(steps):
        beside = [steps[j] for j in (i - 1, i + 1) if 0 <= j < len(steps)]
        if beside and step > 1.5 * max(beside) + 0.01:
            up[i], down[i] = beside[0], beside[-1]
    return np.array([up[0], *down]) / 2, np.array([*up, down[-1]]) / 2


def nearest_slices(z: np.ndarray, at: float, tie: float) -> set[int]:
    """The nearest slices to a position, ties within `tie` of the local spacing; none that does not reach so far."""
    away = np.abs(z - at)
    steps = np.diff(z)
    spacing = float(steps[np.clip(np.searchsorted(z, at, side="right") - 1, 0, len(steps) - 1)])
    below, above = reaches(z)
    near = int(away.argmin())
    if away[near] > (above if at > z[near] else below)[near] + tie * spacing:
        return set()
    return set(np.flatnonzero(away <= away.min() + 2 * tie * spacing).tolist())


def read_series(folder: Path, series_uid: str | None = None) -> Series:
    """Every CT slice of a folder (classic or Enhanced multi-frame), rescaled slice by slice in float64."""
    files = sorted(path for path in Path(folder).rglob("*") if path.is_file())
    datasets = [ds for ds in (pydicom.dcmread(path, force=True) for path in files) if ds.get("Modality") == "CT"]
    datasets = [ds for ds in datasets if series_uid in (None, ds.SeriesInstanceUID)]
    assert len({ds.SeriesInstanceUID for ds in datasets}) == 1, "name the series"
    frames = [frame for ds in datasets for frame in _frames(ds)]
    iop = np.array(frames[0][0], dtype=np.float64)
    r, c = iop[:3] / np.linalg.norm(iop[:3]), iop[3:] / np.linalg.norm(iop[3:])
    origins = np.array([ipp for _, ipp, _, _ in frames], dtype=np.float64)
    order = np.argsort(origins @ np.cross(r, c))
    row_step, column_step = (float(step) for step in frames[0][2])
    hu = np.stack([frames[i][3] for i in order])
    return Series(hu, origins[order], r, c, column_step, row_step)


def _frames(ds: Dataset) -> list[tuple]:
    """(IOP, IPP, PixelSpacing, HU) of every frame of one file."""
    if "NumberOfFrames" not in ds:
        slope, intercept = float(ds.RescaleSlope), float(ds.RescaleIntercept)
        hu = _hounsfield(ds, ds.pixel_array, slope, intercept)
        return [(ds.ImageOrientationPatient, ds.ImagePositionPatient, ds.PixelSpacing, hu)]
    pixels = ds.pixel_array.reshape(-1, ds.Rows, ds.Columns)
    return [_enhanced_frame(ds, i, pixels[i]) for i in range(int(ds.NumberOfFrames))]


def _enhanced_frame(ds: Dataset, index: int, stored: np.ndarray) -> tuple:
    own, shared = ds.PerFrameFunctionalGroupsSequence[index], ds.SharedFunctionalGroupsSequence[0]

    def item(name: str) -> Dataset:
        return (own if name in own else shared)[name][0]

    rescale = item("PixelValueTransformationSequence")
    hu = _hounsfield(ds, stored, float(rescale.RescaleSlope), float(rescale.RescaleIntercept))
    orientation = item("PlaneOrientationSequence").ImageOrientationPatient
    position = item("PlanePositionSequence").ImagePositionPatient
    return orientation, position, item("PixelMeasuresSequence").PixelSpacing, hu


def _hounsfield(ds: Dataset, stored: np.ndarray, slope: float, intercept: float) -> np.ndarray:
    hu = stored.astype(np.float64) * slope + intercept
    padding = ds.get("PixelPaddingValue")
    if padding is not None:
        limit = ds.get("PixelPaddingRangeLimit", padding)
        low, high = sorted(_as_stored(value, ds) for value in (padding, limit))
        hu[(stored >= low) & (stored <= high)] = AIR
    return np.maximum(hu, AIR)


def _as_stored(value: int, ds: Dataset) -> int:
    """A padding value in the sign of the pixels: many writers give −2000 as the unsigned 63536."""
    value = int(value)
    if ds.PixelRepresentation == 1 and value >= 1 << (ds.BitsAllocated - 1):
        return value - (1 << ds.BitsAllocated)
    if ds.PixelRepresentation == 0 and value < 0:
        return value + (1 << ds.BitsAllocated)
    return value


# ---------------------------------------------------------------------------------- value at a point


def values_at(series: Series, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """HU at points (M, 3) by the slice-by-slice formula, and which points lie on an edge of the image.

    Within 1e-6 px of the image's edge (or of a slice that only one side of it needs), inside and outside
    are a matter of rounding: such a point counts as inside, and is marked so that a caller may know.
    """
    z, q, last = series.z, points @ series.n, len(series.hu) - 1
    below = np.clip(np.searchsorted(z, q, side="right") - 1, 0, last - 1)
    weight = np.clip((q - z[below]) / (z[below + 1] - z[below]), 0.0, 1.0)
    reach = np.maximum((z[0] - q) / (z[1] - z[0]), (q - z[-1]) / (z[-1] - z[-2])) - 0.5
    value, outside, edge = np.zeros(len(q)), reach > TIE, np.abs(reach) <= TIE
    for k in range(below.min(), below.max() + 2):
        share = np.where(below == k, 1 - weight, np.where(below + 1 == k, weight, 0.0))
        used = np.flatnonzero(share > 0)
        row, column = series.project(k, points[used])
        inner, excess = _clamp(series.hu[k].shape, row, column)
        value[used] += share[used] * map_coordinates(series.hu[k], inner, order=1, mode="nearest")
        outside[used] |= (excess > TIE) & (share[used] > TIE)
        edge[used] |= (np.abs(excess) <= TIE) | ((excess > TIE) & (share[used] <= TIE))
    return np.where(outside, AIR, value), edge


def _clamp(shape: tuple[int, ...], row: np.ndarray, column: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates clamped to the pixel centres, and how far (px) each lies beyond the outer pixels' edges."""
    coords = np.stack([row, column])
    top = np.array(shape)[:, None] - 1.0
    clamped = np.clip(coords, 0.0, top)
    return clamped, np.abs(coords - clamped).max(axis=0) - 0.5


# ------------------------------------------------------------------------------------------ SimpleITK


def itk_image(series: Series) -> sitk.Image:
    """The series as one float32 image; only a regular right-angled stack can be said so."""
    steps = np.diff(series.origins, axis=0)
    step = (series.origins[-1] - series.origins[0]) / (len(steps))
    assert np.allclose(steps, step, atol=1e-3), "not regular"
    assert np.allclose(np.cross(step, series.n), 0, atol=1e-3), "not right-angled"
    image = sitk.GetImageFromArray(series.hu.astype(np.float32))
    image.SetOrigin(series.origins[0])
    image.SetSpacing((series.column_step, series.row_step, float(np.linalg.norm(step))))
    image.SetDirection(np.stack([series.r, series.c, series.n], axis=1).ravel())
    return image


def itk_patch(image: sitk.Image, plane: Plane) -> np.ndarray:
    """(64, 64) float32 of the plane, by SimpleITK's own linear resampling."""
    grid = sitk.Image(SIZE, SIZE, 1, sitk.sitkFloat32)
    grid.SetOrigin(plane.first_pixel)
    grid.SetSpacing((plane.spacing,) * 3)
    grid.SetDirection(np.stack([plane.u, plane.v, np.cross(plane.u, plane.v)], axis=1).ravel())
    patch = sitk.Resample(image, grid, sitk.Transform(), sitk.sitkLinear, AIR, sitk.sitkFloat32)
    return sitk.GetArrayFromImage(patch)[0]


# --------------------------------------------------------------------------------------------- planes


@dataclass(frozen=True)
class Plane:
    """Where one patch is taken, and what the store says of it."""

    kind: int  # 0 xy, 1 xz, 2 yz
    copy: int
    center: np.ndarray  # p, mm
    angle: float  # degrees
    shift: np.ndarray  # (2,) mm along the unrotated u, v
    middle: np.ndarray  # p + t_u·u + t_v·v
    u: np.ndarray  # rotated
    v: np.ndarray
    spacing: float = 0.5

    @property
    def first_pixel(self) -> np.ndarray:
        return self.middle - self.spacing * (SIZE // 2) * (self.u + self.v)

    @property
    def points(self) -> np.ndarray:
        """(64·64, 3) pixel centres in (row, column) order."""
        a, b = (axis.ravel()[:, None] for axis in np.indices((SIZE, SIZE)))
        return self.middle + self.spacing * ((b - 32) * self.u + (a - 32) * self.v)


def make_plane(
    series: Series,
    kind: int,
    p: np.ndarray,
    spacing: float = 0.5,
    copy: int = 0,
    angle: float = 0.0,
    shift: Sequence[float] = (0.0, 0.0),
) -> Plane:
    u = (series.r, series.r, series.c)[kind]
    v = (series.c, series.n, series.n)[kind]
    cos, sin = np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))
    middle = p + shift[0] * u + shift[1] * v
    return Plane(kind, copy, p, angle, np.array(shift), middle, cos * u + sin * v, cos * v - sin * u, spacing)


def generator(seed: int, patient_id: str, lesion_id: str) -> np.random.Generator:
    digest = hashlib.sha256(b"\0".join(part.encode() for part in ("ctpatch-1", str(seed), patient_id, lesion_id)))
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest.digest()[:16], "big")))


def train_planes(
    series: Series,
    points: np.ndarray,
    rng: np.random.Generator,
    *,
    patches: int = 100,
    augment: int = 2,
    rotate: float = 180.0,
    shift: float = 5.0,
    spacing: float = 0.5,
) -> list[Plane]:
    """Patch by patch, the original before its moved copies."""
    chosen = rng.integers(0, len(points), patches)
    angles = rng.uniform(-rotate, rotate, (patches, augment))
    shifts = rng.uniform(-shift, shift, (patches, augment, 2))
    planes = []
    for i, p in enumerate(points[chosen]):
        planes.append(make_plane(series, i % 3, p, spacing))
        planes += [make_plane(series, i % 3, p, spacing, g + 1, angles[i, g], shifts[i, g]) for g in range(augment)]
    return planes


def patches(series: Series, planes: Sequence[Plane]) -> tuple[np.ndarray, np.ndarray]:
    """(N, 64, 64) float HU, and which pixels lie on the image's edge."""
    some = [planes[i : i + 10] for i in range(0, len(planes), 10)]  # what they take stays in the processor's cache
    parts = [values_at(series, np.concatenate([plane.points for plane in each])) for each in some]
    shape = (len(planes), SIZE, SIZE)
    return tuple(np.concatenate(part).reshape(shape) for part in zip(*parts, strict=True))


# ------------------------------------------------------------------------------------------ rendering


@cache
def _weights(target: int = 224) -> np.ndarray:
    """(224, 64) int64: fourteenths of the bilinear weights, half-pixel centres, edges clamped."""
    matrix = np.zeros((target, SIZE), dtype=np.int64)
    for i in range(target):
        source = min(max(Fraction(2 * i + 1, 2) * Fraction(SIZE, target) - Fraction(1, 2), 0), Fraction(SIZE - 1))
        low = int(source)
        upper = (source - low) * 14
        assert upper.denominator == 1, "not a fourteenth"
        matrix[i, low] += 14 - int(upper)
        matrix[i, min(low + 1, SIZE - 1)] += int(upper)
    assert (matrix.sum(axis=1) == 14).all()
    return matrix


def _scaled(hu: np.ndarray) -> list[tuple[np.ndarray, int]]:
    """(numerator, denominator) of each window's level plus one half, (224, 224) int64 over int, before the floor."""
    weights = _weights().astype(np.float64)  # matrix products of whole numbers far below 2**53 are exact
    x = (weights @ hu.astype(np.float64) @ weights.T).astype(np.int64)  # 196 · upsampled HU
    spans = [(196 * low, 196 * (high - low)) for low, high in WINDOWS]
    return [(510 * np.clip(x - low, 0, width) + width, 2 * width) for low, width in spans]


def render(hu: np.ndarray) -> np.ndarray:
    """(64, 64) int HU to (224, 224, 3) uint8, in whole numbers only."""
    return np.stack([over // under for over, under in _scaled(hu)], axis=-1).astype(np.uint8)


def tie_distance(hu: np.ndarray, where: np.ndarray) -> np.ndarray:
    """(M,) float: how far (levels) the exact level lies from halfway between two; exactly 0 at ties.

    Parameters
    ----------
    where
        (224, 224, 3) bool: the M places asked for, channel by channel.
    """
    parts = []
    for channel, (over, under) in enumerate(_scaled(hu)):
        rest = over[where[..., channel]] % under
        parts.append(np.minimum(rest, under - rest) / under)
    return np.concatenate(parts)
