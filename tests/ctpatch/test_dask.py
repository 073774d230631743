"""Builds on a Dask cluster of real processes, some of which are killed (cases 218-224)."""

import functools
import gc
import os
import re
import signal
import subprocess
import sys
import threading
import time

import awkward
import clusters
import cohort
import faraway
import pytest
from calls import BOUNDED_S, alive, awaited, dwell, fail, last, made, pid_of, square

import ctpatch.build.one_lesion
import ctpatch.build.run
from ctpatch.build import cluster as cluster_module
from ctpatch.build import elsewhere
from ctpatch.build.cluster import AHEAD, ClusterRunner
from ctpatch.build.plans import Plans
from ctpatch.errors import CtpatchError, InputError
from ctpatch.manifest import Row
from ctpatch.processes import WorkerDied
from ctpatch.recipe import BuildOptions, Recipe

distributed = pytest.importorskip("distributed")

SMALL = ("--patches", "3", "--augment", "1", "--no-rgb")
LESIONS = 10


class Two:
    """A cluster with two workers: one of two threads with a nanny, which starts it anew, and one of one without."""

    def __init__(self, folder):
        self.cluster = clusters.Cluster(folder)
        self.nannied = self.cluster.worker("--nthreads", "2", "--nanny")
        self.bare = self.cluster.worker("--nthreads", "1", "--no-nanny")
        self.address = self.cluster.address
        clusters.workers(self.address, 2)

    def restored(self):
        """With both workers."""
        if self.bare.poll() is not None:
            self.bare = self.cluster.worker("--nthreads", "1", "--no-nanny")
        clusters.workers(self.address, 2)
        return self


@pytest.fixture(scope="module")
def _two(tmp_path_factory):
    two = Two(tmp_path_factory.mktemp("cluster"))
    yield two
    two.cluster.end()


@pytest.fixture(scope="module")
def few(tmp_path_factory):
    """A manifest of three lesions, and the bytes of its store."""
    manifest = cohort.write_cohort(tmp_path_factory.mktemp("few"), ("train", "train", "test"))
    out = tmp_path_factory.mktemp("plain") / "plain.h5"
    assert awkward.run("build", "--manifest", manifest, "--out", out, *SMALL).status == 0
    return manifest, out.read_bytes()


@pytest.fixture
def two(_two):
    return _two.restored()


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """A scheduler without workers."""
    scheduler = clusters.Cluster(tmp_path_factory.mktemp("bare"))
    yield scheduler
    scheduler.end()


def words(manifest, out, address, *more):
    given = ("build", "--manifest", manifest, "--out", out, *SMALL, "--scheduler", address, *more)
    return [str(word) for word in given]


def build(manifest, out, address, *more):
    return awkward.run(*words(manifest, out, address, *more))


def resumes(manifest, out, plain, *more):
    """On this machine, to the same bytes."""
    result = awkward.run("build", "--manifest", manifest, "--out", out, *SMALL, *more)
    assert (result.status, result.err) == (0, ()), result
    assert out.read_bytes() == plain
    assert [path.name for path in out.parent.iterdir()] == [out.name]


def refused(result, status, pattern):
    assert (result.status, result.out) == (status, ()), result
    (line,) = result.err
    assert re.fullmatch(f"ctpatch: {pattern}", line), line


# -- The runner -----------------------------------------------------------------------------------------------------


def test_answers_come_in_order_from_a_process_per_thread(two):
    runner = ClusterRunner(two.address)
    assert list(runner.run(square, ((n, "", 0, 0.05 * (n % 3)) for n in range(12)))) == [n * n for n in range(12)]
    others = set(runner.run(pid_of, ((n,) for n in range(30))))
    assert 2 <= len(others) <= 3
    assert len(others | set(runner.run(pid_of, ((n,) for n in range(30))))) <= 3  # the next run's, too
    assert list(runner.run(square, [])) == []


