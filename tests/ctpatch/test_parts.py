import io
import os
import random
import re
import shutil
import signal
import stat
import subprocess
import sys
import time
import zipfile
import zlib

import numpy as np
import pytest

from ctpatch.build.parts import FinishedPart, PartsFolder, bytes_to_write, inputs_digest, part_path
from ctpatch.errors import InputError
from ctpatch.manifest import Row
from ctpatch.recipe import Recipe
from ctpatch.store.records import Lesion, Patches, deflate

ROW = Row(2, "Ä 007", "1", "ct", split="train", label="b", aux=(("m", 2.0),))
ABOUT = {"inputs": "x", "notes": ("ü",), "content": "c", "lossy": True}
LESION = Lesion("Ä 007", "1", "train", "a", "s", 0.1 + 0.2, 3, {"m": 1.0})
PLAN = {**Recipe().document(), "manifest": "abc"}


def patches():
    rng = np.random.default_rng(0)
    hu = rng.integers(-1000, 400, (3, 64, 64)).astype("<i2") // 500 * 500
    columns = {
        "plane": np.arange(3, dtype=np.uint8),
        "copy": np.arange(3, dtype=np.uint8),
        "center": rng.normal(size=(3, 3)),
        "angle": rng.normal(size=3),
        "shift": rng.normal(size=(3, 2)),
    }
    return Patches(hu, {"hu": deflate("hu", hu), "rgb": [b"", b"one", b"three"]}, columns)


@pytest.fixture
def part(tmp_path):
    path = part_path(tmp_path, ROW)
    FinishedPart(LESION, patches(), **ABOUT).save(path)
    return path


def is_whole(found):
    got, wanted = found.patches, patches()
    assert {name: getattr(found, name) for name in ABOUT} == ABOUT
    np.testing.assert_array_equal(got.hu, wanted.hu)
    assert got.hu.dtype == wanted.hu.dtype
    assert got.images == wanted.images
    assert sorted(got.columns) == sorted(wanted.columns)
    for name, values in wanted.columns.items():
        np.testing.assert_array_equal(got.columns[name], values)
        assert got.columns[name].dtype == values.dtype
    # what shapes no pixel is the row's
    assert found.lesion == Lesion("Ä 007", "1", "train", "b", "s", 0.1 + 0.2, 3, {"m": 2.0})


def test_round_trip(part):
    is_whole(FinishedPart.load(part, ROW))
    assert [path.name for path in part.parent.iterdir()] == [part.name]


def test_nan_diameter_and_no_lesion(tmp_path):
    path = part_path(tmp_path, ROW)
    assert FinishedPart.load(path, ROW) is None
    FinishedPart(Lesion("Ä 007", "1", "train", "a"), patches(), **ABOUT).save(path)
    assert np.isnan(FinishedPart.load(path, ROW).lesion.diameter_mm)


def test_any_damage_is_a_lesion_to_compute_again(part):
    data = part.read_bytes()
    for bit in random.Random(1).sample(range(len(data) * 8), 1500):
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        part.write_bytes(damaged)
        assert FinishedPart.load(part, ROW) is None
    for length in range(0, len(data), 211):
        part.write_bytes(data[:length])
        assert FinishedPart.load(part, ROW) is None


def test_what_something_else_wrote_is_not_read(part):
    """A zip archive, objects that would be unpickled, columns of another size; each with a checksum that fits."""

    def sealed(data):
        part.write_bytes(data + zlib.crc32(data).to_bytes(4, "little"))
        return FinishedPart.load(part, ROW)

    good = part.read_bytes()[:-4]
    is_whole(sealed(good))
    with zipfile.ZipFile(archive := io.BytesIO(), "w") as file:
        file.writestr("lesion", b"no array")
    assert sealed(archive.getvalue()) is None
    at = good.index(b'"angle":["<f8",[3]]')
    for other in (b'"angle":["|O8",[3]]', b'"angle":["<f8",[9]]', b'"angle":["<c9",[3]]'):
        assert sealed(good[:at] + other + good[at + len(other) :]) is None
    assert sealed(good[:100]) is None
    assert sealed(b"") is None
    assert sealed(good[:8] + b"[" + good[9:]) is None


