"""One lesion in one linear phantom, the real commands run on it, and what came of it.

The phantom's HU is x + 2y + 5z (LPS mm) from `ORIGIN`, so a slice, row or column that is not where it should be shows
in every patch. A case changes what it is about and leaves the rest as it is here.
"""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import synthetic
from pydicom.dataset import Dataset

from ctpatch.build.one_lesion import LesionPlan, plan_lesion
from ctpatch.cli import main
from ctpatch.contours.roi import VoxelROI
from ctpatch.errors import InputError
from ctpatch.manifest import read_manifest
from ctpatch.recipe import Recipe
from ctpatch.store import open_store

SHAPE = (16, 40, 44)
SPACING = (2.0, 1.5)
POSITIONS = 3.0 * np.arange(SHAPE[0])
ORIGIN = (-31.5, 12.75, -405.25)
GRADIENT = np.array([1.0, 2.0, 5.0])
SLICES, ROWS, COLUMNS = range(5, 11), range(13, 27), range(15, 29)
"""The lesion's voxels."""
FAST = ("--patches", "3", "--augment", "1", "--no-rgb")
AXES = np.array([[[1, 0, 0], [0, 1, 0]], [[1, 0, 0], [0, 0, 1]], [[0, 1, 0], [0, 0, 1]]], float)
REFUSAL = re.compile(r"patient=(?P<patient>\S+) row=(?P<row>\d+) (?P<path>.+?): (?P<found>.+)\. Do: (?P<do>.+)\.")


@dataclass(frozen=True)
class Run:
    """What a command returned and printed, progress lines left out."""

    status: int
    out: tuple[str, ...]
    err: tuple[str, ...]

    @property
    def notes(self) -> str:
        return "\n".join(line for line in self.out if line.startswith("note: "))


@dataclass(frozen=True, eq=False)
class Built:
    """A store's train, val and test patches together, in this order, and the notes of build and check."""

    path: Path
    hu: np.ndarray
    plane: np.ndarray
    center: np.ndarray
    angle: np.ndarray
    shift: np.ndarray
    notes: str
    check_notes: str


def hu(
    positions: Any = POSITIONS, origins: Any = None, iop: Sequence[float] = synthetic.AXIAL, **at: Any
) -> np.ndarray:
    """The phantom's HU, (z, y, x)."""
    origin = at.get("origin", ORIGIN)
    if origins is None:
        origins = synthetic.slice_origins(positions, origin, iop, at.get("shear", (0.0, 0.0)))
    points = synthetic.grid(synthetic.axes_of(iop), origins, at.get("spacing", SPACING), at.get("shape", SHAPE)[1:])
    return (points - origin) @ GRADIENT


def series(folder: Path, *, name: str = "ct", **changes: Any) -> synthetic.Series:
    """Write the phantom to `folder/name`; `changes` are arguments of `synthetic.write_series`."""
    places = {"spacing": SPACING, "origin": ORIGIN, "positions": POSITIONS}
    if "origins" in changes:
        places.pop("positions")
    options = {**places, "slope": 1 / 16, **changes}
    shape = options.pop("shape", SHAPE)
    at = {key: options[key] for key in ("positions", "origins", "iop", "spacing", "origin", "shear") if key in options}
    values = options.pop("hu") if "hu" in options else hu(shape=shape, **at)
    if "origins" in options:
        options.pop("origin")
    return synthetic.write_series(folder / name, values, **options)


def box(ct: synthetic.Series, slices: Sequence[int] = SLICES, low=(14.5, 12.5), high=(28.5, 26.5), dz: float = 0.0):
    """Rectangles (column, row) around exactly the lesion's voxels, one per slice."""
    return [synthetic.rectangle(ct, k, low, high, dz) for k in slices]


def contours(folder: Path, ct: synthetic.Series, rois: Any = None, name: str = "rt.dcm", **changes: Any) -> Path:
    """Write an RTSTRUCT with the lesion, or with these ROIs."""
    return synthetic.write_rtstruct(folder / name, {"GTV": box(ct)} if rois is None else rois, ct, **changes)


def case(folder: Path, **changes: Any) -> synthetic.Series:
    """The phantom and its lesion's contours."""
    ct = series(folder, **changes)
    contours(folder, ct)
    return ct


def manifest(folder: Path, *rows: dict[str, str], **cells: str) -> Path:
    """Write `folder/m.csv`: one train row with these cells changed, or several such rows."""
    base = {"patient_id": "P1", "image": "ct", "mask": "rt.dcm", "label": "T3", "split": "train"}
    return synthetic.write_manifest(folder / "m.csv", [base | cells | row for row in rows or ({},)])


