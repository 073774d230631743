"""Pixel data: frames of native values, and what cannot be read where it lies: compressed, deflated or big endian.

The decoders are C libraries, and garbage can end the process they run in, so that is a process of its own.
"""

from __future__ import annotations

import os
import re
import struct
import threading
import warnings
from collections.abc import Sequence
from functools import cache
from multiprocessing.util import Finalize
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError, Unfinished
from ..processes import OwnProcess, WorkerDied
from .dataset import read_dataset, uid_of
from .header import BY_PYDICOM

DECODERS = {  # pinned, so that a file reads the same on every machine
    "1.2.840.10008.1.2.5": "pydicom",
    "1.2.840.10008.1.2.4.80": "pyjpegls",
    "1.2.840.10008.1.2.4.81": "pyjpegls",
    **dict.fromkeys((f"1.2.840.10008.1.2.4.{n}" for n in (50, 51, 57, 70)), "gdcm"),
    **dict.fromkeys((f"1.2.840.10008.1.2.4.{n}" for n in (90, 91, 201, 202, 203)), "pylibjpeg"),
}
LOSSY = tuple(f"1.2.840.10008.1.2.4.{n}" for n in (50, 51, 81, 91, 203))
_TRIES = 2
_BY_WARNINGS = threading.Lock()  # what is recorded is told by warnings of the whole process, not of a thread
_SURPLUS = re.compile(r"RLE segment .*?([0-9]+) vs\. ([0-9]+) bytes")


