"""One CT slice: what its header must say, and its stored values as HU."""

from __future__ import annotations

import os
from collections.abc import Mapping, Set
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..dicom.header import EXPLICIT_LITTLE, IMPLICIT_LITTLE, Header
from ..dicom.pixel_data import decode, native_frame, refuse_unknown
from ..errors import InputError
from .image import HU_MAX, clean_hu
from .units import LOST_INTERCEPT, check_units, has_lost_intercept, units_of

MAX_PIXELS = 2**26
"""Rows × columns beyond which an image is a decompression bomb, not a CT slice."""
TISSUE_HU, METAL_HU = (-900, 2000), 3071
"""Padding in this range, or of the HU of metal in 12 bits: whether such a pixel is the patient, nothing tells."""
NEGATIVE_SHARE = 0.1
"""Share of negative numbers from which on a slice of unsigned ones is none."""
MEASURES = ("KVP", "SliceThickness", "TriggerTime")
"""Elements that are one number, however many decimals it is written with."""
_RAW = (IMPLICIT_LITTLE, EXPLICIT_LITTLE)


@dataclass(frozen=True)
class StoredFormat:
    """How a stored value lies in its container (PS3.5 section 8.1.1)."""

    allocated: int
    stored: int
    high: int
    signed: bool

    @property
    def bounds(self) -> tuple[int, int]:
        """Lowest and highest stored value."""
        lowest = -(1 << (self.stored - 1)) if self.signed else 0
        return lowest, lowest + (1 << self.stored) - 1

    def words(self, container: NDArray[Any]) -> NDArray[Any]:
        """Containers as whole numbers, all of their bits."""
        return container.view(f"i{container.itemsize}") if self.signed else container

    def values(self, container: NDArray[Any]) -> NDArray[Any]:
        """Stored values of containers: bits outside BitsStored (overlays, no sign extension) do not count."""
        if self.stored == self.allocated:
            return self.words(container)
        bits = (container.astype(np.int64) >> (self.high + 1 - self.stored)) & ((1 << self.stored) - 1)
        return bits - ((bits >> (self.stored - 1)) << self.stored) if self.signed else bits

    def lost_sign(self, container: NDArray[Any]) -> bool:
        """Whether what is declared unsigned are signed numbers, a tenth or more negative: all bits above are the sign.

        Scripts that write an int16 array of HU into the header of an unsigned series make such.
        """
        if self.signed or self.high != self.stored - 1:
            return False
        signs = container.view(f"i{container.itemsize}") >> self.high
        return bool(np.isin(signs, (0, -1)).all() and np.mean(signs) <= -NEGATIVE_SHARE)


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
    own : mapping of str to str
        What the frame says itself, by the keyword that a single-frame image has for it.
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
    own: Mapping[str, str] = field(default_factory=dict)

    @property
    def path(self) -> Path:
        """The file it is in."""
        return self.header.path

    def told(self, keyword: str) -> str:
        """What the frame says, or else its file, of one element; empty when neither does."""
        text = self.own.get(keyword) or self.header.text(keyword)
        return plain_number(text) if keyword in MEASURES else text

    def doubt(self) -> tuple[str, str] | None:
        """Why pixels that are HU by a RescaleIntercept of 0 are none, and what to do; every second row and column."""
        containers = self._containers((0, self.shape[0]))[::2, ::2]
        beyond = self.format.stored < self.format.allocated or self.slope * 2 ** (self.format.stored - 1) > HU_MAX
        if beyond and self.format.lost_sign(containers):
            return "PixelRepresentation is 0 and the pixels are signed numbers", "set PixelRepresentation to 1"
        if has_lost_intercept(self.format.values(containers) * self.slope):
            do = "restore RescaleIntercept -1024, or put units into the column accept if it is right"
            return f"RescaleIntercept is 0 and the pixels {LOST_INTERCEPT}", do
        return None

    def same_pixels(self, other: Slice) -> bool:
        """Whether another slice has the same values in every pixel."""
        if (self.slope, self.intercept, self.shape) != (other.slope, other.intercept, other.shape):
            return False
        (a, b) = (piece.format.values(piece._containers((0, piece.shape[0]))) for piece in (self, other))
        return bool(np.array_equal(a, b))

    def read_hu(self, rows: tuple[int, int], columns: tuple[int, int]) -> NDArray[np.float32]:
        """HU of a window of the slice, (rows, columns) float32.

        Raises
        ------
        InputError
            When the pixel data is cut off, or a pixel has a declared padding value that is a tissue's.
        """
        containers = self._containers(rows)[:, slice(*columns)]
        stored = self.format.values(containers)
        hu = stored.astype(np.float64) * self.slope + self.intercept
        if self.padding is None:
            return clean_hu(hu)
        low, high = self.padding
        padding = (stored >= low) & (stored <= high)
        doubtful = hu[padding & ((hu > TISSUE_HU[0]) & (hu <= TISSUE_HU[1]) | (hu == METAL_HU))]
        if len(doubtful):
            found = (
                f"PixelPaddingValue means {doubtful[0]:g} HU, which {len(doubtful)} pixels where patches are cut have"
            )
            do = "mend the header, or put padding into the column accept to keep them as they are"
            raise InputError(found, do, self.path, kind="padding")
        if low < self.format.bounds[0] or high > self.format.bounds[1]:  # padding that BitsStored has no room for
            words = self.format.words(containers)
            padding |= (words >= low) & (words <= high)
        return clean_hu(hu, padding)

    def _containers(self, rows: tuple[int, int]) -> NDArray[Any]:
        size = self.format.allocated // 8
        if self.header.transfer_syntax not in _RAW or self.header.pixels == (-1, -1):
            (decoded,) = decode(self.path, self.header.transfer_syntax, self.shape, [self.frame])
            return decoded.astype(f"<i{size}").view(f"<u{size}")[slice(*rows)]
        assert self.header.pixels is not None
        stride = self.shape[1] * size
        start = self.header.pixels[0] + (self.frame * self.shape[0] + rows[0]) * stride
        count = (rows[1] - rows[0]) * stride
        with open(self.path, "rb") as file:
            raw = os.pread(file.fileno(), count, start)
        if len(raw) != count:
            raise InputError("pixel data is cut off", "copy the file again", self.path)
        return native_frame(raw, self.format.allocated, (rows[1] - rows[0], self.shape[1]))


