"""Volume files against SimpleITK and closed forms: where every voxel lies, and what must be refused.

`nifti_bytes` writes NIfTI headers from the offsets in nifti1.h and nifti2.h: each field can be wrong on its own.
"""

from __future__ import annotations

import gzip
import itertools
import os
import re
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from fuzz.volumes import judge_volume
from hypothesis import given, settings
from hypothesis import strategies as st

from ctpatch.errors import InputError
from ctpatch.images import volume as volumes
from ctpatch.images.image import Box
from ctpatch.images.volume import CTVolume, is_volume_file, open_volume

DATA = Path(__file__).parents[3] / "shared" / "data"
FORMATS = (".nii", ".nii.gz", ".nrrd", ".nhdr", ".mha", ".mhd")
PERMUTATIONS = [
    np.eye(3)[list(p)] * s for p in itertools.permutations(range(3)) for s in itertools.product((1, -1), repeat=3)
]
SIZE, SPACING, ORIGIN = (7, 6, 5), (0.75, 1.25, 2.5), (-101.5, 34.25, -512.0)
LPS = np.eye(3)
VOXELS = np.random.default_rng(7).integers(-1000, 3000, SIZE[::-1]).astype(np.int16)


def rotation(a: float, b: float, g: float) -> np.ndarray:
    """About x, then y, then z, in radians."""
    rx = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    ry = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
    rz = np.array([[np.cos(g), -np.sin(g), 0], [np.sin(g), np.cos(g), 0], [0, 0, 1]])
    return rz @ ry @ rx


def write(path: Path, voxels: np.ndarray = VOXELS, direction: Any = LPS, compress: bool = False, **change: Any) -> Path:
    image = sitk.GetImageFromArray(voxels)
    image.SetSpacing(change.get("spacing", SPACING))
    image.SetOrigin(change.get("origin", ORIGIN))
    image.SetDirection(np.asarray(direction).ravel().tolist())
    sitk.WriteImage(image, str(path), compress)
    return path


def read_volume(path: Path | str) -> CTVolume:
    """A volume of any values; these are too small for a CT's."""
    return volumes.read_volume(path, {"units"})


def whole(volume: CTVolume) -> np.ndarray:
    shape = (len(volume.stack), *volume.stack.shape)
    return volume.read_hu(Box(*((0, n) for n in shape)))


def centres(volume: CTVolume) -> np.ndarray:
    """LPS of every voxel of the stack, (z, y, x, 3)."""
    stack = volume.stack
    rows = np.arange(stack.shape[0])[:, None, None] * stack.spacing[0] * stack.axes[1]
    columns = np.arange(stack.shape[1])[:, None] * stack.spacing[1] * stack.axes[0]
    return stack.origins[:, None, None] + rows + columns


def nifti_bytes(version: int = 1, order: str = "<", voxels: np.ndarray = VOXELS, **change: Any) -> bytes:
    """A single-file NIfTI whose qform and sform say the same as `write`, unless changed."""
    dim = list(voxels.shape[::-1])
    fields: dict[str, Any] = {
        "dim": [len(dim), *dim, *[1] * (7 - len(dim))],
        "datatype": 4,
        "pixdim": [1.0, *SPACING, 0, 0, 0, 0],
        "vox_offset": 352 if version == 1 else 544,
        "slope": 1.0,
        "inter": 0.0,
        "units": 2,
        "qform": 1,
        "sform": 1,
        "quatern": [0.0, 0.0, 1.0],  # half a turn about z: RAS
        "qoffset": [-ORIGIN[0], -ORIGIN[1], ORIGIN[2]],
        "srow": [-SPACING[0], 0, 0, -ORIGIN[0], 0, -SPACING[1], 0, -ORIGIN[1], 0, 0, SPACING[2], ORIGIN[2]],
        "magic": b"n+1\0" if version == 1 else b"n+2\0\r\n\x1a\n",
    }
    assert set(change) <= set(fields)
    fields |= change
    nifti1 = {
        "dim": (40, "8h"),
        "datatype": (70, "h"),
        "pixdim": (76, "8f"),
        "vox_offset": (108, "f"),
        "slope": (112, "f"),
    }
    nifti1 |= {
        "inter": (116, "f"),
        "units": (123, "B"),
        "qform": (252, "h"),
        "sform": (254, "h"),
        "quatern": (256, "3f"),
    }
    nifti1 |= {"qoffset": (268, "3f"), "srow": (280, "12f"), "magic": (344, "4s")}
    nifti2 = {
        "dim": (16, "8q"),
        "datatype": (12, "h"),
        "pixdim": (104, "8d"),
        "vox_offset": (168, "q"),
        "slope": (176, "d"),
    }
    nifti2 |= {
        "inter": (184, "d"),
        "units": (500, "i"),
        "qform": (344, "i"),
        "sform": (348, "i"),
        "quatern": (352, "3d"),
    }
    nifti2 |= {"qoffset": (376, "3d"), "srow": (400, "12d"), "magic": (4, "8s")}
    head = bytearray(352 if version == 1 else 544)
    struct.pack_into(f"{order}i", head, 0, 348 if version == 1 else 540)
    bits = (70 + 2, "h") if version == 1 else (14, "h")
    struct.pack_into(order + bits[1], head, bits[0], voxels.dtype.itemsize * 8)
    for name, (offset, code) in (nifti1 if version == 1 else nifti2).items():
        value = fields[name]
        struct.pack_into(order + code, head, offset, *(value if isinstance(value, list) else [value]))
    return bytes(head) + voxels.astype(voxels.dtype.newbyteorder(order)).tobytes()