def native_frame(pixels: bytes, bits: int, shape: tuple[int, int], frame: int = 0) -> NDArray[Any]:
    """One frame of little-endian values as they lie in a file, (rows, columns); those of one bit are packed.

    pydicom 3.0.2 fails on a packed frame that begins or ends within a byte, unless it unpacks all at once.
    """
    size = shape[0] * shape[1] * bits
    first, stop = frame * size, (frame + 1) * size
    piece = np.frombuffer(pixels, np.uint8)[first // 8 : (stop + 7) // 8]
    if bits > 1:
        return piece.view(f"<u{bits // 8}").reshape(shape)
    return np.unpackbits(piece, bitorder="little")[first % 8 :][:size].reshape(shape)


def decode(path: Path, syntax: str, shape: tuple[int, int], frames: Sequence[int]) -> list[NDArray[Any]]:
    """Some frames of a file, as they are stored: bits beyond those of a value are not touched.

    Parameters
    ----------
    path : Path
    syntax : str
        Transfer syntax UID.
    shape : (int, int)
        Rows, columns.
    frames : sequence of int
        Which, from 0.

    Returns
    -------
    list of arrays, shape (rows, columns)

    Raises
    ------
    InputError
        When they cannot be decoded, or are of another shape.
    Unfinished
        When the decoder was ended from outside, twice: of what is short of memory a file is not to blame.
    """
    if DECODERS.get(syntax, "pydicom") == "pydicom":
        with _BY_WARNINGS:
            return _decode(path, syntax, shape, frames)
    decoder = _decoder(os.getpid(), threading.get_ident())
    for _ in range(_TRIES):
        try:
            decoded: list[NDArray[Any]] = decoder(_decode, path, syntax, shape, frames)
            return decoded
        except WorkerDied as error:
            death = error
            if death.crashed:
                found = f"pixel data cannot be decoded (the decoder was {death})"
                raise InputError(found, "copy or re-export the file", path) from None
    raise Unfinished(f"the decoder was {death} each time: out of memory?", "use fewer --jobs, or more memory", path)


def refuse_unknown(syntax: str, path: Path) -> None:
    """Raise InputError unless there is a decoder for a transfer syntax."""
    from pydicom.pixels.decoders.base import get_decoder

    if syntax in BY_PYDICOM:
        return
    plugin, uid = DECODERS.get(syntax), uid_of(syntax)
    if plugin is None or plugin not in get_decoder(uid).available_plugins:
        extra = {"gdcm": "python-gdcm", "pylibjpeg": "pylibjpeg-openjpeg"}.get(plugin or "", plugin)
        do = f"pip install {extra}" if extra else "convert it to an uncompressed transfer syntax"
        raise InputError(f"no decoder for transfer syntax {uid.name} ({syntax})", do, path)


@cache
def _decoder(pid: int, thread: int) -> OwnProcess:
    """Each process has its own, for a fork must not ask its parent's; and each thread: a crash is its own file's."""
    process = OwnProcess(quiet=True)
    Finalize(None, process.close, exitpriority=100)  # a child of multiprocessing has no atexit, and waits for its own
    return process


def _decode(path: Path, syntax: str, shape: tuple[int, int], frames: Sequence[int]) -> list[NDArray[Any]]:
    from pydicom.pixels.utils import iter_pixels

    dataset = read_dataset(path, force=True)
    dataset.file_meta.TransferSyntaxUID = uid_of(syntax)
    plugin = DECODERS.get(syntax, "")
    try:
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            # else pydicom and gdcm keep the lowest bits, as many as are stored, wherever those are
            dataset.BitsStored, dataset.HighBit = dataset.BitsAllocated, dataset.BitsAllocated - 1
            if plugin:
                _check_coded(dataset, shape, frames)
            pixels = iter_pixels(dataset, indices=list(frames), raw=True, decoding_plugin=plugin)
            decoded = [np.array(frame) for frame in pixels]
        _refuse_surplus([str(warning.message) for warning in told])
    except InputError as error:
        raise error.at(where=path) from None
    except Exception as error:  # decoders raise what they like
        found = f"pixel data cannot be decoded ({type(error).__name__}: {error})"
        raise InputError(found, "copy or re-export the file", path) from error
    for frame in decoded:
        if frame.shape != shape:
            found = f"pixel data is {frame.shape}, the header says {shape}"
            raise InputError(found, "re-export the file", path)
    return decoded


def _check_coded(dataset: Any, shape: tuple[int, int], frames: Sequence[int]) -> None:
    """Refuse coded frames that say themselves to be of another size, or coloured, before they are decoded.

    Decoders make room for what the stream says, and hand out a run of pixels, which would be cut into rows of whatever
    length the DICOM header says.
    """
    from pydicom.encaps import get_frame

    for frame in frames:
        stream = get_frame(dataset.PixelData, frame, number_of_frames=int(dataset.get("NumberOfFrames") or 1))
        rows, columns, samples = _coded_size(stream) or (*shape, 1)
        if (rows, columns) != shape:
            raise InputError(f"pixel data is {(rows, columns)}, the header says {shape}", "re-export the file")
        if samples != 1:
            raise InputError(f"pixel data has {samples} samples per pixel, not 1", "re-export the file")


def _refuse_surplus(told: list[str]) -> None:
    """Refuse what pydicom's RLE decoder cuts off with a warning, but for a byte that makes the length even."""
    for line in told:
        counts = _SURPLUS.search(line)
        if counts and int(counts[1]) > int(counts[2]) + 1:
            found = f"an RLE segment decodes to {counts[1]} bytes where {counts[2]} are needed"
            raise InputError(found, "copy or re-export the file")


def _coded_size(stream: bytes) -> tuple[int, int, int] | None:
    """Rows, columns and samples as a JPEG 2000, JPEG or JPEG-LS stream says; None without such a word (RLE)."""
    if stream[:2] == b"\xff\x4f" or stream[4:8] == b"jP  ":  # ISO 15444-1, A.5.1 and I.5.1
        siz = stream.index(b"\xff\x4f\xff\x51") + 8
        right, bottom, left, top = struct.unpack(">4I", stream[siz : siz + 16])
        return bottom - top, right - left, int.from_bytes(stream[siz + 32 : siz + 34], "big")
    at = 2 if stream[:2] == b"\xff\xd8" else len(stream)
    while at + 10 <= len(stream):
        marker, length, _, rows, columns, samples = struct.unpack(">HHBHHB", stream[at : at + 10])
        if marker == 0xFFF7 or (0xFFC0 <= marker <= 0xFFCF and marker not in (0xFFC4, 0xFFC8, 0xFFCC)):
            return rows, columns, samples
        at += 2 + length
    return None
