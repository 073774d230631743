"""Calls in processes of their own: one that the system kills is noticed and named, and takes nothing with it."""

from __future__ import annotations

import contextlib
import os
import pickle
import queue
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from itertools import islice
from typing import Any

AHEAD = 4
"""Calls handed out per worker before the first of their results is asked for."""

_SERVE = (  # importable there is what is importable here; nothing of the caller's main module is run
    "import pickle, signal, sys; signal.signal(signal.SIGINT, signal.SIG_IGN);"
    "sys.path[:] = pickle.load(sys.stdin.buffer); from ctpatch.workers import serve; serve()"
)


class WorkerDied(Exception):
    """A worker process ended in the middle of a call; the message says how."""


class Worker:
    """A process that answers calls. It ends when it is closed, and with the process that started it.

    Parameters
    ----------
    quiet : bool
        What it prints is nobody's business.
    """

    def __init__(self, quiet: bool = False) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._quiet = quiet

    def __call__(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """The function's result, or the exception it raised.

        Raises
        ------
        WorkerDied
            When the process ended instead; the next call starts another.
        """
        try:
            process = self._process or self._start()
            assert process.stdin
            assert process.stdout
            pickle.dump((function, arguments), process.stdin)
            process.stdin.flush()
            result, error = pickle.load(process.stdout)
        except (BrokenPipeError, EOFError, pickle.UnpicklingError):
            raise WorkerDied(self._fate()) from None
        except BaseException:  # interrupted: nobody would fetch the answer, and the next call would take it for its own
            self.close()
            raise
        if error is not None:
            raise error
        return result

    def kill(self) -> None:
        """End the process, also in the middle of a call that another thread waits for."""
        if process := self._process:
            process.kill()

    def close(self) -> None:
        """End the process and let go of it."""
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout):
            with contextlib.suppress(OSError):  # what was not sent is not wanted any more
                stream.close()  # type: ignore[union-attr]

    def _fate(self) -> str:
        """How the process ended; its pipes close a moment before it is gone."""
        process = self._process
        assert process
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(1)
        self.close()
        status = process.returncode
        return f"killed by signal {-status}" if status < 0 else f"exit status {status}"

    def _start(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-P", "-c", _SERVE]
        one_thread = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
        environment = {**os.environ, **one_thread}
        stderr = subprocess.DEVNULL if self._quiet else None
        self._process = subprocess.Popen(command, stdin=-1, stdout=-1, stderr=stderr, env=environment)
        assert self._process.stdin
        pickle.dump([os.path.abspath(path) for path in sys.path], self._process.stdin)
        return self._process


def serve() -> None:
    """Answer calls that come through standard input, until it ends."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints must not come between the answers
    calls: queue.SimpleQueue[Any] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(calls,), daemon=True).start()
    while True:
        function, arguments = calls.get()
        try:
            answer: tuple[Any, Exception | None] = (function(*arguments), None)
        except Exception as error:
            answer = (None, error)
        pickle.dump(answer, answers)
        answers.flush()


def _listen(calls: queue.SimpleQueue[Any]) -> None:
    """Pass calls on; when there is nobody left to answer, end at once: what is half-done has no final name."""
    with contextlib.suppress(EOFError, pickle.UnpicklingError):
        while True:
            calls.put(pickle.load(sys.stdin.buffer))
    os.kill(os.getpid(), signal.SIGKILL)


def call_in_order(
    function: Callable[..., Any], calls: Iterable[tuple[Any, ...]], jobs: int
) -> Generator[Any, None, None]:
    """Results of `function(*call)` in the calls' order, from `jobs` processes that are busy with the following ones.

    A call whose process dies is made once more, alone: if memory was short, it then has all there is. When that dies
    too, its WorkerDied is the result.
    """
    workers = [Worker() for _ in range(jobs)]
    idle: queue.SimpleQueue[Worker] = queue.SimpleQueue()
    for worker in workers:
        idle.put(worker)

    def answer(call: tuple[Any, ...]) -> Any:
        worker = idle.get()
        try:
            return worker(function, *call)
        except WorkerDied as death:
            return death
        finally:
            idle.put(worker)

    threads, upcoming = ThreadPoolExecutor(jobs), iter(calls)
    under_way: deque[tuple[tuple[Any, ...], Future[Any]]] = deque()
    try:
        while True:
            more = islice(upcoming, AHEAD * jobs - len(under_way))
            under_way.extend((call, threads.submit(answer, call)) for call in more)
            if not under_way:
                return
            call, future = under_way.popleft()
            result = future.result()
            if isinstance(result, WorkerDied):
                wait([later for _, later in under_way])
                for worker in workers:  # all are idle now
                    worker.close()
                result = answer(call)
            yield result
    finally:
        for _, future in under_way:
            future.cancel()
        for worker in workers:
            worker.kill()
        threads.shutdown()
        for worker in workers:
            worker.close()
