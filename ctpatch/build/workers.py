"""Lesions in joblib's worker processes: answers in order, a death named, and nothing lost with it."""

from __future__ import annotations

import threading
import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future
from contextlib import closing
from typing import Any

from joblib import Parallel, ParallelBackendBase, delayed
from joblib.externals.loky import BrokenProcessPool

from ..processes import Call, Function, OwnProcess, Processes, WorkerDied

AHEAD = 2
"""Calls per worker that are handed out and not finished: one at work, one waiting.

Where workers are killed while more calls wait than loky's queue takes (two per worker and one), its manager thread ends
with a KeyError (loky 3.6.0; findings/loky_kill_workers.sh).
"""

TRIES = 2
"""How often a call is made alone before it is to blame: once would do where it was at work when a process ended, but it
may have been waiting only."""


class _Calls:
    """Calls that workers' threads ask for, and which of them were handed out and not answered."""

    def __init__(self, calls: Iterable[Call]) -> None:
        self._waiting, self._lock, self._round = iter(calls), threading.Lock(), 0
        self.handed: deque[Call] = deque()

    def hand_out(self) -> Iterator[Call]:
        """The calls that are left, until `stop`."""
        number = self._round
        while True:
            with self._lock:
                if number != self._round:
                    return
                try:
                    call = next(self._waiting)
                except StopIteration:
                    return
                self.handed.append(call)
            yield call

    def stop(self) -> None:
        """Hand out no more to those who ask now."""
        with self._lock:
            self._round += 1


def in_workers(function: Function, waiting: Iterable[Call], jobs: int) -> Generator[Any, None, None]:
    """Rounds of calls by `jobs` workers; a death ends a round, for loky gives up all of its workers with the dead one.

    Answers that nobody had fetched are lost too, so whoever was handed out and has no answer is made again, one by one:
    if memory was short, each then has all there is.
    """
    calls = _Calls(waiting)
    while True:
        with closing(_round(function, calls.hand_out(), jobs)) as answers:
            try:
                for answer in answers:
                    calls.handed.popleft()
                    yield answer
                return
            except BrokenProcessPool:
                calls.stop()
        with closing(OwnProcess()) as alone:
            while calls.handed:
                yield _answer(alone, function, calls.handed.popleft())


def _round(function: Function, calls: Iterator[Call], jobs: int) -> Generator[Any, None, None]:
    """One run of joblib; its workers have ended when the generator has."""
    parallel = Parallel(
        jobs, backend=_Workers(), return_as="generator", batch_size=1, pre_dispatch=AHEAD * jobs, max_nbytes=None
    )
    answers = parallel(delayed(function)(*call) for call in calls)
    try:
        for answer in answers:  # noqa: UP028 - `yield from` would close them outside of what follows
            yield answer
    finally:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # joblib warns of the calls that a run which is stopped leaves undone
            answers.close()


class _Workers(ParallelBackendBase):
    """Worker processes of one run alone.

    joblib's own backend has one pool for all loops of a process, and where two of them are under way with different
    initializers (two builds, or the caller's own loop), each waits for the other for good (joblib 1.6.0).
    """

    supports_retrieve_callback = True

    def effective_n_jobs(self, n_jobs: int) -> int:
        return n_jobs

    def configure(self, n_jobs: int = 1, parallel: Parallel | None = None, **_: Any) -> int:
        self.parallel, self._processes = parallel, Processes(n_jobs)
        return n_jobs

    def submit(self, func: Function, callback: Callable[[Future[Any]], None] | None = None) -> Future[Any]:
        try:
            answer = self._processes.submit(func)
        except WorkerDied:  # joblib hands out in threads of its own, also once the run is closed: nobody waits for it
            return Future()
        if callback:
            answer.add_done_callback(callback)
        return answer

    def retrieve_result_callback(self, out: Future[Any]) -> Any:
        return out.result()

    def terminate(self) -> None:
        self._processes.leave()

    def abort_everything(self, ensure_ready: bool = True) -> None:
        self._processes.end()


def _answer(alone: OwnProcess, function: Function, call: Call) -> Any:
    for _ in range(TRIES):
        try:
            return alone(function, *call)
        except WorkerDied as error:
            death = error
    return death
