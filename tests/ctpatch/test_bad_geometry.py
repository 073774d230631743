"""Awkward geometry through the real commands: computed right, or refused in one line (numbers as in the test names)."""

from __future__ import annotations

import os
import shutil
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import awkward
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
import synthetic
from awkward import POSITIONS, SLICES, only, refused
from pydicom.dataset import Dataset
from pydicom.uid import UID

from ctpatch.store import open_store

LONG = 3.0 * np.arange(44)
LAST = awkward.SHAPE[0] - 1


def computed(folder: Path, ct: synthetic.Series, *options: str, **cells: str) -> awkward.Built:
    """The store of a case whose patches must equal the phantom."""
    store = awkward.built(folder, *options, **cells)
    awkward.assert_linear(store, ct)
    return store


def without(ct: synthetic.Series, *slices: int) -> synthetic.Series:
    """The series once these slices' files are gone."""
    for k in slices:
        ct.paths[k].unlink()
    return replace(ct, origins=np.delete(ct.origins, slices, axis=0))


def copied(ct: synthetic.Series, k: int, name: str, **elements: Any) -> Path:
    """Another file of slice `k` beside it, with these elements changed (SOPInstanceUID too, unless given)."""
    path = ct.folder / name
    shutil.copy(ct.paths[k], path)

    def change(dataset: pydicom.Dataset) -> None:
        for keyword, value in ({"SOPInstanceUID": synthetic.uid(name)} | elements).items():
            setattr(dataset, keyword, value)
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID

    awkward.edited(path, change)
    return path


# -- Order and number of slices -----------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("transfer_syntax", ["explicit", "big-endian", "jpeg-ls"])
def test_01_names_and_numbers_in_another_order_than_positions(tmp_path: Path, seed: int, transfer_syntax: str) -> None:
    computed(tmp_path, awkward.case(tmp_path, shuffle=seed, transfer_syntax=transfer_syntax))


@pytest.mark.parametrize("number", [None, 7])
def test_01_numbers_that_say_nothing(tmp_path: Path, number: int | None) -> None:
    computed(tmp_path, awkward.case(tmp_path, shuffle=3, edit=only(-1, InstanceNumber=number)))


@pytest.mark.parametrize("iop", [synthetic.AXIAL, synthetic.SAGITTAL, (-1.0, 0.0, 0.0, 0.0, 1.0, 0.0)])
def test_02_reversed_and_shuffled_files_give_the_same_bytes(tmp_path: Path, iop: tuple[float, ...]) -> None:
    orders = {"forward": None, "reversed": lambda k: f"{99 - k:04d}.dcm", "deep": lambda k: f"x{k * 7 % 16}"}
    stores = []
    for name, names in orders.items():
        (folder := tmp_path / name).mkdir()

        def number(dataset: pydicom.Dataset, k: int, names: Any = names) -> None:
            dataset.InstanceNumber = k + 1 if names is None else 99 - k

        ct = awkward.case(folder, names=names, edit=number, iop=iop)
        stores.append(computed(folder, ct).path.read_bytes())
    assert stores[0] == stores[1] == stores[2]


@pytest.mark.parametrize("lost", [SLICES[0], SLICES[3], SLICES[-1], 2, 13])
def test_03_a_missing_slice_within_reach_of_the_patches_is_refused(tmp_path: Path, lost: int) -> None:
    ct = awkward.case(tmp_path)
    without(ct, lost)
    if lost in SLICES:  # the slice's contour now lies half a gap from both neighbours
        awkward.contours(tmp_path, ct, {"GTV": awkward.box(ct, [k for k in SLICES if k != lost])})
    refused(tmp_path, f"6 mm between slices {lost} and {lost + 1}", "accept", "ct")


@pytest.mark.parametrize("lost", [SLICES[0], SLICES[3]])
def test_03_a_missing_slice_with_a_contour_on_it(tmp_path: Path, lost: int) -> None:
    """The contour lies in the gap, which no slice reaches into."""
    ct = awkward.case(tmp_path)
    without(ct, lost)
    refused(tmp_path, f"6 mm between slices {lost} and {lost + 1}", "accept", "rt.dcm")
    store = computed(tmp_path, ct, accept="gap")
    assert "accepted" in store.notes
    (told,) = [line for line in store.notes.splitlines() if "missing" in line]  # all of it in one line
    assert f"between slices {lost} and {lost + 1}" in told
    assert "its contour is left out" in told
    assert "slice spacing" not in store.notes


