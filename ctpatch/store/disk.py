"""Files that reach the disk whole, or not at all; and a failing disk as one clear error."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..errors import CtpatchError


@contextlib.contextmanager
def writing(name: str) -> Iterator[None]:
    """Say of any failure of the system in the block that `name` cannot be written."""
    try:
        yield
    except OSError as error:
        found = f"{name}: cannot be written ({error.strerror or error})"
        raise CtpatchError(f"{found}; free space or mend the disk, then run again") from error


def private(path: str, flags: int) -> int:
    """Opens files that only their owner may read: a store is its owner's to share."""
    return os.open(path, flags, 0o600)


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
        super().__init__(path, "w+", opener=private)
        self._failure: OSError | None = None

    def write(self, data: Any) -> int:
        """Write all of it, unless something has failed before."""
        left = memoryview(data).cast("B")
        size = len(left)
        try:
            while left and not self._failure:
                left = left[super().write(left) :]
        except OSError as error:
            self._failure = error
        return size

    def truncate(self, size: int | None = None) -> int:
        """Set the length, unless something has failed before."""
        try:
            if not self._failure:
                super().truncate(size)
        except OSError as error:
            self._failure = error
        return size or 0

    def check(self) -> None:
        """Raise what failed."""
        if self._failure:
            raise self._failure