def refused(path: Path, match: str | None = None, kind: str | None = None) -> None:
    """Opening or reading `path` gives one clear line."""
    with pytest.raises(InputError, match=match) as caught:
        whole(read_volume(path))
    assert kind in (caught.value.kind, None), caught.value
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert ". Do: " in str(caught.value)


# ------------------------------------------------------------------------------------------- geometry


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("compress", [False, True])
def test_every_format_as_simpleitk_reads_it(tmp_path: Path, suffix: str, compress: bool) -> None:
    path = write(tmp_path / f"ct{suffix}", direction=rotation(0.1, -0.2, 0.3), compress=compress)
    expected = sitk.ReadImage(str(path))
    volume = read_volume(path)
    np.testing.assert_array_equal(whole(volume), np.maximum(VOXELS, -1024))
    np.testing.assert_allclose(volume.stack.axes, np.reshape(expected.GetDirection(), (3, 3)).T, atol=1e-6)
    np.testing.assert_allclose(volume.stack.origins[0], expected.GetOrigin(), atol=1e-4)
    last = expected.TransformIndexToPhysicalPoint([n - 1 for n in SIZE])
    np.testing.assert_allclose(centres(volume)[-1, -1, -1], last, atol=1e-4)
    assert (volume.frame_of_reference, volume.sop_uids) == ("", ())


@settings(max_examples=60, deadline=None)
@given(
    suffix=st.sampled_from([".nii", ".nii.gz", ".nrrd", ".mha"]),
    axes=st.sampled_from(PERMUTATIONS),
    angles=st.tuples(*[st.integers(-400, 400).map(lambda n: n / 1000)] * 3),  # ITK trips over denormal cosines
)
def test_axes_become_the_closest_lps(
    tmp_path_factory: pytest.TempPathFactory, suffix: str, axes: np.ndarray, angles: Any
) -> None:
    """Any storage order and handedness: as ITK's DICOMOrient, and no voxel moves."""
    path = tmp_path_factory.mktemp("v") / f"ct{suffix}"
    write(path, direction=rotation(*angles) @ axes)
    stored = sitk.ReadImage(str(path))
    expected = sitk.DICOMOrient(stored, "LPS")
    volume = read_volume(path)
    np.testing.assert_array_equal(whole(volume), sitk.GetArrayFromImage(expected))
    np.testing.assert_allclose(volume.stack.axes, np.reshape(expected.GetDirection(), (3, 3)).T, atol=1e-6)
    np.testing.assert_allclose(volume.stack.origins[0], expected.GetOrigin(), atol=1e-4)
    assert np.linalg.det(volume.stack.axes) == pytest.approx(1)
    value = whole(volume)
    points = centres(volume)
    for z, y, x in np.random.default_rng(0).integers(0, value.shape, (8, 3)):
        assert stored[stored.TransformPhysicalPointToIndex(points[z, y, x])] == value[z, y, x]


@settings(max_examples=200, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), left=st.booleans())
def test_far_rotations_choose_axes_as_itk_does(tmp_path_factory: pytest.TempPathFactory, seed: int, left: bool) -> None:
    q = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))[0]
    direction = q * (1 if (np.linalg.det(q) < 0) == left else -1)
    path = write(tmp_path_factory.mktemp("v") / "ct.mha", direction=direction)
    expected = sitk.DICOMOrient(sitk.ReadImage(str(path)), "LPS")
    volume = read_volume(path)
    np.testing.assert_array_equal(whole(volume), sitk.GetArrayFromImage(expected))
    np.testing.assert_allclose(volume.stack.axes, np.reshape(expected.GetDirection(), (3, 3)).T, atol=1e-9)


@pytest.mark.parametrize("space", ["left-posterior-superior", "RAS", "left-anterior-superior"])
def test_nrrd_spaces(tmp_path: Path, space: str) -> None:
    text = write(tmp_path / "a.nrrd").read_bytes()
    path = tmp_path / "b.nrrd"
    path.write_bytes(text.replace(b"left-posterior-superior", space.encode()))
    expected = sitk.DICOMOrient(sitk.ReadImage(str(path.with_name("b.nrrd"))), "LPS")
    if space == "RAS":  # ITK knows the short names too; state the closed form once
        assert expected.GetOrigin()[2] == ORIGIN[2]
        assert read_volume(path).stack.origins[0][0] == pytest.approx(-ORIGIN[0] - (SIZE[0] - 1) * SPACING[0])
    volume = read_volume(path)
    np.testing.assert_array_equal(whole(volume), sitk.GetArrayFromImage(expected))
    np.testing.assert_allclose(volume.stack.origins[0], expected.GetOrigin(), atol=1e-9)


