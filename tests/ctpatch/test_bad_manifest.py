"""Awkward manifests and lesions through the command line (numbers as in the test names); cells are in test_manifest."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import awkward
import numpy as np
import pytest
import synthetic
from awkward import FAST, Run

from ctpatch.store import PatchStore, open_store

ROWS = [
    {"patient_id": "P1", "image": "ct1", "mask": "rt1.dcm", "label": "T3", "split": "train"},
    {"patient_id": "P2", "image": "ct2", "mask": "rt2.dcm", "label": "T4", "split": "val"},
    {"patient_id": "P3", "image": "ct3", "mask": "rt3.dcm", "label": "T3", "split": "test"},
]


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three patients."""
    folder = tmp_path_factory.mktemp("cohort")
    for n in (1, 2, 3):
        ct = awkward.series(folder, name=f"ct{n}", hu=awkward.hu() + n, patient_id=f"P{n}")
        awkward.contours(folder, ct, name=f"rt{n}.dcm")
    return folder


@pytest.fixture
def folder(cohort: Path) -> Iterator[Path]:
    """The cohort without what an earlier test built."""
    yield cohort
    for path in cohort.iterdir():
        if path.name.startswith(("s.h5", "m.csv", "mine")):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def text_of(rows: Sequence[dict[str, str]], delimiter: str = ",") -> str:
    columns = list(dict.fromkeys(key for row in rows for key in row))
    lines = [columns, *([row.get(column, "") for column in columns] for row in rows)]
    return "".join(delimiter.join(line) + "\n" for line in lines)


def changed(**cells: Sequence[str]) -> list[dict[str, str]]:
    """The three rows with these columns' cells."""
    return [row | {name: of[i] for name, of in cells.items()} for i, row in enumerate(ROWS)]


def write(folder: Path, content: Any) -> None:
    content = content if isinstance(content, (str, bytes)) else text_of(content)
    (folder / "m.csv").write_bytes(content.encode() if isinstance(content, str) else content)


def computed(folder: Path, content: Any, *options: str) -> tuple[Run, PatchStore]:
    write(folder, content)
    result, checked = awkward.build(folder, *options), awkward.check(folder)
    assert (result.status, result.err, checked.status) == (0, (), 0), (result, checked)
    return result, open_store(folder / "s.h5")


def refused(folder: Path, content: Any, *lines: str) -> Run:
    """Build and check refuse with these lines (their parts between `…`), in the same words, and make nothing."""
    write(folder, content)
    result, checked = awkward.build(folder), awkward.check(folder)
    assert result.status == checked.status == 2, (result, checked)
    assert [line.partition(": ")[2] for line in result.err] == [line.partition(": ")[2] for line in checked.err]
    assert len(result.err) == len(lines), result.err
    for line, parts in zip(result.err, lines, strict=True):
        assert all(part in line for part in parts.split("…")), line
        assert ". Do: " in line
        assert str(folder) not in line
    assert not (folder / "s.h5").exists()
    return result


# -- The table ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_91_92_93_byte_order_mark_delimiters_and_leading_zeros(folder: Path, encoding: str, delimiter: str) -> None:
    rows = changed(patient_id=("00123", "0", "1e3"))
    _, store = computed(folder, text_of(rows, delimiter).encode(encoding), "--no-rgb")
    assert store.lesions["patient_id"].tolist() == ["0", "00123", "1e3"]
    store.close()


def test_92_a_delimiter_that_is_none_is_refused_with_the_columns_needed(folder: Path) -> None:
    refused(folder, text_of(ROWS, "|"), "row=1 m.csv: needed columns are missing: patient_id, image…|")


@pytest.mark.parametrize("label", ["", "NA", "n/a", "None", "nan", "#N/A"])
def test_94_a_label_that_is_none_is_refused(folder: Path, label: str) -> None:
    refused(folder, changed(label=("T3", label, "T4")), "patient=P2 row=3 m.csv: label")


@pytest.mark.parametrize("cell", ["", "NA", "None", "n/a"])
def test_94_an_unknown_characteristic_is_nan_and_said_so(folder: Path, cell: str) -> None:
    result, store = computed(folder, changed(aux_edge=("1", cell, "2")))
    assert np.array_equal(store.lesions["aux_edge"], [1, np.nan, 2], equal_nan=True)
    assert ("is read as unknown" in result.notes) == bool(cell)
    store.close()


