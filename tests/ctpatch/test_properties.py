"""What must change nothing changes nothing: the same lesion in other words gives the same patches, byte for byte.

One lesion is written down in one way, and then in drawn other ways: files renamed, reordered and compressed, HU split
differently into slope and intercept, the frame of reference moved, contours begun elsewhere, turned round, cut up, the
ROI renamed, the manifest in another dialect and among other rows. All lengths are multiples of 1/64 mm: sums are exact.
"""

from __future__ import annotations

import csv
import io
import tempfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import synthetic
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset

from ctpatch.build.one_lesion import cut_lesion, plan_lesion
from ctpatch.manifest import read_manifest
from ctpatch.recipe import Recipe

SHAPE, SPACING, POSITIONS = (9, 24, 28), (1.5, 1.25), (0.0, 2.5, 5.0, 7.5, 9.0, 10.5, 12.0, 14.5, 17.0)
ORIGIN = np.array([-20.25, 12.5, -301.75])
HU = 2 * np.random.default_rng(5).integers(-500, 800, SHAPE).astype(float)
HU[:, :2] = -2000  # undeclared padding
OUTER, HOLE = ((5.25, 4.25), (20.75, 17.75)), ((9.25, 8.25), (14.75, 12.75))
SLICES = (2, 3, 4, 5)
RECIPE = Recipe(patches=6, augment=1, rgb=False)
OBLIQUE = (0.0, 0.6, 0.8, 1.0, 0.0, 0.0)


@dataclass(frozen=True)
class Telling:
    """One way of writing the lesion down."""

    shift: tuple[int, int, int] = (0, 0, 0)  # of the frame of reference, in 1/64 mm
    syntax: str = "explicit"
    shuffle: int | None = None
    suffix: str = ".dcm"
    slopes: tuple[float, ...] = (1.0,) * SHAPE[0]
    intercepts: tuple[float, ...] = (-2048.0,) * SHAPE[0]
    signed: bool = False
    bits: int = 16
    hole: str = "nested"  # keyhole, xor
    pieces: tuple[float, ...] = ()  # columns at which the outline is cut into abutting pieces
    starts: tuple[int, ...] = (0,)
    backwards: tuple[bool, ...] = (False,)
    midpoints: bool = False
    repeated: bool = False
    reversed_contours: bool = False
    name: str = "GTV"
    others: tuple[str, ...] = ()  # further ROIs
    company: tuple[str, ...] = ()  # what else lies in the folder
    dialect: tuple[str, str, str] = (",", "\n", "utf-8")
    columns: tuple[int, ...] = tuple(range(8))
    rows: tuple[str, ...] = ()  # other patients, before and after
    label: str = "T3"


def picked(values: Any, size: int) -> st.SearchStrategy[tuple[Any, ...]]:
    return st.lists(values, min_size=size, max_size=size).map(tuple)


tellings = st.builds(
    Telling,
    shift=picked(st.integers(-64 * 500, 64 * 500), 3).map(tuple),
    syntax=st.sampled_from([*synthetic.TRANSFER_SYNTAXES]),
    shuffle=st.none() | st.integers(0, 99),
    suffix=st.sampled_from([".dcm", "", ".IMA", ".1.2.3", " ü.dcm"]),
    slopes=picked(st.sampled_from([0.5, 1.0, 2.0, 0.25]), SHAPE[0]),
    intercepts=picked(st.sampled_from([-2048.0, -2000.0, -2050.0]), SHAPE[0]),
    signed=st.booleans(),
    bits=st.sampled_from([15, 16]),
    hole=st.sampled_from(["nested", "keyhole", "xor"]),
    pieces=st.lists(st.sampled_from([7.25, 8.5, 16.25, 18.75]), unique=True, max_size=2).map(sorted).map(tuple),
    starts=picked(st.integers(0, 30), 12),
    backwards=picked(st.booleans(), 12),
    midpoints=st.booleans(),
    repeated=st.booleans(),
    reversed_contours=st.booleans(),
    name=st.sampled_from(["GTV", "gtv 1", "Läsion", "x" * 60, "a,b;c", "7"]),
    others=st.lists(st.sampled_from(["Body", "Lung L", "zz"]), unique=True).map(tuple),
    company=st.lists(st.sampled_from(["text", "series", "localizer", "copy"]), unique=True).map(tuple),
    dialect=st.tuples(
        st.sampled_from([",", ";", "\t"]), st.sampled_from(["\n", "\r\n"]), st.sampled_from(["utf-8", "utf-8-sig"])
    ),
    columns=st.permutations(range(8)).map(tuple),
    rows=st.lists(st.sampled_from(["A", "B", "Z", "z9"]), unique=True).map(tuple),
    label=st.sampled_from(["T3", "T4", "malignant"]),
)