def test_long_comments_and_keys_of_an_nrrd(tmp_path: Path) -> None:
    """As 3D Slicer writes them into its segmentations."""
    path = write(tmp_path / "a.nrrd")
    more = (
        b"# "
        + b"c" * 3000
        + b"\nSegment0_TerminologyEntry:="
        + b"Segmentation: category~SCT^85756007|" * 90
        + b"\nkinds"
    )
    path.write_bytes(path.read_bytes().replace(b"kinds", more, 1))
    np.testing.assert_array_equal(whole(read_volume(path)), VOXELS)


def test_a_sheared_stack_keeps_its_shear(tmp_path: Path) -> None:
    """Gantry tilt as an NRRD or an sform can hold it: each slice where the header says (closed form)."""
    step = np.array([0.0, 0.6, 2.5])
    nrrd = write(tmp_path / "a.nrrd").read_bytes().replace(b"(0,0,2.5)", b"(0,0.6,2.5)")
    (tmp_path / "a.nrrd").write_bytes(nrrd)
    srow = [-0.75, 0, 0, 101.5, 0, -1.25, -0.6, -34.25, 0, 0, 2.5, -512.0]
    (tmp_path / "a.nii").write_bytes(nifti_bytes(srow=srow, qform=0))
    for name in ("a.nrrd", "a.nii"):
        stack = read_volume(tmp_path / name).stack
        np.testing.assert_allclose(stack.origins, ORIGIN + np.arange(5)[:, None] * step, atol=1e-5)
        np.testing.assert_allclose(stack.axes, np.eye(3), atol=1e-12)
    mirrored = [-0.75, 0, 0, 101.5, 0, -1.25, 0.6, -34.25, 0, 0, -2.5, -512.0]
    (tmp_path / "b.nii").write_bytes(nifti_bytes(srow=mirrored, qform=0))
    volume = read_volume(tmp_path / "b.nii")
    np.testing.assert_allclose(volume.stack.origins, (ORIGIN - np.arange(5)[:, None] * step)[::-1], atol=1e-5)
    np.testing.assert_array_equal(whole(volume), VOXELS[::-1])


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("zipped", [False, True])
def test_nifti_versions_and_byte_orders(tmp_path: Path, version: int, order: str, zipped: bool) -> None:
    raw = nifti_bytes(version, order)
    path = tmp_path / "ct.nii.gz"
    path.write_bytes(gzip.compress(raw) if zipped else raw)
    volume = read_volume(path)
    np.testing.assert_array_equal(whole(volume), VOXELS)
    np.testing.assert_allclose(volume.stack.origins[0], ORIGIN)
    np.testing.assert_allclose(volume.stack.positions, np.arange(5) * 2.5)
    assert volume.stack.spacing == (1.25, 0.75)


@settings(max_examples=80, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), handed=st.sampled_from([1.0, -1.0]))
def test_qform_is_the_rotation_itk_makes_of_it(
    tmp_path_factory: pytest.TempPathFactory, seed: int, handed: float
) -> None:
    q = np.random.default_rng(seed).normal(size=4)
    q /= np.linalg.norm(q) * np.sign(q[0])
    path = tmp_path_factory.mktemp("v") / "ct.nii"
    path.write_bytes(nifti_bytes(sform=0, quatern=q[1:].tolist(), pixdim=[handed, *SPACING, 0, 0, 0, 0]))
    expected = sitk.DICOMOrient(sitk.ReadImage(str(path)), "LPS")
    volume = read_volume(path)
    np.testing.assert_array_equal(whole(volume), sitk.GetArrayFromImage(expected))
    np.testing.assert_allclose(volume.stack.axes, np.reshape(expected.GetDirection(), (3, 3)).T, atol=2e-6)
    np.testing.assert_allclose(volume.stack.origins[0], expected.GetOrigin(), atol=1e-4)


@pytest.mark.parametrize("change", [{"pixdim": [0.0, *SPACING, 0, 0, 0, 0]}, {"quatern": [0.0, 0.0, 1.0000003]}])
def test_a_qform_that_nibabel_refuses_is_read_as_the_format_says(tmp_path: Path, change: dict[str, Any]) -> None:
    """nifti1_io.c: a pixdim[0] of 0 is 1, and a quaternion is normalised."""
    path = tmp_path / "ct.nii"
    path.write_bytes(nifti_bytes(sform=0, **change))
    volume = read_volume(path)
    np.testing.assert_allclose(volume.stack.axes, np.eye(3), atol=1e-12)
    np.testing.assert_array_equal(whole(volume), VOXELS)


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("angle", [2e-4, 9e-4, 3e-3])
def test_a_little_more_than_half_a_turn_is_not_half_a_turn(tmp_path: Path, version: int, angle: float) -> None:
    """Closed form: turned about z from the axes that most CTs have; nibabel's own threshold is 1.2e-3 in NIfTI-1."""
    d = float(np.cos(angle / 2).astype(np.float32 if version == 1 else np.float64))
    (tmp_path / "ct.nii").write_bytes(nifti_bytes(version, sform=0, quatern=[0.0, 0.0, d]))
    w = np.sqrt(1 - d * d) if 1 - d * d > 1e-7 else 0.0
    axes = read_volume(tmp_path / "ct.nii").stack.axes
    np.testing.assert_allclose(np.abs(axes[0]), [np.cos(2 * np.arcsin(w)), np.sin(2 * np.arcsin(w)), 0], atol=1e-7)


