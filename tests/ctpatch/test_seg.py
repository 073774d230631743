"""DICOM SEG on the image's grid: objects that highdicom and dcmqi wrote, and the same ones altered frame by frame."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
import synthetic as syn
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.uid import RLELossless
from segments import frames_of, set_frames, write_seg

from ctpatch.contours.roi import VoxelROI
from ctpatch.contours.seg import choose_segment, open_seg
from ctpatch.contours.seg_file import seg_info
from ctpatch.errors import InputError
from ctpatch.geometry import SliceStack, make_stack, orthonormal_axes

DATA = Path(__file__).parents[3] / "shared" / "data" / "seg" / "dcmqi"
SHAPE, SPACING = (6, 9, 7), (2.0, 1.5)  # 63 pixels a frame: bit-packed frames begin within bytes
OBLIQUE = syn.rotation_iop((20.0, -15.0, 40.0))
MASK = np.random.default_rng(11).random(SHAPE) < 0.4


@dataclass(frozen=True)
class FakeImage:
    stack: SliceStack
    uid: str = "1.2.3"
    frame_of_reference: str = "1.2.9"
    sop_uids: tuple[str, ...] = ("1.2.3.1",)
    notes: tuple[str, ...] = ()


def image_of(series: syn.Series, **change: Any) -> FakeImage:
    stack, _ = make_stack(series.axes, series.origins, series.spacing, series.shape[1:])
    known = {"uid": series.series_uid, "frame_of_reference": series.frame_uid, "sop_uids": series.sop_uids}
    return FakeImage(stack, **(known | change))


def write_ct(folder: Path, **options: Any) -> syn.Series:
    def thickness(ds: Dataset, k: int) -> None:
        ds.SliceThickness = 2.5

    options = {"positions": np.arange(SHAPE[0]) * 2.5, "origin": (-30.25, 12.5, -700.0)} | options
    return syn.write_series(folder / "ct", syn.texture_hu(SHAPE), spacing=SPACING, edit=thickness, **options)


def full(roi: VoxelROI, stack: SliceStack) -> np.ndarray:
    out = np.zeros((len(stack), *stack.shape), bool)
    out[tuple(slice(a, a + n) for a, n in zip(roi.corner, roi.voxels.shape, strict=True))] = roi.voxels
    return out


def read_seg(path: Path, roi: str, image: FakeImage, *accept: str) -> VoxelROI:
    return open_seg(path).read(roi, image, frozenset(accept))


def refused(match: str, path: Path, roi: str, image: FakeImage, *accept: str) -> str:
    with pytest.raises(InputError, match=match) as caught:
        read_seg(path, roi, image, *accept)
    line = str(caught.value)
    assert str(path) in line
    assert ". Do: " in line
    assert "\n" not in line
    return line


# ------------------------------------------------------------------------------------------ what is read


@pytest.mark.parametrize("kind", ["BINARY", "FRACTIONAL", "LABELMAP"])
@pytest.mark.parametrize("iop", [syn.AXIAL, syn.CORONAL, OBLIQUE])
def test_the_mask_that_was_written(tmp_path: Path, kind: str, iop: Any) -> None:
    series = write_ct(tmp_path, iop=iop)
    image = image_of(series)
    path = write_seg(tmp_path / "seg.dcm", series, {"Lesion": MASK}, kind)
    roi = read_seg(path, "", image)
    np.testing.assert_array_equal(full(roi, image.stack), MASK)
    assert roi.name == "Lesion"
    assert any("fractional" in note for note in roi.notes) == (kind == "FRACTIONAL")
    info = seg_info(path)
    assert info.refers.series_uids == {series.series_uid}
    assert info.refers.frame_of_reference == series.frame_uid
    assert info.segments == ((1, "Lesion"),)
    assert info.kind == kind


@pytest.mark.parametrize("kind", ["BINARY", "FRACTIONAL"])
def test_overlapping_segments(tmp_path: Path, kind: str) -> None:
    series = write_ct(tmp_path)
    image = image_of(series)
    rng = np.random.default_rng(2)
    masks = {label: rng.random(SHAPE) < 0.5 for label in ("Node", "Tumour", "Vessel")}
    path = write_seg(tmp_path / "seg.dcm", series, masks, kind)
    for number, (label, mask) in enumerate(masks.items(), start=1):
        for roi in (label, label.upper(), f" {label} ", str(number)):
            np.testing.assert_array_equal(full(read_seg(path, roi, image), image.stack), mask)


def test_labelmap_segments(tmp_path: Path) -> None:
    series = write_ct(tmp_path)
    image = image_of(series)
    values = np.random.default_rng(4).integers(0, 4, SHAPE)
    path = write_seg(tmp_path / "seg.dcm", series, {f"part {n}": values == n for n in (1, 2, 3)}, "LABELMAP")
    for n in (1, 2, 3):
        np.testing.assert_array_equal(full(read_seg(path, f"part {n}", image), image.stack), values == n)
    refused("no segment 'Background'", path, "Background", image)


def test_fractions_from_one_half_on(tmp_path: Path) -> None:
    series = write_ct(tmp_path)
    image = image_of(series)
    fractions = np.random.default_rng(5).random(SHAPE)
    path = write_seg(tmp_path / "seg.dcm", series, {"a": fractions}, "FRACTIONAL", max_fractional_value=100)
    stored = hd.seg.segread(path)
    expected = np.zeros(SHAPE, bool)
    for values, frame in zip(stored.pixel_array, stored.PerFrameFunctionalGroupsSequence, strict=True):
        z = (frame.PlanePositionSequence[0].ImagePositionPatient[2] + 700) / 2.5
        expected[round(z)] = values >= 50
    np.testing.assert_array_equal(full(read_seg(path, "a", image), image.stack), expected)
    assert np.abs(expected ^ (fractions >= 0.5)).sum() < 10  # only what rounding to hundredths moves


def test_rle(tmp_path: Path) -> None:
    series = write_ct(tmp_path)
    image = image_of(series)
    path = write_seg(
        tmp_path / "seg.dcm", series, {"a": MASK}, "FRACTIONAL",
        edit=lambda ds: ds.compress(RLELossless, encoding_plugin="pydicom"),
    )  # fmt: skip
    np.testing.assert_array_equal(full(read_seg(path, "a", image), image.stack), MASK)


def test_sparse_frames_lie_where_they_say(tmp_path: Path) -> None:
    series = write_ct(tmp_path, positions=[0, 2.5, 5, 10, 15, 15.5], shear=(0.1, -0.3), iop=OBLIQUE)
    image = image_of(series)
    mask = MASK.copy()
    mask[[0, 2, 3]] = False
    path = write_seg(tmp_path / "seg.dcm", series, {"a": mask})
    assert pydicom.dcmread(path).NumberOfFrames == 3
    roi = read_seg(path, "a", image)
    np.testing.assert_array_equal(full(roi, image.stack), mask)
    assert roi.corner[0] == 1


@settings(max_examples=40, deadline=None)
@given(order=st.permutations(range(6)), across=st.booleans(), down=st.booleans(), turned=st.booleans())
def test_frame_order_and_flipped_pixels_do_not_matter(
    tmp_path_factory: pytest.TempPathFactory, order: list[int], across: bool, down: bool, turned: bool
) -> None:
    folder = tmp_path_factory.mktemp("s")
    series = write_ct(folder, iop=OBLIQUE)
    image = image_of(series)

    def rewrite(ds: Dataset) -> None:
        frames, groups = frames_of(ds)[order], [ds.PerFrameFunctionalGroupsSequence[i] for i in order]
        shared = ds.SharedFunctionalGroupsSequence[0]
        iop = np.array(shared.PlaneOrientationSequence[0].ImageOrientationPatient, float).reshape(2, 3)
        spacing = np.array(shared.PixelMeasuresSequence[0].PixelSpacing, float)
        shift = np.zeros(3)
        if across:
            shift, frames = shift + iop[0] * spacing[1] * (ds.Columns - 1), frames[:, :, ::-1]
            iop[0] *= -1
        if down:
            shift, frames = shift + iop[1] * spacing[0] * (ds.Rows - 1), frames[:, ::-1]
            iop[1] *= -1
        if turned:
            iop, spacing, frames = iop[::-1], spacing[::-1], frames.transpose(0, 2, 1)
            ds.Rows, ds.Columns = ds.Columns, ds.Rows
        shared.PlaneOrientationSequence[0].ImageOrientationPatient = [f"{v:.9f}" for v in iop.ravel()]
        shared.PixelMeasuresSequence[0].PixelSpacing = spacing.tolist()
        for group in groups:
            plane = group.PlanePositionSequence[0]
            plane.ImagePositionPatient = [f"{v:.6f}" for v in plane.ImagePositionPatient + shift]
        ds.PerFrameFunctionalGroupsSequence = groups
        set_frames(ds, frames)

    path = write_seg(folder / "seg.dcm", series, {"a": MASK}, edit=rewrite)
    np.testing.assert_array_equal(full(read_seg(path, "a", image), image.stack), MASK)


def fake_of_folder(folder: Path) -> FakeImage:
    headers = [pydicom.dcmread(p, stop_before_pixels=True) for p in folder.glob("*.dcm")]
    first = headers[0]
    stack, order = make_stack(
        orthonormal_axes(first.ImageOrientationPatient),
        [h.ImagePositionPatient for h in headers],
        first.PixelSpacing,
        (first.Rows, first.Columns),
    )
    sops = tuple(headers[i].SOPInstanceUID for i in order)
    return FakeImage(stack, first.SeriesInstanceUID, first.FrameOfReferenceUID, sops)


@pytest.mark.parametrize(
    ("name", "roi", "oracle", "value"),
    [
        ("liver", "", "liver_seg", 1),
        ("liver", "Liver", "liver_seg", 1),
        ("partial_overlaps", "green", "partial_overlaps-1", 1),
        ("partial_overlaps", "ORANGE", "partial_overlaps-2", 2),
        ("partial_overlaps", "3", "partial_overlaps-3", 3),
        ("partial_overlaps", "LIGHT_BLUE", "partial_overlaps-1", 4),
        ("partial_overlaps", "DARK_BLUE", "partial_overlaps-1", 5),
    ],
)
def test_dcmqi_objects_as_their_nrrd_twins(name: str, roi: str, oracle: str, value: int) -> None:
    if not DATA.is_dir():
        pytest.skip(f"{DATA} is not here")
    image = fake_of_folder(DATA / "ct-3slice")
    expected = sitk.GetArrayFromImage(sitk.ReadImage(str(DATA / f"{oracle}.nrrd"))) == value
    for accept in ((), ("resample",)):
        found = read_seg(DATA / f"{name}.dcm", roi, image, *accept)
        np.testing.assert_array_equal(full(found, image.stack), expected)
        assert found.notes == ()


# ------------------------------------------------------------------------------------- which segment


@pytest.mark.parametrize(
    ("labels", "roi", "number"),
    [
        (["a"], "", 1),
        (["a", "A"], "A", 2),
        (["a", "B"], "b", 2),
        (["Läsion", "x"], "La\u0308sion", 1),
        (["ＧＴＶ", "x"], "gtv", 1),
        (["1", "2"], "2", 2),
        (["a", "b"], "2", 2),
        (["a", "a"], "2", 2),
        (["a", "b "], "b", 2),
        (["a", "A"], "Ａ", 2),
        (["2", "x"], "2", 1),
        (["2", "1"], "2", 1),
        (["2", "1"], "1", 2),
    ],
)
def test_segments_that_are_found(labels: list[str], roi: str, number: int) -> None:
    assert choose_segment(list(enumerate(labels, start=1)), roi)[0] == number


@pytest.mark.parametrize(
    ("labels", "roi", "match"),
    [
        (["a", "b"], "", "several segments: 1 'a', 2 'b'"),
        (["a", "b"], "c", "no segment 'c'; there are: 1 'a', 2 'b'"),
        (["a", "b"], "3", "no segment '3'"),
        (["a", "b", "a"], "a", "means segments 1 and 3"),
        (["aB", "Ab"], "AB", "means segments 1 and 2"),
        (["2", "2 "], "2", "means segments 1 and 2"),
        ([], "", "there are: none"),
    ],
)
def test_segments_that_are_refused(labels: list[str], roi: str, match: str) -> None:
    with pytest.raises(InputError, match=match):
        choose_segment(list(enumerate(labels, start=1)), roi)


def test_two_segments_of_one_label_and_an_empty_one(tmp_path: Path) -> None:
    series = write_ct(tmp_path)
    image = image_of(series)
    masks = {"a": MASK, "b": ~MASK, "none": np.zeros(SHAPE, bool)}

    def rename(ds: Dataset) -> None:
        ds.SegmentSequence[1].SegmentLabel = "a"

    path = write_seg(tmp_path / "seg.dcm", series, masks, edit=rename)
    refused("'a' means segments 1 and 2", path, "a", image)
    np.testing.assert_array_equal(full(read_seg(path, "2", image), image.stack), ~MASK)
    refused(r"segment 3 \('none'\) is empty", path, "none", image)


# ------------------------------------------------------------------------------------ which image


def test_another_frame_of_reference(tmp_path: Path) -> None:
    series = write_ct(tmp_path)
    path = write_seg(tmp_path / "seg.dcm", series, {"a": MASK})
    image = image_of(series, frame_of_reference="1.2.77")
    line = refused("FrameOfReferenceUID", path, "a", image)
    assert f"…{series.frame_uid[-12:]}, of the image 1.2.77" in line
    assert series.frame_uid not in line
    roi = read_seg(path, "a", image, "frame")
    np.testing.assert_array_equal(full(roi, image.stack), MASK)
    assert roi.notes == ("the contours' frame of reference is another one; accepted by the manifest",)


def test_another_series_of_the_same_frame_of_reference(tmp_path: Path) -> None:
    series = write_ct(tmp_path)
    path = write_seg(tmp_path / "seg.dcm", series, {"a": MASK})
    image = image_of(series, uid="1.2.77")
    roi = read_seg(path, "a", image)
    np.testing.assert_array_equal(full(roi, image.stack), MASK)
    assert "refers to another series" in roi.notes[0]


@pytest.mark.parametrize("whose", ["image", "seg"])
def test_another_series_and_no_frame_of_reference(tmp_path: Path, whose: str) -> None:
    series = write_ct(tmp_path)

    def forget(ds: Dataset) -> None:
        if whose == "seg":
            del ds.FrameOfReferenceUID

    path = write_seg(tmp_path / "seg.dcm", series, {"a": MASK}, edit=forget)
    unknown = {} if whose == "seg" else {"frame_of_reference": ""}
    assert read_seg(path, "a", image_of(series, **unknown)).notes == ()
    image = image_of(series, uid="1.2.77", **unknown)
    line = refused("shares no FrameOfReferenceUID", path, "a", image)
    assert f"series …{series.series_uid[-12:]}, not to 1.2.77," in line
    assert series.series_uid not in line
    np.testing.assert_array_equal(full(read_seg(path, "a", image, "frame"), image.stack), MASK)


def test_a_volume_file_has_no_uids_to_compare(tmp_path: Path) -> None:
    series = write_ct(tmp_path)
    path = write_seg(tmp_path / "seg.dcm", series, {"a": MASK})
    image = FakeImage(image_of(series).stack, "0" * 64, "", ())
    roi = read_seg(path, "a", image)
    np.testing.assert_array_equal(full(roi, image.stack), MASK)
    assert "coordinates alone" in roi.notes[0]


# -------------------------------------------------------------------------------------- another grid


def moved(image: FakeImage, by: Any) -> FakeImage:
    stack = image.stack
    return FakeImage(
        SliceStack(stack.axes, stack.origins + np.asarray(by) @ stack.axes, stack.spacing, stack.shape),
        image.uid, image.frame_of_reference, image.sop_uids,
    )  # fmt: skip


def test_frames_off_the_slices(tmp_path: Path) -> None:
    series = write_ct(tmp_path)
    path = write_seg(tmp_path / "seg.dcm", series, {"a": MASK})
    line = refused("is 0.75 mm from the nearest slice", path, "a", moved(image_of(series), (0, 0, 0.75)))
    assert "`resample`" in line
    refused("is 112 mm from the nearest slice", path, "a", moved(image_of(series), (0, 0, -112.5)))
    within = moved(image_of(series), (0, 0, 5e-4))
    np.testing.assert_array_equal(full(read_seg(path, "a", within), within.stack), MASK)


def test_empty_frames_need_no_slice(tmp_path: Path) -> None:
    series = write_ct(tmp_path)
    mask = MASK.copy()
    mask[:2] = False
    path = write_seg(tmp_path / "seg.dcm", series, {"a": mask}, omit_empty_frames=False)
    stack = image_of(series).stack
    shorter = SliceStack(stack.axes, stack.origins[2:], stack.spacing, stack.shape)
    image = image_of(series)
    roi = read_seg(path, "a", FakeImage(shorter, image.uid, image.frame_of_reference, image.sop_uids[2:]))
    np.testing.assert_array_equal(full(roi, shorter), mask[2:])
    full_path = write_seg(tmp_path / "all.dcm", series, {"a": MASK})
    refused("5 mm from the nearest", full_path, "a", FakeImage(shorter, image.uid, image.frame_of_reference))


@pytest.mark.parametrize(
    "change", [{"spacing": (2.0, 1.51)}, {"shape": (9, 8)}, {"shape": (7, 9)}, {"by": (0.02, 0, 0)}, {"angle": 2.0}]
)
def test_another_pixel_grid(tmp_path: Path, change: dict[str, Any]) -> None:
    series = write_ct(tmp_path)
    path = write_seg(tmp_path / "seg.dcm", series, {"a": MASK})
    image = moved(image_of(series), change.get("by", (0, 0, 0)))
    axes = syn.axes_of(syn.rotation_iop((0, 0, change.get("angle", 0.0))))
    stack = SliceStack(axes, image.stack.origins, change.get("spacing", SPACING), change.get("shape", SHAPE[1:]))
    line = refused("grid", path, "a", FakeImage(stack, image.uid, image.frame_of_reference))
    assert "7 × 9 × 6 voxels of 1.5 × 2 × 2.5 mm at (-30.25, 12.5, -700)" in line
    assert f"{stack.shape[1]} × {stack.shape[0]} × 6 voxels of {stack.spacing[1]:g} × 2" in line


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_resampling_takes_the_nearest_voxel_as_itk(tmp_path_factory: pytest.TempPathFactory, seed: int) -> None:
    """Sparse frames onto an oblique grid, against SimpleITK on the dense mask."""
    rng = np.random.default_rng(seed)
    folder = tmp_path_factory.mktemp("s")
    series = write_ct(folder, iop=OBLIQUE)
    mask = MASK.copy()
    mask[[0, 3]] = False
    path = write_seg(folder / "seg.dcm", series, {"a": mask})
    dense = sitk.GetImageFromArray(mask.astype(np.uint8))
    dense.SetSpacing((SPACING[1], SPACING[0], 2.5))
    dense.SetDirection(series.axes.T.ravel().tolist())
    dense.SetOrigin(series.origins[0].tolist())
    axes = syn.axes_of(syn.rotation_iop(tuple(rng.uniform(-90, 90, 3))))
    spacing = tuple(rng.uniform(0.7, 3, 3).tolist())
    middle = series.grid().mean(axis=(0, 1, 2)) + rng.uniform(-3, 3, 3)
    first = middle - np.array([4, 5, 3]) * spacing @ axes
    stack = SliceStack(axes, first + np.arange(7)[:, None] * spacing[2] * axes[2], (spacing[1], spacing[0]), (11, 9))
    target = sitk.Image(9, 11, 7, sitk.sitkUInt8)
    target.SetSpacing(spacing)
    target.SetDirection(axes.T.ravel().tolist())
    target.SetOrigin(first.tolist())
    expected = sitk.GetArrayFromImage(sitk.Resample(dense, target, sitk.Transform(), sitk.sitkNearestNeighbor))
    image = FakeImage(stack, series.series_uid, series.frame_uid)
    refused("grid", path, "a", image)
    roi = read_seg(path, "a", image, "resample")
    points = first + np.stack(np.meshgrid(*map(np.arange, (9, 11, 7)), indexing="ij"), axis=-1) * spacing @ axes
    index = (points - series.origins[0]) @ series.axes.T / (SPACING[1], SPACING[0], 2.5)
    tied = (np.abs(np.abs(index - np.rint(index)) - 0.5) < 1e-5).any(axis=-1).T  # ITK decides these by rounding
    np.testing.assert_array_equal(full(roi, stack)[~tied], (expected == 1)[~tied])
    assert "nearest voxel" in roi.notes[-1]


def test_resampling_a_single_frame_is_as_thick_as_declared(tmp_path: Path) -> None:
    series = write_ct(tmp_path)
    mask = np.zeros(SHAPE, bool)
    mask[2, 3:5, 2:4] = True
    path = write_seg(tmp_path / "seg.dcm", series, {"a": mask})
    image = image_of(series)
    fine = SliceStack(
        image.stack.axes, image.stack.origins[0] + np.arange(16)[:, None] * (0, 0, 0.99), SPACING, SHAPE[1:]
    )
    roi = read_seg(path, "a", FakeImage(fine, image.uid, image.frame_of_reference), "resample")
    expected = np.abs(np.arange(16) * 0.99 - 5.0) <= 1.25
    np.testing.assert_array_equal(full(roi, fine).any(axis=(1, 2)), expected)

    def forget(ds: Dataset) -> None:
        measures = ds.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
        del measures.SliceThickness, measures.SpacingBetweenSlices

    path = write_seg(tmp_path / "thin.dcm", series, {"a": mask}, edit=forget)
    refused("no thickness", path, "a", FakeImage(fine, image.uid, image.frame_of_reference), "resample")


def test_resampling_knows_when_planes_may_be_missing(tmp_path: Path) -> None:
    series = write_ct(tmp_path)
    mask = MASK.copy()
    mask[[0, 2, 4]] = False
    path = write_seg(tmp_path / "seg.dcm", series, {"a": mask})
    image = moved(image_of(series), (0.3, 0.2, 0.4))
    refused("5 mm apart but SpacingBetweenSlices is 2.5 mm", path, "a", image, "resample")


def test_two_frames_on_one_slice(tmp_path: Path) -> None:
    series = write_ct(tmp_path)

    def collide(ds: Dataset) -> None:
        groups = ds.PerFrameFunctionalGroupsSequence
        groups[1].PlanePositionSequence = groups[2].PlanePositionSequence

    path = write_seg(tmp_path / "seg.dcm", series, {"a": MASK}, edit=collide)
    refused("two frames of the segment lie on slice 4", path, "a", image_of(series))
    refused("one position", path, "a", moved(image_of(series), (0.2, 0, 0)), "resample")


# ----------------------------------------------------------------------------------- damaged objects


def test_cut_anywhere_gives_one_line(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    series = write_ct(tmp_path)
    path = write_seg(tmp_path / "seg.dcm", series, {"a": MASK})
    raw = path.read_bytes()
    for length in sorted({*range(0, len(raw), 97), len(raw) - 1, len(raw) - 40}):
        path.write_bytes(raw[:length])
        refused(".", path, "a", image_of(series))
    path.write_bytes(b"")
    for read in (seg_info, lambda p: read_seg(p, "", image_of(series))):
        with pytest.raises(InputError):
            read(path)
        with pytest.raises(InputError, match="No such file"):
            read(tmp_path / "none.dcm")
    assert capfd.readouterr() == ("", "")


def _drop(*names: str) -> Callable[[Dataset], None]:
    def edit(ds: Dataset) -> None:
        shared = ds.SharedFunctionalGroupsSequence[0]
        for name in names:
            for item in (ds, shared, *ds.PerFrameFunctionalGroupsSequence):
                if name in item:
                    delattr(item, name)

    return edit


def _set(**values: Any) -> Callable[[Dataset], None]:
    def edit(ds: Dataset) -> None:
        for name, value in values.items():
            holder = next((i for i in (ds, *(s[0] for s in _groups(ds))) if name in i), ds)
            setattr(holder, name, value)

    return edit


def _groups(ds: Dataset) -> list[Any]:
    shared = ds.SharedFunctionalGroupsSequence[0]
    return [shared.PixelMeasuresSequence, shared.PlaneOrientationSequence]


@pytest.mark.parametrize(
    ("edit", "match"),
    [
        (_drop("PixelData"), "PixelData"),
        (_drop("PlanePositionSequence"), "PlanePositionSequence is missing"),
        (_drop("PlaneOrientationSequence"), "PlaneOrientationSequence is missing"),
        (_drop("PixelMeasuresSequence"), "PixelMeasuresSequence is missing"),
        (_drop("SegmentIdentificationSequence"), "SegmentIdentificationSequence is missing"),
        (_drop("SegmentSequence"), "SegmentSequence"),
        (_drop("SegmentationType"), "SegmentationType"),
        (_set(SegmentationType="HOLOGRAM"), "'HOLOGRAM' is unknown"),
        (_set(SOPClassUID=syn.CT), "not a DICOM segmentation"),
        (_set(NumberOfFrames=5), "NumberOfFrames is 5, described are 6"),
        (_set(Rows=10), "48 bytes of pixel data, not 53"),
        (_set(Rows=8), "48 bytes of pixel data, not 42"),
        (_set(BitsAllocated=8), "48 bytes of pixel data, not 378"),
        (_set(PixelSpacing=[2.0, 0.0]), "PixelSpacing 2"),
        (_set(PixelSpacing=[-2.0, 1.5]), "PixelSpacing -2"),
        (_set(ImageOrientationPatient=[1, 0, 0, 1, 0, 0]), "perpendicular"),
    ],
)  # fmt: skip
def test_headers_that_are_refused(tmp_path: Path, edit: Callable[[Dataset], None], match: str) -> None:
    series = write_ct(tmp_path)
    path = write_seg(tmp_path / "seg.dcm", series, {"a": MASK}, edit=edit)
    refused(match, path, "a", image_of(series))


def test_a_ct_slice_is_no_segmentation(tmp_path: Path) -> None:
    series = write_ct(tmp_path)
    with pytest.raises(InputError, match="not a DICOM segmentation"):
        seg_info(series.paths[0])


def test_two_segments_of_one_number(tmp_path: Path) -> None:
    series = write_ct(tmp_path)

    def renumber(ds: Dataset) -> None:
        ds.SegmentSequence[1].SegmentNumber = 1

    path = write_seg(tmp_path / "seg.dcm", series, {"a": MASK, "b": MASK}, edit=renumber)
    refused("two segments have one number", path, "a", image_of(series))
