"""Headers of volume files: NIfTI read by nibabel, NRRD and MetaImage by SimpleITK.

What the libraries would guess, mend or read over is refused, field by field: the comments say what nibabel 5.4.2 and
SimpleITK 2.5.7 make of it.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from ..geometry import Floats
from .voxel_grid import Grid, checked_size, corner_indices, make_grid

Layout = tuple[Grid, np.dtype[Any], Path, int, int, bool, float, float, int]
"""The fields of a `VolumeFile` after its path."""
FORMS_TOLERANCE_MM = 0.01
"""How far apart the qform and the sform may place one voxel, but for what a qform cannot tell."""
UNIT_TOLERANCE = 1e-3
"""How far the squared length of a quaternion may exceed 1 by rounding."""
HALF_TURN = 1e-7
"""What of a quaternion's squared length is rounding where a is 0, as in nifti1_io.c."""
COPY_AGAIN = "copy the file again from its source"
SAVE_AGAIN = "save it again as one 3-D scalar volume with spacing, position and orientation"


def read_nifti(path: Path) -> Layout:
    """Read a NIfTI-1 or NIfTI-2 header of a single file with one 3-D scalar volume in mm."""
    with open(path, "rb") as file:
        raw = file.read(4096)
    compressed = raw.startswith(b"\x1f\x8b")
    head = _nifti_header(zlib.decompressobj(wbits=31).decompress(raw, 540) if compressed else raw)
    if head["magic"].item()[:3] not in (b"n+1", b"n+2"):  # nibabel reads on
        raise InputError("ANALYZE, or a NIfTI header without its image", SAVE_AGAIN, kind="no-voxels")
    dim = head["dim"].tolist()
    sizes = dim[1 : 1 + dim[0]] if 1 <= dim[0] <= 7 else []
    while len(sizes) > 3 and sizes[-1] == 1:  # axes of one volume
        sizes.pop()
    size = checked_size(sizes)
    affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ _affine(head, size)  # RAS to LPS
    grid = make_grid(size, affine[:3, 3], affine[:3, :3].T)
    dtype = head.get_data_dtype()
    if dtype.kind not in "iuf" or dtype.itemsize > 8:
        raise InputError(f"voxels of type {head['datatype']} are not scalar numbers", SAVE_AGAIN, kind="not-scalar")
    slope, intercept = float(head["scl_slope"]), float(head["scl_inter"])
    if np.isnan(slope):  # no scaling, as nibabel and ITK read it
        slope, intercept = 0.0, 0.0
    if not np.isfinite([slope, intercept]).all():  # nibabel: 1 and 0
        found = f"scl_slope {slope:g}, scl_inter {intercept:g}"
        raise InputError(found, "mend the scaling in the header", kind="scaling")
    scaling = (slope, intercept) if slope else (1.0, 0.0)  # nifti1.h: slope 0 means no scaling, whatever the intercept
    offset = max(int(head["vox_offset"]), head.sizeof_hdr)  # nibabel: where it is 0, the header is voxels
    return grid, dtype, path, 0 if compressed else offset, offset, compressed, *scaling, 1


def _nifti_header(raw: bytes) -> Any:
    """The header as nibabel has it, unmended; its first number tells the byte order (nibabel goes by dim[0])."""
    from nibabel import Nifti1Header, Nifti2Header

    kinds = {kind.sizeof_hdr: kind for kind in (Nifti1Header, Nifti2Header)}
    for word, order in (("little", "<"), ("big", ">")):
        size = int.from_bytes(raw[:4], word)  # type: ignore[arg-type]
        if size in kinds and len(raw) >= size:
            return kinds[size](raw[:size], order, check=False)
    raise InputError("not a whole NIfTI header", COPY_AGAIN, kind="damaged")


