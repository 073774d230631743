"""Label maps on the image's grid: storage order never matters, another grid never passes, nearest voxel as ITK."""

from __future__ import annotations

import itertools
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
import synthetic as syn
from hypothesis import given, settings
from hypothesis import strategies as st

from ctpatch.contours import open_mask
from ctpatch.contours.resample import resample
from ctpatch.contours.roi import VoxelROI
from ctpatch.errors import InputError
from ctpatch.geometry import SliceStack, make_stack, orthonormal_axes

DATA = Path(__file__).parents[3] / "shared" / "data"
SHAPE, SPACING, ORIGIN = (5, 8, 6), (2.0, 1.5), (-30.25, 12.5, -700.0)
OBLIQUE = syn.rotation_iop((20.0, -15.0, 40.0))
RNG = np.random.default_rng(3)
LABELS = (RNG.random(SHAPE) < 0.2) * RNG.integers(1, 4, SHAPE).astype(np.uint8)


def stack_of(
    iop: Any = syn.AXIAL,
    positions: Any = None,
    shape: tuple[int, int, int] = SHAPE,
    shear: tuple[float, float] = (0, 0),
) -> SliceStack:
    positions = np.arange(shape[0]) * 2.5 if positions is None else positions
    stack, _ = make_stack(orthonormal_axes(iop), syn.slice_origins(positions, ORIGIN, iop, shear), SPACING, shape[1:])
    return stack


def image_of(stack: SliceStack, voxels: np.ndarray) -> sitk.Image:
    """A SimpleITK image with `voxels` on an evenly spaced stack's grid."""
    image = sitk.GetImageFromArray(voxels)
    image.SetDirection(stack.axes.T.ravel().tolist())
    image.SetOrigin(stack.origins[0].tolist())
    image.SetSpacing((stack.spacing[1], stack.spacing[0], float(stack.positions[1])))
    return image


def save(path: Path, image: sitk.Image) -> Path:
    sitk.WriteImage(image, str(path), True)
    return path


def read_labelmap(path: Path, roi: str, stack: SliceStack, *, resample: bool = False) -> VoxelROI:
    return open_mask(path).read(roi, SimpleNamespace(stack=stack), {"resample"} if resample else set())


def full(roi: VoxelROI, stack: SliceStack) -> np.ndarray:
    out = np.zeros((len(stack), *stack.shape), bool)
    out[tuple(slice(a, a + n) for a, n in zip(roi.corner, roi.voxels.shape, strict=True))] = roi.voxels
    return out


def points_of(stack: SliceStack) -> np.ndarray:
    return syn.grid(stack.axes, stack.origins, stack.spacing, stack.shape)


# --------------------------------------------------------------------------------------- the same grid


@settings(max_examples=100, deadline=None)
@given(
    iop=st.sampled_from([syn.AXIAL, syn.CORONAL, syn.SAGITTAL, OBLIQUE]),
    order=st.permutations(range(3)),
    flips=st.tuples(*[st.booleans()] * 3),
    suffix=st.sampled_from([".nii", ".nii.gz", ".nrrd", ".mha"]),
    label=st.integers(1, 3),
)
def test_storage_order_does_not_matter(
    tmp_path_factory: pytest.TempPathFactory, iop: Any, order: Any, flips: Any, suffix: str, label: int
) -> None:
    stack = stack_of(iop)
    stored = sitk.Flip(sitk.PermuteAxes(image_of(stack, LABELS), list(order)), list(flips))
    path = save(tmp_path_factory.mktemp("m") / f"m{suffix}", stored)
    roi = read_labelmap(path, str(label), stack)
    np.testing.assert_array_equal(full(roi, stack), label == LABELS)
    assert roi.name == str(label)
    assert roi.notes == ()
    for axis in range(3):  # cropped to what is needed
        across = roi.voxels.any(axis=tuple({0, 1, 2} - {axis}))
        assert across[0]
        assert across[-1]


def test_a_tilted_frame_takes_a_sheared_mask(tmp_path: Path) -> None:
    stack = stack_of(shear=(0.0, 0.3))
    path = save(tmp_path / "m.nrrd", image_of(stack_of(), LABELS))
    with pytest.raises(InputError, match="grid"):
        read_labelmap(path, "1", stack)
    raw = sitk_uncompressed(path)
    assert b"(0,0,2.5)" in raw
    path.write_bytes(raw.replace(b"(0,0,2.5)", b"(0,0.75,2.5)"))
    np.testing.assert_array_equal(full(read_labelmap(path, "1", stack), stack), LABELS == 1)