@pytest.mark.parametrize("lost", [6, 9, 12])
def test_03_an_accepted_gap_is_interpolated_where_the_slices_are(tmp_path: Path, lost: int) -> None:
    ct = awkward.case(tmp_path)
    without(ct, lost)
    awkward.contours(tmp_path, ct, {"GTV": awkward.box(ct, [k for k in SLICES if k != lost])})
    store = computed(tmp_path, ct, accept="gap")
    assert "accepted" in store.notes
    with open_store(store.path) as opened:
        assert opened.recipe["rows"][0]["accept"] == ["gap"]


@pytest.mark.parametrize("lost", [1, 42])
def test_03_a_gap_out_of_reach_is_told_and_computed(tmp_path: Path, lost: int) -> None:
    ct = awkward.series(tmp_path, positions=LONG, shape=(44, 40, 44))
    awkward.contours(tmp_path, ct, {"GTV": awkward.box(ct, range(20, 24))})
    without(ct, lost)
    store = computed(tmp_path, ct)
    missing = f"6 mm between slices {lost} and {lost + 1}: a slice is missing"
    assert missing in store.notes
    assert missing in store.check_notes


@pytest.mark.parametrize("lost", [(10,), (9, 10)])
def test_04_a_slice_with_contour_lost_at_the_end_is_refused(tmp_path: Path, lost: tuple[int, ...]) -> None:
    ct = awkward.case(tmp_path)
    without(ct, *lost, *range(SLICES[-1] + 1, LAST + 1))
    refused(tmp_path, r"a contour lies 3 mm from the nearest slice.*missing", "complete the series", "rt.dcm")


def test_04_a_slice_with_contour_lost_at_the_beginning_is_refused(tmp_path: Path) -> None:
    without(awkward.case(tmp_path), *range(SLICES[0] + 1))
    refused(tmp_path, r"a contour lies 3 mm from the nearest slice.*missing", path="rt.dcm")


@pytest.mark.parametrize("last", [SLICES[-1], SLICES[0] - 1])
def test_04_a_lesion_at_the_first_or_last_slice_is_told(tmp_path: Path, last: int) -> None:
    ct = awkward.case(tmp_path)
    store = computed(tmp_path, without(ct, *(range(last + 1, LAST + 1) if last == SLICES[-1] else range(last + 1))))
    assert "first or last slice" in store.notes
    assert "first or last slice" in store.check_notes


@pytest.mark.parametrize("k", [0, 8, LAST])
@pytest.mark.parametrize("size", [0, 64, 131, 700])
def test_04_an_empty_or_cut_file_is_never_skipped(tmp_path: Path, k: int, size: int) -> None:
    ct = awkward.case(tmp_path)
    ct.paths[k].write_bytes(ct.paths[k].read_bytes()[:size])
    refused(tmp_path, "zero bytes" if not size else "cut off|not readable", path=f"ct/{ct.paths[k].name}")


@pytest.mark.parametrize("name", ["0008.dcm", "zz", "zz.dcm"])
def test_04_a_broken_link_is_never_skipped(tmp_path: Path, name: str) -> None:
    ct = awkward.case(tmp_path)
    (ct.folder / name).unlink(missing_ok=True)
    (ct.folder / name).symlink_to(tmp_path / "gone")
    refused(tmp_path, "cannot be read", path=f"ct/{name}")


def test_04_a_directory_of_the_media_is_left_aside(tmp_path: Path) -> None:
    ct = awkward.case(tmp_path)
    listing = pydicom.dcmread(ct.paths[0], stop_before_pixels=True)
    meta = listing.file_meta
    meta.MediaStorageSOPClassUID = UID("1.2.840.10008.1.3.10")
    entry = pydicom.Dataset()
    entry.FileSetID, entry.DirectoryRecordSequence = "TEST", []
    entry.file_meta = meta
    entry.save_as(ct.folder / "DICOMDIR", enforce_file_format=True)
    assert "1 other files" in computed(tmp_path, ct).notes