@pytest.mark.parametrize("label", ["2-Mar", "2024-03-02", "02.03.2024"])
def test_95_a_label_that_became_a_date_is_refused(folder: Path, label: str) -> None:
    refused(folder, changed(label=("T3", label, "T4")), f"patient=P2 row=3 m.csv: label '{label}' is a date")


def test_95_labels_that_became_floats_are_refused_where_both_are(folder: Path) -> None:
    refused(folder, changed(label=("1", "1.0", "0")), "look like one class…'1'…'1.0'")


def test_96_spaces_are_stripped(folder: Path) -> None:
    _, store = computed(folder, changed(label=("T3 ", "  T4", "\tT3")))
    assert store.label_classes == ("T3", "T4")
    store.close()


@pytest.mark.parametrize("other", ["t3", "Ｔ3"])
def test_96_labels_that_look_like_one_class_are_refused(folder: Path, other: str) -> None:
    refused(folder, changed(label=("T3", other, "T4")), "labels that look like one class")


@pytest.mark.parametrize("n", [0, 1, 2])
@pytest.mark.parametrize("spelled", [{}, {"lesion_id": "1"}, {"lesion_id": " 1 "}])
def test_97_a_lesion_twice_is_refused(folder: Path, n: int, spelled: dict[str, str]) -> None:
    refused(
        folder,
        [*ROWS, ROWS[n] | {"roi": "2"} | spelled],
        f"patient=P{n + 1} row=5 m.csv: lesion_id '1' of this patient is also in row {n + 2}",
    )


def test_98_a_patient_in_two_splits_is_refused(folder: Path) -> None:
    twice = ROWS[1] | {"patient_id": "P1", "lesion_id": "2"}
    refused(
        folder, [ROWS[0], twice, ROWS[2]], "patient=P1 row=3 m.csv: the patient is in train (row 2) and in val (row 3)"
    )


def test_98_one_series_under_two_patients_is_refused(folder: Path) -> None:
    copy = ROWS[0] | {"patient_id": "P9", "split": "test", "roi": "GTV"}
    write(folder, [*ROWS, copy])
    assert_leak(folder, "patient=P9 row=5 ct1: the same series as patient=P1 row=2")


def test_98_equal_pixels_under_other_uids_are_refused(folder: Path) -> None:
    ct = awkward.series(folder, name="mine", hu=awkward.hu() + 1, patient_id="P9")
    awkward.contours(folder, ct, name="mine.dcm")
    write(folder, [*ROWS, ROWS[0] | {"patient_id": "P9", "split": "test", "image": "mine", "mask": "mine.dcm"}])
    assert_leak(folder, "patient=P9 row=5 mine: the same pixels as patient=P1 row=2")


def assert_leak(folder: Path, line: str) -> None:
    for command in (awkward.build, awkward.check):
        result = command(folder)
        assert result.status == 2
        assert len(result.err) == 1
        assert line in result.err[0]
    assert not (folder / "s.h5").exists()


@pytest.mark.parametrize(("first", "second"), [("p1", "P1"), ("007", "7"), ("A-01", "A-1"), ("é", "É"), ("P１", "P1")])
def test_99_ids_that_look_like_one_patient_are_refused(folder: Path, first: str, second: str) -> None:
    refused(folder, changed(patient_id=(first, second, "P3")), "patient ids…look like one patient")


def test_100_an_unknown_column_is_ignored_and_listed(folder: Path) -> None:
    result, store = computed(folder, changed(scanner=("a", "b", "c")))
    assert "note: ignored columns: 'scanner'" in result.notes
    assert "note: ignored columns: 'scanner'" in awkward.check(folder).notes
    store.close()


@pytest.mark.parametrize(("wrong", "right"), [("lable", "label"), ("patientid", "patient_id"), ("masks", "mask")])
def test_100_a_near_miss_is_refused_with_a_suggestion(folder: Path, wrong: str, right: str) -> None:
    rows = [{wrong if key == right else key: value for key, value in row.items()} for row in ROWS]
    result = refused(folder, rows, f"row=1 m.csv: column '{wrong}' is not known. Do: name it {right}")
    assert len(result.err) == 1


