"""Lesions on a Dask cluster: futures in the lesions' order, workers that come and go, and in the end a bounded wait.

The calls are futures of Dask's own client, not joblib's backend for it: after a task's fourth death joblib's generator
waits for ever (joblib 1.6.0, distributed 2026.8.0; findings/joblib_dask_death.sh).
"""

from __future__ import annotations

import concurrent.futures
import logging
import pickle
import threading
import time
import uuid
import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any

from ..errors import CtpatchError, InputError
from ..processes import Call, Function, WorkerDied
from .environment import differences, environment
from .on_worker import Errand, stop, unfit

if TYPE_CHECKING:
    from distributed import Client, Future

AHEAD = 2
"""Calls per thread of the cluster that are handed out and not finished: one at work, one waiting."""
KEPT = 16
"""Calls per thread that are handed out at most, also when they are finished and an earlier one is not."""
TRIES = 2
"""How often a call is made alone before it is to blame, as in processes of this machine."""
CONNECT_S = 20.0
WITHOUT_S = 600.0
"""How long a run goes on waiting while the cluster has no worker."""
ANSWER_S = 30.0
"""How long a worker may take to say what it is, or to stop."""
LOOK_S = 1.0
_NOTHING: Iterator[Call] = iter(())


@dataclass(frozen=True)
class ClusterRunner:
    """The workers of a Dask scheduler; see `engine.Runner`.

    Parameters
    ----------
    scheduler : str
        Its address, such as `tcp://node1:8786`.
    """

    scheduler: str

    def run(self, function: Function, calls: Iterable[Call]) -> Generator[Any, None, None]:
        """See `engine.Runner.run`; a call whose worker is lost is made again elsewhere.

        Raises
        ------
        InputError
            When the scheduler cannot be reached, or a worker has other versions.
        CtpatchError
            When the scheduler is lost, or there is no worker for a time.
        """
        _require_dask()
        with _quiet():
            flight = _Flight(self.scheduler, _connected(self.scheduler), function)
            try:
                flight.check_workers()
                for answer in flight.answers(iter(calls)):  # noqa: UP028 - `yield from` would close it outside
                    yield answer
            finally:
                flight.end()


class _Flight:
    """The calls of one run that are on their way."""

    def __init__(self, address: str, client: Client, function: Function):
        self.address, self.client, self.function = address, client, function
        self.run = uuid.uuid4().hex
        self.flying: deque[tuple[Call, Future]] = deque()
        self.unfinished, self.finished = 0, SimpleQueue[object]()
        self.threads, self.looked, self.seen = 0, float("-inf"), time.monotonic()

    def check_workers(self) -> None:
        """Refuse workers with other versions by name; those that come later are asked with each call."""
        told = _within(ANSWER_S, lambda: self.client.run(environment, on_error="return"))
        if told is None:
            found = f"{self.address}: a worker does not answer within {ANSWER_S:g} s"
            raise CtpatchError(f"{found}; see its log, end it, then run again")
        for worker, there in sorted(told.items()):
            if isinstance(there, Exception):
                raise unfit(worker, f"cannot load ctpatch ({there})")
            if found := differences(there, environment()):
                raise unfit(worker, f"has {found}")

    def answers(self, waiting: Iterator[Call]) -> Iterator[Any]:
        """The calls' answers in order. Who may have ended a process is called again when nobody else is at work."""
        self._look()
        while self._fill(waiting):
            call, future = self.flying[0]
            answer = self._result(future, waiting)
            if isinstance(answer, WorkerDied):
                for _, other in tuple(self.flying):
                    self._wait(other)
                answer = self._alone(call)
            self.flying.popleft()
            yield answer

    def end(self) -> None:
        """Call back what is on its way, end the processes that are at work on it, and say goodbye."""
        futures = [future for _, future in self.flying]
        steps: list[Callable[[], Any]] = [self.client.close]
        if futures and self.client.status == "running":
            steps.insert(0, lambda: self.client.run(stop, self.run, on_error="ignore"))
            steps.insert(0, lambda: self.client.cancel(futures))
        for step in steps:
            with suppress(Exception):  # what has failed before is worth more
                _within(ANSWER_S, step)

    def _fill(self, waiting: Iterator[Call]) -> bool:
        """Hand out calls for all threads; whether there are any left."""
        while self.unfinished < max(1, AHEAD * self.threads) and len(self.flying) < max(1, KEPT * self.threads):
            call = next(waiting, None)
            if call is None:
                break
            self.flying.append((call, self._submit(call)))
        return bool(self.flying)

    def _submit(self, call: Call) -> Future:
        # bytes, for the scheduler unpickles functions (findings/dask_scheduler_imports.sh) and may have no ctpatch
        payload = pickle.dumps(Errand(self.run, pickle.dumps((self.function, call))))
        with self._connection():
            future = self.client.submit(pickle.loads, payload, key=f"lesion-{uuid.uuid4().hex}", pure=False)
        self.unfinished += 1
        future.add_done_callback(self.finished.put)
        return future

    def _wait(self, future: Future, waiting: Iterator[Call] = _NOTHING) -> None:
        """Until it is finished, handing out what is waiting meanwhile."""
        while not future.done():
            self._look()
            with suppress(Empty):
                self.finished.get(timeout=LOOK_S)
                self.unfinished -= 1
            self._fill(waiting)
        with suppress(Empty):
            while True:
                self.finished.get_nowait()
                self.unfinished -= 1

    def _result(self, future: Future, waiting: Iterator[Call] = _NOTHING) -> Any:
        """A future's answer; raises what the call did."""
        while (told := self._gathered(future, waiting)) is None:
            self._look()
        answer, error = told
        if error is not None:
            raise error
        return answer

    def _gathered(self, future: Future, waiting: Iterator[Call]) -> tuple[Any, Exception | None] | None:
        """None where its worker was lost with the answer; then the call is made again."""
        from distributed import KilledWorker

        self._wait(future, waiting)
        with self._connection():
            try:
                told: tuple[Any, Exception | None] = pickle.loads(future.result(timeout=ANSWER_S))
            except TimeoutError:
                return None
            except KilledWorker as death:
                return _Killed(f"killed with its Dask worker {death.allowed_failures + 1} times"), None
            except ImportError as error:
                raise unfit("that has come meanwhile", f"cannot load ctpatch ({error})") from error
        return told

    def _alone(self, call: Call) -> Any:
        """The first call's answer when nobody else is at work: a death also counts against who was beside it.

        Dask blames all that a worker was at work on (findings/dask_blames_neighbours.sh).
        """
        for _ in range(TRIES):
            self.flying[0] = call, self._submit(call)
            answer = self._result(self.flying[0][1])
            if not isinstance(answer, WorkerDied):
                return answer
            if isinstance(answer, _Killed):  # Dask itself has tried again
                break
        return answer

    def _look(self) -> None:
        """Count the cluster's threads now and then.

        Raises
        ------
        CtpatchError
            When there has been none for too long, or the scheduler is gone.
        """
        now = time.monotonic()
        if now < self.looked + LOOK_S:
            return
        with self._connection():
            self.threads = sum(self.client.nthreads().values())
        self.looked = time.monotonic()
        if self.threads:
            self.seen = now
        elif now > self.seen + WITHOUT_S:
            found = f"{self.address}: no worker for {WITHOUT_S:g} s"
            raise CtpatchError(f"{found}; finished lesions are kept: start workers, then run again")

    @contextmanager
    def _connection(self) -> Iterator[None]:
        """Say of what fails in the block for want of the scheduler that it is lost."""
        try:
            yield
        except (OSError, concurrent.futures.CancelledError) as error:
            raise self._lost(f"{error or type(error).__name__}") from error
        except Exception as error:
            if self.client.status == "running":
                raise
            raise self._lost(f"{error}") from error

    def _lost(self, how: str) -> CtpatchError:
        found = f"{self.address}: the scheduler was lost ({how.splitlines()[0] if how else 'closed'})"
        return CtpatchError(f"{found}; finished lesions are kept: start it, then run again")