def test_04_what_is_no_file_is_not_opened(tmp_path: Path) -> None:
    ct = awkward.case(tmp_path)
    os.mkfifo(ct.folder / "pipe.dcm")
    (ct.folder / "folder.dcm").mkdir()
    computed(tmp_path, ct)


@pytest.mark.parametrize("k", [0, 8, LAST])
def test_05_two_images_at_one_position_are_refused_with_what_tells_them_apart(tmp_path: Path, k: int) -> None:
    ct = awkward.case(tmp_path, edit=only(-1, ConvolutionKernel="B30f"))
    extra = copied(ct, k, "zz.dcm", ConvolutionKernel="B70f", InstanceNumber=99)
    found = refused(tmp_path, "two images at one position", "keep the right one", "ct")["found"]
    for part in (ct.paths[k].name, extra.name, ct.sop_uids[k][-12:], "ConvolutionKernel", "B30f", "B70f"):
        assert part in found


def test_05_a_chosen_series_decides(tmp_path: Path) -> None:
    ct = awkward.case(tmp_path)
    copied(ct, 8, "zz.dcm", SeriesInstanceUID=synthetic.uid("other"))
    computed(tmp_path, ct, series_uid=ct.series_uid)


@pytest.mark.parametrize("k", [0, 8, LAST])
def test_06_the_same_file_twice_counts_once(tmp_path: Path, k: int) -> None:
    ct = awkward.case(tmp_path)
    (ct.folder / "sub").mkdir()
    shutil.copy(ct.paths[k], ct.folder / "sub" / "again")
    store = computed(tmp_path, ct)
    assert "1 files are byte-identical copies" in store.notes
    assert "1 files are byte-identical copies" in store.check_notes


def test_06_the_whole_series_twice_counts_once(tmp_path: Path) -> None:
    ct = awkward.case(tmp_path)
    shutil.copytree(ct.folder, tmp_path / "copy")
    shutil.move(tmp_path / "copy", ct.folder / "copy")
    assert "16 files are byte-identical copies" in computed(tmp_path, ct).notes


def test_06_one_uid_with_other_bytes_is_refused(tmp_path: Path) -> None:
    ct = awkward.case(tmp_path)
    extra = copied(ct, 8, "zz.dcm", SOPInstanceUID=ct.sop_uids[8], RescaleIntercept=-1000)
    refused(tmp_path, rf"…{ct.sop_uids[8][-12:]}.*other content", "keep the right one", f"ct/{extra.name}")


# -- Where slices lie ---------------------------------------------------------------------------------------------

UNEVEN = {
    "3 then 6": np.concatenate([3.0 * np.arange(8), 21 + 6.0 * np.arange(1, 9)]),
    "6 then 3": np.concatenate([6.0 * np.arange(8), 42 + 3.0 * np.arange(1, 9)]),
    "random": np.cumsum(np.random.default_rng(0).uniform(2.0, 2.9, 16)),
}


@pytest.mark.parametrize("name", UNEVEN)
def test_07_uneven_spacing_keeps_every_slice_where_it_is(tmp_path: Path, name: str) -> None:
    ct = awkward.case(tmp_path, positions=UNEVEN[name])
    store = computed(tmp_path, ct)
    assert "slice spacing from" in store.notes
    assert awkward.voxels(awkward.plan(tmp_path).mask) == awkward.lesion_voxels()


@pytest.mark.parametrize("shear", [(0.0, 0.3), (0.0, -0.3), (0.25, 0.1)])
def test_08_gantry_tilt_keeps_every_slice_where_it_is(tmp_path: Path, shear: tuple[float, float]) -> None:
    ct = awkward.case(tmp_path, shear=shear, edit=only(-1, GantryDetectorTilt=0))
    store = computed(tmp_path, ct)
    assert "tilted or shifted stack" in store.notes
    assert awkward.voxels(awkward.plan(tmp_path).mask) == awkward.lesion_voxels()


