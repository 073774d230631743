"""The header walk against pydicom, on whole files and on damaged ones; stored values whatever their container."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import awkward
import numpy as np
import pydicom
import pytest
import synthetic
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence as Items

from ctpatch.dicom.elements import ElementReader
from ctpatch.dicom.header import TAGS, Header, read_header
from ctpatch.errors import InputError
from ctpatch.images.ct_image import StoredFormat, padding_range, read_slice

DATA = Path(__file__).parents[3] / "shared" / "data"
REAL = sorted(path for path in DATA.rglob("*.dcm")) if DATA.is_dir() else []
LADDER = DATA / "nasty" / "transfer_syntax_ladder"
real_data = pytest.mark.skipif(not REAL, reason="no real data at ../shared/data")
SETTINGS = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True
)


def by_pydicom(path: Path) -> tuple[str, dict[str, bytes], bytes | None]:
    """Transfer syntax, raw values by keyword, and the pixel data of an uncompressed little-endian file."""
    dataset = pydicom.dcmread(path, force=True)
    values = {}
    for tag, keyword in TAGS.items():
        if tag in dataset:
            element = dataset.get_item(tag)
            raw = element.value if isinstance(element, RawDataElement) else str(element.value).encode("latin-1")
            values[keyword] = b"present" if element.VR == "SQ" else (raw or b"")
    syntax = str(dataset.file_meta.get("TransferSyntaxUID", "1.2.840.10008.1.2"))
    plain = syntax in ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1") and "PixelData" in dataset
    return syntax, values, dataset.PixelData if plain else None


def text_of(keyword: str, raw: bytes, syntax: str) -> str:
    """An element's raw value as a header must show it."""
    binary = pydicom.datadict.dictionary_VR(pydicom.datadict.tag_for_keyword(keyword)) in ("US", "US or SS")
    if binary and len(raw) == 2:
        return str(int.from_bytes(raw, "big" if syntax == "1.2.840.10008.1.2.2" else "little"))
    return raw.decode("latin-1").strip(" \0")


def assert_like_pydicom(path: Path) -> None:
    header = read_header(path)
    syntax, values, pixels = by_pydicom(path)
    assert header is not None
    assert header.transfer_syntax == syntax
    assert set(header.values) == set(values)
    for keyword, raw in values.items():
        ours, theirs = header.text(keyword), text_of(keyword, raw, syntax)
        if ours.replace(" ", "") != theirs.replace(" ", ""):  # a signed number, or characters beyond ASCII
            assert _same_number(ours, theirs) or not theirs.isascii(), keyword
    if pixels is not None:
        assert header.pixels is not None
        offset, length = header.pixels
        assert path.read_bytes()[offset : offset + length] == pixels


def _same_number(a: str, b: str) -> bool:
    return a.lstrip("-").isdigit() and (int(a) - int(b)) % 65536 == 0


# -- Whole files --------------------------------------------------------------------------------------------------


@real_data
@pytest.mark.parametrize("folder", sorted({path.parent for path in REAL}), ids=lambda p: str(p.relative_to(DATA)))
def test_headers_of_real_files_are_those_that_pydicom_reads(folder: Path) -> None:
    for path in (path for path in REAL if path.parent == folder):
        assert_like_pydicom(path)


@pytest.mark.parametrize("syntax", sorted(synthetic.TRANSFER_SYNTAXES))
def test_headers_in_every_transfer_syntax(tmp_path: Path, syntax: str) -> None:
    series = synthetic.write_series(tmp_path, np.zeros((2, 6, 8)), transfer_syntax=syntax, padding_value=0)
    for path in series.paths:
        assert_like_pydicom(path)


