"""Rows of a dataset, read one by one in any order: a gzip chunk per row is inflated by ISA-L and not by HDF5.

HDF5 takes a selection of scattered rows apart at some 0.3 ms a row, and its own inflating is several times slower.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from .records import inflate


class Rows:
    """The rows of an open dataset.

    Attributes
    ----------
    dataset : h5py.Dataset
    one_each : bool
        Whether each row is a gzip chunk of its own, as StoreWriter makes them; others are left to HDF5.
    """

    def __init__(self, dataset: h5py.Dataset):
        self.dataset = dataset
        self.one_each = dataset.chunks == (1, *dataset.shape[1:]) and filters(dataset) == [h5py.h5z.FILTER_DEFLATE]
        self._shape, self._dtype, self._size = dataset.shape[1:], dataset.dtype, row_bytes(dataset)
        self._zeros = (0,) * len(self._shape)

    def __len__(self) -> int:
        return int(self.dataset.shape[0])

    def stream(self, row: int) -> bytes:
        """The chunk of a row, compressed; a ValueError where HDF5 left out its filter."""
        mask, stream = self.dataset.id.read_direct_chunk((row, *self._zeros))
        if mask:
            raise ValueError("a chunk without its filter")
        return bytes(stream)

    def read(self, wanted: Sequence[int]) -> NDArray[Any]:
        """The rows at these indices from 0 on, in their order; one may be named several times.

        Raises
        ------
        InputError
            When a row is damaged.
        """
        found = np.empty((len(wanted), *self._shape), self._dtype)
        for place, row in enumerate(wanted):
            found[place] = self._row(row)
        return found

    def _row(self, row: int) -> NDArray[Any]:
        if self.one_each:
            try:
                return np.frombuffer(inflate(self.stream(row), self._size), self._dtype).reshape(self._shape)
            except Exception:  # of h5py or zlib; what HDF5 makes of that chunk, or its error, counts
                pass
        return fetch(self.dataset, row)


def fetch(dataset: h5py.Dataset, key: Any = ()) -> NDArray[Any]:
    """What HDF5 selects; an `InputError` where it is damaged."""
    try:
        return np.asarray(dataset[key])
    except (OSError, RuntimeError) as error:
        found = f"{dataset.name} cannot be read: its checksum or compression is damaged"
        raise InputError(found, "copy the store again, or rerun ctpatch build", dataset.file.filename) from error


def row_bytes(dataset: h5py.Dataset) -> int:
    """Bytes of a row, uncompressed; at least 1."""
    return max(1, dataset.dtype.itemsize * math.prod(dataset.shape[1:]))


def filters(dataset: h5py.Dataset) -> list[int]:
    """The filters that its chunks went through."""
    plist = dataset.id.get_create_plist()
    return [plist.get_filter(i)[0] for i in range(plist.get_nfilters())]