def sitk_uncompressed(path: Path) -> bytes:
    sitk.WriteImage(sitk.ReadImage(str(path)), str(path), False)
    return path.read_bytes()


@pytest.mark.parametrize("subject", ["STS_003", "STS_019", "STS_025"])
def test_third_party_masks_fit_their_series(subject: str) -> None:
    folder = DATA / "sts" / subject
    path = folder / "nifti" / "CT_mask.nii.gz"
    if not path.is_file():
        pytest.skip(f"{path} is not here")
    headers = [pydicom.dcmread(p, stop_before_pixels=True) for p in (folder / "image").glob("*.dcm")]
    first = headers[0]
    stack, _ = make_stack(
        orthonormal_axes(first.ImageOrientationPatient),
        [h.ImagePositionPatient for h in headers],
        first.PixelSpacing,
        (first.Rows, first.Columns),
    )
    expected = sitk.GetArrayFromImage(sitk.DICOMOrient(sitk.ReadImage(str(path)), "LPS"))
    np.testing.assert_array_equal(full(read_labelmap(path, "", stack), stack), expected == 1)
    np.testing.assert_array_equal(full(read_labelmap(path, "1", stack, resample=True), stack), expected == 1)


@pytest.mark.parametrize(
    ("change", "fits"),
    [
        ({}, True),
        ({"origin": (9e-4, 0, 0)}, True),
        ({"origin": (0, 0, 2e-2)}, True),
        ({"origin": (0, 0, 3e-2)}, False),
        ({"origin": (0, -2.0, 0)}, False),
        ({"angle": 5e-5}, True),
        ({"angle": 1e-2}, False),
        ({"spacing": (1e-5, 0, 0)}, True),
        ({"spacing": (0, 0, 2e-2)}, False),
        ({"spacing": (0.5, -0.5, 0)}, False),
    ],
)
def test_how_near_two_grids_must_be(tmp_path: Path, change: dict[str, Any], fits: bool) -> None:
    stack = stack_of()
    image = image_of(stack, LABELS)
    image.SetOrigin(tuple(np.add(image.GetOrigin(), change.get("origin", 0))))
    image.SetSpacing(tuple(np.add(image.GetSpacing(), change.get("spacing", (0, 0, 0)))))
    c, s = np.cos(change.get("angle", 0.0)), np.sin(change.get("angle", 0.0))
    image.SetDirection((c, -s, 0, s, c, 0, 0, 0, 1))
    path = save(tmp_path / "m.mha", image)
    if fits:
        np.testing.assert_array_equal(full(read_labelmap(path, "2", stack), stack), LABELS == 2)
        return
    with pytest.raises(InputError) as caught:
        read_labelmap(path, "2", stack)
    line = str(caught.value)
    assert str(path) in line
    assert "6 × 8 × 5 voxels of 1.5 × 2 × 2.5 mm at (-30.25, 12.5, -700) along (1 0 0; 0 1 0; 0 0 1)" in line
    assert "`resample`" in line
    assert "\n" not in line


def test_uneven_slices_fit_no_volume(tmp_path: Path) -> None:
    stack = stack_of(positions=[0, 2.5, 5, 10, 15])
    path = save(tmp_path / "m.mha", image_of(stack_of(), LABELS))
    with pytest.raises(InputError, match=r"× 2\.5–5 mm at"):
        read_labelmap(path, "1", stack)


# ---------------------------------------------------------------------------------------------- labels


@pytest.mark.parametrize(
    ("values", "roi", "label"),
    [
        ([0, 7], "", 7),
        ([0, 255], " ", 255),
        ([0, 1, 2], "2", 2),
        ([0, 1, 2], " +2.0 ", 2),
        ([0, -1, 1], "-1", -1),
        ([0, -1, 1], "1", 1),
        ([0, 1.0000005, 2], "1", 1),
        ([1e-7, 3], "", 3),
        ([5], "", 5),
    ],
)
def test_labels_that_are_found(tmp_path: Path, values: list[float], roi: str, label: int) -> None:
    whole = all(isinstance(v, int) for v in values)
    voxels = np.resize(np.array(values, np.int16 if whole else np.float64), SHAPE)
    path = save(tmp_path / "m.nii.gz", image_of(stack_of(), voxels))
    found = read_labelmap(path, roi, stack_of())
    np.testing.assert_array_equal(full(found, stack_of()), np.rint(voxels) == label)
    assert found.name == str(label)


