"""Where people build: odd machines, odd files, many lesions; numbers as in docs/reliability.md."""

import errno
import fcntl
import gzip
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import awkward
import cohort
import numpy as np
import pydicom
import pytest
import segments
import synthetic
from awkward import SLICES, edited, refused
from pydicom.dataset import Dataset
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian

import ctpatch.build.one_lesion
from ctpatch.errors import FOUND_MIN, MESSAGE_MAX, InputError, shortened
from ctpatch.notes import Note, gathered
from ctpatch.store import open_store

# -- 164: one person under two names --------------------------------------------------------------------------------


def two_patients(folder: Path, splits: tuple[str, str], **elements: str) -> None:
    """Two patients of the manifest whose images and contours have these elements."""
    rows = []
    for i, split in enumerate(splits):
        ct = awkward.series(folder, name=f"ct{i}", seed=i, hu=awkward.hu() + i)
        for path in (*ct.paths, awkward.contours(folder, ct, name=f"rt{i}.dcm")):
            edited(path, lambda dataset: [setattr(dataset, *pair) for pair in elements.items()])
        rows.append({"patient_id": f"A{i}", "image": f"ct{i}", "mask": f"rt{i}.dcm", "split": split})
    awkward.manifest(folder, *rows)


SHARED = {"PatientID": "ANON", "PatientBirthDate": "", "PatientSex": "F"}


@pytest.mark.parametrize("splits", [("train", "val"), ("test", "train"), ("val", "test")])
def test_164_one_patient_id_in_two_splits_is_told(tmp_path: Path, splits: tuple[str, str]) -> None:
    two_patients(tmp_path, splits, **SHARED)
    result, checked = awkward.build(tmp_path), awkward.check(tmp_path)
    assert (result.status, checked.status) == (0, 0), (result, checked)
    for run in (result, checked):
        (note,) = (line for line in run.out if "PatientID" in line)
        assert "A1" in note
        assert f"its images have the PatientID of patient=A0, which is in {splits[0]}: one person?" in note


def test_164_within_a_split_nothing_leaks(tmp_path: Path) -> None:
    two_patients(tmp_path, ("train", "train"), **SHARED | {"PatientBirthDate": "19500102"})
    result = awkward.build(tmp_path)
    assert result.status == 0, result
    assert "PatientID" not in result.notes


SAYS_NOTHING = [("PatientID", ""), ("PatientSex", ""), ("PatientSex", "O")]
SAYS_NOTHING += [("PatientBirthDate", date) for date in ("19000101", "18000101", "00010101")]  # PS3.15: a dummy value


@pytest.mark.parametrize(("blank", "value"), SAYS_NOTHING)
def test_164_what_is_blank_proves_nothing(tmp_path: Path, blank: str, value: str) -> None:
    two_patients(tmp_path, ("train", "test"), **SHARED | {"PatientBirthDate": "19500102"} | {blank: value})
    result = awkward.build(tmp_path)
    assert result.status == 0, result
    assert ("PatientID" in result.notes) == (blank != "PatientID")


@pytest.mark.parametrize("splits", [("train", "val"), ("val", "test")])
def test_164_with_birth_date_and_sex_too_it_is_one_person(tmp_path: Path, splits: tuple[str, str]) -> None:
    two_patients(tmp_path, splits, **SHARED | {"PatientBirthDate": "19500102"})
    for run in (awkward.build(tmp_path), awkward.check(tmp_path)):
        assert run.status == 2
        (line,) = run.err
        assert "patient=A1 row=3" in line
        assert f"PatientID, birth date and sex are those of patient=A0 row=2, which is in {splits[0]}" in line
        assert "19500102" not in line
        assert "ANON" not in line


# -- 165, 166: machines ---------------------------------------------------------------------------------------------


NO_CACHE = """
from numba.core import caching
locating = vars(caching).get("CacheImpl") or caching._CacheImpl  # its name in older versions
locating._locator_classes = []  # as where neither the package, nor a home, nor NUMBA_CACHE_DIR is writable
"""


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_165_without_a_place_for_numbas_cache_it_is_told_and_computed(tmp_path: Path, jobs: str) -> None:
    ct = awkward.case(tmp_path)
    awkward.contours(tmp_path, ct, {name: awkward.box(ct) for name in ("GTV", "other")})
    awkward.manifest(tmp_path, {"roi": "GTV", "lesion_id": "1"}, {"roi": "other", "lesion_id": "2"})
    (tmp_path / "sitecustomize.py").write_text(NO_CACHE)  # is run by each process as it starts
    words = ["build", "--manifest", str(tmp_path / "m.csv"), "--out", str(tmp_path / "s.h5"), *awkward.FAST]
    command = [sys.executable, "-m", "ctpatch", *words, "--jobs", jobs]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(tmp_path)})
    assert (done.returncode, done.stderr.count("Traceback")) == (0, 0), done
    told = [line for line in done.stdout.splitlines() if "NUMBA_CACHE_DIR" in line]
    assert len(told) == 1
    awkward.assert_linear(awkward.opened(tmp_path / "s.h5"), ct)


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
def test_166_a_file_system_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    ct = awkward.case(tmp_path)
    awkward.manifest(tmp_path)

    def flock(*_: Any) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", flock)
    result = awkward.build(tmp_path)
    assert result.status == 2
    assert "the file system has no locks" in result.err[0]
    assert "give --no-lock" in result.err[0]
    assert "another build" not in result.err[0]
    assert awkward.build(tmp_path, "--no-lock").status == 0
    awkward.assert_linear(awkward.opened(tmp_path / "s.h5"), ct)


