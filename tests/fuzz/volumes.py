"""Targets that read volume files, as image and as label map; judged by a second, plain reading of their headers."""

from __future__ import annotations

import gzip
import random
import re
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import SimpleITK as sitk

from ctpatch.contours.labelmap import LabelMap
from ctpatch.contours.roi import VoxelROI
from ctpatch.errors import InputError
from ctpatch.geometry import SliceStack, make_stack
from ctpatch.images.volume import CTVolume, read_volume

from . import mutate
from .images import ORIGIN, SHAPE, SPACING, read_all, same
from .target import Target, Wrong, decimals

SUFFIXES = (".nii", ".nii.gz", ".nrrd", ".mha", ".nhdr", ".mhd")
"""An input's first byte says which it is; the detached headers find their voxels beside them."""
VOXELS = np.random.default_rng(7).integers(-1000, 3000, SHAPE).astype(np.int16)
Voxels = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Values (k, j, i), LPS of the first voxel, and the step of one voxel along i, j, k as rows."""


def volume_target(folder: Path) -> Target:
    """A CT as a volume file."""
    folder.mkdir(exist_ok=True)
    seeds = list(_files(folder, VOXELS)) + list(_files(folder, VOXELS.astype(np.float32), (1, 2)))

    def read(data: bytes) -> tuple[CTVolume, np.ndarray]:
        volume = read_volume(_written(folder, data), {"units"})
        return volume, read_all(volume)

    return Target("volume", seeds, change_volume, read, lambda found, _: judge_volume(*found))


def labelmap_target(folder: Path) -> Target:
    """A label map of two labels on the image's grid; the same file with `resample` accepted."""
    folder.mkdir(exist_ok=True)
    labels = np.zeros(SHAPE, np.uint8)
    labels[0:2, 3:9, 4:12], labels[1:3, 10:14, 9:17] = 1, 2
    seeds = list(_files(folder, labels)) + list(_files(folder, labels.astype(np.float32), (0, 2)))
    axes = np.eye(3)
    stack, _ = make_stack(axes, [(*ORIGIN[:2], ORIGIN[2] + 2.5 * k) for k in range(SHAPE[0])], SPACING, SHAPE[1:])
    image = SimpleNamespace(stack=stack)

    def read(data: bytes) -> tuple[VoxelROI, Path]:
        path, problem, found = _written(folder, data), None, None
        try:
            found = LabelMap(path).read("2", image)
        except InputError as error:
            problem = error
        LabelMap(path).read("2", image, {"resample"})
        if problem is not None:
            raise problem
        assert found is not None
        return found, path

    return Target("labelmap", seeds, change_volume, read, lambda found, _: judge_labels(*found, stack))


def _written(folder: Path, data: bytes) -> Path:
    path = folder / f"v{SUFFIXES[data[0] % len(SUFFIXES) if data else 0]}"
    path.write_bytes(data[1:])
    return path


def _files(folder: Path, voxels: np.ndarray, numbers: tuple[int, ...] = tuple(range(6))) -> Iterator[bytes]:
    """The voxels in every format, compressed and not, some with axes turned."""
    for number in numbers:
        suffix = SUFFIXES[number]
        for compress in (False, True)[: 1 if suffix in (".nii", ".nii.gz", ".nhdr", ".mhd") else 2]:
            turned = number % 2 and voxels.dtype == np.int16
            image = sitk.GetImageFromArray(voxels)
            image.SetSpacing((SPACING[1], SPACING[0], 2.5))
            image.SetOrigin(ORIGIN)
            image.SetDirection((0, 1, 0, -1, 0, 0, 0, 0, 1) if turned else (1, 0, 0, 0, 1, 0, 0, 0, 1))
            path = folder / f"v{suffix}"
            sitk.WriteImage(image, str(path), compress)
            yield bytes((number,)) + path.read_bytes()


def change_volume(data: bytes, rng: random.Random) -> bytes:
    """A change of the header as what it is, or of any byte; of what is inside where the whole is compressed."""
    kind, content = data[:1], data[1:]
    suffix = SUFFIXES[kind[0] % len(SUFFIXES)] if kind else ".nii"
    if suffix == ".nii.gz" and rng.random() < 0.7:
        try:
            return kind + gzip.compress(_nifti_field(gzip.decompress(content), rng), 1, mtime=0)
        except (OSError, EOFError, ValueError, zlib.error):
            pass
    if suffix == ".nii" and rng.random() < 0.8:
        return kind + _nifti_field(content, rng)
    if suffix not in (".nii", ".nii.gz") and rng.random() < 0.8:
        end = max(content.find(b"\n\n"), content.find(b"LOCAL\n") + 4) + 2
        end = end if end > 5 else len(content)
        header = mutate.several((mutate.number, mutate.lines, mutate.any_bytes), content[:end], rng)
        return kind + header + content[end:]
    return kind + mutate.any_bytes(content, rng)


