"""Files that reach the disk whole, or not at all; and a failing disk as one clear error."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import secrets
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from ..errors import CtpatchError, InputError
from ..processes import STOPS


@contextlib.contextmanager
def writing(name: str) -> Iterator[None]:
    """Say of any failure of the system in the block that `name` cannot be written."""
    try:
        yield
    except OSError as error:
        found = f"{name}: cannot be written ({error.strerror or error})"
        raise CtpatchError(f"{found}; free space or mend the disk, then run again") from error


def owned(path: str, flags: int) -> int:
    """Opens files that only their owner may read: a store is its owner's to share."""
    return os.open(path, flags, 0o600)


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """A block that Ctrl-C, or another signal with a handler, does not interrupt; the first one is told at its end.

    HDF5 writes through Python's files, and h5py drops an exception that comes from there while it closes something, and
    with it what was to be written (h5py 3.16.0): a store would be sealed with zeros in it.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # no Python of this thread is interrupted
        return
    answered = {number: handler for number in STOPS if callable(handler := signal.getsignal(number))}
    told: list[Any] = []
    for number in answered:
        signal.signal(number, lambda *signalled: told.append(signalled))
    try:
        yield
    finally:
        for number, handler in answered.items():
            signal.signal(number, handler)
        for number, frame in told[:1]:
            answered[number](number, frame)


_BUFFER = 1 << 20
"""Bytes that one write takes to the disk: a part is hundreds of small streams."""


@contextlib.contextmanager
def replacing(path: Path, *, private: bool = False, ready: Callable[[], None] = lambda: None) -> Iterator[IO[bytes]]:
    """A file that takes the name `path`, flushed to the disk, when the block ends well; else nothing is left of it.

    Parameters
    ----------
    path : Path
    private : bool
        Whether only its owner may read it.
    ready : callable
        Called when all is on the disk, just before it takes the name; it does not when this raises.
    """
    # the token for machines that share the folder, where processes may have the same number
    temporary = path.with_name(f"{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        with open(temporary, "wb", _BUFFER, opener=owned if private else None) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        ready()
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS)
"""What file systems without locks say (NFS, Lustre, some of FUSE)."""


def lock(path: Path, *, needed: bool = True, shared: bool = False) -> IO[bytes] | None:
    """An open file locked for this process, None where another one holds it.

    The system unlocks it however the process ends, and when the file is closed. A file that has just been removed by
    the one who held it is not locked: its folder is gone, or another's.

    Parameters
    ----------
    path : Path
    needed : bool
        False: the file is opened and not locked.
    shared : bool
        Whether others who ask for it shared may hold it too.

    Raises
    ------
    InputError
        When the file system has no locks.
    """
    import fcntl  # not on Windows, where stores can be read

    file = open(path, "a+b", opener=owned)  # noqa: SIM115 - held open as long as the lock is; NFS shares what is read
    try:
        if needed:
            fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        if path.exists() and os.path.samestat(path.stat(), os.fstat(file.fileno())):
            return file
    except OSError as error:
        if error.errno in NO_LOCKS:
            file.close()
            found = f"the file system has no locks ({error.strerror}): two builds of one store could mix"
            do = "give --no-lock if no other build writes this store, or --out on another file system"
            raise InputError(found, do, path.parent.name, kind="no-locks") from None
    file.close()
    return None


def unlock(file: IO[bytes]) -> None:
    """Unlock and close; closing alone does not where a process that was forked meanwhile has the file open, too."""
    import fcntl

    if not file.closed:
        with contextlib.suppress(OSError):  # where there are no locks
            fcntl.flock(file, fcntl.LOCK_UN)
        file.close()


def sync(path: Path) -> None:
    """Flush a file or a folder's entries to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


class Sink(io.FileIO):
    """A file for HDF5 to write into, which keeps a failure to itself until it is asked.

    HDF5 cannot close a file that it cannot write, and then fails again, or crashes, when the interpreter ends. So it
    is told that all went well; who gave it the file must `check` before believing so.
    """

    def __init__(self, path: Path):
        super().__init__(path, "w+", opener=owned)
        self._failure: Exception | None = None

    def write(self, data: Any) -> int:
        """Write all of it, unless something has failed before."""
        left = memoryview(data).cast("B")
        size = len(left)
        try:
            while left and not self._failure:
                left = left[super().write(left) :]
        except Exception as error:
            self._failure = error
        return size

    def truncate(self, size: int | None = None) -> int:
        """Set the length, unless something has failed before."""
        try:
            if not self._failure:
                super().truncate(size)
        except Exception as error:
            self._failure = error
        return size or 0

    def check(self) -> None:
        """Raise what failed."""
        if self._failure:
            raise self._failure
