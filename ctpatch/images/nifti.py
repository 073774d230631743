"""Headers of NIfTI-1 and NIfTI-2 files (nifti1.h and nifti2.h at nifti.nimh.nih.gov), `.nii` and `.nii.gz`."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np

from ..errors import InputError
from ..geometry import Floats
from .volume_file import COPY_AGAIN, SAVE_AGAIN, VolumeFile, scalar_type
from .voxel_grid import checked_size, corner_indices, make_grid

FORMS_TOLERANCE_MM = 0.01
"""How far apart the qform and the sform may place one voxel."""
UNIT_TOLERANCE = 1e-3
"""How far the squared length of a quaternion may exceed 1 by rounding."""
HALF_TURN = 1e-7
"""What of a quaternion's squared length is rounding where a is 0, as in nifti1_io.c."""
_TYPES = {2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 256: "i1", 512: "u2", 768: "u4", 1024: "i8", 1280: "u8"}
_RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0])


def _layout(size: int, **fields: tuple[str, int]) -> np.dtype[np.void]:
    formats, offsets = zip(*fields.values(), strict=True)
    return np.dtype({"names": list(fields), "formats": formats, "offsets": offsets, "itemsize": size})


_LAYOUTS = {
    348: _layout(
        348, dim=("8i2", 40), datatype=("i2", 70), pixdim=("8f4", 76), vox_offset=("f4", 108), slope=("f4", 112),
        intercept=("f4", 116), units=("u1", 123), qform_code=("i2", 252), sform_code=("i2", 254),
        quaternion=("3f4", 256), qoffset=("3f4", 268), srow=("(3,4)f4", 280), magic=("S3", 344),
    ),
    540: _layout(
        540, magic=("S3", 4), datatype=("i2", 12), dim=("8i8", 16), pixdim=("8f8", 104), vox_offset=("i8", 168),
        slope=("f8", 176), intercept=("f8", 184), qform_code=("i4", 344), sform_code=("i4", 348),
        quaternion=("3f8", 352), qoffset=("3f8", 376), srow=("(3,4)f8", 400), units=("i4", 500),
    ),
}  # fmt: skip


def read_nifti(path: Path) -> VolumeFile:
    """Read a NIfTI header.

    Raises
    ------
    InputError
        When it is no header of a single-file NIfTI with one 3-D scalar volume in mm, or when neither form or two
        different ones say where its voxels lie.
    """
    with open(path, "rb") as file:
        raw = file.read(4096)
    compressed = raw.startswith(b"\x1f\x8b")
    head, order = _header(_inflated(raw) if compressed else raw)
    size = checked_size(_size(head["dim"].tolist()))
    affine = _RAS_TO_LPS @ _affine(head, size)
    grid = make_grid(size, affine[:, 3], affine[:, :3].T)
    dtype = scalar_type(_TYPES, int(head["datatype"]), order)
    offset = max(int(head["vox_offset"]), head.dtype.itemsize)
    return VolumeFile(path, grid, dtype, path, 0 if compressed else offset, offset, compressed, *_scaling(head))


def _inflated(raw: bytes) -> bytes:
    try:
        return zlib.decompressobj(wbits=31).decompress(raw, 540)
    except zlib.error as error:
        raise InputError(f"damaged gzip data ({error})", COPY_AGAIN) from error


def _header(raw: bytes) -> tuple[np.void, str]:
    """The header's fields and its byte order, which the size it states of itself tells."""
    for order in "<>":
        layout = _LAYOUTS.get(int.from_bytes(raw[:4], "little" if order == "<" else "big"))
        if layout is not None and len(raw) >= layout.itemsize:
            head = np.frombuffer(raw, layout.newbyteorder(order), 1)[0]  # type: ignore[arg-type]
            if head["magic"] in (b"n+1", b"n+2"):
                return head, order
            raise InputError(f"NIfTI magic {head['magic']!r}: ANALYZE, or a header without its image", SAVE_AGAIN)
    raise InputError("not a whole NIfTI header", COPY_AGAIN)


def _size(dim: list[int]) -> list[int]:
    """Voxels along each axis, without axes beyond the third that hold one volume only."""
    size = dim[1 : 1 + dim[0]] if 1 <= dim[0] <= 7 else []
    while len(size) > 3 and size[-1] == 1:
        size.pop()
    return size


def _scaling(head: np.void) -> tuple[float, float]:
    slope, intercept = float(head["slope"]), float(head["intercept"])
    if not np.isfinite([slope, intercept]).all():
        raise InputError(f"scl_slope {slope:g}, scl_inter {intercept:g}", "mend the scaling in the header")
    return (slope, intercept) if slope else (1.0, 0.0)  # nifti1.h: slope 0 means no scaling, whatever the intercept


def _affine(head: np.void, size: tuple[int, int, int]) -> Floats:
    """The 3 × 4 affine in mm RAS: the sform where it is set, else the qform; they must agree where both are."""
    if int(head["units"]) & 7 not in (0, 2):
        raise InputError("lengths are not in mm (xyzt_units)", "save it again in mm")
    forms = [head["srow"].astype(np.float64)] if head["sform_code"] > 0 else []
    forms += [_qform(head)] if head["qform_code"] > 0 else []
    if not forms:  # readers disagree about such a file, and left and right would be a guess
        found = "neither qform nor sform is set: position and orientation are unknown"
        raise InputError(found, "set the sform (and that of its mask) to where the scanner put the voxels")
    for other in forms[1:]:
        differ = forms[0] - other
        apart = np.linalg.norm(corner_indices(size) @ differ[:, :3].T + differ[:, 3], axis=1).max()
        if not apart <= FORMS_TOLERANCE_MM:
            found = f"qform and sform place the same voxel {apart:.3g} mm apart"
            raise InputError(found, "find out which one is right and save the file with that one")
    return forms[0]


def _qform(head: np.void) -> Floats:
    """The 3 × 4 affine of the quaternion, pixdim and qoffset (nifti1.h, method 2)."""
    vector = head["quaternion"].astype(np.float64)
    if not vector @ vector <= 1 + UNIT_TOLERANCE:
        raise InputError(
            f"the quaternion {vector} is no rotation", "mend the qform, or unset it where the sform is right"
        )
    rest = 1 - vector @ vector
    q = np.array([np.sqrt(rest) if rest > HALF_TURN else 0.0, *vector])
    a, b, c, d = q / np.linalg.norm(q)
    rotation = np.array(
        [
            [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
            [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
            [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - b * b - c * c],
        ]
    )
    pixdim = head["pixdim"].astype(np.float64)
    handed = np.array([1.0, 1.0, -1.0 if pixdim[0] < 0 else 1.0])
    return np.column_stack([rotation * pixdim[1:4] * handed, head["qoffset"].astype(np.float64)])