def test_100_a_missing_column_is_refused(folder: Path) -> None:
    rows = [{key: value for key, value in row.items() if key not in ("image", "label", "split")} for row in ROWS]
    refused(folder, rows, "row=1 m.csv: needed columns are missing: image, label")


def test_101_classes_of_the_splits_are_told(folder: Path) -> None:
    result, store = computed(folder, changed(label=("T3", "T4", "T4")))
    store.close()
    for told in (result.notes, awkward.check(folder).notes):
        assert "note: train: 1 patients, 1 lesions (T3 1); one class only" in told


def test_101_the_same_thing_is_told_once(folder: Path) -> None:
    result, store = computed(folder, ROWS)
    store.close()
    for told in (result.notes.splitlines(), awkward.check(folder).notes.splitlines()):
        assert len(told) == len(set(told))


@pytest.mark.parametrize("n", [0, 1, 2])
@pytest.mark.parametrize("column", ["image", "mask"])
def test_102_a_missing_file_is_refused_before_any_work(folder: Path, n: int, column: str) -> None:
    cells = ["ct1", "ct2", "ct3"] if column == "image" else ["rt1.dcm", "rt2.dcm", "rt3.dcm"]
    cells[n] = "nowhere/at all"
    line = f"patient=P{n + 1} row={n + 2} nowhere/at all: {column} does not exist"
    assert refused(folder, changed(**{column: cells}), line).out == ()
    assert not list(folder.glob("s.h5*"))


def test_102_all_missing_files_are_told_at_once_before_any_work(folder: Path) -> None:
    (folder / "mine").mkdir()
    (folder / "mine.dcm").write_bytes(b"")
    rows = changed(image=("nowhere", "mine", "ct3"), mask=("rt1.dcm", "mine.dcm", "ct3"))
    result = refused(
        folder,
        rows,
        "patient=P1 row=2 nowhere: image does not exist",
        "patient=P2 row=3 mine: image is an empty folder",
        "patient=P2 row=3 mine.dcm: mask is an empty file (0 bytes)",
        "patient=P3 row=4 ct3: mask is a folder, not a file",
    )
    assert result.out == ()
    assert not list(folder.glob("s.h5*"))


