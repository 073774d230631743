"""A CT series: which files, in which order, and the HU of any part of it; real series against SimpleITK."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path
from typing import Any

import awkward
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
import synthetic
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ctpatch.errors import InputError
from ctpatch.images import folder
from ctpatch.images.image import Box
from ctpatch.images.series import CTSeries, choose_series, read_folder, read_series

DATA = Path(__file__).parents[3] / "shared" / "data"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="no real data at ../shared/data")
SHAPE = (7, 9, 11)


def whole(series: CTSeries) -> Box:
    return Box((0, len(series.stack)), (0, series.stack.shape[0]), (0, series.stack.shape[1]))


# -- Reading a part -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["explicit", "implicit", "big-endian", "deflated", "rle", "enhanced"])
def texture(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[CTSeries, np.ndarray]:
    folder, hu = tmp_path_factory.mktemp(request.param), synthetic.texture_hu(SHAPE)
    if request.param == "enhanced":
        synthetic.write_enhanced(folder / "all.dcm", hu, order=[3, 1, 4, 0, 6, 5, 2])
    else:
        synthetic.write_series(folder, hu, transfer_syntax=request.param, shuffle=5)
    return read_series(folder), hu


ranges = [st.lists(st.integers(0, n), min_size=2, max_size=2, unique=True).map(sorted).map(tuple) for n in SHAPE]


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(box=st.builds(Box, *ranges))
def test_any_box_is_that_part_of_the_volume(texture: tuple[CTSeries, np.ndarray], box: Box) -> None:
    series, hu = texture
    part = hu[slice(*box.slices), slice(*box.rows), slice(*box.columns)]
    read = series.read_hu(box)
    assert read.dtype == np.float32
    assert box.shape == part.shape
    assert np.array_equal(read, part)


# -- Which series -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, synthetic.Series, synthetic.Series]:
    """Two CT series in subfolders, an RTSTRUCT and a text beside them."""
    folder = tmp_path_factory.mktemp("mixed")
    a, b = (synthetic.write_series(folder / name, np.zeros((3, 4, 5)), seed=name) for name in ("a", "b"))
    synthetic.write_rtstruct(folder / "rt.dcm", {"GTV": [synthetic.rectangle(a, 1, (0, 0), (2, 2))]}, a)
    (folder / "README").write_text("hello")
    return folder, a, b


def test_a_folder_is_read_with_its_subfolders(mixed: Any) -> None:
    folder, a, b = mixed
    read = read_folder(folder)
    assert read.others == 2
    assert {uid: len(headers) for uid, headers in read.series.items()} == {a.series_uid: 3, b.series_uid: 3}


def test_a_folder_is_read_once_until_a_file_of_it_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    really = folder.read_header
    monkeypatch.setattr(folder, "read_header", lambda path: [really(path), read.append(path.name)][0])

    def names() -> list[str]:
        """The descriptions of the series, after reading what has to be read."""
        read.clear()
        series = read_folder(tmp_path).series.values()
        return sorted(header.text("SeriesDescription") for headers in series for header in headers)

    synthetic.write_series(tmp_path, np.zeros((3, 4, 5)))
    first = names()
    assert (len(first), len(read)) == (3, 3)
    assert (names(), read) == (first, [])
    last = sorted(tmp_path.glob("*.dcm"))[-1]
    ds = pydicom.dcmread(last)
    ds.SeriesDescription = "another"
    ds.save_as(last)
    assert (names(), len(read)) == (sorted([*first[:2], "another"]), 3)
    status, content = last.stat(), last.read_bytes()
    time.sleep(0.02)  # a clock's tick of older kernels
    last.write_bytes(content.replace(b"another", b"mended!"))
    os.utime(last, ns=(status.st_atime_ns, status.st_mtime_ns))  # as an archive's timestamps would be
    assert (names(), len(read)) == (sorted([*first[:2], "mended!"]), 3)
    last.rename(last.with_name("moved.dcm"))
    assert (len(names()), len(read)) == (3, 3)
    (tmp_path / "moved.dcm").unlink()
    assert (len(names()), len(read)) == (2, 2)
    folder.forget_folder()
    assert (len(names()), len(read)) == (2, 2)


def test_what_chooses_a_series_and_what_it_says(mixed: Any) -> None:
    folder, a, b = mixed
    read = read_folder(folder)

    def chosen(uid: str = "", referenced: tuple[str, ...] = (), sops: tuple[str, ...] = ()) -> str:
        headers, notes = choose_series(read, uid, frozenset(referenced), frozenset(sops))
        assert bool(notes) == (not uid)
        return headers[0].text("SeriesInstanceUID")

    assert chosen(uid=a.series_uid) == a.series_uid
    assert chosen(uid=a.series_uid, referenced=(b.series_uid,), sops=b.sop_uids) == a.series_uid
    assert chosen(referenced=(b.series_uid,)) == b.series_uid
    assert chosen(sops=b.sop_uids[:1]) == b.series_uid
    assert chosen(referenced=("1.2.3",), sops=b.sop_uids[:1]) == b.series_uid
    for referenced, sops in (((), ()), (("1.2.3",), ()), ((), (a.sop_uids[0], b.sop_uids[0]))):
        with pytest.raises(InputError, match="2 CT series"):
            chosen(referenced=referenced, sops=sops)


def test_a_folder_without_ct_is_refused(tmp_path: Path) -> None:
    (tmp_path / "README").write_text("hello")
    with pytest.raises(InputError, match="no CT image among 1 files"):
        read_series(tmp_path)


def test_identity_and_content(mixed: Any, tmp_path: Path) -> None:
    folder, a, b = mixed
    one, other = (read_series(folder, uid) for uid in (a.series_uid, b.series_uid))
    assert one.uid == a.series_uid
    assert one.frame_of_reference == a.frame_uid
    assert one.sop_uids == a.sop_uids
    assert one.content == other.content  # equal pixels, whatever the UIDs
    third = synthetic.write_series(tmp_path, np.ones((3, 4, 5)))
    assert read_series(third.folder).content != one.content


@pytest.mark.parametrize("syntax", ["rle", "deflated", "big-endian", "j2k"])
def test_content_is_of_pixels_not_of_headers(tmp_path: Path, syntax: str) -> None:
    digests = []
    for patient in ("P1", "P2"):
        hu = synthetic.texture_hu((3, 12, 10))
        series = synthetic.write_series(tmp_path / patient, hu, transfer_syntax=syntax, patient_id=patient)
        digests.append(read_series(series.folder).content)
    assert digests[0] == digests[1]


def test_an_attribute_that_differs_between_slices_is_refused(tmp_path: Path) -> None:
    def edit(dataset: pydicom.Dataset, k: int) -> None:
        dataset.FrameOfReferenceUID = f"1.2.{k == 1:d}"

    synthetic.write_series(tmp_path, np.zeros((3, 4, 5)), edit=edit)
    with pytest.raises(InputError, match=r"FrameOfReferenceUID 1\.2\.1 in 1 images \(0001\.dcm\) but 1\.2\.0 in 2"):
        read_series(tmp_path)


def test_two_patients_in_one_series_are_refused_without_their_names(tmp_path: Path) -> None:
    synthetic.write_series(tmp_path, np.zeros((3, 4, 5)), edit=lambda d, k: setattr(d, "PatientID", f"Doe{k == 1:d}"))
    with pytest.raises(InputError, match="the images of its series have 2 PatientIDs") as caught:
        read_series(tmp_path)
    assert "Doe" not in str(caught.value)


@pytest.mark.parametrize("keyword", ["SOPInstanceUID", "SeriesInstanceUID"])
def test_an_identity_that_is_missing_is_refused(tmp_path: Path, keyword: str) -> None:
    series = synthetic.write_series(tmp_path, np.zeros((3, 4, 5)))
    dataset = pydicom.dcmread(series.paths[1])
    delattr(dataset, keyword)
    dataset.save_as(series.paths[1])
    with pytest.raises(InputError, match=f"{keyword} is missing"):
        read_series(tmp_path)


def test_a_regular_series_has_nothing_to_tell(tmp_path: Path) -> None:
    synthetic.write_series(tmp_path, np.zeros((5, 4, 5)), positions=2.5 * np.arange(5))
    assert read_series(tmp_path).notes == ()


# -- Real series --------------------------------------------------------------------------------------------------

REAL = [
    "sts/STS_003/image",
    "sts/STS_019/image",
    "sts/STS_025/image",
    "lidc/LIDC-IDRI-0001/ct",
    "lidc/LIDC-IDRI-0003/ct",
]


@needs_data
@pytest.mark.parametrize("name", [*REAL, "seg/dcmqi/ct-3slice"])
def test_real_series_are_those_that_simpleitk_reads(name: str) -> None:
    folder = DATA / name
    series = read_series(folder)
    files = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder))
    picture = sitk.ReadImage(files)
    stack = series.stack
    assert np.allclose(stack.origins[0], picture.GetOrigin(), atol=1e-6)
    assert np.allclose(stack.axes.T.ravel(), picture.GetDirection(), atol=1e-6)
    assert np.allclose((*stack.spacing[::-1], np.diff(stack.positions).mean()), picture.GetSpacing(), atol=1e-3)
    truth = sitk.GetArrayFromImage(picture).astype(np.float32).clip(-1024, None)
    hu = series.read_hu(whole(series))
    declared = pydicom.dcmread(files[0], stop_before_pixels=True).get("PixelPaddingValue")
    odd = hu != truth
    assert not odd.any() or (declared is not None and (hu[odd] == -1024).all())


@needs_data
def test_a_tilted_series_is_used_where_it_lies() -> None:
    series = read_series(DATA / "nasty" / "dicom2nifti_gantrytilting")
    assert any("tilted or shifted" in note for note in series.notes)
    origins = [
        pydicom.dcmread(path, stop_before_pixels=True).ImagePositionPatient
        for path in (DATA / "nasty" / "dicom2nifti_gantrytilting").iterdir()
    ]
    order = np.argsort(np.array(origins, float) @ series.stack.axes[2])
    assert np.allclose(series.stack.origins, np.array(origins, float)[order], atol=1e-9)


@needs_data
def test_a_series_with_a_missing_slice_says_where() -> None:
    series = read_series(DATA / "nasty" / "dicom2nifti_sliceincrement_001")
    assert any(
        note.startswith("10 mm between slices ") and note.endswith(": a slice is missing") for note in series.notes
    )


@needs_data
@pytest.mark.parametrize("name", ["rt_small/rtutils_mock", "rt_small/dicompyler"])
def test_small_folders_are_read_or_refused(tmp_path: Path, name: str) -> None:
    shutil.copytree(DATA / name, tmp_path / "x")
    try:
        series = read_series(tmp_path / "x")
    except InputError as error:
        awkward.assert_told(error)
    else:
        assert series.read_hu(whole(series)).shape == (len(series.stack), *series.stack.shape)
