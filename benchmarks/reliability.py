"""The corpus of awkward inputs through ctpatch, SimpleITK and rt-utils, into the tables of docs/reliability.md.

    pip install -e '.[train,dev,bench]'
    python benchmarks/reliability.py [PATH ...]

Runs the corpus as `tests/tally.py` does. At the end of every `ctpatch build` of one row with a DICOM folder, the same
folder goes to the peers, in the same process: SimpleITK reads the series (sections A, B and the valid series), rt-utils
the contours (A, C and the valid series). Where a test builds several times, the last build counts. See
docs/reliability.md for how an outcome is judged.
"""

from __future__ import annotations

import argparse
import csv
import importlib.metadata
import json
import platform
import re
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.dataset import Dataset
from scipy.ndimage import binary_dilation, binary_erosion, map_coordinates

ROOT = Path(__file__).resolve().parents[1]
sys.path[:1] = [str(ROOT), str(ROOT / "tests")]  # the packages before the folders of tests named like them

import awkward  # noqa: E402
import rt_utils  # noqa: E402
import SimpleITK as sitk  # noqa: E402
import tally  # noqa: E402

import ctpatch.cli  # noqa: E402
from ctpatch.build.one_lesion import plan_lesion  # noqa: E402
from ctpatch.manifest import read_manifest  # noqa: E402
from ctpatch.manifest.rows import Row  # noqa: E402
from ctpatch.processes import OwnProcess, WorkerDied  # noqa: E402
from ctpatch.recipe import Recipe  # noqa: E402

DOC = ROOT / "docs" / "reliability.md"
OUTCOMES = ("right", "refused", "silent", "wrong", "crashed")
ALONE = OwnProcess(quiet=True)
"""SimpleITK's process: a stream that ends its decoder must not end this one."""
TOLERANCE_HU = 1.0
JUDGED = {"SimpleITK": ("A", "B", "valid"), "rt-utils": ("A", "C", "valid")}
RING = np.ones((1, 3, 3), bool)
"""A mask may differ from the true one in the voxels at its rim, in the slice."""


# ------------------------------------------------------------------------------------------ the peers


@dataclass(frozen=True)
class Truth:
    """What ctpatch computed and the corpus' assertions verify: patches with their places, the mask on its slices."""

    store: awkward.Built
    stack: Any
    mask: np.ndarray | None
    sop_uids: tuple[str, ...]


def truth_of(row: Row, path: Path) -> Truth:
    plan = plan_lesion(row, Recipe(patches=3, augment=1))
    stack = plan.image.stack
    mask = None
    if plan.mask is not None:
        mask = np.zeros((len(stack), *stack.shape), bool)
        inner = tuple(slice(c, c + n) for c, n in zip(plan.mask.corner, plan.mask.voxels.shape, strict=True))
        mask[inner] = plan.mask.voxels
    return Truth(awkward.opened(path), stack, mask, plan.image.sop_uids)


def load(folder: str, series: str) -> sitk.Image:
    """ImageSeriesReader over the names GDCM finds, as in SimpleITK's own example."""
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames([folder] if Path(folder).is_file() else reader.GetGDCMSeriesFileNames(folder, series))
    return reader.Execute()


def simpleitk(row: Row, truth: Truth | None) -> str:
    """Whether it gives the same voxels."""
    from benchmarks.reliability import load  # by a name that its process can import

    try:
        image = ALONE(load, str(row.image), row.series_uid or "")
    except RuntimeError:
        return "refused"
    except WorkerDied:
        return "crashed"
    if truth is None:
        return "silent"
    return "right" if agrees(image, truth) else "wrong"


def agrees(image: sitk.Image, truth: Truth) -> bool:
    """Whether the image has the store's HU wherever a patch pixel lies between the voxel centres."""
    if image.GetDimension() != 3 or image.GetNumberOfComponentsPerPixel() != 1:
        return False
    where = awkward.points(truth.store, truth.stack.axes)
    within = awkward.inside(where, truth.stack)
    steps = np.array(image.GetDirection()).reshape(3, 3) * image.GetSpacing()
    index = np.linalg.solve(steps, (where[within] - image.GetOrigin()).T)
    values = np.clip(sitk.GetArrayFromImage(image).astype(np.float64), -1024, 32767)
    if not ((index > -1e-3) & (index < np.array(image.GetSize())[:, None] - 1 + 1e-3)).all():
        return False
    sampled = map_coordinates(values, index[::-1], order=1, mode="nearest")
    return bool(np.abs(sampled - truth.store.hu[within]).max() <= TOLERANCE_HU)