def test_calls_are_handed_out_as_they_are_made_and_called_back(two, tmp_path):
    taken = []

    def calls():
        for n in range(100):
            taken.append(n)
            yield n, str(tmp_path), 60.0 * (n > 0)

    answers = ClusterRunner(two.address).run(dwell, calls())
    assert next(answers) == 0
    assert len(taken) <= 3 * AHEAD + 4
    awaited(lambda: len(made(tmp_path)) == 4)  # who is not at work is kept
    answers.close()
    before = made(tmp_path)
    assert not any(map(alive, clusters.pids(before)))
    time.sleep(0.4)
    assert made(tmp_path) == before


def test_a_slow_call_keeps_nobody_waiting(two, tmp_path):
    """While the first is at work, many of the others are done; the order stays."""
    answers = ClusterRunner(two.address).run(last, ((n, str(tmp_path), 26) for n in range(30)))
    assert list(answers) == list(range(30))


def test_an_exception_ends_the_run(two):
    with pytest.raises(ValueError, match="number 3"):
        list(ClusterRunner(two.address).run(fail, ((n,) for n in range(50))))
    with pytest.raises(FileNotFoundError):  # the call's own, not the connection's
        list(ClusterRunner(two.address).run(square, [(1, "/nowhere/at/all")]))


def test_a_death_takes_nothing_with_it(two, tmp_path):
    """One call ends its process once, another each time; the Dask worker and its other thread go on."""
    deaths = {4: 1, 9: 99}
    calls = ((n, str(tmp_path), deaths.get(n, 0), 0.01) for n in range(16))
    answers = list(ClusterRunner(two.address).run(square, calls))
    blamed = [n for n, answer in enumerate(answers) if isinstance(answer, WorkerDied)]
    assert blamed == [9]
    assert str(answers[9]) == "killed by signal 9"
    assert [answer for n, answer in enumerate(answers) if n != 9] == [n * n for n in range(16) if n != 9]
    others = [n for n in range(16) if n not in deaths]
    assert all(len([name for name in made(tmp_path) if name.startswith(f"{n}.")]) == 1 for n in others)
    assert two.bare.poll() is None


# -- 218: builds, and workers that are lost -------------------------------------------------------------------------


def test_218_the_same_bytes(two, manifest, plain, tmp_path, monkeypatch):
    """Also where paths are given from the working folder, which is not the workers'."""
    monkeypatch.chdir(manifest.parent)
    out = tmp_path / "o.h5"
    result = build(manifest.name, os.path.relpath(out), two.address)
    assert (result.status, result.err) == (0, ())
    assert out.read_bytes() == plain
    assert [path.name for path in tmp_path.iterdir()] == ["o.h5"]


def test_218_compressed_pixels_are_decoded_in_a_process_of_a_process(two, tmp_path):
    manifest = cohort.write_cohort(tmp_path / "in", ("train", "val"), transfer_syntax="jpeg-ls")
    assert build(manifest, tmp_path / "o.h5", two.address).status == 0
    assert awkward.run("build", "--manifest", manifest, "--out", tmp_path / "p.h5", *SMALL).status == 0
    assert (tmp_path / "o.h5").read_bytes() == (tmp_path / "p.h5").read_bytes()


def test_218_a_shard_on_a_cluster(two, manifest, plain, tmp_path):
    out = tmp_path / "o.h5"
    result = build(manifest, out, two.address, "--shard", "1/2")
    assert (result.status, result.err) == (0, ())
    assert "shard 1/2, 5 lesions; when" in result.out[-1]
    resumes(manifest, out, plain)


def test_218_a_worker_is_killed_in_the_middle(two, manifest, plain, tmp_path):
    out = tmp_path / "o.h5"

    def progress(done, total, word):
        if done == 2:
            clusters.kill(two.bare)

    options = BuildOptions(Recipe(patches=3, augment=1, rgb=False), scheduler=two.address)
    result = ctpatch.build.run.build(manifest, out, options, progress)
    assert (result.lesions, result.computed, result.skipped) == (LESIONS, LESIONS, ())
    assert out.read_bytes() == plain


