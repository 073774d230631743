"""Headers in text: NRRD (teem.sourceforge.net/nrrd/format.html) and MetaImage (the MetaIO documentation of ITK).

What a header does not say is not assumed: neither spacing 1, nor position 0, nor axial orientation.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from ..dicom.decimal_string import decimal, whole
from ..errors import InputError
from ..geometry import Floats
from .volume_file import COPY_AGAIN, SAVE_AGAIN, VolumeFile, scalar_type
from .voxel_grid import checked_size, make_grid

_HEADER_BYTES = 2**16
_NRRD_SIGNED = {"char": "i1", "int8": "i1", "short": "i2", "int16": "i2", "int": "i4", "int32": "i4"}
_NRRD_SIGNED |= {"longlong": "i8", "int64": "i8"}
_NRRD_TYPES = {"float": "f4", "double": "f8", **_NRRD_SIGNED}
_NRRD_TYPES |= {f"u{name}": f"u{code[1]}" for name, code in _NRRD_SIGNED.items()}
_NRRD_SPACES = {
    **dict.fromkeys(("left-posterior-superior", "lps"), (1, 1, 1)),
    **dict.fromkeys(("right-anterior-superior", "ras"), (-1, -1, 1)),
    **dict.fromkeys(("left-anterior-superior", "las"), (1, -1, 1)),
}
_META_TYPES = {"MET_CHAR": "i1", "MET_UCHAR": "u1", "MET_SHORT": "i2", "MET_USHORT": "u2", "MET_INT": "i4"}
_META_TYPES |= {"MET_UINT": "u4", "MET_LONG_LONG": "i8", "MET_ULONG_LONG": "u8", "MET_FLOAT": "f4", "MET_DOUBLE": "f8"}
_META_PLAIN = {
    "BinaryData": ("true",),
    "HeaderSize": ("0",),
    "ElementNumberOfChannels": ("1",),
    "ElementToIntensityFunctionSlope": ("1", "1.0"),  # ITK ignores these two, other readers do not
    "ElementToIntensityFunctionOffset": ("0", "0.0"),
    "DistanceUnits": ("mm", "?"),
}


def read_nrrd(path: Path) -> VolumeFile:
    """Read an NRRD header, attached (`.nrrd`) or detached (`.nhdr`).

    Raises
    ------
    InputError
        When it is no header of one 3-D scalar volume, stored raw or as gzip, in an LPS, RAS or LAS space.
    """
    text, end = _text(path, rb"\r?\n\r?\n")
    if not text.startswith("NRRD000"):
        raise InputError("not an NRRD header", COPY_AGAIN)
    fields = _fields((key.strip().lower(), value) for key, value in re.findall(r"^([^#:\n]+):(?!=)(.*)$", text, re.M))
    size = checked_size([whole(n) for n in _need(fields, "sizes").split()])
    space = _need(fields, "space").lower()
    units = set(re.findall(r'"(.*?)"', fields.get("space units", "")))
    if space not in _NRRD_SPACES or not units <= {"mm", "millimeters", ""}:
        raise InputError(f"NRRD space {space!r} is not LPS, RAS or LAS in mm", SAVE_AGAIN)
    lps = np.array(_NRRD_SPACES[space])
    origin, steps = _vectors(_need(fields, "space origin")), _vectors(_need(fields, "space directions"))
    grid = make_grid(size, origin[0] * lps, steps * lps)
    kind = re.sub(r"^signed | int$|_t$", "", _need(fields, "type").lower().replace("unsigned ", "u")).replace(" ", "")
    dtype = scalar_type(_NRRD_TYPES, kind, ">" if fields.get("endian", "").lower() == "big" else "<")
    encoding = _need(fields, "encoding").lower()
    skips = [fields.get(f"{unit} skip", "0") for unit in ("line", "byte")]
    if encoding not in ("raw", "gzip", "gz") or skips != ["0", "0"]:
        found = f"NRRD encoding {encoding!r}, line and byte skip {' and '.join(skips)}"
        raise InputError(found, "save it again as raw or gzip without skips")
    name = fields.get("data file", fields.get("datafile", ""))
    data, start = (_neighbour(path, name), 0) if name else (path, end)
    return VolumeFile(path, grid, dtype, data, start, compressed=encoding != "raw")


def read_metaimage(path: Path) -> VolumeFile:
    """Read a MetaImage header, attached (`.mha`) or detached (`.mhd`).

    Raises
    ------
    InputError
        When it is no header of one 3-D scalar volume, stored raw or as zlib.
    """
    text, end = _text(path, rb"^ElementDataFile *=.*?(\n|\Z)")
    fields = _fields(re.findall(r"^(\w+) *=(.*)$", text, re.M))
    size = checked_size([whole(n) for n in _need(fields, "DimSize").split()])
    directions = _numbers(_need(fields, "TransformMatrix", "Rotation", "Orientation")).reshape(-1, 3)
    steps = directions * _numbers(_need(fields, "ElementSpacing"))[:, None]
    grid = make_grid(size, _numbers(_need(fields, "Offset", "Position", "Origin")), steps)
    big = any(_is_true(fields, key) for key in ("BinaryDataByteOrderMSB", "ElementByteOrderMSB"))
    dtype = scalar_type(_META_TYPES, _need(fields, "ElementType"), ">" if big else "<")
    for key, plain in _META_PLAIN.items():
        if fields.get(key, plain[0]).lower() not in plain:
            raise InputError(f"{key} = {fields[key]} is not read", SAVE_AGAIN)
    name = _need(fields, "ElementDataFile")
    data, start = (path, end) if name.upper() == "LOCAL" else (_neighbour(path, name), 0)
    return VolumeFile(path, grid, dtype, data, start, compressed=_is_true(fields, "CompressedData"))


def _text(path: Path, ending: bytes) -> tuple[str, int]:
    """The header up to and with the first match of `ending`, or all of it; and its length in bytes."""
    with open(path, "rb") as file:
        raw = file.read(_HEADER_BYTES)
    match = re.search(ending, raw, re.M)
    end = match.end() if match else len(raw)
    if match and (garbage := re.search(rb"[\0-\x08\v\f\x0e-\x1f\x7f]|\r(?!\n)", raw[:end])):
        raise InputError(f"the header has a control character at byte {garbage.start()}", COPY_AGAIN)
    return raw[:end].decode("utf-8", "replace"), end


def _fields(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """The header's fields; one that stands there twice, in whatever letters, must say the same."""
    fields: dict[str, str] = {}
    told: dict[str, str] = {}
    for key, value in pairs:
        fields[key] = value.strip()
        if told.setdefault(key.lower(), fields[key]) != fields[key]:
            raise InputError(f"{key} is given as {told[key.lower()]!r} and as {fields[key]!r}", SAVE_AGAIN)
    return fields


def _need(fields: Mapping[str, str], *names: str) -> str:
    for name in names:
        if fields.get(name):
            return fields[name]
    raise InputError(f"the header does not give {' or '.join(names)}", SAVE_AGAIN)


def _is_true(fields: Mapping[str, str], name: str) -> bool:
    return fields.get(name, "").lower() == "true"


def _numbers(text: str) -> Floats:
    return np.array([decimal(part) for part in text.split()])


def _vectors(text: str) -> Floats:
    if not re.fullmatch(r"(\s*(\([^()]*\)|none))+", text):
        raise ValueError(f"{text[:80]!r} is not vectors in brackets")
    return np.array([[decimal(part) for part in vector.split(",")] for vector in re.findall(r"\((.*?)\)", text)])


def _neighbour(path: Path, name: str) -> Path:
    """The data file in the header's own folder: a header never leads anywhere else."""
    name = name.removeprefix("./")
    data = path.parent / name
    if Path(name).name != name or not data.is_file():
        raise InputError(f"the voxels should be in {name!r}, which is no file beside it", "save it again as one file")
    return data
