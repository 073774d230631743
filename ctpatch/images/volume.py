"""CT volumes and label maps in NIfTI, NRRD and MetaImage files.

Libraries read the headers (`volume_header`); voxels are mapped where they lie, or inflated once to the end of their
checksum. nibabel stops before it and holds a `.nii.gz` twice; SimpleITK holds a raw volume whole, and passes on any
flipped bit of a compressed MetaImage (Kitware/MetaIO#142) and one in eight of a compressed NRRD.
"""

from __future__ import annotations

import hashlib
import math
import zlib
from collections.abc import Callable, Iterator, Set
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError, located
from ..geometry import SliceStack
from .image import AIR, NOBODY, Box, Fault, Person, clean_hu
from .units import LOST_INTERCEPT, has_lost_intercept
from .volume_header import COPY_AGAIN, SAVE_AGAIN, Layout, read_metaimage, read_nifti, read_nrrd
from .voxel_grid import LPS, Grid, Reorder

MAX_DEFLATE = 1032
"""Deflate shrinks no further (zlib.net/zlib_tech.html): a file that declares more is cut off or forged."""
AIR_BELOW_HU = -200
"""A CT in HU has a value below this: there is air, in or around every patient."""
GIVE_HU = "give the volume in HU, or put units into the column accept if it is"
MIN_LEVELS = 256
"""A CT in HU has at least so many different values; one windowed to a picture has fewer."""
MAX_INFLATED = 2**32
"""Bytes that compressed voxels may inflate to in memory; uncompressed ones are read where they lie."""
_READERS: dict[str, Callable[[Path], Layout]] = {
    ".nii": read_nifti,
    ".nii.gz": read_nifti,
    ".nrrd": read_nrrd,
    ".nhdr": read_nrrd,
    ".mha": read_metaimage,
    ".mhd": read_metaimage,
}


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
    layers : int
        Values of each voxel: a 3D Slicer segmentation keeps segments that overlap in layers.
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
    layers: int = 1

    @property
    def count(self) -> int:
        """Stored values."""
        return math.prod(self.grid.size) * self.layers

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
        """The stored values, (k, j, i), of several layers (k, j, i, layer): mapped, or inflated into memory.

        Raises
        ------
        InputError
            When the compressed data is damaged, cut off, or more than the header declares.
        """
        shape = self.grid.size[::-1] + ((self.layers,) if self.layers > 1 else ())
        with _reading(self.path):
            if not self.compressed:
                return np.memmap(self.data, self.dtype, "r", self.start, shape)
            with open(self.data, "rb") as file:
                file.seek(self.start)
                raw = _inflate(file, self.skip + self.count * self.dtype.itemsize)
        return np.frombuffer(raw, self.dtype, self.count, self.skip).reshape(shape)

    def layer(self, number: int) -> NDArray[Any]:
        """The stored values of one layer, (k, j, i).

        Raises
        ------
        InputError
            When there is no such layer.
        """
        if not 0 <= number < self.layers:
            raise InputError(f"layer {number} of {self.layers}", "save the segmentation again", self.path)
        return self.stored[..., number] if self.layers > 1 else self.stored

    def values(self, stored: NDArray[Any]) -> NDArray[Any]:
        """Stored values with the file's scaling applied: float64, or as they are when there is none."""
        if self.slope == 1 and self.intercept == 0:
            return stored
        return stored.astype(np.float64) * self.slope + self.intercept


@dataclass(frozen=True, eq=False)
class CTVolume:
    """A CT volume file as an `Image`; its stored values are taken to be HU once the file's own scaling is applied.

    Attributes
    ----------
    file : VolumeFile
    stack : SliceStack
        The file's voxels, axes reordered and flipped to the closest LPS.
    reorder : Reorder
        From the file's order to the stack's.
    in_hu : bool
        Whether its values are known to be HU, whatever they look like.
    """

    file: VolumeFile
    stack: SliceStack
    reorder: Reorder
    in_hu: bool = False
    frame_of_reference: str = ""
    sop_uids: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    lossy: bool = False
    faults: tuple[Fault, ...] = ()
    person: Person = NOBODY

    @property
    def uid(self) -> str:
        """SHA-256 of the file."""
        return self.file.digest

    @property
    def content(self) -> str:
        """The same digest: it covers every voxel."""
        return self.uid

    @cached_property
    def _stored(self) -> NDArray[Any]:
        if not self.in_hu:
            _check_units(self.file)
        return self.reorder(self.file.stored)

    def read_hu(self, box: Box) -> NDArray[np.float32]:
        """HU of a box, float32 (z, y, x); a compressed file is inflated once, into its stored type.

        Raises
        ------
        InputError
            When the voxels are damaged or cut off, one in the box is NaN or infinite, or they do not look like HU.
        """
        index = tuple(slice(*bounds) for bounds in (box.slices, box.rows, box.columns))
        with np.errstate(all="ignore"):  # a NaN may signal, a scaling overflow: both are refused
            hu = np.asarray(self.file.values(self._stored[index]), np.float64)
        odd = np.count_nonzero(~np.isfinite(hu))
        if odd:
            raise InputError(f"{odd} voxels are NaN or infinite", "export the volume again", self.file.path)
        return clean_hu(hu)


def is_volume_file(path: str | Path) -> bool:
    """Whether the name says NIfTI, NRRD or MetaImage."""
    return Path(path).name.lower().endswith(tuple(_READERS))