def test_166_a_lock_that_another_build_holds_is_not_that(tmp_path: Path) -> None:
    awkward.case(tmp_path)
    awkward.manifest(tmp_path)
    (tmp_path / "s.h5.parts").mkdir()
    with open(tmp_path / "s.h5.parts" / "lock", "ab") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        result = awkward.build(tmp_path)
    assert result.status == 2
    assert "another build is writing this store" in result.err[0]


READER = """
import fcntl, os, sys
from ctpatch import open_store
with open_store(sys.argv[1]) as store:
    print(len(store.split("train").hu))
"""


def test_166_readers_need_no_lock(tmp_path: Path) -> None:
    """Another process holds the whole file: HDF5's own locking would refuse it."""
    awkward.case(tmp_path)
    store = awkward.built(tmp_path)
    with open(store.path, "rb+") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        done = subprocess.run([sys.executable, "-c", READER, str(store.path)], capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (0, "6"), done.stderr


# -- 167: transfer syntaxes -----------------------------------------------------------------------------------------


def written_as(path: Path, said: str, really: str) -> None:
    """A file whose meta header names one transfer syntax, its data set in another."""
    dataset = pydicom.dcmread(path)
    dataset.file_meta.TransferSyntaxUID = UID(really)
    dataset.save_as(path, implicit_vr=really == ImplicitVRLittleEndian, little_endian=True)
    raw = path.read_bytes()
    old, new = (text.encode() + b"\0" * (len(text) % 2) for text in (really, said))
    at = raw.index(b"\x02\x00\x10\x00UI") + 6
    assert raw[at + 2 : at + 2 + len(old)] == old
    changed = raw[:at] + len(new).to_bytes(2, "little") + new + raw[at + 2 + len(old) :]
    length = raw.index(b"\x02\x00\x00\x00UL\x04\x00") + 8
    group = int.from_bytes(raw[length : length + 4], "little") + len(new) - len(old)
    path.write_bytes(changed[:length] + group.to_bytes(4, "little") + changed[length + 4 :])


@pytest.mark.parametrize("which", ["all", "one"])
@pytest.mark.parametrize(
    ("said", "really"),
    [(ExplicitVRLittleEndian, ImplicitVRLittleEndian), (ImplicitVRLittleEndian, ExplicitVRLittleEndian)],
    ids=["says explicit", "says implicit"],
)
def test_167_a_transfer_syntax_that_lies_about_vrs(tmp_path: Path, which: str, said: str, really: str) -> None:
    ct = awkward.case(tmp_path)
    for path in ct.paths if which == "all" else ct.paths[7:8]:
        written_as(path, said, really)
    awkward.assert_linear(awkward.built(tmp_path), ct)


@pytest.mark.parametrize("syntax", ["1.2.840.113619.5.2", "1.2.3.4.5", "1.2.840.10008.5.1.4.1.1.2"])
def test_167_an_unknown_transfer_syntax_is_named(tmp_path: Path, syntax: str) -> None:
    ct = awkward.case(tmp_path)
    written_as(ct.paths[3], syntax, ImplicitVRLittleEndian)
    found = f"its transfer syntax '{re.escape(syntax)}' is none of DICOM's"
    refused(tmp_path, found, "export it in a standard transfer syntax", path="ct/0003.dcm")


# -- 185, 187, 188: scan, and files that are packed ------------------------------------------------------------------


def scanned(folder: Path) -> tuple[awkward.Run, list[dict[str, str]]]:
    import csv

    result = awkward.run("scan", folder, "--out", folder / "found.csv")
    with open(folder / "found.csv", newline="", encoding="utf-8") as file:
        return result, list(csv.DictReader(file))


def test_185_ct_without_contours_gets_rows_with_a_blank_mask(tmp_path: Path) -> None:
    ct = awkward.case(tmp_path)
    awkward.series(tmp_path, name="bare", seed=3, patient_id="P2")
    result, rows = scanned(tmp_path)
    assert result.status == 0
    assert [(row["patient_id"], row["image"], row["mask"]) for row in rows] == [
        ("P1", "ct", "rt.dcm"),
        ("P2", "bare", ""),
    ]
    assert "1 CT series without usable contours, a row with a blank mask each: bare" in result.notes
    assert ct.patient_id == "P1"


def test_185_nothing_but_ct(tmp_path: Path) -> None:
    awkward.series(tmp_path)
    result, rows = scanned(tmp_path)
    assert (result.status, [row["mask"] for row in rows]) == (0, [""])
    assert "fill in the column label, and mask in 1 rows" in result.out[-1]


def test_187_secondary_captures_are_called_so(tmp_path: Path) -> None:
    ct = awkward.case(tmp_path)
    for k in range(3):
        dataset = pydicom.dcmread(ct.paths[k])
        dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = UID("1.2.840.10008.5.1.4.1.1.7")
        dataset.save_as(tmp_path / f"capture{k}.dcm")
    result, _ = scanned(tmp_path)
    assert "3 DICOM of modality CT that are no CT images (Secondary Capture Image)" in "\n".join(result.out)


@pytest.mark.parametrize("form", [".dcm.gz", ".zip"])
def test_188_packed_files_say_so(tmp_path: Path, form: str) -> None:
    ct = awkward.case(tmp_path)
    for path in ct.paths:
        if form == ".zip":
            with zipfile.ZipFile(path.with_suffix(".zip"), "w") as archive:
                archive.write(path, path.name)
        else:
            path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    refused(tmp_path, "no CT image among 16 files, 16 of which are compressed", "unpack them", path="ct")
    result = awkward.run("scan", tmp_path, "--out", tmp_path / "found.csv")
    assert "16 compressed files: unpack them first" in "\n".join((*result.out, *result.err))


def test_188_one_packed_slice_is_a_slice(tmp_path: Path) -> None:
    ct = awkward.case(tmp_path)
    packed = ct.paths[15].with_name(f"{ct.paths[15].name}.gz")
    packed.write_bytes(gzip.compress(ct.paths[15].read_bytes()))
    ct.paths[15].unlink()
    refused(tmp_path, "an image of the series is compressed", "unpack it", path=f"ct/{packed.name}")


@pytest.fixture
def late_fault(tmp_path: Path) -> Path:
    """Four patients, two lesions each; the last two's headers are wrong."""
    manifest = cohort.write_cohort(tmp_path, ("train", "train", "val", "test"), lesions=2)
    for patient in ("P02", "P03"):
        slices = sorted((tmp_path / patient / "ct").iterdir())
        edited(slices[2], lambda dataset: delattr(dataset, "RescaleSlope"))
    return manifest


def build_of(manifest: Path, *options: str) -> awkward.Run:
    out = manifest.with_name("s.h5")
    return awkward.run("build", "--manifest", manifest, "--out", out, *awkward.FAST, *options)


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_189_header_faults_are_all_told_before_the_first_lesion_is_computed(
    late_fault: Path, jobs: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    computed: list[Any] = []
    monkeypatch.setattr(ctpatch.build.one_lesion, "cut_lesion", lambda *given, **_: computed.append(given))
    result = build_of(late_fault, "--jobs", jobs)
    assert result.status == 2
    assert [line.removeprefix("ctpatch: ").split(" P0")[0] for line in result.err] == [
        f"patient={patient} row={row}" for patient, row in (("P02", 6), ("P02", 7), ("P03", 8), ("P03", 9))
    ]
    assert all("RescaleSlope or RescaleIntercept is missing in 1 of 6 images" in line for line in result.err)
    if jobs == "1":  # of several workers, one that is done with planning begins to compute
        assert (computed, list(late_fault.parent.glob("s.h5*"))) == ([], [])


def test_189_where_such_lesions_are_skipped_the_others_are_built(late_fault: Path) -> None:
    result = build_of(late_fault, "--on-error", "skip")
    assert (result.status, len(result.err)) == (1, 4)
    with open_store(late_fault.with_name("s.h5")) as store:
        assert sorted(set(store.lesions["patient_id"])) == ["P00", "P01"]


def test_190_frames_padded_to_bytes(tmp_path: Path) -> None:
    """Rows × columns of 41 × 43 pixels are no whole bytes: frames follow each other bit by bit."""
    shape = (16, 41, 43)
    ct = awkward.series(tmp_path, shape=shape)
    voxels = np.zeros(shape, np.uint8)
    voxels[SLICES[0] : SLICES[-1] + 1, 13:27, 15:29] = 1
    path = segments.write_seg(tmp_path / "seg.dcm", ct, {"Lesion": voxels})

    def padded(dataset: Dataset) -> None:
        frames = dataset.pixel_array
        dataset.PixelData = b"".join(np.packbits(frame.ravel(), bitorder="little").tobytes() for frame in frames)
        dataset.PixelData += b"\0" * (len(dataset.PixelData) % 2)

    edited(path, padded)
    refused(tmp_path, "each frame is padded to whole bytes", "export the segmentation again", mask="seg.dcm")


# -- 186, 191: what is said -----------------------------------------------------------------------------------------


def many(folder: Path, count: int = 5) -> None:
    rows = []
    for i in range(count):
        ct = awkward.series(folder, name=f"ct{i}", seed=i, hu=awkward.hu() + i, patient_id=f"A{i}")
        for path in ct.paths:
            edited(path, lambda dataset: setattr(dataset, "SpacingBetweenSlices", "7"))
        awkward.contours(folder, ct, name=f"rt{i}.dcm")
        rows.append({"patient_id": f"A{i}", "image": f"ct{i}", "mask": f"rt{i}.dcm"})
    awkward.manifest(folder, *rows)


def test_186_one_line_for_many_lesions(tmp_path: Path) -> None:
    many(tmp_path)
    said = "SpacingBetweenSlices says 7 mm, the positions 3 mm; the positions are used"
    build, check = awkward.build(tmp_path), awkward.check(tmp_path)
    for run, names in (
        (build, "A0 1, A1 1, A2 1, …"),
        (check, "patient=A0 row=2, patient=A1 row=3, patient=A2 row=4, …"),
        (awkward.run("info", tmp_path / "s.h5"), "A0 1, A1 1, A2 1, …"),
    ):
        assert [line for line in run.out if said in line] == [f"note: 5 lesions ({names}): {said}"]
    (tmp_path / "s.h5").unlink()
    for run in (
        awkward.build(tmp_path, "-v"),
        awkward.check(tmp_path, "-v"),
        awkward.run("info", "-v", tmp_path / "s.h5"),
    ):
        assert sum(said in line for line in run.out) == 5


def test_186_one_line_for_many_slices(tmp_path: Path) -> None:
    ct = awkward.series(tmp_path)
    boxes = awkward.box(ct)
    awkward.contours(tmp_path, ct, {"GTV": [*boxes, *[box[::-1] for box in boxes if box is not boxes[2]]]})
    store = awkward.built(tmp_path)
    (line,) = (line for line in store.notes.splitlines() if "drawn twice" in line)
    assert "slices 6–7, 9–11: 1 contours are drawn twice and count once" in line


def test_gathered_notes_keep_their_order_and_their_numbers() -> None:
    notes = [Note("a", "3 of 9 are x"), "plain", Note("b", "4 of 9 are x"), Note("c", "is y"), "plain"]
    assert list(gathered(notes)) == ["2 lesions (a, b), with these numbers the first: 3 of 9 are x", "plain", "c: is y"]
    notes = [Note("a", f"contour {k} is ignored") for k in (4, 6, 8)]
    assert list(gathered(notes)) == ["a, 3 times, with these numbers the first: contour 4 is ignored"]


def test_191_no_message_is_longer_than_a_message(tmp_path: Path) -> None:
    ct = awkward.series(tmp_path)
    rois = {f"{'a long name ' * 4}{i}": awkward.box(ct) for i in range(30)}
    awkward.contours(tmp_path, ct, rois)
    line = refused(tmp_path, "30 ROIs: 1 'a long name", "name one in the column roi").string
    assert len(line) <= MESSAGE_MAX
    deep = InputError("x" * 900, "do it", "folder/" * 80, "P", 3)
    assert len(str(deep)) <= MESSAGE_MAX
    assert str(deep).endswith(". Do: do it.")
    assert shortened("y" * 500, 3) == "y" * (FOUND_MIN - 1) + "…"


def test_191_a_series_uid_per_slice_is_one_short_line(tmp_path: Path) -> None:
    def own(dataset: Dataset, k: int) -> None:
        dataset.SeriesInstanceUID = synthetic.uid("own", k)

    awkward.case(tmp_path, edit=own)
    assert len(refused(tmp_path, "16 CT series of one image each").string) < 200


def test_191_of_several_series_a_few_are_listed(tmp_path: Path) -> None:
    for i in range(9):
        awkward.series(tmp_path, name=f"ct/{i}", seed=i)
    awkward.contours(tmp_path, awkward.series(tmp_path, name="other", seed=77))
    assert "and 5 others" in refused(tmp_path, "9 CT series: ", path="ct")["found"]


def test_158_179_the_recipe_keeps_what_was_accepted(tmp_path: Path) -> None:
    awkward.case(tmp_path)
    store = awkward.built(tmp_path, accept="padding units stray between")
    with open_store(store.path) as opened:
        assert opened.recipe["rows"][0]["accept"] == ["between", "padding", "stray", "units"]
