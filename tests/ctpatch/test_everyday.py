"""Files that people really have, from public trackers: each is computed right, or refused for what it is.

Stacks within stacks: vtk-dicom 220, dcm2niix 887 and monai-deploy-app-sdk 532; maps sent as CT: OnkoDICOM 172.
"""

import csv
import re
from pathlib import Path
from typing import Any

import awkward
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
import synthetic
from awkward import POSITIONS, edited, refused
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from ctpatch.images.ct_image import StoredFormat
from ctpatch.images.units import has_lost_intercept

# -- Several stacks in one series ---------------------------------------------------------------------------------


def add_stack(ct: synthetic.Series, positions: np.ndarray, raised: float, **elements: Any) -> None:
    """More slices in `ct`'s series and folder: the phantom, so many HU higher."""
    origins = synthetic.slice_origins(positions, awkward.ORIGIN)
    other = awkward.series(
        ct.folder.parent, name="more", origins=origins, shape=(len(positions), *awkward.SHAPE[1:]), seed=1,
        hu=awkward.hu(origins=origins) + raised, series_uid=ct.series_uid, frame_uid=ct.frame_uid,
    )  # fmt: skip
    for k, path in enumerate(other.paths):
        moved = path.rename(ct.folder / f"more{k:02d}.dcm")

        def change(dataset: Dataset, k: int = k) -> None:
            dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = synthetic.uid("more", k)
            dataset.StudyInstanceUID = pydicom.dcmread(ct.paths[0]).StudyInstanceUID
            for keyword, value in elements.items():
                setattr(dataset, keyword, value)

        edited(moved, change)


def said(ct: synthetic.Series, **elements: Any) -> None:
    for path in ct.paths:
        edited(path, lambda dataset: [setattr(dataset, *pair) for pair in elements.items()])


INTERLEAVED = [
    pytest.param(POSITIONS + 16.5, {"AcquisitionNumber": 1}, {"AcquisitionNumber": 2}, id="passes overlap"),
    pytest.param(POSITIONS[:-1:2] + 1.5, {"SliceThickness": "3"}, {"SliceThickness": "6"}, id="thin and thick"),
    pytest.param(POSITIONS + 1.5, {"KVP": "80"}, {"KVP": "140"}, id="energies"),
    pytest.param(POSITIONS + 1.5, {"ConvolutionKernel": "B30f"}, {"ConvolutionKernel": "B70f"}, id="kernels"),
]


@pytest.mark.parametrize(("positions", "ours", "theirs"), INTERLEAVED)
def test_157_158_of_stacks_within_each_other_the_contours_choose_theirs(
    tmp_path: Path, positions: np.ndarray, ours: dict[str, Any], theirs: dict[str, Any]
) -> None:
    ct = awkward.case(tmp_path)
    said(ct, **ours)
    add_stack(ct, positions, 100, **theirs)
    store = awkward.built(tmp_path)
    awkward.assert_linear(store, ct)
    keyword, value = next(iter(ours.items()))
    assert f"several stacks; that of {keyword} {value}, which the contours refer to, is used" in store.notes


@pytest.mark.parametrize(("positions", "ours", "theirs"), INTERLEAVED)
@pytest.mark.parametrize("accept", ["", "gap"])
def test_157_158_stacks_within_each_other_are_refused_where_nothing_chooses(
    tmp_path: Path, positions: np.ndarray, ours: dict[str, Any], theirs: dict[str, Any], accept: str
) -> None:
    ct = awkward.case(tmp_path)
    awkward.contours(tmp_path, ct, references=False)
    said(ct, **ours)
    add_stack(ct, positions, 100, **theirs)
    found = f"stacks of different {next(iter(ours))}: .* lie within each other"
    refused(tmp_path, found, "name one in the column acquisition", path="ct", accept=accept)


def test_157_acquisitions_one_after_the_other_are_one_stack(tmp_path: Path) -> None:
    ct = awkward.case(tmp_path)
    for k, path in enumerate(ct.paths):
        edited(path, lambda dataset, k=k: setattr(dataset, "AcquisitionNumber", 1 + (k > 7)))  # type: ignore[misc]
    awkward.assert_linear(awkward.built(tmp_path), ct)


@pytest.mark.parametrize(("positions", "ours", "theirs"), INTERLEAVED)
@pytest.mark.parametrize("spelling", ["right", "wrong"])
def test_157_158_172_the_column_acquisition_chooses(
    tmp_path: Path, positions: np.ndarray, ours: dict[str, Any], theirs: dict[str, Any], spelling: str
) -> None:
    ct = awkward.case(tmp_path)
    awkward.contours(tmp_path, ct, references=False)
    said(ct, **ours)
    add_stack(ct, positions, 100, **theirs)
    (keyword, value), (_, other) = *ours.items(), *theirs.items()
    if spelling == "wrong":
        listed = f"no acquisition 'x': .*{keyword}: ({value} .*{other}|{other} .*{value}) "
        refused(tmp_path, listed, "name one in the column acquisition", path="ct", acquisition="x")
        return
    store = awkward.built(tmp_path, acquisition=str(value))
    awkward.assert_linear(store, ct)
    assert f"images of {keyword} {value}, as the manifest says" in store.notes