def open_volume(path: str | Path, *, layered: bool = False) -> VolumeFile:
    """Read and check a volume's header; no voxel is decoded.

    Parameters
    ----------
    path : str or Path
    layered : bool
        Whether it may have several values for each voxel.

    Raises
    ------
    InputError
        When it cannot be read; is not one 3-D scalar volume; does not say where its voxels lie, or says so twice and
        differently; is cut off; or declares more voxels than it can hold.
    """
    path = Path(path)
    read = next((reader for suffix, reader in _READERS.items() if path.name.lower().endswith(suffix)), None)
    if read is None:
        raise InputError("not a volume file", f"give one of {', '.join(_READERS)}", path)
    with _reading(path), np.errstate(all="ignore"):  # infinite numbers are refused, not warned of
        volume = VolumeFile(path, *read(path))
        if volume.layers > 1 and not layered:
            raise InputError(f"{volume.layers} values for each voxel", SAVE_AGAIN, kind="not-scalar")
        _check_length(volume)
    return volume


def read_volume(path: str | Path, accept: Set[str] = frozenset()) -> CTVolume:
    """Open a NIfTI, NRRD or MetaImage file as a CT image; its voxels are decoded when asked for.

    Parameters
    ----------
    path : str or Path
    accept : set of str
        The row's words: `units` takes its values for HU whatever they look like.

    Raises
    ------
    InputError
        As `open_volume`; and when its rows and columns are not perpendicular, or it is a single slice.
    """
    file = open_volume(path)
    grid, reorder = file.grid.towards(LPS)
    in_hu = "units" in accept
    notes = ("its values are taken for HU whatever they look like; accepted by the manifest",) if in_hu else ()
    with located(file.path):
        return CTVolume(file, grid.stack(), reorder, in_hu, notes=notes)


def _check_units(file: VolumeFile) -> None:
    """Refuse a volume whose values are no HU: HU + 1024, a picture of a window, or normalised.

    Slice by slice from the middle, and only until it is seen to be HU. Values below air's are a scanner's padding.
    """
    lowest, levels = math.inf, np.empty(0)
    middle = len(file.stored) // 2
    for k in [*range(middle, len(file.stored)), *range(middle)]:
        with np.errstate(all="ignore"):
            plane = np.asarray(file.values(file.stored[k]), np.float64)
        if k == middle and has_lost_intercept(plane):
            raise InputError(f"the voxels {LOST_INTERCEPT}", GIVE_HU, file.path, kind="units")
        finite = plane[np.isfinite(plane)]
        lowest = min(lowest, float(finite.min(initial=math.inf, where=finite >= AIR)))
        if len(levels) < MIN_LEVELS:
            levels = np.union1d(levels, finite)
        if lowest < AIR_BELOW_HU and len(levels) >= MIN_LEVELS:
            return
    what = f"no value below {AIR_BELOW_HU}" if lowest >= AIR_BELOW_HU else f"only {len(levels)} different values"
    raise InputError(f"{what}: it does not look like a CT in HU", GIVE_HU, file.path, kind="units")


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """What is raised about a file, as one clear line that names it."""
    try:
        with located(path):
            yield
    except OSError as error:
        do = "check the path and its permissions"
        raise InputError(f"cannot be read ({error.strerror})", do, path, kind="unreadable") from error
    except (ValueError, LookupError, OverflowError, RuntimeError, zlib.error) as error:
        raise InputError("its header cannot be understood", COPY_AGAIN, path, kind="damaged") from error


def _check_length(file: VolumeFile) -> None:
    """Refuse a file that cannot hold what its header declares, or a bomb; nothing is decoded."""
    declared = file.count * file.dtype.itemsize
    present, inflated = file.data.stat().st_size - file.start, file.skip + declared
    if file.compressed and inflated > MAX_INFLATED:
        found = f"{present} compressed bytes inflate to {inflated >> 20} MB, more than {MAX_INFLATED >> 20}"
        raise InputError(found, "save it uncompressed: then it is read where it lies", kind="bomb")
    if file.compressed and inflated > MAX_DEFLATE * max(present, 0):
        raise InputError(f"{present} compressed bytes cannot hold the {declared} declared", COPY_AGAIN, kind="cut-off")
    if not file.compressed and not 0 <= present - declared <= 1:
        kind = "cut-off" if present < declared else "left-over"
        raise InputError(f"{present} bytes of voxels where the header declares {declared}", COPY_AGAIN, kind=kind)


def _inflate(file: BinaryIO, count: int) -> bytearray:
    """`count` bytes of a zlib stream or of gzip members: checksums verified, never more than that in memory."""
    out, stream = bytearray(), zlib.decompressobj(wbits=47)
    try:
        while chunk := file.read(2**18):
            while chunk:
                if stream.eof:
                    stream = zlib.decompressobj(wbits=47)
                out += stream.decompress(chunk, count + 2 - len(out))
                chunk = stream.unused_data if stream.eof else stream.unconsumed_tail
                if len(out) > count + 1:
                    found = f"more voxels than the {count} bytes that the header declares"
                    raise InputError(found, COPY_AGAIN, kind="left-over")
    except zlib.error as error:
        raise InputError(f"the compressed voxels are damaged ({error})", COPY_AGAIN, kind="damaged") from error
    if not stream.eof or len(out) < count:
        found = f"the compressed voxels are cut off after {len(out)} of {count} bytes"
        raise InputError(found, COPY_AGAIN, kind="cut-off")
    return out
