"""What makes a build's calls: this very process, worker processes of this machine, or a Dask cluster."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from dataclasses import dataclass
from typing import Any, Protocol

from ..processes import Call, Function


class Runner(Protocol):
    """A way to make many calls."""

    def run(self, function: Function, calls: Iterable[Call]) -> Generator[Any, None, None]:
        """`function(*call)` of each call in the calls' order; a `WorkerDied` where the call ends its process.

        The function returns problems as values: an exception of its own ends the run. When the generator is closed,
        nothing of the run is at work any more.
        """
        ...


@dataclass(frozen=True)
class LocalRunner:
    """Processes of this machine.

    Parameters
    ----------
    jobs : int
        How many; with one, calls are made in this very process.
    """

    jobs: int = 1

    @classmethod
    def sized(cls, jobs: int, calls: int) -> LocalRunner:
        """A runner of `jobs` processes (-1: one per core), but no more than there are calls."""
        if jobs < 0:
            from joblib import cpu_count

            jobs = cpu_count()
        return cls(max(1, min(jobs, calls)))

    def run(self, function: Function, calls: Iterable[Call]) -> Generator[Any, None, None]:
        """See `Runner.run`."""
        if self.jobs == 1:
            return (function(*call) for call in calls)
        from .workers import in_workers  # joblib takes a tenth of a command's start

        return in_workers(function, calls, self.jobs)


def runner(jobs: int, scheduler: str, calls: int) -> Runner:
    """What makes so many calls: the workers of a Dask scheduler where one is given, else `jobs` processes."""
    if not scheduler:
        return LocalRunner.sized(jobs, calls)
    from .cluster import ClusterRunner  # Dask is an extra

    return ClusterRunner(scheduler)