@pytest.mark.parametrize(
    ("values", "roi", "match"),
    [
        ([0, 1, 2], "", "several labels: 1, 2"),
        ([0, 1, 2], "3", "no voxel has label 3; present: 1, 2"),
        ([0, 1, 2], "0", "no voxel has label 0"),
        ([0, 1, 2], "tumour", "'tumour' is not a label value; present: 1, 2"),
        ([0, 1, 2], "1.5", "'1.5' is not a label value"),
        ([0, 0], "", "empty"),
        ([0, 0], "1", "empty"),
        ([0, 0.999], "", "0.999 is not a whole number"),
        ([0, 0.5, 1], "1", "0.5 is not a whole number"),
        ([0, np.nan], "", "nan is not a whole number"),
        ([0, np.inf], "", "inf is not a whole number"),
        (range(200), "", r"1, 2, 3, 4, 5, 6, 7, 8, 9, 10, … \(199 labels\)"),
    ],
)
def test_labels_that_are_refused(tmp_path: Path, values: Any, roi: str, match: str) -> None:
    voxels = np.resize(np.array(values, np.float32), SHAPE)
    path = save(tmp_path / "m.nii.gz", image_of(stack_of(), voxels))
    for accept in (False, True):
        with pytest.raises(InputError, match=match) as caught:
            read_labelmap(path, roi, stack_of(), resample=accept)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)


def test_scaled_labels(tmp_path: Path) -> None:
    path = save(tmp_path / "m.nii", image_of(stack_of(), LABELS))
    raw = bytearray(path.read_bytes())
    raw[112:120] = np.array([0.5, 0.0], "<f4").tobytes()
    path.write_bytes(raw)
    with pytest.raises(InputError, match=r"[01]\.5 is not a whole number"):
        read_labelmap(path, "1", stack_of())
    raw[112:120] = np.array([10.0, 1.0], "<f4").tobytes()
    path.write_bytes(raw)
    with pytest.raises(InputError, match="several labels: 1, 11, 21, 31"):
        read_labelmap(path, "", stack_of())
    np.testing.assert_array_equal(full(read_labelmap(path, "21", stack_of()), stack_of()), LABELS == 2)


def test_colour_and_4d_are_refused(tmp_path: Path) -> None:
    colour = sitk.Compose(*[image_of(stack_of(), LABELS)] * 3)
    four = sitk.JoinSeries([image_of(stack_of(), LABELS)] * 2)
    for suffix, image in itertools.product((".nii.gz", ".nrrd", ".mha"), (colour, four)):
        path = save(tmp_path / f"m{suffix}", image)
        with pytest.raises(InputError, match=r"scalar|4-D|5-D|ElementNumberOfChannels"):
            read_labelmap(path, "1", stack_of(), resample=True)


# -------------------------------------------------------------------------------------------- resample


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), iop=st.sampled_from([syn.AXIAL, syn.SAGITTAL, OBLIQUE]))
def test_resampling_takes_the_nearest_voxel_as_itk(
    tmp_path_factory: pytest.TempPathFactory, seed: int, iop: Any
) -> None:
    """Random grids, so that no voxel centre lies half-way between two."""
    rng = np.random.default_rng(seed)
    stack = stack_of(iop)
    voxels = (rng.random((6, 9, 7)) < 0.5).astype(np.uint8)
    mask = sitk.GetImageFromArray(voxels)
    mask.SetSpacing(rng.uniform(0.6, 3, 3).tolist())
    mask.SetDirection(orthonormal_axes(syn.rotation_iop(tuple(rng.uniform(-60, 60, 3)))).T.ravel().tolist())
    middle = np.array(points_of(stack).mean(axis=(0, 1, 2)))
    half = np.array(mask.TransformContinuousIndexToPhysicalPoint([3.0, 4.0, 2.5]))
    mask.SetOrigin((middle - half + rng.uniform(-6, 6, 3)).tolist())
    path = save(tmp_path_factory.mktemp("m") / "m.mha", mask)
    expected = sitk.GetArrayFromImage(
        sitk.Resample(mask, image_of(stack, LABELS), sitk.Transform(), sitk.sitkNearestNeighbor)
    )
    if not expected.any():
        with pytest.raises(InputError, match="reaches a voxel"):
            read_labelmap(path, "", stack, resample=True)
        return
    roi = read_labelmap(path, "", stack, resample=True)
    np.testing.assert_array_equal(full(roi, stack), expected == 1)
    assert roi.notes[0].startswith("mask resampled to the image's grid by nearest voxel: ")


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_resampling_onto_uneven_tilted_slices(tmp_path_factory: pytest.TempPathFactory, seed: int) -> None:
    rng = np.random.default_rng(seed)
    stack = stack_of(OBLIQUE, positions=np.cumsum(rng.uniform(1, 4, 5)), shear=(0.2, -0.4))
    even = stack_of(OBLIQUE, shape=(7, 9, 8))
    voxels = (rng.random((7, 9, 8)) < 0.4).astype(np.uint8)
    mask = image_of(even, voxels)
    mask.SetOrigin((even.origins[0] + rng.uniform(-1, 1, 3)).tolist())
    path = save(tmp_path_factory.mktemp("m") / "m.mha", mask)
    expected = np.zeros((len(stack), *stack.shape), bool)
    for place in np.ndindex(expected.shape):
        index = mask.TransformPhysicalPointToIndex(points_of(stack)[place].tolist())
        if all(0 <= i < n for i, n in zip(index, mask.GetSize(), strict=True)):
            expected[place] = mask[index] == 1
    np.testing.assert_array_equal(full(read_labelmap(path, "1", stack, resample=True), stack), expected)