def written(folder: Path, telling: Telling, iop: Sequence[float]) -> Path:
    """The manifest of a telling, with its files."""
    ct = write_image(folder, telling, iop)
    rois: dict[str, Any] = {name: [synthetic.rectangle(ct, 6, (1, 1), (4, 6))] for name in telling.others}
    rois[telling.name] = [np.asarray(path) for path in contours(ct, telling)]
    kind = "CLOSEDPLANAR_XOR" if telling.hole == "xor" else "CLOSED_PLANAR"
    types = dict.fromkeys(telling.others, "CLOSED_PLANAR") | {telling.name: kind}
    synthetic.write_rtstruct(folder / "rt.dcm", rois, ct, geometric_type=types)
    lesion = {"patient_id": "P1", "image": "ct", "mask": "rt.dcm", "roi": telling.name, "label": telling.label}
    # other patients share the files: read_manifest looks at each lesion's cells, plan_lesion at one lesion's files
    table = [lesion | {"patient_id": name, "roi": f"of {name}"} for name in telling.rows] + [lesion]
    table = [row | {"split": "train", "aux_size": "1", "note": "é"} for row in table]
    return write_table(folder / "m.csv", table, telling)


def write_image(folder: Path, telling: Telling, iop: Sequence[float]) -> synthetic.Series:
    options: dict[str, Any] = {"spacing": SPACING, "positions": POSITIONS, "iop": iop}
    options["origin"] = ORIGIN + np.array(telling.shift) / 64
    ct = synthetic.write_series(
        folder / "ct", HU, **options, slope=np.array(telling.slopes), intercept=np.array(telling.intercepts),
        signed=telling.signed, bits_stored=telling.bits, transfer_syntax=telling.syntax, seed="lesion",
    )  # fmt: skip
    names = (
        np.arange(SHAPE[0]) if telling.shuffle is None else np.random.default_rng(telling.shuffle).permutation(SHAPE[0])
    )
    for path, name in zip(ct.paths, names, strict=True):
        path.rename(path.with_name(f"{name:03d}{telling.suffix}"))
    first = ct.folder / f"{names[0]:03d}{telling.suffix}"
    if "copy" in telling.company:
        (ct.folder / "again").mkdir()
        (ct.folder / "again" / "copy.dcm").write_bytes(first.read_bytes())
    if "text" in telling.company:
        (ct.folder / "README.txt").write_text("what this is")
    if "series" in telling.company:
        synthetic.write_series(ct.folder / "other", HU[:3] + 2048, seed="other")
    if "localizer" in telling.company:

        def scout(dataset: Dataset, k: int) -> None:
            dataset.SOPInstanceUID, dataset.ImageType = synthetic.uid("scout", k), ["ORIGINAL", "PRIMARY", "LOCALIZER"]

        options = {"series_uid": ct.series_uid, "iop": synthetic.CORONAL, "edit": scout}
        synthetic.write_series(ct.folder / "scout", HU[:2] + 2048, seed="scout", **options)
    return ct


def contours(ct: synthetic.Series, telling: Telling) -> list[np.ndarray]:
    """The lesion's closed paths on every slice: a rectangle with a rectangular hole."""
    paths = []
    for k in SLICES:
        outline = corners(*OUTER)
        if telling.hole == "keyhole":
            outline = keyhole(outline, corners(*HOLE))
        elif telling.hole == "nested" and telling.pieces:
            for low, high in strips(telling.pieces):
                paths.append(ct.to_lps(k, corners(low, high)))
            paths.append(ct.to_lps(k, corners(*HOLE)))
            continue
        paths.append(ct.to_lps(k, outline))
        if telling.hole != "keyhole":
            paths.append(ct.to_lps(k, corners(*HOLE)))
    told = [retold(path, i, telling) for i, path in enumerate(paths)]
    told += told[:1] if telling.repeated and telling.hole != "xor" else []
    return told[::-1] if telling.reversed_contours else told