@lru_cache
def plain_number(text: str) -> str:
    """A number in one way of writing it, whatever its decimals; other text as it is."""
    try:
        return f"{float(text):g}"
    except ValueError:
        return text


def read_slice(header: Header, accept: Set[str] = frozenset()) -> Slice:
    """A single-frame image's slice, everything needed checked; `accept` holds the row's words.

    Raises
    ------
    InputError
        When an element is missing or wrong; never a default for something that moves a voxel or changes a HU.
    """
    if (frames := header.number("NumberOfFrames") or 1) != 1:
        found = f"{frames} frames in one CT image, which do not say where each lies"
        raise InputError(found, "export the series as single-frame or Enhanced CT images", header.path)
    if "units" not in accept:
        check_units(header, header.text("RescaleType"), mapped=units_of(header))
    return Slice(
        header,
        position=_needed(header, "ImagePositionPatient", 3),
        orientation=_needed(header, "ImageOrientationPatient", 6),
        spacing=positive(header, "PixelSpacing", _needed(header, "PixelSpacing", 2)),
        shape=image_shape(header),
        format=stored_format(header),
        slope=rescale_slope(header, _needed(header, "RescaleSlope", 1)[0]),
        intercept=_needed(header, "RescaleIntercept", 1)[0],
        padding=None if "padding" in accept else padding_range(header),
    )


def _needed(header: Header, keyword: str, count: int) -> tuple[float, ...]:
    values = header.numbers(keyword, count)
    if values is None:
        raise InputError(f"{keyword} is missing", "export the series again from its source", header.path)
    return values


def positive(header: Header, keyword: str, values: tuple[float, ...]) -> tuple[float, ...]:
    """`values`, refused unless all are above zero."""
    if min(values) <= 0:
        raise InputError(f"{keyword} {values} is not positive", "export the series again", header.path)
    return values


def rescale_slope(header: Header, slope: float) -> float:
    """RescaleSlope, refused when it cannot give HU."""
    if slope == 0:
        raise InputError("RescaleSlope is 0", "export the series again from its source", header.path)
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
        refuse_unknown(syntax, header.path)
    elif header.pixels[0] >= 0:
        rows, columns = image_shape(header)
        wanted, length = rows * columns * (header.number("NumberOfFrames") or 1) * allocated // 8, header.pixels[1]
        if not wanted <= length <= wanted + 1:
            found = f"pixel data has {length} bytes where {rows} × {columns} pixels need {wanted}"
            raise InputError(found, "copy or re-export the file", header.path)


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