def test_what_nibabel_mends_or_warns_of_is_silent(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Spacing 0 beside an sform, and voxels at an odd byte, which is no fault."""
    path = tmp_path / "ct.nii"
    raw = nifti_bytes(pixdim=[1, 0, 1, 1, 0, 0, 0, 0], qform=0, vox_offset=357.0)
    path.write_bytes(raw[:352] + bytes(5) + raw[352:])
    np.testing.assert_array_equal(whole(read_volume(path)), VOXELS)
    assert capfd.readouterr() == ("", "")


def test_trailing_axes_of_one_volume_are_no_axes(tmp_path: Path) -> None:
    path = tmp_path / "ct.nii"
    path.write_bytes(nifti_bytes(dim=[5, *SIZE, 1, 1, 0, 0]))
    np.testing.assert_array_equal(whole(read_volume(path)), VOXELS)


# --------------------------------------------------------------------------------------------- values


@pytest.mark.parametrize("dtype", ["u1", "i1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8"])
@pytest.mark.parametrize("suffix", FORMATS)
def test_stored_types(tmp_path: Path, dtype: str, suffix: str) -> None:
    voxels = (np.arange(210).reshape(5, 6, 7) % 120).astype(dtype)
    np.testing.assert_array_equal(whole(read_volume(write(tmp_path / f"ct{suffix}", voxels))), voxels)


def test_big_endian_text_headers(tmp_path: Path) -> None:
    swapped = VOXELS.astype(">i2").tobytes()
    for suffix, little in ((".nrrd", b"endian: little"), (".mha", b"ByteOrderMSB = False")):
        raw = write(tmp_path / f"a{suffix}").read_bytes()
        head = raw[: len(raw) - VOXELS.nbytes]
        big = little.replace(b"little", b"big").replace(b"False", b"True")
        path = tmp_path / f"b{suffix}"
        path.write_bytes(head.replace(little, big) + swapped)
        assert little in head
        np.testing.assert_array_equal(whole(read_volume(path)), VOXELS)


@pytest.mark.parametrize(("slope", "inter"), [(1.0, -1024.0), (0.5, 3.25), (2.0, 0.0), (-1.0, 10.0)])
def test_nifti_scaling_is_applied(tmp_path: Path, slope: float, inter: float) -> None:
    path = tmp_path / "ct.nii.gz"
    path.write_bytes(gzip.compress(nifti_bytes(slope=slope, inter=inter)))
    np.testing.assert_array_equal(whole(read_volume(path)), np.maximum(VOXELS * slope + inter, -1024))


def test_nifti_slope_zero_means_no_scaling(tmp_path: Path) -> None:
    path = tmp_path / "ct.nii"
    path.write_bytes(nifti_bytes(slope=0.0, inter=5.0))
    np.testing.assert_array_equal(whole(read_volume(path)), VOXELS)


def test_hu_below_air_and_above_int16(tmp_path: Path) -> None:
    voxels = np.zeros((2, 2, 2), np.float64)
    voxels[0, 0] = -2000, 40_000
    voxels[1, 1] = -1024.5, 32_767.5
    hu = whole(read_volume(write(tmp_path / "ct.mha", voxels)))
    assert hu.dtype == np.float32
    assert hu.ravel().tolist() == [-1024, 32767, 0, 0, 0, 0, -1024, 32767]


@settings(max_examples=40, deadline=None)
@given(data=st.data(), axes=st.sampled_from(PERMUTATIONS), suffix=st.sampled_from([".nii", ".nii.gz", ".mha"]))
def test_a_box_is_that_part_of_the_whole(
    tmp_path_factory: pytest.TempPathFactory, data: Any, axes: Any, suffix: str
) -> None:
    volume = read_volume(write(tmp_path_factory.mktemp("v") / f"ct{suffix}", direction=axes))
    full = whole(volume)
    ranges = [sorted(data.draw(st.tuples(*[st.integers(0, n)] * 2))) for n in full.shape]
    box = Box(*(tuple(r) for r in ranges))
    np.testing.assert_array_equal(volume.read_hu(box), full[tuple(slice(*r) for r in ranges)])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_are_refused_where_they_are_read(tmp_path: Path, bad: float) -> None:
    voxels = VOXELS.astype(np.float32)
    voxels[3, 2, 1] = bad
    volume = read_volume(write(tmp_path / "ct.nii.gz", voxels))
    assert volume.read_hu(Box((0, 3), (0, 6), (0, 7))).shape == (3, 6, 7)
    refused(tmp_path / "ct.nii.gz", "1 voxels are NaN or infinite")


def test_uid_tells_volumes_apart(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mhd")
    uid = read_volume(path).uid
    assert re.fullmatch("[0-9a-f]{64}", uid)
    assert read_volume(path).uid == uid
    other = VOXELS.copy()
    other[0, 0, 0] += 1
    assert read_volume(write(tmp_path / "a.mhd", other)).uid != uid  # only the detached data differs
    assert read_volume(write(tmp_path / "a.mhd", origin=(0, 0, 0))).uid != uid


@pytest.mark.parametrize("subject", ["STS_003", "STS_019", "STS_025"])
def test_third_party_volume(subject: str) -> None:
    path = DATA / "sts" / subject / "nifti" / "CT_image.nii.gz"
    if not path.is_file():
        pytest.skip(f"{path} is not here")
    expected = sitk.DICOMOrient(sitk.ReadImage(str(path)), "LPS")
    volume = read_volume(path)
    np.testing.assert_array_equal(whole(volume), np.maximum(sitk.GetArrayFromImage(expected), -1024))
    np.testing.assert_allclose(centres(volume)[0, 0, 0], expected.GetOrigin(), atol=1e-4)


# ------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"qform": 0, "sform": 0}, "neither qform nor sform"),
        ({"srow": [-0.75, 0, 0, 101.52, 0, -1.25, 0, -34.25, 0, 0, 2.5, -512.0]}, "0.02 mm apart"),
        ({"srow": [-0.75, 0, 0.01, 101.5, 0, -1.25, 0, -34.25, 0, 0, 2.5, -512.0]}, "0.04 mm apart"),
        ({"srow": [-1, 0, 0, 101.5, 0, -1, 0, -34.25, 0, 0, 1, -512.0]}, "place the same voxel"),
        ({"srow": [float("nan")] * 12}, "place the same voxel nan"),
        ({"srow": [float("nan")] * 12, "qform": 0}, "nan mm from the origin"),
        ({"srow": [0.0] * 12, "qform": 0}, "spacing 0, 0, 0 mm"),
        ({"srow": [-0.75, 0.3, 0, 0, 0, -1.25, 0, 0, 0, 0, 2.5, 0], "qform": 0}, "rows and columns are not perp"),
        ({"pixdim": [1, 0, 1, 1, 0, 0, 0, 0], "sform": 0}, "spacing 0, 1, 1 mm"),
        ({"units": 1}, "not in mm"),
        ({"units": 3}, "not in mm"),
        ({"slope": float("inf")}, "scl_slope inf"),
        ({"inter": float("inf")}, "scl_inter inf"),
        ({"dim": [4, 7, 6, 1, 5, 1, 1, 1]}, "4-D volume"),
        ({"dim": [2, 7, 30, 1, 1, 1, 1, 1]}, "2-D volume"),
        ({"dim": [3, 42, 5, 1, 1, 1, 1, 1]}, "single slice"),
        ({"dim": [0, 7, 6, 5, 1, 1, 1, 1]}, "0-D"),
        ({"dim": [9, 7, 6, 5, 1, 1, 1, 1]}, "0-D"),
        ({"dim": [3, 7, 0, 5, 1, 1, 1, 1]}, "7 × 0 × 5"),
        ({"dim": [3, 7, -6, 5, 1, 1, 1, 1]}, "7 × -6 × 5"),
        ({"dim": [3, 30000, 30000, 30000, 1, 1, 1, 1]}, "30000 × 30000 × 30000"),
        ({"dim": [3, 7, 6, 6, 1, 1, 1, 1]}, "420 bytes of voxels where the header declares 504"),
        ({"dim": [3, 7, 6, 4, 1, 1, 1, 1]}, "420 bytes of voxels where the header declares 336"),
        ({"datatype": 128}, "type 128"),
        ({"datatype": 32}, "type 32"),
        ({"pixdim": [1, -0.75, 1.25, 2.5, 0, 0, 0, 0], "sform": 0}, "a qform with"),
        ({"quatern": [2.0, 2.0, 2.0], "sform": 0}, "a qform with"),
        ({"vox_offset": 0.0}, "424 bytes of voxels where the header declares 420"),
        ({"datatype": 1536}, "voxels of type 1536|cannot be understood"),
        ({"magic": b"ni1\0"}, "header without its image"),
        ({"vox_offset": float("nan")}, "cannot be understood"),
    ],
)  # fmt: skip
def test_nifti_headers_that_are_refused(tmp_path: Path, change: dict[str, Any], match: str) -> None:
    path = tmp_path / "ct.nii"
    path.write_bytes(nifti_bytes(**change))
    refused(path, match)


@pytest.mark.parametrize("degrees", [0.006, 0.02, 0.06, 0.12, 0.23, 0.6])
@pytest.mark.parametrize("axis", [(1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 1)])
def test_what_itk_writes_of_a_slightly_turned_ct_is_read(tmp_path: Path, axis: tuple[int, ...], degrees: float) -> None:
    """Its qform is up to 0.3 mm off its sform: near half a turn the quaternion's a is the rounding of b, c and d."""
    image = sitk.Image(512, 512, 60, sitk.sitkUInt8)
    turn = sitk.VersorTransform(np.divide(axis, np.linalg.norm(axis)), np.radians(degrees))
    image.SetSpacing((0.8, 0.8, 2.5))
    image.SetOrigin((-200, -180, -700))
    image.SetDirection(turn.GetMatrix())
    sitk.WriteImage(image, tmp_path / "o.nii")
    stack = read_volume(tmp_path / "o.nii").stack
    corner = image.TransformIndexToPhysicalPoint((511, 511, 59))
    assert stack.to_lps(np.array([511 * 0.8, 511 * 0.8, 59 * 2.5])) == pytest.approx(corner, abs=1e-3)


def test_qform_and_sform_may_differ_by_rounding(tmp_path: Path) -> None:
    srow = [-0.75, 0, 0, 101.509, 0, -1.25, 0, -34.25, 0, 0, 2.5, -512.0]
    path = tmp_path / "ct.nii"
    path.write_bytes(nifti_bytes(srow=srow))
    assert read_volume(path).stack.origins[0][0] == pytest.approx(-101.509)  # the sform wins


@pytest.mark.parametrize(
    ("suffix", "old", "new", "match", "kind"),
    [
        (".nrrd", "space: left-posterior-superior\n", "space dimension: 3\n", "does not give space", "missing"),
        (".nrrd", "left-posterior-superior", "scanner-xyz", "scanner-xyz", "not-read"),
        (".nrrd", r"space directions: .*\n", "spacings: 0.75 1.25 2.5\n", "does not give space directions", "missing"),
        (".nrrd", r"space origin: .*\n", "", "does not give space origin", "missing"),
        (".nrrd", "left-posterior-superior", 'left-posterior-superior\nspace units: "m" "m" "m"', "units", "not-read"),
        (".nrrd", "encoding: raw", "encoding: txt", "encoding = 'txt'", "not-read"),
        (".nrrd", "encoding: raw", "encoding: raw\nbyte skip: -1", "byte skip = '-1'", "not-read"),
        (".nrrd", "encoding: raw", "encoding: raw\nline skip: 1", "line skip = '1'", "not-read"),
        (".nrrd", "encoding: raw", "encoding: bzip2", "encoding = 'bzip2'", "not-read"),
        (".nrrd", "sizes: 7 6 5", "sizes: 3 7 2 5", "4-D", None),
        (".nrrd", "sizes: 7 6 5", "sizes: 7 6 five", "sizes = '7 6 five'", "not-read"),
        (".nrrd", "sizes: 7 6 5", "sizes: 7 6 1_0", "sizes = '7 6 1_0'", "not-read"),
        (".nrrd", "sizes: 7 6 5", "sizes: 7 6 5\nsizes: 7 6 4", "sizes is given", "given-twice"),
        (".nrrd", "endian: little\n", "", None, "damaged"),
        (".nrrd", "type: short", "type: block", None, "damaged"),
        (".nrrd", "NRRD", "NERD", "not an NRRD header", "damaged"),
        (".nrrd", "kinds:", f"content: {'x' * 250}\nkinds:", "garbled at byte", "damaged"),
        (".nrrd", r"\(0.75,0,0\)", "none", "space directions = 'none", "not-read"),
        (".nrrd", r"\(0.75,0,0\)", "(nan,0,0)", "space directions = '.nan", "not-read"),
        (".nrrd", r"\(0.75,0,0\)", "(0,1.25,0)", "do not span", None),
        (".mha", r"NDims = .*\n", "", "does not give NDims", "missing"),
        (".mha", r"TransformMatrix = .*\n", "", "does not give TransformMatrix", "missing"),
        (".mha", r"Offset = .*\n", "", "does not give Offset", "missing"),
        (".mha", r"Offset = ", "offset = ", "does not give Offset", "missing"),
        (".mha", r"ElementSpacing = .*\n", "", "does not give ElementSpacing", "missing"),
        (".mha", r"ElementDataFile = LOCAL", "", "garbled at byte", "damaged"),
        (".mha", "DimSize = 7 6 5", "DimSize = 7 30", "2-D", None),
        (".mha", "DimSize = 7 6 5", "DimSize = 0 6 5", "0 × 6 × 5", None),
        (".mha", "MET_SHORT", "MET_SHORT_ARRAY", "MET_SHORT_ARRAY", "not-read"),
        (".mha", "MET_SHORT", "MET_STRING", "MET_STRING", "not-read"),
        (".mha", "MET_SHORT", "MET_LONG", "MET_LONG", "not-read"),
        (".mha", "DimSize", "ElementNumberOfChannels = 3\nDimSize", "ElementNumberOfChannels = '3'", "not-read"),
        (".mha", "DimSize", "ElementToIntensityFunctionSlope = 2\nDimSize", "Slope = '2'", "not-read"),
        (".mha", "DimSize", "ElementToIntensityFunctionOffset = -1024\nDimSize", "Offset = '-1024'", "not-read"),
        (".mha", "DimSize", "DistanceUnits = um\nDimSize", "DistanceUnits = 'um'", "not-read"),
        (".mha", "DimSize", "HeaderSize = 10\nDimSize", "HeaderSize = '10'", "not-read"),
        (".mha", "DimSize", "HeaderSize = -1\nDimSize", "HeaderSize = '-1'", "not-read"),
        (".mha", "DimSize", "Position = 1 2 3\nDimSize", "Position and Origin .* differ", "given-twice"),
        (".mha", "DimSize", "ImagePosition = 1 2 3\nDimSize", "ImagePosition differ", "given-twice"),
        (".mha", "DimSize", "Offset = 1 2 3\nDimSize", "Offset is given", "given-twice"),
        (".mha", "DimSize", "ElementByteOrderMSB = True\nDimSize", "MSB differ", "given-twice"),
        (".mha", "MSB = False", "MSB = 0", "MSB = '0'", "not-read"),
        (".mha", "BinaryData = True", "BinaryData = False", "BinaryData = 'False'", "not-read"),
        (".mha", "0.75", "zero", "ElementSpacing = 'zero", "not-read"),
        (".mha", "0.75", "1e999", "ElementSpacing = '1e999", "not-read"),
        (".mha", "DimSize", "ID =\nDimSize", "ID = ''", "not-read"),
        (".mha", "DimSize", "a line of its own\nDimSize", "garbled at byte", "damaged"),
        (".mha", "DimSize", f"Comment = {'x' * 250}\nDimSize", "garbled at byte", "damaged"),
        (".mha", "NDims = 3\n", "DimSize = 7 6 5\nNDims = 3\n", "garbled at byte", "damaged"),
    ],
)  # fmt: skip
def test_text_headers_that_are_refused(
    tmp_path: Path,
    suffix: str,
    old: str,
    new: str,
    match: str | None,
    kind: str | None,
    capfd: pytest.CaptureFixture[str],
) -> None:
    path = write(tmp_path / f"ct{suffix}")
    raw = path.read_bytes()
    edited = re.sub(old.encode(), new.encode(), raw, count=1)
    assert edited != raw
    path.write_bytes(edited)
    refused(path, match, kind)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", ["../secret.raw", "/etc/hostname", "no-such.raw", "LIST", "x%03d.raw 1 5 1", ".."])
@pytest.mark.parametrize(("suffix", "field"), [(".mhd", "ElementDataFile = "), (".nhdr", "data file: ")])
def test_a_header_leads_only_to_its_neighbour(tmp_path: Path, suffix: str, field: str, name: str) -> None:
    (tmp_path / "secret.raw").write_bytes(VOXELS.tobytes())
    (tmp_path / "in").mkdir()
    path = write(tmp_path / "in" / f"ct{suffix}")
    path.write_text(path.read_text().replace(f"{field}ct.raw", f"{field}{name}"))
    refused(path, "no file beside it")
    path.write_text(path.read_text().replace(f"{field}{name}", f"{field}./ct.raw"))
    np.testing.assert_array_equal(whole(read_volume(path)), VOXELS)


STORED = [(suffix, False) for suffix in FORMATS if suffix != ".nii.gz"]
STORED += [(suffix, True) for suffix in (".nii.gz", ".nrrd", ".mha")]


@pytest.mark.parametrize(("suffix", "compress"), STORED)
def test_cut_anywhere_gives_one_line(
    tmp_path: Path, suffix: str, compress: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path / f"ct{suffix}", compress=compress)
    data = next((p for p in tmp_path.iterdir() if p != path), path)
    raw = data.read_bytes()
    for length in range(len(raw)):
        data.write_bytes(raw[:length])
        refused(path)
    data.write_bytes(raw + b"xx")
    refused(path)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("suffix", [".nhdr", ".mhd"])
def test_a_detached_header_cut_anywhere_gives_one_line(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path / f"ct{suffix}")
    raw = path.read_bytes()
    for length in range(len(raw) - 1):
        path.write_bytes(raw[:length])
        refused(path)


@pytest.mark.parametrize(("suffix", "compress"), STORED)
def test_a_flipped_bit_of_any_byte_never_passes(
    tmp_path: Path, suffix: str, compress: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    """It is refused, or the file says so by the letter of its format, as a raw voxel or a digit of the spacing does."""
    path = write(tmp_path / f"ct{suffix}", compress=compress)
    raw = path.read_bytes()
    expected, stack = whole(read_volume(path)), read_volume(path).stack
    start = {".nii.gz": 10, ".nrrd": raw.find(b"\n\n") + 12, ".mha": raw.find(b"LOCAL\n") + 6}.get(suffix, 0)
    for position, byte in enumerate(raw):
        path.write_bytes(raw[:position] + bytes([byte ^ 1 << position % 8]) + raw[position + 1 :])
        try:
            found = read_volume(path)
            hu = whole(found)
        except InputError:
            continue
        judge_volume(found, hu)
        if compress and position >= start:  # a bit that means nothing, as in gzip's own header
            np.testing.assert_array_equal(hu, expected)
            np.testing.assert_array_equal(found.stack.origins, stack.origins)
    assert capfd.readouterr() == ("", "")


@settings(max_examples=300, deadline=None)
@given(data=st.data(), suffix=st.sampled_from([".nii", ".nrrd", ".mha", ".mhd"]))
def test_any_header_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, data: Any, suffix: str) -> None:
    """Changed bytes in a header raise nothing but InputError, and no warning."""
    path = write(tmp_path_factory.mktemp("v") / f"ct{suffix}")
    raw = bytearray(path.read_bytes())
    end = 352 if suffix == ".nii" else min(len(raw), 500)
    for position, byte in data.draw(
        st.lists(st.tuples(st.integers(0, end - 1), st.integers(0, 255)), min_size=1, max_size=8)
    ):
        raw[position] = byte
    path.write_bytes(raw)
    try:
        volume = read_volume(path)
        hu = whole(volume)
    except InputError:
        return
    assert np.isfinite(hu).all()
    assert np.isfinite(volume.stack.origins).all()
    assert (np.diff(volume.stack.positions) > 0).all()


@pytest.mark.parametrize("name", ["pixdim", "qoffset", "srow", "quatern"])
@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan, 3e38])
def test_numbers_out_of_bounds(tmp_path: Path, name: str, value: float) -> None:
    path = tmp_path / "ct.nii"
    count = {"pixdim": 8, "qoffset": 3, "srow": 12, "quatern": 3}[name]
    path.write_bytes(nifti_bytes(**{name: [value] * count, "qform" if name == "srow" else "sform": 0}))
    refused(path)


