"""What a Dask worker does with a call: it has a process of its own make it.

A Dask worker runs its tasks in threads. So one thread of ctpatch is in each process here too, a call that ends its
process ends no other call, nor the worker, and threads do not wait for each other's Python.
"""

from __future__ import annotations

import asyncio
import pickle
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.util import Finalize
from typing import Any

# once, with this module: its own modules form a circle, and of two threads that enter it at the same moment one fails
import joblib.externals.loky  # noqa: F401

from ..errors import InputError
from ..processes import OwnProcess, WorkerDied
from .environment import differences, environment

IDLE_S = 60.0
"""For how long a process is kept without a call: the next run finds it loaded."""


@dataclass(frozen=True)
class Errand:
    """A call on its way to a worker: who unpickles it makes it, and gets the pickled answer.

    Attributes
    ----------
    run : str
        Which run it belongs to.
    call : bytes
        Function and arguments, pickled.
    """

    run: str
    call: bytes

    def __reduce__(self) -> tuple[Callable[..., bytes], tuple[Any, ...]]:
        return make, (self.run, self.call, environment())


class _Processes:
    """A process for each thread of this worker, and the run that it is at work for."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._of_threads: dict[int, OwnProcess] = {}
        self._at_work: dict[int, str] = {}
        self._stopped: set[str] = set()
        Finalize(None, self._end, exitpriority=100)  # before the worker's exit waits for them

    def __call__(self, run: str, function: Callable[[bytes], bytes], call: bytes) -> bytes:
        """The function's answer from this thread's process."""
        thread = threading.get_ident()
        with self._lock:
            if run in self._stopped:
                raise WorkerDied("stopped")
            process = self._of_threads.setdefault(thread, OwnProcess(idle_s=IDLE_S))
            self._at_work[thread] = run
        try:
            answer: bytes = process(function, call)
            return answer
        finally:
            with self._lock:
                del self._at_work[thread]

    def stop(self, run: str) -> None:
        """End the processes that are at work for a run; it gets no other."""
        with self._lock:
            self._stopped.add(run)
            ending = [self._of_threads[thread] for thread, other in self._at_work.items() if other == run]
        for process in ending:
            process.close()

    def _end(self) -> None:
        for process in self._of_threads.values():
            process.close()


_processes = _Processes()


def unfit(worker: str, found: str) -> InputError:
    """What to say of a worker that cannot be used."""
    do = "start the workers from the same environment as this command"
    return InputError(f"the Dask worker {worker} {found}", do)


def make(run: str, call: bytes, there: dict[str, str]) -> bytes:
    """The call's answer and None, or None and what it raised, pickled; a `WorkerDied` where it ended its process.

    Raises
    ------
    InputError
        When the versions here are not those of the one who sent it.
    """
    if found := differences(environment(), there):
        raise unfit(f"on '{socket.gethostname()}'", f"has {found}")
    try:
        return _processes(run, _made, call)
    except WorkerDied as death:
        return pickle.dumps((death, None))


def _made(call: bytes) -> bytes:
    function, arguments = pickle.loads(call)
    try:
        return pickle.dumps((function(*arguments), None))
    except Exception as error:  # the caller's to raise; what Dask raises is another matter
        return pickle.dumps((None, error))


async def stop(run: str) -> None:
    """End a run's processes on this worker, without keeping it from its other duties."""
    await asyncio.to_thread(_processes.stop, run)
