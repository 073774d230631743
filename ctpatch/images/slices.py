"""One CT slice: what its header must say, and its stored values as HU."""

from __future__ import annotations

import os
import re
import struct
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..dataset import read_dataset
from ..errors import InputError
from .header import EXPLICIT_LITTLE, IMPLICIT_LITTLE, NOT_WALKED, Header
from .image import clean_hu

MAX_PIXELS = 2**26
"""Rows × columns beyond which an image is a decompression bomb, not a CT slice."""
DECODERS = {  # pinned, so that a file reads the same on every machine
    "1.2.840.10008.1.2.5": "pydicom",
    "1.2.840.10008.1.2.4.80": "pyjpegls",
    "1.2.840.10008.1.2.4.81": "pyjpegls",
    **dict.fromkeys((f"1.2.840.10008.1.2.4.{n}" for n in (50, 51, 57, 70)), "gdcm"),
    **dict.fromkeys((f"1.2.840.10008.1.2.4.{n}" for n in (90, 91, 201, 202, 203)), "pylibjpeg"),
}
_RAW = (IMPLICIT_LITTLE, EXPLICIT_LITTLE)
_SURPLUS = re.compile(r"RLE segment .*?([0-9]+) vs\. ([0-9]+) bytes")
LOSSY = tuple(f"1.2.840.10008.1.2.4.{n}" for n in (50, 51, 81, 91, 203))


@dataclass(frozen=True)
class StoredFormat:
    """How a stored value lies in its container (PS3.5 section 8.1.1)."""

    allocated: int
    stored: int
    high: int
    signed: bool

    def values(self, container: NDArray[Any]) -> NDArray[Any]:
        """Stored values of containers: bits outside BitsStored (overlays, no sign extension) do not count."""
        if self.stored == self.allocated:
            return container.view(f"i{container.itemsize}") if self.signed else container
        bits = (container.astype(np.int64) >> (self.high + 1 - self.stored)) & ((1 << self.stored) - 1)
        return bits - ((bits >> (self.stored - 1)) << self.stored) if self.signed else bits


@dataclass(frozen=True)
class Slice:
    """A slice as its header describes it; the pixels stay in the file.

    Attributes
    ----------
    position, orientation : tuple of float
        ImagePositionPatient (mm) and ImageOrientationPatient.
    spacing : (float, float)
        PixelSpacing: between rows, between columns, mm.
    padding : (int, int) or None
        Lowest and highest stored value declared as padding.
    frame : int
        Which frame of the file.
    """

    header: Header
    position: tuple[float, ...]
    orientation: tuple[float, ...]
    spacing: tuple[float, ...]
    shape: tuple[int, int]
    format: StoredFormat
    slope: float
    intercept: float
    padding: tuple[int, int] | None
    frame: int = 0

    @property
    def path(self) -> Path:
        """The file it is in."""
        return self.header.path

    def read_hu(self, rows: tuple[int, int], columns: tuple[int, int]) -> NDArray[np.float32]:
        """HU of a window of the slice, (rows, columns) float32."""
        stored = self.format.values(self._containers(rows)[:, slice(*columns)])
        padding = (stored >= self.padding[0]) & (stored <= self.padding[1]) if self.padding else None
        return clean_hu(stored.astype(np.float64) * self.slope + self.intercept, padding)

    def _containers(self, rows: tuple[int, int]) -> NDArray[Any]:
        size = self.format.allocated // 8
        if self.header.transfer_syntax not in _RAW or self.header.pixels == (-1, -1):
            return self._decoded()[slice(*rows)]
        assert self.header.pixels is not None
        stride = self.shape[1] * size
        start = self.header.pixels[0] + (self.frame * self.shape[0] + rows[0]) * stride
        count = (rows[1] - rows[0]) * stride
        with open(self.path, "rb") as file:
            raw = os.pread(file.fileno(), count, start)
        if len(raw) != count:
            raise InputError("pixel data is cut off", "copy the file again", self.path)
        return np.frombuffer(raw, f"<u{size}").reshape(-1, self.shape[1])

    def _decoded(self) -> NDArray[Any]:
        from pydicom.encaps import get_frame
        from pydicom.pixels.utils import pixel_array
        from pydicom.uid import UID

        dataset = read_dataset(self.path, force=True)
        dataset.file_meta.TransferSyntaxUID = UID(self.header.transfer_syntax)
        plugin = DECODERS.get(self.header.transfer_syntax, "")
        try:
            with warnings.catch_warnings(record=True) as told:
                warnings.simplefilter("always")
                if plugin:
                    frames = self.header.number("NumberOfFrames") or 1
                    check_coded(get_frame(dataset.PixelData, self.frame, number_of_frames=frames), self.shape)
                decoded = pixel_array(dataset, index=self.frame, raw=True, decoding_plugin=plugin)
            _refuse_surplus([str(warning.message) for warning in told])
        except InputError as error:
            raise error.at(where=self.path) from None
        except Exception as error:  # decoders raise what they like
            found = f"pixel data cannot be decoded ({type(error).__name__}: {error})"
            raise InputError(found, "copy or re-export the file", self.path) from error
        if decoded.shape != self.shape:
            found = f"pixel data is {decoded.shape}, the header says {self.shape}"
            raise InputError(found, "re-export the file", self.path)
        return decoded.astype(f"<i{self.format.allocated // 8}").view(f"<u{self.format.allocated // 8}")


