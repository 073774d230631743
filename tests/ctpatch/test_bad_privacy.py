"""What input must never do: leave a patient's text anywhere, or harm the machine (numbers as in the test names).

Every text of a poisoned file is a secret of one of two kinds: `WORD` must never be seen outside its file; `SHOWN` —
paths, names of ROIs and series, which a refusal may have to name — must never enter a store or what a build leaves.
"""

from __future__ import annotations

import contextlib
import csv
import gzip
import io
import json
import os
import re
import shutil
import stat
import struct
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import awkward
import h5py
import numpy as np
import pydicom
import pytest
import readings
import SimpleITK as sitk
import synthetic
from awkward import only
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from segments import volume, write_seg

import ctpatch.build.one_lesion
import ctpatch.dicom.dataset
from ctpatch.build.one_lesion import LesionPlan, cut_lesion
from ctpatch.build.run import build
from ctpatch.dicom import pixel_data
from ctpatch.errors import InputError
from ctpatch.images import volume as volume_file
from ctpatch.recipe import BuildOptions, Recipe
from ctpatch.store import open_store

WORD, SHOWN = "ZQ7XW", "VK3JD"
DATES = ("19431207", "134711.25", "043Y")
SMALL = BuildOptions(Recipe(patches=3, augment=1, rgb=False))
MEANT = {  # texts that say what a file is; everything else becomes a secret
    *("SpecificCharacterSet", "Modality", "PhotometricInterpretation", "ImageType", "RescaleType"),
    *("ContourGeometricType", "SegmentationType", "SegmentAlgorithmType", "SegmentationFractionalType"),
    *("LossyImageCompression", "BurnedInAnnotation", "DimensionOrganizationType", "TransferSyntaxUID"),
}
NAMES = ("ROIName", "SegmentLabel", "SeriesDescription", "ConvolutionKernel", "AcquisitionNumber", "PatientID")


# -- Poison -------------------------------------------------------------------------------------------------------


def poison(dataset: Dataset) -> None:
    """Every text of a data set becomes a secret, also in sequences, private elements and file meta information."""
    for keyword in ("InstitutionName", "OperatorsName", "PatientComments", "PatientAddress", "OtherPatientNames",
                    "ReferringPhysicianName", "DeviceSerialNumber", "ProtocolName", "ImageComments"):  # fmt: skip
        setattr(dataset, keyword, "x")
    person = Dataset()
    person.PatientName, person.PatientBirthDate, person.PatientTelephoneNumbers = "x", DATES[0], "x"
    inner = Dataset()
    inner.OtherPatientIDsSequence = [person]
    dataset.OtherPatientIDsSequence = [person, inner]
    block = dataset.private_block(0x0009, "x", create=True)
    block.add_new(0x10, "LO", "x")
    block.add_new(0x11, "UN", f"{WORD}bytes0".encode())
    block.add_new(0x12, "SQ", [person])
    dataset.walk(lambda holder, element: _poison(element))
    meta = dataset.file_meta
    meta.SourceApplicationEntityTitle = meta.ImplementationVersionName = f"{WORD}meta"
    meta.PrivateInformationCreatorUID, meta.PrivateInformation = "1.2.3.4.5.6.77", f"{WORD}info".encode()
    dataset.preamble = (b"MZ" + f"{WORD}preamble".encode()).ljust(128, b"\x90")


