"""Shards of a build: at once, one after the other, with problems, and the store that comes of them (cases 210-217)."""

import errno
import fcntl
import json
import os
import re
import subprocess
import sys
import threading
from pathlib import Path

import awkward
import cohort
import pytest

import ctpatch.build.one_lesion
import ctpatch.build.shards
from ctpatch.build.parts import PartsFolder
from ctpatch.build.shards import Shard, SharedParts
from ctpatch.errors import InputError

SMALL = ("--patches", "3", "--augment", "1", "--no-rgb")
LESIONS = 10


def words(manifest, out, *more):
    return [str(word) for word in ("build", "--manifest", manifest, "--out", out, *SMALL, *more)]


def build(manifest, out, *more):
    return awkward.run(*words(manifest, out, *more))


def shard(manifest, out, text, *more):
    return build(manifest, out, "--shard", text, *more)


def parts_of(out):
    return out.with_name(f"{out.name}.parts")


def finished(out):
    return len(list(parts_of(out).glob("*.part")))


def puts_together(manifest, out, plain, *, before, more=()):
    """A build without --shard, its bytes, and what it says of the shards' work."""
    result = build(manifest, out, *more)
    assert (result.status, result.err) == (0, ()), result
    left = f", {LESIONS - before} computed now" if before < LESIONS else ""
    assert result.out[-1].endswith(f"; {before} lesions were finished before{left}")
    assert out.read_bytes() == plain
    assert [path.name for path in out.parent.iterdir()] == [out.name]


@pytest.mark.parametrize("n", range(1, 12))
def test_shares_are_all_lesions_once_and_of_nearly_one_size(n):
    rows = tuple(range(10))
    shares = [Shard(i, n).of(rows) for i in range(1, n + 1)]
    assert sorted(row for share in shares for row in share) == list(rows)
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