def _nifti_field(data: bytes, rng: random.Random) -> bytes:
    """One of the header's numbers replaced, in its own type."""
    changed = bytearray(data)
    if len(data) < 352 or rng.random() < 0.2:
        return mutate.any_bytes(data, rng, range(352))
    if rng.random() < 0.5:
        at = rng.choice((*range(40, 56, 2), 70, 72, 252, 254))
        struct.pack_into("<h", changed, at, rng.choice((-1, 0, 1, 2, 3, 4, 5, 8, 16, 64, 512, 768, 32767)))
    else:
        at = rng.choice((*range(76, 108, 4), 108, 112, 116, *range(256, 328, 4)))
        odd = (0.0, -1.0, 1.0, 2.0, 1e-30, 1e30, float("nan"), float("inf"), 352.0, 353.5, rng.uniform(-5, 5))
        struct.pack_into("<f", changed, at, rng.choice(odd))
    return bytes(changed)


# --------------------------------------------------------------------------------------------------- the judgement


def judge_volume(volume: CTVolume, hu: np.ndarray) -> None:
    """Every voxel of the file lies where it should, with its value."""
    values, origin, steps = plain_reading(volume.file.path)
    stack = volume.stack
    rows = np.arange(stack.shape[0])[:, None, None] * stack.spacing[0] * stack.axes[1]
    columns = np.arange(stack.shape[1])[:, None] * stack.spacing[1] * stack.axes[0]
    index = (stack.origins[:, None, None] + rows + columns - origin) @ np.linalg.inv(steps)
    nearest = np.rint(index).astype(int)
    if values.size != hu.size or (nearest < 0).any() or (nearest >= values.shape[::-1]).any():
        raise Wrong(
            f"{hu.size} voxels from {nearest.min((0, 1, 2))} to {nearest.max((0, 1, 2))} of {values.shape[::-1]}"
        )
    if np.abs(index - nearest).max() > 0.11:
        raise Wrong(f"voxels lie up to {np.abs(index - nearest).max():.3g} of a step off")
    i, j, k = np.moveaxis(nearest, -1, 0)
    same(hu, np.clip(values[k, j, i], -1024, 32767).astype(np.float32), "HU")


def judge_labels(roi: VoxelROI, path: Path, stack: SliceStack) -> None:
    """Every voxel of label 2, where the file has it."""
    values, origin, steps = plain_reading(path)
    k, j, i = np.nonzero(np.abs(values - 2) < 1e-5)
    points = origin + np.column_stack([i, j, k]) @ steps
    expected = stack.to_stack(points) / (stack.spacing[1], stack.spacing[0], 2.5)
    found = np.argwhere(roi.voxels) + roi.corner
    off = (
        1.0 if len(found) != len(points) else np.abs(np.sort(_codes(expected)) - np.sort(_codes(found[:, ::-1]))).max()
    )
    if off > 1e-6:
        raise Wrong(f"{len(found)} voxels where the file holds {len(points)}, or others")


def _codes(indices: np.ndarray) -> np.ndarray:
    return np.rint(indices) @ [1, 1000, 1000000]


def plain_reading(path: Path) -> Voxels:
    """What a volume file says, by the letter of its format."""
    content = path.read_bytes()
    if ".nii" in path.name:
        return _nifti(gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content)
    return _nrrd(path, content) if path.suffix in (".nrrd", ".nhdr") else _metaimage(path, content)


