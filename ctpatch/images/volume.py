"""CT volumes in NIfTI, NRRD and MetaImage files.

They are read without ITK, which guesses where this package must refuse: SimpleITK 2.5.7 returns a cut-off `.nii` or
`.nii.gz` as if it were whole, drops the shear of an sform, takes spacing 0 for 1 and an unknown position for 0, adds
scl_inter where a scl_slope of 0 says "no scaling", opens any file that a detached header names, and writes to stderr.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..geometry import SliceStack
from .image import Box, clean_hu
from .nifti import read_nifti
from .text_headers import read_metaimage, read_nrrd
from .volume_file import COPY_AGAIN, VolumeFile
from .voxel_grid import LPS, Reorder

_READERS: dict[str, Callable[[Path], VolumeFile]] = {
    ".nii": read_nifti,
    ".nii.gz": read_nifti,
    ".nrrd": read_nrrd,
    ".nhdr": read_nrrd,
    ".mha": read_metaimage,
    ".mhd": read_metaimage,
}


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
    """

    file: VolumeFile
    stack: SliceStack
    reorder: Reorder
    frame_of_reference: str = ""
    sop_uids: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    lossy: bool = False

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
        return self.reorder(self.file.stored)

    def read_hu(self, box: Box) -> NDArray[np.float32]:
        """HU of a box, float32 (z, y, x); a compressed file is inflated once, into its stored type.

        Raises
        ------
        InputError
            When the voxels are damaged or cut off, or one in the box is NaN or infinite.
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


def open_volume(path: str | Path) -> VolumeFile:
    """Read and check a volume's header; no voxel is decoded.

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
    try:
        with np.errstate(all="ignore"):  # infinite numbers are refused, not warned of
            volume = read(path)
        volume.check_length()
    except InputError as error:
        raise error.at(where=path) from None
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror})", "check the path and its permissions", path) from error
    except (ValueError, IndexError, OverflowError) as error:  # text where numbers should be
        raise InputError("its header cannot be understood", COPY_AGAIN, path) from error
    return volume


def read_volume(path: str | Path) -> CTVolume:
    """Open a NIfTI, NRRD or MetaImage file as a CT image; its voxels are decoded when asked for.

    Raises
    ------
    InputError
        As `open_volume`; and when its rows and columns are not perpendicular, or it is a single slice.
    """
    file = open_volume(path)
    grid, reorder = file.grid.towards(LPS)
    try:
        return CTVolume(file, grid.stack(), reorder)
    except InputError as error:
        raise error.at(where=file.path) from None