def decorated(path: Path, *, undefined: bool, syntax: str) -> Path:
    """A small CT image between private elements and nested sequences, with lengths or delimiters."""

    def decorate(dataset: Dataset, _: int) -> None:
        inner = Dataset()
        inner.PatientPosition, inner.Rows, inner.ImagePositionPatient = "HFS", 777, ["7", "7", "7"]
        middle = Dataset()
        middle.ReferencedImageSequence = Items([inner, Dataset(), inner])
        middle.add_new(0x00091001, "UN", b"private, in a sequence")
        outer = Dataset()
        outer.SourceImageSequence = Items([middle])
        dataset.RequestAttributesSequence = Items([outer, outer])
        dataset.ReferencedStudySequence = Items([])
        dataset.private_block(0x0029, "CTPATCH TEST", create=True).add_new(1, "OB", bytes(range(256)) * 40)
        dataset.private_block(0x0019, "CTPATCH TEST", create=True).add_new(2, "SQ", Items([middle]))
        dataset.PixelPaddingValue, dataset.ConvolutionKernel = 0, "B30f"
        for item in dataset.iterall():
            if item.VR == "SQ":
                item.is_undefined_length = undefined
                for one in item.value:
                    one.is_undefined_length_sequence_item = undefined
        dataset.is_undefined_length_sequence_item = undefined

    series = synthetic.write_series(path, np.zeros((2, 6, 8)), transfer_syntax=syntax, edit=decorate)
    return series.paths[0]


KINDS = pytest.mark.parametrize(
    ("undefined", "syntax"), [(u, s) for u in (False, True) for s in ("explicit", "implicit", "rle")]
)


@KINDS
def test_nested_sequences_and_private_elements_are_walked_over(tmp_path: Path, undefined: bool, syntax: str) -> None:
    path = decorated(tmp_path, undefined=undefined, syntax=syntax)
    assert_like_pydicom(path)
    header = read_header(path)
    assert header is not None
    assert header.number("Rows") == 6
    assert header.text("ConvolutionKernel") == "B30f"


def test_a_sequence_of_unknown_vr_and_undefined_length_is_implicit_inside(tmp_path: Path) -> None:
    """PS3.5 section 6.2.2, note 4: what an anonymiser that knows no private VRs writes."""
    path = synthetic.write_series(tmp_path, np.zeros((2, 6, 8))).paths[0]
    raw = path.read_bytes()
    at = raw.index(b"\x28\x00\x02\x00US")  # the first element of group 0028
    inner = b"\x28\x00\x10\x00" + (2).to_bytes(4, "little") + b"\x09\x03"
    item = b"\xfe\xff\x00\xe0\xff\xff\xff\xff" + inner + b"\xfe\xff\x0d\xe0\0\0\0\0"
    sequence = b"\x21\x00\x01\x10UN\0\0\xff\xff\xff\xff" + item + b"\xfe\xff\xdd\xe0\0\0\0\0"
    path.write_bytes(raw[:at] + sequence + raw[at:])
    assert_like_pydicom(path)


def test_a_file_without_preamble_or_meta_information(tmp_path: Path) -> None:
    series = synthetic.write_series(tmp_path, np.zeros((2, 6, 8)), transfer_syntax="implicit")
    dataset = pydicom.dcmread(series.paths[0])
    bare = io.BytesIO()
    pydicom.filewriter.dcmwrite(bare, dataset, enforce_file_format=False)
    raw = bare.getvalue()
    path = tmp_path / "bare.dcm"
    path.write_bytes(
        raw[raw.index(b"\x08\x00\x05\x00") if b"\x08\x00\x05\x00" in raw else raw.index(b"\x08\x00\x08\x00") :]
    )
    header = read_header(path)
    whole = read_header(series.paths[0])
    assert header is not None
    assert whole is not None
    assert header.text("SOPInstanceUID") == whole.text("SOPInstanceUID")
    assert np.array_equal(read_slice(header).read_hu((0, 6), (0, 8)), read_slice(whole).read_hu((0, 6), (0, 8)))


