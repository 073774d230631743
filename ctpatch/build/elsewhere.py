"""A lesion computed on another machine: does that see the same files, and is its run still under way?"""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import time
from collections.abc import Iterator
from pathlib import Path

from ..errors import CtpatchError, InputError
from ..manifest import Row
from ..store.disk import writing
from .parts import FinishedPart

CACHED_S = 60.0
"""How long an NFS client may go on believing what a folder held (`acdirmax`)."""
NEW_S = 5.0
"""How long a run's own, new file is waited for."""
_LOOK_S = 0.2


@contextlib.contextmanager
def ticket(parts: Path) -> Iterator[Path]:
    """A file among the parts while a run is under way.

    Who sees it sees the same folder. Who finds it gone was left behind, by a run that was killed, say: the folder may
    be another build's by now, and gets nothing more. The next build clears it up as it does all `*.tmp`.
    """
    path = parts / f"run-{secrets.token_hex(8)}.tmp"
    with writing(parts.name):
        path.touch(mode=0o600)
    try:
        yield path
    finally:
        with contextlib.suppress(OSError):
            path.unlink()


def check_ticket(path: Path, patience: float = 0.0) -> None:
    """Raise unless the run is under way, in a folder that is seen from here.

    Raises
    ------
    CtpatchError
        No `InputError`: the next lesion would fare no better.
    """
    if not _appears(path, patience):
        found = f"{path.parent.name}: a worker on '{socket.gethostname()}' does not see this folder"
        raise CtpatchError(f"{found}; give --out on a file system that all workers see under the same path")


def check_files(row: Row) -> None:
    """Raise InputError unless a row's files, which the one who read the manifest has seen, are seen from here."""
    for path in (row.image, row.mask):
        if path is not None and not path.exists():
            found = f"a worker on '{socket.gethostname()}' does not see it"
            do = "mount it there under the same path: the workers must see the same files"
            raise InputError(found, do, path, kind="unseen")


def arrived(path: Path, row: Row) -> FinishedPart | None:
    """A part that another machine has finished, as soon as it is seen here; None when it never is."""
    return FinishedPart.load(path, row) if _appears(path, CACHED_S) else None


def _appears(path: Path, patience: float) -> bool:
    """Whether a file can be opened, within a time; opening and listing ask an NFS server anew."""
    end = time.monotonic() + patience
    while True:
        try:
            path.open("rb").close()
            return True
        except OSError:
            if time.monotonic() >= end:
                return False
        time.sleep(_LOOK_S)
        with contextlib.suppress(OSError):
            os.listdir(path.parent)
