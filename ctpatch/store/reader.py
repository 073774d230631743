"""Reading a store: lesions as a table, patches as arrays that are fetched when indexed."""

from __future__ import annotations

import json
import os
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..manifest import SPLITS
from ..patches.rendering import IMAGENET, Normalisation, channels
from ..recipe import WINDOWS
from . import schema
from .chunks import Rows, fetch
from .pictures import network_input, rendering
from .verify import check_layout

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

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
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


class SplitView:
    """The patches of one split; `len` is their number.

    `hu` (N, 64, 64) int16, `rgb` (N, 224, 224, 3) uint8 or None, `lesion` (N,) row of `PatchStore.lesions`, `plane`
    (0 = xy, 1 = xz, 2 = yz), `copy` (0 = original), `center` (N, 3) mm LPS, `angle` degrees, `shift` (N, 2) mm: each
    takes an integer, a slice, a list of indices in any order, or a mask, and gives a numpy array; so does comparing
    it. `pictures(index)` is what a network takes.
    """

    def __init__(self, store: PatchStore, name: str):
        self.store, self.name = store, name

    def __len__(self) -> int:
        return len(self.store.rows(f"{self.name}/lesion"))

    def pictures(
        self, index: Any, *, normalisation: Normalisation = IMAGENET, out: NDArray[np.float32] | None = None
    ) -> NDArray[np.float32]:
        """What a network takes: patches rendered by the store's own windows and normalised, straight from their HU.

        The item of a dataset for `torch.utils.data.DataLoader`, its workers included, is
        `torch.from_numpy(store.split("train").pictures(i))`; a whole batch at once costs less per picture.

        Parameters
        ----------
        index : int, slice, list of int or of bool
            Which patches, by numpy's rules, in any order; one may be named several times.
        normalisation : (mean, std)
            Three numbers each, in levels / 255; ImageNet's by default. ((0, 0, 0), (1, 1, 1)) leaves level / 255.
        out : (N, 3, 224, 224) float32, optional
            Where the pictures go, instead of into new memory; C-contiguous, (3, 224, 224) for a single index.

        Returns
        -------
        (N, 3, 224, 224) float32, or (3, 224, 224) for a single index
            (level / 255 − mean) / std of the levels that `rgb` has, exactly: see `ctpatch.patches.render`.

        Raises
        ------
        IndexError
            When an index is outside the split, or no index.
        InputError
            When the store is damaged, its windows are none, or `normalisation` is none.
        ValueError
            When `out` has another shape, type or layout.
        """
        rows = self.store.rows(f"{self.name}/hu")
        if normalisation is not IMAGENET:
            normalisation = channels(normalisation)
        by = rendering(self._windows, normalisation)
        if isinstance(index, int | np.integer) and not isinstance(index, bool):
            (row,) = _indices(np.array([index]), len(rows))
            return network_input(rows.read((int(row),)), by, None if out is None else out[None])[0]
        wanted = np.arange(len(rows))[index] if isinstance(index, slice) else _indices(np.asarray(index), len(rows))
        if wanted.ndim != 1:
            raise IndexError(f"an index of {wanted.ndim} dimensions")
        return network_input(rows.read(wanted.tolist()), by, out)

    @cached_property
    def _windows(self) -> tuple[tuple[int, int], ...]:
        return self.store.windows

    def __getattr__(self, column: str) -> ColumnView | None:
        if column not in schema.PATCHES:
            raise AttributeError(column)
        path = f"{self.name}/{column}"
        if column in schema.OPTIONAL and path not in self.store.file:
            return None
        return ColumnView(self.store, path)


class ColumnView:
    """One dataset of a split, read when indexed."""

    def __init__(self, store: PatchStore, path: str):
        self._store, self._path = store, path

    @property
    def dataset(self) -> h5py.Dataset:
        """The h5py dataset of this process."""
        return self._store.file[self._path]

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the whole array."""
        return tuple(self.dataset.shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the elements."""
        return np.dtype(self.dataset.dtype)

    def __len__(self) -> int:
        return self.shape[0]

    def __eq__(self, other: object) -> NDArray[np.bool_]:  # type: ignore[override]
        return np.asarray(self) == other

    def __ne__(self, other: object) -> NDArray[np.bool_]:  # type: ignore[override]
        return np.asarray(self) != other

    def __lt__(self, other: Any) -> NDArray[np.bool_]:
        return np.asarray(self) < other

    def __le__(self, other: Any) -> NDArray[np.bool_]:
        return np.asarray(self) <= other

    def __gt__(self, other: Any) -> NDArray[np.bool_]:
        return np.asarray(self) > other

    def __ge__(self, other: Any) -> NDArray[np.bool_]:
        return np.asarray(self) >= other

    def __getitem__(self, key: Any) -> NDArray[Any]:
        if any(isinstance(part, bool) for part in (key if isinstance(key, tuple) else (key,))):
            raise IndexError(f"{key!r} is no index: a mask has a boolean for each patch")  # to h5py it is 0 or 1
        if isinstance(key, (tuple, slice, int, np.integer)) or key is Ellipsis:
            return self._plain(key)
        wanted = _indices(np.asarray(key), len(self))
        if self._path.rpartition("/")[2] in schema.IMAGES:
            return self._store.rows(self._path).read(wanted.ravel().tolist()).reshape(*wanted.shape, *self.shape[1:])
        unique, inverse = np.unique(wanted, return_inverse=True)  # h5py wants increasing indices
        found = fetch(self.dataset, unique.tolist() if unique.size else slice(0))
        return found[inverse.reshape(wanted.shape)]

    def _plain(self, key: Any) -> NDArray[Any]:
        if isinstance(key, slice) and key.step is not None and key.step < 0:  # which h5py does not take
            return self[np.arange(*key.indices(len(self)))]
        return fetch(self.dataset, key)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.asarray(fetch(self.dataset), dtype=dtype)


def _indices(key: NDArray[Any], length: int) -> NDArray[np.intp]:
    """Indices from 0 of an integer, a list of integers or a mask, by numpy's rules."""
    if key.dtype == bool and key.shape == (length,):
        return np.flatnonzero(key)
    if key.dtype.kind not in "iu" and key.size:
        raise IndexError(f"an index is an integer, a slice, a list of integers or {length} booleans")
    key = key.astype(np.intp)  # of the narrow ones, none could hold the length
    wanted = np.where(key < 0, key + length, key)
    if wanted.size and not (wanted.min() >= 0 and wanted.max() < length):
        raise IndexError(f"index outside 0…{length - 1}")
    return wanted


def _read(dataset: h5py.Dataset) -> NDArray[Any]:
    if h5py.check_string_dtype(dataset.dtype):
        try:
            return np.array([value.decode() for value in fetch(dataset)], dtype=object)
        except UnicodeDecodeError as error:
            found = f"{dataset.name} is not UTF-8"
            raise InputError(found, "use a store from ctpatch build", dataset.file.filename) from error
    return fetch(dataset)