# -- 219: a lesion that ends its process, or every worker -----------------------------------------------------------


def test_219_a_lesion_that_kills_its_process_is_named(two, few, tmp_path, monkeypatch):
    (tmp_path / "deaths").mkdir()
    work = functools.partial(faraway.end_process, str(tmp_path / "deaths"), "P01/1", 99)
    monkeypatch.setattr(ctpatch.build.run, "_work", work)
    result = build(few[0], tmp_path / "o.h5", two.address, "--on-error", "skip")
    assert result.status == 1
    (line,) = result.err
    ended = "its worker process ended twice when it was computed alone: killed by signal 9; out of memory?"
    assert line.startswith(f"skipped: patient=P01 row=3 P01/ct: {ended}")
    assert len(list((tmp_path / "deaths").iterdir())) == 3
    assert two.bare.poll() is None


def test_219_a_lesion_that_kills_every_dask_worker(two, few, tmp_path, monkeypatch):
    """It alone is to blame, in bounded time, though others were at work or waiting on the same workers."""
    (tmp_path / "deaths").mkdir()
    out, start = tmp_path / "o.h5", time.monotonic()
    work = functools.partial(faraway.end_worker, str(tmp_path / "deaths"), "P01/1", 99)
    monkeypatch.setattr(ctpatch.build.run, "_work", work)
    result = build(few[0], out, two.address, "--on-error", "skip")
    assert time.monotonic() - start < BOUNDED_S
    assert result.status == 1
    (line,) = result.err
    assert line.startswith(
        "skipped: patient=P01 row=3 P01/ct: its worker process ended twice when it was computed alone"
    )
    assert "killed with its Dask worker" in line
    assert result.out[-1].startswith(f"{out}: 2 lesions")
    assert 2 <= len(list((tmp_path / "deaths").iterdir())) <= 4


# -- 220: the scheduler ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "address", ["tcp://127.0.0.1:9", "nonsense", "quux://127.0.0.1:9", "tcp://no.such.host.invalid:8786"]
)
def test_220_a_scheduler_that_is_not_there(manifest, tmp_path, monkeypatch, address):
    monkeypatch.setattr(cluster_module, "CONNECT_S", 0.5)
    start = time.monotonic()
    result = build(manifest, tmp_path / "o.h5", address)
    refused(result, 2, r".*the Dask scheduler cannot be reached \(.*\)\. Do: give --scheduler the address .*")
    assert time.monotonic() - start < BOUNDED_S
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("address", ["nonsense", "quux://127.0.0.1:9", "tcp://127.0.0.1:9"])
def test_220_one_that_failed_is_no_garbage_while_the_next_begins(manifest, tmp_path, monkeypatch, address):
    """Dask's closing of it and its start of the next one take the same lock, in one thread."""
    monkeypatch.setattr(cluster_module, "CONNECT_S", 0.5)
    begin = distributed.utils.LoopRunner._start_unlocked

    def start(runner):
        gc.collect()
        begin(runner)

    monkeypatch.setattr(distributed.utils.LoopRunner, "_start_unlocked", start)
    gc.disable()
    try:
        for _ in range(2):
            refused(build(manifest, tmp_path / "o.h5", address), 2, ".*the Dask scheduler cannot be reached .*")
    finally:
        gc.enable()


@pytest.mark.parametrize("late", [1, 2])
def test_220_dasks_event_loop_begins_late(two, few, tmp_path, monkeypatch, late):
    """Dask gives its thread ten seconds, which a machine that stalls may need, and then fails an assertion."""
    left, begin = ["late"] * late, distributed.utils.LoopRunner._start_unlocked

    def start(runner):
        assert not left or not left.pop()
        begin(runner)

    monkeypatch.setattr(distributed.utils.LoopRunner, "_start_unlocked", start)
    result = build(few[0], tmp_path / "o.h5", two.address)
    if late == 1:
        assert (result.status, result.err) == (0, ())
    else:
        refused(result, 1, "Dask's event loop does not begin within 10 s: .*; run again")
    assert not left