def _affine(head: Any, size: tuple[int, int, int]) -> Floats:
    """The 4 × 4 affine in mm RAS: the sform where it is set, else the qform; they must agree where both are."""
    if int(head["xyzt_units"]) & 7 not in (0, 2):  # nibabel: any is mm
        raise InputError("lengths are not in mm (xyzt_units)", "save it again in mm", kind="units")
    forms = [head.get_sform()] if head["sform_code"] > 0 else []
    forms += [_qform(head)] if head["qform_code"] > 0 else []
    if not forms:  # readers disagree about such a file (nibabel centres it), and left and right would be a guess
        found = "neither qform nor sform is set: position and orientation are unknown"
        do = "set the sform (and that of its mask) to where the scanner put the voxels"
        raise InputError(found, do, kind="no-grid")
    for other in forms[1:]:  # nibabel: the first
        differ, corners = forms[0] - other, corner_indices(size)
        apart = np.linalg.norm(corners @ differ[:3, :3].T + differ[:3, 3], axis=1)
        reach = np.linalg.norm(corners @ other[:3, :3].T, axis=1)
        if not (apart <= FORMS_TOLERANCE_MM + _untold_turn(head) * reach).all():
            found = f"qform and sform place the same voxel {apart.max():.3g} mm apart"
            raise InputError(found, "find out which one is right and save the file with that one", kind="two-grids")
    return forms[0]


def _untold_turn(head: Any) -> float:
    """Radians that a qform leaves open: a is what the rounded b, c, d leave of 1, near half a turn hardly anything.

    ITK writes both forms, and the qform of a CT turned by a tenth of a degree is up to 0.3 mm off the sform.
    """
    vector = _quaternion(head)
    lost, square = float(np.finfo(vector.dtype).eps) + HALF_TURN, 1 - float((vector.astype(np.float64) ** 2).sum())
    low, high = np.sqrt(np.clip([square - lost, square + lost], 0, None))
    return float(2 * (high - low))


def _quaternion(head: Any) -> Any:
    """b, c and d in the header's own precision, (3,)."""
    return np.array([head[f"quatern_{axis}"] for axis in "bcd"])


def _qform(head: Any) -> Floats:
    """The affine of quaternion, pixdim and qoffset (nifti1.h, method 2).

    As in nifti1_io.c, a length a rounding above 1 is 1 and a pixdim[0] of 0 is 1, both of which nibabel refuses.
    """
    vector = _quaternion(head).astype(np.float64)
    length, pixdim = float(np.linalg.norm(vector)), head["pixdim"]
    if not length**2 <= 1 + UNIT_TOLERANCE or (pixdim[1:4] < 0).any():
        found = f"a qform with quaternion {vector} and spacing {pixdim[1:4]}"
        raise InputError(found, "mend it, or unset it where the sform is right", kind="damaged")
    for axis, value in zip("bcd", vector / max(1.0, length), strict=True):
        head[f"quatern_{axis}"] = value
    pixdim[0] = -1 if pixdim[0] < 0 else 1
    head.quaternion_threshold = HALF_TURN
    return head.get_qform()


# --------------------------------------------------------------------------------------- NRRD, MetaImage

