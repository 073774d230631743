"""Builds that are killed, starved, raced and resumed, through the real command (cases 112-117 and 126-132)."""

import multiprocessing
import os
import random
import re
import shutil
import subprocess
import sys
import time
from collections import namedtuple
from pathlib import Path

import awkward
import cohort
import crashing
import h5py
import numpy as np
import pytest

import ctpatch.build.one_lesion
import ctpatch.build.run
from benchmarks import kills
from ctpatch.recipe import Recipe
from ctpatch.store import open_store

SPLITS = ("train", "train", "val", "test", "train")
SMALL = ("--patches", "3", "--augment", "1", "--no-rgb")
LESIONS = 10
Usage = namedtuple("Usage", "total used free")


@pytest.fixture(scope="module")
def old(manifest, tmp_path_factory):
    """Another store."""
    out = tmp_path_factory.mktemp("old") / "old.h5"
    assert build(manifest, out, "--patches", "1").status == 0
    return out.read_bytes()


def words(manifest, out, *more):
    return [str(word) for word in ("build", "--manifest", manifest, "--out", out, *SMALL, *more)]


def build(manifest, out, *more):
    return awkward.run(*words(manifest, out, *more))


def apart(manifest, out, *more, **options):
    """The command in a process of its own."""
    command = [sys.executable, "-m", "ctpatch", *words(manifest, out, *more)]
    return subprocess.run(command, capture_output=True, text=True, **options)


def errors(done):
    return [line for line in done.stderr.splitlines() if not line.startswith("build: ")]


def parts_of(out):
    return out.with_name(f"{out.name}.parts")


def interrupted(manifest, out, lesions, *more):
    """A build that ends, as by Ctrl-C, when it has finished so many lesions."""
    with during_lesion(lesions, raising(KeyboardInterrupt)):
        result = build(manifest, out, *more)
    assert (result.status, len(result.err)) == (1, 1)
    assert "finished lesions are kept" in result.err[0]
    assert len(list(parts_of(out).glob("*.part"))) == lesions


def raising(error):
    def act():
        raise error

    return act


def during_lesion(number, act):
    """A context in which `act` is called before lesion `number` (from 0) is cut."""
    monkeypatch, really, count = pytest.MonkeyPatch(), ctpatch.build.one_lesion.cut_lesion, []

    def cut(*arguments, **options):
        count.append(1)
        if len(count) == number + 1:
            act()
        return really(*arguments, **options)

    class Patched:
        def __enter__(self):
            monkeypatch.setattr(ctpatch.build.one_lesion, "cut_lesion", cut)

        def __exit__(self, *_):
            monkeypatch.undo()

    return Patched()


def resumes(manifest, out, plain, finished=None):
    """The same command goes on, to the same bytes, and leaves nothing else."""
    result = build(manifest, out)
    assert (result.status, result.err) == (0, ())
    if finished is not None:
        assert (f"; {finished} lesions were finished before" in result.out[-1]) == (finished > 0)
    assert out.read_bytes() == plain
    assert [path.name for path in out.parent.iterdir()] == [out.name]


# -- Killed -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return kills.Study(tmp_path_factory.mktemp("kills"), 1, patients=6, recipe=Recipe(patches=8, augment=1))


@pytest.mark.parametrize(
    ("kind", "number"), [("serial", 8), ("parallel", 3), ("parent", 2), ("worker", 2), ("merge", 6)]
)
def test_112_113_killed_at_random_moments(study, kind, number):
    count = study.kill(kind, number)
    assert (count.kills, count.partial) == (number, 0)
    assert count.finished == count.identical > 0
    assert count.in_work > 0
    assert awkward.run("verify", study.out).status == 0


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_113_leftovers_of_a_killed_build_do_no_harm(manifest, plain, tmp_path, jobs):
    out = tmp_path / "o.h5"
    parts_of(out).mkdir()
    (parts_of(out) / "store.tmp").write_bytes(b"half a store")
    (parts_of(out) / "abc.part.123.tmp").write_bytes(b"half a lesion")
    (parts_of(out) / "plan.json").write_bytes(b'{"seed":')
    assert build(manifest, out, "--jobs", jobs).status == 0
    assert out.read_bytes() == plain
    assert [path.name for path in tmp_path.iterdir()] == ["o.h5"]


@pytest.mark.parametrize("lesions", [1, 5, 9])
def test_112_interrupted_and_resumed(manifest, plain, tmp_path, lesions):
    interrupted(manifest, tmp_path / "o.h5", lesions)
    resumes(manifest, tmp_path / "o.h5", plain, finished=lesions)


