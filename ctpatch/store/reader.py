"""Opening a store: its lesions as a table, what it says of itself, and its splits, whose patches are `views`."""

from __future__ import annotations

import json
import os
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..manifest import SPLITS
from ..recipe import WINDOWS
from . import schema
from .chunks import Rows, fetch
from .verify import check_layout
from .views import SplitView

if TYPE_CHECKING:
    import pandas as pd


def open_store(path: str | os.PathLike[str]) -> PatchStore:
    """Open a patch store for reading.

    Parameters
    ----------
    path : path
        A file made by `ctpatch build` or `StoreWriter`.

    Returns
    -------
    PatchStore

    Raises
    ------
    InputError
        When the file is missing, not a complete ctpatch store, of another version, or not laid out as one. The
        content's digests are checked by `ctpatch verify`, not here.
    """
    store = PatchStore(Path(path))
    try:
        check_layout(store.file, store.path)
        store.opened = store.digest
    except BaseException:
        store.close()
        raise
    return store


class PatchStore:
    """A store open for reading; use it as a context manager or call `close`.

    It may be passed to other processes: each opens the file for itself, and refuses another store in its place.

    Attributes
    ----------
    path : Path
    opened : str
        The digest of the store that was opened.
    """

    def __init__(self, path: Path):
        self.path, self.opened = path, ""
        self._place = path.absolute()  # a process that opens it again may have another working folder
        self._file: h5py.File | None = None
        self._pid = -1
        self._rows: dict[str, Rows] = {}

    @property
    def file(self) -> h5py.File:
        """The h5py file of this process.

        Raises
        ------
        InputError
            When it has to be opened again, and is not there or another store by now.
        """
        if self._pid != os.getpid() or not self._file:  # an h5py handle does not survive a fork
            self._file, self._pid, self._rows = self._open(), os.getpid(), {}
        return self._file

    def _open(self) -> h5py.File:
        if not self._place.is_file():
            raise InputError("there is no such store", "give the path of a store made by ctpatch build", self.path)
        try:  # a store never changes: reading needs no lock, and NFS may have none
            file = h5py.File(self._place, "r", locking=False)
        except OSError as error:
            found = "not a readable HDF5 file (truncated, or something else)"
            raise InputError(found, "rerun ctpatch build", self.path) from error
        if self.opened and schema.attribute(file, "sha256") != self.opened:
            file.close()
            raise InputError("another store lies there than was opened", "open it again", self.path)
        return file

    def rows(self, path: str) -> Rows:
        """The rows of a dataset of this process, found in the file once."""
        file = self.file
        if path not in self._rows:
            self._rows[path] = Rows(file[path])
        return self._rows[path]

    def close(self) -> None:
        """Close the file."""
        if self._pid == os.getpid() and self._file:
            self._file.close()
        self._file, self._rows = None, {}

    def __enter__(self) -> PatchStore:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        left = {"path": self.path, "opened": self.opened, "_place": self._place}
        return {**left, "_file": None, "_pid": -1, "_rows": {}}

    @property
    def lesions(self) -> pd.DataFrame:
        """One row per lesion: `/lesions` with its text decoded, and an `aux_<name>` column per characteristic.

        A table of the caller's own: what is sorted or left out of it says nothing of the store.
        """
        return self._lesions.copy()

    @cached_property
    def _lesions(self) -> pd.DataFrame:
        import pandas as pd  # a sixth of a second that those who read only arrays, or write, need not wait

        table = {name: _read(self.file[f"lesions/{name}"]) for name in schema.LESIONS}
        table |= {f"aux_{name}": _read(self.file[f"lesions/aux/{name}"]) for name in self.aux_levels}
        return pd.DataFrame(table)

    @property
    def skipped(self) -> pd.DataFrame:
        """Lesions left out, each with the reason."""
        import pandas as pd

        return pd.DataFrame({name: _read(self.file[f"skipped/{name}"]) for name in schema.SKIPPED})

    @property
    def label_classes(self) -> tuple[str, ...]:
        """The diagnostic classes in their order."""
        return tuple(schema.attribute(self.file["lesions"], "label_classes"))

    @property
    def aux_levels(self) -> dict[str, dict[float, str]]:
        """For each auxiliary characteristic the name of each numeric level."""
        document = json.loads(schema.attribute(self.file["lesions"], "aux_classes"))
        levels = {name: [(float(value), str(level)) for value, level in by.items()] for name, by in document.items()}
        return {name: dict(sorted(pairs)) for name, pairs in levels.items()}

    @property
    def recipe(self) -> dict[str, Any]:
        """Everything that shaped the pixels."""
        return self._document("recipe")

    @property
    def windows(self) -> tuple[tuple[int, int], ...]:
        """(lowest, highest) HU of the R, G and B channel of its pictures, as the recipe says, else ctpatch's own.

        Raises
        ------
        InputError
            When the recipe's windows are not three pairs of increasing whole numbers.
        """
        rendering = self.recipe.get("rendering", {})
        told = rendering.get("windows_hu", WINDOWS) if isinstance(rendering, dict) else None
        try:
            windows = tuple((low, high) for low, high in told)  # type: ignore[union-attr]
            good = len(windows) == 3 and all(type(a) is type(b) is int and a < b for a, b in windows)
        except (TypeError, ValueError):
            good = False
        if not good:
            raise InputError(f"rendering windows {told!r:.80} are no three windows", "build it again", self.path)
        return windows

    @property
    def provenance(self) -> dict[str, Any]:
        """What the store was made from, and with which versions."""
        return self._document("provenance")

    @property
    def digest(self) -> str:
        """The root's sha256 as stored; it stands for the whole content."""
        return str(schema.attribute(self.file, "sha256"))

    def split(self, name: str) -> SplitView:
        """The patches of `train`, `val` or `test`."""
        if name not in SPLITS:
            raise KeyError(f"{name!r} is none of {', '.join(SPLITS)}")
        return SplitView(self, name)

    def _document(self, name: str) -> dict[str, Any]:
        try:
            return dict(json.loads(fetch(self.file[name]).tobytes()))
        except (ValueError, TypeError) as error:
            raise InputError(f"/{name} is not a JSON object", "use a store from ctpatch build", self.path) from error


def _read(dataset: h5py.Dataset) -> NDArray[Any]:
    if h5py.check_string_dtype(dataset.dtype):
        try:
            return np.array([value.decode() for value in fetch(dataset)], dtype=object)
        except UnicodeDecodeError as error:
            found = f"{dataset.name} is not UTF-8"
            raise InputError(found, "use a store from ctpatch build", dataset.file.filename) from error
    return fetch(dataset)