@pytest.mark.parametrize("acquisition", ["1", "2"])
def test_172_of_two_phases_at_the_same_positions_the_named_one(tmp_path: Path, acquisition: str) -> None:
    """Of other pixel spacing, so that they would be no stack."""
    ct = awkward.case(tmp_path)
    awkward.contours(tmp_path, ct, references=False)
    said(ct, AcquisitionNumber=1)
    add_stack(ct, POSITIONS, 100, AcquisitionNumber=2)
    refused(tmp_path, r"16 positions with 2 images each: AcquisitionNumber: 1 \(16\), 2 \(16\)", path="ct")
    store = awkward.built(tmp_path, acquisition=acquisition)
    raised = np.array(awkward.ORIGIN) - np.array([0, 0, 20 * (acquisition == "2")])
    awkward.assert_linear(store, ct, origin=raised)


def test_172_contours_choose_between_energies_though_each_image_has_its_time(tmp_path: Path) -> None:
    ct = awkward.case(tmp_path)
    for k, path in enumerate(ct.paths):
        edited(path, lambda d, k=k: (setattr(d, "KVP", 80), setattr(d, "AcquisitionTime", f"1000{k:02}")))
    add_stack(ct, POSITIONS, 100, KVP=140)
    for k, path in enumerate(sorted(set(ct.folder.iterdir()) - set(ct.paths))):
        edited(path, lambda d, k=k: setattr(d, "AcquisitionTime", f"1001{k:02}"))
    store = awkward.built(tmp_path)
    awkward.assert_linear(store, ct)
    assert "the series holds several stacks; that of KVP 80, which the contours refer to, is used" in store.notes


def test_172_scan_takes_the_stack_that_the_contours_choose(tmp_path: Path) -> None:
    """As a build does: phases in one series must not cost a cohort its contours."""
    ct = awkward.case(tmp_path)
    said(ct, AcquisitionNumber=1)
    add_stack(ct, POSITIONS, 100, AcquisitionNumber=2)
    found = awkward.run("scan", tmp_path, "--out", tmp_path / "found.csv")
    assert not [line for line in found.out if "left out" in line]
    (row,) = csv.DictReader((tmp_path / "found.csv").read_text().splitlines())
    assert (row["image"], row["mask"], row["roi"]) == ("ct", "rt.dcm", "GTV")
    awkward.assert_linear(awkward.built(tmp_path, **row | {"label": "T3"}), ct)


@pytest.mark.parametrize("keyword", ["InstanceNumber", "AcquisitionTime"])
def test_172_what_cannot_be_named_is_not_advised(tmp_path: Path, keyword: str) -> None:
    """What tells them apart is another value in each image: no cell can hold that."""
    ct = awkward.case(tmp_path)
    add_stack(ct, POSITIONS, 100)
    for k, path in enumerate(sorted(ct.folder.iterdir())):
        edited(path, lambda d, k=k: setattr(d, keyword, f"{100000 + k}"))
    refused(tmp_path, f"16 positions with 2 images each: {keyword}", "^give a folder with one of them$", path="ct")


@pytest.mark.parametrize("acquisition", ["80", "140"])
@pytest.mark.parametrize("where", ["KVP", "FrameAcquisitionNumber"])
def test_172_of_two_energies_in_one_enhanced_file_the_named_one(tmp_path: Path, acquisition: str, where: str) -> None:
    places = {"spacing": awkward.SPACING, "origin": awkward.ORIGIN, "slope": 1 / 16}
    hu = np.repeat(awkward.hu(), 2, axis=0)
    hu[1::2] += 100
    ct = synthetic.write_enhanced(tmp_path / "ct" / "all.dcm", hu, positions=np.repeat(POSITIONS, 2), **places)
    lesion = awkward.series(tmp_path, name="lesion", frame_uid=ct.frame_uid, series_uid=ct.series_uid)
    awkward.contours(tmp_path, lesion, references=False)

    def change(dataset: Dataset) -> None:
        for frame, group in enumerate(dataset.PerFrameFunctionalGroupsSequence):
            item, value = Dataset(), (80, 140)[frame % 2]
            if where == "KVP":
                item.KVP = value
                group.CTXRayDetailsSequence = [item]
            else:
                item.FrameAcquisitionNumber = value
                group.FrameContentSequence = [item]

    edited(tmp_path / "ct" / "all.dcm", change)
    refused(tmp_path, "16 positions with 2 images each: .*: 140 .*, 80 ", "column acquisition", path="ct")
    raised = np.array(awkward.ORIGIN) - np.array([0, 0, 20 * (acquisition == "140")])
    awkward.assert_linear(awkward.built(tmp_path, acquisition=acquisition), lesion, origin=raised)