def _poison(element: pydicom.DataElement) -> None:
    given = {"DA": DATES[0], "TM": DATES[1], "DT": DATES[0] + DATES[1], "AS": DATES[2]}
    if (
        element.VR in {"AE", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UR", "UT", *given}
        and element.keyword not in MEANT
    ):
        kind = SHOWN if element.keyword in NAMES else WORD
        element.value = given.get(element.VR, f"{kind}{element.tag.elem:04X}{element.VR}")


def poisoned(path: Path) -> None:
    awkward.edited(path, poison)


def box() -> np.ndarray:
    """The phantom's lesion as an array."""
    voxels = np.zeros(awkward.SHAPE, np.uint8)
    voxels[5:11, 13:27, 15:29] = 1
    return voxels


def poisoned_case(folder: Path, kind: str = "rtstruct") -> tuple[synthetic.Series, str]:
    """The phantom and its lesion in a file of contours of some kind, all poisoned; and the name of that file."""
    ct = awkward.series(folder, name=f"{SHOWN}ct", names=lambda k: f"{SHOWN}{k}.dcm")
    name = f"{SHOWN}mask" + {"lidc": ".xml", "nifti": ".nii.gz", "nrrd": ".nrrd", "mha": ".mha"}.get(kind, ".dcm")
    if kind == "rtstruct":
        awkward.contours(folder, ct, name=name)
    elif kind == "seg":
        write_seg(folder / name, ct, {"Lesion": box()})
    elif kind == "lidc":
        poisoned_reading(folder / name, ct)
    else:
        sitk.WriteImage(volume(ct, box()), str(folder / name), kind != "mha")
        poisoned_volume(folder / name, kind)
    for path in (*ct.paths, *([folder / name] if name.endswith(".dcm") else [])):
        poisoned(path)
    return ct, name


def poisoned_reading(path: Path, ct: synthetic.Series) -> None:
    corners: list[tuple[float, float]] = [(14, 12), (29, 12), (29, 27), (14, 27)]
    paths = [readings.on(ct, readings.Roi(k, corners)) for k in awkward.SLICES]
    text = readings.document([[readings.Nodule(paths, f"{SHOWN}N", readings.LEVELS)]], str(ct.series_uid))
    secret = f"<ResponseDescription>{WORD}said</ResponseDescription><DateService>{DATES[0]}</DateService>"
    text = text.replace("<ResponseHeader>", f"<!-- {WORD}comment --><ResponseHeader>{secret}")
    path.write_text(text.replace("<readingSession>", f"<readingSession><servicingRadiologistID>{WORD}who"
                                                     "</servicingRadiologistID>"))  # fmt: skip


def poisoned_volume(path: Path, kind: str) -> None:
    if kind == "nifti":
        raw = bytearray(gzip.decompress(path.read_bytes()))
        raw[148:228], raw[228:252] = f"{WORD}descrip".encode().ljust(80, b"\0"), f"{WORD}aux".encode().ljust(24, b"\0")
        raw[328:344], raw[14:32] = f"{WORD}intent".encode().ljust(16, b"\0"), f"{WORD}db".encode().ljust(18, b"\0")
        path.write_bytes(gzip.compress(bytes(raw)))
    elif kind == "nrrd":
        head, data = path.read_bytes().split(b"\n\n", 1)
        path.write_bytes(head + f"\n# {WORD}comment\ncontent: {WORD}content\nname:={WORD}key".encode() + b"\n\n" + data)
    else:
        head, data = path.read_bytes().split(b"ElementDataFile = LOCAL", 1)
        path.write_bytes(head + f"Comment = {WORD}said\nPatientName = {WORD}\nElementDataFile = LOCAL".encode() + data)


KINDS = ("rtstruct", "seg", "lidc", "nifti", "nrrd", "mha")


def uids_of(folder: Path) -> set[str]:
    """Every UID of the files below a folder that is nobody's but theirs."""
    found = set()
    for path in folder.rglob("*.dcm"):
        dataset = pydicom.dcmread(path, stop_before_pixels=True)
        found |= {str(e.value) for e in dataset.iterall() if e.VR == "UI" and isinstance(e.value, str)}
    return {uid for uid in found if uid.count(".") > 4 and not uid.startswith("1.2.840.10008")}


# -- Search -------------------------------------------------------------------------------------------------------


def pieces(path: Path) -> Iterator[bytes]:
    """Everything readable in a file: its bytes, and what is compressed in them."""
    raw = path.read_bytes()
    yield raw
    if h5py.is_hdf5(path):
        with h5py.File(path) as root:
            held: list[object] = [*root.attrs.values()]
            root.visititems(lambda name, item: held.extend([name, *item.attrs.values(), *_values(item)]))
        for value in held:
            yield value if isinstance(value, bytes) else str(value).encode()
    elif zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            yield from (archive.read(name) for name in archive.namelist())


def _values(item: object) -> list[bytes]:
    return [item[()].tobytes()] if isinstance(item, h5py.Dataset) else []


def assert_clean(secrets: list[str], *places: Path | str) -> None:
    """None of the secrets is in a text, in a file, or in the name or content of anything below a folder."""
    for place in places:
        if isinstance(place, str):
            found = [place.encode()]
        elif place.is_dir():
            below = list(place.rglob("*"))
            found = [str(path.relative_to(place)).encode() for path in below]
            found += [piece for path in below if path.is_file() for piece in pieces(path)]
        else:
            found = list(pieces(place))
        content = b"\0".join(found)
        assert [secret for secret in secrets if secret.encode() in content] == []


def printed(*runs: awkward.Run) -> str:
    return "\n".join(line for run in runs for line in (*run.out, *run.err))


class Stop(Exception):
    """An interruption."""


def interrupted(folder: Path, kept: Path, manifest: Path) -> None:
    """A build stopped after its last lesion; what it leaves beside the store is copied to `kept`."""

    def stop(done: int, total: int, word: str) -> None:
        if done == total:
            shutil.copytree(folder / "s.h5.parts", kept)
            raise Stop(word)

    with contextlib.suppress(Stop):
        build(manifest, folder / "s.h5", SMALL, stop)


# -- 133, 134, 135: nothing of a patient leaves its files ---------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_133_134_135_no_text_path_or_uid_leaves_its_file(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not into the store, its parts, temporary files, or what any command prints."""
    scratch = tmp_path / "tmp"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    home = tmp_path / f"{SHOWN}study"
    home.mkdir()
    ct, name = poisoned_case(home, kind)
    manifest = awkward.manifest(home, image=ct.folder.name, mask=name)
    interrupted(tmp_path, tmp_path / "kept", manifest)
    result = awkward.run("build", "--manifest", manifest, "--out", tmp_path / "s.h5", *awkward.FAST)
    assert (result.status, result.err) == (0, ())
    more = [awkward.run(command, tmp_path / "s.h5") for command in ("info", "verify")]
    checked = awkward.check(home)
    assert [run.status for run in (*more, checked)] == [0, 0, 0]
    uids = uids_of(home)
    assert len(uids) > 10
    secrets = [WORD, *DATES, *uids]
    assert any(WORD.encode() in piece for path in home.rglob("*.dcm") for piece in pieces(path))
    assert_clean([*secrets, SHOWN], tmp_path / "s.h5", tmp_path / "kept", scratch, printed(result, *more))
    assert_clean(secrets, printed(checked))
    assert SHOWN not in printed(checked).replace(str(manifest), "")  # the command was called with that path
    with open_store(tmp_path / "s.h5") as store:
        assert store.lesions.patient_id.tolist() == ["P1"]  # the manifest's own id is what a store is for
        assert re.fullmatch("[0-9a-f]{64}", store.lesions.series[0])


def test_133_134_135_no_text_path_or_uid_gets_onto_the_page(tmp_path: Path) -> None:
    """Not as it is, and not when its contours can no longer be read."""
    home, page = tmp_path / f"{SHOWN}study", tmp_path / "page.html"
    home.mkdir()
    ct, name = poisoned_case(home)
    manifest = awkward.manifest(home, image=ct.folder.name, mask=name)
    assert awkward.run("build", "--manifest", manifest, "--out", tmp_path / "s.h5", *awkward.FAST).status == 0
    secrets = [WORD, SHOWN, *DATES, *uids_of(home), str(tmp_path)]
    for spoil in (lambda *where: None, halve):
        spoil(home, ct)
        assert awkward.run("report", tmp_path / "s.h5", "--manifest", manifest, "--out", page).status == 0
        assert_clean(secrets, page)
        assert page.stat().st_mode & 0o077 == 0
    assert "cannot be read any more" in page.read_text()


def test_134_kept_uids_are_those_of_series_and_nothing_else(tmp_path: Path) -> None:
    ct, name = poisoned_case(tmp_path)
    awkward.manifest(tmp_path, image=ct.folder.name, mask=name)
    assert awkward.build(tmp_path, "--keep-uids").status == 0
    with open_store(tmp_path / "s.h5") as store:
        assert store.lesions.series.tolist() == [ct.series_uid]
    assert_clean([WORD, SHOWN, *DATES, *(uids_of(tmp_path) - {ct.series_uid})], tmp_path / "s.h5")


def break_lidc(folder: Path, ct: synthetic.Series) -> None:
    path = folder / f"{SHOWN}mask.xml"
    path.write_text(path.read_text().replace("<xCoord>14", "<xCoord>far", 1))


def break_slices(**elements: object) -> Callable[[Path, synthetic.Series], None]:
    def spoil(folder: Path, ct: synthetic.Series) -> None:
        awkward.edited(ct.paths[8], lambda dataset: only(8, **elements)(dataset, 8))

    return spoil


def cut(k: int, lost: int) -> Callable[[Path, synthetic.Series], None]:
    def spoil(folder: Path, ct: synthetic.Series) -> None:
        ct.paths[k].write_bytes(ct.paths[k].read_bytes()[:-lost])

    return spoil


def halve(folder: Path, ct: synthetic.Series) -> None:
    (path,) = folder.glob(f"{SHOWN}mask*")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def drop(keyword: str) -> Callable[[Path, synthetic.Series], None]:
    def spoil(folder: Path, ct: synthetic.Series) -> None:
        awkward.edited(folder / f"{SHOWN}mask.dcm", lambda dataset: delattr(dataset, keyword))

    return spoil


def change(**elements: object) -> Callable[[Path, synthetic.Series], None]:
    def spoil(folder: Path, ct: synthetic.Series) -> None:
        awkward.edited(folder / f"{SHOWN}mask.dcm", lambda dataset: only(0, **elements)(dataset, 0))

    return spoil


def again(folder: Path, ct: synthetic.Series) -> None:
    shutil.copy(ct.paths[8], ct.folder / f"{SHOWN}again.dcm")
    awkward.edited(ct.folder / f"{SHOWN}again.dcm", lambda dataset: setattr(dataset, "ImageComments", f"{WORD}2"))


def frames_apart(folder: Path, ct: synthetic.Series) -> None:
    def other(dataset: Dataset) -> None:
        for item in dataset.StructureSetROISequence:
            item.ReferencedFrameOfReferenceUID = "1.2.3.4.5.6.99"

    awkward.edited(folder / f"{SHOWN}mask.dcm", other)


FAILURES: dict[str, tuple[str, Callable[[Path, synthetic.Series], None]]] = {
    "a slice is missing": ("rtstruct", lambda folder, ct: ct.paths[8].unlink()),
    "a slice is cut off": ("rtstruct", cut(8, 100)),
    "a header is cut off": ("rtstruct", cut(8, 3600)),
    "another spacing": ("rtstruct", break_slices(PixelSpacing=[3, 3])),
    "no rescale": ("rtstruct", break_slices(RescaleSlope=None)),
    "a slope that is text": ("rtstruct", break_slices(RescaleType="OTHER")),
    "no position": ("rtstruct", break_slices(ImagePositionPatient=None)),
    "burned-in text": ("rtstruct", break_slices(BurnedInAnnotation="YES")),
    "colour": ("rtstruct", break_slices(PhotometricInterpretation="RGB")),
    "another frame of reference": ("rtstruct", frames_apart),
    "one UID, two contents": ("rtstruct", again),
    "contours cut off": ("rtstruct", halve),
    "no contours": ("rtstruct", drop("ROIContourSequence")),
    "contours that are a plan": ("rtstruct", change(SOPClassUID="1.2.840.10008.5.1.4.1.1.481.5", Modality="RTPLAN")),
    "a segmentation cut off": ("seg", halve),
    "no segments": ("seg", drop("SegmentSequence")),
    "no frames": ("seg", drop("PerFrameFunctionalGroupsSequence")),
    "another kind of segmentation": ("seg", change(SegmentationType="HOLOGRAM")),
    "a segmentation of other rows": ("seg", change(Rows=41)),
    "a garbled reading": ("lidc", break_lidc),
    "a reading cut off": ("lidc", halve),
    "a label map cut off": ("nifti", halve),
    "a garbled header": ("nrrd", lambda folder, ct: (folder / f"{SHOWN}mask.nrrd").write_bytes(
        (folder / f"{SHOWN}mask.nrrd").read_bytes().replace(b"space origin: (", b"space origin: (x"))),
    "an unknown element type": ("mha", lambda folder, ct: (folder / f"{SHOWN}mask.mha").write_bytes(
        (folder / f"{SHOWN}mask.mha").read_bytes().replace(b"MET_UCHAR", b"MET_STRING"))),
}  # fmt: skip


@pytest.mark.parametrize(("kind", "spoil"), FAILURES.values(), ids=FAILURES)
def test_135_a_refusal_names_no_patient(
    tmp_path: Path, kind: str, spoil: Callable[[Path, synthetic.Series], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither on stdout and stderr, nor in the store that the refused lesion is left out of."""
    scratch = tmp_path / "tmp"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    ct, name = poisoned_case(tmp_path, kind)
    awkward.series(tmp_path, name="good", seed=5, hu=awkward.hu() + 50)
    spoil(tmp_path, ct)
    centre = " ".join(f"{v:g}" for v in np.array(awkward.ORIGIN) + 20)
    fine = {"patient_id": "P2", "image": "good", "mask": "", "center": centre, "split": "test"}
    bad = {"image": ct.folder.name, "mask": name}
    manifest = awkward.manifest(tmp_path, bad, fine)
    stopped, checked = awkward.build(tmp_path), awkward.check(tmp_path)
    assert (stopped.status, checked.status, len(stopped.err)) == (2, 2, 1), stopped
    assert "patient=P1 row=2" in stopped.err[0]
    skipped = awkward.build(tmp_path, "--on-error", "skip")
    assert skipped.status == 1
    words = printed(stopped, checked, skipped)
    for given in (manifest, tmp_path / "s.h5"):  # the command was called with these
        words = words.replace(str(given), "")
    assert_clean([WORD, *DATES, str(tmp_path)], words)
    with open_store(tmp_path / "s.h5") as store:
        assert store.skipped.patient_id.tolist() == ["P1"]
    assert_clean([WORD, SHOWN, *DATES, *uids_of(tmp_path)], tmp_path / "s.h5", scratch)


def test_135_scan_prints_no_name(tmp_path: Path) -> None:
    """Its manifest holds PatientIDs, which it is for; its notes hold paths below the folder that was scanned."""
    for kind in KINDS:
        (tmp_path / kind).mkdir()
        poisoned_case(tmp_path / kind, kind)
    result = awkward.run("scan", tmp_path, "--out", tmp_path / "m.csv")
    assert result.status == 0
    assert_clean([WORD, *DATES, str(tmp_path)], printed(result).replace(str(tmp_path / "m.csv"), ""))
    assert_clean([WORD, *DATES, str(tmp_path)], (tmp_path / "m.csv").read_text())


def test_133_135_a_training_run_holds_no_text_of_a_patient(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    from mtltrain.cli import main

    rows = []
    for i, split in enumerate(("train", "train", "train", "val", "val", "test", "test")):
        home = tmp_path / f"{SHOWN}{i}"
        home.mkdir()
        ct = awkward.series(home, name=f"{SHOWN}ct", seed=i, hu=awkward.hu() + 40 * i)
        awkward.contours(home, ct)
        for path in (*ct.paths, home / "rt.dcm"):
            poisoned(path)
        rows.append({"patient_id": f"P{i}", "image": f"{home.name}/{SHOWN}ct", "mask": f"{home.name}/rt.dcm",
                     "label": f"T{3 + i % 2}", "split": split})  # fmt: skip
    awkward.manifest(tmp_path, *rows)
    assert awkward.build(tmp_path).status == 0
    out, err = io.StringIO(), io.StringIO()
    fast = ("--backbone", "shufflenet_v2_x0_5", "--epochs", "1", "--arch", "stl-ri", "--device", "cpu")
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        assert main(["fit", str(tmp_path / "s.h5"), *fast]) == 0
    assert (tmp_path / "s-mtltrain" / "report.html").stat().st_size > 1000
    secrets = [WORD, SHOWN, *DATES, *uids_of(tmp_path)]
    assert_clean(secrets, tmp_path / "s.h5", tmp_path / "s-mtltrain", out.getvalue(), err.getvalue())


# -- 136, 137: what a header says of the picture ------------------------------------------------------------------


@pytest.mark.parametrize("k", [0, 8, 15])
@pytest.mark.parametrize("value", ["YES", "yes", " YES "])
def test_136_burned_in_text_is_refused_in_any_slice(tmp_path: Path, k: int, value: str) -> None:
    ct = awkward.case(tmp_path)
    path = ct.paths[k]
    awkward.edited(path, lambda dataset: dataset.add_new("BurnedInAnnotation", "LO", value))
    awkward.refused(tmp_path, "BurnedInAnnotation is YES", "without burned-in text", path=f"ct/{path.name}")


def test_136_a_secondary_capture_is_no_ct(tmp_path: Path) -> None:
    def captured(dataset: Dataset, k: int) -> None:
        dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.7"

    awkward.case(tmp_path, edit=captured)
    awkward.refused(tmp_path, r"no CT image among 16 files, .*\(Secondary Capture Image\)", path="ct")


def test_137_the_readme_warns_that_a_head_ct_shows_the_face() -> None:
    readme = Path(__file__).parents[2] / "README.md"
    assert "store of the head contains the face" in readme.read_text(encoding="utf-8")


# -- 138: programs and nesting ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "preamble", [b"MZ\x90\0", b"\x7fELF\2\1", b"#!/bin/sh\nexit 1\n", b"II*\0", b"PK\3\4"], ids=str
)
@pytest.mark.parametrize("kind", ["rtstruct", "seg"])
def test_138_a_program_in_the_preamble_is_not_copied(tmp_path: Path, preamble: bytes, kind: str) -> None:
    ct = awkward.series(tmp_path)
    awkward.contours(tmp_path, ct, name="mask.dcm")
    if kind == "seg":
        write_seg(tmp_path / "mask.dcm", ct, {"Lesion": box()})
    code = (preamble + b"EVILCODE").ljust(128, b"\xcc")
    for path in (*ct.paths, tmp_path / "mask.dcm"):
        path.write_bytes(code + path.read_bytes()[128:])
    store = awkward.built(tmp_path, mask="mask.dcm")
    awkward.assert_linear(store, ct)
    assert_clean(["EVILCODE"], store.path)


def nested(depth: int, undefined: bool = True) -> bytes:
    """A private sequence in a sequence in a sequence …, explicit VR little endian."""
    if undefined:
        one, last = b"\x09\0\x10\x10SQ\0\0\xff\xff\xff\xff\xfe\xff\0\xe0\xff\xff\xff\xff", b""
        end = b"\xfe\xff\x0d\xe0\0\0\0\0\xfe\xff\xdd\xe0\0\0\0\0"
        return one * depth + last + end * depth
    inside = b""
    for _ in range(depth):
        inside = struct.pack("<4sI", b"\xfe\xff\0\xe0", len(inside)) + inside
        inside = b"\x09\0\x10\x10SQ\0\0" + struct.pack("<I", len(inside)) + inside
    return inside


def bury(path: Path, sequences: bytes) -> None:
    """Insert an element of group 0009 before the first one of group 0010 or higher."""
    raw = path.read_bytes()
    at = re.search(rb"\x10\0\x10\0PN", raw).start()  # type: ignore[union-attr]
    path.write_bytes(raw[:at] + sequences + raw[at:])


@pytest.mark.parametrize("depth", [300, 1000, 20_000])
@pytest.mark.parametrize("where", ["ct", "rtstruct", "seg"])
def test_138_deep_nesting_is_refused(tmp_path: Path, depth: int, where: str) -> None:
    ct = awkward.series(tmp_path)
    awkward.contours(tmp_path, ct, name="mask.dcm")
    if where == "seg":
        write_seg(tmp_path / "mask.dcm", ct, {"Lesion": box()})
    path = ct.paths[8] if where == "ct" else tmp_path / "mask.dcm"
    bury(path, nested(depth))
    place = f"ct/{path.name}" if where == "ct" else "mask.dcm"
    awkward.refused(tmp_path, "sequences are nested deeper than 32|not readable", path=place, mask="mask.dcm")


@pytest.mark.parametrize("depth", [300, 20_000])
@pytest.mark.parametrize("where", ["ct", "rtstruct"])
def test_138_deep_nesting_in_a_deflated_file_is_refused(tmp_path: Path, depth: int, where: str) -> None:
    """pydicom reads these, which calls itself for each level."""
    ct = awkward.case(tmp_path)
    path = ct.paths[8] if where == "ct" else tmp_path / "rt.dcm"
    bury(path, nested(depth))
    deflated(path, lambda raw: raw)
    place = f"ct/{path.name}" if where == "ct" else "rt.dcm"
    awkward.refused(tmp_path, "not readable as DICOM|nested", path=place)


def test_138_deep_nesting_with_lengths_is_passed_over(tmp_path: Path) -> None:
    """Nothing asks for what is in a private sequence, so its depth does no harm."""
    ct = awkward.case(tmp_path)
    for path in (ct.paths[8], tmp_path / "rt.dcm"):
        bury(path, nested(500, undefined=False))
    awkward.assert_linear(awkward.built(tmp_path), ct)


# -- 139: bombs ---------------------------------------------------------------------------------------------------


def after_meta(raw: bytes) -> int:
    """Where the data set begins."""
    (length,) = struct.unpack("<I", raw[140:144])
    return 144 + int(length)


def deflated(path: Path, change: Callable[[bytes], bytes]) -> None:
    """Rewrite an explicit little-endian file in the Deflated transfer syntax, its deflated bytes changed."""
    raw = path.read_bytes()
    meta, body = raw[: after_meta(raw)], raw[after_meta(raw) :]
    named = meta.replace(b"UI\x14\x001.2.840.10008.1.2.1\0", b"UI\x16\x001.2.840.10008.1.2.1.99")
    assert len(named) == len(meta) + 2
    named = named[:140] + struct.pack("<I", len(named) - 144) + named[144:]
    squeeze = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    path.write_bytes(named + change(squeeze.compress(body) + squeeze.flush()))


def zeros(megabytes: int) -> bytes:
    """A raw deflate stream of so many MB of zeros, without its end."""
    squeeze = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    once = squeeze.compress(bytes(2**20)) + squeeze.flush(zlib.Z_FULL_FLUSH)
    return once * megabytes


def bomb(path: Path, megabytes: int) -> None:
    """A Deflated file whose data set goes on with a huge private element."""
    raw = path.read_bytes()
    begin = after_meta(raw)
    at = re.search(rb"\x10\0\x10\0PN", raw).start()  # type: ignore[union-attr]
    element = b"\x09\0\x10\x10OB\0\0" + struct.pack("<I", megabytes * 2**20)
    squeeze = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    first = squeeze.compress(raw[begin:at] + element) + squeeze.flush(zlib.Z_FULL_FLUSH)
    rest = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    deflated(path, lambda body: first + zeros(megabytes) + rest.compress(raw[at:]) + rest.flush())


@pytest.mark.parametrize("where", ["ct", "rtstruct", "seg"])
def test_139_a_deflate_bomb_is_refused_before_it_inflates(
    tmp_path: Path, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ct = awkward.series(tmp_path)
    awkward.contours(tmp_path, ct, name="mask.dcm")
    if where == "seg":
        write_seg(tmp_path / "mask.dcm", ct, {"Lesion": box()})
    path = ct.paths[8] if where == "ct" else tmp_path / "mask.dcm"
    bomb(path, 8)
    awkward.assert_linear(awkward.built(tmp_path, mask="mask.dcm"), ct)  # a bomb no larger than what is allowed
    (tmp_path / "s.h5").unlink()
    monkeypatch.setattr(ctpatch.dicom.dataset, "MAX_INFLATED", 2**22)
    monkeypatch.setattr(zlib, "decompress", lambda *arguments: pytest.fail("it was inflated"))
    place = f"ct/{path.name}" if where == "ct" else "mask.dcm"
    awkward.refused(tmp_path, "inflates to more than 4 MB", "uncompressed", path=place, mask="mask.dcm")


@pytest.mark.parametrize("syntax", ["j2k", "jpeg-ls", "jpeg-lossless"])
@pytest.mark.parametrize("size", [(65535, 65535), (65535, 44), (41, 44)], ids=str)
def test_139_a_stream_that_says_another_size_is_refused_before_it_is_decoded(
    tmp_path: Path, syntax: str, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The DICOM header says 40 × 44; the coded stream asks for room for up to 4 294 836 225 pixels."""

    def lie(dataset: Dataset, k: int) -> None:
        if k == 8:
            frame = bytearray(pydicom.encaps.get_frame(dataset.PixelData, 0, number_of_frames=1))
            if syntax == "j2k":
                at = frame.index(b"\xff\x4f\xff\x51") + 8
                struct.pack_into(">II", frame, at, size[1], size[0])
                struct.pack_into(">II", frame, at + 16, size[1], size[0])
            else:
                at = re.search(rb"\xff[\xf7\xc3]\0\x0b", bytes(frame)).start()  # type: ignore[union-attr]
                struct.pack_into(">HH", frame, at + 5, *size)
            dataset.PixelData = encapsulate([bytes(frame)])
            dataset["PixelData"].is_undefined_length = True

    ct = awkward.case(tmp_path, transfer_syntax=syntax, edit=lie)
    assert_undecoded(tmp_path, ct, rf"pixel data is \({size[0]}, {size[1]}\), the header says \(40, 44\)", monkeypatch)


def assert_undecoded(folder: Path, ct: synthetic.Series, found: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the stream shows it, so `check` cannot know; the build refuses it before a decoder sees it."""
    import pydicom.pixels.utils

    iter_pixels = pydicom.pixels.utils.iter_pixels

    def guarded(dataset: Dataset, **options: object) -> Iterator[np.ndarray]:
        assert dataset.SOPInstanceUID != ct.sop_uids[8]
        return iter_pixels(dataset, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(pydicom.pixels.utils, "iter_pixels", guarded)
    monkeypatch.setattr(pixel_data, "_decoder", lambda *_: lambda function, *arguments: function(*arguments))
    awkward.manifest(folder)
    result = awkward.build(folder)
    assert result.status == 2
    assert not (folder / "s.h5").exists()
    (line,) = result.err
    assert re.search(f"patient=P1 row=2 ct/0008.dcm: {found}", line), line


def test_139_a_stream_of_many_samples_is_refused_before_it_is_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lie(dataset: Dataset, k: int) -> None:
        if k == 8:
            frame = bytearray(pydicom.encaps.get_frame(dataset.PixelData, 0, number_of_frames=1))
            struct.pack_into(">H", frame, frame.index(b"\xff\x4f\xff\x51") + 40, 16384)
            dataset.PixelData = encapsulate([bytes(frame)])
            dataset["PixelData"].is_undefined_length = True

    ct = awkward.case(tmp_path, transfer_syntax="j2k", edit=lie)
    assert_undecoded(tmp_path, ct, "pixel data has 16384 samples per pixel, not 1", monkeypatch)


def test_139_a_segmentation_whose_stream_says_another_size_is_refused(tmp_path: Path) -> None:
    def encode(dataset: Dataset) -> None:
        size = b"\xff\x4f\xff\x51\0\x2f\0\0" + struct.pack(">8I", 65535, 65535, 0, 0, 65535, 65535, 0, 0) + b"\0\1"
        dataset.PixelData = encapsulate([size] * int(dataset.NumberOfFrames))
        dataset["PixelData"].is_undefined_length = True
        dataset.file_meta.TransferSyntaxUID = synthetic.TRANSFER_SYNTAXES["j2k"]

    ct = awkward.series(tmp_path)
    write_seg(tmp_path / "seg.dcm", ct, {"Lesion": box()}, "FRACTIONAL", edit=encode)
    awkward.refused(tmp_path, r"pixel data is \(65535, 65535\)", path="seg.dcm", mask="seg.dcm")


HUGE = (1200, 1200, 1200)


def nifti(size: tuple[int, int, int], code: int, bits: int) -> bytes:
    header = bytearray(352)
    struct.pack_into("<i", header, 0, 348)
    struct.pack_into("<8h", header, 40, 3, *size, 1, 1, 1, 1)
    struct.pack_into("<hh", header, 70, code, bits)
    struct.pack_into("<8f", header, 76, 1, 1, 1, 1, 0, 0, 0, 0)
    struct.pack_into("<f", header, 108, 352)
    struct.pack_into("<h", header, 254, 1)
    struct.pack_into("<12f", header, 280, -1, 0, 0, 0, 0, -1, 0, 0, 0, 0, 1, 0)
    header[344:348] = b"n+1\0"
    return bytes(header)


def gz(head: bytes, megabytes: int) -> bytes:
    """A gzip member that begins with `head` and goes on with zeros."""
    squeeze = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    start = squeeze.compress(head) + squeeze.flush(zlib.Z_FULL_FLUSH)
    return b"\x1f\x8b\x08\0\0\0\0\0\0\xff" + start + zeros(megabytes)


def write_bomb(path: Path, size: tuple[int, int, int] = HUGE) -> None:
    """A volume file that declares `size` voxels of 8 bytes, and has the compressed bytes to be believed."""
    i, j, k = size
    megabytes = i * j * k * 8 >> 20
    grid = f"{i} {j} {k}"
    text = {
        ".nrrd": f"NRRD0004\ntype: double\ndimension: 3\nspace: left-posterior-superior\nsizes: {grid}\n"
        "space directions: (1,0,0) (0,1,0) (0,0,1)\nendian: little\nencoding: gzip\nspace origin: (0,0,0)\n\n",
        ".mha": "ObjectType = Image\nNDims = 3\nBinaryData = True\nBinaryDataByteOrderMSB = False\n"
        "CompressedData = True\nTransformMatrix = 1 0 0 0 1 0 0 0 1\nOffset = 0 0 0\nElementSpacing = 1 1 1\n"
        f"DimSize = {grid}\nElementType = MET_DOUBLE\nElementDataFile = LOCAL\n",
    }
    if path.suffix == ".gz":
        path.write_bytes(gz(nifti(size, 64, 64), megabytes))
    else:
        body = gz(b"", megabytes) if path.suffix == ".nrrd" else b"\x78\x9c" + zeros(megabytes)
        path.write_bytes(text[path.suffix].encode() + body)


@pytest.mark.parametrize("name", ["bomb.nii.gz", "bomb.nrrd", "bomb.mha"])
@pytest.mark.parametrize("role", ["image", "mask"])
def test_139_a_volume_bomb_is_refused_before_it_inflates(
    tmp_path: Path, name: str, role: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """13 GB of zeros in 13 MB, which the ratio alone allows."""
    awkward.case(tmp_path)
    write_bomb(tmp_path / name)
    assert (tmp_path / name).stat().st_size < 2**26
    monkeypatch.setattr(volume_file, "_inflate", lambda *arguments: pytest.fail("it was inflated"))
    cells = {role: name, "accept": "resample" if role == "mask" else ""}
    found = r"\d+ compressed bytes inflate to 13183 MB, more than 4096"
    awkward.refused(tmp_path, found, "save it uncompressed", path=name, **cells)


@pytest.mark.parametrize("name", ["bomb.nii.gz", "bomb.nrrd", "bomb.mha"])
@pytest.mark.parametrize("lie", ["too little", "too much"])
def test_139_a_volume_that_inflates_to_another_size_is_refused(tmp_path: Path, name: str, lie: str) -> None:
    ct = awkward.case(tmp_path)
    sitk.WriteImage(volume(ct, box()), str(tmp_path / name), True)
    raw = (tmp_path / name).read_bytes()
    if lie == "too little":
        write_bomb(tmp_path / name, (600, 600, 600))
        (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:100_000])
        found = "compressed bytes cannot hold the 1728000000 declared"
    else:
        body = {".gz": b"", ".nrrd": b"\n\n", ".mha": b"LOCAL\n"}[Path(name).suffix]
        at = raw.index(body) + len(body)
        head = zlib.decompress(raw[at:], 47)[:352] if not body else b""
        stream = gz(head, 3) if name != "bomb.mha" else b"\x78\x9c" + zeros(3)
        (tmp_path / name).write_bytes(raw[:at] + stream)
        found = "more voxels than the .* bytes that the header declares"
    awkward.refused(tmp_path, found, path=name, mask=name)


BOUNDED = """
import resource, sys
from ctpatch.cli import main

def build(name):
    return main(["build", "--manifest", f"{name}/m.csv", "--out", f"{name}/s.h5", "--patches", "3", "--no-rgb"])

assert build("good") == 0  # everything is loaded and compiled now
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 2**28, used + 2**28))
assert [build(name) for name in sys.argv[1:]] == [2] * len(sys.argv[1:])
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_139_bombs_are_refused_within_256_mb(tmp_path: Path) -> None:
    """600 MB to 13 GB each, in a process that may take no more than 256 MB on top of what a plain build takes."""
    for name in ("good", "deflate", "contours", "nifti", "j2k"):
        (tmp_path / name).mkdir()
        ct = awkward.case(tmp_path / name, transfer_syntax="j2k" if name == "j2k" else "explicit")
        awkward.manifest(tmp_path / name, image="bomb.nii.gz" if name == "nifti" else "ct")
        if name == "deflate":
            bomb(ct.paths[8], 600)
        elif name == "contours":
            bomb(tmp_path / name / "rt.dcm", 600)
        elif name == "nifti":
            write_bomb(tmp_path / name / "bomb.nii.gz")
        elif name == "j2k":
            raw = bytearray(ct.paths[8].read_bytes())
            at = raw.index(b"\xff\x4f\xff\x51") + 8
            struct.pack_into(">II", raw, at, 65535, 65535)
            struct.pack_into(">II", raw, at + 16, 65535, 65535)
            ct.paths[8].write_bytes(raw)
    command = [sys.executable, "-c", BOUNDED, "deflate", "contours", "nifti", "j2k"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    refusals = [line for line in done.stderr.splitlines() if line.startswith("ctpatch: ")]
    for line, found in zip(
        refusals, ("inflates to more than 512 MB", "inflates to more than 512 MB", "inflate to", "65535"), strict=True
    ):
        assert found in line


@pytest.mark.parametrize("name", ["study.zip", "study.nii.gz", "study.dcm", "study.xml"])
def test_139_a_zip_is_no_input_whatever_its_name(tmp_path: Path, name: str) -> None:
    awkward.case(tmp_path)
    with zipfile.ZipFile(tmp_path / name, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("rt.dcm", bytes(2**22))
    awkward.refused(tmp_path, "no DICOM file|NIfTI header|not readable as DICOM|well-formed", path=name, mask=name)


# -- 140: who may read it -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("jobs", ["1", "2"])
@pytest.mark.parametrize("folds", [False, True])
def test_140_only_the_owner_can_read_a_store_and_its_parts(tmp_path: Path, jobs: str, folds: bool) -> None:
    """Also where the system would let everybody read and write new files."""
    rows = []
    for i in range(6):
        ct = awkward.series(tmp_path, name=f"ct{i}", seed=i, hu=awkward.hu() + 40 * i)
        awkward.contours(tmp_path, ct, name=f"rt{i}.dcm")
        rows.append({"patient_id": f"P{i}", "image": f"ct{i}", "mask": f"rt{i}.dcm", "label": f"T{3 + i % 2}"})
    manifest = synthetic.write_manifest(tmp_path / "m.csv", rows)
    seen: dict[str, int] = {}

    def look(done: int, total: int, word: str) -> None:
        for path in tmp_path.glob("*.parts"):
            for item in (path, *path.iterdir()):
                with contextlib.suppress(FileNotFoundError):  # a worker has just done with a plan
                    seen[re.sub(r"[0-9a-f]{32}", "LESION", item.name)] = stat.S_IMODE(item.stat().st_mode)

    options = BuildOptions(SMALL.recipe, jobs=int(jobs), fold=(1, 3) if folds else None)
    before = os.umask(0)
    try:
        build(manifest, tmp_path / "s.h5", options, look)
    finally:
        os.umask(before)
    assert {"lock", "plan.json", "store.tmp", "LESION.part"} <= set(seen)
    assert {name: mode for name, mode in seen.items() if mode & 0o077} == {}
    assert stat.S_IMODE((tmp_path / "s.h5").stat().st_mode) == 0o600


@pytest.mark.parametrize("bad", ["", "P1", "P2"])
def test_140_a_build_that_is_refused_leaves_its_parts_to_the_owner(
    tmp_path: Path, bad: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For what its pixels show: headers are read before there is a part."""

    def cut(plan: LesionPlan, *arguments: Any, **options: Any) -> Any:
        if plan.row.patient_id == bad:
            raise InputError("its pixels are wrong", "mend them", plan.row.image)
        return cut_lesion(plan, *arguments, **options)

    monkeypatch.setattr(ctpatch.build.one_lesion, "cut_lesion", cut)
    rows = []
    for seed, name in enumerate(("P0", "P1", "P2")):
        ct = awkward.series(tmp_path, name=name, seed=seed, hu=awkward.hu() + 40 * seed)
        awkward.contours(tmp_path, ct, name=f"{name}.dcm")
        rows.append({"patient_id": name, "image": name, "mask": f"{name}.dcm", "lesion_id": name})
    awkward.manifest(tmp_path, *rows)
    before = os.umask(0)
    try:
        assert awkward.build(tmp_path).status == (2 if bad else 0)
    finally:
        os.umask(before)
    left = [tmp_path / "s.h5.parts", *tmp_path.glob("s.h5.parts/*")] if bad else [tmp_path / "s.h5"]
    assert len(left) >= (3 if bad else 1)
    assert [path for path in left if stat.S_IMODE(path.stat().st_mode) & 0o077] == []


def test_140_the_parts_of_a_build_tell_nobody_whose_they_are(tmp_path: Path) -> None:
    ct, name = poisoned_case(tmp_path)
    manifest = awkward.manifest(tmp_path, image=ct.folder.name, mask=name, patient_id="P1SECRET")
    interrupted(tmp_path, tmp_path / "kept", manifest)
    names = sorted(path.name for path in (tmp_path / "kept").iterdir())
    assert len(names) == 4
    assert not any("P1SECRET" in part for part in names)
    plan = json.loads((tmp_path / "kept" / "plan.json").read_text())
    assert re.fullmatch("[0-9a-f]{64}", plan["manifest"])


# -- 105: what ctpatch writes as CSV ------------------------------------------------------------------------------


@pytest.mark.parametrize("cell", ["=HYPERLINK(1)", "+cmd", "@SUM(A1)", "-A1"])
def test_105_the_phantom_s_manifest_holds_no_formula(tmp_path: Path, cell: str) -> None:
    cells = {"patient_id": "P1", "label": cell, "split": "train", "note": cell, "aux_margin": "-1"}
    manifest = synthetic.write_manifest(tmp_path / "in.csv", [cells])
    result = awkward.run("phantom", "--manifest", manifest, "--out", tmp_path / "out")
    assert (result.status, result.err[:-1]) == (0, ())
    with open(tmp_path / "out" / "in.csv", newline="", encoding="utf-8") as file:
        (row,) = csv.DictReader(file)
    assert (row["label"], row["note"], row["aux_margin"]) == (f"'{cell}", f"'{cell}", "-1")


@pytest.mark.parametrize("roi", ["=1+1", "+x", "@x", "-x"])
def test_105_the_phantom_has_no_roi_that_is_a_formula(tmp_path: Path, roi: str) -> None:
    """It could not stand in a manifest as it is."""
    row = {"patient_id": "P1", "label": "a", "roi": roi}
    manifest = synthetic.write_manifest(tmp_path / "in.csv", [row])
    result = awkward.run("phantom", "--manifest", manifest, "--out", tmp_path / "out")
    assert result.status == 2
    assert "cannot name a DICOM ROI" in result.err[0]