# -- At once --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [3])
def test_210_shards_at_once_then_a_build(manifest, plain, tmp_path, n):
    """Processes that start together, as an array job's do."""
    out = tmp_path / "o.h5"
    command = [sys.executable, "-m", "ctpatch", *words(manifest, out)]
    jobs = [
        subprocess.Popen([*command, "--shard", f"{i}/{n}"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for i in range(1, n + 1)
    ]
    for i, job in enumerate(jobs, start=1):
        text, err = job.communicate(timeout=120)
        assert job.returncode == 0, err
        told = f"shard {i}/{n}, {len(range(i - 1, LESIONS, n))} lesions; when all shards have ended"
        assert text == f"{parts_of(out)}: {told}, build without --shard\n"
    assert not out.exists()
    assert finished(out) == LESIONS
    puts_together(manifest, out, plain, before=LESIONS)


def test_210_a_shard_leaves_what_another_is_writing(manifest, tmp_path):
    """Only who is alone clears up."""
    out = tmp_path / "o.h5"
    assert shard(manifest, out, "1/3").status == 0
    other, half = SharedParts(parts_of(out), plan_of(out)), parts_of(out) / "half.part.17.tmp"
    half.write_bytes(b"half a lesion")
    assert shard(manifest, out, "2/3").status == 0
    assert half.exists()
    other.release()
    assert shard(manifest, out, "3/3").status == 0
    assert not half.exists()


def plan_of(out):
    return json.loads((parts_of(out) / "plan.json").read_bytes())


def test_210_shards_with_worker_processes(manifest, plain, tmp_path):
    out = tmp_path / "o.h5"
    assert shard(manifest, out, "2/2", "--jobs", "2").status == 0
    puts_together(manifest, out, plain, before=5)


# -- A build meanwhile ----------------------------------------------------------------------------------------------


def test_211_a_build_is_refused_while_shards_are_at_work(manifest, plain, tmp_path):
    out = tmp_path / "o.h5"
    assert shard(manifest, out, "1/2").status == 0
    at_work = [SharedParts(parts_of(out), plan_of(out)) for _ in range(2)]
    for folder in at_work:
        result = build(manifest, out)
        assert (result.status, result.out) == (2, ())
        (line,) = result.err
        assert line == "ctpatch: o.h5.parts: shards of this store are at work. Do: wait until all have ended."
        folder.release()
    puts_together(manifest, out, plain, before=5)


def test_211_a_shard_is_refused_while_a_build_is_at_work(manifest, plain, tmp_path, monkeypatch):
    monkeypatch.setattr(ctpatch.build.shards, "STARTING_S", 0.2)
    out, really, told = tmp_path / "o.h5", ctpatch.build.one_lesion.cut_lesion, []

    def cut(*arguments, **options):
        if not told:
            told.append(None)
            told.append(shard(manifest, out, "1/2"))
        return really(*arguments, **options)

    monkeypatch.setattr(ctpatch.build.one_lesion, "cut_lesion", cut)
    assert build(manifest, out).status == 0
    assert told[1].status == 2
    (line,) = told[1].err
    assert line.startswith("ctpatch: o.h5.parts: a build is writing this store. Do: wait for it")
    assert out.read_bytes() == plain


def test_211_a_shard_waits_for_one_that_is_starting(manifest, tmp_path):
    """It holds the folder alone for a moment."""
    out = tmp_path / "o.h5"
    alone = PartsFolder(parts_of(out), {"seed": 0})
    (parts_of(out) / "plan.json").unlink()
    threading.Timer(0.5, alone.release).start()
    assert shard(manifest, out, "1/2").status == 0


# -- Refused lesions ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def spoilt(tmp_path_factory):
    """Lesion 1 of patient P01 (row 3) has another name."""
    splits = ("train", "train", "val", "test")
    columns = lambda i: {"roi": "tumour"} if i == 1 else {}
    return cohort.write_cohort(tmp_path_factory.mktemp("spoilt"), splits, columns=columns)


PROBLEM = r"patient=P01 row=3 P01/rtstruct\.dcm: .*tumour.* Do: .*"


def test_212_a_refused_lesion_ends_its_shard(spoilt, tmp_path):
    out = tmp_path / "o.h5"
    assert shard(spoilt, out, "1/2").status == 0
    result = shard(spoilt, out, "2/2")
    assert result.status == 2
    (line,) = result.err
    assert re.fullmatch(rf"ctpatch: {PROBLEM}", line)
    assert finished(out) == 2  # those of the first
    again = build(spoilt, out)
    assert again.status == 2
    assert re.fullmatch(rf"ctpatch: {PROBLEM}", again.err[-1])


def test_212_or_is_listed_by_its_shard_and_by_the_build(spoilt, tmp_path):
    out, plain, more = tmp_path / "o.h5", tmp_path / "plain.h5", ("--on-error", "skip")
    assert [shard(spoilt, out, text, *more).status for text in ("1/2", "2/2")] == [0, 1]
    result = shard(spoilt, out, "2/2", *more)
    assert result.status == 1
    assert result.out[-1].startswith(f"{parts_of(out)}: shard 2/2, 1 lesions; 1 lesions were finished before; when")
    (line,) = result.err
    assert re.fullmatch(rf"skipped: {PROBLEM}", line)
    together, directly = build(spoilt, out, *more), build(spoilt, plain, *more)
    assert together.err == directly.err == (line,)
    assert (together.status, directly.status) == (1, 1)
    assert out.read_bytes() == plain.read_bytes()


def test_212_a_shard_of_refused_lesions_only(spoilt, tmp_path):
    result = shard(spoilt, tmp_path / "o.h5", "2/4", "--on-error", "skip")
    assert result.status == 1
    assert "shard 2/4, 0 lesions; when" in result.out[-1]


def test_212_a_full_disk_is_no_refused_lesion(manifest, plain, tmp_path, monkeypatch):
    out = tmp_path / "o.h5"
    assert shard(manifest, out, "1/2").status == 0

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    result = shard(manifest, out, "2/2", "--on-error", "skip")
    monkeypatch.undo()
    assert result.status == 1
    assert "No space left on device" in result.err[-1]
    puts_together(manifest, out, plain, before=5)


# -- Missing, interrupted, repeated, empty --------------------------------------------------------------------------


def test_213_what_a_missing_shard_leaves_the_build_computes(manifest, plain, tmp_path):
    out = tmp_path / "o.h5"
    assert shard(manifest, out, "3/4").status == 0
    assert shard(manifest, out, "1/4").status == 0
    puts_together(manifest, out, plain, before=5)


def test_213_an_interrupted_shard_goes_on_and_a_done_one_has_nothing_to_do(manifest, plain, tmp_path, monkeypatch):
    out, really, calls = tmp_path / "o.h5", ctpatch.build.one_lesion.cut_lesion, []

    def cut(*arguments, **options):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return really(*arguments, **options)

    monkeypatch.setattr(ctpatch.build.one_lesion, "cut_lesion", cut)
    result = shard(manifest, out, "1/2")
    assert (result.status, len(result.err)) == (1, 1)
    assert "finished lesions are kept" in result.err[0]
    told = [shard(manifest, out, "1/2").out[-1] for _ in range(2)]
    assert len(calls) == 3 + 3
    assert "5 lesions; 2 lesions were finished before, 3 computed now" in told[0]
    assert "5 lesions; 5 lesions were finished before; when" in told[1]
    assert shard(manifest, out, "2/2").status == 0
    puts_together(manifest, out, plain, before=LESIONS)


def test_213_a_killed_shard_lets_the_folder_go(manifest, plain, tmp_path):
    out = tmp_path / "o.h5"
    code = "import os, signal, sys; import ctpatch.build.one_lesion as one; from ctpatch.cli import main;" + (
        "one.cut_lesion = lambda *a, **k: os.kill(os.getpid(), signal.SIGKILL); main(sys.argv[1:])"
    )
    killed = subprocess.run([sys.executable, "-c", code, *words(manifest, out, "--shard", "1/2")], capture_output=True)
    assert killed.returncode == -9
    assert shard(manifest, out, "2/2").status == 0
    puts_together(manifest, out, plain, before=5)


def test_213_more_shards_than_lesions(manifest, plain, tmp_path):
    out = tmp_path / "o.h5"
    told = [shard(manifest, out, f"{i}/12") for i in range(1, 13)]
    assert {result.status for result in told} == {0}
    assert [f"shard {i}/12, 0 lesions; when" in told[i - 1].out[-1] for i in (10, 11, 12)] == [False, True, True]
    puts_together(manifest, out, plain, before=LESIONS)


def test_213_shards_of_another_number_share_what_is_finished(manifest, plain, tmp_path):
    out = tmp_path / "o.h5"
    assert shard(manifest, out, "1/3").status == 0
    assert "; 2 lesions were finished before, 3 computed now" in shard(manifest, out, "1/2").out[-1]
    puts_together(manifest, out, plain, before=7)


# -- Another plan ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("at_work", [True, False])
def test_214_a_shard_of_another_plan_is_refused(manifest, tmp_path, at_work):
    """Also when no lesion of the first is finished yet, but it is at work."""
    out = tmp_path / "o.h5"
    assert shard(manifest, out, "1/2").status == 0
    if at_work:
        plan = plan_of(out)
        for part in parts_of(out).glob("*.part"):
            part.unlink()
        first = SharedParts(parts_of(out), plan)
    result = shard(manifest, out, "2/2", "--seed", "3")
    if at_work:
        first.release()
    assert result.status == 2
    (line,) = result.err
    assert re.fullmatch(r"ctpatch: o\.h5\.parts: begun with seed = 0, now 3\. Do: .*remove o\.h5\.parts.*", line)


def test_214_a_plan_of_which_nothing_is_left_binds_nobody(spoilt, tmp_path):
    """The first shards all ended without a lesion; their user mends a choice and begins anew."""
    out = tmp_path / "o.h5"
    assert shard(spoilt, out, "2/4").status == 2
    assert parts_of(out).exists()
    assert shard(spoilt, out, "1/4", "--seed", "3").status == 0
    assert plan_of(out)["seed"] == 3


def test_214_the_build_has_to_be_of_the_shards_plan(manifest, tmp_path):
    out = tmp_path / "o.h5"
    assert shard(manifest, out, "1/2").status == 0
    result = build(manifest, out, "--patches", "4")
    assert result.status == 2
    assert "begun with patches = 3, now 4" in result.err[-1]
    assert finished(out) == 5


# -- No shard at all ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["0/4", "5/4", "1/0", "1", "a/b", "1/2/3", "-1/2", "1.5/2", "", "٣/٤", "1/9999999"])
def test_215_not_a_shard(manifest, tmp_path, text):
    result = awkward.run("build", "--manifest", manifest, "--out", tmp_path / "o.h5", f"--shard={text}")
    assert result.status == 2
    (line,) = result.err
    assert line.startswith(f"ctpatch: --shard '{text}' is not i/n with 1 <= i <= n. Do: give for example --shard 1/8")
    assert list(tmp_path.iterdir()) == []


# -- No locks -------------------------------------------------------------------------------------------------------


@pytest.fixture
def no_locks(monkeypatch):
    def flock(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", flock)


def test_216_shards_without_locks(manifest, plain, tmp_path, no_locks):
    out = tmp_path / "o.h5"
    result = shard(manifest, out, "1/2")
    assert result.status == 2
    assert "the file system has no locks" in result.err[0]
    assert "give --no-lock" in result.err[0]
    half = parts_of(out) / "half.part.17.tmp"
    for text in ("1/2", "2/2"):
        assert shard(manifest, out, text, "--no-lock").status == 0
        half.write_bytes(b"half a lesion")  # another's, perhaps: nobody knows who is alone
    assert half.exists()
    assert shard(manifest, out, "1/2", "--no-lock", "--seed", "1").status == 2
    puts_together(manifest, out, plain, before=LESIONS, more=("--no-lock",))


def test_216_lesions_of_an_unknown_plan_are_no_shard_s(manifest, tmp_path, no_locks):
    out = tmp_path / "o.h5"
    assert shard(manifest, out, "1/2", "--no-lock").status == 0
    (parts_of(out) / "plan.json").write_bytes(b"{")
    result = shard(manifest, out, "2/2", "--no-lock")
    assert result.status == 2
    assert "what its lesions were made with cannot be read. Do: when no shard is at work, remove" in result.err[0]
    assert finished(out) == 5


def test_a_shared_lock_needs_a_file_that_can_be_read(tmp_path):
    """NFS gives flock's shared locks as POSIX ones, which ask for it."""
    parts = SharedParts(tmp_path / "p", {"a": 1})
    assert parts._lock.readable()
    parts.release()
    holder = SharedParts(tmp_path / "p", {"a": 1})
    with pytest.raises(InputError, match="begun with a = 1, now 2"):
        SharedParts(tmp_path / "p", {"a": 2})
    holder.release()


# -- Folds ----------------------------------------------------------------------------------------------------------


def test_217_shards_of_folds(tmp_path):
    manifest = cohort.write_cohort(tmp_path / "in", ("",) * 8)
    apart, together = tmp_path / "apart", tmp_path / "together"
    for folder, shards in ((apart, ("1/2", "2/2")), (together, ())):
        folder.mkdir()
        for fold in ("1/2", "2/2"):
            for text in shards:
                assert shard(manifest, folder / f"{fold[0]}.h5", text, "--fold", fold).status == 0
            result = build(manifest, folder / f"{fold[0]}.h5", "--fold", fold)
            assert result.status == 0, result
            assert ("; 8 lesions were finished before" in result.out[-1]) == bool(shards)
    for name in ("1.h5", "2.h5"):
        assert (apart / name).read_bytes() == (together / name).read_bytes()


# -- docs/clusters.md -----------------------------------------------------------------------------------------------

MANUAL = Path(__file__).resolve().parents[2] / "docs" / "clusters.md"
SBATCH = """#!/bin/bash
last=
while [[ $1 == --* ]]; do
    case $1 in --array=1-*) last=${1#--array=1-};; --dependency=afterany:17) echo after >&2;; esac
    shift
done
export SLURM_CPUS_PER_TASK=1
if [ -z "$last" ]; then exec bash "$@"; fi
for i in $(seq "$last"); do SLURM_ARRAY_TASK_ID=$i bash "$@" >&2; done
echo 17
"""


def test_the_manual_s_lines_for_slurm(manifest, plain, tmp_path):
    """With an sbatch that runs what it is given at once, and fewer shards."""
    shard_sh, store_sh, typed = re.findall(r"```bash\n(.*?)```", MANUAL.read_text(encoding="utf-8"), re.DOTALL)[:3]
    ctpatch_sh = f'#!/bin/bash\nexec {sys.executable} -m ctpatch "$@" {" ".join(SMALL)}\n'
    for name, text in (("shard.sh", shard_sh), ("store.sh", store_sh), ("sbatch", SBATCH), ("ctpatch", ctpatch_sh)):
        (tmp_path / name).write_text(text.replace("cohort.csv", str(manifest)))
        (tmp_path / name).chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    command = ["bash", "-euo", "pipefail", "-c", typed.replace("100", "3")]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "after\n" in done.stderr
    assert "o.h5.parts: shard 3/3, 3 lesions" in done.stderr.replace("cohort.h5", "o.h5")
    assert "; 10 lesions were finished before" in done.stdout
    assert (tmp_path / "cohort.h5").read_bytes() == plain
