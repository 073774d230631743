"""The header of a DICOM file, read with one bounded read and a walk over its elements.

pydicom reads the 300 headers of a series in about 200 ms; only some thirty elements are wanted, so this walk takes a
tenth of that. What it does not know — big endian, deflated, a file without preamble — pydicom reads.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ..errors import InputError
from .dataset import DEFLATED, read_dataset, uid_of
from .decimal_string import decimal, whole
from .elements import FIRST_READ, UNDEFINED, ElementReader

TAGS = {
    0x00080008: "ImageType",
    0x00080016: "SOPClassUID",
    0x00080018: "SOPInstanceUID",
    0x00080032: "AcquisitionTime",
    0x00080060: "Modality",
    0x0008103E: "SeriesDescription",
    0x00100020: "PatientID",
    0x00100030: "PatientBirthDate",
    0x00100040: "PatientSex",
    0x00180050: "SliceThickness",
    0x00180060: "KVP",
    0x00180088: "SpacingBetweenSlices",
    0x00181060: "TriggerTime",
    0x00181210: "ConvolutionKernel",
    0x0020000D: "StudyInstanceUID",
    0x0020000E: "SeriesInstanceUID",
    0x00200012: "AcquisitionNumber",
    0x00200013: "InstanceNumber",
    0x00200032: "ImagePositionPatient",
    0x00200037: "ImageOrientationPatient",
    0x00200052: "FrameOfReferenceUID",
    0x00200100: "TemporalPositionIdentifier",
    0x00209161: "ConcatenationUID",
    0x00209162: "InConcatenationNumber",
    0x00209163: "InConcatenationTotalNumber",
    0x00280002: "SamplesPerPixel",
    0x00280004: "PhotometricInterpretation",
    0x00280008: "NumberOfFrames",
    0x00280010: "Rows",
    0x00280011: "Columns",
    0x00280030: "PixelSpacing",
    0x00280100: "BitsAllocated",
    0x00280101: "BitsStored",
    0x00280102: "HighBit",
    0x00280103: "PixelRepresentation",
    0x00280120: "PixelPaddingValue",
    0x00280121: "PixelPaddingRangeLimit",
    0x00280301: "BurnedInAnnotation",
    0x00281052: "RescaleIntercept",
    0x00281053: "RescaleSlope",
    0x00281054: "RescaleType",
    0x00282110: "LossyImageCompression",
    0x00283000: "ModalityLUTSequence",
    0x00409096: "RealWorldValueMappingSequence",
    0x52009230: "PerFrameFunctionalGroupsSequence",
}
_BINARY = {  # US, or US/SS by PixelRepresentation: two bytes, little endian
    "SamplesPerPixel",
    "Rows",
    "Columns",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
    "PixelPaddingValue",
    "PixelPaddingRangeLimit",
    "InConcatenationNumber",
    "InConcatenationTotalNumber",
}
_BINARY_VR = {b"", b"US", b"SS", b"UN", b"OW"}  # empty where VRs are implicit
_DECIMAL_VR = {b"", b"DS", b"IS", b"UN", b"LO", b"SH", b"ST", b"LT", b"UT", b"CS"}
_DECIMAL = {  # DS and IS
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "PixelSpacing",
    "RescaleIntercept",
    "RescaleSlope",
    "NumberOfFrames",
}
_SEQUENCES = {"ModalityLUTSequence", "PerFrameFunctionalGroupsSequence", "RealWorldValueMappingSequence"}
_PRESENT = "present"
_WANTED = np.array(sorted(TAGS), np.uint32)
PIXEL_DATA = 0x7FE00010
_FLOAT_PIXELS = (0x7FE00008, 0x7FE00009)

IMPLICIT_LITTLE = "1.2.840.10008.1.2"
EXPLICIT_LITTLE = "1.2.840.10008.1.2.1"
BIG_ENDIAN = "1.2.840.10008.1.2.2"
BY_PYDICOM = (BIG_ENDIAN, DEFLATED)
"""Transfer syntaxes whose elements pydicom reads."""
_ENCODINGS: dict[Any, str] = {  # (implicit VR, little endian), where a file does not name its transfer syntax
    (True, True): IMPLICIT_LITTLE,
    (False, True): EXPLICIT_LITTLE,
    (False, False): BIG_ENDIAN,
}
_REMEMBERED = 4096
"""Values whose text is kept: most elements of a series say the same in every file."""
_APPLE_DOUBLE = b"\x00\x05\x16\x07"  # what macOS leaves beside files on foreign disks, named like them


@dataclass(frozen=True)
class Header:
    """Some elements of one DICOM file.

    Attributes
    ----------
    path : Path
    transfer_syntax : str
        UID.
    values : mapping of str to str or int
        By keyword, of the elements in `TAGS` that are present: text stripped of padding, values joined by a
        backslash; for sequences the text `present`.
    pixels : (int, int) or None
        Offset and length in bytes of PixelData in the file; length −1 when encapsulated, and offset −1 when pydicom
        has to find it. None when there is none.
    """

    path: Path
    transfer_syntax: str
    values: Mapping[str, Any]
    pixels: tuple[int, int] | None

    def text(self, keyword: str) -> str:
        """An element's text; empty when it is absent."""
        return str(self.values.get(keyword, ""))

    def number(self, keyword: str) -> int | None:
        """A whole number; None when it is absent or empty."""
        value = self.values.get(keyword, "")
        try:
            return value if isinstance(value, int) else whole(value) if value else None
        except ValueError:
            raise InputError(
                f"{keyword} {value!r} is not a whole number", "mend or re-export the file", self.path
            ) from None

    def numbers(self, keyword: str, count: int) -> tuple[float, ...] | None:
        """`count` decimal numbers; None when the element is absent or empty.

        Raises
        ------
        InputError
            When they are not so many finite numbers.
        """
        text = self.text(keyword)
        return finite(keyword, text, count, self.path) if text else None


