"""Targets that read DICOM CT: a series, an Enhanced CT file, the header walker."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import synthetic
from pydicom.dataset import Dataset

from ctpatch.dicom.header import TAGS, Header, read_header
from ctpatch.errors import InputError
from ctpatch.images.image import Box, Image
from ctpatch.images.series import CTSeries, read_series

from . import mutate
from .target import Target, Wrong, decimals

SHAPE, SPACING, ORIGIN = (4, 16, 18), (2.0, 1.5), (-31.5, 12.75, -405.25)
DICOM = (mutate.dicom, mutate.dicom, mutate.any_bytes)
CT_CLASSES = (synthetic.CT, synthetic.ENHANCED_CT, "1.2.840.10008.5.1.4.1.1.2.2")
_VARIED = {"spacing": SPACING, "origin": ORIGIN, "positions": (0.0, 2.5, 5.0, 7.5)}


def read_quietly(path: Path) -> Dataset:
    """pydicom's reading, every value of it raw until asked for."""
    dataset = pydicom.dcmread(path, force=True)
    if list(dataset.keys()) != sorted(dataset.keys()):
        raise ValueError("elements out of order mean different things to different readers")
    return dataset


# -------------------------------------------------------------------------------------------------- DICOM series


def series_target(folder: Path) -> Target:
    """A slice in the middle of a series of four, in every transfer syntax.

    The same also with all that a row may accept of images, and with an acquisition named.
    """
    ct, seeds = folder / "ct", []
    hu = synthetic.texture_hu(SHAPE)
    for syntax in synthetic.TRANSFER_SYNTAXES:
        seeds.append(synthetic.write_series(ct, hu, transfer_syntax=syntax, **_VARIED).paths[1].read_bytes())
    formats: list[dict[str, Any]] = [
        {"bits_stored": 12, "signed": True, "intercept": 0, "high_bits": 5, "padding_value": -2000},
        {"bits_stored": 12, "padding_value": 0, "padding_range": 3, "transfer_syntax": "implicit"},
        {"bits_allocated": 8, "bits_stored": 8, "slope": 8, "intercept": -1024},
        {"bits_allocated": 32, "bits_stored": 32, "signed": True},
    ]
    for options in formats:
        seeds.append(synthetic.write_series(ct, hu, **_VARIED, **options).paths[1].read_bytes())
    paths = synthetic.write_series(ct, hu, **_VARIED).paths

    def read(data: bytes) -> tuple[CTSeries, np.ndarray]:
        paths[1].write_bytes(data)
        for chosen in ({"accept": {"series", "units", "padding"}}, {"acquisition": "1"}):
            with suppress(InputError):
                read_all(read_series(ct, **chosen))
        image = read_series(ct)
        return image, read_all(image)

    def judge(result: tuple[CTSeries, np.ndarray], data: bytes) -> None:
        judge_series(*result)
        judge_left_out(result[0], paths)

    return Target("series", seeds, partial(mutate.several, DICOM), read, judge)


def read_all(image: Image) -> np.ndarray:
    """All of an image's HU."""
    return image.read_hu(Box(*((0, n) for n in (len(image.stack), *image.stack.shape))))


def judge_series(image: CTSeries, hu: np.ndarray) -> None:
    """Compare each slice with what pydicom reads in its file."""
    for plane, piece, origin in zip(hu, image.slices, image.stack.origins, strict=True):
        dataset = read_quietly(piece.path)
        position, orientation, spacing, expected = single_frame(dataset)
        same(piece.position, position, "position")
        same(origin, position, "origin")
        same(piece.orientation, orientation, "orientation")
        same(image.stack.spacing, spacing, "spacing", 1e-4)
        same(plane, expected, "HU")
        same_text(dataset, piece.header)


def judge_left_out(image: CTSeries, paths: tuple[Path, ...]) -> None:
    """A file that is not in the image must be something else, by what it says of itself."""
    used = {piece.path for piece in image.slices}
    for path in (path for path in paths if path not in used):
        dataset = read_quietly(path)
        if dataset.get("SOPClassUID") not in CT_CLASSES or dataset.get("SeriesInstanceUID") != image.uid:
            continue
        if "LOCALIZER" not in str(dataset.get("ImageType", "")).upper():
            raise Wrong(f"{path.name} is a slice of the series and was left out")


