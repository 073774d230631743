"""Kill real builds at random moments, resume them until they are done, and compare the stores byte for byte.

python benchmarks/kills.py --kills 500

Five kinds of SIGKILL: `serial` (one process), `parallel` (--jobs 2, all of its processes), `parent` (only the first of
them, its workers are left behind), `worker` (one of its workers: the build itself must go on), and `merge` (every
lesion is finished, the store is being put together). Each build is `ctpatch`'s own command in a process forked from
this one, which has loaded the modules, so that the moments fall into the work. Meanwhile the final name is watched:
there is the old store, none, or the whole new one. Two seconds after the kill of a parallel build none of its processes
is alive, and no part of it appears. The stores have 7,200 training patches: a compressor that gives other bytes once in
some ten thousand would show.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil

from ctpatch.build.run import build
from ctpatch.cli import main as ctpatch
from ctpatch.recipe import BuildOptions, Recipe

SHARES = {"serial": 0.4, "parallel": 0.15, "parent": 0.1, "worker": 0.1, "merge": 0.25}
ALONE = ("serial", "merge")
AGAIN = 0.75
"""How likely a resumed build is to be killed too."""
GROWN = 100_000
"""Bytes of a store that has its first lesion."""
AFTERWARDS_S = 2.0
PATIENTS = 13
"""With two lesions each, all but the last for training."""
RECIPE = Recipe(rgb=False)


@dataclass
class Count:
    """What came of the kills of one kind."""

    kills: int = 0
    in_work: int = 0
    finished: int = 0
    identical: int = 0
    partial: int = 0
    left: int = 0


class Study:
    """A cohort, the store of an undisturbed build, an older store, and the parts of a build that is nearly done."""

    def __init__(self, folder: Path, seed: int = 0, patients: int = PATIENTS, recipe: Recipe = RECIPE):
        import cohort

        self.folder, self.random, self.recipe, self.lesions = folder, random.Random(seed), recipe, 2 * patients
        self.manifest = cohort.write_cohort(folder / "cohort", ("train",) * (patients - 1) + ("test",), lesions=2)
        self.out = folder / "work" / "o.h5"
        self.out.parent.mkdir()
        self.parts = self.out.with_name("o.h5.parts")
        build(self.manifest, folder / "old.h5", BuildOptions(Recipe(patches=1, augment=0, rgb=False)))
        build(self.manifest, folder / "plain.h5", BuildOptions(self.recipe))  # loads kernels
        self.plain, self.old = (folder / "plain.h5").read_bytes(), (folder / "old.h5").read_bytes()
        self.ready = folder / "o.h5.parts"
        self._all_but_the_store()
        self.seconds = self._seconds()

    def kill(self, kind: str, kills: int) -> Count:
        """Kill builds so often, each until it is done."""
        count = Count()
        while count.kills < kills:
            self._begin(kind)
            while True:
                status = self._run(kind, count, kills)
                if status == 0:
                    break
                assert status == -signal.SIGKILL, f"exit status {status}"
            count.finished += 1
            count.identical += self.out.read_bytes() == self.plain and os.listdir(self.out.parent) == ["o.h5"]
        return count

    def _begin(self, kind: str) -> None:
        """Half of the builds replace an older store."""
        shutil.rmtree(self.out.parent)
        self.out.parent.mkdir()
        if self.random.random() < 0.5:
            self.out.write_bytes(self.old)
        if kind == "merge":
            shutil.copytree(self.ready, self.parts)

    def _run(self, kind: str, count: Count, kills: int) -> int:
        """One build, killed unless it ends before, or was killed often enough; its status as `Popen.returncode`."""
        pid, known = self._fork(1 if kind in ALONE else 2), {*self._finished()}
        if count.kills < kills and (not known or kind == "merge" or self.random.random() < AGAIN):
            status = self._wait(pid, count, lambda: self._at_work(kind, known))
            moment = time.monotonic() + self.random.random() * self.seconds[kind]
            if status is None:
                status = self._wait(pid, count, lambda: time.monotonic() > moment)
            if status is not None:
                return status
            family = descendants_of(pid)
            self._strike(kind, pid, count)
            if kind in ("parallel", "parent"):
                status = self._wait(pid, count)
                count.left += self._is_something_left(family)
                assert status is not None
                return status
        status = self._wait(pid, count)
        assert status is not None
        return status

    def _is_something_left(self, family: list[int]) -> bool:
        """Whether a process of a killed build is alive, or writes a part, a while later."""
        time.sleep(AFTERWARDS_S)
        parts = self._finished()
        time.sleep(AFTERWARDS_S / 10)
        return any(map(is_alive, family)) or self._finished() != parts

    def _strike(self, kind: str, pid: int, count: Count) -> None:
        at_work = self.parts.exists()
        victims = workers_of(pid) if kind == "worker" else [pid]
        if not victims:  # it has just ended them
            return
        if kind in ("worker", "parent"):
            os.kill(self.random.choice(victims), signal.SIGKILL)
        else:
            os.killpg(pid, signal.SIGKILL)
        count.kills, count.in_work = count.kills + 1, count.in_work + at_work

    def _fork(self, jobs: int) -> int:
        sys.stdout.flush()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # on forks of processes with threads
            pid = os.fork()
        if pid:
            while os.getpgid(pid) != pid:
                time.sleep(0.0005)
            return pid
        try:
            os.setpgid(0, 0)
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, 1)
            os.dup2(nowhere, 2)
            words = ["build", "--manifest", self.manifest, "--out", self.out, "--jobs", jobs]
            words += ["--patches", self.recipe.patches, "--augment", self.recipe.augment]
            words += [] if self.recipe.rgb else ["--no-rgb"]
            status = ctpatch([str(word) for word in words])
        except BaseException:
            status = 70
        os._exit(status)

    def _wait(self, pid: int, count: Count, until: Callable[[], bool] = lambda: False) -> int | None:
        """Wait for a moment, watching the final name; the status of a build that ends before."""
        seen = None
        while True:
            ended, status = os.waitpid(pid, os.WNOHANG)
            inode = self.out.stat().st_ino if self.out.exists() else None
            if inode != seen:
                seen = inode
                count.partial += self.out.read_bytes() not in (self.plain, self.old)
            if ended:
                return os.waitstatus_to_exitcode(status)
            if until():
                return None
            time.sleep(0.001)

    def _at_work(self, kind: str, known: set[str]) -> bool:
        if kind in ALONE:
            return (self.parts / "store.tmp").exists()
        store = self.parts / "store.tmp"
        return {*self._finished()} != known or (store.exists() and store.stat().st_size > GROWN)

    def _finished(self) -> list[str]:
        return sorted(path.name for path in self.parts.glob("*.part"))

    def _all_but_the_store(self) -> None:
        """Keep the parts of a build that ended after its last lesion."""

        def stop(done: int, total: int, word: str) -> None:
            if done == total:
                raise KeyboardInterrupt

        with contextlib.suppress(KeyboardInterrupt):
            build(self.manifest, self.ready.with_suffix(""), BuildOptions(self.recipe), stop)
        assert len(list(self.ready.glob("*.part"))) == self.lesions

    def _seconds(self) -> dict[str, float]:
        """How long the work of each kind takes, undisturbed."""
        seconds = {}
        for kind in ALONE:
            self._begin(kind)
            start, pid = time.monotonic(), self._fork(1)
            assert self._wait(pid, Count()) == 0
            seconds[kind] = time.monotonic() - start
        return {**dict.fromkeys(SHARES, seconds["serial"]), **seconds}


def workers_of(pid: int, *, below: bool = False) -> list[int]:
    """The processes that a process has started; with those that these have."""
    try:
        return [child.pid for child in psutil.Process(pid).children(recursive=below)]
    except psutil.NoSuchProcess:
        return []


def descendants_of(pid: int) -> list[int]:
    """A process and all that it, or one of these, has started."""
    return [pid, *workers_of(pid, below=True)]


def is_alive(pid: int) -> bool:
    """Whether a process runs: it is there, and more than an entry that nobody has asked for."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    sys.path.append(str(Path(__file__).resolve().parents[1] / "tests"))  # for its small cohort
    columns = ("kills", "in work", "finished", "identical", "partial seen", "left behind")
    print(f"{'':10}" + "".join(f"{name:>14}" for name in columns))
    total = [0] * len(columns)
    with tempfile.TemporaryDirectory() as folder:
        study = Study(Path(folder), arguments.seed)
        for kind, share in SHARES.items():
            count = study.kill(kind, round(share * arguments.kills))
            row = [count.kills, count.in_work, count.finished, count.identical, count.partial, count.left]
            print(f"{kind:10}" + "".join(f"{number:14}" for number in row), flush=True)
            total = [a + b for a, b in zip(total, row, strict=True)]
    print(f"{'in all':10}" + "".join(f"{number:14}" for number in total))


if __name__ == "__main__":
    main()