def check_coded(stream: bytes, shape: tuple[int, int]) -> None:
    """Refuse a coded frame that says itself to be of another size, or coloured, before it is decoded.

    Decoders make room for what the stream says, and hand out a run of pixels, which would be cut into rows of whatever
    length the DICOM header says.
    """
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


def read_slice(header: Header) -> Slice:
    """A single-frame image's slice, everything needed checked.

    Raises
    ------
    InputError
        When an element is missing or wrong; never a default for something that moves a voxel or changes a HU.
    """
    if (frames := header.number("NumberOfFrames") or 1) != 1:
        found = f"{frames} frames in one CT image, which do not say where each lies"
        raise InputError(found, "export the series as single-frame or Enhanced CT images", header.path)
    need = _needs(header)
    return Slice(
        header,
        position=need("ImagePositionPatient", 3),
        orientation=need("ImageOrientationPatient", 6),
        spacing=positive(header, "PixelSpacing", need("PixelSpacing", 2)),
        shape=image_shape(header),
        format=stored_format(header),
        slope=rescale_slope(header, need("RescaleSlope", 1)[0], header.text("RescaleType")),
        intercept=need("RescaleIntercept", 1)[0],
        padding=padding_range(header),
    )


def _needs(header: Header) -> Callable[[str, int], tuple[float, ...]]:
    def need(keyword: str, count: int) -> tuple[float, ...]:
        values = header.numbers(keyword, count)
        if values is None:
            raise InputError(f"{keyword} is missing", "export the series again from its source", header.path)
        return values

    return need


def positive(header: Header, keyword: str, values: tuple[float, ...]) -> tuple[float, ...]:
    """`values`, refused unless all are above zero."""
    if min(values) <= 0:
        raise InputError(f"{keyword} {values} is not positive", "export the series again", header.path)
    return values


def rescale_slope(header: Header, slope: float, kind: str) -> float:
    """RescaleSlope, refused when it or the RescaleType cannot give HU."""
    if slope == 0:
        raise InputError("RescaleSlope is 0", "export the series again from its source", header.path)
    if kind.upper() not in ("", "HU", "HU_MOD", "US") and not kind.upper().startswith("HOUNSFIELD"):
        raise InputError(f"RescaleType is {kind!r}, not HU", "give the series in HU", header.path)
    return slope


