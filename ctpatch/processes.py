"""Processes that never outlive the one that started them, and calls in a process of their own, which may crash.

loky starts them (it comes with joblib), not `concurrent.futures`: its children do not run the caller's main script
again, so a script without `if __name__ == "__main__"` works, and its error names the signal that ended a process.
It ends them by psutil; without it by `pgrep`, and where that is missing too, as in slim containers, not at all: whoever
waits for the end of a killed worker then waits for good (loky 3.6.0; findings/loky_without_pgrep.sh).
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import re
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from functools import partial
from multiprocessing import resource_tracker
from typing import TYPE_CHECKING, Any

from .errors import CtpatchError

if TYPE_CHECKING:
    from joblib.externals.loky import BrokenProcessPool

_PR_SET_PDEATHSIG = 1
_LOOK_S = 0.1
_ASK_AGAIN_S = 1.0
_PASSED_ON_S = 1.0
_LEAVE_S = 10.0
_SAFE_PATH = {"PYTHONSAFEPATH": "1"}
"""Python's `-m` and `-c` import a user's `random.py` from the working folder, unless they are told not to."""
_ENVIRONMENT = {**dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"), **_SAFE_PATH}

STOPS = {number for number in signal.Signals if number.name in ("SIGINT", "SIGTERM", "SIGHUP")}
"""Signals by which people, schedulers and terminals end a command: it answers them for all of its processes."""
_CRASHES = {n for n in signal.Signals if n.name in ("SIGSEGV", "SIGABRT", "SIGBUS", "SIGFPE", "SIGILL")}

Call = tuple[Any, ...]
Function = Callable[..., Any]


class WorkerDied(Exception):
    """A process ended in the middle of a call; the message says how.

    Attributes
    ----------
    crashed : bool
        Whether it ended by what it did, not by a signal from elsewhere or for a reason that is not known.
    """

    def __init__(self, how: str = "ended", crashed: bool = False) -> None:
        super().__init__(how)
        self.crashed = crashed

    @classmethod
    def by(cls, error: BrokenProcessPool) -> WorkerDied:
        """What loky's error says of how the process ended, as in ``{SIGKILL(-9)}``."""
        status = re.search(r"\{[A-Z]+\((-?[0-9]+)\)", str(error))
        if not status:
            return cls()
        code = int(status[1])
        return cls(f"killed by signal {-code}", -code in _CRASHES) if code < 0 else cls(f"exit status {code}", code > 0)


class Processes:
    """Processes that end when this one does, however that ends; calls start them.

    Parameters
    ----------
    count : int
    quiet : bool
        What they print to standard error is thrown away.
    idle_s : float, optional
        For how long one without a call is kept; for good unless given. The next call starts another.
    """

    def __init__(self, count: int, quiet: bool = False, idle_s: float | None = None) -> None:
        from joblib.externals.loky import ProcessPoolExecutor

        # daemons, as Dask's workers are, may have no children, lest these be left
        if multiprocessing.current_process().daemon:
            multiprocessing.current_process().daemon = False
        # the signal comes when the *thread* ends that started the process: only the main one ends with this process
        by_signal = sys.platform == "linux" and threading.current_thread() is threading.main_thread()
        # loky replaces a process that has grown by 300 MB, and says so
        warnings.filterwarnings("ignore", "A worker stopped while some jobs were given to the executor", UserWarning)
        start = partial(_end_with, os.getpid(), by_signal, quiet)
        _start_trackers()
        with _starting():
            self._pool = ProcessPoolExecutor(count, timeout=idle_s, initializer=start, env=_ENVIRONMENT)
        self._lock, self._ended, self._last = threading.Lock(), False, Future[Any]()
        self._last.set_result(None)

    def submit(self, function: Function, *arguments: Any) -> Future[Any]:
        """Hand out a call. `STOPS` are this process's to answer: those that start now are deaf to them from the first.

        Raises
        ------
        WorkerDied
            When they have been told to end.
        CtpatchError
            When the system lets none start.
        """
        resource_tracker.ensure_running()  # loky has it started with its first process, and that ends what follows
        with _deaf(), self._lock, _starting():
            self.check_open()
            self._last = self._pool.submit(function, *arguments)
            return self._last

    def check_open(self) -> None:
        """Raise WorkerDied once they have been told to end: a call may then get no answer at all."""
        if self._ended:
            raise WorkerDied("stopped")

    def leave(self) -> None:
        """Let them end by themselves, once all calls are answered, where one has a process of its own, as a decoder is.

        Else Python tells of that one's semaphores when this process ends. The others are ended, which takes less time.
        """
        if not _any_below(self._pool._processes):
            self.end()
            return
        with self._lock:
            self._ended = True
        late = threading.Timer(_LEAVE_S, _kill, [list(self._pool._processes)])
        late.start()
        try:
            self._pool.shutdown()
        finally:
            late.cancel()

    def end(self) -> None:
        """End them, whatever they are doing.

        A call that loky's manager thread has not passed on yet would end that thread with a KeyError, and its traceback
        on standard error, so the last one is waited for; it takes milliseconds (loky 3.6.0).
        """
        with self._lock:
            self._ended = True
        patience = time.monotonic() + _PASSED_ON_S
        try:
            while not (self._last.running() or self._last.done()) and time.monotonic() < patience:
                time.sleep(0.001)
        finally:
            self._pool.shutdown(kill_workers=True)