def test_08_a_tilt_only_in_the_tag_moves_nothing(tmp_path: Path) -> None:
    assert "tilted" not in computed(tmp_path, awkward.case(tmp_path, edit=only(-1, GantryDetectorTilt=17))).notes


ORIENTATIONS = {
    "coronal": synthetic.CORONAL,
    "sagittal": synthetic.SAGITTAL,
    "feet first": (-1.0, 0.0, 0.0, 0.0, 1.0, 0.0),
    "prone": (-1.0, 0.0, 0.0, 0.0, -1.0, 0.0),
    "oblique": synthetic.rotation_iop((25.0, -13.0, 40.0)),
}


@pytest.mark.parametrize("name", ORIENTATIONS)
@pytest.mark.parametrize("split", ["train", "test"])
def test_09_any_orientation(tmp_path: Path, name: str, split: str) -> None:
    ct = awkward.case(tmp_path, iop=ORIENTATIONS[name], shuffle=3)
    computed(tmp_path, ct, split=split)
    assert awkward.voxels(awkward.plan(tmp_path).mask) == awkward.lesion_voxels()


def tilted(degrees: float) -> Any:
    """An edit that turns the orientation of the middle slice by a little."""
    turned = [f"{v:.8g}" for v in synthetic.rotation_iop((degrees, -degrees, degrees))]
    return only(8, ImageOrientationPatient=turned)


def test_10_noise_of_the_orientation_is_taken_as_noise(tmp_path: Path) -> None:
    computed(tmp_path, awkward.case(tmp_path, edit=tilted(np.degrees(1e-4))))


@pytest.mark.parametrize("degrees", [0.3, 5.0, 90.0])
def test_10_another_orientation_is_refused(tmp_path: Path, degrees: float) -> None:
    awkward.case(tmp_path, edit=tilted(degrees))
    refused(tmp_path, r"ImageOrientationPatient of '0008\.dcm' moves its far corner by [\d.]+ px", path="ct")


@pytest.mark.parametrize("wrong", [["1", "0", "0", "0", "1", "0.1"], ["1", "0", "0", "1", "0", "0"], ["0"] * 6])
def test_10_an_orientation_that_is_none_is_refused(tmp_path: Path, wrong: list[str]) -> None:
    awkward.case(tmp_path, edit=only(-1, ImageOrientationPatient=wrong))
    refused(tmp_path, "not two perpendicular unit vectors")


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_11_rounded_positions_are_taken_as_they_are_and_told(tmp_path: Path, seed: int) -> None:
    jitter = np.random.default_rng(seed).uniform(-0.005, 0.005, len(POSITIONS)).round(3)
    ct = awkward.case(tmp_path, positions=POSITIONS + jitter)
    assert "spacings differ by up to 0.0" in computed(tmp_path, ct).notes


def test_11_a_drift_in_the_positions_does_not_add_up(tmp_path: Path) -> None:
    ct = awkward.case(tmp_path, positions=np.round(POSITIONS / 3 * 2.6667, 1))
    computed(tmp_path, ct)


@pytest.mark.parametrize("tags", [{"SpacingBetweenSlices": 1.25}, {"SliceThickness": 7}, {"SpacingBetweenSlices": -5}])
def test_12_spacing_tags_are_never_used_and_told(tmp_path: Path, tags: dict[str, float]) -> None:
    ct = awkward.case(tmp_path, edit=only(-1, **tags))
    store = computed(tmp_path, ct)
    assert f"{next(iter(tags))} says" in store.notes
    assert f"{next(iter(tags))} says" in store.check_notes


@pytest.mark.parametrize("tags", [{"SpacingBetweenSlices": 3.001}, {"SliceThickness": 3}, {"SpacingBetweenSlices": -3}])
def test_12_spacing_tags_that_agree_are_no_news(tmp_path: Path, tags: dict[str, float]) -> None:
    assert "says" not in computed(tmp_path, awkward.case(tmp_path, edit=only(-1, **tags))).notes


# -- Which images belong ------------------------------------------------------------------------------------------