def same_text(dataset: Dataset, header: Header) -> None:
    """The identifiers that the walker read are those that pydicom finds."""
    for keyword in ("SOPInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID"):
        element = dataset.get_item(keyword)
        value = b"" if element is None or element.value is None else element.value
        value = value if isinstance(value, bytes) else str(value).encode()
        if header.text(keyword).encode(errors="replace") not in (value.strip(b" \0"), _utf8(value)):
            raise Wrong(f"{keyword} {header.text(keyword)!r}, by pydicom {value!r}")


def _utf8(latin: bytes) -> bytes:
    return latin.decode("latin-1").strip(" \0").encode()


def same(found: Any, expected: Any, what: str, tolerance: float = 1e-6) -> None:
    found, expected = np.asarray(found, float), np.asarray(expected, float)
    if found.shape != expected.shape or not np.allclose(found, expected, rtol=tolerance, atol=tolerance):
        raise Wrong(
            f"{what} {found.ravel()[:6]} of shape {found.shape}, not {expected.ravel()[:6]} of {expected.shape}"
        )


def single_frame(ds: Dataset) -> tuple[list[float], list[float], list[float], np.ndarray]:
    """Position, orientation, spacing and HU of a file with one slice, from pydicom's elements."""
    position, orientation = numbers(ds, "ImagePositionPatient"), numbers(ds, "ImageOrientationPatient")
    (slope,), (intercept,) = numbers(ds, "RescaleSlope"), numbers(ds, "RescaleIntercept")
    return position, orientation, numbers(ds, "PixelSpacing"), hounsfield(ds, stored_values(ds)[0], slope, intercept)


def numbers(ds: Dataset, keyword: str) -> list[float]:
    """An element's numbers, from its bytes where they are text."""
    element = ds.get_item(keyword)
    if element is None:
        raise Wrong(f"{keyword} is absent")
    if isinstance(element.value, bytes) and element.VR not in ("FD", "FL", "SL", "SS", "UL", "US"):
        return decimals(element.value)
    element = ds[keyword]
    value = element.value if isinstance(element.value, (list, pydicom.multival.MultiValue)) else [element.value]
    return decimals("\\".join(str(v) for v in value))


def whole(ds: Dataset, keyword: str) -> int | None:
    """An element's one whole number: of two bytes, or in text."""
    element = ds.get_item(keyword)
    if element is None or element.value in (None, b"", ""):
        return None
    if not isinstance(element.value, bytes):
        return int(element.value)
    if keyword == "NumberOfFrames":
        return int(decimals(element.value)[0])
    if len(element.value) != 2 or element.VR not in (None, "US", "SS", "UN", "OW"):
        raise Wrong(f"{keyword} is {element.value!r} of VR {element.VR}")
    return int.from_bytes(element.value, "little" if element.is_little_endian else "big")


def stored_values(ds: Dataset) -> np.ndarray:
    """Stored values of every frame, (frames, rows, columns), bits beyond those stored left out (PS3.5 8.1.1)."""
    rows, columns, allocated = (whole(ds, k) for k in ("Rows", "Columns", "BitsAllocated"))
    stored, high, signed = whole(ds, "BitsStored"), whole(ds, "HighBit"), whole(ds, "PixelRepresentation")
    frames = whole(ds, "NumberOfFrames") or 1
    assert all((rows, columns, allocated, stored))
    high = stored - 1 if high is None else high
    syntax = ds.file_meta.get("TransferSyntaxUID")
    if syntax is not None and syntax.is_encapsulated:
        ds.BitsStored, ds.HighBit = allocated, allocated - 1  # else pydicom keeps the lowest bits, wherever they are
        containers = ds.pixel_array.astype(np.int64)
    else:
        element, count = ds.get_item("PixelData"), frames * rows * columns
        order = "<" if ds.original_encoding[1] else ">"
        containers = np.frombuffer(element.value, f"{order}u{allocated // 8}", count).astype(np.int64)
    bits = (containers >> (high + 1 - stored)) & ((1 << stored) - 1)
    return (bits - ((bits >> (stored - 1)) << stored) * signed).reshape(frames, rows, columns)


def hounsfield(ds: Dataset, stored: np.ndarray, slope: float, intercept: float) -> np.ndarray:
    """Float32 HU from −1024 to 32767, declared padding at −1024."""
    hu = stored * slope + intercept
    padding = whole(ds, "PixelPaddingValue")
    if padding is not None:
        limit = whole(ds, "PixelPaddingRangeLimit")
        ends = [value & 0xFFFF for value in (padding, padding if limit is None else limit)]
        if whole(ds, "PixelRepresentation") == 1:
            ends = [value - 0x10000 if value > 0x7FFF else value for value in ends]
        hu = np.where((stored >= min(ends)) & (stored <= max(ends)), -1024, hu)
    return np.clip(hu, -1024, 32767).astype(np.float32)


