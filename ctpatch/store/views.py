"""The patches of a store: columns that are fetched when indexed, and pictures as a network takes them."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
from numpy.typing import NDArray

from ..patches.rendering import IMAGENET, Normalisation, channels, rendering_by
from . import schema
from .chunks import fetch
from .pictures import network_input

if TYPE_CHECKING:
    from .reader import PatchStore


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
        by = rendering_by(self._windows, normalisation)
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