def two_series(folder: Path) -> tuple[synthetic.Series, synthetic.Series]:
    """The phantom, and another series of the patient in the same folder and frame of reference."""
    ct = awkward.case(folder, edit=only(-1, SeriesDescription="thin"))
    other = awkward.series(
        folder,
        hu=-awkward.hu(),
        series_uid=synthetic.uid("other"),
        frame_uid=ct.frame_uid,
        names=lambda k: f"b{k}",
        edit=only(-1, SeriesDescription="thick"),
    )
    return ct, other


def test_13_the_contours_choose_among_series(tmp_path: Path) -> None:
    ct, _ = two_series(tmp_path)
    assert "2 CT series in the folder" in computed(tmp_path, ct).notes


def test_13_the_manifest_chooses_among_series(tmp_path: Path) -> None:
    ct, other = two_series(tmp_path)
    awkward.contours(tmp_path, ct, references=False)
    computed(tmp_path, ct, series_uid=ct.series_uid)
    swapped = awkward.built(tmp_path, series_uid=other.series_uid)
    awkward.assert_linear(replace(swapped, hu=-swapped.hu), ct)


def test_13_several_series_without_a_choice_are_refused_with_their_listing(tmp_path: Path) -> None:
    ct, other = two_series(tmp_path)
    awkward.contours(tmp_path, ct, references=False)
    found = refused(tmp_path, "2 CT series", "series_uid", "ct")["found"]
    for part in (ct.series_uid[-12:], other.series_uid[-12:], "thin, 16 images", "thick, 16 images"):
        assert part in found


def test_13_a_series_that_is_not_there_is_refused(tmp_path: Path) -> None:
    awkward.case(tmp_path)
    refused(tmp_path, "no CT series 1.2.3 among", "series_uid", series_uid="1.2.3")


@pytest.mark.parametrize("description", ["thin\nDo: rm", "é ü", ""])
def test_13_the_listing_is_one_line_whatever_the_description(tmp_path: Path, description: str) -> None:
    ct, _ = two_series(tmp_path)
    awkward.contours(tmp_path, ct, references=False)
    for path in ct.paths:
        awkward.edited(path, lambda dataset: setattr(dataset, "SeriesDescription", description))
    refused(tmp_path, "2 CT series")


def localizer(ct: synthetic.Series, kind: list[str]) -> Path:
    """A coronal overview with the series' UID."""
    elements = {"ImageType": kind, "ImageOrientationPatient": list(map(str, synthetic.CORONAL)), "Rows": 20}
    data = pydicom.dcmread(ct.paths[0]).PixelData[: 20 * 44 * 2]
    return copied(ct, 0, "scout.dcm", PixelData=data, **elements)


@pytest.mark.parametrize("kind", [["ORIGINAL", "PRIMARY", "LOCALIZER"], ["DERIVED", "SECONDARY", "LOCALIZER", "CT"]])
@pytest.mark.parametrize("transfer_syntax", ["explicit", "implicit"])
def test_14_a_localizer_in_the_series_is_left_aside(tmp_path: Path, kind: list[str], transfer_syntax: str) -> None:
    ct = awkward.case(tmp_path, transfer_syntax=transfer_syntax)
    localizer(ct, kind)
    assert "1 localizer images" in computed(tmp_path, ct).notes


def test_14_an_overview_that_does_not_say_so_is_refused(tmp_path: Path) -> None:
    ct = awkward.case(tmp_path)
    localizer(ct, ["DERIVED", "PRIMARY", "OTHER"])
    refused(tmp_path, r"20, 44.*1 images \(scout\.dcm\)|ImageOrientationPatient of scout", path="ct")


@pytest.mark.parametrize("sop_class", ["1.2.840.10008.5.1.4.1.1.7", "1.2.840.10008.5.1.4.1.1.88.67"])
@pytest.mark.parametrize("k", [0, LAST])
def test_15_an_object_of_another_class_in_the_series(tmp_path: Path, sop_class: str, k: int) -> None:
    ct = awkward.case(tmp_path)
    copied(ct, k, "other.dcm", SOPClassUID=UID(sop_class), SeriesInstanceUID=ct.series_uid)
    assert "1 other files" in computed(tmp_path, ct).notes