def image_shape(header: Header) -> tuple[int, int]:
    """Rows, columns."""
    rows, columns = header.number("Rows"), header.number("Columns")
    if not rows or not columns:
        raise InputError("Rows or Columns is missing", "export the series again", header.path)
    if rows * columns > MAX_PIXELS:
        raise InputError(f"{rows} × {columns} pixels is no CT slice", "take the file out", header.path)
    return rows, columns


def stored_format(header: Header) -> StoredFormat:
    """Bits allocated, stored, high bit and sign; with PixelData there, grey and as long as it must be."""
    if header.pixels is None:
        raise InputError("there is no pixel data", "copy the series again", header.path)
    photometric, samples = header.text("PhotometricInterpretation"), header.number("SamplesPerPixel")
    if photometric not in ("MONOCHROME1", "MONOCHROME2") or samples not in (None, 1):
        found = f"PhotometricInterpretation is {photometric!r} with {samples} sample(s) per pixel, not grey"
        raise InputError(found, "give the original series", header.path)
    if "ModalityLUTSequence" in header.values:
        raise InputError("a Modality LUT instead of a rescale", "give the series in HU", header.path)
    if header.text("BurnedInAnnotation").upper() == "YES":
        raise InputError("BurnedInAnnotation is YES", "give the series without burned-in text", header.path)
    allocated, stored = header.number("BitsAllocated"), header.number("BitsStored")
    high = header.number("HighBit")
    sign = header.number("PixelRepresentation")
    if allocated not in (8, 16, 32) or not stored or sign not in (0, 1):
        found = f"BitsAllocated {allocated}, BitsStored {stored}, PixelRepresentation {sign}"
        raise InputError(found, "export the series again", header.path)
    high = stored - 1 if high is None else high
    if not stored <= high + 1 <= allocated:
        found = f"BitsAllocated {allocated}, BitsStored {stored}, HighBit {high}"
        raise InputError(found, "export the series again", header.path)
    _check_length(header, allocated)
    return StoredFormat(allocated, stored, high, sign == 1)


def _check_length(header: Header, allocated: int) -> None:
    assert header.pixels is not None
    syntax = header.transfer_syntax
    if syntax not in _RAW:
        _check_decoder(header)
    elif header.pixels[0] >= 0:
        rows, columns = image_shape(header)
        wanted, length = rows * columns * (header.number("NumberOfFrames") or 1) * allocated // 8, header.pixels[1]
        if not wanted <= length <= wanted + 1:
            found = f"pixel data has {length} bytes where {rows} × {columns} pixels need {wanted}"
            raise InputError(found, "copy or re-export the file", header.path)


def _check_decoder(header: Header) -> None:
    from pydicom.config import IGNORE
    from pydicom.pixels.decoders.base import get_decoder
    from pydicom.uid import UID

    syntax = header.transfer_syntax
    if syntax in NOT_WALKED:
        return
    plugin, uid = DECODERS.get(syntax), UID(syntax, validation_mode=IGNORE)
    if plugin is None or plugin not in get_decoder(uid).available_plugins:
        extra = {"gdcm": "python-gdcm", "pylibjpeg": "pylibjpeg-openjpeg"}.get(plugin or "", plugin)
        do = f"pip install {extra}" if extra else "convert it to an uncompressed transfer syntax"
        raise InputError(f"no decoder for transfer syntax {uid.name} ({syntax})", do, header.path)


def padding_range(header: Header) -> tuple[int, int] | None:
    """Lowest and highest stored value declared as padding, signed as the pixels are (PS3.3 C.7.5.1.1.2)."""
    value = header.number("PixelPaddingValue")
    if value is None:
        return None
    limit = header.number("PixelPaddingRangeLimit")
    pair = np.array([value, value if limit is None else limit]) & 0xFFFF
    if header.number("PixelRepresentation") == 1:
        pair = pair.astype(np.uint16).view(np.int16)
    return int(pair.min()), int(pair.max())
