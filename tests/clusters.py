"""A Dask cluster of processes of this machine, which the tests may kill."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from calls import BOUNDED_S, awaited

TESTS = Path(__file__).resolve().parent
WITHOUT_CTPATCH = "import sys; sys.modules['ctpatch'] = None; "
"""As where it is not installed."""
SCHEDULER = "from distributed.cli.dask_scheduler import main; main()"
WORKER = "from distributed.cli.dask_worker import main; main()"


class Cluster:
    """A scheduler, which knows nothing of ctpatch, and workers; `end` kills them all.

    Parameters
    ----------
    folder : Path
        For what the processes write.
    failures : int
        After how many deaths the scheduler still tries a task again.
    """

    def __init__(self, folder: Path, failures: int = 1) -> None:
        self.folder, self._started = folder, list[subprocess.Popen[bytes]]()
        folder.mkdir(parents=True, exist_ok=True)
        # as in a batch job: whatever this process has in its path, its workers have, and each thread is one
        path = os.pathsep.join([str(TESTS.parent), str(TESTS), os.environ.get("PYTHONPATH", "")])
        self.environment = {
            **os.environ,
            "PYTHONPATH": path,
            "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": str(failures),
        }
        file = folder / "scheduler.json"
        self.scheduler = self._start(
            WITHOUT_CTPATCH + SCHEDULER, "--host", "127.0.0.1", "--port", "0", "--scheduler-file", str(file)
        )
        awaited(lambda: file.exists() and file.read_text())
        self.address = json.loads(file.read_text())["address"]

    def worker(self, *options: str, before: str = "") -> subprocess.Popen[bytes]:
        """Start a worker; `before` is run first in its process."""
        return self._start(before + WORKER, self.address, "--local-directory", str(self.folder / "space"), *options)

    def end(self) -> None:
        """End every process."""
        for process in self._started:
            kill(process)

    def _start(self, code: str, *options: str) -> subprocess.Popen[bytes]:
        with (self.folder / f"log{len(self._started)}").open("wb") as log:
            command = [sys.executable, "-c", code, "--no-dashboard", *options]
            process = subprocess.Popen(
                command, stdout=log, stderr=log, env=self.environment, cwd=self.folder, start_new_session=True
            )
        self._started.append(process)
        return process


def kill(process: subprocess.Popen[bytes]) -> None:
    """A process and all that it has started."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def workers(address: str, count: int) -> None:
    """Wait until the cluster has so many."""
    from distributed import Client

    with Client(address, set_as_default=False) as client:
        client.wait_for_workers(count, timeout=BOUNDED_S)


def pids(names: Sequence[str]) -> set[int]:
    return {int(name.rpartition(".")[2]) for name in names}