# --------------------------------------------------------------------------------------------------- Enhanced CT


def enhanced_target(folder: Path) -> Target:
    """One Enhanced CT file of four frames out of order; also the only part of a concatenation."""
    path, hu = folder / "enhanced" / "e.dcm", synthetic.texture_hu(SHAPE)
    seeds = []
    for options in (
        {"order": (2, 0, 3, 1)},
        {"slope": (1, 2, 1, 0.5), "transfer_syntax": "implicit"},
        {"transfer_syntax": "rle"},
        {"transfer_syntax": "jpeg-ls"},
        {"transfer_syntax": "deflated"},
    ):
        synthetic.write_enhanced(path, hu, **_VARIED, **options)
        seeds.append(path.read_bytes())
    path.write_bytes(seeds[0])
    part = pydicom.dcmread(path)
    part.ConcatenationUID, part.InConcatenationNumber, part.InConcatenationTotalNumber = part.SOPInstanceUID, 1, 1
    part.save_as(path)
    seeds.append(path.read_bytes())

    def read(data: bytes) -> tuple[CTSeries, np.ndarray]:
        path.write_bytes(data)
        image = read_series(path.parent)
        return image, read_all(image)

    return Target("enhanced", seeds, partial(mutate.several, DICOM), read, lambda found, _: judge_enhanced(*found))


def judge_enhanced(image: CTSeries, hu: np.ndarray) -> None:
    dataset = read_quietly(image.slices[0].path)
    if "NumberOfFrames" not in dataset:
        judge_series(image, hu)
        return
    stored = stored_values(dataset)
    groups, shared = dataset.PerFrameFunctionalGroupsSequence, dataset.get("SharedFunctionalGroupsSequence") or [{}]
    if not len(hu) == len(stored) == len(groups):
        raise Wrong(f"{len(hu)} slices of {len(stored)} frames")
    for plane, piece, origin in zip(hu, image.slices, image.stack.origins, strict=True):

        def values(sequence: str, keyword: str, own: Dataset = groups[piece.frame]) -> list[float]:
            items = own.get(sequence) or shared[0].get(sequence)
            place = own if keyword in (own.get(sequence) or [{}])[0] else shared[0]
            return numbers((place.get(sequence) or items)[0], keyword)

        same(origin, values("PlanePositionSequence", "ImagePositionPatient"), "origin")
        same(piece.orientation, values("PlaneOrientationSequence", "ImageOrientationPatient"), "orientation")
        same(image.stack.spacing, values("PixelMeasuresSequence", "PixelSpacing"), "spacing", 1e-4)
        rescale = [values("PixelValueTransformationSequence", k)[0] for k in ("RescaleSlope", "RescaleIntercept")]
        same(plane, hounsfield(dataset, stored[piece.frame], rescale[0], rescale[1]), "HU")


# ------------------------------------------------------------------------------------------------- header walker


def header_target(folder: Path) -> Target:
    """The header walker on one file; pydicom judges every element that it returns."""
    path = folder / "header.dcm"
    seeds = [*series_target(folder / "seeds").seeds, *enhanced_target(folder / "seeds").seeds]

    def read(data: bytes) -> Header | None:
        path.write_bytes(data)
        return read_header(path)

    def judge(header: Header | None, data: bytes) -> None:
        if header is not None and data[128:132] == b"DICM":
            judge_header(header)

    return Target("header", seeds, partial(mutate.several, DICOM), read, judge)


def judge_header(header: Header) -> None:
    dataset = read_quietly(header.path)
    for tag, keyword in TAGS.items():
        if (tag in dataset) != (keyword in header.values):
            raise Wrong(f"{keyword} is {'absent' if tag in dataset else 'there'}, by pydicom it is not")
        element = dataset.get_item(tag)
        if element is None or not isinstance(element.value, bytes):
            continue
        found, raw = header.values[keyword], element.value
        order = "little" if element.is_little_endian else "big"
        if isinstance(found, int) and (len(raw) != 2 or found != int.from_bytes(raw, order)):
            raise Wrong(f"{keyword} {raw!r} was read as {found}")