_NUMBER = r"[+-]?(\d{1,20}\.?\d{0,30}|\.\d{1,30})(e[+-]?\d\d?)?"
_THREE, _FOUR, _NINE = (rf"{_NUMBER}( {_NUMBER}){{{n}}}" for n in (2, 3, 8))
_VECTOR = rf"\({_NUMBER},{_NUMBER},{_NUMBER}\)"
NRRD_FIELDS = {
    "dimension": "3",
    "sizes": r"\d+( \d+)*",  # 1_0 is 1
    "space": "(left|right)-(anterior|posterior)-superior|lps|las|ras",  # any other, or none, is LPS
    "space origin": _VECTOR,  # none is 0
    "space directions": rf"({_VECTOR} ?){{3}}",  # none is 1 mm, axial
    "space units?": '(?-i:("(mm|millimeters|)" ?)*)',  # any is mm
    "encoding": "raw|gzip|gz",
    "line skip|byte skip?": "0",
    "endian?": "little|big",
    "data file|datafile?": ".+",
}
"""What the fields of an NRRD must look like where they are given; they must be given unless there is a "?"."""
NRRD_LAYERS = {"dimension": "4", "space directions": rf"none ?({_VECTOR} ?){{3}}"}
"""What is otherwise in one with layers."""
MAX_LAYERS = 256
METAIMAGE_FIELDS = {
    "NDims": "3",
    "DimSize": r"\d+( \d+)*",  # 1_0 is 1
    "ElementSpacing": _THREE,  # none is 1
    "Offset|Position|Origin|ImagePosition": _THREE,  # none is 0, of several any
    "TransformMatrix|Rotation|Orientation": _NINE,  # none is axial, of several any
    "ElementType": "MET_(u?(char|short|int|long_long)|float|double)",  # a string is numbers
    "ElementNumberOfChannels?": "1",
    "ElementToIntensityFunctionSlope?": r"1(\.0*)?",  # any is 1
    "ElementToIntensityFunctionOffset?": r"0(\.0*)?",  # any is 0
    "DistanceUnits?": r"mm|\?",  # any is mm
    "BinaryData?": "true",
    "HeaderSize?": "0",
    "CompressedData?": "true|false",
    "BinaryDataByteOrderMSB|ElementByteOrderMSB?": "true|false",
    "ElementDataFile": ".+",
    # at anything else in these MetaIO writes to stderr
    **dict.fromkeys(
        ("ID?", "ParentID?", "CompressedDataSize?", "ElementNBits?", "ElementMin?", "ElementMax?"), _NUMBER
    ),
    **dict.fromkeys(("CenterOfRotation?", "SequenceID?", "ElementSize?"), _THREE),
    "Color?": _FOUR,
}
"""The same for a MetaImage."""
_CONTROL = r"[\0-\x08\v\f\x0e-\x1f\x7f]|\r(?!\n)"
_NO_VALUE = r"^[^=:\n]*[^=:\s][^=:\n]*$"  # MetaIO takes the next line for the value
_LONG = r"^.{250}"  # MetaIO has room for 255 bytes
_LONG_FIELD = r"^(?!#|[^:\n]*:=).{250}"  # Teem for 512 with what it says about a field; not so for key:=value
_EARLY = rf"^[^=:\n]*[=:][ \t]*{_NUMBER}[ \t]+{_NUMBER}(?=[\s\S]*^[ \t]*NDims)"  # MetaIO wants to know NDims first
_TYPES = ("Int8", "UInt8", "Int16", "UInt16", "Int32", "UInt32", "Int64", "UInt64", "Float32", "Float64")


def nrrd_header(path: Path) -> tuple[str, int]:
    """The text of an NRRD's header, and its length in bytes; an `InputError` when it is none."""
    text, end = _text(path, r"\r?\n\r?\n", f"{_CONTROL}|{_LONG_FIELD}")
    if not text.startswith("NRRD000"):
        raise InputError("not an NRRD header", COPY_AGAIN, kind="damaged")
    return text, end


def read_nrrd(path: Path) -> Layout:
    """Read the header of an NRRD with one 3-D scalar volume, stored raw or as gzip, in an LPS, RAS or LAS space.

    3D Slicer keeps segments that overlap in layers: values of each voxel, along a first axis of kind list.
    """
    text, end = nrrd_header(path)
    pairs = re.findall(r"^([^#:\n]+):(?!=)(.*)$", text, re.M)
    named = [(key.strip().lower(), value) for key, value in pairs]
    layers = _layers(dict(named))
    fields = _fields(named, NRRD_FIELDS | (NRRD_LAYERS if layers > 1 else {}))
    compressed, big = fields["encoding"].lower() != "raw", fields.get("endian", "").lower() == "big"
    sizes = fields["sizes"].split(" ", 1)[1] if layers > 1 else fields["sizes"]
    data = fields.get("data file", "LOCAL")
    return _as_itk_reads(path, "NrrdImageIO", sizes, data, end, compressed, big, layers)


def _layers(fields: Mapping[str, str]) -> int:
    """Values of each voxel along a first axis of kind list; 1 where there is none."""
    kinds, sizes = fields.get("kinds", "").lower().split(), fields.get("sizes", "").split()
    if kinds != ["list", "domain", "domain", "domain"] or len(sizes) != 4 or not sizes[0].isdecimal():
        return 1
    return min(int(sizes[0]), MAX_LAYERS)


def read_metaimage(path: Path) -> Layout:
    """Read the header of a MetaImage with one 3-D scalar volume, stored raw or as zlib."""
    ending = r"^[ \t]*ElementDataFile[ \t]*[=:].*?(\n|\Z)"
    text, end = _text(path, ending, f"{_CONTROL}|{_NO_VALUE}|{_LONG}|{_EARLY}")
    fields = _fields(re.findall(r"^[ \t]*([^=:\n]+?)[ \t]*[=:](.*)$", text, re.M), METAIMAGE_FIELDS)
    compressed, big = (fields.get(name, "").lower() == "true" for name in ("CompressedData", "BinaryDataByteOrderMSB"))
    data = fields["ElementDataFile"]
    return _as_itk_reads(path, "MetaImageIO", fields["DimSize"], data, end, compressed, big)


