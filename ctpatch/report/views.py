"""The CT around a lesion as a person looks at it: three planes through its centre, and the whole slice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..geometry import Floats, SliceStack
from ..images.image import Image
from ..lesion.lattice import LesionLattice
from ..patches.planes import AXES, unmoved_planes
from ..patches.sample import sample_planes
from ..recipe import SIZE
from .pictures import data_uri, halved, outline, widest, windowed

TILES = 3
"""Patches along each side of a view: views are cut like patches, by the same code."""
VIEW = TILES * SIZE
"""Rows and columns of a view."""
MARGIN = 0.6
"""Largest share of a view's side that a lesion takes."""
CROSS = f"M{VIEW // 2 - 8} {VIEW // 2}h16m-8 -8v16"
"""Where the centre is, in a view of a lesion that has no outline."""
_DIRECTIONS = np.array([["R", "L"], ["A", "P"], ["F", "H"]])
_SLICES = ("sagittal", "coronal", "axial")


@dataclass(frozen=True, eq=False)
class Cut:
    """HU of a plane and what of it is lesion, (VIEW, VIEW) each; its name and edges as in `View`."""

    name: str
    hu: NDArray[np.int16]
    inside: NDArray[np.bool_]
    edges: tuple[str, str, str, str]


@dataclass(frozen=True)
class View:
    """A plane through the lesion, in each window.

    Attributes
    ----------
    name : str
        As the patches' plane is called, and as radiologists call the nearest of theirs.
    picture : str
        Data URI; the windows stand side by side, `VIEW` pixels each.
    path : str
        SVG path in the first of them: the lesion's outline, or a cross at a marked centre.
    edges : (str, str, str, str)
        What lies at the left, right, top and bottom: R, L, A, P, H or F.
    millimetres : float
        Width of one window's picture.
    """

    name: str
    picture: str
    path: str
    edges: tuple[str, str, str, str]
    millimetres: float


@dataclass(frozen=True)
class Views:
    """All views of a lesion.

    Attributes
    ----------
    planes : tuple of View
        xy, xz, yz.
    whole : View
        The whole slice in the widest window.
    thumbnail, thumbnail_path : str
        The lesion in the xy plane, `VIEW` / 2 pixels wide.
    """

    planes: tuple[View, ...]
    whole: View
    thumbnail: str
    thumbnail_path: str


def draw_views(
    image: Image, lattice: LesionLattice | None, centre: Floats, spacing: float, windows: Sequence[Sequence[int]]
) -> Views:
    """Views through `centre` (stack coordinates, mm), pixels a multiple of `spacing` apart."""
    step = spacing * _reduction(lattice)
    planes = [_cut(image, lattice, centre, k, step) for k in range(3)]
    middle, whole_step = _whole_slice(image.stack, centre)
    whole = _cut(image, lattice, middle, 0, whole_step)
    return Views(
        tuple(_view(plane, windows, step, "" if lattice else CROSS) for plane in planes),
        _view(whole, [widest(windows)], whole_step),
        *_thumbnail(planes[0], widest(windows), close=step == spacing),
    )


def _reduction(lattice: LesionLattice | None) -> int:
    """How many lattice steps a pixel is wide, so that the whole lesion and some of what is around it is seen."""
    extent = max(lattice.inside.shape) if lattice else 0
    return max(1, int(np.ceil(extent / (MARGIN * VIEW))))


def _whole_slice(stack: SliceStack, centre: Floats) -> tuple[Floats, float]:
    """Middle of the slice nearest to `centre`, at the centre's own height, and the step at which it fills a view."""
    k = int(np.abs(stack.positions - centre[2]).argmin())
    size = np.array(stack.shape[::-1]) * stack.spacing[::-1]
    middle = stack.offsets[k, :2] + (size - stack.spacing[::-1]) / 2
    return np.array([*middle, centre[2]]), float(size.max()) / VIEW


def _cut(image: Image, lattice: LesionLattice | None, centre: Floats, plane: int, step: float) -> Cut:
    """A cut with `centre` in its middle, turned as radiologists look at it."""
    u, v = AXES[plane]
    places = (np.arange(TILES) - TILES // 2) * SIZE * step
    points = centre + places[:, None, None] * v + places[None, :, None] * u
    tiles = unmoved_planes(points.reshape(-1, 3), plane)
    hu = _joined(sample_planes(image, tiles, step)[0])
    inside = np.zeros(hu.shape, np.bool_)
    if lattice is not None:
        start, column, row = (part[:, None, None] for part in tiles.pixels(step))
        a, b = np.indices((SIZE, SIZE))[..., None]
        inside = _joined(in_lesion(lattice, start + b * column + a * row))
    return _turned(hu, inside, plane, image.stack)


def in_lesion(lattice: LesionLattice, points: Floats) -> NDArray[np.bool_]:
    """Whether the lattice point nearest to each of `points` (..., 3; stack coordinates, mm) is in the lesion."""
    index = np.rint(points[..., ::-1] / lattice.spacing).astype(np.int64) - lattice.corner
    near = ((index >= 0) & (index < lattice.inside.shape)).all(axis=-1)
    found = np.zeros(near.shape, np.bool_)
    found[near] = lattice.inside[tuple(index[near].T)]
    return found


def _joined(tiles: NDArray[Any]) -> NDArray[Any]:
    """Tiles (TILES², SIZE, SIZE) by rows as one picture."""
    return tiles.reshape(TILES, TILES, SIZE, SIZE).swapaxes(1, 2).reshape(VIEW, VIEW)


def _turned(hu: NDArray[np.int16], inside: NDArray[np.bool_], plane: int, stack: SliceStack) -> Cut:
    """The patient's right side or front at the left, head or front at the top, where these are in the plane."""
    u, v = AXES[plane] @ stack.axes
    (left, right), (top, bottom) = ends(u), ends(v)
    name = f"{('xy', 'xz', 'yz')[plane]}, {_SLICES[int(np.abs(np.cross(u, v)).argmax())]}"
    if top in "FP":
        hu, inside, top, bottom = hu[::-1], inside[::-1], bottom, top
    if left in "LP":
        hu, inside, left, right = hu[:, ::-1], inside[:, ::-1], right, left
    return Cut(name, hu, inside, (left, right, top, bottom))


def _view(cut: Cut, windows: Sequence[Sequence[int]], step: float, mark: str = "") -> View:
    picture = np.concatenate([windowed(cut.hu, window) for window in windows], axis=1)
    return View(cut.name, data_uri(picture), mark or outline(cut.inside), cut.edges, step * VIEW)


def _thumbnail(cut: Cut, window: Sequence[int], *, close: bool) -> tuple[str, str]:
    """Picture and outline: the middle of the cut, or for a large lesion all of it at half the size."""
    middle = slice(VIEW // 4, -VIEW // 4)
    if close:
        return data_uri(windowed(cut.hu[middle, middle], window)), outline(cut.inside[middle, middle])
    return data_uri(halved(windowed(cut.hu, window))), outline(cut.inside[::2, ::2])


def ends(direction: Floats) -> tuple[str, str]:
    """Which sides of the patient lie at the beginning and at the end of a direction (LPS), roughly."""
    axis = int(np.abs(direction).argmax())
    start, stop = _DIRECTIONS[axis][:: 1 if direction[axis] > 0 else -1]
    return str(start), str(stop)