ONE_STACK = [
    pytest.param("SliceThickness", lambda k: "5" if 4 <= k < 12 else "10", id="thick, thin, thick"),
    pytest.param("SliceThickness", lambda k: "3" if k != 8 else "2.99", id="another in one slice"),
    pytest.param("SliceThickness", lambda k: "3" if k not in (11, 13) else "2.9", id="another in two slices"),
    pytest.param("SliceThickness", lambda k: "3" if 0 < k < 15 else "2.5", id="another at both ends"),
    pytest.param("SliceThickness", lambda k: "3" if k % 3 else "4", id="another in every third"),
    pytest.param("AcquisitionNumber", lambda k: None if k == 9 else 1, id="missing in one slice"),
    pytest.param("AcquisitionNumber", lambda k: (1, 2, 1, 2)[k // 4], id="blocks by turns"),
]
BLOCKS = np.cumsum([0.0] + [6.0] * 4 + [3.0] * 7 + [6.0] * 4)


@pytest.mark.parametrize(("keyword", "value"), ONE_STACK)
@pytest.mark.parametrize("positions", [POSITIONS, BLOCKS], ids=["even", "6, 3 and 6 mm"])
def test_slices_that_say_something_else_are_of_their_stack(
    tmp_path: Path, positions: np.ndarray, keyword: str, value: Any
) -> None:
    """What lies in the place of none of the others is no stack of its own: every slice is used."""
    plain, said = (awkward.series(tmp_path / name, positions=positions, edit=edit) for name, edit in (
        ("plain", None), ("said", lambda ds, k: setattr(ds, keyword, value(k)))
    ))  # fmt: skip
    for ct in (plain, said):
        awkward.contours(ct.folder.parent, ct)
    stores = [awkward.built(ct.folder.parent) for ct in (plain, said)]
    assert np.array_equal(stores[0].hu, stores[1].hu)
    assert "several stacks" not in stores[1].notes


@pytest.mark.parametrize("lost", [3, 8, 12])
def test_stacks_within_each_other_are_two_with_a_slice_missing(tmp_path: Path, lost: int) -> None:
    ct = awkward.case(tmp_path)
    awkward.contours(tmp_path, ct, references=False)
    said(ct, KVP="80")
    add_stack(ct, np.delete(POSITIONS, lost) + 1.5, 100, KVP="140")
    refused(tmp_path, "stacks of different KVP: .* lie within each other", path="ct")


@pytest.mark.parametrize("lost", [3, 8, 12])
def test_phases_at_the_same_positions_are_two_with_an_image_missing(tmp_path: Path, lost: int) -> None:
    ct = awkward.case(tmp_path)
    said(ct, AcquisitionNumber=1)
    add_stack(ct, np.delete(POSITIONS, lost), 100, AcquisitionNumber=2)
    store = awkward.built(tmp_path)
    awkward.assert_linear(store, ct)
    assert "several stacks; that of AcquisitionNumber 1, which the contours refer to, is used" in store.notes
    store.path.unlink()
    awkward.contours(tmp_path, ct, references=False)
    found = r"16 positions with up to 2 images each: AcquisitionNumber: 1 \(16\), 2 \(15\) tells them apart"
    refused(tmp_path, found, "name one in the column acquisition", path="ct")
    awkward.assert_linear(awkward.built(tmp_path, acquisition="1"), ct)


def test_172_an_acquisition_after_another_can_be_named(tmp_path: Path) -> None:
    ct = awkward.case(tmp_path)
    for k, path in enumerate(ct.paths):
        edited(path, lambda dataset, k=k: setattr(dataset, "AcquisitionNumber", 1 + (k > 12)))  # type: ignore[misc]
    store = awkward.built(tmp_path, acquisition="1")
    assert "only the 13 images of AcquisitionNumber 1" in store.notes
    store.path.unlink()
    refused(tmp_path, "a contour lies 24 mm off every slice", acquisition="2")


# -- One image twice, one position twice, a stray slice ----------------------------------------------------------


@pytest.mark.parametrize("drawn_on", ["first", "second"])
@pytest.mark.parametrize("syntax", ["explicit", "implicit"])
def test_176_images_sent_again_count_once(tmp_path: Path, drawn_on: str, syntax: str) -> None:
    ct = awkward.case(tmp_path, transfer_syntax=syntax)
    add_stack(ct, POSITIONS, 0)
    for k, path in enumerate(sorted(ct.folder.glob("more*"))):
        edited(path, lambda dataset, k=k: setattr(dataset, "InstanceNumber", 17 + k))  # type: ignore[misc]
    if drawn_on == "second":
        again = synthetic.Series(**vars(ct) | {"sop_uids": tuple(synthetic.uid("more", k) for k in range(16))})
        awkward.contours(tmp_path, again)
    store = awkward.built(tmp_path)
    awkward.assert_linear(store, ct)
    assert "16 images are there twice, with the same pixels under another UID, and count once" in store.notes
    assert "used by geometry" not in store.notes


LONG = 3.0 * np.arange(60)


def long_case(folder: Path) -> synthetic.Series:
    ct = awkward.series(folder, positions=LONG, shape=(60, *awkward.SHAPE[1:]))
    awkward.contours(folder, ct)
    return ct


@pytest.mark.parametrize("k", [0, 45, 59])
def test_177_a_position_twice_far_from_the_lesion_is_told(tmp_path: Path, k: int) -> None:
    ct = long_case(tmp_path) if k else awkward.series(tmp_path, positions=LONG, shape=(60, *awkward.SHAPE[1:]))
    if not k:
        awkward.contours(tmp_path, ct, {"GTV": awkward.box(ct, range(50, 54))})
    add_stack(ct, LONG[k : k + 1], 50)
    store = awkward.built(tmp_path)
    awkward.assert_linear(store, ct)
    assert "two images at one position" in store.notes
    assert "an error only where patches are cut" in store.notes


@pytest.mark.parametrize("k", [4, 8, 11, 15])
@pytest.mark.parametrize("accept", ["", "gap"])
def test_177_a_position_twice_within_reach_is_refused(tmp_path: Path, k: int, accept: str) -> None:
    add_stack(long_case(tmp_path), LONG[k : k + 1], 50)
    refused(tmp_path, "two images at one position", "keep the right one", path="ct", accept=accept)


@pytest.mark.parametrize("end", [0, 1])
def test_159_a_stray_slice_is_called_so(tmp_path: Path, end: int) -> None:
    """The lesion reaches the last slice before it: a voxel is no thicker for that."""
    positions = np.concatenate([[-202.5], 2.5 * np.arange(15)])
    slices = range(1, 4)
    if end:
        positions, slices = np.concatenate([2.5 * np.arange(15), [237.5]]), range(12, 15)
    ct = awkward.series(tmp_path, positions=positions)
    awkward.contours(tmp_path, ct, {"GTV": awkward.box(ct, slices)})
    found = f"slice {15 * end + 1} lies 202.5 mm from all others: a stray slice"
    refused(tmp_path, found, "take that slice out of the series", path="ct")
    store = awkward.built(tmp_path, accept="gap")
    awkward.assert_linear(store, ct)
    heights = store.center[:, 2] - awkward.ORIGIN[2]
    assert heights.min() >= positions[slices[0]] - 1.25
    assert heights.max() <= positions[slices[-1]] + 1.25
    assert f"{found}; accepted" in store.notes


def test_159_a_stray_slice_out_of_reach_is_told(tmp_path: Path) -> None:
    ct = awkward.series(tmp_path, positions=[-202.5, *LONG], shape=(61, *awkward.SHAPE[1:]))
    awkward.contours(tmp_path, ct, {"GTV": awkward.box(ct, range(25, 29))})
    store = awkward.built(tmp_path)
    awkward.assert_linear(store, ct)
    assert "a stray slice" in store.notes


# -- A series in pieces ------------------------------------------------------------------------------------------


def in_parts(folder: Path, parts: int = 4, **elements: Any) -> synthetic.Series:
    """An Enhanced CT sent as a concatenation: so many files of as many frames each; contours refer to the parts."""
    ct = awkward.series(folder, name="lesion")
    each = 16 // parts
    places = {"spacing": awkward.SPACING, "origin": awkward.ORIGIN, "slope": 1 / 16}
    for part in range(parts):
        own = slice(each * part, each * (part + 1))
        path = folder / "ct" / f"part{parts - part}.dcm"
        synthetic.write_enhanced(path, awkward.hu()[own], positions=POSITIONS[own], **places)

        def change(dataset: Dataset, part: int = part) -> None:
            dataset.SeriesInstanceUID, dataset.FrameOfReferenceUID = ct.series_uid, ct.frame_uid
            dataset.StudyInstanceUID = synthetic.uid("study")
            dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = synthetic.uid("part", part)
            dataset.ConcatenationUID = synthetic.uid("concatenation")
            dataset.InConcatenationNumber, dataset.InConcatenationTotalNumber = part + 1, parts
            dataset.ConcatenationFrameOffsetNumber = each * part
            for keyword, value in elements.items():
                setattr(dataset, keyword, value)

        edited(path, change)
    uids = tuple(synthetic.uid("part", k // each) for k in range(16))
    awkward.contours(folder, synthetic.Series(**vars(ct) | {"sop_uids": uids}))
    return ct


@pytest.mark.parametrize("parts", [2, 4, 8])
def test_160_a_concatenation_is_one_volume(tmp_path: Path, parts: int) -> None:
    ct = in_parts(tmp_path, parts)
    awkward.assert_linear(awkward.built(tmp_path), ct)


@pytest.mark.parametrize("lost", [1, 2, 4])
def test_160_an_incomplete_concatenation_is_refused_by_part_number(tmp_path: Path, lost: int) -> None:
    in_parts(tmp_path)
    (tmp_path / "ct" / f"part{5 - lost}.dcm").unlink()
    refused(tmp_path, f"part {lost} of 4 of the concatenated image is missing", "complete", path="ct")


def test_160_a_single_part_is_refused_too(tmp_path: Path) -> None:
    in_parts(tmp_path, 2)
    (tmp_path / "ct" / "part1.dcm").unlink()
    refused(tmp_path, "part 2 of 2", path="ct")


@pytest.mark.parametrize("elements", [{"ConcatenationUID": ""}, {"InConcatenationTotalNumber": 3}])
def test_160_files_that_are_no_parts_are_refused(tmp_path: Path, elements: dict[str, Any]) -> None:
    in_parts(tmp_path, **elements)
    refused(tmp_path, "4 files in one series|4 parts of a concatenated image of 3", path="ct")


def alone(dataset: Dataset, k: int) -> None:
    dataset.SeriesInstanceUID = synthetic.uid("own", k)


def test_175_a_series_uid_for_each_slice(tmp_path: Path) -> None:
    ct = awkward.case(tmp_path, edit=alone)
    line = refused(tmp_path, "^16 CT series of one image each$", "put series into the column accept", path="ct")
    assert len(line.string) < 200
    store = awkward.built(tmp_path, accept="series")
    awkward.assert_linear(store, ct)
    assert "16 images with a SeriesInstanceUID each are one series, as the manifest says" in store.notes


@pytest.mark.parametrize("series", [True, False])
def test_175_a_frame_of_reference_for_each_slice(tmp_path: Path, series: bool) -> None:
    """De-identification that makes each file's UIDs anew, in one series or not."""

    def own(dataset: Dataset, k: int) -> None:
        dataset.FrameOfReferenceUID = synthetic.uid("own frame", k)
        if series:
            alone(dataset, k)

    ct = awkward.case(tmp_path, edit=own)
    words = "series" if series else ""
    refused(tmp_path, "^FrameOfReferenceUID .* but ", "put frame into the column accept", path="ct", accept=words)
    store = awkward.built(tmp_path, accept=f"{words} frame")
    awkward.assert_linear(store, ct)
    assert "images of several frames of reference are one stack, as the manifest says" in store.notes


def test_175_other_series_beside_them_are_left_aside(tmp_path: Path) -> None:
    ct = awkward.case(tmp_path, edit=alone)
    awkward.series(tmp_path, name="ct/more", seed=4, hu=awkward.hu() + 100)
    awkward.assert_linear(awkward.built(tmp_path, accept="series"), ct)


@pytest.mark.parametrize("keyword", ["PatientID", "StudyInstanceUID"])
def test_175_slices_of_two_patients_or_studies_are_no_series(tmp_path: Path, keyword: str) -> None:
    def other(dataset: Dataset, k: int) -> None:
        alone(dataset, k)
        setattr(dataset, keyword, synthetic.uid("x") if k == 3 else synthetic.uid("y"))

    awkward.case(tmp_path, edit=other)
    refused(tmp_path, f"16 images have 2 values of {keyword}", path="ct", accept="series")


def test_175_an_ordinary_series_has_nothing_to_join(tmp_path: Path) -> None:
    awkward.case(tmp_path)
    refused(tmp_path, "nothing to join", "take series out", path="ct", accept="series")


# -- Values that are no HU, or no tissue ---------------------------------------------------------------------------


def write_volume(path: Path, hu: np.ndarray, dtype: Any = np.int16) -> None:
    image = sitk.GetImageFromArray(hu.astype(dtype))
    image.SetSpacing((awkward.SPACING[1], awkward.SPACING[0], 3.0))
    image.SetOrigin(awkward.ORIGIN)
    sitk.WriteImage(image, str(path))


NOT_HU = {
    "HU + 1024": (lambda hu: hu + 1024, np.uint16, "no value below -200"),
    "0 to 1": (lambda hu: (hu + 1000) / 2000, np.float32, "no value below -200"),
    "0 to 255": (lambda hu: (hu + 1000) / 2000 * 255, np.uint8, "no value below -200"),
    "a window": (lambda hu: np.clip(hu, -160, 240), np.int16, "no value below -200"),
    "few levels": (lambda hu: np.rint(hu / 40) * 40, np.int16, "only [0-9]+ different values"),
}


@pytest.mark.parametrize("name", ["image.nii.gz", "image.mha"])
@pytest.mark.parametrize("kind", NOT_HU)
def test_162_a_volume_that_does_not_look_like_hu(tmp_path: Path, kind: str, name: str) -> None:
    change, dtype, found = NOT_HU[kind]
    awkward.case(tmp_path)
    hu = np.where(np.arange(44) < 3, -1000, awkward.hu())
    write_volume(tmp_path / name, change(hu), dtype)
    line = awkward.refused_when_built(tmp_path, image=name)
    assert re.search(f"{found}: it does not look like a CT in HU", line)
    assert "put units into the column accept" in line


@pytest.mark.parametrize("name", ["image.nii.gz", "image.mha"])
def test_162_a_volume_in_hu_or_taken_for_it(tmp_path: Path, name: str) -> None:
    ct = awkward.case(tmp_path)
    write_volume(tmp_path / name, np.where(np.arange(44) < 3, -1000, awkward.hu()))
    assert awkward.built(tmp_path, image=name).hu.min() <= -1000
    write_volume(tmp_path / name, awkward.hu())
    (tmp_path / "s.h5").unlink()
    store = awkward.built(tmp_path, image=name, accept="units")
    awkward.assert_linear(store, ct)
    assert "taken for HU whatever they look like; accepted" in store.notes


def body() -> np.ndarray:
    """A patient in air: soft tissue, and lungs on both sides of it."""
    y, x = (index / size - 0.5 for index, size in zip(np.indices(awkward.SHAPE[1:]), awkward.SHAPE[1:], strict=True))
    inside, lungs = np.hypot(x, y) < 0.42, np.hypot(np.abs(x) - 0.2, y) < 0.12
    plane = np.where(lungs, -850, np.where(inside, 40, -1000))
    noise = np.random.default_rng(0).normal(0, 20, awkward.SHAPE)
    return np.maximum(np.rint(plane + noise), -1024)


@pytest.mark.parametrize("form", ["single-frame", "enhanced"])
def test_162_a_series_of_hu_and_1024_whose_intercept_was_lost(tmp_path: Path, form: str) -> None:
    """Found by `check`, too. The same pixels with their intercept are right."""
    places = {"spacing": awkward.SPACING, "origin": awkward.ORIGIN, "positions": POSITIONS}

    def write(hu: np.ndarray, intercept: int) -> None:
        if form == "enhanced":
            ct = synthetic.write_enhanced(tmp_path / "ct" / "all.dcm", hu, **places, intercept=intercept)
        else:
            ct = awkward.series(tmp_path, hu=hu, slope=1, intercept=intercept)
        awkward.contours(tmp_path, ct)
        awkward.manifest(tmp_path)

    write(body(), -1024)
    right = awkward.built(tmp_path).hu
    write(body() + 1024, 0)
    (tmp_path / "s.h5").unlink()
    found = r"RescaleIntercept is 0 and the pixels look like HU \+ 1024"
    awkward.refused(tmp_path, found, "restore RescaleIntercept -1024, .*units")
    assert np.array_equal(awkward.built(tmp_path, accept="units").hu, np.where(right == -1024, right, right + 1024))


@pytest.mark.parametrize("padded", [False, True])
def test_162_signed_pixels_of_hu_and_1024(tmp_path: Path, padded: bool) -> None:
    """As GE writes them, with -2000 outside its field of view."""
    outside = np.zeros(awkward.SHAPE, bool)
    outside[:, :6] = padded
    options = {"slope": 1, "signed": True, "padding_mask": outside, "padding_value": -2000}
    awkward.case(tmp_path, hu=body() + 1024, intercept=0, **options)
    awkward.refused(tmp_path, r"RescaleIntercept is 0 and the pixels look like HU \+ 1024", "units")
    awkward.case(tmp_path, hu=body(), intercept=0, **options)
    assert np.median(awkward.built(tmp_path).hu) < 100


def test_162_an_intercept_lost_in_some_slices(tmp_path: Path) -> None:
    lost = np.isin(np.arange(awkward.SHAPE[0]), (6, 7, 8))
    stored = np.where(lost[:, None, None], body() + 1024, body())
    awkward.case(tmp_path, hu=stored, slope=1, intercept=np.where(lost, 0, -1024))
    awkward.refused(tmp_path, r"RescaleIntercept is 0 and the pixels look like HU \+ 1024", "units")


@pytest.mark.parametrize("bits", [16, 12])
@pytest.mark.parametrize("syntax", ["explicit", "rle"])
def test_162_signed_pixels_under_an_unsigned_header(tmp_path: Path, bits: int, syntax: str) -> None:
    """As a script makes them that writes its HU as int16 into the header of an unsigned series: air was 32767 HU."""

    def unsigned(dataset: Dataset, k: int) -> None:
        dataset.PixelRepresentation, dataset.BitsStored, dataset.HighBit = 0, bits, bits - 1

    options = {"hu": body(), "slope": 1, "intercept": 0, "signed": True, "transfer_syntax": syntax}
    awkward.case(tmp_path, **options, edit=unsigned)
    found = "PixelRepresentation is 0 and the pixels are signed numbers"
    awkward.refused(tmp_path, found, "set PixelRepresentation to 1")
    awkward.case(tmp_path, **options)
    right = awkward.built(tmp_path)
    assert right.hu.min() < -900
    assert right.hu.max() < 2048


@pytest.mark.parametrize("overlay", [0b0001, 0b1000, 0b1111])
def test_162_overlays_above_unsigned_pixels_are_no_sign(overlay: int) -> None:
    words = (np.arange(4096) | overlay << 12).astype("<u2")
    assert not StoredFormat(16, 12, 11, False).lost_sign(words)
    assert not StoredFormat(16, 12, 15, False).lost_sign(words)


@pytest.mark.parametrize("name", ["image.nii.gz", "image.nrrd"])
@pytest.mark.parametrize("air", [True, False])
def test_162_a_volume_of_hu_and_1024_around_which_is_padding(tmp_path: Path, name: str, air: bool) -> None:
    raw = body() + 1024 if air else np.maximum(body() + 1024, 900)
    raw[:, :6] = -2000
    awkward.case(tmp_path)
    write_volume(tmp_path / name, raw)
    found = r"the voxels look like HU \+ 1024" if air else "no value below -200: it does not look like a CT in HU"
    assert re.search(found, awkward.refused_when_built(tmp_path, image=name))


@pytest.mark.parametrize("hu", [np.linspace(0, 1200, 9999), np.linspace(0, 4095, 9999), np.full(9999, 40)])
def test_162_what_else_has_no_negative_values_is_none_such(hu: np.ndarray) -> None:
    assert not has_lost_intercept(hu)
    assert not has_lost_intercept(body())
    assert has_lost_intercept(body() + 1024)


TISSUE_PADDING = {"water": 0, "fat": -100, "bone": 400, "metal": 3071, "range": (-1100, -400)}


@pytest.mark.parametrize("kind", TISSUE_PADDING)
@pytest.mark.parametrize("form", ["single-frame", "enhanced"])
def test_163_padding_that_is_a_tissues_value(tmp_path: Path, kind: str, form: str) -> None:
    at = TISSUE_PADDING[kind]
    low, high = at if isinstance(at, tuple) else (at, at)
    hu = np.rint(awkward.hu()) - 600
    hu[:, ::7] = (low + high) // 2
    if form == "enhanced":
        places = {"spacing": awkward.SPACING, "origin": awkward.ORIGIN, "positions": POSITIONS}
        ct = synthetic.write_enhanced(tmp_path / "ct" / "all.dcm", hu, **places)
    else:
        ct = awkward.series(tmp_path, hu=hu, slope=1)
    awkward.contours(tmp_path, ct)
    undeclared = awkward.built(tmp_path)

    def declare(dataset: Dataset) -> None:
        dataset.add_new(0x00280120, "US", 1024 + high)
        if low < high:
            dataset.add_new(0x00280121, "US", max(1024 + low, 0))

    for path in sorted((tmp_path / "ct").iterdir()):
        edited(path, declare)
    undeclared.path.unlink()
    line = awkward.refused_when_built(tmp_path)
    assert re.search("PixelPaddingValue means .* HU, which [0-9]+ pixels where patches are cut have", line)
    assert "put padding into the column accept" in line
    store = awkward.built(tmp_path, accept="padding")
    assert "pixels of the declared padding value are kept as they are; accepted" in store.notes
    assert np.array_equal(store.hu, undeclared.hu)


def test_163_padding_of_tissue_out_of_reach_is_no_harm(tmp_path: Path) -> None:
    hu = np.rint(awkward.hu(positions=LONG, shape=(60, *awkward.SHAPE[1:])))
    hu[40:] = 1500
    ct = awkward.series(tmp_path, positions=LONG, hu=hu + 0.0, slope=1, shape=(60, *awkward.SHAPE[1:]))
    awkward.contours(tmp_path, ct)
    for path in ct.paths:
        edited(path, lambda dataset: dataset.add_new(0x00280120, "US", 1024 + 1500))
    assert np.count_nonzero(hu[:25] == 1500) == 0
    awkward.assert_linear(awkward.built(tmp_path), ct)


# -- Maps that are sent as CT -------------------------------------------------------------------------------------


def mapping(unit: str) -> Sequence:
    code, item = Dataset(), Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = unit, "UCUM", "a unit"
    item.MeasurementUnitsCodeSequence = [code]
    return Sequence([item])


MAPS = {
    "iodine": ({"ImageType": ["DERIVED", "PRIMARY", "AXIAL", "MAT_SPECIFIC", "IODINE"]}, "Type says IODINE"),
    "effective Z": ({"ImageType": ["DERIVED", "PRIMARY", "AXIAL", "EFF_ATOMIC_NUM"]}, "Type says EFF_ATOMIC_NUM"),
    "perfusion": ({"ImageType": ["DERIVED", "PRIMARY", "PERFUSION"]}, "Type says PERFUSION"),
    "subtraction": ({"ImageType": ["DERIVED", "PRIMARY", "AXIAL", "SUBTRACTION"]}, "Type says SUBTRACTION"),
    "mapped": ({"RealWorldValueMappingSequence": mapping("mg/cm3")}, "gives 'mg/cm3', not HU"),
    "unspecified": ({"ImageType": ["DERIVED", "SECONDARY"], "RescaleType": "US"}, "RescaleType is 'US', not HU"),
    "other": ({"RescaleType": "MGML"}, "RescaleType is 'MGML', not HU"),
}


@pytest.mark.parametrize("syntax", ["explicit", "implicit", "big-endian"])
@pytest.mark.parametrize("name", MAPS)
def test_161_a_map_is_no_ct_unless_the_row_says_so(tmp_path: Path, name: str, syntax: str) -> None:
    elements, found = MAPS[name]
    ct = awkward.case(tmp_path, transfer_syntax=syntax)
    said(ct, **elements)
    refused(tmp_path, found, "put units into the column accept", path="ct/0000.dcm")
    store = awkward.built(tmp_path, accept="units")
    awkward.assert_linear(store, ct)
    assert "taken for HU whatever the header says; accepted by the manifest" in store.notes


@pytest.mark.parametrize(
    "elements",
    [
        {"RealWorldValueMappingSequence": mapping("[hnsf'U]")},
        {"ImageType": ["ORIGINAL", "PRIMARY", "AXIAL", "PERFUSION"]},
        {"ImageType": ["DERIVED", "PRIMARY", "AXIAL", "VMI"], "RescaleType": "HU_MOD"},
        {"ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"], "RescaleType": "US"},
    ],
)
def test_161_what_is_hu_stays_so(tmp_path: Path, elements: dict[str, Any]) -> None:
    ct = awkward.case(tmp_path)
    said(ct, **elements)
    awkward.assert_linear(awkward.built(tmp_path), ct)


def of_frames(dataset: Dataset, **groups: Dataset) -> None:
    for sequence, item in groups.items():
        setattr(dataset.SharedFunctionalGroupsSequence[0], sequence, [item])


def with_unit(dataset: Dataset) -> None:
    of_frames(dataset, RealWorldValueMappingSequence=mapping("ml/100ml/s")[0])


def with_frame_type(dataset: Dataset) -> None:
    frame_type = Dataset()
    frame_type.FrameType = ["DERIVED", "PRIMARY", "PERFUSION", "RCBF"]
    of_frames(dataset, CTImageFrameTypeSequence=frame_type)


@pytest.mark.parametrize(
    ("change", "found"), [(with_unit, "gives 'ml/100ml/s', not HU"), (with_frame_type, "Type says PERFUSION, RCBF")]
)
def test_161_a_map_in_an_enhanced_ct_is_refused_too(tmp_path: Path, change: Any, found: str) -> None:
    places = {"spacing": awkward.SPACING, "origin": awkward.ORIGIN, "positions": POSITIONS, "slope": 1 / 16}
    ct = synthetic.write_enhanced(tmp_path / "ct" / "all.dcm", awkward.hu(), **places)
    awkward.contours(tmp_path, ct)
    edited(tmp_path / "ct" / "all.dcm", change)
    refused(tmp_path, found, "put units into the column accept", path="ct/all.dcm")
    awkward.assert_linear(awkward.built(tmp_path, accept="units"), ct)


# -- What lies beside a series --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["VERSION", "LOCKFILE", "README", "autorun"])
@pytest.mark.parametrize("content", [b"", b"1.0\n"])
def test_a_small_file_beside_slices_without_suffix_is_no_slice(tmp_path: Path, name: str, content: bytes) -> None:
    """As on the CDs of a PACS."""
    ct = awkward.series(tmp_path, names=lambda k: f"IM{k:05d}")
    awkward.contours(tmp_path, ct)
    (ct.folder / name).write_bytes(content)
    assert "1 other files in the folder were left aside" in awkward.built(tmp_path).notes


@pytest.mark.parametrize("names", ["IM{:05d}", "1.2.840.{}", "A{:02X}F9", "I{}.dcm"])
def test_a_cut_off_file_that_is_named_like_the_slices_is_refused(tmp_path: Path, names: str) -> None:
    ct = awkward.series(tmp_path, names=names.format)
    awkward.contours(tmp_path, ct)
    path = ct.folder / names.format(200)
    path.write_bytes(b"DI")
    refused(tmp_path, "2 bytes, cut off|not readable as DICOM", path=f"ct/{path.name}")


def test_162_an_image_is_no_mask_of_itself(tmp_path: Path) -> None:
    awkward.case(tmp_path)
    write_volume(tmp_path / "ct.nii.gz", body())
    refused(
        tmp_path,
        "the mask is the image itself",
        "contours or mask",
        path="ct.nii.gz",
        image="ct.nii.gz",
        mask="ct.nii.gz",
        roi="1",
    )