def _nrrd(path: Path, content: bytes) -> Voxels:
    head, _, rest = content.replace(b"\r\n\r\n", b"\n\n", 1).partition(b"\n\n")
    fields = _fields(head.decode("utf-8", "replace").split("\n")[1:], ":")
    name = fields.get("data file", fields.get("datafile", ""))
    rest = (path.parent / name.removeprefix("./")).read_bytes() if name else rest
    raw = rest if fields["encoding"].lower() == "raw" else zlib.decompress(rest, 47)
    space = fields["space"].lower()
    letters = "".join(word[0] for word in space.split("-")) if "-" in space else space
    lps = np.array([-1.0 if letter in "ra" else 1.0 for letter in letters])
    steps = np.array([decimals(v.strip("() \t"), ",") for v in fields["space directions"].split(")")[:3]])
    origin = np.array(decimals(fields["space origin"].strip("() "), ","))
    size = [int(n) for n in fields["sizes"].split()]
    kinds = {"short": "i2", "int16": "i2", "uchar": "u1", "unsigned char": "u1", "uint8": "u1", "float": "f4"}
    kinds |= {"double": "f8", "ushort": "u2", "unsigned short": "u2", "char": "i1", "signed char": "i1", "int": "i4"}
    order = ">" if fields.get("endian", "").lower() == "big" else "<"
    values = np.frombuffer(raw, order + kinds[fields["type"].lower()], int(np.prod(size)))
    return values.reshape(size[::-1]).astype(float), origin * lps, steps * lps


def _metaimage(path: Path, content: bytes) -> Voxels:
    end = content.find(b"\n", content.find(b"ElementDataFile"))
    end = len(content) if end < 0 else end
    fields = _fields(content[:end].decode("utf-8", "replace").split("\n"), "=")
    name = fields["elementdatafile"]
    rest = content[end + 1 :] if name.upper() == "LOCAL" else (path.parent / name.removeprefix("./")).read_bytes()
    raw = zlib.decompress(rest, 47) if fields.get("compresseddata", "").lower() == "true" else rest

    def given(*names: str) -> np.ndarray:
        return np.array(decimals(" ".join(next(fields[n] for n in names if n in fields).split()), " "))

    steps = given("transformmatrix", "rotation", "orientation").reshape(3, 3) * given("elementspacing")[:, None]
    size = [int(n) for n in fields["dimsize"].split()]
    kinds = {
        "met_short": "i2",
        "met_uchar": "u1",
        "met_float": "f4",
        "met_ushort": "u2",
        "met_char": "i1",
        "met_int": "i4",
    }
    big = "true" in (fields.get("binarydatabyteordermsb", "").lower(), fields.get("elementbyteordermsb", "").lower())
    values = np.frombuffer(raw, (">" if big else "<") + kinds[fields["elementtype"].lower()], int(np.prod(size)))
    return values.reshape(size[::-1]).astype(float), given("offset", "position", "origin"), steps


def _fields(lines: list[str], separator: str) -> dict[str, str]:
    fields: dict[str, str] = {}
    for line in lines:
        key, found, value = line.partition(separator)
        named = separator == ":" or re.match(r"\w+ *=", line)
        if not found or not named or line.startswith("#") or value.startswith("="):
            continue
        key = key.strip().lower()
        if fields.setdefault(key, value.strip()) != value.strip():
            raise Wrong(f"{key!r} is given twice, as {fields[key]!r} and as {value.strip()!r}")
    return fields


def _nifti(raw: bytes) -> Voxels:
    """NIfTI-1: the sform, or else the qform."""
    order = "<" if struct.unpack("<i", raw[:4])[0] == 348 else ">"

    def field(at: int, code: str) -> tuple[Any, ...]:
        return struct.unpack_from(order + code, raw, at)

    size = field(42, "3h")
    kind = {2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 256: "i1", 512: "u2", 768: "u4", 1024: "i8", 1280: "u8"}
    start = max(int(field(108, "f")[0]), 348)
    values = np.frombuffer(raw, order + kind[field(70, "h")[0]], int(np.prod(size)), start).reshape(size[::-1])
    slope, intercept = field(112, "2f")
    slope = 0 if np.isnan(slope) else slope  # no scaling, as nibabel and ITK read it
    values = values.astype(float) * slope + intercept if slope else values.astype(float)
    if field(254, "h")[0] > 0:
        affine = np.reshape(field(280, "12f"), (3, 4))
    else:
        b, c, d = field(256, "3f")
        a = np.sqrt(max(0.0, 1 - b * b - c * c - d * d))
        turn = [
            [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
            [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
            [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - b * b - c * c],
        ]
        scale = np.array(field(80, "3f")) * (1, 1, -1 if field(76, "f")[0] < 0 else 1)
        affine = np.column_stack([np.array(turn) * scale, field(268, "3f")])
    lps = np.diag([-1.0, -1.0, 1.0]) @ affine
    return values, lps[:, 3], lps[:, :3].T
