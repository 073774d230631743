"""The fuzz targets for a moment, and what longer runs of them (benchmarks/fuzz.py) have found."""

from __future__ import annotations

import hashlib
import re
import struct
import subprocess
import sys
import tracemalloc
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fuzz.target import Target, Wrong, accepted, place
from fuzz.targets import TARGETS
from fuzz.worker import Counts, Judge, run

from ctpatch.contours.lidc import read_lidc
from ctpatch.dicom.dataset import read_dataset
from ctpatch.errors import InputError
from ctpatch.store.schema import SEAL_BYTES

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def targets(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Target]:
    made: dict[str, Target] = {}

    def target(name: str) -> Target:
        if name not in made:
            made[name] = TARGETS[name](tmp_path_factory.mktemp(name))
        return made[name]

    return target


@pytest.mark.parametrize("name", TARGETS)
def test_sound_inputs_are_read_and_judged_right(targets: Callable[[str], Target], name: str) -> None:
    target = targets(name)
    for data in target.seeds:
        target.judge(target.read(data), data)


@pytest.mark.parametrize("name", [name for name in TARGETS if name != "store"])  # libhdf5 gets a process of its own
def test_mutations_are_refused_or_read_right(targets: Callable[[str], Target], name: str, tmp_path: Path) -> None:
    judge = Judge(targets(name), Counts(tmp_path / "counts"), tmp_path)
    run(judge, 0, inputs=150)
    inputs, good, refused, finds = judge.counts.values.tolist()
    assert (inputs, finds) == (150, 0), judge.seen
    assert min(good, refused) > 0