def test_220_the_scheduler_is_lost_in_the_middle(manifest, plain, tmp_path):
    lost, out = clusters.Cluster(tmp_path / "cluster"), tmp_path / "out" / "o.h5"
    out.parent.mkdir()
    try:
        lost.worker("--nthreads", "1", "--no-nanny")
        clusters.workers(lost.address, 1)
        start = []

        def progress(done, total, word):
            if done == 2:
                clusters.kill(lost.scheduler)
                start.append(time.monotonic())

        options = BuildOptions(Recipe(patches=3, augment=1, rgb=False), scheduler=lost.address)
        with pytest.raises(CtpatchError, match=r"tcp://.*: the scheduler was lost \(.*\); finished lesions are kept"):
            ctpatch.build.run.build(manifest, out, options, progress)
        assert time.monotonic() - start[0] < BOUNDED_S
    finally:
        lost.end()
    resumes(manifest, out, plain)


def test_220_without_the_extra_or_with_jobs(manifest, tmp_path, monkeypatch):
    refused(
        build(manifest, tmp_path / "o.h5", "tcp://127.0.0.1:9", "--jobs", "2"), 2, r"--jobs 2 and --scheduler\. Do: .*"
    )
    monkeypatch.setitem(sys.modules, "distributed", None)
    result = build(manifest, tmp_path / "o.h5", "tcp://127.0.0.1:9")
    refused(result, 2, r"--scheduler needs Dask \(.*\)\. Do: pip install 'ctpatch\[dask\]'\.")
    assert list(tmp_path.iterdir()) == []


# -- 221: other versions --------------------------------------------------------------------------------------------

OLDER = "import ctpatch.recipe; ctpatch.recipe.ALGORITHM = 'ctpatch-1'; "


@pytest.mark.parametrize(
    ("before", "late", "found"),
    [
        (OLDER, False, r"has algorithm ctpatch-1, not ctpatch-\d+"),
        (OLDER, True, r"has algorithm ctpatch-1, not ctpatch-\d+"),
        (clusters.WITHOUT_CTPATCH, True, r"cannot load ctpatch \(.*No module named 'ctpatch.*\)"),
    ],
    ids=["older", "older-late", "none-late"],
)
def test_221_a_worker_of_another_environment(bare, manifest, tmp_path, monkeypatch, before, late, found):
    """Told before the first lesion or, of one that comes later, with its first."""
    if late:
        monkeypatch.setattr(cluster_module._Flight, "check_workers", lambda flight: None)
    worker = bare.worker("--nthreads", "1", "--no-nanny", before=before)
    clusters.workers(bare.address, 1)
    result = build(manifest, tmp_path / "o.h5", bare.address, "--on-error", "skip")
    clusters.kill(worker)
    refused(result, 2, rf"the Dask worker .* {found}\. Do: start the workers from the same environment .*")
    assert list(tmp_path.iterdir()) == []


# -- 222: workers that do not see the files -------------------------------------------------------------------------


def test_222_files_that_the_worker_does_not_see(two, manifest, tmp_path, monkeypatch):
    monkeypatch.setattr(ctpatch.build.run, "_work", functools.partial(faraway.elsewhere, "files"))
    result = build(manifest, tmp_path / "o.h5", two.address)
    pattern = r"patient=P00 row=2 elsewhere/P00/ct: a worker on '.*' does not see it\. Do: .* must see the same files\."
    refused(result, 2, pattern)


def test_222_a_folder_of_parts_that_the_worker_does_not_see(two, manifest, tmp_path, monkeypatch):
    """Which no lesion is skipped for: none would fare better."""
    monkeypatch.setattr(ctpatch.build.run, "_work", functools.partial(faraway.elsewhere, "parts"))
    result = build(manifest, tmp_path / "o.h5", two.address, "--on-error", "skip")
    refused(
        result, 1, r".*a worker on '.*' does not see this folder; give --out on a file system that all workers see.*"
    )
    assert list(tmp_path.iterdir()) == []


