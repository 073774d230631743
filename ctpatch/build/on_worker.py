"""What a Dask worker does with a call: it has a process of its own make it.

A Dask worker runs its tasks in threads. So one thread of ctpatch is in each process here too, a call that ends its
process ends no other call, nor the worker, and threads do not wait for each other's Python.
"""

from __future__ import annotations

import asyncio
import pickle
import threading
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.util import Finalize
from typing import Any

from ..errors import InputError
from ..processes import OwnProcess, WorkerDied
from .environment import differences, environment

IDLE_S = 60.0
"""For how long a process is kept without a call: a run that was killed cannot end it."""


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
    """A process for each run and thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: dict[str, dict[int, OwnProcess]] = {}
        self._ended: set[str] = set()
        Finalize(None, self.end_all, exitpriority=100)  # before the worker's exit waits for them

    def of(self, run: str) -> OwnProcess:
        """The one for this thread."""
        with self._lock:
            if run in self._ended:
                raise RuntimeError("this run has ended")
            return self._kept.setdefault(run, {}).setdefault(threading.get_ident(), OwnProcess(idle_s=IDLE_S))

    def end(self, run: str) -> None:
        """End a run's processes; it gets no other."""
        with self._lock:
            self._ended.add(run)
            kept = self._kept.pop(run, {})
        for process in kept.values():
            process.close()

    def end_all(self) -> None:
        for run in tuple(self._kept):
            self.end(run)


_processes = _Processes()


def make(run: str, call: bytes, there: dict[str, str]) -> bytes:
    """The call's answer and None, or None and what it raised, pickled; a `WorkerDied` where it ended its process.

    Raises
    ------
    InputError
        When the versions here are not those of the one who sent it.
    """
    if differences(there):
        import socket

        found = differences(there).replace(", not ", " there, ")
        do = "start the workers from the same environment as this command"
        raise InputError(f"a Dask worker on '{socket.gethostname()}' has other versions ({found})", do)
    try:
        answer: bytes = _processes.of(run)(_made, call)
    except WorkerDied as death:
        return pickle.dumps((death, None))
    return answer


def _made(call: bytes) -> bytes:
    function, arguments = pickle.loads(call)
    try:
        return pickle.dumps((function(*arguments), None))
    except Exception as error:  # the caller's to raise; what Dask raises is another matter
        return pickle.dumps((None, error))


def about() -> dict[str, str]:
    """The versions on this worker."""
    return environment()


async def stop(run: str) -> None:
    """End a run's processes on this worker, without keeping it from its other duties."""
    await asyncio.to_thread(_processes.end, run)