def rt_utils_mask(row: Row, truth: Truth | None) -> str:
    """RTStructBuilder.create_from and get_roi_mask_by_name."""
    try:
        loaded = rt_utils.RTStructBuilder.create_from(dicom_series_path=str(row.image), rt_struct_path=str(row.mask))
        mask = loaded.get_roi_mask_by_name(roi_name(loaded, row.roi))
    except Exception:  # it raises what its libraries raise
        return "refused"
    if truth is None or truth.mask is None:
        return "silent"
    uids = [slice_.SOPInstanceUID for slice_ in loaded.series_data]
    return "right" if same_voxels(mask, uids, truth) else "wrong"


@contextmanager
def spacings_swapped_back() -> Iterator[None]:
    """rt-utils takes the spacing between rows for that between columns: wherever pixels are not square, it is wrong.

    Mended in memory, what else happens can be seen.
    """
    module = rt_utils.image_helper
    original = module.get_patient_to_pixel_transformation_matrix

    def mended(series: Sequence[Dataset]) -> np.ndarray:
        first = Dataset(series[0])
        first.PixelSpacing = list(series[0].PixelSpacing)[::-1]
        return original([first, *series[1:]])

    module.get_patient_to_pixel_transformation_matrix = mended
    try:
        yield
    finally:
        module.get_patient_to_pixel_transformation_matrix = original


def roi_name(loaded: Any, roi: str) -> str:
    """The name meant: rt-utils knows no numbers; without a choice, the first ROI that has contours."""
    names = loaded.get_roi_names()
    if roi.isdecimal() and 1 <= int(roi) <= len(names):
        return str(names[int(roi) - 1])
    drawn = [n for n, item in zip(names, loaded.ds.ROIContourSequence, strict=False) if "ContourSequence" in item]
    return roi or str((drawn or names)[0])


def same_voxels(mask: np.ndarray, uids: Sequence[str], truth: Truth) -> bool:
    """Whether the mask is the true one but for voxels at its rim; slices by SOPInstanceUID."""
    assert truth.mask is not None
    if sorted(uids) != sorted(truth.sop_uids):
        return False
    rows, columns = truth.stack.shape
    got = np.zeros((len(uids), *mask.shape[:2]), bool)
    for k, uid in enumerate(uids):
        got[truth.sop_uids.index(uid)] = mask[:, :, k]
    whole = np.zeros_like(truth.mask)
    part = got[:, :rows, :columns]
    whole[:, : part.shape[1], : part.shape[2]] = part
    return bool(
        (binary_erosion(truth.mask, RING) <= whole).all() and (whole <= binary_dilation(truth.mask, RING)).all()
    )


# -------------------------------------------------------------------------------------- beside the corpus


class Beside(tally.Tally):
    """The tally's plugin, which also hands each prepared folder to the peers."""

    def __init__(self, path: Path, limit: float, done: Sequence[str] = ()) -> None:
        super().__init__(path, limit, done)
        self.found: dict[str, str] = {}
        self.name = ""

    def pytest_configure(self) -> None:
        super().pytest_configure()
        awkward.main = ctpatch.cli.main  # imported above, before it was watched

    def saw(self, words: tuple[str, ...], status: int | None) -> None:
        super().saw(words, status)
        section = section_of(self.name)
        if status is None or words[:1] != ("build",) or section not in ("A", "B", "C", "valid"):
            return
        options = dict(pairwise(words))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.found = self.judge(Path(options["--manifest"]), Path(options["--out"]), status, section)

    def judge(self, manifest: Path, out: Path, status: int, section: str) -> dict[str, str]:
        rows = one_row(manifest)
        if not rows:
            return {}
        truth = truth_of(rows[0], out) if status == 0 else None
        found = {}
        if section in JUDGED["SimpleITK"]:
            found["SimpleITK"] = simpleitk(rows[0], truth)
        if section in JUDGED["rt-utils"] and rows[0].mask and (truth is None or truth.mask is not None):
            found["rt-utils"] = rt_utils_mask(rows[0], truth)
            with spacings_swapped_back():
                found["mended"] = rt_utils_mask(rows[0], truth)
        return found

    def write(self, record: dict[str, Any]) -> None:
        if "start" in record:
            self.found, self.name = {}, record["name"]
        super().write(record | ({"peers": self.found} if "item" in record else {}))