@pytest.mark.parametrize("name", ["a.txt", "noextension", "b.pdf"])
@pytest.mark.parametrize("content", [b"", b"hello", b"%PDF-1.4" + bytes(500), bytes(1000)])
def test_files_that_are_not_dicom_are_none(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    assert read_header(tmp_path / name) is None


@pytest.mark.parametrize("content", [b"", b"hello", b"%PDF-1.4" + bytes(500), bytes(1000)])
def test_files_named_dcm_that_are_none_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.DCM").write_bytes(content)
    with pytest.raises(InputError):
        read_header(tmp_path / "a.DCM")


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        read_header(tmp_path / "nothing.dcm")


# -- Damaged files ------------------------------------------------------------------------------------------------


def harmless(path: Path) -> Header | None:
    """The header of a damaged file, or nothing: never another exception, here or when it is used as a slice."""
    try:
        header = read_header(path)
        if header is not None:
            piece = read_slice(header)
            if piece.shape[0] * piece.shape[1] <= 2**20:
                piece.read_hu((0, piece.shape[0]), (0, piece.shape[1]))
    except InputError as error:
        awkward.assert_told(error)
        return None
    return header


@KINDS
def test_a_file_cut_anywhere_is_never_an_image(tmp_path: Path, undefined: bool, syntax: str) -> None:
    path = decorated(tmp_path, undefined=undefined, syntax=syntax)
    raw = path.read_bytes()
    cut = tmp_path / "cut.dcm"
    private = raw.index(bytes(range(256)))
    inside = range(private + 300, private + 256 * 40 - 300)  # a long stretch in which nothing begins
    for size in (n for n in range(len(raw)) if n not in inside or n % 512 == 0):
        cut.write_bytes(raw[:size])
        assert harmless(cut) is None, size


@pytest.mark.parametrize("syntax", ["big-endian", "deflated", "jpeg-ls", "j2k"])
def test_a_file_that_pydicom_reads_cut_anywhere_is_never_an_image(tmp_path: Path, syntax: str) -> None:
    path = synthetic.write_series(tmp_path, synthetic.texture_hu((2, 12, 10)), transfer_syntax=syntax).paths[0]
    raw = path.read_bytes()
    cut = tmp_path / "cut.dcm"
    for size in range(0, len(raw) - 1, 7):
        cut.write_bytes(raw[:size])
        assert harmless(cut) is None, size


def test_random_bytes_in_a_file_are_read_or_refused(tmp_path: Path) -> None:
    samples = [
        decorated(tmp_path / syntax, undefined=True, syntax=syntax).read_bytes() for syntax in ("explicit", "implicit")
    ]
    for syntax in ("rle", "deflated", "big-endian", "j2k"):
        series = synthetic.write_series(tmp_path / syntax, synthetic.texture_hu((2, 12, 10)), transfer_syntax=syntax)
        samples.append(series.paths[0].read_bytes())
    damaged = tmp_path / "damaged.dcm"

    @SETTINGS
    @given(
        st.integers(0, len(samples) - 1),
        st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), min_size=1, max_size=6),
        st.booleans(),
    )
    def check(sample: int, flips: list[tuple[float, int]], early: bool) -> None:
        data = bytearray(samples[sample])
        for place, value in flips:
            data[132 + int(place * (min(len(data), 1400 if early else len(data)) - 133))] = value
        damaged.write_bytes(data)
        harmless(damaged)

    check()


@SETTINGS
@given(st.binary(max_size=400), st.booleans())
def test_random_bytes_after_a_preamble_are_read_or_refused(tmp_path: Path, tail: bytes, explicit: bool) -> None:
    syntax = b"1.2.840.10008.1.2.1\0" if explicit else b"1.2.840.10008.1.2\0"
    meta = b"\x02\x00\x10\x00UI" + len(syntax).to_bytes(2, "little") + syntax
    path = tmp_path / "random.dcm"
    path.write_bytes(bytes(128) + b"DICM" + meta + tail)
    harmless(path)


@pytest.mark.parametrize("syntax", ["explicit", "implicit"])
def test_endless_nesting_is_refused(tmp_path: Path, syntax: str) -> None:
    path = synthetic.write_series(tmp_path, np.zeros((2, 6, 8)), transfer_syntax=syntax).paths[0]
    raw = path.read_bytes()
    at = raw.index(b"\x28\x00\x02\x00")
    sequence = b"\x21\x00\x01\x10" + (b"SQ\0\0" if syntax == "explicit" else b"") + b"\xff\xff\xff\xff"
    path.write_bytes(raw[:at] + (sequence + b"\xfe\xff\x00\xe0\xff\xff\xff\xff") * 3000 + raw[at:])
    with pytest.raises(InputError, match="nested deeper"):
        read_header(path)