def test_15_other_objects_and_files_are_counted_not_read(tmp_path: Path) -> None:
    ct = awkward.case(tmp_path)
    for i, sop_class in enumerate(("1.2.840.10008.5.1.4.1.1.7", "1.2.840.10008.5.1.4.1.1.88.67")):
        copied(ct, 5, f"other{i}.dcm", SOPClassUID=UID(sop_class), SeriesInstanceUID=ct.series_uid)
    (ct.folder / "DICOMDIR.txt").write_text("x")
    (ct.folder / "notes.pdf").write_bytes(b"%PDF-1.4" + bytes(1000))
    shutil.copy(tmp_path / "rt.dcm", ct.folder / "rt.dcm")
    store = computed(tmp_path, ct)
    assert "5 other files" in store.notes
    assert "5 other files" in store.check_notes


@pytest.mark.parametrize(
    ("tag", "values"),
    [("TemporalPositionIdentifier", (1, 2)), ("AcquisitionNumber", (3, 4)), ("TriggerTime", (0, 50))],
)
def test_16_two_time_points_in_one_series_are_refused_with_their_tag(
    tmp_path: Path, tag: str, values: tuple[int, int]
) -> None:
    ct = awkward.case(tmp_path, edit=only(-1, **{tag: values[0]}))
    for k in range(16):
        copied(ct, k, f"t{k:02d}.dcm", **{tag: values[1]})
    awkward.contours(tmp_path, ct, references=False)
    refused(
        tmp_path,
        rf"16 positions with 2 images each: {tag}.*{values[0]}(\.0)? \(16\), {values[1]}(\.0)? \(16\)",
        path="ct",
    )


@pytest.mark.parametrize("tag", ["TriggerTime", "AcquisitionNumber", "KVP"])
def test_16_the_time_point_that_the_contours_refer_to_is_used(tmp_path: Path, tag: str) -> None:
    ct = awkward.case(tmp_path, edit=only(-1, **{tag: "80"}))
    for k in range(16):
        copied(ct, k, f"t{k:02d}.dcm", RescaleIntercept=-924, **{tag: "140"})
    store = computed(tmp_path, ct)
    assert f"that of {tag} 80, which the contours refer to, is used" in store.notes


@pytest.mark.parametrize("k", [0, 8, LAST])
def test_17_another_pixel_spacing_in_one_slice_is_refused(tmp_path: Path, k: int) -> None:
    ct = awkward.case(tmp_path, edit=only(k, PixelSpacing=["2.0", "1.49"]))
    refused(tmp_path, rf"PixelSpacing.*1\.49.*1 images \({ct.paths[k].name}\).*1\.5.*15", path="ct")


@pytest.mark.parametrize("k", [0, 8, LAST])
def test_18_another_size_of_one_slice_is_refused(tmp_path: Path, k: int) -> None:
    def crop(dataset: pydicom.Dataset, slice_: int) -> None:
        if slice_ == k:
            dataset.Rows, dataset.PixelData = 39, dataset.PixelData[: 39 * 44 * 2]

    ct = awkward.case(tmp_path, edit=crop)
    refused(tmp_path, rf"\(39, 44\) in 1 images \({ct.paths[k].name}\) but \(40, 44\) in 15", path="ct")


@pytest.mark.parametrize("k", [0, 8, LAST])
@pytest.mark.parametrize("keyword", ["ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"])
@pytest.mark.parametrize("value", [None, ""])
def test_19_geometry_lacking_in_one_slice_is_refused(tmp_path: Path, k: int, keyword: str, value: str | None) -> None:
    ct = awkward.case(tmp_path, edit=only(k, **{keyword: value}))
    refused(tmp_path, f"{keyword} is missing", path=f"ct/{ct.paths[k].name}")


@pytest.mark.parametrize("keyword", ["ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"])
def test_20_geometry_lacking_everywhere_is_refused(tmp_path: Path, keyword: str) -> None:
    awkward.case(tmp_path, edit=only(-1, **{keyword: None}))
    refused(tmp_path, f"{keyword} is missing")


@pytest.mark.parametrize("spacing", [["0", "1.5"], ["-2", "1.5"]])
def test_20_a_spacing_that_is_none_is_refused(tmp_path: Path, spacing: list[str]) -> None:
    awkward.case(tmp_path, edit=only(-1, PixelSpacing=spacing))
    refused(tmp_path, "PixelSpacing .* is not positive")