def one_row(manifest: Path) -> list[Row]:
    """The row of a manifest with one row whose image is a DICOM folder or file."""
    try:
        rows = list(read_manifest(manifest).rows)
    except Exception:  # a manifest that ctpatch refuses says nothing to the peers
        return []
    dicom = [row for row in rows if row.image.is_dir() or row.image.suffix == ".dcm"]
    pipes = [path for row in rows for path in row.image.rglob("*") if path.is_fifo()]  # both peers would wait for ever
    return rows if len(rows) == len(dicom) == 1 and not pipes else []


def section_of(name: str) -> str:
    cases = tally.cases_of(name)
    return tally.section_of(cases[0])[0] if cases else "valid" if name.startswith("test_valid_") else ""


# ------------------------------------------------------------------------------------------ the tables

Records = Sequence[dict[str, Any]]
_HEAD = "| ctpatch right | SimpleITK | rt-utils | rt-utils, mended |"


def counts(records: Records, peer: str) -> str:
    """`right 3, silent 1`, or a dash where the peer was not asked."""
    count = Counter(record["peers"][peer] for record in records if peer in record["peers"])
    return ", ".join(f"{name} {count[name]}" for name in OUTCOMES if count[name]) or "–"


def ours(records: Records) -> str:
    right = sum(record["kind"] == "right" for record in records)
    return f"{right}/{len(records)}" if records else "–"


def line(title: str, records: Records) -> str:
    cells = [ours(records), *(counts(records, peer) for peer in ("SimpleITK", "rt-utils", "mended"))]
    return f"| {title} | " + " | ".join(cells) + " |"


def by_section(records: Records) -> list[str]:
    lines = [f"| section {_HEAD}", "|---|---|---|---|---|"]
    for name in tally.SECTIONS:
        lines.append(line(name, [r for r in records if section_of(r["name"]) == name[0]]))
    lines.append(line("valid series", [r for r in records if section_of(r["name"]) == "valid"]))
    return lines


def by_case(records: Records) -> list[str]:
    lines = [f"| case | what {_HEAD}", "|---|---|---|---|---|---|"]
    with (ROOT / "tests" / "cases.csv").open(encoding="utf-8", newline="") as file:
        titles = {int(row["case"]): row["what"] for row in csv.DictReader(file)}
    for case, what in titles.items():
        lines.append(line(f"{case} | {what}", [r for r in records if case in tally.cases_of(r["name"])]))
    return lines


def read(path: Path) -> list[dict[str, Any]]:
    """The items' records in a file of JSON lines."""
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    return [record for record in map(json.loads, text.splitlines()) if "item" in record]


def versions() -> list[str]:
    names = ("ctpatch", "SimpleITK", "rt-utils", "pydicom", "numpy", "h5py")
    found = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in names)
    return [f"{date.today().isoformat()}, Python {platform.python_version()}, {found}."]


def fill(text: str, parts: dict[str, list[str]]) -> str:
    """`text` with what stands between each pair of markers replaced."""
    for name, lines in parts.items():
        marked = rf"(<!-- {name} -->\n).*?(<!-- end of {name} -->)"
        put: Callable[[re.Match[str]], str] = lambda match, lines=lines: "\n".join([match[1], *lines, "", match[2]])
        text, found = re.subn(marked, put, text, flags=re.DOTALL)
        assert found == 1, name
    return text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", nargs="*", default=[str(ROOT / "tests")])
    parser.add_argument("--limit", type=float, default=tally.LIMIT_S, metavar="S", help="seconds for one item")
    parser.add_argument("--records", type=Path, help="outcomes as lines of JSON; those in it are kept")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = arguments.records or Path(folder, "items.jsonl")
        options = ["-q", "--tb=short", "-p", "no:cacheprovider", "-c", str(ROOT / "pyproject.toml")]
        plugin = Beside(path, arguments.limit, [record["item"] for record in read(path)])
        status = pytest.main([*options, *arguments.paths], plugins=[plugin])
        records = read(path)
    ALONE.close()
    inputs = [record for record in records if record["kind"] != "skipped" and record["commands"]]
    parts = {"versions": versions(), "sections": by_section(inputs), "cases": by_case(inputs)}
    parts["tally"] = ["```text", *tally.report(records)[-2:], "```"]
    DOC.write_text(fill(DOC.read_text(encoding="utf-8"), parts), encoding="utf-8")
    print("\n".join(parts["sections"]))
    sys.exit(status)


if __name__ == "__main__":
    main()