def _text(path: Path, ending: str, odd: str) -> tuple[str, int]:
    """The header up to and with the first match of `ending`, or all of it; and its length in bytes."""
    with open(path, "rb") as file:
        raw = file.read(2**16)
    match = re.search(ending.encode(), raw, re.M)
    end = match.end() if match else len(raw)
    if (garbage := re.search(odd.encode(), raw[:end], re.M)) or end == 2**16:
        found = f"the header is garbled at byte {garbage.start() if garbage else end}"
        raise InputError(found, COPY_AGAIN, kind="damaged")
    return raw[:end].decode("utf-8", "replace"), end


def _fields(pairs: Iterable[tuple[str, str]], looks: Mapping[str, str]) -> dict[str, str]:
    """The values of the fields in `looks`, by the first of their names; what stands there twice must say the same."""
    given: dict[str, str] = {}
    folded: dict[str, str] = {}
    for key, value in pairs:
        given[key] = re.sub(r" ?([(,)]) ?", r"\1", re.sub(r"[ \t\r]+", " ", value)).strip(" ")
        if folded.setdefault(key.lower(), given[key]) != given[key]:
            found = f"{key} is given as {folded[key.lower()]!r} and as {given[key]!r}"
            raise InputError(found, SAVE_AGAIN, kind="given-twice")
    fields: dict[str, str] = {}
    for names, pattern in looks.items():
        first, *others = names.rstrip("?").split("|")
        for name in given.keys() & {first, *others}:
            value = given[name]
            if not re.fullmatch(pattern, value, re.I | re.A):
                raise InputError(f"{name} = {value[:80]!r} is not read", SAVE_AGAIN, kind="not-read")
            if fields.setdefault(first, value) != value:
                raise InputError(f"{' and '.join((first, *others))} differ", SAVE_AGAIN, kind="given-twice")
        if first not in fields and not names.endswith("?"):
            raise InputError(f"the header does not give {names.replace('|', ' or ')}", SAVE_AGAIN, kind="missing")
    return fields


def _neighbour(path: Path, name: str) -> Path:
    """The data file in the header's own folder: a header never leads anywhere else."""
    name = name.removeprefix("./")
    data = path.parent / name
    if Path(name).name != name or not data.is_file():
        found = f"the voxels should be in {name!r}, which is no file beside it"
        raise InputError(found, "save it again as one file", kind="no-voxels")
    return data


def _as_itk_reads(
    path: Path, reader_name: str, sizes: str, name: str, end: int, compressed: bool, big: bool, layers: int = 1
) -> Layout:
    import SimpleITK as sitk

    size = checked_size([int(n) for n in sizes.split()])
    data, start = (path, end) if name.upper() == "LOCAL" else (_neighbour(path, name), 0)
    reader = sitk.ImageFileReader()
    reader.SetImageIO(reader_name)  # it would go by the first bytes, and not know .MHA
    try:
        reader.SetFileName(str(path).encode().decode())  # it ends the process at a name in another encoding
    except UnicodeEncodeError:
        raise InputError("its path is not UTF-8", "rename it in plain letters", kind="unreadable") from None
    reader.ReadImageInformation()
    kind = "Vector" if layers > 1 else ""
    types = {getattr(sitk, f"sitk{kind}{name}"): np.dtype(name.lower()) for name in _TYPES}
    if (*reader.GetSize(), reader.GetNumberOfComponents()) != (*size, layers) or reader.GetPixelID() not in types:
        raise InputError("its voxels are not scalar numbers", SAVE_AGAIN, kind="not-scalar")
    steps = np.reshape(reader.GetDirection(), (3, 3)).T * np.array(reader.GetSpacing())[:, None]
    dtype = types[reader.GetPixelID()].newbyteorder(">" if big else "<")
    return make_grid(size, reader.GetOrigin(), steps), dtype, data, start, 0, compressed, 1.0, 0.0, layers