def test_runner_prints_its_tally(tmp_path: Path) -> None:
    command = [
        sys.executable,
        ROOT / "benchmarks" / "fuzz.py",
        "--target",
        "store",
        "--inputs",
        "150",
        "--finds",
        tmp_path,
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    tally = re.search(r"^all +150 +(\d+) +(\d+) +0$", done.stdout, re.MULTILINE)
    assert tally, done.stdout
    assert int(tally[1]) + int(tally[2]) == 150


# ------------------------------------------------------------------------------------------------- they can fail

Tamper = Callable[[Any], Any]


def _flipped(roi: Any) -> Any:
    voxels = roi.voxels.copy()
    voxels[0, 0, 0] ^= True
    return replace(roi, voxels=voxels)


def _moved(read: Any) -> Any:
    lesion = read.lesions[0]
    return replace(read, lesions=(replace(lesion, voxels=lesion.voxels + np.array([0, 1, 0])), *read.lesions[1:]))


TAMPERED: dict[str, Tamper] = {
    "manifest": lambda manifest: replace(manifest, rows=manifest.rows[1:]),
    "header": lambda header: replace(header, values=header.values | {"Rows": 17}),
    "series": lambda found: (found[0], found[1] + 1),
    "enhanced": lambda found: (found[0], found[1][::-1]),
    "rtstruct": lambda plan: replace(plan, mask=_flipped(plan.mask)),
    "lidc": _moved,
    "seg": _flipped,
    "volume": lambda found: (found[0], found[1][:, ::-1]),
    "labelmap": lambda found: (replace(found[0], corner=(0, 0, 0)), found[1]),
    "segmentation": _flipped,
    "store": lambda found: "another",
    "part": lambda found: "another",
}


@pytest.mark.parametrize("name", TAMPERED)
def test_what_was_read_wrong_is_found(targets: Callable[[str], Target], name: str) -> None:
    target = targets(name)
    result = target.read(target.seeds[0])
    with pytest.raises(Wrong):
        target.judge(TAMPERED[name](result), target.seeds[0])


def test_a_table_that_a_spreadsheet_runs_is_found(targets: Callable[[str], Target]) -> None:
    from fuzz.masks import judge_table

    target = targets("scan")
    target.read(target.seeds[0])
    table = next(Path(tmp) for tmp in [target.judge.__closure__[0].cell_contents])
    table.write_text(table.read_text(encoding="utf-8").replace("GTV", "=GTV"), encoding="utf-8")
    with pytest.raises(Wrong):
        judge_table(table)


def test_an_exception_a_warning_and_a_bad_message_are_finds(tmp_path: Path) -> None:
    def read(data: bytes) -> None:
        if data == b"warning":
            np.array([1e300]) * 1e300
        if data == b"message":
            raise InputError("two\nlines\x1b", "")
        raise KeyError(data)

    target = Target("x", [b""], lambda data, rng: data, read, lambda result, data: None)
    judge = Judge(target, Counts(tmp_path / "counts"), tmp_path)
    for data in (b"warning", b"message", b"other"):
        judge(data)
    assert judge.counts.values.tolist() == [3, 0, 0, 3]
    assert [name.split()[0] for name in sorted(judge.seen)] == ["AssertionError", "KeyError", "RuntimeWarning"]
    assert len(list(tmp_path.glob("x-*.bin"))) == 3


# --------------------------------------------------------------------------------------------------- kept finds

ROWS, COLUMNS, MODALITY = b"(\0\x10\0US\x02\0\x10\0", b"(\0\x11\0US\x02\0\x12\0", b"\x08\0`\0CS\x02\0CT"
SLOPE, INTERCEPT = b"(\0S\x10DS\x04\x001.0 ", b"(\0R\x10DS\x08\0-1024.0 "
ENDLESS = b"OB\0\0\xff\xff\xff\xff\xfe\xff\xdd\xe0\0\0\0\0"
REFUSED = [  # target, seed, what stands there, what instead
    ("series", 1, ROWS, ROWS[:6] + b"\x04\0\x10\0\x05\0", "a number of four bytes where two are due"),
    ("series", 1, COLUMNS, COLUMNS[:4] + b"IS\x02\x0018", "a number of another VR"),
    ("series", 1, MODALITY, MODALITY.replace(b"CS", b"cS"), "a VR in small letters"),
    ("series", 1, SLOPE, SLOPE + SLOPE, "a number given twice"),
    ("series", 1, INTERCEPT, INTERCEPT[:4] + ENDLESS, "a number without length"),
    ("series", 1, SLOPE, SLOPE.replace(b"1.0 ", b"1_0 "), "an underscore between digits"),
    ("series", 1, b"-31.5", "１".encode() + b"5 ", "digits of another script"),
    ("series", 1, b"2.0\\1.5 ", b"2.0\\1\0\0\0", "digits that NULs have overwritten"),
    ("series", 1, b"2.0\\1.5 ", b"2.0\\1.5\n", "a line feed after a number"),
    ("enhanced", 0, b"2.0\\1.5 ", b"2.0\\1\0\0\0", "the same within a sequence"),
    ("enhanced", 0, b"DS\x08\x002.0\\1.5 ", b"FD\x08\x002.0\\1.5 ", "a number of another VR within a sequence"),
    ("rtstruct", 0, b"-297.5", b"-297.\0", "a coordinate that ends in a NUL"),
    ("lidc", 0, b"<xCoord>11<", b"<xCoord>1_1<", "an underscore between digits"),
    ("lidc", 0, b"<xCoord>11<", b"<xCoord>12</xCoord><xCoord>11<", "two numbers where one is due"),
    ("volume", 3, b"kinds: ", b"space : 3\nkinds: ", "a field given twice, once with a blank"),
    ("volume", 5, b"ObjectType", b"OffSet = 0 0 0\nObjectType", "a field given twice in other letters"),
    ("volume", 5, b"-405.25", b"\r405.25", "a control character"),
    ("volume", 3, b"space origin: (", b"space origin: 7(", "text beside a vector"),
    ("volume", 3, b"kinds: ", b"sizes: 18 16 5\nkinds: ", "a field given twice, differently"),
    ("volume", 3, b"sizes: 18 16 4", b"sizes: 1_8 16 4", "an underscore between digits"),
    ("volume", 5, b"ObjectType", b"Offset = 0 0 0\nObjectType", "a field given twice, differently"),
    ("volume", 5, b"-405.25", b"-40_5.2", "an underscore between digits"),
]


@pytest.mark.parametrize(
    ("name", "seed", "old", "new"), [f[:4] for f in REFUSED], ids=[f"{f[0]}-{f[4]}" for f in REFUSED]
)
def test_kept_finds_are_refused(targets: Callable[[str], Target], name: str, seed: int, old: bytes, new: bytes) -> None:
    target = targets(name)
    data = target.seeds[seed]
    assert old in data
    assert not accepted(target, data.replace(old, new, 1))


@pytest.mark.parametrize("word", [b"encoding: gzip", b"CompressedData = True"])
@pytest.mark.parametrize("name", ["volume", "labelmap"])
def test_a_byte_of_padding_behind_compressed_voxels_does_no_harm(
    targets: Callable[[str], Target], name: str, word: bytes
) -> None:
    data = next(data for data in targets(name).seeds if word in data)
    start = data.index(b"LOCAL\n") + 6 if data[0] == 3 else data.index(b"\n\n") + 2
    voxels = zlib.decompress(data[start:], 47)
    padded = data[:start] + zlib.compress(voxels + b"\0")
    padded = re.sub(rb"CompressedDataSize = \d+", b"CompressedDataSize = %d" % (len(padded) - start), padded)
    assert accepted(targets(name), padded)


def test_a_signalling_nan_is_refused_without_a_warning(targets: Callable[[str], Target]) -> None:
    target = targets("volume")
    data = next(data for data in target.seeds if data[0] == 2 and b"float" in data and b"raw" in data)
    assert not accepted(target, data[:-4] + struct.pack("<I", 0x7F800001))


def test_an_exclusion_on_another_image_than_its_outline_is_a_problem(
    targets: Callable[[str], Target], tmp_path: Path
) -> None:
    head, exclusion, tail = re.split(rb"(<imageSOP_UID>[^<]*</imageSOP_UID><inclusion>FALSE)", targets("lidc").seeds[0])
    path = tmp_path / "reads.xml"
    path.write_bytes(head + exclusion.replace(b"<imageSOP_UID>1", b"<imageSOP_UID>2") + tail)
    (problem,) = (problem for lesion in read_lidc(path).lesions for problem in lesion.problems)
    assert "an exclusion of nodule 'b' of reader 1 at z = -292.5 mm is in no outline's slice" in problem


def test_a_garbled_length_takes_no_memory(targets: Callable[[str], Target], tmp_path: Path) -> None:
    data, path = targets("rtstruct").seeds[0], tmp_path / "rt.dcm"
    at = data.index(b"\x06\x30\x20\0SQ\0\0") + 8
    path.write_bytes(data[: at - 4] + b"OB\0\0" + struct.pack("<I", 0xFFFFFFF0) + data[at + 4 :])
    tracemalloc.start()
    try:
        read_dataset(path, force=True)
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 2**24


def test_a_damaged_chunk_is_refused_when_it_is_read(targets: Callable[[str], Target]) -> None:
    target = targets("store")
    good = target.seeds[0]
    stream = max(re.finditer(rb"x[\x01\x5e\x9c\xda][^\0]{16}", good), key=lambda match: match.start())
    data = good[: stream.start() + 40] + bytes(16) + good[stream.start() + 56 :]
    assert len(data) == len(good)
    assert hashlib.sha256(data[:-SEAL_BYTES]).digest() != hashlib.sha256(good[:-SEAL_BYTES]).digest()
    with pytest.raises(InputError, match="cannot be read: its checksum or compression is damaged"):
        target.read(data)


def test_two_finds_at_one_place_are_one() -> None:
    places = set()
    for value in ("1", "22"):
        try:
            raise ValueError(f"no {value}")
        except ValueError as error:
            places.add(place(error))
    assert len(places) == 1