def test_20_a_single_slice_is_refused(tmp_path: Path) -> None:
    without(awkward.case(tmp_path), *range(1, 16))
    refused(tmp_path, "single slice", "whole series", "ct")


@pytest.mark.parametrize("time", [False, True])
def test_20_slices_whose_position_was_lost_are_no_phases(tmp_path: Path, time: bool) -> None:
    """As ITK writes slices that were cut out of a volume and not given their positions."""

    def edit(dataset: Dataset, k: int) -> None:
        dataset.ImagePositionPatient = [0, 0, 0]
        dataset.AcquisitionTime = f"1000{k * time:02}"

    awkward.case(tmp_path, edit=edit)
    refused(tmp_path, "all 16 images lie at one position", "^export the series again", path="ct")


@pytest.mark.parametrize("files", [1, 8])
def test_20_many_slices_in_files_of_the_single_frame_class_are_refused(tmp_path: Path, files: int) -> None:
    def stack(dataset: pydicom.Dataset, _: int) -> None:
        dataset.NumberOfFrames, dataset.PixelData = 2, dataset.PixelData * 2

    ct = awkward.case(tmp_path, edit=stack)
    without(ct, *range(files, 16))
    refused(tmp_path, "2 frames", path="ct/0000.dcm")


# -- Other kinds of image -----------------------------------------------------------------------------------------


def enhanced(folder: Path, **changes: Any) -> synthetic.Series:
    options = {"spacing": awkward.SPACING, "origin": awkward.ORIGIN, "positions": POSITIONS, "slope": 1 / 16}
    ct = synthetic.write_enhanced(folder / "ct" / "all.dcm", awkward.hu(), **(options | changes))
    awkward.contours(folder, ct)
    return ct


@pytest.mark.parametrize("transfer_syntax", ["explicit", "rle"])
@pytest.mark.parametrize("order", [None, np.random.default_rng(0).permutation(16).tolist()])
@pytest.mark.parametrize("image", ["ct", "ct/all.dcm"])
def test_21_frames_in_any_order(tmp_path: Path, transfer_syntax: str, order: list[int] | None, image: str) -> None:
    ct = enhanced(tmp_path, order=order, transfer_syntax=transfer_syntax)
    computed(tmp_path, ct, image=image)
    assert awkward.voxels(awkward.plan(tmp_path, image=image).mask) == awkward.lesion_voxels()


def test_21_rescale_of_each_frame_its_own(tmp_path: Path) -> None:
    slopes = 1 / 16 + 0.001 * np.arange(16)
    computed(tmp_path, enhanced(tmp_path, slope=slopes, order=list(range(16))[::-1]))


def _frames_less(dataset: pydicom.Dataset) -> None:
    dataset.PerFrameFunctionalGroupsSequence = dataset.PerFrameFunctionalGroupsSequence[:-1]


def _no_position(dataset: pydicom.Dataset) -> None:
    del dataset.PerFrameFunctionalGroupsSequence[7].PlanePositionSequence


def _no_rescale(dataset: pydicom.Dataset) -> None:
    del dataset.SharedFunctionalGroupsSequence[0].PixelValueTransformationSequence


def _twice(dataset: pydicom.Dataset) -> None:
    groups = dataset.PerFrameFunctionalGroupsSequence
    groups[7].PlanePositionSequence = groups[6].PlanePositionSequence


@pytest.mark.parametrize(
    ("edit", "found"),
    [
        (_frames_less, "15 per-frame functional groups for 16 frames"),
        (_no_position, "ImagePositionPatient is missing in frame 8"),
        (_no_rescale, "RescaleSlope is missing in frame 1"),
        (_twice, "two images at one position"),
    ],
)
def test_21_incomplete_frames_are_refused(tmp_path: Path, edit: Any, found: str) -> None:
    enhanced(tmp_path, edit=edit)
    refused(tmp_path, found)


def test_21_two_multi_frame_files_in_a_series_are_refused(tmp_path: Path) -> None:
    ct = enhanced(tmp_path)
    copied(ct, 0, "more.dcm")
    refused(tmp_path, "2 files in one series with 2 multi-frame ones", path="ct")