def test_names_tell_nobody_who_it_is(tmp_path):
    assert part_path(tmp_path, ROW).name == part_path(tmp_path, ROW).name
    val = Row(2, "Ä 007", "1", "ct", split="val")
    other = Row(2, "Ä 007", "2", "ct", split="train")
    names = {part_path(tmp_path, row).name for row in (ROW, val, other)}
    assert len(names) == 3
    assert all(re.fullmatch(r"[0-9a-f]{32}\.part", name) for name in names)
    # val and test lesions get the same patch, so folds share it
    test = Row(2, "Ä 007", "1", "ct", split="test")
    assert part_path(tmp_path, val) == part_path(tmp_path, test)


# -- The folder ---------------------------------------------------------------------------------------------------


def test_folder_is_the_owner_s_only(tmp_path):
    parts = PartsFolder(tmp_path / "o.h5.parts", PLAN)
    assert stat.S_IMODE(parts.path.stat().st_mode) == 0o700
    parts.remove()
    assert list(tmp_path.iterdir()) == []


def test_same_plan_goes_on(tmp_path):
    PartsFolder(tmp_path / "p", PLAN).release()
    PartsFolder(tmp_path / "p", dict(reversed(PLAN.items()))).release()


@pytest.mark.parametrize(
    ("change", "both"),
    [
        ({"seed": 1}, "seed = 0, now 1"),
        ({"spacing_mm": 0.6}, "spacing_mm = 0.5, now 0.6"),
        ({"manifest": "def"}, "manifest = abc, now def"),
        ({"rgb": False}, "rgb = True, now False"),
        ({"new": 3}, "new = None, now 3"),
    ],
)
def test_other_plan_is_refused_naming_both(tmp_path, change, both):
    parts = PartsFolder(tmp_path / "p", PLAN)
    FinishedPart(LESION, patches(), **ABOUT).save(part_path(parts.path, ROW))
    parts.release()
    for _ in range(2):  # and the refusal does not keep the lock, nor change the plan
        with pytest.raises(InputError, match=both):
            PartsFolder(tmp_path / "p", {**PLAN, **change})
    PartsFolder(tmp_path / "p", PLAN).release()


@pytest.mark.parametrize("plan", [None, b"", b"{", b"[]", b"3", b"\xff"])
def test_lesions_of_an_unknown_plan_are_not_used(tmp_path, plan):
    """As when the removal of a finished build's folder was interrupted after its plan was gone."""
    parts = PartsFolder(tmp_path / "p", PLAN)
    FinishedPart(LESION, patches(), **ABOUT).save(part_path(parts.path, ROW))
    parts.release()
    (tmp_path / "p" / "plan.json").unlink()
    if plan is not None:
        (tmp_path / "p" / "plan.json").write_bytes(plan)
    parts = PartsFolder(tmp_path / "p", {**PLAN, "seed": 5})
    assert FinishedPart.load(part_path(parts.path, ROW), ROW) is None
    parts.release()
    PartsFolder(tmp_path / "p", {**PLAN, "seed": 5}).release()


def test_second_builder_is_refused_also_within_a_process(tmp_path):
    parts = PartsFolder(tmp_path / "p", PLAN)
    with pytest.raises(InputError, match="another build is writing this store"):
        PartsFolder(tmp_path / "p", PLAN)
    parts.release()
    PartsFolder(tmp_path / "p", PLAN).release()


def test_lock_ends_with_a_killed_process(tmp_path):
    code = (
        "import sys, time; from pathlib import Path; from ctpatch.build.parts import PartsFolder;"
        "parts = PartsFolder(Path(sys.argv[1]), {'a': 1}); print('held', flush=True); time.sleep(60)"
    )
    holder = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "p")], stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(InputError, match="another build"):
        PartsFolder(tmp_path / "p", {"a": 1})
    holder.kill()
    holder.wait()
    holder.stdout.close()
    PartsFolder(tmp_path / "p", {"a": 1}).release()