def finite(keyword: str, text: str, count: int, path: Path) -> tuple[float, ...]:
    """`count` finite decimal numbers; an InputError when the text is not that."""
    values = _decimals(text)
    if len(values) != count:
        raise InputError(f"{keyword} {text!r} is not {count} finite number(s)", "mend or re-export the file", path)
    return values


@lru_cache(_REMEMBERED)
def _decimals(text: str) -> tuple[float, ...]:
    """Finite numbers joined by backslashes; none where one of them is none."""
    try:
        values = tuple(decimal(part) for part in text.split("\\"))
    except ValueError:
        return ()
    return values if all(map(math.isfinite, values)) else ()


def read_header(path: Path) -> Header | None:
    """Read the header of a DICOM file.

    Returns
    -------
    Header or None
        None when the file is not DICOM.

    Raises
    ------
    InputError
        When the file cannot be read, is cut off, or is named `.dcm` and is not DICOM.
    """
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            start = os.pread(file.fileno(), FIRST_READ, 0)
            if start[128:132] == b"DICM":
                return _by_elements(ElementReader(path, file.fileno(), size, start)) or _by_pydicom(path)
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror})", "mend the file's permissions or disk", path) from error
    if size == 0 and path.suffix.lower() in (".dcm", ".dicom", ".ima"):
        raise InputError("zero bytes", "copy the series again", path)
    if start[:4] == _APPLE_DOUBLE:
        return None
    if start[:2] in (b"\x08\x00", b"\x02\x00") or (path.suffix.lower() in (".dcm", ".dicom", ".ima")):
        header = _by_pydicom(path)
        if header is None or "SOPClassUID" not in header.values:
            raise InputError("not readable as DICOM", "copy the file again, or take it out of the folder", path)
        return header
    return None


def _by_elements(reader: ElementReader) -> Header | None:
    """The header by a pass over the file; None when its transfer syntax asks for more than that."""
    position, syntax = reader.meta()
    if syntax in BY_PYDICOM or not syntax:
        return None
    _refuse_unknown_syntax(syntax, reader.path)
    explicit = reader.is_explicit(position, said=syntax != IMPLICIT_LITTLE)
    values: dict[str, Any] = {}
    while True:
        found, position = reader.run(position, explicit, _WANTED, (0, PIXEL_DATA - 0x10))
        for tag, vr, raw in found:
            _keep(values, TAGS[tag], vr, raw, reader.path)
        if position + 8 > reader.size:
            return Header(reader.path, syntax, values, None)
        tag, vr, length, body = reader.element(position, explicit)
        if tag == PIXEL_DATA or tag in _FLOAT_PIXELS:
            pixels = _pixels(reader, tag, length, body)
            if again := _said_again(reader, reader.skip(body, length, False), explicit):
                found_twice = f"{TAGS.get(again, 'PixelData')} is there twice"
                raise InputError(found_twice, "copy or re-export the file", reader.path)
            return Header(reader.path, syntax, values, pixels)
        position = reader.skip(body, length, explicit and vr != b"UN")
        if keyword := TAGS.get(tag):
            value = b"" if keyword in _SEQUENCES else None if length == UNDEFINED else reader.at(body, length)
            _keep(values, keyword, vr, value, reader.path)


