"""No advice leads to a wrong store: each word and column that a message recommends is followed, and the result judged.

What follows is computed right, or refused again for what is really wrong. That no recommendation is left out is read
from the source.
"""

import ast
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import awkward
import numpy as np
import pytest
import readings
import SimpleITK as sitk
import synthetic
from awkward import POSITIONS, SLICES, edited, lesion_voxels
from readings import LEVELS, Nodule, Roi

import ctpatch
from ctpatch.manifest import ACCEPTED, COLUMNS

Voxels = set[tuple[int, int, int]]


@dataclass(frozen=True)
class Followed:
    """A situation on disk, the row's cells at first, those that follow the advice, and what must come of it."""

    ct: synthetic.Series
    cells: dict[str, str]
    then: dict[str, str]
    voxels: Voxels | None


def missing_slice(folder: Path) -> Followed:
    """The lesion of the slices that are there, though a contour lies on the missing one."""
    ct = awkward.case(folder)
    ct.paths[8].unlink()
    return Followed(ct, {}, {"accept": "gap"}, lesion_voxels([5, 6, 7, 8, 9]))


def two_boxes(rule: str) -> Callable[[Path], Followed]:
    def write(folder: Path) -> Followed:
        ct = awkward.series(folder)
        ends = ((14.5, 12.5), (22.5, 26.5)), ((18.5, 12.5), (28.5, 26.5))
        awkward.contours(folder, ct, {"GTV": [box for low, high in ends for box in awkward.box(ct, SLICES, low, high)]})
        a, b = (lesion_voxels(SLICES, range(13, 27), range(*columns)) for columns in ((15, 23), (19, 29)))
        return Followed(ct, {}, {"accept": f"overlap={rule}"}, a | b if rule == "union" else a ^ b)

    return write


def another_frame(folder: Path) -> Followed:
    ct = awkward.series(folder)
    awkward.contours(folder, ct, frame_uid=synthetic.uid("other"))
    return Followed(ct, {}, {"accept": "frame"}, lesion_voxels())


def shifted_mask(folder: Path) -> Followed:
    """A third of a voxel off: the nearest voxel is the same one."""
    ct = awkward.series(folder)
    voxels = np.zeros(awkward.SHAPE, np.uint8)
    voxels[tuple(np.array(sorted(lesion_voxels())).T)] = 1
    image = sitk.GetImageFromArray(voxels)
    image.SetSpacing((1.5, 2.0, 3.0))
    image.SetOrigin(tuple(np.add(awkward.ORIGIN, (0.5, 0.6, 1.0)).tolist()))
    sitk.WriteImage(image, str(folder / "m.nrrd"))
    return Followed(ct, {"mask": "m.nrrd"}, {"accept": "resample"}, lesion_voxels())


def readers_halves(folder: Path) -> Followed:
    ct = awkward.series(folder)

    def drawn(*corners: tuple[int, int]) -> list[Roi]:
        (a, b), (c, d) = corners
        return [readings.on(ct, Roi(k, [(a, b), (c, b), (c, d), (a, d)])) for k in SLICES]

    halves = [Nodule(drawn((14, 12), (22, 27)), "left", LEVELS), Nodule(drawn((21, 12), (29, 27)), "right", LEVELS)]
    readings.write(folder, [halves, [Nodule(drawn((14, 12), (29, 27)), "all", LEVELS)]], series=str(ct.series_uid))
    return Followed(ct, {"mask": "reads.xml"}, {"accept": "readers"}, lesion_voxels())


def stray_points(folder: Path) -> Followed:
    ct = awkward.series(folder)
    awkward.contours(folder, ct, {"GTV": [*awkward.box(ct), ct.to_lps(13, [(2.0, 2.0), (3.0, 2.0)])]})
    return Followed(ct, {}, {"accept": "stray"}, lesion_voxels())


def uid_per_slice(folder: Path) -> Followed:
    def own(dataset: Any, k: int) -> None:
        dataset.SeriesInstanceUID = synthetic.uid("own", k)

    return Followed(awkward.case(folder, edit=own), {}, {"accept": "series"}, lesion_voxels())


def uid_per_slice_and_phase(folder: Path) -> Followed:
    """Two phases too: joined they are two stacks, of which one must be named."""
    ct = uid_per_slice(folder).ct
    for k, path in enumerate(ct.paths):
        edited(path, lambda dataset: setattr(dataset, "AcquisitionNumber", 1))
        again = path.with_name(f"again{k}.dcm")
        again.write_bytes(path.read_bytes())

        def change(dataset: Any, k: int = k) -> None:
            dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = synthetic.uid("again", k)
            dataset.SeriesInstanceUID, dataset.AcquisitionNumber = synthetic.uid("again series", k), 2
            dataset.RescaleIntercept = float(dataset.RescaleIntercept) + 100

        edited(again, change)
    awkward.contours(folder, ct, references=False)
    return Followed(ct, {"accept": "series"}, {"accept": "series", "acquisition": "1"}, lesion_voxels())