def test_lock_of_a_folder_that_was_removed_meanwhile(tmp_path, monkeypatch):
    """The other build ends, and removes its folder, between our opening of the lock file and our locking it."""
    import fcntl

    first = PartsFolder(tmp_path / "p", PLAN)
    really = fcntl.flock

    def remove_first(file, how):
        monkeypatch.undo()
        first.remove()
        really(file, how)

    monkeypatch.setattr(fcntl, "flock", remove_first)
    with pytest.raises(InputError, match="another build"):
        PartsFolder(tmp_path / "p", PLAN)
    PartsFolder(tmp_path / "p", PLAN).release()


def test_a_folder_is_removed_where_an_open_file_keeps_its_place(tmp_path, monkeypatch):
    """As NFS does: what is open gets another name until it is closed, and its folder is not empty until then."""
    parts = PartsFolder(tmp_path / "p", PLAN)
    FinishedPart(LESION, patches(), **ABOUT).save(part_path(parts.path, ROW))
    really = shutil.rmtree

    def rmtree(path):
        assert parts._lock.closed
        really(path)

    monkeypatch.setattr(shutil, "rmtree", rmtree)
    parts.remove()
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_removal_has_left_is_cleared_up(tmp_path):
    (tmp_path / "p.0a1b2c3d.tmp").mkdir()
    (tmp_path / "p.0a1b2c3d.tmp" / "x.part").touch()
    PartsFolder(tmp_path / "p", PLAN).remove()
    assert list(tmp_path.iterdir()) == []


def test_a_link_is_no_folder_of_parts(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "p").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="is a link"):
        PartsFolder(tmp_path / "p", PLAN)


def test_a_lock_ends_with_its_build_though_a_forked_process_has_it_open(tmp_path):
    parts = PartsFolder(tmp_path / "p", PLAN)
    child = os.fork()
    if not child:
        signal.pause()
        os._exit(0)
    try:
        parts.release()
        PartsFolder(tmp_path / "p", PLAN).release()
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_a_part_takes_its_name_only_while_its_run_is_under_way(tmp_path):
    """A run that was killed while it was written, and whose folder is another's by now."""
    path = part_path(tmp_path, ROW)

    def ended():
        assert [left.suffix for left in tmp_path.iterdir()] == [".tmp"]  # all of it is written
        raise InputError("ended", "do")

    with pytest.raises(InputError, match="ended"):
        FinishedPart(LESION, patches(), **ABOUT).save(path, ended)
    assert list(tmp_path.iterdir()) == []


def test_others_files_come_and_go_while_space_is_reckoned(tmp_path):
    before = bytes_to_write(tmp_path, [ROW], Recipe())
    (tmp_path / "gone.plan.tmp").symlink_to(tmp_path / "nowhere")  # listed, and gone when it is looked at
    assert bytes_to_write(tmp_path, [ROW], Recipe()) == before


# -- Have the inputs changed? -------------------------------------------------------------------------------------


def test_inputs_digest(tmp_path):
    folder = tmp_path / "ct" / "deep"
    folder.mkdir(parents=True)
    for name in ("b.dcm", "a.dcm"):
        (folder / name).write_text(name)
    (tmp_path / "rt.dcm").write_text("contours")
    row = Row(2, "p", "1", "ct", "rt.dcm", root=tmp_path)
    first = inputs_digest(row)
    (tmp_path / "ct" / "o.h5.parts").mkdir()  # of a build whose store is to lie among the images
    (tmp_path / "ct" / "o.h5.parts" / "x.part").touch()
    assert inputs_digest(row) == first
    (tmp_path / "rt.dcm").write_text("CONTOURS")
    os.utime(tmp_path / "rt.dcm", ns=(time.time_ns(), time.time_ns() + 5))
    second = inputs_digest(row)
    (folder / "a.dcm").rename(folder / "c.dcm")
    third = inputs_digest(row)
    (folder / "c.dcm").unlink()
    assert len({first, second, third, inputs_digest(row)}) == 4
