"""RTSTRUCT: which ROI, its points, what it refers to; real files, and damaged ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import awkward
import numpy as np
import pydicom
import pytest
import synthetic
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset

from ctpatch.contours.reference import check_reference
from ctpatch.contours.roi import DrawnROI
from ctpatch.contours.rtstruct import choose_roi, open_rtstruct
from ctpatch.errors import InputError
from ctpatch.images.series import read_series
from ctpatch.lesion.mask import lesion_mask

DATA = Path(__file__).parents[3] / "shared" / "data"
STS = sorted((DATA / "sts").glob("STS_*"))
SMALL = DATA / "rt_small"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="no real data at ../shared/data")


@pytest.fixture(scope="module")
def ct(tmp_path_factory: pytest.TempPathFactory) -> synthetic.Series:
    folder = tmp_path_factory.mktemp("ct")
    return synthetic.write_series(folder, np.zeros((6, 20, 24)), spacing=(2.0, 1.5), positions=3.0 * np.arange(6))


def read_rtstruct(path: Path, roi: str) -> DrawnROI:
    return open_rtstruct(path).drawn(roi)


def boxes(ct: synthetic.Series, slices: Any = (2, 3)) -> list[np.ndarray]:
    return [synthetic.rectangle(ct, k, (3.5, 4.5), (12.5, 10.5)) for k in slices]


# -- Points -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("syntax", ["explicit", "implicit", "deflated", "big-endian"])
def test_points_references_and_names(tmp_path: Path, ct: synthetic.Series, syntax: str) -> None:
    path = synthetic.write_rtstruct(tmp_path / "rt", {" GTV ": boxes(ct)}, ct, transfer_syntax=syntax)
    roi = read_rtstruct(path, "GTV")
    assert roi.name == "GTV"
    assert [np.allclose(a, b, atol=1e-9) for a, b in zip(roi.contours, boxes(ct), strict=True)] == [True, True]
    assert roi.refers.frame_of_reference == ct.frame_uid
    assert roi.refers.series_uids == {ct.series_uid}
    assert roi.refers.sop_uids == {ct.sop_uids[2], ct.sop_uids[3]}
    assert not roi.xor


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(*[st.floats(-1e5, 1e5)] * 3), min_size=3, max_size=30))
def test_points_are_those_of_the_decimal_strings(
    tmp_path: Path, ct: synthetic.Series, points: list[tuple[float, ...]]
) -> None:
    path = synthetic.write_rtstruct(tmp_path / "rt", {"GTV": [points]}, ct)
    (contour,) = read_rtstruct(path, "").contours
    written = pydicom.dcmread(path).ROIContourSequence[0].ContourSequence[0].ContourData
    assert contour.ravel().tolist() == [float(text) for text in written]


@pytest.mark.parametrize(
    ("text", "ok"),
    [(b"1\\2\\3\\4\\5\\6\\7\\8\\9 ", True), (b" 1 \\ 2\\3\\4\\5\\6\\7\\8\\9e0", True), (b"1\\2\\3,5", False)],
)
def test_decimal_strings_with_spaces(tmp_path: Path, ct: synthetic.Series, text: bytes, ok: bool) -> None:
    def edit(dataset: Dataset) -> None:
        item = dataset.ROIContourSequence[0].ContourSequence[0]
        tag = pydicom.tag.Tag("ContourData")
        item[tag] = pydicom.dataelem.RawDataElement(tag, "DS", len(text), text, 0, False, True)

    path = synthetic.write_rtstruct(tmp_path / "rt", {"GTV": boxes(ct)}, ct, edit=edit)
    if ok:
        assert read_rtstruct(path, "GTV").contours[0].tolist() == [[1, 2, 3], [4, 5, 6], [7, 8, 9]]
    else:
        with pytest.raises(InputError, match="not numbers"):
            read_rtstruct(path, "GTV")


def test_the_number_of_points_that_the_file_claims_does_not_matter(tmp_path: Path, ct: synthetic.Series) -> None:
    def edit(dataset: Dataset) -> None:
        dataset.ROIContourSequence[0].ContourSequence[0].NumberOfContourPoints = 99

    path = synthetic.write_rtstruct(tmp_path / "rt", {"GTV": boxes(ct)}, ct, edit=edit)
    assert [len(contour) for contour in read_rtstruct(path, "GTV").contours] == [4, 4]


# -- Names --------------------------------------------------------------------------------------------------------

NAMES = {1: "GTV", 2: "gtv", 3: "Lung left", 4: "3", 7: "", 9: "Lung left"}


@pytest.mark.parametrize(
    ("roi", "number"),
    [("GTV", 1), ("gtv", 2), ("lung LEFT", None), ("Lung left", None), ("3", 4), ("9", 9), ("1", 1), ("7", 7)],
)
def test_exact_name_then_a_name_like_it_then_a_number(roi: str, number: int | None) -> None:
    if number is None:
        with pytest.raises(InputError, match=r"2 ROIs are named like .*: numbers 3, 9"):
            choose_roi(roi, NAMES)
    else:
        assert choose_roi(roi, NAMES) == (number, NAMES[number])


@pytest.mark.parametrize("roi", ["Gtv", "PTV", "99", "²", "-1", "1.0"])
def test_names_that_mean_none_or_several(roi: str) -> None:
    with pytest.raises(InputError) as caught:
        choose_roi(roi, NAMES)
    assert caught.value.do


def test_a_file_without_rois(tmp_path: Path, ct: synthetic.Series) -> None:
    path = synthetic.write_rtstruct(tmp_path / "rt", {}, ct)
    for roi in ("", "GTV"):
        with pytest.raises(InputError):
            read_rtstruct(path, roi)


@pytest.mark.parametrize(
    "keyword", ["ROIContourSequence", "StructureSetROISequence", "ReferencedFrameOfReferenceSequence"]
)
@pytest.mark.parametrize("roi", ["", "GTV", "1"])
def test_a_file_without_a_sequence_is_read_or_refused(
    tmp_path: Path, ct: synthetic.Series, keyword: str, roi: str
) -> None:
    path = synthetic.write_rtstruct(tmp_path / "rt", {"GTV": boxes(ct)}, ct, edit=lambda d: delattr(d, keyword))
    if keyword == "ReferencedFrameOfReferenceSequence":
        read = read_rtstruct(path, roi)
        assert read.refers.series_uids == set()
        assert read.refers.frame_of_reference == ct.frame_uid
    elif keyword == "StructureSetROISequence" and not roi:  # without names, the only ROI is still the only one
        assert len(read_rtstruct(path, roi).contours) == 2
    else:
        with pytest.raises(InputError):
            read_rtstruct(path, roi)


@pytest.mark.parametrize("keyword", ["ROINumber", "ROIName"])
def test_a_roi_without_number_or_name_is_read_or_refused(tmp_path: Path, ct: synthetic.Series, keyword: str) -> None:
    def edit(dataset: Dataset) -> None:
        delattr(dataset.StructureSetROISequence[0], keyword)

    path = synthetic.write_rtstruct(tmp_path / "rt", {"GTV": boxes(ct)}, ct, edit=edit)
    if keyword == "ROIName":
        assert len(read_rtstruct(path, "1").contours) == 2
        assert len(read_rtstruct(path, "").contours) == 2
    else:
        with pytest.raises(InputError):
            read_rtstruct(path, "GTV")


@pytest.mark.parametrize("value", [None, ""])
def test_contours_without_a_roi_number_belong_to_none(tmp_path: Path, ct: synthetic.Series, value: str | None) -> None:
    def edit(dataset: Dataset) -> None:
        entry = dataset.ROIContourSequence[0]
        delattr(entry, "ReferencedROINumber") if value is None else setattr(entry, "ReferencedROINumber", value)

    path = synthetic.write_rtstruct(tmp_path / "rt", {"GTV": boxes(ct)}, ct, edit=edit)
    for roi in ("GTV", ""):
        with pytest.raises(InputError, match="has no contours"):
            read_rtstruct(path, roi)


def test_two_entries_of_one_roi_are_both_read(tmp_path: Path, ct: synthetic.Series) -> None:
    def edit(dataset: Dataset) -> None:
        for entry in dataset.ROIContourSequence:
            entry.ReferencedROINumber = 1

    path = synthetic.write_rtstruct(tmp_path / "rt", {"GTV": boxes(ct), "more": boxes(ct, (4,))}, ct, edit=edit)
    assert len(read_rtstruct(path, "GTV").contours) == 3


def test_another_kind_of_file_is_refused(ct: synthetic.Series) -> None:
    with pytest.raises(InputError, match="modality CT, not an RTSTRUCT"):
        read_rtstruct(ct.paths[0], "")


def test_several_referenced_series_are_no_reference(tmp_path: Path, ct: synthetic.Series) -> None:
    def edit(dataset: Dataset) -> None:
        study = dataset.ReferencedFrameOfReferenceSequence[0].RTReferencedStudySequence[0]
        other = Dataset()
        other.SeriesInstanceUID = "1.2.3"
        study.RTReferencedSeriesSequence.append(other)

    path = synthetic.write_rtstruct(tmp_path / "rt", {"GTV": boxes(ct)}, ct, edit=edit)
    assert read_rtstruct(path, "").refers.series_uids == set()
    assert check_reference(read_rtstruct(path, ""), read_series(ct.folder)) == ()


# -- Real files ---------------------------------------------------------------------------------------------------


@needs_data
@pytest.mark.parametrize("case", STS, ids=lambda p: p.name)
def test_re_exported_series_fit_by_geometry(case: Path) -> None:
    """No SOP UID matches (data/README.md); the contours lie on the slices all the same."""
    (path,) = (case / "mask").iterdir()
    roi, image = read_rtstruct(path, "GTV_Mass_CT"), read_series(case / "image")
    assert not roi.refers.sop_uids & set(image.sop_uids)
    (note,) = check_reference(roi, image)
    assert "by geometry" in note
    dataset = pydicom.dcmread(path)
    numbers = {item.ROIName: item.ROINumber for item in dataset.StructureSetROISequence}
    drawn = [e for e in dataset.ROIContourSequence if e.ReferencedROINumber == numbers["GTV_Mass_CT"]]
    expected = [np.array(item.ContourData, float).reshape(-1, 3) for item in drawn[0].ContourSequence]
    assert all(np.array_equal(a, b) for a, b in zip(roi.contours, expected, strict=True))
    assert lesion_mask(roi, image.stack).voxels.any()


@needs_data
def test_ten_rois_one_of_them_empty() -> None:
    path = SMALL / "dicompyler" / "rtss.dcm"
    structures = open_rtstruct(path)
    names, drawn = structures.names, structures.contours
    assert len(names) == 10
    assert len(drawn) == 9
    for number, name in names.items():
        if number in drawn:
            roi = read_rtstruct(path, str(number) if name.isdecimal() else name)
            assert sum(map(len, roi.contours)) > 0
        else:
            with pytest.raises(InputError, match="has no contours"):
                read_rtstruct(path, name)


@needs_data
@pytest.mark.parametrize("name", ["rt.dcm", "invalid_reference_rt.dcm", "non_existent_reference_rt.dcm"])
def test_small_files_are_read_or_refused(name: str) -> None:
    path = SMALL / "rtutils_mock" / name
    for number in open_rtstruct(path).contours:
        try:
            roi = read_rtstruct(path, str(number))
        except InputError as error:
            awkward.assert_told(error)
        else:
            assert all(len(contour) >= 3 for contour in roi.contours)


# -- Damaged files ------------------------------------------------------------------------------------------------


def delimited(dataset: Dataset) -> None:
    """Sequences and items of undefined length, each closed by a delimiter."""
    for element in dataset:
        if element.VR == "SQ":
            element.is_undefined_length = True
            for item in element.value:
                item.is_undefined_length_sequence_item = True
                delimited(item)


@pytest.mark.parametrize("edit", [None, delimited])
@pytest.mark.parametrize("syntax", ["explicit", "implicit"])
def test_a_file_cut_anywhere_is_refused_or_lacks_nothing_of_a_contour(
    tmp_path: Path, ct: synthetic.Series, syntax: str, edit: Any
) -> None:
    path = synthetic.write_rtstruct(tmp_path / "rt", {"GTV": boxes(ct)}, ct, transfer_syntax=syntax, edit=edit)
    raw = path.read_bytes()
    assert (b"\xfe\xff\xdd\xe0" in raw) == (edit is delimited)
    cut = tmp_path / "cut"
    contours = read_rtstruct(tmp_path / "rt", "GTV").contours
    for size in range(0, len(raw) - 1, 5):
        cut.write_bytes(raw[:size])
        try:
            roi = read_rtstruct(cut, "GTV")
        except InputError:
            continue
        assert len(roi.contours) == len(contours), size
        assert all(np.array_equal(a, b) for a, b in zip(roi.contours, contours, strict=True)), size


def test_random_bytes_in_a_file_are_read_or_refused(tmp_path: Path, ct: synthetic.Series) -> None:
    samples = [
        synthetic.write_rtstruct(tmp_path / name, {"GTV": boxes(ct), "b": boxes(ct)}, ct, transfer_syntax=name)
        for name in ("explicit", "implicit")
    ]
    data = [path.read_bytes() for path in samples]
    image = read_series(ct.folder)
    damaged = tmp_path / "damaged"

    @settings(deadline=None, max_examples=250, derandomize=True)
    @given(
        st.integers(0, 1),
        st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=5),
    )
    def check(sample: int, flips: list[tuple[float, int]]) -> None:
        raw = bytearray(data[sample])
        for place, value in flips:
            raw[132 + int(place * (len(raw) - 132))] = value
        damaged.write_bytes(raw)
        try:
            roi = read_rtstruct(damaged, "GTV")
            check_reference(roi, image)
            lesion_mask(roi, image.stack)
        except InputError as error:
            awkward.assert_told(error)

    check()