# -- Stored values ------------------------------------------------------------------------------------------------


@st.composite
def containers(draw: st.DrawFn) -> tuple[StoredFormat, list[int], list[int]]:
    """A format, values that it can hold, and containers with these values and garbage in all other bits."""
    allocated = draw(st.sampled_from((8, 16, 32)))
    stored = draw(st.integers(1 if allocated == 8 else 8, allocated))
    high = draw(st.integers(stored - 1, allocated - 1))
    signed = draw(st.booleans())
    low, top = (-(1 << stored - 1), (1 << stored - 1) - 1) if signed else (0, (1 << stored) - 1)
    values = draw(st.lists(st.one_of(st.integers(low, top), st.sampled_from((low, top))), min_size=1, max_size=20))
    words = []
    for value in values:
        shift = high + 1 - stored
        field = ((1 << stored) - 1) << shift
        garbage = draw(st.integers(0, (1 << allocated) - 1)) & ~field
        words.append((value & (1 << stored) - 1) << shift | garbage)
    return StoredFormat(allocated, stored, high, signed), values, words


@settings(deadline=None)
@given(containers())
def test_stored_values_whatever_the_bits_around_them(case: tuple[StoredFormat, list[int], list[int]]) -> None:
    form, values, words = case
    assert form.values(np.array(words, f"<u{form.allocated // 8}")).tolist() == values


DEPTHS = [(syntax, bits) for syntax in ("explicit", "rle", "big-endian") for bits in range(8, 17)]
DEPTHS.remove(("rle", 8))  # which pydicom encodes as if it were 8 bits allocated


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize(("syntax", "stored"), DEPTHS)
def test_every_bit_depth_through_a_file(tmp_path: Path, stored: int, signed: bool, syntax: str) -> None:
    low, high = (-(2 ** (stored - 1)), 2 ** (stored - 1)) if signed else (0, 2**stored)
    values = np.random.default_rng(stored).integers(low, high, (2, 6, 8))
    values[0, 0, :2] = low, high - 1
    garbage = 0b10110101 & (1 << 16 - stored) - 1
    options: dict[str, Any] = {"bits_stored": stored, "signed": signed, "high_bits": garbage}
    series = synthetic.write_series(tmp_path, values, slope=1, intercept=0, transfer_syntax=syntax, **options)
    for k, path in enumerate(series.paths):
        header = read_header(path)
        assert header is not None
        hu = read_slice(header).read_hu((0, 6), (0, 8))
        assert np.array_equal(hu, values[k].clip(-1024, 32767))


@given(
    st.integers(-(2**15), 2**16 - 1),
    st.one_of(st.none(), st.integers(-(2**15), 2**16 - 1)),
    st.booleans(),
)
def test_padding_range(value: int, limit: int | None, signed: bool) -> None:
    """The two elements as any program may have written them, signed or not, hold the same sixteen bits."""
    values = {"PixelPaddingValue": value, "PixelRepresentation": int(signed)}
    values |= {} if limit is None else {"PixelPaddingRangeLimit": limit}

    def meant(number: int) -> int:
        number &= 0xFFFF
        return number - 0x10000 if signed and number >= 0x8000 else number

    ends = sorted((meant(value), meant(value if limit is None else limit)))
    assert padding_range(Header(Path("a.dcm"), "", values, None)) == tuple(ends)


# -- The ladder of transfer syntaxes ------------------------------------------------------------------------------


def ladder_hu(name: str) -> np.ndarray:
    (path,) = LADDER.glob(f"*{name}.dcm")
    header = read_header(path)
    assert header is not None
    piece = read_slice(header)
    return piece.read_hu((0, piece.shape[0]), (0, piece.shape[1]))


def ladder_truth() -> np.ndarray:
    dataset = pydicom.dcmread(LADDER / "CTImage.dcm")
    stored = np.frombuffer(dataset.PixelData, "<i2").reshape(dataset.Rows, dataset.Columns).astype(float)
    return np.where(stored == -32768, -1024, stored - 1024).clip(-1024)