@pytest.mark.parametrize("spacing", [(2.0, 1.5), (1.1, 2.3), (2.5, 0.75)])
def test_22_spacing_between_rows_and_columns_are_not_swapped(tmp_path: Path, spacing: tuple[float, float]) -> None:
    ct = awkward.case(tmp_path, spacing=spacing)
    computed(tmp_path, ct)
    assert awkward.voxels(awkward.plan(tmp_path).mask) == awkward.lesion_voxels()


def volume(folder: Path, name: str, iop: tuple[float, ...] = synthetic.AXIAL) -> synthetic.Series:
    """The phantom and a mask of the lesion as two volume files, in any orientation; DICOM only for the geometry."""
    ct = awkward.series(folder, name="unused", iop=iop)
    for values, kind in ((awkward.hu(iop=iop), f"image{name}"), (np.zeros(awkward.SHAPE), f"mask{name}")):
        if kind.startswith("mask"):
            values[5:11, 13:27, 15:29] = 1
        picture = sitk.GetImageFromArray(values.astype(np.float32 if kind.startswith("image") else np.uint8))
        picture.SetSpacing((awkward.SPACING[1], awkward.SPACING[0], 3.0))
        picture.SetOrigin(awkward.ORIGIN)
        picture.SetDirection(ct.axes.T.ravel().tolist())
        sitk.WriteImage(picture, str(folder / kind))
    return ct


@pytest.mark.parametrize("name", [".nii", ".nii.gz", ".nrrd", ".mha"])
@pytest.mark.parametrize("orientation", ["axial", "prone", "coronal", "oblique"])
def test_23_volumes_lie_where_their_headers_say(tmp_path: Path, name: str, orientation: str) -> None:
    volume(tmp_path, name, ORIENTATIONS.get(orientation, synthetic.AXIAL))
    store = awkward.built(tmp_path, image=f"image{name}", mask=f"mask{name}", accept="units")  # no air in the phantom
    plan = awkward.plan(tmp_path, image=f"image{name}", mask=f"mask{name}")
    where = awkward.points(store, plan.image.stack.axes)
    truth = (where - awkward.ORIGIN) @ awkward.GRADIENT
    inside = store.hu > -1024
    assert inside.mean() > 0.5
    assert np.abs((store.hu - truth)[inside]).max() <= 1.0 + 0.5 * awkward.GRADIENT @ (3, 3, 3)
    deep = np.abs(where - plan.image.stack.to_lps(plan.planes.point)[0]).max(axis=-1) < 12
    assert np.abs((store.hu - truth)[deep]).max() <= 1.0
    assert len(awkward.voxels(plan.mask)) == len(awkward.lesion_voxels())


@pytest.mark.parametrize("which", ["image", "mask"])
def test_23_qform_and_sform_that_disagree_are_refused(tmp_path: Path, which: str) -> None:
    volume(tmp_path, ".nii")
    path = tmp_path / f"{which}.nii"
    raw = bytearray(path.read_bytes())
    (offset,) = struct.unpack_from("<f", raw, 268)  # qoffset_x
    struct.pack_into("<f", raw, 268, offset + 0.05)
    path.write_bytes(raw)
    refused(tmp_path, "qform.*sform|sform.*qform", path=path.name, image="image.nii", mask="mask.nii")


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_24_the_position_is_the_centre_of_the_first_voxel(tmp_path: Path, axis: int) -> None:
    gradient = np.eye(3)[axis] * 300.0
    ct = awkward.series(tmp_path)
    values = (ct.grid() - awkward.ORIGIN) @ gradient - 800
    ct = awkward.series(tmp_path, hu=values, slope=1)
    awkward.contours(tmp_path, ct)
    store = awkward.built(tmp_path, split="test")
    where = awkward.points(store, ct.axes)
    error = store.hu - ((where - awkward.ORIGIN) @ gradient - 800)
    assert abs(error[:, 16:48, 16:48].mean()) < 300 * 1.5e-3
    assert awkward.voxels(awkward.plan(tmp_path).mask) == awkward.lesion_voxels()