def test_222_a_part_that_comes_late(manifest, plain, tmp_path, monkeypatch):
    """As where NFS shows a new file to another machine after a while only."""
    row = Row(2, "p", "1", "ct", split="train")
    start = time.monotonic()
    threading.Timer(0.5, (tmp_path / "x.part").touch).start()
    assert elsewhere.arrived(tmp_path / "x.part", row) is None  # there at last, and no part
    assert 0.4 < time.monotonic() - start < elsewhere.CACHED_S
    monkeypatch.setattr(elsewhere, "CACHED_S", 0.3)
    assert elsewhere.arrived(tmp_path / "y.part", row) is None


# -- 223: no workers ------------------------------------------------------------------------------------------------


def test_223_a_cluster_without_workers(bare, manifest, plain, tmp_path, monkeypatch):
    monkeypatch.setattr(cluster_module, "WITHOUT_S", 0.5)
    out = tmp_path / "o.h5"
    refused(
        build(manifest, out, bare.address), 1, r"tcp://.*: no worker for 0\.5 s; finished lesions are kept: start .*"
    )
    resumes(manifest, out, plain)


# -- 224: interrupted -----------------------------------------------------------------------------------------------

SLOWLY = """
import functools, sys
import faraway, ctpatch.build.run
from ctpatch.cli import main
ctpatch.build.run._work = functools.partial(faraway.slowly, sys.argv[1])
sys.exit(main(sys.argv[2:]))
"""


def test_224_interrupted(two, manifest, plain, tmp_path):
    """Ctrl-C ends the lesions at work, too."""
    out, at_work = tmp_path / "o" / "o.h5", tmp_path / "at_work"
    at_work.mkdir()
    out.parent.mkdir()
    command = [sys.executable, "-c", SLOWLY, str(at_work), *words(manifest, out, two.address)]
    environment = {**os.environ, "PYTHONPATH": two.cluster.environment["PYTHONPATH"]}
    parent = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    awaited(lambda: len(made(at_work)) == 3 or parent.poll() is not None)
    assert parent.poll() is None
    start = time.monotonic()
    parent.send_signal(signal.SIGINT)
    _, err = parent.communicate(timeout=BOUNDED_S)
    assert time.monotonic() - start < BOUNDED_S
    assert err == "ctpatch: interrupted; finished lesions are kept, run the same command to go on\n"
    assert parent.returncode == 1
    assert not any(map(alive, clusters.pids(made(at_work))))
    resumes(manifest, out, plain)


def test_224_who_is_left_behind_writes_nothing(manifest, plain, tmp_path, monkeypatch):
    """After a kill a worker goes on with its lesion, and the folder may be another build's when it is done."""
    monkeypatch.setattr(ctpatch.build.run, "NEW_S", 0.0)
    row, parts = ctpatch.build.run.read_manifest(manifest).rows[0], tmp_path / "o.h5.parts"
    parts.mkdir()
    really = ctpatch.build.one_lesion.cut_lesion

    def cut(*arguments, **options):
        under_way.unlink()
        return really(*arguments, **options)

    monkeypatch.setattr(ctpatch.build.one_lesion, "cut_lesion", cut)
    options = BuildOptions(Recipe(patches=3, augment=1, rgb=False), scheduler="tcp://")
    with elsewhere.ticket(parts) as under_way:
        call = ctpatch.build.run._call(row, Plans(parts, options.recipe), options, under_way)
        outcome = ctpatch.build.run._work(*call)
    assert not isinstance(outcome.problem, InputError)
    assert "does not see this folder" in str(outcome.problem)
    assert list(parts.iterdir()) == []
    monkeypatch.undo()
    (parts / under_way.name).touch()  # as a kill leaves it
    resumes(manifest, tmp_path / "o.h5", plain)
