"""Awkward masks through the real commands: label maps and DICOM SEG objects (numbers as in the test names)."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import awkward
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
import synthetic
from awkward import COLUMNS, ROWS, SHAPE, SLICES, lesion_voxels
from pydicom.dataset import Dataset
from pydicom.uid import RLELossless
from segments import frames_of, set_frames, volume, write_seg

from ctpatch.store import open_store

Voxels = set[tuple[int, int, int]]
FORMATS = ("m.nii", "m.nii.gz", "m.nrrd", "m.nhdr", "m.mha", "m.mhd")
EACH_FORMAT = pytest.mark.parametrize("name", FORMATS)
PLACES = {"first": range(3), "middle": SLICES, "last": range(13, 16)}
EVERYWHERE = pytest.mark.parametrize("slices", PLACES.values(), ids=PLACES)


def array(voxels: Voxels, value: Any = 1, dtype: Any = np.uint8, shape: Sequence[int] = SHAPE) -> np.ndarray:
    """Voxels as an array (z, y, x), `value` where they are and 0 elsewhere."""
    out = np.zeros(shape, dtype)
    out[tuple(np.array(sorted(voxels)).T)] = value
    return out


LESION = array(lesion_voxels())


def save(path: Path, image: sitk.Image) -> Path:
    sitk.WriteImage(image, str(path), path.suffix != ".mhd")
    return path


def computed(folder: Path, ct: synthetic.Series, voxels: Voxels, **cells: str) -> awkward.Built:
    """Build, check and compare patches and voxels with the truth."""
    store = awkward.built(folder, **cells)
    awkward.assert_linear(store, ct)
    assert awkward.voxels(awkward.plan(folder, **cells).mask) == voxels
    return store


def refused(folder: Path, found: str, do: str = "", *, mask: str, **cells: str) -> str:
    """The line that refuses a row because of its mask."""
    return awkward.refused(folder, found, do, mask, mask=mask, **cells).group()


# -- 84: the grid -------------------------------------------------------------------------------------------------


@EACH_FORMAT
@EVERYWHERE
def test_84_a_mask_on_the_images_grid(tmp_path: Path, name: str, slices: range) -> None:
    ct = awkward.series(tmp_path, shuffle=2)
    voxels = lesion_voxels(slices)
    save(tmp_path / name, volume(ct, array(voxels)))
    computed(tmp_path, ct, voxels, mask=name)


@pytest.mark.parametrize(
    ("name", "order"), [("m.nii.gz", (0, 1, 2)), ("m.nrrd", (2, 0, 1)), ("m.mha", (1, 0, 2))], ids=str
)
@pytest.mark.parametrize("flips", [(True, False, False), (False, True, True), (True, True, False)], ids=str)
def test_84_how_the_mask_is_stored_does_not_matter(tmp_path: Path, name: str, order: Any, flips: Any) -> None:
    """Axes permuted and mirrored in the file, with the header that says so."""
    ct = awkward.series(tmp_path)
    voxels = lesion_voxels(SLICES, range(13, 20), range(15, 19))
    save(tmp_path / name, sitk.Flip(sitk.PermuteAxes(volume(ct, array(voxels)), list(order)), list(flips)))
    computed(tmp_path, ct, voxels, mask=name)


@pytest.mark.parametrize("iop", [synthetic.CORONAL, synthetic.rotation_iop((20.0, -15.0, 40.0))], ids=str)
def test_84_a_mask_of_an_oblique_series(tmp_path: Path, iop: Any) -> None:
    ct = awkward.series(tmp_path, iop=iop)
    save(tmp_path / "m.nrrd", volume(ct, LESION))
    computed(tmp_path, ct, lesion_voxels(), mask="m.nrrd")


CHANGES: dict[str, dict[str, Any]] = {
    "0.0009 mm off": {"origin": (9e-4, 0, 0)},
    "turned by 0.00005": {"angle": 5e-5},
    "spacing off by 0.00001 mm": {"spacing": (1e-5, 0, 0)},
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_84_a_grid_off_by_rounding_is_the_same(tmp_path: Path, change: dict[str, Any]) -> None:
    ct = awkward.series(tmp_path)
    save(tmp_path / "m.mha", moved(volume(ct, LESION), **change))
    computed(tmp_path, ct, lesion_voxels(), mask="m.mha")


def moved(image: sitk.Image, origin: Any = 0.0, spacing: Any = 0.0, angle: float = 0.0) -> sitk.Image:
    image.SetOrigin(tuple(np.add(image.GetOrigin(), origin)))
    image.SetSpacing(tuple(np.add(image.GetSpacing(), spacing)))
    c, s = np.cos(angle), np.sin(angle)
    if angle:
        image.SetDirection((c, -s, 0, s, c, 0, 0, 0, 1))
    return image


OFF: dict[str, dict[str, Any]] = {
    "0.05 mm off": {"origin": (0.05, 0, 0)},
    "0.05 mm off along": {"origin": (0, 0, 0.05)},
    "half a pixel off": {"origin": (0.75, -1.0, 0)},
    "one slice off": {"origin": (0, 0, 3.0)},
    "turned by 0.001": {"angle": 1e-3},
    "upside down": {"angle": np.pi},
    "spacing off by 0.01 mm": {"spacing": (0, 0.01, 0)},
    "slices 2.5 mm apart": {"spacing": (0, 0, -0.5)},
    "x and y spacing swapped": {"spacing": (0.5, -0.5, 0)},
}


@pytest.mark.parametrize("change", OFF.values(), ids=OFF)
@pytest.mark.parametrize("name", ["m.nii.gz", "m.mha"])
def test_84_another_grid_is_refused_with_both(tmp_path: Path, change: dict[str, Any], name: str) -> None:
    ct = awkward.series(tmp_path)
    save(tmp_path / name, moved(volume(ct, LESION), **change))
    line = refused(tmp_path, "the mask's grid, .*, is not the image's, ", "`resample`", mask=name)
    assert "44 × 40 × 16 voxels of 1.5 × 2 × 3 mm at (-31.5, 12.75, -405.25) along (1 0 0; 0 1 0; 0 0 1)" in line
    assert line.count(" voxels of ") == 2


@pytest.mark.parametrize("crop", [(0, 0, 1), (0, 1, 0), (1, 0, 0)], ids=["slices", "rows", "columns"])
@pytest.mark.parametrize("end", ["low", "high"])
def test_84_a_mask_of_another_size_is_refused_where_it_is_of_another_grid(
    tmp_path: Path, crop: tuple[int, int, int], end: str
) -> None:
    ct = awkward.series(tmp_path)
    sides = (list(crop), [0, 0, 0])
    cut = sitk.Crop(volume(ct, LESION), *(sides if end == "low" else sides[::-1]))
    save(tmp_path / "m.mha", moved(cut, origin=(0.75, 1.0, 1.5)))
    size = " × ".join(str(n - c) for n, c in zip(SHAPE[::-1], crop, strict=True))
    assert f"grid, {size} voxels" in refused(tmp_path, "the mask's grid", mask="m.mha")


@pytest.mark.parametrize("shift", [(0.21, 0.3, 0.43), (-0.23, 0.13, -0.6), (30.0, 40.0, 20.0)], ids=str)
@pytest.mark.parametrize("spacing", [(0.8, 1.1, 1.7), (2.3, 1.9, 4.1)], ids=str)
def test_84_an_accepted_grid_is_taken_by_the_nearest_voxel(tmp_path: Path, shift: Any, spacing: Any) -> None:
    """A ball on a grid of its own; each voxel of the image asks the voxel of the mask it lies in."""
    ct = awkward.series(tmp_path)
    size = np.ceil(np.array([66.0, 80.0, 48.0]) / spacing).astype(int)
    points = np.stack(np.meshgrid(*(np.arange(n) * s for n, s in zip(size, spacing, strict=True)), indexing="ij"), -1)
    ball = np.linalg.norm(points - np.array([32.0, 41.0, 24.0]), axis=-1) < 13
    mask = sitk.GetImageFromArray(ball.T.astype(np.uint8))
    mask.SetSpacing(spacing)
    mask.SetOrigin((ct.origins[0] + shift).tolist())
    save(tmp_path / "m.mha", mask)
    refused(tmp_path, "the mask's grid", mask="m.mha")
    index = np.rint((ct.grid() - ct.origins[0] - shift) / spacing).astype(int)
    inside = ((index >= 0) & (index < size)).all(axis=-1)
    near = ball[tuple(np.moveaxis(np.clip(index, 0, size - 1), -1, 0))] & inside
    voxels = {tuple(int(v) for v in at) for at in np.argwhere(near)}
    store = computed(tmp_path, ct, voxels, mask="m.mha", accept="resample")
    assert "mask resampled to the image's grid by nearest voxel" in store.notes
    assert "mask resampled to the image's grid by nearest voxel" in store.check_notes
    with open_store(store.path) as opened:
        assert opened.recipe["rows"][0]["accept"] == ["resample"]


def test_84_an_accepted_grid_that_reaches_no_voxel_is_refused(tmp_path: Path) -> None:
    ct = awkward.series(tmp_path)
    save(tmp_path / "m.mha", moved(volume(ct, LESION), origin=(500.0, 0, 0)))
    refused(tmp_path, "none of its .* mm³ reaches a voxel of the image", mask="m.mha", accept="resample")


def test_84_no_volume_has_the_slices_of_an_uneven_series(tmp_path: Path) -> None:
    positions = [*range(0, 24, 3), *range(27, 75, 6)]
    ct = awkward.series(tmp_path, positions=[float(p) for p in positions])
    save(tmp_path / "m.mha", volume(ct, LESION))
    refused(tmp_path, "× 3–6 mm at", "`resample`", mask="m.mha")
    near = [k for k, z in enumerate(positions) if 5 <= np.floor(z / 3 + 0.5) < 11]
    computed(tmp_path, ct, lesion_voxels(near), mask="m.mha", accept="resample")


@pytest.mark.parametrize("image", ["image.nii.gz", "image.nii", "image.nrrd", "image.mha"])
@pytest.mark.parametrize("name", ["m.nii.gz", "m.mha"])
def test_84_image_and_mask_both_as_files(tmp_path: Path, image: str, name: str) -> None:
    ct = awkward.series(tmp_path, name="unused", slope=1)
    values = np.rint(awkward.hu()).astype(np.int16)
    save(tmp_path / image, volume(ct, values))
    save(tmp_path / name, sitk.Flip(volume(ct, LESION), [True, False, True]))
    computed(tmp_path, ct, lesion_voxels(), image=image, mask=name, accept="units")  # no air in the phantom
    save(tmp_path / name, moved(volume(ct, LESION), origin=(0.0, 2.0, 0.0)))
    (tmp_path / "s.h5").unlink()
    refused(tmp_path, "the mask's grid", mask=name, image=image)


# -- 85, 86, 87: the values ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "dtype", "roi"),
    [
        (1, np.uint8, ""),
        (255, np.uint8, ""),
        (255, np.uint8, "255"),
        (255, np.int16, "255.0"),
        (-3, np.int16, "-3"),
        (40_000, np.uint16, "40000"),
        (7.0, np.float32, "7"),
        (2.0, np.float64, ""),
        (1 + 5e-7, np.float64, "1"),
        (1 - 5e-7, np.float64, "1"),
    ],
    ids=str,
)
def test_85_a_label_of_any_value_and_type(tmp_path: Path, value: float, dtype: Any, roi: str) -> None:
    ct = awkward.series(tmp_path)
    save(tmp_path / "m.nii.gz", volume(ct, array(lesion_voxels(), value, dtype)))
    computed(tmp_path, ct, lesion_voxels(), mask="m.nii.gz", roi=roi)


@pytest.mark.parametrize("roi", ["1", "2", "9"])
def test_85_one_label_of_several(tmp_path: Path, roi: str) -> None:
    ct = awkward.series(tmp_path)
    voxels = {"1": lesion_voxels(range(4)), "2": lesion_voxels(), "9": lesion_voxels(range(12, 15))}
    values = sum(array(at, int(label)) for label, at in voxels.items())
    save(tmp_path / "m.nrrd", volume(ct, values))
    computed(tmp_path, ct, voxels[roi], mask="m.nrrd", roi=roi)


@pytest.mark.parametrize(
    ("values", "roi", "found"),
    [
        ((255,), "1", "no voxel has label 1; present: 255"),
        ((1, 2), "", "the mask holds several labels: 1, 2"),
        ((1, 2), "3", "no voxel has label 3; present: 1, 2"),
        ((1, 2), "0", "no voxel has label 0"),
        ((1, 2), "tumour", "roi 'tumour' is not a label value; present: 1, 2"),
        ((1, 2), "1.5", "roi '1.5' is not a label value"),
        ((0.999,), "", "value 0.999 is not a whole number"),
        ((0.999,), "1", "value 0.999 is not a whole number"),
        ((1, 1.00001), "1", "value 1.00001 is not a whole number"),
        ((0.5, 1), "1", "value 0.5 is not a whole number"),
        (range(1, 101), "", r"several labels: 1, 2, .* 10, … \(100 labels\)"),
    ],
    ids=str,
)
def test_85_a_label_that_is_not_meant_is_refused(tmp_path: Path, values: Any, roi: str, found: str) -> None:
    ct = awkward.series(tmp_path)
    drawn = np.where(LESION, np.resize(np.array(values, np.float32), SHAPE), 0)
    save(tmp_path / "m.nii.gz", volume(ct, drawn))
    refused(tmp_path, found, mask="m.nii.gz", roi=roi)


@EACH_FORMAT
def test_86_an_empty_mask_is_refused(tmp_path: Path, name: str) -> None:
    ct = awkward.series(tmp_path)
    save(tmp_path / name, volume(ct, np.zeros(SHAPE, np.uint8)))
    for roi in ("", "1"):
        refused(tmp_path, "the mask is empty: every voxel is 0", "mask that holds the lesion", mask=name, roi=roi)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("where", [(0, 0, 0), (8, 20, 20), (15, 39, 43)], ids=["first", "middle", "last"])
def test_87_a_mask_with_nan_is_refused(tmp_path: Path, value: float, where: tuple[int, int, int]) -> None:
    ct = awkward.series(tmp_path)
    values = LESION.astype(np.float32)
    values[where] = value
    save(tmp_path / "m.nii.gz", volume(ct, values))
    refused(tmp_path, f"value {value:g} is not a whole number", mask="m.nii.gz", roi="1")


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        *itertools.product(("m.nii.gz", "m.nrrd", "m.mha"), ("4-D", "RGB", "vector")),
        ("m.nii.gz", "complex"),
    ],
)
def test_87_a_mask_that_is_no_scalar_volume_is_refused(tmp_path: Path, name: str, kind: str) -> None:
    ct = awkward.series(tmp_path)
    image = volume(ct, LESION)
    if kind == "4-D":
        image = sitk.JoinSeries([image, image])
    elif kind == "complex":
        image = sitk.RealAndImaginaryToComplex(*[sitk.Cast(image, sitk.sitkFloat32)] * 2)
    else:
        image = sitk.Compose(*[image] * (3 if kind == "RGB" else 2))
    save(tmp_path / name, image)
    found = "3-D|4-D|5-D|scalar|dimension|axes|ElementNumberOfChannels|sizes|DimSize|NDims"
    refused(tmp_path, found, mask=name)
    refused(tmp_path, found, mask=name, accept="resample")


@EACH_FORMAT
def test_87_a_damaged_mask_is_refused(tmp_path: Path, name: str) -> None:
    ct = awkward.series(tmp_path)
    save(tmp_path / name, volume(ct, LESION))
    data = next(path for path in sorted(tmp_path.glob("m.*"), reverse=True) if path.suffix not in (".nhdr", ".mhd"))
    data.write_bytes(data.read_bytes()[:-9])
    refused(tmp_path, "cut off|bytes of voxels|damaged|cannot hold", mask=name)


# -- 88, 89: DICOM SEG --------------------------------------------------------------------------------------------


KINDS = pytest.mark.parametrize("kind", ["BINARY", "FRACTIONAL", "LABELMAP"])


@KINDS
@EVERYWHERE
def test_88_sparse_frames_lie_where_they_say(tmp_path: Path, kind: str, slices: range) -> None:
    ct = awkward.series(tmp_path, shuffle=5)
    voxels = lesion_voxels(slices)
    write_seg(tmp_path / "seg.dcm", ct, {"Lesion": array(voxels)}, kind)
    computed(tmp_path, ct, voxels, mask="seg.dcm")


def test_88_frames_of_slices_far_apart(tmp_path: Path) -> None:
    """Three of the sixteen slices have a frame; they are not pushed together."""
    ct = awkward.series(tmp_path)
    voxels = lesion_voxels([4, 7, 11])
    path = write_seg(tmp_path / "seg.dcm", ct, {"Lesion": array(voxels)})
    assert pydicom.dcmread(path).NumberOfFrames == 3
    computed(tmp_path, ct, voxels, mask="seg.dcm")


def test_88_sparse_frames_on_an_uneven_tilted_series(tmp_path: Path) -> None:
    positions = np.cumsum([0, 3, 3, 3, 6, 6, 3, 3, 3, 6, 6, 3, 3, 3, 3, 3]).astype(float)
    ct = awkward.series(tmp_path, positions=positions, shear=(0.1, -0.2))
    voxels = lesion_voxels([5, 6, 9])
    write_seg(tmp_path / "seg.dcm", ct, {"Lesion": array(voxels)})
    computed(tmp_path, ct, voxels, mask="seg.dcm")


@pytest.mark.parametrize("dz", [1.5, -3.0, 100.0])
def test_88_a_frame_on_no_slice_is_refused(tmp_path: Path, dz: float) -> None:
    def shift(dataset: Dataset) -> None:
        for group in dataset.PerFrameFunctionalGroupsSequence:
            place = group.PlanePositionSequence[0]
            place.ImagePositionPatient = [*place.ImagePositionPatient[:2], place.ImagePositionPatient[2] + dz]

    ct = awkward.series(tmp_path)
    write_seg(tmp_path / "seg.dcm", ct, {"Lesion": array(lesion_voxels([0, 15]))}, edit=shift)
    refused(tmp_path, r"frame \d+ is -?[\d.]+ mm from the nearest slice", "`resample`", mask="seg.dcm")


@pytest.mark.parametrize("order", ["reversed", "shuffled"])
@pytest.mark.parametrize("shape", [SHAPE, (16, 39, 43)], ids=["whole bytes", "frames begin within bytes"])
def test_89_the_order_of_frames_does_not_matter(tmp_path: Path, order: str, shape: tuple[int, int, int]) -> None:
    ct = awkward.series(tmp_path, shape=shape)
    voxels = {voxel for i, k in enumerate(SLICES) for voxel in lesion_voxels([k], ROWS[i:], COLUMNS[: 3 + i])}
    new = list(np.random.default_rng(1).permutation(6)) if order == "shuffled" else list(range(6))[::-1]

    def reorder(dataset: Dataset) -> None:
        set_frames(dataset, frames_of(dataset)[new])
        groups = dataset.PerFrameFunctionalGroupsSequence
        dataset.PerFrameFunctionalGroupsSequence = [groups[i] for i in new]

    write_seg(tmp_path / "seg.dcm", ct, {"Lesion": array(voxels, shape=shape)}, edit=reorder)
    computed(tmp_path, ct, voxels, mask="seg.dcm")


SEGMENTS = {
    "Tumour": lesion_voxels(range(3, 9), range(10, 20), range(10, 20)),
    "Node": lesion_voxels(range(6, 12), range(15, 25), range(15, 30)),
    "node": lesion_voxels(range(12, 14)),
}


@pytest.mark.parametrize("kind", ["BINARY", "FRACTIONAL"])
@pytest.mark.parametrize(
    ("roi", "label"), [("Tumour", "Tumour"), ("tumour", "Tumour"), ("1", "Tumour"), (" Node", "Node")]
)
def test_89_one_of_several_overlapping_segments(tmp_path: Path, kind: str, roi: str, label: str) -> None:
    ct = awkward.series(tmp_path)
    write_seg(tmp_path / "seg.dcm", ct, {name: array(voxels) for name, voxels in SEGMENTS.items()}, kind)
    computed(tmp_path, ct, SEGMENTS[label], mask="seg.dcm", roi=roi)


@pytest.mark.parametrize(
    ("roi", "found"),
    [
        ("", "several segments: 1 'Tumour', 2 'Node', 3 'node'"),
        ("NODE", "roi 'NODE' means segments 2 and 3"),
        ("4", "no segment '4'; there are: 1 'Tumour'"),
        ("GTV", "no segment 'GTV'"),
    ],
)
def test_89_a_segment_that_is_not_there_or_not_one_is_refused(tmp_path: Path, roi: str, found: str) -> None:
    ct = awkward.series(tmp_path)
    write_seg(tmp_path / "seg.dcm", ct, {name: array(voxels) for name, voxels in SEGMENTS.items()})
    refused(tmp_path, found, "`roi`", mask="seg.dcm", roi=roi)


@pytest.mark.parametrize("kind", ["BINARY", "FRACTIONAL"])
def test_89_an_empty_segment_is_refused(tmp_path: Path, kind: str) -> None:
    ct = awkward.series(tmp_path)
    write_seg(tmp_path / "seg.dcm", ct, {"Lesion": LESION, "None": np.zeros(SHAPE, np.uint8)}, kind)
    refused(tmp_path, r"segment 2 \('None'\) is empty", mask="seg.dcm", roi="None")


@pytest.mark.parametrize(("inner", "outer"), [(0.5, 0.49), (1.0, 0.0), (0.51, 0.4)])
def test_89_fractions_are_in_from_one_half_and_told(tmp_path: Path, inner: float, outer: float) -> None:
    ct = awkward.series(tmp_path)
    fractions = array(lesion_voxels(range(3, 13), range(8, 32), range(10, 34)), outer, float)
    fractions[tuple(np.array(sorted(lesion_voxels())).T)] = inner
    write_seg(tmp_path / "seg.dcm", ct, {"Lesion": fractions}, "FRACTIONAL", max_fractional_value=100)
    store = computed(tmp_path, ct, lesion_voxels(), mask="seg.dcm")
    assert "fractional segmentation: voxels of at least 0.5 are in" in store.notes
    assert "fractional segmentation: voxels of at least 0.5 are in" in store.check_notes
    with open_store(store.path) as opened:
        assert "fractional" in json.dumps(opened.provenance["notes"])


@pytest.mark.parametrize("syntax", ["deflated", "rle", "implicit"])
def test_89_an_encoded_segmentation(tmp_path: Path, syntax: str) -> None:
    ct = awkward.series(tmp_path)
    path = write_seg(tmp_path / "seg.dcm", ct, {"Lesion": LESION}, "FRACTIONAL")
    dataset = pydicom.dcmread(path)
    if syntax == "rle":
        dataset.compress(RLELossless, encoding_plugin="pydicom")
    dataset.file_meta.TransferSyntaxUID = synthetic.TRANSFER_SYNTAXES[syntax]
    bare = Dataset()
    bare.update(dataset)
    bare.file_meta = dataset.file_meta
    bare.save_as(path, enforce_file_format=True)
    computed(tmp_path, ct, lesion_voxels(), mask="seg.dcm")


def stripped(path: Path) -> None:
    """Take preamble and file meta information away, as some archives do: the data set alone."""
    dataset = pydicom.dcmread(path)
    dataset.preamble = None
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    pydicom.dcmwrite(path, dataset, implicit_vr=False, little_endian=True)
    assert path.read_bytes()[128:132] != b"DICM"


@pytest.mark.parametrize("kind", ["BINARY", "LABELMAP", "RTSTRUCT"])
@pytest.mark.parametrize("name", ["bare.dcm", "bare"])
def test_89_contours_without_a_preamble_are_read(tmp_path: Path, kind: str, name: str) -> None:
    ct = awkward.series(tmp_path)
    if kind == "RTSTRUCT":
        awkward.contours(tmp_path, ct, name=name)
    else:
        write_seg(tmp_path / name, ct, {"Lesion": LESION}, kind)
    stripped(tmp_path / name)
    computed(tmp_path, ct, lesion_voxels(), mask=name)


@pytest.mark.parametrize("name", ["m.dcm", "m"])
def test_89_what_cannot_be_told_is_refused(tmp_path: Path, name: str) -> None:
    awkward.series(tmp_path)
    (tmp_path / name).write_bytes(b"\x08\0\x05\0CS" + bytes(300))
    refused(tmp_path, "not readable as DICOM|no DICOM file", mask=name)


@pytest.mark.parametrize("kept", [0.3, 0.9, 0.99])
def test_89_a_cut_off_segmentation_is_refused(tmp_path: Path, kept: float) -> None:
    ct = awkward.series(tmp_path)
    path = write_seg(tmp_path / "seg.dcm", ct, {"Lesion": LESION})
    raw = path.read_bytes()
    path.write_bytes(raw[: int(len(raw) * kept)])
    refused(tmp_path, "cut off|not readable|missing|bytes of pixel data", mask="seg.dcm")


@pytest.mark.parametrize(
    "keyword",
    ["SegmentSequence", "SegmentationType", "PerFrameFunctionalGroupsSequence", "NumberOfFrames", "PixelData"],
)
def test_89_a_segmentation_that_lacks_something_is_refused_naming_it(tmp_path: Path, keyword: str) -> None:
    ct = awkward.series(tmp_path)
    write_seg(tmp_path / "seg.dcm", ct, {"Lesion": LESION}, edit=lambda dataset: delattr(dataset, keyword))
    refused(tmp_path, f"{keyword} is missing", "export the segmentation again", mask="seg.dcm")


# -- 90: whose segmentation ---------------------------------------------------------------------------------------


def test_90_a_segmentation_chooses_its_series(tmp_path: Path) -> None:
    """Two series in the folder: the one that it refers to is used."""
    awkward.series(tmp_path, seed=8, hu=awkward.hu() + 77, names=lambda k: f"other{k}.dcm")
    ct = awkward.series(tmp_path, seed=9)
    write_seg(tmp_path / "seg.dcm", ct, {"Lesion": LESION})
    store = computed(tmp_path, ct, lesion_voxels(), mask="seg.dcm")
    assert "2 CT series in the folder; the one that the contours refer to is used" in store.notes


def test_90_another_series_of_the_same_frame_and_slices_is_told(tmp_path: Path) -> None:
    """A second reconstruction: the UIDs match nowhere, frame of reference and grid do."""
    other = awkward.series(tmp_path, name="other", seed=8)
    ct = awkward.series(tmp_path, seed=9, frame_uid=other.frame_uid)
    write_seg(tmp_path / "seg.dcm", other, {"Lesion": LESION})
    words = "refers to another series, or to none, of the same frame of reference"
    store = computed(tmp_path, ct, lesion_voxels(), mask="seg.dcm")
    assert words in store.notes
    assert words in store.check_notes


@pytest.mark.parametrize("dz", [1.5, 40.0])
def test_90_another_series_with_other_slices_is_refused(tmp_path: Path, dz: float) -> None:
    other = awkward.series(tmp_path, name="other", seed=8, origin=(-31.5, 12.75, -405.25 + dz))
    awkward.series(tmp_path, seed=9, frame_uid=other.frame_uid)
    write_seg(tmp_path / "seg.dcm", other, {"Lesion": array(lesion_voxels([15]))})
    refused(tmp_path, "mm from the nearest slice|grid", mask="seg.dcm")


def test_90_another_frame_of_reference_is_refused_unless_accepted(tmp_path: Path) -> None:
    other = awkward.series(tmp_path, name="other", seed=8)
    ct = awkward.series(tmp_path, seed=9)
    write_seg(tmp_path / "seg.dcm", other, {"Lesion": LESION})
    line = refused(tmp_path, "FrameOfReferenceUID", "frame", mask="seg.dcm")
    assert other.frame_uid[-12:] in line
    assert ct.frame_uid[-12:] in line
    store = computed(tmp_path, ct, lesion_voxels(), mask="seg.dcm", accept="frame")
    assert "frame of reference" in store.notes
    with open_store(store.path) as opened:
        assert opened.recipe["rows"][0]["accept"] == ["frame"]


def test_90_another_series_without_a_frame_of_reference_is_refused(tmp_path: Path) -> None:
    def forget(dataset: Dataset) -> None:
        del dataset.FrameOfReferenceUID

    other = awkward.series(tmp_path, name="other", seed=8)
    ct = awkward.series(tmp_path, seed=9)
    write_seg(tmp_path / "seg.dcm", other, {"Lesion": LESION}, edit=forget)
    line = refused(tmp_path, "FrameOfReferenceUID", "frame", mask="seg.dcm")
    assert other.series_uid[-12:] in line
    assert ct.series_uid[-12:] in line
    computed(tmp_path, ct, lesion_voxels(), mask="seg.dcm", accept="frame")


def test_90_a_segmentation_of_a_volume_file_is_placed_by_coordinates(tmp_path: Path) -> None:
    ct = awkward.series(tmp_path, name="unused")
    save(tmp_path / "image.nii.gz", volume(ct, np.rint(awkward.hu()).astype(np.int16)))
    write_seg(tmp_path / "seg.dcm", ct, {"Lesion": LESION})
    store = computed(tmp_path, ct, lesion_voxels(), image="image.nii.gz", mask="seg.dcm", accept="units")
    assert "coordinates alone" in store.notes


def test_90_a_ct_slice_is_no_mask(tmp_path: Path) -> None:
    ct = awkward.series(tmp_path)
    refused(tmp_path, "the mask is DICOM of modality CT", "give an RTSTRUCT, DICOM SEG", mask=f"ct/{ct.paths[0].name}")


def test_the_segments_of_these_tests_overlap() -> None:
    assert SEGMENTS["Tumour"] & SEGMENTS["Node"]
    assert not any(a <= b for a, b in itertools.permutations(SEGMENTS.values(), 2))
