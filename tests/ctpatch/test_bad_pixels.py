"""Awkward pixels and numbers through the real commands (numbers as in the test names)."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import awkward
import numpy as np
import pydicom
import pytest
import synthetic
from awkward import only, refused
from pydicom.encaps import encapsulate
from pydicom.uid import UID

from ctpatch.dicom import pixel_data
from ctpatch.errors import InputError, Unfinished
from ctpatch.images.image import Box
from ctpatch.images.series import read_series
from ctpatch.processes import WorkerDied
from ctpatch.store import open_store

FIRST_MIDDLE_LAST = pytest.mark.parametrize("k", [0, 8, 15])
WHOLE = Box((0, 16), (0, 40), (0, 44))


def computed(folder: Path, ct: synthetic.Series, **cells: str) -> awkward.Built:
    store = awkward.built(folder, **cells)
    awkward.assert_linear(store, ct)
    return store


def read_hu(folder: Path, *accept: str) -> np.ndarray:
    """Every voxel as ctpatch reads it, (z, y, x)."""
    return read_series(folder / "ct", accept=set(accept)).read_hu(WHOLE)


# -- Rescale ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("transfer_syntax", ["explicit", "deflated", "j2k"])
def test_25_rescale_of_each_slice_its_own(tmp_path: Path, signed: bool, transfer_syntax: str) -> None:
    slopes = 1 / 16 + 0.0031 * np.arange(16)
    intercepts = -1000 + 13.5 * np.arange(16) + (1000 if signed else 0)
    options = {"slope": slopes, "intercept": intercepts, "signed": signed, "transfer_syntax": transfer_syntax}
    computed(tmp_path, awkward.case(tmp_path, **options))


@FIRST_MIDDLE_LAST
@pytest.mark.parametrize("keyword", ["RescaleSlope", "RescaleIntercept"])
@pytest.mark.parametrize("value", [None, ""])
def test_26_rescale_lacking_in_one_slice_is_refused(tmp_path: Path, k: int, keyword: str, value: str | None) -> None:
    ct = awkward.case(tmp_path, edit=only(k, **{keyword: value}))
    refused(tmp_path, rf"missing in 1 of 16 images \({ct.paths[k].name}\)", path="ct")


def test_26_rescale_lacking_everywhere_is_refused(tmp_path: Path) -> None:
    awkward.case(tmp_path, edit=only(-1, RescaleSlope=None, RescaleIntercept=None))
    refused(tmp_path, "missing in 16 of 16 images.*not HU")


def with_text(path: Path, keyword: str, text: bytes) -> None:
    """Put any bytes into an element of a file (pydicom would refuse to write them)."""
    dataset = pydicom.dcmread(path)
    raw = pydicom.dataelem.RawDataElement(
        pydicom.tag.Tag(keyword), "DS", len(text), text, 0, dataset.is_implicit_VR, True
    )
    dataset[keyword] = raw
    dataset.save_as(path)


@FIRST_MIDDLE_LAST
@pytest.mark.parametrize("text", [b"0 ", b"nan ", b"inf ", b"text", b"1\\2 ", b"1,5 "])
def test_27_a_slope_that_is_no_number_is_refused(tmp_path: Path, k: int, text: bytes) -> None:
    ct = awkward.case(tmp_path)
    with_text(ct.paths[k], "RescaleSlope", text)
    found = "RescaleSlope is 0" if text == b"0 " else f"RescaleSlope '{text.decode().strip()!s}.*not 1 finite number"
    refused(tmp_path, found.replace("\\", r"\\.*"), path=f"ct/{ct.paths[k].name}")


@pytest.mark.parametrize("text", [b"nan ", b"text", b"-1024\\0"])
def test_27_an_intercept_that_is_no_number_is_refused(tmp_path: Path, text: bytes) -> None:
    ct = awkward.case(tmp_path)
    with_text(ct.paths[8], "RescaleIntercept", text)
    refused(tmp_path, "RescaleIntercept .* not 1 finite number", path="ct/0008.dcm")


def test_27_a_rescale_to_something_else_is_refused(tmp_path: Path) -> None:
    awkward.case(tmp_path, edit=only(-1, RescaleType="MGML"))
    refused(tmp_path, "RescaleType is 'MGML', not HU")


# -- How values are stored ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("stored", "signed"), [(12, True), (12, False), (13, True), (16, True), (16, False)])
@pytest.mark.parametrize("garbage", [None, 0, 0b1111, 0b0101])
def test_28_29_bits_beyond_those_stored_never_count(
    tmp_path: Path, stored: int, signed: bool, garbage: int | None
) -> None:
    slope = 700 / 2 ** (stored - 1)
    high = garbage & (1 << 16 - stored) - 1 if garbage is not None else None
    options = {"bits_stored": stored, "signed": signed, "high_bits": high, "slope": slope}
    ct = awkward.case(tmp_path, intercept=0 if signed else -600, **options)
    awkward.assert_linear(awkward.built(tmp_path), ct, tolerance=1.0)


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("transfer_syntax", ["rle", "deflated", "big-endian", "implicit"])
def test_29_overlay_bits_are_masked_after_decoding_too(tmp_path: Path, signed: bool, transfer_syntax: str) -> None:
    values = np.random.default_rng(0).integers(-1024, 1024, awkward.SHAPE)
    options: dict[str, Any] = {"bits_stored": 12, "signed": signed, "high_bits": 0b1010, "slope": 1}
    awkward.series(tmp_path, hu=values, transfer_syntax=transfer_syntax, intercept=0 if signed else -1024, **options)
    assert np.array_equal(read_hu(tmp_path), values)


def test_29_values_beyond_bits_stored_in_a_j2k_stream_are_masked(tmp_path: Path) -> None:
    """What a recompression of 12 bits with overlays in the other 4 gives: a stream of 16 bits, BitsStored 12."""
    values = np.random.default_rng(0).integers(-1024, 1024, awkward.SHAPE)
    stored = values + 1024
    edit = only(-1, BitsStored=12, HighBit=11)
    awkward.series(tmp_path, hu=stored | 0xA000, intercept=0, slope=1, transfer_syntax="j2k", edit=edit)
    for path in (tmp_path / "ct").iterdir():
        awkward.edited(path, lambda dataset: setattr(dataset, "RescaleIntercept", -1024))
    assert np.array_equal(read_hu(tmp_path), values)


@pytest.mark.parametrize("transfer_syntax", ["j2k", "jpeg-ls", "jpeg-lossless", "rle"])
@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("k", [0, 8, -1])
def test_30_a_stream_made_with_the_other_sign(tmp_path: Path, k: int, signed: bool, transfer_syntax: str) -> None:
    """In one slice or in all; the values fit 12 bits under either sign."""
    options: dict[str, Any] = {"bits_stored": 12, "signed": signed, "slope": 1, "intercept": -1024}
    ct = awkward.case(tmp_path, transfer_syntax=transfer_syntax, **options)
    for path in ct.paths if k < 0 else [ct.paths[k]]:
        awkward.edited(path, lambda dataset: setattr(dataset, "PixelRepresentation", int(not signed)))
    awkward.assert_linear(awkward.built(tmp_path), ct, tolerance=1.0)


@pytest.mark.parametrize("transfer_syntax", sorted(synthetic.TRANSFER_SYNTAXES))
def test_28_29_values_in_the_high_bits_lose_none_when_decoded(tmp_path: Path, transfer_syntax: str) -> None:
    """HighBit 15 of 12 bits stored, with something else in the four below (pydicom keeps the lowest 12)."""
    values = np.random.default_rng(0).integers(-1024, 1024, awkward.SHAPE)
    options: dict[str, Any] = {"intercept": 0, "slope": 1, "transfer_syntax": transfer_syntax}
    awkward.series(tmp_path, hu=(values + 1024) << 4 | 0b1010, edit=only(-1, BitsStored=12, HighBit=15), **options)
    for path in (tmp_path / "ct").iterdir():
        awkward.edited(path, lambda dataset: setattr(dataset, "RescaleIntercept", -1024))
    assert np.array_equal(read_hu(tmp_path), values)


@pytest.mark.parametrize("transfer_syntax", ["j2k", "jpeg-ls", "jpeg-lossless", "rle"])
@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("stored", [12, 16])
def test_30_the_sign_is_the_one_the_header_says(
    tmp_path: Path, transfer_syntax: str, signed: bool, stored: int
) -> None:
    """The same stored bits under either PixelRepresentation, whatever sign the compressed stream was made with."""
    low, high = (-(2 ** (stored - 1)), 2 ** (stored - 1)) if signed else (0, 2**stored)
    values = np.random.default_rng(0).integers(low, high, awkward.SHAPE) // 2
    options: dict[str, Any] = {"bits_stored": stored, "signed": signed, "intercept": 0, "slope": 1}
    awkward.series(tmp_path, hu=values, transfer_syntax=transfer_syntax, **options)
    assert np.array_equal(read_hu(tmp_path), values.clip(-1024))
    for path in (tmp_path / "ct").iterdir():
        awkward.edited(path, lambda dataset: setattr(dataset, "PixelRepresentation", int(not signed)))
    bits = values & (1 << stored) - 1
    other = bits if signed else bits - ((bits >> stored - 1) << stored)
    assert np.array_equal(read_hu(tmp_path, "units"), other.clip(-1024, 32767))  # else unsigned ones may be refused


@pytest.mark.parametrize("transfer_syntax", sorted(synthetic.TRANSFER_SYNTAXES))
def test_31_every_lossless_transfer_syntax_gives_the_same_bytes(tmp_path: Path, transfer_syntax: str) -> None:
    stores = []
    for name, syntax in (("plain", "explicit"), ("other", transfer_syntax)):
        (tmp_path / name).mkdir()
        ct = awkward.case(tmp_path / name, transfer_syntax=syntax, bits_stored=15, shuffle=1)
        stores.append(computed(tmp_path / name, ct).path.read_bytes())
    assert stores[0] == stores[1]


def test_31_a_mix_of_transfer_syntaxes_in_one_series(tmp_path: Path) -> None:
    ct = awkward.case(tmp_path)
    kinds = ("rle", "deflated", "j2k", "big-endian")
    for i, kind in enumerate(kinds):
        (tmp_path / kind).mkdir()
        other = awkward.series(tmp_path / kind, transfer_syntax=kind)
        for k in range(i, 16, 5):
            ct.paths[k].write_bytes(other.paths[k].read_bytes())
    computed(tmp_path, ct)


def lossy(dataset: pydicom.Dataset, _: int) -> None:
    """Near-lossless JPEG-LS, off by 2 stored values (1/8 HU) at most."""
    import jpeg_ls

    values = dataset.pixel_array
    coded = jpeg_ls.encode_array(values, lossy_error=2)
    dataset.PixelData = encapsulate([bytes(coded)])
    dataset["PixelData"].is_undefined_length = True
    dataset["PixelData"].VR = "OB"
    dataset.file_meta.TransferSyntaxUID = UID("1.2.840.10008.1.2.4.81")
    dataset.LossyImageCompression = "01"


def test_32_lossy_compression_is_computed_told_and_recorded(tmp_path: Path) -> None:
    store = computed(tmp_path, awkward.case(tmp_path, edit=lossy))
    assert "16 images went through lossy compression" in store.notes
    assert "16 images went through lossy compression" in store.check_notes
    with open_store(store.path) as opened:
        assert "lossy" in json.dumps(opened.provenance["notes"])


@FIRST_MIDDLE_LAST
def test_32_a_history_of_lossy_compression_is_told(tmp_path: Path, k: int) -> None:
    store = computed(tmp_path, awkward.case(tmp_path, edit=only(k, LossyImageCompression="01")))
    assert "1 images went through lossy compression" in store.notes


@FIRST_MIDDLE_LAST
@pytest.mark.parametrize(
    ("syntax", "name"),
    [
        ("1.2.840.10008.1.2.4.100", "MPEG2"),
        ("1.2.840.10008.1.2.4.52", "1.2.840.10008.1.2.4.52"),
    ],
)
def test_33_a_transfer_syntax_without_decoder_is_refused(tmp_path: Path, k: int, syntax: str, name: str) -> None:
    def edit(dataset: pydicom.Dataset, slice_: int) -> None:
        if slice_ == k:
            dataset.PixelData = encapsulate([dataset.PixelData])
            dataset["PixelData"].is_undefined_length = True
            dataset["PixelData"].VR = "OB"
            dataset.file_meta.TransferSyntaxUID = UID(syntax)

    ct = awkward.case(tmp_path, edit=edit)
    refused(tmp_path, f"no decoder for transfer syntax .*{name}", "convert", f"ct/{ct.paths[k].name}")


def test_33_a_decoder_that_is_not_installed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    awkward.case(tmp_path, transfer_syntax="jpeg-lossless")
    decoder = pydicom.pixels.get_decoder(UID("1.2.840.10008.1.2.4.70"))
    monkeypatch.setattr(decoder, "_available", {})
    refused(tmp_path, "no decoder for transfer syntax JPEG Lossless", "pip install python-gdcm")


# -- Pixel data of the wrong length -------------------------------------------------------------------------------


@FIRST_MIDDLE_LAST
@pytest.mark.parametrize("lost", [1, 2, 44, 3000])
def test_34_a_file_cut_within_its_pixels_is_refused(tmp_path: Path, k: int, lost: int) -> None:
    ct = awkward.case(tmp_path)
    raw = ct.paths[k].read_bytes()
    ct.paths[k].write_bytes(raw[:-lost])
    refused(tmp_path, rf"pixel data is cut off: {3520 - lost} of 3520 bytes", path=f"ct/{ct.paths[k].name}")


@FIRST_MIDDLE_LAST
def test_34_pixels_that_lack_a_row_are_refused(tmp_path: Path, k: int) -> None:
    def edit(dataset: pydicom.Dataset, slice_: int) -> None:
        if slice_ == k:
            dataset.PixelData = dataset.PixelData[:-88]

    ct = awkward.case(tmp_path, edit=edit)
    refused(tmp_path, "pixel data has 3432 bytes where 40 × 44 pixels need 3520", path=f"ct/{ct.paths[k].name}")


@FIRST_MIDDLE_LAST
@pytest.mark.parametrize("transfer_syntax", ["rle", "jpeg-ls", "j2k", "jpeg-lossless", "deflated"])
def test_34_a_compressed_file_cut_off_is_refused(tmp_path: Path, k: int, transfer_syntax: str) -> None:
    ct = awkward.case(tmp_path, transfer_syntax=transfer_syntax)
    raw = ct.paths[k].read_bytes()
    ct.paths[k].write_bytes(raw[: len(raw) - 400])
    refused(tmp_path, "cut off|not readable", path=f"ct/{ct.paths[k].name}")


@pytest.mark.parametrize("transfer_syntax", ["rle", "j2k", "jpeg-lossless"])
def test_34_a_compressed_stream_cut_off_inside_is_refused_before_any_patch(
    tmp_path: Path, transfer_syntax: str
) -> None:
    """Only decoding shows it, so `check` cannot; the build writes nothing."""

    def edit(dataset: pydicom.Dataset, k: int) -> None:
        if k == 8:
            (fragment,) = pydicom.encaps.generate_fragments(_after_offset_table(dataset.PixelData))
            dataset.PixelData = encapsulate([fragment[: len(fragment) // 2 & ~1]])
            dataset["PixelData"].is_undefined_length = True

    awkward.case(tmp_path, transfer_syntax=transfer_syntax, edit=edit)
    awkward.manifest(tmp_path)
    result = awkward.build(tmp_path)
    assert result.status == 2
    assert not (tmp_path / "s.h5").exists()
    assert len(result.err) == 1
    assert "ct/0008.dcm: pixel data cannot be decoded" in result.err[0]


@pytest.mark.parametrize(("at", "to"), [(6, 155), (15, 75)])
@pytest.mark.parametrize("transfer_syntax", ["jpeg-lossless", "jpeg-lossless-14"])
@pytest.mark.parametrize("jobs", ["1", "2"])
def test_34_a_byte_that_ends_the_decoder_is_refused(
    tmp_path: Path, jobs: str, transfer_syntax: str, at: int, to: int
) -> None:
    """gdcm 3 ends its process on such a stream, by SIGSEGV or by abort."""

    def edit(dataset: pydicom.Dataset, k: int) -> None:
        if k == 8:
            stream = bytearray(pydicom.encaps.get_frame(dataset.PixelData, 0, number_of_frames=1))
            stream[at] = to
            dataset.PixelData = encapsulate([bytes(stream)])
            dataset["PixelData"].is_undefined_length = True

    awkward.case(tmp_path, transfer_syntax=transfer_syntax, edit=edit)
    awkward.manifest(tmp_path)
    result = awkward.build(tmp_path, "--jobs", jobs)
    assert result.status == 2
    assert not (tmp_path / "s.h5").exists()
    (line,) = result.err
    assert "ct/0008.dcm: pixel data cannot be decoded" in line


def _after_offset_table(data: bytes) -> bytes:
    length = int.from_bytes(data[4:8], "little")
    return data[8 + length :]


@pytest.mark.parametrize(("extra", "fits"), [(1, True), (2, False), (88, False), (3520, False)])
def test_35_surplus_pixel_data(tmp_path: Path, extra: int, fits: bool) -> None:
    """8-bit images of odd size: DICOM pads them to an even length."""

    def edit(dataset: pydicom.Dataset, _: int) -> None:
        words = np.frombuffer(dataset.PixelData, "<u2").reshape(40, 44)[:, :43]
        dataset.Columns, dataset.Rows = 43, 39
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 8, 8, 7
        dataset.PixelData = (words[:39] >> 8).astype(np.uint8).tobytes() + bytes(extra)
        dataset.RescaleSlope = 16

    ct = awkward.case(tmp_path, edit=edit, intercept=-1024)
    if fits:
        awkward.assert_linear(awkward.built(tmp_path), replace(ct, shape=(16, 39, 43)), tolerance=17)
    else:
        length = 43 * 39 + extra + (43 * 39 + extra) % 2
        refused(tmp_path, f"pixel data has {length} bytes where 39 × 43 pixels need 1677")


@FIRST_MIDDLE_LAST
@pytest.mark.parametrize("transfer_syntax", ["explicit", "implicit", "rle"])
def test_35_a_second_page_is_refused(tmp_path: Path, transfer_syntax: str, k: int) -> None:
    """Readers take the first or the last of two such elements."""
    ct = awkward.case(tmp_path, transfer_syntax=transfer_syntax)
    raw = ct.paths[k].read_bytes()
    start = raw.rindex(b"\xe0\x7f\x10\0")
    ct.paths[k].write_bytes(raw + raw[start:])
    refused(tmp_path, "PixelData is there twice", path=f"ct/{ct.paths[k].name}")


@pytest.mark.parametrize("tail", [bytes(8), bytes(512), b"\xfc\xff\xfc\xffOB\0\0\x02\0\0\0\0\0", b"\xff" * 40])
def test_35_a_tail_that_is_no_element_does_no_harm(tmp_path: Path, tail: bytes) -> None:
    ct = awkward.case(tmp_path)
    for path in ct.paths:
        path.write_bytes(path.read_bytes() + tail)
    computed(tmp_path, ct)


@pytest.mark.parametrize(("extra", "fits"), [(1, True), (2, False), (300, False)])
@pytest.mark.parametrize("segment", [0, 1])
def test_35_surplus_rle_data(tmp_path: Path, segment: int, extra: int, fits: bool) -> None:
    def edit(dataset: pydicom.Dataset, k: int) -> None:
        if k != 8:
            return
        planes = np.frombuffer(dataset.PixelData, "<u2").astype(">u2").view("u1").reshape(-1, 2).T
        coded = [_literally(plane.tobytes() + bytes(extra * (i == segment))) for i, plane in enumerate(planes)]
        offsets = struct.pack("<16I", 2, 64, 64 + len(coded[0]), *13 * [0])
        dataset.PixelData = pydicom.encaps.encapsulate([offsets + b"".join(coded)])
        dataset["PixelData"].is_undefined_length = True
        dataset.file_meta.TransferSyntaxUID = pydicom.uid.RLELossless

    ct = awkward.case(tmp_path, edit=edit)
    if fits:
        computed(tmp_path, ct)
    else:
        awkward.manifest(tmp_path)
        result = awkward.build(tmp_path)
        assert result.status == 2
        assert not (tmp_path / "s.h5").exists()
        says = f"ct/0008.dcm: an RLE segment decodes to {1760 + extra} bytes where 1760 are needed. Do: copy or"
        assert [says in line for line in result.err] == [True]


def _literally(data: bytes) -> bytes:
    """PackBits without a run (PS3.5, G.3.1), of even length."""
    parts = (data[at : at + 128] for at in range(0, len(data), 128))
    coded = b"".join(bytes([len(part) - 1]) + part for part in parts)
    return coded + b"\x80" * (len(coded) % 2)


@FIRST_MIDDLE_LAST
def test_36_absent_pixel_data_is_refused(tmp_path: Path, k: int) -> None:
    ct = awkward.case(tmp_path, edit=only(k, PixelData=None))
    refused(tmp_path, "there is no pixel data", path=f"ct/{ct.paths[k].name}")


def test_36_floating_point_pixel_data_is_refused(tmp_path: Path) -> None:
    def edit(dataset: pydicom.Dataset, k: int) -> None:
        if k == 8:
            del dataset.PixelData
            dataset.FloatPixelData = bytes(40 * 44 * 4)

    awkward.case(tmp_path, edit=edit)
    refused(tmp_path, "floating-point pixel data", path="ct/0008.dcm")


# -- What the values mean -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("k", [-1, 0, 8])  # every slice, or one
@pytest.mark.parametrize("transfer_syntax", ["explicit", "big-endian", "rle"])
def test_37_monochrome1_is_not_inverted_and_told(tmp_path: Path, k: int, transfer_syntax: str) -> None:
    edit = only(k, PhotometricInterpretation="MONOCHROME1")
    store = computed(tmp_path, awkward.case(tmp_path, edit=edit, transfer_syntax=transfer_syntax))
    assert "MONOCHROME1" in store.notes
    assert "MONOCHROME1" in store.check_notes


@FIRST_MIDDLE_LAST
@pytest.mark.parametrize(
    "elements",
    [
        {"PhotometricInterpretation": "RGB", "SamplesPerPixel": 3},
        {"PhotometricInterpretation": "PALETTE COLOR"},
        {"PhotometricInterpretation": "YBR_FULL"},
        {"PhotometricInterpretation": None},
        {"SamplesPerPixel": 2},
    ],
)
def test_38_colour_is_refused(tmp_path: Path, k: int, elements: dict[str, Any]) -> None:
    ct = awkward.case(tmp_path, edit=only(k, **elements))
    refused(tmp_path, "not grey", path=f"ct/{ct.paths[k].name}")


@pytest.mark.parametrize(
    "elements",
    [
        {"BitsAllocated": 12},
        {"BitsStored": 17},
        {"BitsStored": 0},
        {"HighBit": 16},
        {"HighBit": 11, "BitsStored": 16},
        {"PixelRepresentation": 2},
        {"PixelRepresentation": None},
        {"BitsStored": None},
        {"BitsAllocated": None},
    ],
)
def test_38_bits_that_cannot_be_are_refused(tmp_path: Path, elements: dict[str, Any]) -> None:
    awkward.case(tmp_path, edit=only(8, **elements))
    refused(tmp_path, "BitsAllocated .*BitsStored", path="ct/0008.dcm")


def ring(columns: slice = slice(None, 12)) -> np.ndarray:
    mask = np.zeros(awkward.SHAPE, bool)
    mask[:, :, columns] = True
    return mask


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("declared", ["value", "range up", "range down", "undeclared"])
def test_39_40_padding_becomes_air_before_it_is_interpolated(tmp_path: Path, signed: bool, declared: str) -> None:
    """Padding at HU 3000 or −2000 next to the phantom: no pixel may be a blend with it, only one with −1024."""
    value = 3000 if declared != "undeclared" else -2000
    intercept, stored = (0, value) if signed else (-2048, value + 2048)
    limits = {
        "value": {"padding_range": None},
        "range up": {"padding_range": stored + 20},
        "range down": {"padding_range": stored - 20},
        "undeclared": {},
    }[declared]
    odd = {"range up": 7, "range down": -7}.get(declared, 0)  # padding within the range, not at its end
    options: dict[str, Any] = {"signed": signed, "intercept": intercept, "slope": 1, "edit": None}

    def spread(dataset: pydicom.Dataset, _: int) -> None:
        words = np.frombuffer(dataset.PixelData, "<i2" if signed else "<u2").copy()
        words[words == stored] = stored + odd
        dataset.PixelData = words.tobytes()
        if declared == "undeclared":
            del dataset.PixelPaddingValue

    options["edit"] = spread
    ct = awkward.series(tmp_path, padding_mask=ring(), padding_value=stored, **limits, **options)
    awkward.contours(tmp_path, ct)
    values = np.where(ring(), -1024, np.rint(awkward.hu()))
    assert np.array_equal(read_hu(tmp_path), values)
    store = awkward.built(tmp_path)
    assert store.hu.min() >= -1024
    assert store.hu.max() <= np.rint(awkward.hu()).max()


def test_39_padding_that_bits_stored_have_no_room_for(tmp_path: Path) -> None:
    """-2000 as 63536 in 12 bits of 16, which decoders cut down to 2096: +1072 HU."""

    def edit(dataset: pydicom.Dataset, _: int) -> None:
        words = np.frombuffer(dataset.PixelData, "<u2").reshape(awkward.SHAPE[1:]).copy()
        words[:, :17] = 63536
        dataset.PixelData = words.tobytes()
        dataset.PixelPaddingValue = 63536

    values = np.rint(np.random.default_rng(0).normal(40, 10, awkward.SHAPE))
    awkward.case(tmp_path, hu=values, slope=1, bits_stored=12, edit=edit)
    hu = awkward.built(tmp_path).hu
    assert hu.max() < 100
    assert (hu == -1024).any()


def test_39_padding_of_one_slice_is_its_own(tmp_path: Path) -> None:
    """Another PixelPaddingValue in each slice, each a value that is lung in the others."""
    values = np.full(awkward.SHAPE, -1000.0) + np.arange(16)[:, None, None]
    ct = awkward.series(
        tmp_path, hu=values, slope=1, edit=lambda d, k: setattr(d, "PixelPaddingValue", 24 + (k + 1) % 16)
    )
    assert np.array_equal(read_hu(tmp_path), values)
    for k, path in enumerate(ct.paths):
        awkward.edited(path, lambda d, k=k: setattr(d, "PixelPaddingValue", 24 + k))
    assert np.array_equal(read_hu(tmp_path), np.full(awkward.SHAPE, -1024))


@pytest.mark.parametrize("value", [32_768, 50_000, 64_000])
def test_41_beyond_int16_is_saturated_and_counted(tmp_path: Path, value: int) -> None:
    values = awkward.hu()
    values[4:12, 10:30, 12:32] = value
    ct = awkward.series(tmp_path, hu=values, slope=1)
    awkward.contours(tmp_path, ct)
    store = awkward.built(tmp_path)
    assert store.hu.max() == 32767
    assert store.hu.min() >= -1024
    assert f"{np.count_nonzero(store.hu == 32767)} pixels are saturated at 32767 HU" in store.notes


@pytest.mark.parametrize("value", [3071, 3072, 8000, 32767])
def test_41_metal_is_kept_as_it_is(tmp_path: Path, value: int) -> None:
    awkward.series(tmp_path, hu=np.full(awkward.SHAPE, float(value)), slope=1)
    assert np.all(read_hu(tmp_path) == value)


@pytest.mark.parametrize("axes", [(0, 1, 2), (0,), (1,), (2,)])
def test_42_neither_overshoot_nor_new_values(tmp_path: Path, axes: tuple[int, ...]) -> None:
    """A checkerboard, and stripes along each axis."""
    values = np.where(np.indices(awkward.SHAPE)[list(axes)].sum(axis=0) % 2, 1000.0, -500.0)
    ct = awkward.series(tmp_path, hu=values, slope=1)
    awkward.contours(tmp_path, ct)
    store = awkward.built(tmp_path)
    assert store.hu[store.hu > -1024].max() <= 1000
    assert store.hu[store.hu > -1024].min() >= -500


@pytest.mark.parametrize("origin", [(1e5, -2e5, 3e5), (-123456.75, 98765.5, 1e6), (0.0, 0.0, -9e5)])
def test_43_coordinates_far_from_the_origin_lose_nothing(tmp_path: Path, origin: tuple[float, float, float]) -> None:
    ct = awkward.case(tmp_path, origin=origin)
    awkward.assert_linear(awkward.built(tmp_path), ct, origin=origin)
    assert awkward.voxels(awkward.plan(tmp_path).mask) == awkward.lesion_voxels()


@FIRST_MIDDLE_LAST
def test_44_a_modality_lut_is_refused(tmp_path: Path, k: int) -> None:
    def edit(dataset: pydicom.Dataset, slice_: int) -> None:
        if slice_ == k:
            item = pydicom.Dataset()
            item.LUTDescriptor, item.ModalityLUTType, item.LUTData = [2, 0, 16], "HU", [0, 1]
            item["LUTDescriptor"].VR, item["LUTData"].VR = "US", "US"
            dataset.ModalityLUTSequence = [item]

    ct = awkward.case(tmp_path, edit=edit)
    refused(tmp_path, "Modality LUT", path=f"ct/{ct.paths[k].name}")


def test_136_burned_in_text_is_refused(tmp_path: Path) -> None:
    awkward.case(tmp_path, edit=only(8, BurnedInAnnotation="YES"))
    refused(tmp_path, "BurnedInAnnotation is YES", path="ct/0008.dcm")


@pytest.mark.parametrize("syntax", ["explicit", "j2k"])
def test_139_an_image_too_large_to_be_a_slice_is_refused_before_decoding(tmp_path: Path, syntax: str) -> None:
    awkward.case(tmp_path, transfer_syntax=syntax, edit=only(8, Rows=65535, Columns=65535))
    refused(tmp_path, "65535 × 65535 pixels is no CT slice", path="ct/0008.dcm")


Change = Callable[[bytes], bytes]


@pytest.mark.parametrize(
    "change",
    [
        lambda raw: b"MZ" + raw[2:],
        lambda raw: raw[:200] + b"\xff" * 40 + raw[240:],
        lambda raw: raw[:132] + bytes(len(raw) - 132),
        lambda raw: b"\0" * len(raw),
    ],
)
def test_138_garbage_in_a_file_never_ends_in_a_traceback(tmp_path: Path, change: Change) -> None:
    ct = awkward.case(tmp_path)
    ct.paths[8].write_bytes(change(ct.paths[8].read_bytes()))
    awkward.manifest(tmp_path)
    result = awkward.build(tmp_path)
    if result.status:
        assert result.status == 2
        assert len(result.err) == 1
        assert awkward.REFUSAL.fullmatch(result.err[0].removeprefix("ctpatch: "))
    else:  # neither the preamble nor the UIDs of the file meta information say anything about the image
        computed(tmp_path, ct)


@pytest.mark.parametrize(
    ("number", "times", "end"), [(9, 1, None), (9, 2, Unfinished), (15, 1, None), (11, 1, InputError)]
)
def test_a_decoder_that_is_killed_for_memory_is_asked_again(
    number: int, times: int, end: type[InputError] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    deaths = [WorkerDied(f"killed by signal {number}", number == 11)] * times

    def decoder(*call: object) -> list[np.ndarray]:
        if deaths:
            raise deaths.pop()
        return [np.zeros((2, 2))]

    monkeypatch.setattr(pixel_data, "_decoder", lambda *key: decoder)
    if end is None:
        assert len(pixel_data.decode(Path("x.dcm"), "1.2.840.10008.1.2.4.70", (2, 2), [0])) == 1
    else:
        with pytest.raises(InputError, match=f"killed by signal {number}") as told:
            pixel_data.decode(Path("x.dcm"), "1.2.840.10008.1.2.4.70", (2, 2), [0])
        assert type(told.value) is end


DECODED = """
import multiprocessing, os, sys
from pathlib import Path
import numpy as np
from ctpatch.dicom.pixel_data import decode