class _Killed(WorkerDied):
    """A call's Dask workers ended, as often as the scheduler allows."""


def _require_dask() -> None:
    try:
        import distributed  # noqa: F401 - takes most of a second, so only here
    except ImportError as error:
        raise InputError(f"--scheduler needs Dask ({error})", "pip install 'ctpatch[dask]'") from error


def _connected(address: str) -> Client:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of other versions, which are told apart later
            return _begun(address)
    except (OSError, ValueError, TypeError) as error:
        found = f"the Dask scheduler cannot be reached ({type(error).__name__}: {error})"
        raise InputError(found, "give --scheduler the address that `dask scheduler` prints", address) from error


def _begun(address: str) -> Client:
    """Dask gives its event loop ten seconds to begin, and then fails an assertion: a machine that stalls needs more."""
    for _ in range(2):
        with suppress(AssertionError):
            return _client_class()(address, timeout=CONNECT_S, set_as_default=False)
    raise CtpatchError("Dask's event loop does not begin within 10 s: this machine has no time for it; run again")


def _client_class() -> type[Client]:
    from distributed import Client

    class ClosedClient(Client):
        """One that is closed where it cannot start.

        Dask leaves it to the garbage collector (distributed 2026.8.0), which closes it at any time: where that is while
        the next one starts, both want the same lock, in one thread, and wait for good.
        """

        def start(self, **words: Any) -> None:
            try:
                super().start(**words)
            except BaseException:
                with suppress(Exception):  # the first error is worth more
                    self.close()
                raise

    return ClosedClient


@contextmanager
def _quiet() -> Iterator[None]:
    """A block in which Dask logs nothing here: what matters is raised."""
    known = [name for name in logging.root.manager.loggerDict if name.partition(".")[0] in ("distributed", "tornado")]
    loggers = [logger for logger in map(logging.getLogger, known) if not logger.disabled]
    for logger in loggers:
        logger.disabled = True
    try:
        yield
    finally:
        for logger in loggers:
            logger.disabled = False


def _within(seconds: float, function: Callable[[], Any]) -> Any:
    """Its result, what it raised, or None when it takes longer: a worker that hangs keeps others from answering."""
    told = concurrent.futures.Future[Any]()

    def tell() -> None:
        try:
            told.set_result(function())
        except Exception as error:
            told.set_exception(error)

    threading.Thread(target=tell, daemon=True).start()
    return told.result() if concurrent.futures.wait([told], seconds).done else None
