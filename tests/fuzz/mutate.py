"""Files as damage, careless programs and malice leave them: changes of bytes, DICOM elements, text and XML.

Every mutator takes the bytes of a file and a `random.Random` and gives other bytes, the same ones for the same state.
"""

from __future__ import annotations

import contextlib
import io
import random
import re
import struct
import warnings
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Sequence

import pydicom
from pydicom.datadict import dictionary_has_tag, dictionary_VR
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import Tag

Mutator = Callable[[bytes, random.Random], bytes]

NUMBERS = (
    b"0", b"-0", b"1", b"-1", b"2", b"0.5", b"1e-7", b"1e-320", b"1e38", b"1e400", b"-1e400", b"nan", b"inf", b"1_0",
    b"0x10", b"1,5", b"1.", b".5", b"+3", b"007", b"65535", b"65536", b"2147483648", b"4294967295", b"9" * 40,
    "１２".encode(), "²".encode(), "٣".encode(), b"1 2", b"--1", b"1e", b"",
)  # fmt: skip
WORDS = (
    b"", b" ", b"\0", b"\\", b"\\\\", b"'", b'"', b"\n", b"\r\n", b"\x1b[31m", b"\xff\xfe", b"\xef\xbb\xbf", b"\xc3",
    b"=1+1",
    b"YES", b"US", b"HU", b"LOCALIZER", b"POINT", b"OPEN_PLANAR", b"CLOSEDPLANAR_XOR", b"MONOCHROME1", b"RGB",
    b"RTDOSE",
    b"1.2.840.10008.5.1.4.1.1.2", b"1.2.840.10008.5.1.4.1.1.2.1", b"1.2.840.10008.5.1.4.1.1.66.4", b"1.2.840.10008.1.2",
    b"1.2.840.10008.1.2.2", b"1.2.840.10008.1.2.1.99", b"1.2.840.10008.1.2.5", b"1.2.840.10008.1.2.4.90", b"1.2.3",
    b"../../x", b"A" * 70, b"\xe2\x80\xa8", "e\u0301".encode(), b"ISO_IR 192", b"\x1b$B",
)  # fmt: skip
_VRS = (
    "AE",
    "AS",
    "AT",
    "CS",
    "DA",
    "DS",
    "FD",
    "FL",
    "IS",
    "LO",
    "OB",
    "OW",
    "SH",
    "SL",
    "SQ",
    "SS",
    "UI",
    "UL",
    "UN",
)
_VRS += ("UC", "UR", "US", "UT", "UV", "??", "\0\0", "OX")
_NUMBER = re.compile(rb"[+-]?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")


def several(mutators: Sequence[Mutator], data: bytes, rng: random.Random) -> bytes:
    """One to four changes, most often one."""
    for _ in range(rng.choice((1, 1, 1, 2, 2, 3, 4))):
        data = rng.choice(mutators)(data, rng)
    return data


def any_bytes(data: bytes, rng: random.Random, where: Sequence[int] = ()) -> bytes:
    """Bits flipped, bytes set, cut out, repeated, moved or put in; `where` names positions to prefer."""
    changed = bytearray(data)
    at = rng.choice(where) if where and rng.random() < 0.8 else rng.randrange(len(data) + 1)
    length = rng.choice((1, 1, 2, 4, 8, rng.randrange(1, 65), rng.randrange(1, max(2, len(data)))))
    kind = rng.randrange(9)
    if kind <= 1 and at < len(data):
        changed[at] ^= 1 << rng.randrange(8)
    elif kind == 2:
        changed[at : at + 1] = bytes((rng.choice((0, 1, 0x20, 0x7F, 0x80, 0xFF, rng.randrange(256))),))
    elif kind == 3:
        del changed[at : at + length]
    elif kind == 4:
        del changed[at:]
    elif kind == 5:
        changed[at:at] = data[at : at + length]
    elif kind == 6:
        start = rng.randrange(len(data) + 1)
        piece = data[start : start + length]
        changed[at : at + len(piece)] = piece
    elif kind == 7:
        word = rng.choice(NUMBERS + WORDS)
        changed[at : at + rng.choice((0, len(word)))] = word
    else:
        value = rng.choice((0, 1, -1, 2**15, 2**16 - 1, 2**31 - 1, 2**32 - 1, 2**63 - 1, rng.randrange(2**64)))
        packed = struct.pack(rng.choice("<>") + "Q", value % 2**64)
        packed = packed[: rng.choice((1, 2, 4, 8))] if rng.random() < 0.5 else packed[-rng.choice((1, 2, 4, 8)) :]
        changed[at : at + len(packed)] = packed
    return bytes(changed)


def number(data: bytes, rng: random.Random) -> bytes:
    """One decimal number of a text replaced by an odd one, or by one close to it."""
    found = list(_NUMBER.finditer(data))
    if not found:
        return any_bytes(data, rng)
    match = rng.choice(found)
    return data[: match.start()] + _other_number(match[0], rng) + data[match.end() :]


def _other_number(text: bytes, rng: random.Random) -> bytes:
    if rng.random() < 0.4:
        return rng.choice(NUMBERS)
    value = float(text[:300])
    moved = rng.choice((-value, value * 10, value * (1 + 1e-4), value + rng.choice((1, -1, 0.5, 1e-3, -1e-6, 1e5))))
    return (f"{moved:.10g}" if rng.random() < 0.7 else str(round(max(min(moved, 1e15), -1e15)))).encode()