def test_bombs_are_refused_before_they_are_inflated(tmp_path: Path) -> None:
    path = tmp_path / "bomb.nii.gz"
    head = nifti_bytes(dim=[3, 2000, 1000, 1000, 1, 1, 1, 1])[:352]
    path.write_bytes(gzip.compress(head + bytes(10_000)))
    with pytest.raises(InputError, match="cannot hold the 4000000000 declared"):
        open_volume(path)
    path.write_bytes(gzip.compress(nifti_bytes() + bytes(50_000_000)))
    refused(path, "more voxels than the 772 bytes")


def test_members_of_a_gzip_file_are_one_stream(tmp_path: Path) -> None:
    raw = nifti_bytes()
    path = tmp_path / "ct.nii.gz"
    path.write_bytes(b"".join(gzip.compress(raw[i : i + 100]) for i in range(0, len(raw), 100)))
    refused(path, "not a whole NIfTI header")  # the header itself must lie in the first member
    path.write_bytes(gzip.compress(raw[:400]) + gzip.compress(raw[400:]))
    np.testing.assert_array_equal(whole(read_volume(path)), VOXELS)


def test_compressed_metaimage_without_its_size(tmp_path: Path) -> None:
    """The field is optional; SimpleITK reads such a file as zeros."""
    path = write(tmp_path / "ct.mha", compress=True)
    raw = path.read_bytes()
    path.write_bytes(re.sub(rb"CompressedDataSize = \d+\n", b"", raw))
    assert path.stat().st_size < len(raw)
    np.testing.assert_array_equal(whole(read_volume(path)), VOXELS)


