"""A volume file whose header has been read: where its voxels lie in space and on disk."""

from __future__ import annotations

import hashlib
import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from .voxel_grid import Grid

MAX_DEFLATE = 1032
"""Deflate shrinks no further (zlib.net/zlib_tech.html): a file that declares more is cut off or forged."""
MAX_INFLATED = 2**32
"""Bytes that compressed voxels may inflate to in memory; uncompressed ones are read where they lie."""
COPY_AGAIN = "copy the file again from its source"
SAVE_AGAIN = "save it again as one 3-D scalar volume with spacing, position and orientation"


@dataclass(frozen=True, eq=False)
class VolumeFile:
    """A volume on disk.

    Attributes
    ----------
    path : Path
    grid : Grid
        Where its voxels lie.
    dtype : numpy.dtype
        Of the stored values.
    data : Path
        The file with the voxels: `path`, or its neighbour when the header is detached.
    start : int
        Bytes of `data` before the voxels, or before the deflate stream that holds them.
    skip : int
        Inflated bytes before the voxels.
    compressed : bool
    slope, intercept : float
        value = slope · stored + intercept.
    """

    path: Path
    grid: Grid
    dtype: np.dtype[Any]
    data: Path
    start: int
    skip: int = 0
    compressed: bool = False
    slope: float = 1.0
    intercept: float = 0.0

    @property
    def n_bytes(self) -> int:
        """Bytes that the voxels take."""
        i, j, k = self.grid.size
        return i * j * k * self.dtype.itemsize

    def check_length(self) -> None:
        """Refuse a file that cannot hold what its header declares, or a bomb; nothing is decoded.

        Raises
        ------
        InputError
            When voxels are lacking, bytes are left over, or the voxels would inflate to more than `MAX_INFLATED`.
        """
        present, inflated = self.data.stat().st_size - self.start, self.skip + self.n_bytes
        if self.compressed and inflated > MAX_INFLATED:
            found = f"{present} compressed bytes inflate to {inflated >> 20} MB, more than {MAX_INFLATED >> 20}"
            raise InputError(found, "save it uncompressed: then it is read where it lies")
        if self.compressed and inflated > MAX_DEFLATE * max(present, 0):
            raise InputError(f"{present} compressed bytes cannot hold the {self.n_bytes} declared", COPY_AGAIN)
        if not self.compressed and not 0 <= present - self.n_bytes <= 1:
            raise InputError(f"{present} bytes of voxels where the header declares {self.n_bytes}", COPY_AGAIN)

    @cached_property
    def digest(self) -> str:
        """SHA-256 over the SHA-256 of the file and of its detached data."""
        total = hashlib.sha256()
        for path in dict.fromkeys((self.path, self.data)):
            with open(path, "rb") as file:
                total.update(hashlib.file_digest(file, "sha256").digest())
        return total.hexdigest()

    @cached_property
    def stored(self) -> NDArray[Any]:
        """The stored values, (k, j, i): mapped from the file, or inflated into memory.

        Raises
        ------
        InputError
            When the compressed data is damaged, cut off, or more than the header declares.
        """
        shape = self.grid.size[::-1]
        try:
            if not self.compressed:
                return np.memmap(self.data, self.dtype, "r", self.start, shape)
            with open(self.data, "rb") as file:
                file.seek(self.start)
                raw = _inflate(file, self.skip + self.n_bytes)
        except InputError as error:
            raise error.at(where=self.path) from None
        except OSError as error:
            raise InputError(f"cannot be read ({error.strerror})", COPY_AGAIN, self.path) from error
        return np.frombuffer(raw, self.dtype, math.prod(shape), self.skip).reshape(shape)

    def values(self, stored: NDArray[Any]) -> NDArray[Any]:
        """Stored values with the file's scaling applied: float64, or as they are when there is none."""
        if self.slope == 1 and self.intercept == 0:
            return stored
        return stored.astype(np.float64) * self.slope + self.intercept


def scalar_type(types: Mapping[Any, str], name: Any, order: str) -> np.dtype[Any]:
    """The numpy dtype that a header's `name` for its scalars means, in byte order `order`.

    Raises
    ------
    InputError
        When it is none of `types`: colour, complex, or unknown.
    """
    if name not in types:
        raise InputError(f"voxels of type {name} are not scalar numbers", SAVE_AGAIN)
    return np.dtype(types[name]).newbyteorder(order)  # type: ignore[arg-type]


def _inflate(file: BinaryIO, count: int) -> bytearray:
    """`count` bytes of a zlib stream or of gzip members: checksums verified, never more than that in memory."""
    out, stream = bytearray(), zlib.decompressobj(wbits=47)
    try:
        while chunk := file.read(2**20):
            while chunk:
                if stream.eof:
                    stream = zlib.decompressobj(wbits=47)
                out += stream.decompress(chunk, count + 2 - len(out))
                chunk = stream.unused_data if stream.eof else stream.unconsumed_tail
                if len(out) > count + 1:
                    raise InputError(f"more voxels than the {count} bytes that the header declares", COPY_AGAIN)
    except zlib.error as error:
        raise InputError(f"the compressed voxels are damaged ({error})", COPY_AGAIN) from error
    if not stream.eof or len(out) < count:
        raise InputError(f"the compressed voxels are cut off after {len(out)} of {count} bytes", COPY_AGAIN)
    return out