def lines(data: bytes, rng: random.Random) -> bytes:
    """Lines of a text left out, repeated, swapped or joined."""
    parts = data.split(b"\n")
    i, j = rng.randrange(len(parts)), rng.randrange(len(parts))
    kind = rng.randrange(4)
    if kind == 0:
        del parts[i]
    elif kind == 1:
        parts.insert(j, parts[i])
    elif kind == 2:
        parts[i], parts[j] = parts[j], parts[i]
    else:
        parts[i : i + 2] = [b"".join(parts[i : i + 2])]
    return b"\n".join(parts)


def cells(data: bytes, rng: random.Random) -> bytes:
    """One cell of a table replaced, by an odd word or by another cell."""
    parts = re.split(rb"([,;\t\r\n]+)", data)
    i, j = rng.randrange(len(parts)), rng.randrange(len(parts))
    words = NUMBERS + WORDS + (b"train", b"test", b"Val", b"2-Mar", b"NA", b"gap", b"overlap=xor", b"1 2 3", b'"a"')
    parts[i] = rng.choice(
        (rng.choice(words), parts[j], b'"%s"' % parts[i], b" %s\xc2\xa0" % parts[i], parts[i].upper())
    )
    return b"".join(parts)


def xml(data: bytes, rng: random.Random) -> bytes:
    """One element of an XML document left out, repeated, moved, renamed or filled with something else."""
    try:
        root = ElementTree.fromstring(data)
    except (ElementTree.ParseError, ValueError, LookupError):
        return any_bytes(data, rng)
    parents = [element for element in root.iter() if len(element)]
    every = list(root.iter())
    if not parents:
        return any_bytes(data, rng)
    parent, element = rng.choice(parents), rng.choice(every)
    child, kind = rng.choice(list(parent)), rng.randrange(6)
    if kind == 0:
        parent.remove(child)
    elif kind == 1:
        parent.append(child)
    elif kind == 2 and element not in set(child.iter()):
        element.append(child)
    elif kind == 3:
        element.tag = rng.choice(every).tag
    elif kind == 4:
        element.text = rng.choice(every).text
    else:
        word = _other_number((element.text or "1").encode(), rng) if _is_number(element.text) else rng.choice(WORDS)
        element.text = re.sub(r"[^\x20-\x7e\u00a0-\ud7ff]", "", word.decode("latin-1"))
    return ElementTree.tostring(root)


def _is_number(text: str | None) -> bool:
    return bool(_NUMBER.fullmatch((text or "").strip().encode()))


def dicom(data: bytes, rng: random.Random) -> bytes:
    """One DICOM element, at any depth, changed in its value, VR or length, left out, repeated or put elsewhere."""
    with warnings.catch_warnings(), contextlib.suppress(Exception):  # what pydicom cannot parse is changed as bytes
        warnings.simplefilter("ignore")
        dataset = pydicom.dcmread(io.BytesIO(data), force=True)
        inner = _inner(dataset if rng.random() < 0.95 else dataset.file_meta, rng)
        tags = list(inner.keys())
        tag, other = rng.choice(tags), rng.choice(tags)
        _change(inner, tag, other, rng)
        out = io.BytesIO()
        dataset.save_as(out, enforce_file_format=False)
        return out.getvalue()
    return any_bytes(data, rng)


def _inner(dataset: Dataset, rng: random.Random) -> Dataset:
    """The data set itself, or an item somewhere within it."""
    while True:
        tags = [tag for tag in dataset.keys() if _is_sequence(dataset, tag) and dataset[tag].value]  # noqa: SIM118
        if not tags or rng.random() < 0.25:
            return dataset
        dataset = rng.choice(dataset[rng.choice(tags)].value)


def _is_sequence(dataset: Dataset, tag: int) -> bool:
    """Whether an element is a sequence; the others stay as raw as they were read."""
    vr = dataset.get_item(tag).VR
    return vr == "SQ" or (vr is None and dictionary_has_tag(tag) and dictionary_VR(tag) == "SQ")


def _change(dataset: Dataset, tag: int, other: int, rng: random.Random) -> None:
    element = dataset.get_item(tag)
    value = element.value if isinstance(element, RawDataElement) and isinstance(element.value, bytes) else None
    kind = rng.randrange(8)
    if kind == 0:
        del dataset[tag]
    elif kind == 1:
        dataset._dict[Tag(other)] = element._replace(tag=Tag(other)) if value is not None else element
    elif value is None:
        items = dataset[tag].value
        if kind <= 4 and items:
            items.append(rng.choice(items)) if rng.random() < 0.5 else items.pop(rng.randrange(len(items)))
        else:
            del dataset[tag]
    elif kind == 2:
        dataset._dict[tag] = element._replace(VR=rng.choice(_VRS))
    elif kind == 3:
        raw = struct.pack("<H", rng.choice((0, 1, 2, 7, 8, 12, 15, 16, 17, 32, 255, 256, 32768, 65535)))
        _put(dataset, tag, element, rng.choice((raw, raw * 2, raw + b"\0\0", raw[:1])))
    elif kind <= 5 and _NUMBER.search(value) and len(value) < 2**16:
        _put(dataset, tag, element, number(value, rng))
    elif kind == 6:
        parts = value.split(b"\\")
        rng.shuffle(parts)
        _put(dataset, tag, element, b"\\".join(parts[: rng.randrange(len(parts) + 1)] if rng.random() < 0.5 else parts))
    else:
        _put(dataset, tag, element, rng.choice((rng.choice(WORDS), rng.choice(NUMBERS), any_bytes(value, rng))))


def _put(dataset: Dataset, tag: int, element: RawDataElement, value: bytes) -> None:
    value += b" " * (len(value) % 2)
    dataset._dict[tag] = element._replace(value=value, length=len(value))
