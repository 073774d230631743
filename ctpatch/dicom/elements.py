"""A pass over the elements of a DICOM file (PS3.5 section 7) that reads no more of it than it has to."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..compiled import compiled
from ..errors import InputError

_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
UNDEFINED = 0xFFFFFFFF
_VRS = frozenset(
    b"AE AS AT CS DA DS DT FL FD IS LO LT OB OD OF OL OV OW PN SH SL SQ SS ST SV TM UC UI UL UN UR US UT UV".split()
)
_LONG_VR = {b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"}
_LONG_LETTERS = tuple(vr[0] << 8 | vr[1] for vr in sorted(_LONG_VR))
_START, _LENGTH = struct.Struct("<HH2sH"), struct.Struct("<I")
_SYNTAX = np.array([0x00020010], np.uint32)
_DEEPEST = 32
FIRST_READ = 8192
Found = tuple[int, bytes, bytes]
"""Tag, VR (empty where VRs are implicit) and value of an element."""


class ElementReader:
    """A pass over the elements of one open file; reads on only where a wanted element lies further."""

    def __init__(self, path: Path, handle: int, size: int, start: bytes):
        self.path, self.handle, self.size = path, handle, size
        self.base, self.buffer = 0, start

    def run(
        self, position: int, explicit: bool, wanted: NDArray[np.uint32], tags: tuple[int, int]
    ) -> tuple[list[Found], int]:
        """The wanted elements of a run of plain ones from `position` on, and where the next element begins.

        Plain are elements with a tag in the range `tags` and a length, wholly in what was read. All else, damage too,
        is for `element` and `skip`, which would give the same of plain ones, at many times the cost.
        """
        found = np.empty((len(wanted), 4), np.int64)
        read, base = self.buffer, self.base
        start, size = position - base, self.size - base
        count, end = _run(np.frombuffer(read, np.uint8), start, size, explicit, wanted, *tags, found)
        vr = 2 if explicit else 0
        return [(tag, read[at : at + vr], read[a:b]) for tag, at, a, b in found[:count].tolist()], base + end

    def at(self, position: int, count: int) -> bytes:
        """`count` bytes from `position` on; an `InputError` where the file is cut off."""
        start = self._reach(position, count)
        return self.buffer[start : start + count]

    def _reach(self, position: int, count: int) -> int:
        """Where in the buffer `position` lies, once `count` bytes from there on are in it."""
        start = position - self.base
        if 0 <= start <= len(self.buffer) - count:
            return start
        if position + count > self.size:
            lacking = position + count - self.size
            raise InputError(f"the file is cut off: {lacking} bytes or more are lacking", "copy it again", self.path)
        self.base, self.buffer = position, os.pread(self.handle, max(count, FIRST_READ), position)
        return 0

    def meta(self) -> tuple[int, str]:
        """Where the data set begins, and the transfer syntax."""
        found, position = self.run(132, True, _SYNTAX, (0x00020000, 0x0002FFFF))
        while position + 8 <= self.size and self.at(position, 2) == b"\x02\x00":
            tag, vr, length, body = self.element(position, True)
            if tag == _SYNTAX[0]:
                found.append((tag, vr, self.at(body, length)))
            position = body + length
        return position, found[-1][2].decode("latin-1").strip(" \0") if found else ""

    def is_explicit(self, position: int, *, said: bool) -> bool:
        """Whether elements name their VR, as the first one shows; `said` is what the file says.

        Some writers name the one transfer syntax and write the other (pydicom, GDCM and DCMTK read such files too).
        """
        if position + 8 > self.size:
            return said
        start = self.at(position, 8)
        length = _LENGTH.unpack(start[4:])[0]
        named = start[4:6] in _VRS
        fits = position + 8 + length <= self.size
        return named if named != said and (named or fits) else said

    def element(self, position: int, explicit: bool) -> tuple[int, bytes, int, int]:
        """Tag, VR, length and the value's position of the element at `position`."""
        start = self._reach(position, 8)  # which may read on
        group, number, vr, length = _START.unpack_from(self.buffer, start)
        tag = group << 16 | number
        if not explicit or group == 0xFFFE:
            return tag, b"", _LENGTH.unpack_from(self.buffer, start + 4)[0], position + 8
        if vr in _LONG_VR:
            return tag, vr, _LENGTH.unpack(self.at(position + 8, 4))[0], position + 12
        if vr not in _VRS and not (vr.isalpha() and vr.isupper()):
            raise InputError(f"element ({group:04x},{number:04x}) is garbled", "copy or re-export the file", self.path)
        return tag, vr, length, position + 8

    def skip(self, body: int, length: int, explicit: bool, depth: int = 0) -> int:
        """Where the element after this value begins."""
        if length != UNDEFINED:
            if body + length > self.size:
                lacking = body + length - self.size
                raise InputError(f"the file is cut off: {lacking} bytes are lacking", "copy it again", self.path)
            return body + length
        if depth > _DEEPEST:
            raise InputError(f"sequences are nested deeper than {_DEEPEST}", "re-export the file", self.path)
        position = body
        while True:  # an undefined length: items up to a delimiter
            tag, _, length, body = self.element(position, False)
            if tag == _SEQUENCE_END:
                return body
            if tag != _ITEM:
                raise InputError("a sequence is garbled", "copy or re-export the file", self.path)
            position = self._skip_item(body, explicit, depth) if length == UNDEFINED else body + length

    def _skip_item(self, position: int, explicit: bool, depth: int) -> int:
        while True:
            tag, vr, length, body = self.element(position, explicit)
            if tag == _ITEM_END:
                return body
            position = self.skip(body, length, explicit and vr != b"UN", depth + 1)


@compiled()
def _run(buffer, position, size, explicit, wanted, first, last, found):  # type: ignore[no-untyped-def]
    """How many wanted elements were found (tag; where VR and value begin, and the value ends), and the run's end."""
    count = 0
    while 0 <= position <= len(buffer) - 12:
        tag = _number(buffer, position, 2) << 16 | _number(buffer, position + 2, 2)
        if not first <= tag <= last or tag >> 16 == 0xFFFE:
            break
        a, b, body = np.int64(buffer[position + 4]), np.int64(buffer[position + 5]), position + 8
        if not explicit:
            length = _number(buffer, position + 4, 4)
        elif not (65 <= a <= 90 and 65 <= b <= 90):
            break
        elif (a << 8 | b) in _LONG_LETTERS:
            length, body = _number(buffer, position + 8, 4), position + 12
        else:
            length = _number(buffer, position + 6, 2)
        at = 0  # not np.searchsorted, with which numba loads scipy's BLAS
        while at < len(wanted) and wanted[at] < tag:
            at += 1
        is_wanted = at < len(wanted) and wanted[at] == tag
        if length == UNDEFINED or body + length > size:
            break
        if is_wanted:
            if body + length > len(buffer) or count == len(found):
                break
            found[count, 0], found[count, 1], found[count, 2], found[count, 3] = tag, position + 4, body, body + length
            count += 1
        position = body + length
    return count, position


@compiled(inline="always")
def _number(buffer, position, count):  # type: ignore[no-untyped-def]
    """Little-endian."""
    value = np.int64(0)
    for k in range(count):
        value |= np.int64(buffer[position + k]) << (8 * k)
    return value