def test_103_paths_are_relative_to_the_manifest(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, store = computed(folder, ROWS)
    store.close()
    before = (folder / "s.h5").read_bytes()
    monkeypatch.chdir(folder / "ct1")
    result = awkward.run("build", "--manifest", "../m.csv", "--out", "../s.h5", *FAST)
    assert result.status == 0
    assert (folder / "s.h5").read_bytes() == before


@pytest.mark.parametrize("elements", [{"RescaleSlope": None}, {"PixelSpacing": ["2", "1.4"]}])
def test_103_refusals_are_relative_to_the_manifest(
    folder: Path, monkeypatch: pytest.MonkeyPatch, elements: dict[str, Any]
) -> None:
    awkward.series(folder, name="mine", edit=awkward.only(8, **elements))
    write(folder, changed(image=("mine", "ct2", "ct3")))
    monkeypatch.chdir(folder / "ct1")
    result = awkward.run("build", "--manifest", "../m.csv", "--out", "../s.h5", *FAST)
    assert result.status == 2
    assert result.err[0].startswith("ctpatch: patient=P1 row=2 mine: ")


def test_104_a_path_may_lead_anywhere(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "ct2", tmp_path / "elsewhere")
    (folder / "mine").symlink_to(tmp_path / "elsewhere")
    _, store = computed(folder, changed(image=(str(folder / "ct1"), "mine", "ct1/../ct3")))
    store.close()
    (folder / "mine").unlink()


@pytest.mark.parametrize("target", ["ct1/0000.dcm", "rt2.dcm", "../secret", "LIST"])
def test_104_a_mask_cannot_make_ctpatch_open_another_file(folder: Path, target: str) -> None:
    header = "NRRD0004\ntype: uint8\ndimension: 3\nsizes: 44 40 16\nencoding: raw\nspace: LPS\n"
    header += "space directions: (1.5,0,0) (0,2,0) (0,0,3)\nspace origin: (-31.5,12.75,-405.25)\n"
    (folder / "mine.nhdr").write_text(header + f"data file: {folder / target if target != 'LIST' else target}\n\n")
    write(folder, changed(mask=("mine.nhdr", "rt2.dcm", "rt3.dcm")))
    result = awkward.build(folder)
    assert result.status == 2
    assert len(result.err) == 1
    assert result.err[0].startswith("ctpatch: patient=P1 row=2 mine.nhdr: ")


@pytest.mark.parametrize("cell", ["=1+1", "+cmd|' /C calc'!A0", "@SUM(A1)", "-2"])
def test_105_formulas_are_text(folder: Path, cell: str) -> None:
    _, store = computed(folder, changed(patient_id=(cell, "P2", "P3"), roi=("GTV", "", "")))
    assert cell in store.lesions["patient_id"].tolist()
    store.close()


@pytest.mark.parametrize("name", ["mine ü 患者", "mine with spaces", "mine" + "x" * 200, "mine'quoted' $HOME"])
def test_106_names_of_any_kind(folder: Path, name: str) -> None:
    shutil.copytree(folder / "ct1", folder / name)
    (folder / "mine.dcm").write_bytes((folder / "rt1.dcm").read_bytes())
    _, store = computed(folder, changed(image=(name, "ct2", "ct3"), mask=("mine.dcm", "rt2.dcm", "rt3.dcm")))
    store.close()


def test_106_a_name_that_is_no_text_inside_the_folder(folder: Path) -> None:
    shutil.copytree(folder / "ct1", folder / "mine")
    os.rename(os.fsencode(folder / "mine" / "0008.dcm"), os.fsencode(folder / "mine") + b"/\xff\xfe.dcm")
    _, store = computed(folder, changed(image=("mine", "ct2", "ct3")))
    store.close()


def test_106_a_refusal_over_such_a_name_is_one_printable_line(folder: Path) -> None:
    shutil.copytree(folder / "ct1", folder / "mine")
    path = os.fsencode(folder / "mine") + b"/\xff\n.dcm"
    os.rename(os.fsencode(folder / "mine" / "0008.dcm"), path)
    with open(path, "r+b") as file:
        file.truncate(900)
    write(folder, changed(image=("mine", "ct2", "ct3")))
    result = awkward.build(folder)
    assert result.status == 2
    assert len(result.err) == 1
    assert result.err[0].isprintable()
    assert "is cut off" in result.err[0]


@pytest.mark.parametrize(
    ("cell", "found"),
    [("a\0b", "U+0000"), ("x" * 2**16, "65536"), ('"a\nb"', "line break or control character"), ("x" * 2**20, "")],
)
def test_107_cells_that_cannot_be_are_refused(folder: Path, cell: str, found: str) -> None:
    refused(folder, changed(roi=(cell, "", "")), f"row=2…{found}")


PEAK = """
import re, sys
from pathlib import Path
from ctpatch.manifest import read_manifest
peak = lambda: 1024 * int(re.search("VmHWM:[^0-9]*([0-9]+)", Path("/proc/self/status").read_text())[1])
start = peak()
rows = len(read_manifest(Path(sys.argv[1])).rows)
print((peak() - start) / rows)
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="reads the peak of its memory from Linux")
def test_107_a_million_rows_would_fit_into_a_gigabyte(tmp_path: Path) -> None:
    """Every row has another patient and other paths, all of which lead to one folder and one file."""
    (tmp_path / "ct").mkdir()
    (tmp_path / "ct" / "1.dcm").write_bytes(b"1")
    (tmp_path / "rt.dcm").write_bytes(b"1")
    rows = []
    for n in range(100_000):
        way = "".join(".//" if n >> bit & 1 else "./" for bit in range(17))
        rows.append(f"P{n:06d},{way}ct,{way}rt.dcm,R{n},T{n % 2},{('train', 'val', 'test')[n % 3]}\n")
    (tmp_path / "m.csv").write_text("patient_id,image,mask,roi,label,split\n" + "".join(rows))
    done = subprocess.run([sys.executable, "-c", PEAK, tmp_path / "m.csv"], capture_output=True, text=True, check=True)
    assert 300 < float(done.stdout) < 1000  # bytes a row


# -- Lesions ------------------------------------------------------------------------------------------------------


def lesion(
    folder: Path, low: tuple[float, float], high: tuple[float, float], slices: Sequence[int]
) -> synthetic.Series:
    ct = awkward.series(folder)
    awkward.contours(folder, ct, {"GTV": awkward.box(ct, slices, low, high)})
    return ct


@pytest.mark.parametrize(
    ("low", "slices"), [((-0.5, -0.5), (0, 1)), ((41.5, -0.5), (7, 8)), ((-0.5, 37.5), (7,)), ((41.5, 37.5), (14, 15))]
)
def test_108_beyond_the_image_there_is_air_and_it_is_told(
    tmp_path: Path, low: tuple[float, float], slices: tuple[int, ...]
) -> None:
    """A lesion in each corner."""
    ct = lesion(tmp_path, low, (low[0] + 2, low[1] + 2), slices)
    store = awkward.built(tmp_path, split="test")
    where = (awkward.points(store, ct.axes)[0] - ct.origins[0]) @ ct.axes.T
    outside = ((where[..., :2] < (-0.75 - 1e-6, -1.0 - 1e-6)) | (where[..., :2] > (43.5 * 1.5, 39.5 * 2))).any(axis=-1)
    assert outside.mean() > 0.5
    assert (store.hu[0][outside] == -1024).all()
    assert (store.hu[0][~outside] > -100).all()
    assert "1 of 1 patches lie more than half outside the image" in store.notes


@pytest.mark.parametrize("split", ["train", "test"])
def test_109_a_lesion_of_one_voxel_keeps_a_lattice_point(tmp_path: Path, split: str) -> None:
    ct = lesion(tmp_path, (19.7, 17.7), (20.3, 18.3), (8,))
    store = awkward.built(tmp_path, split=split)
    awkward.assert_linear(store, ct)
    assert len(store.hu) == (6 if split == "train" else 1)
    away = np.abs((store.center - ct.to_lps(8, (20, 18))) @ ct.axes.T)
    assert (away <= np.array([0.75, 1.0, 1.5]) + 1e-6).all()


def test_109_a_voxel_smaller_than_the_lattice_keeps_a_point(tmp_path: Path) -> None:
    fine = {"spacing": (0.2, 0.2), "positions": 0.3 * np.arange(16)}
    ct = awkward.series(tmp_path, **fine)
    awkward.contours(tmp_path, ct, {"GTV": awkward.box(ct, (7,), (18.7, 17.7), (19.3, 18.3))})
    store = awkward.built(tmp_path)
    assert len(store.hu) == 6
    assert np.abs((store.center - ct.to_lps(7, (19, 18))) @ ct.axes.T).max() <= 0.25 + 1e-6


def test_110_a_lesion_larger_than_a_patch(tmp_path: Path) -> None:
    ct = lesion(tmp_path, (1.5, 1.5), (41.5, 37.5), range(2, 14))
    store = awkward.built(tmp_path)
    at = (store.center - ct.origins[0]) @ ct.axes.T / (1.5, 2.0, 3.0)
    assert ((at > (1.5, 1.5, 1.5)) & (at < (41.5, 37.5, 13.5))).all()
    with open_store(store.path) as opened:
        assert opened.lesions["diameter_mm"][0] == pytest.approx(np.hypot(39 * 1.5, 35 * 2.0))
    middle = awkward.built(tmp_path, split="test")
    assert np.abs((middle.center[0] - ct.origins[0]) @ ct.axes.T - (21.5 * 1.5, 19.5 * 2, 7.5 * 3)).max() <= 0.25 + 1e-6


@pytest.mark.parametrize("split", ["val", "test"])
def test_110_a_marked_centre_is_used_as_given_and_needs_no_mask(tmp_path: Path, split: str) -> None:
    ct = awkward.series(tmp_path)
    at = ct.to_lps(8, (21.3, 18.9), 0.7)
    store = awkward.built(tmp_path, split=split, mask="", center=" ".join(f"{v:.6f}" for v in at))
    awkward.assert_linear(store, ct)
    assert np.allclose(store.center, at, atol=1e-6)


@pytest.mark.parametrize("pixel", [(-0.6, 20.0, 0.0), (43.6, 20.0, 0.0), (20.0, 39.6, 0.0), (20.0, 20.0, 24.0)])
def test_110_a_centre_outside_the_image_is_refused(tmp_path: Path, pixel: tuple[float, float, float]) -> None:
    ct = awkward.series(tmp_path)
    at = ct.to_lps(8, pixel[:2], pixel[2])
    center = " ".join(f"{v:.6f}" for v in at)
    awkward.refused(
        tmp_path, "the centre .* mm lies outside the image", "LPS", "ct", split="test", mask="", center=center
    )


@pytest.mark.parametrize("n", [0, 1, 2])
def test_111_the_same_lesion_under_two_ids_is_refused(folder: Path, n: int) -> None:
    line = f"patient=P{n + 1} row=5 m.csv: image, mask, roi…the same as in row {n + 2}"
    refused(folder, [*ROWS, ROWS[n] | {"lesion_id": "2"}], line)


def test_111_lesions_of_all_but_the_same_voxels_are_told_by_check(folder: Path) -> None:
    ct = awkward.series(folder, name="mine", hu=awkward.hu() + 9, patient_id="P4")
    almost = awkward.box(ct, awkward.SLICES[:-1]) + awkward.box(ct, awkward.SLICES[-1:], high=(27.5, 26.5))
    awkward.contours(folder, ct, {"a": awkward.box(ct), "b": almost}, "mine.dcm")
    base = {"patient_id": "P4", "image": "mine", "mask": "mine.dcm", "label": "T3", "split": "train"}
    _, store = computed(folder, [*ROWS, base | {"roi": "a"}, base | {"roi": "b", "lesion_id": "2"}])
    store.close()
    assert "Dice 0.99 with the lesion of row 5" in awkward.check(folder).notes


# -- One refused lesion among others ------------------------------------------------------------------------------


def bad_and_good(folder: Path) -> None:
    awkward.series(folder, name="mine", edit=awkward.only(8, RescaleSlope=None))
    write(folder, changed(image=("mine", "ct2", "ct3")))


def test_a_refused_lesion_stops_the_build_by_default(folder: Path) -> None:
    bad_and_good(folder)
    result = awkward.build(folder)
    assert result.status == 2
    assert not (folder / "s.h5").exists()


def test_a_refused_lesion_can_be_skipped_and_is_listed(folder: Path) -> None:
    bad_and_good(folder)
    result = awkward.build(folder, "--on-error", "skip")
    assert result.status == 1
    assert [line for line in result.err if line.startswith("skipped: patient=P1 row=2 mine: ")] == list(result.err)
    with open_store(folder / "s.h5") as store:
        assert store.lesions["patient_id"].tolist() == ["P2", "P3"]
        assert store.skipped["patient_id"].tolist() == ["P1"]
        assert "missing in 1 of 16 images" in store.skipped["reason"][0]
        assert "mine" not in store.skipped["reason"][0]


def test_check_tells_what_is_wrong_in_the_table_and_of_the_other_rows_at_once(folder: Path) -> None:
    """A build stops before any work; rows that have a problem of their own, or a missing file, are told once."""
    bad_and_good(folder)
    rows = [*changed(image=("mine", "ct2", "nowhere"), label=("T3", "", "T4"))]
    rows.append(rows[2] | {"lesion_id": "2", "roi": "GTV"})
    write(folder, rows)
    at = " patient=P1 row=2 mine", " patient=P2 row=3 m.csv", " patient=P3 row=4 nowhere"
    result, built = awkward.check(folder), awkward.build(folder)
    assert result.status == built.status == 2
    assert [line.split(":")[1] for line in result.err] == list(at)
    assert result.out[-1] == f"{folder / 'm.csv'}: 4 lesions, 3 problems, 0 notes"
    assert [line.split(":")[1] for line in built.err] == list(at[1:])


def test_check_tells_every_refused_lesion(folder: Path) -> None:
    bad_and_good(folder)
    shutil.copytree(folder / "mine", folder / "mine2")
    (folder / "mine2" / "0003.dcm").write_bytes(b"")
    write(folder, changed(image=("mine", "mine2", "ct3")))
    result = awkward.check(folder)
    assert result.status == 2
    assert [line.split(":")[1] for line in result.err] == [" patient=P1 row=2 mine", " patient=P2 row=3 mine2/0003.dcm"]