def run(*arguments: Any) -> Run:
    """A ctpatch command in this process."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = main([str(argument) for argument in arguments])
    told = [line for line in err.getvalue().splitlines() if not re.fullmatch(r"(build|check): \d+ of \d+", line)]
    return Run(status, tuple(out.getvalue().splitlines()), tuple(told))


def build(folder: Path, *options: str) -> Run:
    return run("build", "--manifest", folder / "m.csv", "--out", folder / "s.h5", *FAST, *options)


def check(folder: Path, *options: str) -> Run:
    return run("check", "--manifest", folder / "m.csv", *FAST[:-1], *options)


def built(folder: Path, *options: str, **cells: str) -> Built:
    """Build and check what must be computed."""
    manifest(folder, **cells)
    result, checked = build(folder, *options), check(folder, *options)
    assert (result.status, result.err) == (0, ())
    assert (checked.status, checked.err) == (0, ())
    return opened(folder / "s.h5", result.notes, checked.notes)


def opened(path: Path, notes: str = "", check_notes: str = "") -> Built:
    """The patches of a store."""
    columns = ("hu", "plane", "center", "angle", "shift")
    with open_store(path) as store:
        pieces = [store.split(name) for name in ("train", "val", "test")]
        arrays = [np.concatenate([getattr(piece, column)[:] for piece in pieces]) for column in columns]
    return Built(path, *arrays, notes, check_notes)


def refused(folder: Path, found: str, do: str = "", path: str = "", **cells: str) -> re.Match[str]:
    """Build and check what must be refused, in the same words: patterns of what was found and what to do."""
    manifest(folder, **cells)
    result, checked = build(folder), check(folder)
    assert result.status == checked.status == 2, (result, checked)
    assert not (folder / "s.h5").exists()
    return one_line(folder, result, checked, found, do, path)


def refused_when_built(folder: Path, **cells: str) -> str:
    """Build what only pixels show to be wrong, which a check does not decode; the refusal."""
    manifest(folder, **cells)
    result = build(folder)
    assert check(folder).status == 0
    assert result.status == 2, result
    assert not (folder / "s.h5").exists()
    assert len(result.err) == 1, result.err
    line = result.err[0].removeprefix("ctpatch: ")
    match = REFUSAL.fullmatch(line)
    assert match, line
    assert match["row"] == "2"
    return line


def one_line(folder: Path, result: Run, checked: Run, found: str, do: str = "", path: str = "") -> re.Match[str]:
    """The single refusal that build printed, once its form and its agreement with check's are asserted."""
    assert len(result.err) == 1, result.err
    line = result.err[0].removeprefix("ctpatch: ")
    assert checked.err == (f"problem: {line}",)
    match = REFUSAL.fullmatch(line)
    assert match, line
    assert match["row"] == "2"
    assert re.search(found, match["found"]), line
    assert re.search(do, match["do"]), line
    assert not path or match["path"] == path, line
    assert str(folder) not in line
    assert "NAME^" not in line
    return match


def assert_told(error: InputError) -> None:
    """A refusal says what was found and what to do, in one printable line."""
    assert error.found
    assert error.do
    assert str(error).isprintable()


def points(store: Built, axes: np.ndarray) -> np.ndarray:
    """LPS of every patch pixel, (N, 64, 64, 3), from what the store records (design, section 3)."""
    u, v = (AXES[store.plane, i] @ axes for i in (0, 1))
    cosine, sine = np.cos(np.radians(store.angle))[:, None], np.sin(np.radians(store.angle))[:, None]
    along, down = cosine * u + sine * v, cosine * v - sine * u
    steps = 0.5 * (np.arange(64) - 32)
    centre = store.center + store.shift[:, :1] * u + store.shift[:, 1:] * v
    return centre[:, None, None] + steps[:, None] * along[:, None, None] + steps[:, None, None] * down[:, None, None]


def assert_linear(store: Built, ct: synthetic.Series, *, tolerance: float = 1.0, origin: Any = ORIGIN) -> None:
    """Every patch pixel that lies between voxel centres has the phantom's HU."""
    where = points(store, ct.axes)
    within = inside(where, ct)
    assert np.count_nonzero(within) > 0.25 * within.size
    error = store.hu - (where - origin) @ GRADIENT
    assert np.abs(error[within]).max() <= tolerance


def inside(where: np.ndarray, ct: Any) -> np.ndarray:
    """Which points lie between the voxel centres of every slice of a series (or of a `SliceStack`)."""
    along = (where - ct.origins[0]) @ ct.axes.T
    ends = (ct.origins - ct.origins[0]) @ ct.axes.T
    reach = np.array([(ct.shape[-1] - 1) * ct.spacing[1], (ct.shape[-2] - 1) * ct.spacing[0]])
    low = np.append(ends[:, :2].max(axis=0), ends[:, 2].min())
    high = np.append(reach + ends[:, :2].min(axis=0), ends[:, 2].max())
    return ((along >= low) & (along <= high)).all(axis=-1)


def plan(folder: Path, **cells: str) -> LesionPlan:
    """What the pipeline makes of the manifest's first row."""
    path = manifest(folder, **cells)
    return plan_lesion(read_manifest(path).rows[0], Recipe(patches=3, augment=1))


def voxels(mask: VoxelROI) -> set[tuple[int, int, int]]:
    """The mask as (slice, row, column)."""
    return {tuple(int(v) for v in at) for at in np.argwhere(mask.voxels) + mask.corner}


def lesion_voxels(slices: Sequence[int] = SLICES, rows: Sequence[int] = ROWS, columns: Sequence[int] = COLUMNS):
    return {(k, row, column) for k in slices for row in rows for column in columns}


def edited(path: Path, change: Callable[[Dataset], None]) -> None:
    """Change a DICOM file in place."""
    dataset = pydicom.dcmread(path)
    change(dataset)
    dataset.save_as(path)


def only(k: int, **elements: Any) -> Callable[[Dataset, int], None]:
    """An edit of slice `k` for `series`: elements by keyword, None to delete; −1 means every slice."""

    def edit(dataset: Dataset, slice_: int) -> None:
        if k not in (slice_, -1):
            return
        for keyword, value in elements.items():
            if value is None:
                delattr(dataset, keyword)
            else:
                setattr(dataset, keyword, value)

    return edit