def unspecified_units(folder: Path) -> Followed:
    ct = awkward.case(folder)
    for path in ct.paths:
        edited(path, lambda dataset: setattr(dataset, "RescaleType", "OTHER"))
    return Followed(ct, {}, {"accept": "units"}, lesion_voxels())


def tissue_padding(folder: Path) -> Followed:
    ct = awkward.series(folder, slope=1)
    awkward.contours(folder, ct)
    at = round(float(awkward.hu()[8, 20, 20]))
    for path in ct.paths:
        edited(path, lambda dataset: dataset.add_new(0x00280120, "US", at + 1024))
    return Followed(ct, {}, {"accept": "padding"}, lesion_voxels())


def two_series(folder: Path) -> Followed:
    ct = awkward.series(folder)
    awkward.series(folder, seed=5, hu=awkward.hu() + 100, names=lambda k: f"other{k}.dcm", frame_uid=ct.frame_uid)
    awkward.contours(folder, ct, references=False)
    return Followed(ct, {}, {"series_uid": str(ct.series_uid)}, lesion_voxels())


def two_rois(folder: Path) -> Followed:
    ct = awkward.series(folder)
    awkward.contours(folder, ct, {"GTV": awkward.box(ct), "Node": awkward.box(ct, [12, 13])})
    return Followed(ct, {}, {"roi": "GTV"}, lesion_voxels())


ADVICE: dict[str, Callable[[Path], Followed]] = {
    "gap": missing_slice,
    "overlap=union": two_boxes("union"),
    "overlap=xor": two_boxes("xor"),
    "frame": another_frame,
    "resample": shifted_mask,
    "readers": readers_halves,
    "stray": stray_points,
    "series": uid_per_slice,
    "units": unspecified_units,
    "padding": tissue_padding,
    "acquisition": uid_per_slice_and_phase,
    "series_uid": two_series,
    "roi": two_rois,
}


@pytest.mark.parametrize("word", ADVICE)
def test_192_advice_that_is_followed_gives_the_right_store(tmp_path: Path, word: str) -> None:
    case = ADVICE[word](tmp_path)
    awkward.manifest(tmp_path, **case.cells)
    first = awkward.build(tmp_path)
    assert first.status == 2, first
    assert word in first.err[0].partition(" Do: ")[2], first
    store = awkward.built(tmp_path, **case.cells | case.then)
    awkward.assert_linear(store, case.ct)
    assert awkward.voxels(awkward.plan(tmp_path, **case.cells | case.then).mask) == case.voxels


def recommended() -> set[str]:
    """Every accept word and column that a text in the source tells people to use."""
    words = set()
    for path in Path(ctpatch.__file__).parent.rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        documented = {node.body[0].value for node in ast.walk(tree) if _has_docstring(node)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in documented:
                words |= _words(node.value)
    return words


def _has_docstring(node: ast.AST) -> bool:
    body = getattr(node, "body", None)
    return isinstance(body, list) and bool(body) and isinstance(body[0], ast.Expr)


def _words(text: str) -> set[str]:
    found = set(re.findall(r"put ([\w=]+) into the column accept|accept `([\w=]+)`|or ([\w=]+) into the column", text))
    words = {word for group in found for word in group if word in ACCEPTED}
    if re.search(r"(give|name|mend|rename|put).*(column|in `|in series_uid)", text):
        words |= {name for name in COLUMNS if re.search(rf"(column |`| in ){name}\b", text)}
    return words - {"accept"}


def test_192_no_advice_is_left_out() -> None:
    found = recommended()
    assert found >= {"gap", "units", "roi", "acquisition", "series_uid"}  # the search finds what there is
    assert found <= set(ADVICE), found - set(ADVICE)
    assert set(ADVICE) <= {*ACCEPTED, *COLUMNS}


@pytest.mark.parametrize("word", sorted(set(ACCEPTED) - {"overlap=union", "overlap=xor"}))
def test_192_words_that_are_not_needed_change_nothing(tmp_path: Path, word: str) -> None:
    ct = awkward.case(tmp_path)
    if word == "series":
        awkward.refused(tmp_path, "nothing to join", accept=word)
        return
    store = awkward.built(tmp_path, accept=word)
    awkward.assert_linear(store, ct)
    assert awkward.voxels(awkward.plan(tmp_path, accept=word).mask) == lesion_voxels()
    assert len(POSITIONS) == 16