def corners(low: Sequence[float], high: Sequence[float]) -> np.ndarray:
    (a, b), (c, d) = low, high
    return np.array([(a, b), (c, b), (c, d), (a, d)])


def keyhole(outline: np.ndarray, hole: np.ndarray) -> np.ndarray:
    return np.concatenate([outline, outline[:1], hole[:1], hole[1:][::-1], hole[:1]])


def strips(columns: Sequence[float]) -> list[tuple[tuple[float, float], tuple[float, float]]]:
    """Abutting rectangles that make up the outline; none of the cuts goes through the hole or a pixel's centre."""
    (left, top), (right, bottom) = OUTER
    ends = [left, *(column for column in columns if column < HOLE[0][0] or column > HOLE[1][0]), right]
    return [((a, top), (b, bottom)) for a, b in pairwise(ends)]


def retold(path: np.ndarray, number: int, telling: Telling) -> np.ndarray:
    """The same closed path from another start, the other way round, with points on its edges."""
    if telling.midpoints:
        path = np.stack([path, (path + np.roll(path, -1, axis=0)) / 2], axis=1).reshape(-1, 3)
    path = np.roll(path, telling.starts[number % len(telling.starts)], axis=0)
    return path[::-1] if telling.backwards[number % len(telling.backwards)] else path


def write_table(path: Path, rows: Sequence[Mapping[str, str]], telling: Telling) -> Path:
    delimiter, newline, encoding = telling.dialect
    names = [list(rows[0])[i] for i in telling.columns]
    out = io.StringIO()
    table = csv.writer(out, delimiter=delimiter, lineterminator=newline)
    table.writerows([names, *([row[name] for name in names] for row in rows)])
    path.write_bytes(out.getvalue().encode(encoding))
    return path


def patches(telling: Telling, iop: Sequence[float] = synthetic.AXIAL) -> dict[str, np.ndarray]:
    """What the pipeline cuts out, centres as they are relative to the frame's shift."""
    with tempfile.TemporaryDirectory() as folder:
        manifest = read_manifest(written(Path(folder), telling, iop))
        (row,) = (row for row in manifest.rows if row.patient_id == "P1")
        plan = plan_lesion(row, RECIPE)
        lesion, found, _ = cut_lesion(plan, RECIPE)
    assert (lesion.label, lesion.aux) == (telling.label, {"size": 1.0})
    hu = np.frombuffer(b"".join(zlib.decompress(stream) for stream in found.images["hu"]), np.int16)
    center = found.columns["center"] - np.array(telling.shift) / 64
    about = np.array([lesion.diameter_mm, len(plan.image.stack), *plan.mask.corner, *plan.mask.voxels.shape])
    return {**found.columns, "center": center, "hu": hu, "mask": plan.mask.voxels, "about": about}


@pytest.fixture(scope="module")
def plain() -> dict[tuple[float, ...], dict[str, np.ndarray]]:
    return {iop: patches(Telling(), iop) for iop in (synthetic.AXIAL, OBLIQUE)}


@settings(
    max_examples=settings.default.max_examples // 2,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(telling=tellings, oblique=st.booleans())
def test_the_same_lesion_in_other_words_gives_the_same_bytes(plain: Any, telling: Telling, oblique: bool) -> None:
    iop = OBLIQUE if oblique else synthetic.AXIAL
    found, expected = patches(telling, iop), plain[iop]
    for name, values in expected.items():
        if oblique and name in ("center", "hu"):  # sums with 0.6 and 0.8 are rounded, and so are ties of HU
            np.testing.assert_allclose(found[name], values, rtol=0, atol=1 if name == "hu" else 1e-9)
        else:
            np.testing.assert_array_equal(found[name], values, err_msg=name)


CHANGES = [
    ("HU", HU + 2 * (np.arange(SHAPE[0]) == 4)[:, None, None]),
    ("HOLE", (HOLE[0], (15.25, 12.75))),
    ("POSITIONS", (*POSITIONS[:5], 10.25, *POSITIONS[6:])),
    ("SLICES", (2, 3, 4)),
]


@pytest.mark.parametrize(("name", "value"), CHANGES, ids=[name for name, _ in CHANGES])
def test_another_lesion_gives_others(plain: Any, monkeypatch: pytest.MonkeyPatch, name: str, value: Any) -> None:
    monkeypatch.setitem(globals(), name, value)
    assert not np.array_equal(patches(Telling())["hu"], plain[synthetic.AXIAL]["hu"])