def _keep(values: dict[str, Any], keyword: str, vr: bytes, raw: bytes | None, path: Path) -> None:
    """Add an element's value, of which there is one, with a length."""
    if keyword in values or raw is None:
        found = f"{keyword} is {'there twice' if keyword in values else 'garbled'}"
        raise InputError(found, "copy or re-export the file", path)
    values[keyword] = _value(keyword, vr, raw)


def _refuse_unknown_syntax(syntax: str, path: Path) -> None:
    """Refuse what is written in a way that nobody here knows, such as a vendor's own, before anything is parsed."""
    if syntax in (IMPLICIT_LITTLE, EXPLICIT_LITTLE):
        return
    uid = uid_of(syntax)
    if not (uid.is_transfer_syntax and not uid.is_private):
        found = f"its transfer syntax {syntax!r} is none of DICOM's: a vendor's own, or damaged"
        raise InputError(found, "export it in a standard transfer syntax, or take it out", path, kind="syntax")


def _pixels(reader: ElementReader, tag: int, length: int, body: int) -> tuple[int, int]:
    if tag != PIXEL_DATA:
        raise InputError("floating-point pixel data is not CT", "give the original series", reader.path)
    if length != UNDEFINED:
        if body + length > reader.size:
            found = f"pixel data is cut off: {reader.size - body} of {length} bytes"
            raise InputError(found, "copy the file again", reader.path)
        return body, length
    return body, -1


def _said_again(reader: ElementReader, position: int, explicit: bool) -> int | None:
    """The tag of a wanted element behind the pixels, where a second page would lie."""
    with contextlib.suppress(InputError):  # what else follows is nobody's business: padding, signatures, garbage
        while position + 8 <= reader.size:
            tag, vr, length, body = reader.element(position, explicit)
            if tag in TAGS or tag == PIXEL_DATA:
                return tag
            if tag < PIXEL_DATA:  # elements ascend, so this is none: zeros, say
                return None
            position = reader.skip(body, length, explicit and vr != b"UN")
    return None


def _by_pydicom(path: Path) -> Header | None:
    dataset = read_dataset(path, force=True)
    values: dict[str, Any] = {}
    try:
        for tag, keyword in TAGS.items():
            if tag in dataset:
                values[keyword] = _PRESENT if keyword in _SEQUENCES else raw_value(keyword, dataset.get_item(tag))
        syntax = str(dataset.file_meta.get("TransferSyntaxUID", "")) or _ENCODINGS[dataset.original_encoding]
    except Exception as error:  # pydicom parses values late, and raises whatever it meets
        found = f"not readable as DICOM ({type(error).__name__})"
        raise InputError(found, "copy the file again from its source", path) from error
    return Header(path, syntax, values, (-1, -1) if PIXEL_DATA in dataset else None)


def raw_value(keyword: str, element: Any) -> str | int:
    """What the walk would give for an element that pydicom has found and not yet parsed."""
    if not isinstance(element.value or b"", bytes):
        return f"of VR {element.VR}"
    order: Literal["little", "big"] = "little" if element.is_little_endian else "big"
    return _value(keyword, (element.VR or "").encode(), element.value or b"", order)


@lru_cache(_REMEMBERED)
def _value(keyword: str, vr: bytes, raw: bytes, order: Literal["little", "big"] = "little") -> str | int:
    """An element's value; of a number that is of another kind than it should be, a text that is none."""
    if (keyword in _BINARY and vr not in _BINARY_VR) or (keyword in _DECIMAL and vr not in _DECIMAL_VR):
        return f"of VR {vr.decode()}"
    if keyword in _SEQUENCES:
        return _PRESENT
    if keyword in _BINARY:
        return int.from_bytes(raw, order) if len(raw) == 2 else f"of {len(raw)} bytes" if raw else ""
    if keyword in _DECIMAL:  # their padding is at most one NUL: more have overwritten digits
        return raw.decode("latin-1").removesuffix("\0").strip(" ")
    return _text(raw)


def _text(raw: bytes) -> str:
    try:
        return raw.decode("utf-8").strip(" \0")
    except UnicodeDecodeError:
        return raw.decode("latin-1").strip(" \0")