def test_metaimage_with_gzip_instead_of_zlib(tmp_path: Path) -> None:
    raw = write(tmp_path / "ct.mha").read_bytes()
    head = raw[: -VOXELS.nbytes].replace(b"CompressedData = False", b"CompressedData = True")
    for squeeze in (zlib.compress, gzip.compress):
        (tmp_path / "ct.mha").write_bytes(head + squeeze(VOXELS.tobytes()))
        np.testing.assert_array_equal(whole(read_volume(tmp_path / "ct.mha")), VOXELS)


def test_missing_directory_unreadable_and_foreign_files(tmp_path: Path) -> None:
    refused(tmp_path / "none.nii", "No such file")
    (tmp_path / "folder.nii").mkdir()
    refused(tmp_path / "folder.nii", "directory")
    for suffix in FORMATS:
        path = tmp_path / f"noise{suffix}"
        path.write_bytes(np.random.default_rng(1).bytes(5000))
        refused(path)
    if os.getuid():  # root may read anything
        path = write(tmp_path / "locked.nii")
        path.chmod(0)
        refused(path, "Permission")
    (tmp_path / "ct.dcm").write_bytes(b"")
    refused(tmp_path / "ct.dcm", "not a volume file")


@pytest.mark.parametrize("suffix", FORMATS)
def test_names_in_any_script(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path / f"Müller 漢{suffix}")
    np.testing.assert_array_equal(whole(read_volume(path)), VOXELS)
    if suffix not in (".nhdr", ".mhd"):
        upper = path.rename(path.with_name(f"CT{suffix.upper()}"))
        np.testing.assert_array_equal(whole(read_volume(upper)), VOXELS)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="other systems have no such names")
@pytest.mark.parametrize("suffix", [".nrrd", ".mha"])
def test_a_name_in_no_script_ends_no_process(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path / f"a{suffix}").rename(tmp_path / f"\udce9{suffix}")
    with pytest.raises(InputError, match="is not UTF-8"):
        open_volume(path)


def test_the_libraries_are_loaded_only_to_read(tmp_path: Path) -> None:
    code = "import sys, ctpatch.images.volume; sys.exit(bool({'nibabel', 'SimpleITK'} & set(sys.modules)))"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_single_slice_is_refused(tmp_path: Path) -> None:
    refused(write(tmp_path / "ct.nii.gz", VOXELS[:1]), "slice")


def test_names_of_volume_files() -> None:
    assert all(is_volume_file(f"a/B.x{suffix}") and is_volume_file(Path(f"b{suffix.upper()}")) for suffix in FORMATS)
    assert not any(is_volume_file(name) for name in ("a.dcm", "nii", "a.nii.bz2", "a.gz", "a.xml", "a.raw"))