def test_resampling_from_a_tilted_mask_projects_along_n() -> None:
    """Closed form: nearest slice along n first, then the nearest pixel of that slice."""
    source = stack_of(shear=(0.0, 0.5), shape=(4, 12, 9))
    voxels = np.random.default_rng(5).random((4, 12, 9)) < 0.4
    stack = stack_of(positions=np.arange(9) * 1.1 + 0.13, shape=(9, 10, 6))
    expected = np.zeros((9, 10, 6), bool)
    for z, y, x in np.ndindex(expected.shape):
        height = z * 1.1 + 0.13
        k = round(height / 2.5)
        row = round((y * 2.0 - k * 1.25) / 2.0 + 1e-9)
        if k < 4 and 0 <= row < 12:
            expected[z, y, x] = voxels[k, row, x]
    np.testing.assert_array_equal(resample(voxels, source, stack), expected)


def test_a_tie_is_in_when_any_tied_voxel_is() -> None:
    source = stack_of()
    moved = source.origins + 0.5 * SPACING[1] * source.axes[0]
    stack = SliceStack(source.axes, moved, source.spacing, source.shape)
    voxels = np.zeros(SHAPE, bool)
    voxels[2, 3, 4] = True
    expected = voxels.copy()
    expected[2, 3, 3] = True
    np.testing.assert_array_equal(resample(voxels, source, stack), expected)


def test_a_coarse_voxel_fills_its_whole_extent(tmp_path: Path) -> None:
    """Closed form: one voxel of 30 × 30 × 30 mm on a fine grid."""
    voxels = np.zeros((3, 3, 3), np.uint8)
    voxels[1, 1, 1] = 1
    mask = sitk.GetImageFromArray(voxels)
    mask.SetSpacing((30.0, 30.0, 30.0))
    stack = stack_of(shape=(30, 40, 50))
    middle = points_of(stack)[15, 20, 25] + 0.2
    mask.SetOrigin((middle - 30).tolist())
    path = save(tmp_path / "m.mha", mask)
    expected = (np.abs(points_of(stack) - middle) < 15).all(axis=-1)
    assert 0 < expected.sum() < expected.size
    np.testing.assert_array_equal(full(read_labelmap(path, "", stack, resample=True), stack), expected)


def test_volumes_before_and_after_are_told(tmp_path: Path) -> None:
    voxels = np.zeros(SHAPE, np.uint8)
    voxels[1:3, 2:4, 2:4] = 1  # 8 voxels of 7.5 mm³
    path = save(tmp_path / "m.mha", image_of(stack_of(), voxels))
    beside = stack_of(positions=np.arange(3) * 2.5, shape=(3, 3, 6))  # only its first two slices and rows overlap
    roi = read_labelmap(path, "1", beside, resample=True)
    assert roi.notes == ("mask resampled to the image's grid by nearest voxel: 60 mm³ became 30 mm³",)
    far = stack_of(positions=np.arange(5) * 2.5 + 100)
    with pytest.raises(InputError, match="none of its 60 mm³ reaches a voxel"):
        read_labelmap(path, "1", far, resample=True)
