"""One process of a fuzz run: mutates and judges inputs of one target under a limit of time and memory.

What kills the process (a signal, no answer) is seen by its parent, which finds the input in a file `current-TARGET`.
"""

from __future__ import annotations

import contextlib
import hashlib
import mmap
import random
import resource
import signal
import sys
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from .target import Target, accepted, place

SECONDS = 10
"""An input that takes longer is a find."""
MEMORY = 3 * 2**29
"""Bytes beyond those that the process has when it begins: 1.5 GiB."""
_KEPT = 100


class Hang(BaseException):
    """No answer in time."""


class Counts:
    """Inputs, accepted, refused, finds: in a file that outlives the process that counts."""

    NAMES = ("inputs", "accepted", "refused", "finds")

    def __init__(self, path: Path):
        if not path.exists():
            path.write_bytes(bytes(8 * len(self.NAMES)))
        with open(path, "r+b") as file:
            self.values = np.frombuffer(mmap.mmap(file.fileno(), 0), np.int64)

    def add(self, name: str) -> None:
        self.values[self.NAMES.index(name)] += 1


@dataclass
class Judge:
    """Runs inputs of a target one by one and keeps what is wrong, once for each place where it is."""

    target: Target
    counts: Counts
    folder: Path
    seen: set[str] = field(default_factory=set)

    def __call__(self, data: bytes) -> bool:
        """Whether the input was accepted; a find is counted and its bytes are saved."""
        self.counts.add("inputs")
        (self.folder / f"current-{self.target.name}").write_bytes(data)
        try:
            with time_limit(SECONDS):
                good = accepted(self.target, data)
        except (Exception, Hang) as error:
            self.counts.add("finds")
            self._save(data, error)
            return False
        self.counts.add("accepted" if good else "refused")
        return good

    def _save(self, data: bytes, error: BaseException) -> None:
        where = place(error)
        if where in self.seen:
            return
        self.seen.add(where)
        save_find(self.folder, self.target.name, data, f"{where}\n{''.join(traceback.format_exception(error))}")


def save_find(folder: Path, name: str, data: bytes, about: str) -> None:
    """Keep a find's bytes, and beside them what it was."""
    stem = folder / f"{name}-{hashlib.sha256(data).hexdigest()[:10]}"
    stem.with_suffix(".bin").write_bytes(data)
    stem.with_suffix(".txt").write_text(about, encoding="utf-8", errors="backslashreplace")
    sys.stderr.write(f"FIND {stem.name}: {about.splitlines()[0]}\n")
    sys.stderr.flush()


@contextlib.contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise `Hang` in the block when it takes longer."""

    def ring(*_: object) -> None:
        raise Hang(f"no answer in {seconds} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def limit_memory() -> None:
    """Let this process grow by `MEMORY` and no more."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    size = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (size, size))


def run(judge: Judge, seed: int, *, seconds: float = float("inf"), inputs: float = float("inf")) -> None:
    """Judge mutations of the seeds, and of mutations that were accepted, until time or inputs are used up."""
    rng, target = random.Random(f"{judge.target.name} {seed}"), judge.target
    pool, stop = list(target.seeds), time.monotonic() + seconds
    for data in target.seeds:
        judge(data)
    done, most = len(target.seeds), 4 * max(map(len, target.seeds))
    while done < inputs and time.monotonic() < stop:
        data = target.mutate(rng.choice(pool if rng.random() < 0.3 else target.seeds), rng)[:most]
        if judge(data) and rng.random() < 0.1:
            pool[len(target.seeds) + rng.randrange(_KEPT) :] = [data]
        done += 1


def run_guided(judge: Judge, seed: int, seconds: float) -> None:
    """The same, with libFuzzer (atheris) choosing what to mutate by the lines of ctpatch that it reaches."""
    import atheris

    corpus = judge.folder / f"corpus-{judge.target.name}"
    corpus.mkdir(exist_ok=True)
    for number, data in enumerate(judge.target.seeds):
        (corpus / str(number)).write_bytes(data)
    most = 2 * max(map(len, judge.target.seeds))

    def mutated(data: bytes, most: int, state: int) -> bytes:
        if state % 4 == 0:
            return bytes(atheris.Mutate(data, most))
        return judge.target.mutate(data, random.Random(state))[:most]

    def judged(data: bytes) -> None:
        judge(data)

    options = [f"-seed={seed % 2**31 + 1}", f"-max_total_time={max(1, int(seconds))}", f"-max_len={most}", "-timeout=0"]
    options += ["-rss_limit_mb=0", "-verbosity=0", "-handle_segv=0", "-handle_abrt=0", "-detect_leaks=0"]
    atheris.Setup([sys.argv[0], *options, str(corpus)], judged, custom_mutator=mutated)
    atheris.Fuzz()