needs_ladder = pytest.mark.skipif(not LADDER.is_dir(), reason="no real data at ../shared/data")


@needs_ladder
@pytest.mark.parametrize(
    "name", ["CTImage", "1.2.2", "1.99", "4.90", "4.80", "4.70", "4.57", "10008.1.2", "1.2.5"], ids=str
)
def test_lossless_steps_of_the_ladder_are_identical(name: str) -> None:
    assert np.array_equal(ladder_hu(name), ladder_truth())


@needs_ladder
@pytest.mark.parametrize("name", ["4.91", "4.81"])
def test_lossy_steps_of_the_ladder_are_within_five(name: str) -> None:
    assert 0 < np.abs(ladder_hu(name) - ladder_truth()).max() <= 5


@needs_ladder
def test_the_step_without_decoder_is_refused() -> None:
    with pytest.raises(InputError, match="decode"):
        ladder_hu("4.51")


@pytest.mark.parametrize("size", [(10, 12), (8, 15), (12, 12), (16, 10)])
@pytest.mark.parametrize("syntax", ["j2k", "jpeg-ls", "jpeg-lossless"])
def test_a_stream_of_another_size_than_the_header_says_is_refused(
    tmp_path: Path, syntax: str, size: tuple[int, int]
) -> None:
    series = synthetic.write_series(tmp_path / "a", synthetic.texture_hu((2, 12, 10)), transfer_syntax=syntax)
    other = synthetic.write_series(tmp_path / "b", synthetic.texture_hu((2, *size)), transfer_syntax=syntax)
    dataset = pydicom.dcmread(series.paths[0])
    dataset.PixelData = pydicom.dcmread(other.paths[0]).PixelData
    dataset.save_as(series.paths[0])
    header = read_header(series.paths[0])
    assert header is not None
    with pytest.raises(InputError, match=r"decoded|header says"):
        read_slice(header).read_hu((0, 12), (0, 10))


def test_two_frames_in_one_compressed_file_are_refused(tmp_path: Path) -> None:
    series = synthetic.write_series(tmp_path, synthetic.texture_hu((2, 12, 10)), transfer_syntax="jpeg-ls")
    dataset = pydicom.dcmread(series.paths[0])
    (frame,) = pydicom.encaps.generate_frames(dataset.PixelData, number_of_frames=1)
    dataset.PixelData, dataset.NumberOfFrames = encapsulate([frame, frame]), 2
    dataset.save_as(series.paths[0])
    header = read_header(series.paths[0])
    assert header is not None
    with pytest.raises(InputError, match="2 frames"):
        read_slice(header)


# -- The compiled walk over runs of plain elements ----------------------------------------------------------------


def by_either_walk(path: Path) -> list[Any]:
    """What `read_header` gives or says, with the compiled walk and without it."""
    found: list[Any] = []
    for run in (ElementReader.run, lambda self, position, *_: ([], position)):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(ElementReader, "run", run)
            try:
                found.append(read_header(path))
            except InputError as error:
                found.append(str(error))
    return found


@KINDS
def test_runs_of_elements_are_read_as_one_by_one(tmp_path: Path, undefined: bool, syntax: str) -> None:
    """Whole, with bytes changed, elements twice, and cut off anywhere in the header."""
    path = decorated(tmp_path, undefined=undefined, syntax=syntax)
    whole, rng = path.read_bytes(), np.random.default_rng(3)
    one, other = by_either_walk(path)
    assert isinstance(one, Header)
    assert one == other
    told = set()
    for n in range(600):
        data = bytearray(whole)
        if n % 3:
            for place in rng.integers(128, 1500, rng.integers(1, 4)):
                data[place] = rng.choice([0, 1, 2, 8, 16, 65, 255, int(rng.integers(256))])
        else:
            del data[int(rng.integers(132, len(data))) :]
        path.write_bytes(data)
        one, other = by_either_walk(path)
        assert one == other
        told.add(isinstance(one, Header))
    assert told == {True, False}