@pytest.mark.parametrize("command", ["info", "verify"])
@pytest.mark.parametrize("jobs", ["1", "2"])
def test_114_store_needs_no_clearing_of_flags(manifest, tmp_path, jobs, command):
    """Its superblock says that nobody writes; a writer that SWMR would leave behind says otherwise."""
    out = tmp_path / "o.h5"
    build(manifest, out, "--jobs", jobs)
    assert out.read_bytes()[8] == 3  # superblock version
    assert out.read_bytes()[11] == 0  # file consistency flags
    assert awkward.run(command, out).status == 0


# -- A full disk --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kib", [8, 20, 100, 130])
def test_115_no_file_may_grow(manifest, plain, old, tmp_path, kib):
    """RLIMIT_FSIZE: first a lesion's file reaches it, then the store's."""
    out = tmp_path / "o.h5"
    out.write_bytes(old)
    command = " ".join([f"ulimit -f {kib}; exec '{sys.executable}' -m ctpatch", *words(f"'{manifest}'", f"'{out}'")])
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    (line,) = errors(done)
    assert done.returncode == 1
    assert re.fullmatch(r"ctpatch: o\.h5(\.parts)?: cannot be written \(File too large\); .* run again", line)
    assert out.read_bytes() == old
    resumes(manifest, out, plain)