@contextmanager
def _deaf() -> Iterator[None]:
    """Whoever starts in the block has `STOPS` blocked."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _starting() -> Iterator[None]:
    """What the system refuses to processes: their semaphores are files in /dev/shm."""
    try:
        yield
    except OSError as error:
        found = f"no worker process can be started ({error.strerror or error})"
        raise CtpatchError(
            f"{found}; see that /dev/shm can be written and has room, and the machine's limits"
        ) from error


def _start_trackers() -> None:
    """Those of loky and of Python that clear up after processes, and are processes themselves."""
    from joblib.externals.loky.backend import resource_tracker as loky_tracker

    before = os.environ.get("PYTHONSAFEPATH")
    os.environ.update(_SAFE_PATH)
    try:
        with _deaf():  # they are to SIGINT and SIGTERM themselves; ended by a terminal's SIGHUP they clear up nothing
            loky_tracker.ensure_running()
            resource_tracker.ensure_running()
    finally:
        if before is None:
            del os.environ["PYTHONSAFEPATH"]
        else:
            os.environ["PYTHONSAFEPATH"] = before


def _any_below(parents: Collection[int]) -> bool:
    """Whether one of this process's own processes has one itself."""
    import psutil

    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            if process.ppid() in parents:
                return True
    return False


def _kill(processes: Sequence[int]) -> None:
    for pid in processes:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _end_with(parent: int, by_signal: bool, quiet: bool) -> None:
    os.environ.setdefault("PYTHONFAULTHANDLER", "")  # else loky has a crash print where each thread was
    if quiet:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    if by_signal:  # at once, also in the middle of a library's call
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    threading.Thread(target=_watch, args=(parent,), daemon=True).start()


def _watch(parent: int) -> None:
    """End at once when the parent has: what is half-done has no final name."""
    while os.getppid() == parent:
        time.sleep(_LOOK_S)
    os.kill(os.getpid(), signal.SIGKILL)


class OwnProcess:
    """Answers calls in one process of its own, which is started when first needed and after each death.

    Parameters
    ----------
    quiet : bool
        What the process prints to standard error is thrown away.
    idle_s : float, optional
        For how long it is kept without a call.
    """

    def __init__(self, quiet: bool = False, idle_s: float | None = None) -> None:
        self._quiet, self._idle_s = quiet, idle_s
        self._pool: Processes | None = None

    def __call__(self, function: Function, *arguments: Any) -> Any:
        """The function's result, or the exception it raised.

        Raises
        ------
        WorkerDied
            When the process ended instead, also where another thread has closed it.
        """
        from joblib.externals.loky import BrokenProcessPool, wait
        from joblib.externals.loky.process_executor import ShutdownExecutorError

        try:
            pool, answer = self._handed_out(function, arguments)
        except BrokenProcessPool:  # it has died before, of no call: one that is idle is killed where memory is short
            self.close()
            pool, answer = self._handed_out(function, arguments)
        try:
            # In the place of a process that was idle, or has grown, loky starts another when it is asked, and waits for
            # those it knew before: it would never hear of that one's death (loky 3.6.0). Asked again it looks again.
            if wait([answer], _ASK_AGAIN_S).not_done:
                pool.submit(int)
            while wait([answer], _ASK_AGAIN_S).not_done:
                pool.check_open()
            return answer.result()
        except BrokenProcessPool as death:
            self.close()
            raise WorkerDied.by(death) from None
        except ShutdownExecutorError:
            raise WorkerDied("stopped") from None
        except BaseException:
            if not answer.done():  # interrupted: it would go on with what nobody waits for
                self.close()
            raise

    def _handed_out(self, function: Function, arguments: Call) -> tuple[Processes, Future[Any]]:
        pool = self._pool = self._pool or Processes(1, self._quiet, self._idle_s)
        return pool, pool.submit(function, *arguments)

    def close(self) -> None:
        """End the process."""
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.end()