def read(path):
    print(decode(Path(path), "1.2.840.10008.1.2.4.70", (ROWS, COLUMNS), [0])[0].shape, flush=True)

if __name__ == "__main__":
    child = multiprocessing.get_context(sys.argv[2]).Process(target=read, args=(sys.argv[1],))
    child.start()
    child.join(60)
    print(child.exitcode, flush=True)
    os._exit(0)
"""


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_child_that_has_decoded_ends(tmp_path: Path, method: str) -> None:
    """multiprocessing's children wait for their own, as a decoder is, and run nothing of atexit."""
    awkward.case(tmp_path, transfer_syntax="jpeg-lossless")
    path = sorted((tmp_path / "ct").iterdir())[0]
    rows, columns = pydicom.dcmread(path).pixel_array.shape
    (tmp_path / "run.py").write_text(DECODED.replace("ROWS", str(rows)).replace("COLUMNS", str(columns)))
    command = [sys.executable, str(tmp_path / "run.py"), str(path), method]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.stdout.splitlines() == [f"({rows}, {columns})", "0"], done


@pytest.mark.parametrize(("syntax", "together"), [("1.2.840.10008.1.2.4.70", True), ("1.2.840.10008.1.2.5", False)])
def test_threads_that_decode_have_nothing_in_common(
    syntax: str, together: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither a process, whose crash would be both's, nor RLE's warnings, which are the program's."""
    keys, meeting = set(), threading.Barrier(2)

    def decode(*call: object) -> list[np.ndarray]:
        try:
            meeting.wait(0.5)
            return [np.ones(1)]
        except threading.BrokenBarrierError:
            meeting.reset()
            return [np.zeros(1)]

    def decoder(*key: int) -> object:
        keys.add(key)
        return decode

    monkeypatch.setattr(pixel_data, "_decoder", decoder)
    monkeypatch.setattr(pixel_data, "_decode", decode)
    with ThreadPoolExecutor(2) as threads:
        met = [threads.submit(pixel_data.decode, Path("x.dcm"), syntax, (2, 2), [0]) for _ in range(2)]
        assert [answer.result()[0][0] for answer in met] == [together] * 2
    assert len(keys) == 2 * together