FULL = """
import shutil, sys
shutil.disk_usage = lambda path: shutil._ntuple_diskusage(10**12, 0, 10**12)
from ctpatch.cli import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize("kib", [24, 96, 180, 270])
def test_115_full_disk_in_mid_build(manifest, plain, old, tmp_path, kib):
    """A small tmpfs that looked large when the build began; the copy goes on where there is room."""
    mount = f"mount -t tmpfs -o size={kib + len(old) // 1024}k none '{tmp_path}/disk'"
    (tmp_path / "disk").mkdir()
    (tmp_path / "old.h5").write_bytes(old)
    out = tmp_path / "disk" / "o.h5"
    command = " ".join([f"'{sys.executable}' -c '{FULL}'", *words(f"'{manifest}'", f"'{out}'")])
    before, after = f"cp '{tmp_path}/old.h5' '{out}'", f"cp -r '{tmp_path}/disk' '{tmp_path}/kept'"
    script = f"{mount} || exit 99; {before}; {command}; status=$?; {after}; exit $status"
    done = subprocess.run(["unshare", "-rm", "bash", "-c", script], capture_output=True, text=True)
    if done.returncode == 99 or "unshare" in done.stderr:
        pytest.skip("no file system can be mounted here")
    (line,) = errors(done)
    assert done.returncode == 1
    assert re.fullmatch(r"ctpatch: o\.h5(\.parts)?: cannot be written \(No space left on device\); .* run again", line)
    kept = tmp_path / "kept" / "o.h5"
    assert kept.read_bytes() == old
    resumes(manifest, kept, plain)


PATCH = 2 * 5_700 + 2 * 64 * 64
"""Bytes of a patch: compressed in the part and the store, and as it is in the part."""


@pytest.mark.parametrize(
    ("more", "needed"),
    [((), 40 * PATCH), (("--patches", "50"), (6 * 100 + 4) * PATCH), (("--jobs", "2"), 40 * PATCH)],
)
def test_115_too_little_room_is_refused_before_any_work(manifest, old, tmp_path, monkeypatch, more, needed):
    out = tmp_path / "o.h5"
    out.write_bytes(old)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(10**9, 0, int(1.2 * needed) - 1))
    with during_lesion(0, raising(AssertionError("work"))):
        result = build(manifest, out, *more)
    assert result.status == 2
    megabytes = rf"{needed / 1e6:.1f} MB .*{1.2 * needed / 1e6:.1f} MB are free"
    assert re.fullmatch(rf"ctpatch: .*: about {megabytes}\. Do: .*--no-rgb\.", result.err[0])
    assert out.read_bytes() == old
    assert [path.name for path in tmp_path.iterdir()] == ["o.h5"]


def test_115_enough_room_is_not_refused_and_finished_lesions_count(manifest, plain, tmp_path, monkeypatch):
    out = tmp_path / "o.h5"
    interrupted(manifest, out, 9)
    finished = sum(path.stat().st_size for path in parts_of(out).glob("*.part"))
    enough = int(1.2 * (finished + 6 * PATCH)) + 1
    assert enough < 1.2 * 40 * PATCH  # for which a build from the start is refused
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(10**9, 0, enough))
    resumes(manifest, out, plain, finished=9)


@pytest.mark.parametrize("rgb", [True, False])
def test_115_what_a_build_is_expected_to_write_is_about_what_it_writes(tmp_path, rgb):
    """A cohort of noise and structure such as CTs have."""
    rng = np.random.default_rng(0)
    rows, columns = np.indices((64, 64)) - 32
    blobs = [rng.normal(0, 25, (64, 64)) + np.where(np.hypot(rows, columns) < r, 40, -850) for r in range(3, 23)]
    from ctpatch.build.parts import PATCH_BYTES
    from ctpatch.patches.render import render
    from ctpatch.store.records import deflate

    hu = np.array(blobs).astype("<i2")
    written = sum(map(len, deflate("rgb", render(hu)) if rgb else deflate("hu", hu))) / len(hu)
    assert 0.5 < PATCH_BYTES["rgb" if rgb else "hu"] / written < 2


# -- Two at once --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("locking", ["TRUE", "FALSE", "BEST_EFFORT"])
@pytest.mark.parametrize("lesion", [0, 7])
def test_116_second_builder_is_refused_whatever_hdf5_locks(manifest, plain, tmp_path, locking, lesion):
    out, answers = tmp_path / "o.h5", []
    environment = {**os.environ, "HDF5_USE_FILE_LOCKING": locking}
    with during_lesion(lesion, lambda: answers.append(apart(manifest, out, env=environment))):
        assert build(manifest, out).status == 0
    (second,) = answers
    assert (second.returncode, second.stdout) == (2, "")
    assert re.fullmatch(r"ctpatch: o\.h5\.parts: another build is writing this store\. Do: .*\n", second.stderr)
    assert out.read_bytes() == plain


def test_116_second_builder_with_another_recipe_or_in_this_process(manifest, plain, tmp_path):
    out, answers = tmp_path / "o.h5", []
    with during_lesion(4, lambda: answers.extend([build(manifest, out), build(manifest, out, "--seed", "3")])):
        assert build(manifest, out).status == 0
    assert [answer.status for answer in answers] == [2, 2]
    assert all("another build is writing this store" in answer.err[0] for answer in answers)
    assert out.read_bytes() == plain


@pytest.mark.parametrize("lesion", [0, 4, 9])
@pytest.mark.parametrize("before", [False, True])
def test_117_readers_see_the_old_store_or_none(manifest, plain, old, tmp_path, lesion, before):
    out, seen = tmp_path / "o.h5", []
    if before:
        out.write_bytes(old)

    def look():
        seen.extend([awkward.run("info", out), awkward.run("verify", out), out.exists() and out.read_bytes()])

    with during_lesion(lesion, look):
        assert build(manifest, out).status == 0
    info, verify, data = seen
    assert (info.status, verify.status, data) == ((0, 0, old) if before else (2, 2, False))
    assert out.read_bytes() == plain


# -- Resumed under other conditions -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "both"),
    [
        (("--seed", "1"), "seed = 0, now 1"),
        (("--patches", "4"), "patches = 3, now 4"),
        (("--augment", "0"), "augment = 1, now 0"),
        (("--rotate", "90"), "rotate_deg = 180.0, now 90.0"),
        (("--shift", "2"), "shift_mm = 5.0, now 2.0"),
        (("--spacing", "0.4"), "spacing_mm = 0.5, now 0.4"),
        (("--lidc-consensus", "0.75"), "lidc_consensus = 0.5, now 0.75"),
        (("--keep-uids",), "keep_uids = False, now True"),
    ],
)
def test_126_other_parameters_are_refused(manifest, plain, tmp_path, more, both):
    out = tmp_path / "o.h5"
    interrupted(manifest, out, 3)
    result = build(manifest, out, *more)
    assert result.status == 2
    assert re.fullmatch(rf"ctpatch: o\.h5\.parts: begun with {both}\. Do: .*remove o\.h5\.parts.*", result.err[0])
    assert not out.exists()
    resumes(manifest, out, plain, finished=3)


@pytest.mark.parametrize("change", ["label", "row gone", "split", "patient"])
def test_126_another_manifest_is_refused(manifest, tmp_path, change):
    out, other = tmp_path / "o.h5", manifest.with_name("other.csv")
    interrupted(manifest, out, 3)
    text = manifest.read_text()
    changed = {
        "label": text.replace("benign", "clear"),
        "row gone": "\n".join(text.splitlines()[:-1]),
        "split": text.replace(",val", ",test"),
        "patient": text.replace("\nP04,", "\nP05,"),
    }
    other.write_text(changed[change])
    result = build(other, out)
    assert result.status == 2
    assert re.search(r"begun with manifest = [0-9a-f]{64}, now [0-9a-f]{64}\. Do: ", result.err[0])


@pytest.mark.parametrize("change", ["touched", "added", "gone", "series"])
def test_126_changed_files_are_refused(tmp_path, change):
    manifest, out = cohort.write_cohort(tmp_path / "in"), tmp_path / "o.h5"
    interrupted(manifest, out, 2)
    home = tmp_path / "in" / "P00"
    first = sorted((home / "ct").iterdir())[0]
    if change == "touched":
        os.utime(home / "rtstruct.dcm")
    elif change == "added":
        (home / "ct" / "notes.txt").write_text("new")
    elif change == "gone":
        first.unlink()
    else:
        first.write_bytes(first.read_bytes() + b"\0")
    result = build(manifest, out)
    assert result.status == 2
    assert re.match(r"ctpatch: patient=P00 row=2 P00.* \(digest \w{12}…, now \w{12}…\)\. Do: ", result.err[0])


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "other", "pickle"])
@pytest.mark.parametrize("which", [0, 2, 4])
def test_127_damaged_part_is_computed_again(manifest, plain, tmp_path, damage, which):
    out = tmp_path / "o.h5"
    interrupted(manifest, out, 5)
    part = sorted(parts_of(out).glob("*.part"))[which]
    data = bytearray(part.read_bytes())
    data[random.Random(which).randrange(len(data) // 4, len(data) // 2)] ^= 4
    if damage == "pickle":
        with open(part, "wb") as file:  # a path would get a suffix
            np.savez(file, lesion=np.array([{"a": 1}], dtype=object))
    else:
        part.write_bytes({"flip": data, "cut": data[:-500], "empty": b"", "other": b"PK\3\4"}[damage])
    resumes(manifest, out, plain, finished=4)


# -- Workers ------------------------------------------------------------------------------------------------------


@pytest.fixture
def fate(tmp_path, monkeypatch):
    """Says whose process is killed, and how often."""
    (tmp_path / "deaths").mkdir()
    monkeypatch.setattr(ctpatch.build.run, "_work", crashing.work)

    def decide(lesion, times):
        monkeypatch.setenv(crashing.FATE, f"{lesion}:{times} {tmp_path / 'deaths'}")

    return decide


@pytest.mark.parametrize("lesion", ["P00/1", "P04/2"])
def test_128_killed_worker_s_lesion_is_computed_again(manifest, plain, tmp_path, fate, lesion):
    fate(lesion, 1)
    result = build(manifest, tmp_path / "o.h5", "--jobs", "2")
    assert (result.status, result.err) == (0, ())
    assert (tmp_path / "o.h5").read_bytes() == plain
    assert len(list((tmp_path / "deaths").iterdir())) == 1


DEATH = r"patient=P02 row=6 P02/ct: its worker process ended twice .* alone: killed by signal 9; .*\. Do: .*memory.*\."


def test_128_lesion_that_kills_each_time_stops_the_build_by_name(manifest, plain, tmp_path, fate):
    fate("P02/1", 3)
    out = tmp_path / "o.h5"
    result = build(manifest, out, "--jobs", "2")
    assert result.status == 1
    assert re.fullmatch(f"ctpatch: {DEATH}", result.err[0])
    assert len(result.err) == 1
    assert not out.exists()
    assert build(manifest, out, "--jobs", "2").status == 0  # three deaths were all
    assert out.read_bytes() == plain


def test_128_lesion_that_kills_each_time_is_skipped_by_name(manifest, tmp_path, fate):
    fate("P02/1", 3)
    out = tmp_path / "o.h5"
    result = build(manifest, out, "--jobs", "2", "--on-error", "skip")
    assert result.status == 1
    assert re.fullmatch(f"skipped: {DEATH}", result.err[0])
    with open_store(out) as store:
        assert list(zip(store.skipped.patient_id, store.skipped.lesion_id, strict=True)) == [("P02", "1")]
        assert len(store.lesions) == LESIONS - 1


def family_of(process):
    """The numbers of a process and of all that it, or one of these, starts, until it ends."""
    family = {process.pid}
    while process.poll() is None:
        family.update(kills.descendants_of(process.pid))
        time.sleep(0.01)
    return family


def of_another(name, family):
    """Whether a process that is none of these made it, which is named in it: other tests, and kills, run beside."""
    made_by = re.search(r"(?:loky-|folder_)([0-9]+)", name)
    return made_by is not None and int(made_by[1]) not in family


@pytest.mark.parametrize("jobs", ["2", "4"])
def test_129_nothing_is_left_in_temporary_folders(manifest, plain, tmp_path, jobs):
    scratch, shared = tmp_path / "scratch", Path("/dev/shm")
    scratch.mkdir()
    before = set(shared.iterdir())
    command = [sys.executable, "-m", "ctpatch", *words(manifest, tmp_path / "o.h5", "--jobs", jobs)]
    with open(tmp_path / "told", "w+") as told:
        environment = {**os.environ, "TMPDIR": str(scratch)}
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=told, env=environment)
        family = family_of(process)
    done = subprocess.CompletedProcess(command, process.returncode, stderr=(tmp_path / "told").read_text())
    assert (done.returncode, errors(done)) == (0, [])
    assert len(family) > int(jobs)
    assert list(scratch.iterdir()) == []

    def left():
        names = {path.name for path in set(shared.iterdir()) - before if not of_another(path.name, family)}
        return [name for name in names if name.startswith(("sem.", "psm_", "joblib", "loky"))]

    end = time.monotonic() + 10  # the tracker may end after the build
    while left() and time.monotonic() < end:
        time.sleep(0.1)
    assert left() == []
    assert (tmp_path / "o.h5").read_bytes() == plain


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_129_no_temporary_folder_is_needed(manifest, plain, tmp_path, jobs):
    done = apart(manifest, tmp_path / "o.h5", "--jobs", jobs, env={**os.environ, "TMPDIR": str(tmp_path / "none")})
    assert (done.returncode, errors(done)) == (0, [])
    assert (tmp_path / "o.h5").read_bytes() == plain


@pytest.mark.parametrize("jobs", ["2", "8"])
def test_130_any_number_of_workers(manifest, plain, tmp_path, jobs):
    result = build(manifest, tmp_path / "o.h5", "--jobs", jobs)
    assert (result.status, result.err) == (0, ())
    assert (tmp_path / "o.h5").read_bytes() == plain


@pytest.mark.parametrize("seed", [1, 2])
def test_130_any_order_of_rows_and_files(manifest, plain, tmp_path, seed):
    named = cohort.write_cohort(tmp_path / "in", SPLITS, lesions=2, shuffle=seed)
    header, *rows = named.read_text(encoding="utf-8").splitlines()
    random.Random(seed).shuffle(rows)
    named.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    (tmp_path / "out").mkdir()
    resumes(named, tmp_path / "out" / "o.h5", plain)


@pytest.mark.parametrize("environment", [{"PYTHONHASHSEED": "1", "TZ": "Asia/Tokyo"}, {"LANG": "C", "LC_ALL": "C"}])
def test_131_same_bytes_at_another_time_in_another_process(manifest, plain, tmp_path, environment):
    time.sleep(1.1)  # no second, no process id
    done = apart(manifest, tmp_path / "o.h5", env={**os.environ, **environment})
    assert done.returncode == 0
    assert (tmp_path / "o.h5").read_bytes() == plain


def test_131_no_time_is_kept_with_an_object(manifest, tmp_path):
    assert build(manifest, tmp_path / "o.h5").status == 0
    with h5py.File(tmp_path / "o.h5") as root:
        times = []
        root.visititems(lambda name, item: times.append(h5py.h5o.get_info(item.id).mtime))
    assert set(times) == {0}


@pytest.mark.parametrize("first", [True, False])
def test_132_store_that_was_open_before_a_fork(manifest, tmp_path, first):
    """Each process reads through a handle of its own, whether or not one was open before."""
    out = tmp_path / "o.h5"
    assert build(manifest, out).status == 0
    with h5py.File(out) as root:
        whole = root["train/hu"][:]
    with open_store(out) as store:
        view = store.split("train")
        if not first:
            store.close()
        context = multiprocessing.get_context("fork")
        readers = [context.Process(target=read_often, args=(view, whole, seed)) for seed in range(3)]
        for reader in readers:
            reader.start()
        read_often(view, whole, 9)
        for reader in readers:
            reader.join(60)
    assert [reader.exitcode for reader in readers] == [0] * 3


def read_often(view, whole, seed):
    for n in np.random.default_rng(seed).integers(0, len(whole), 200):
        np.testing.assert_array_equal(view.hu[int(n)], whole[n])
