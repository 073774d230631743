"""A target that reads a 3D Slicer segmentation: segments by name, from the layer that its header gives each."""

from __future__ import annotations

import random
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from segments import slicer_nrrd

from ctpatch.contours.labelmap import LabelMap
from ctpatch.contours.roi import VoxelROI
from ctpatch.geometry import SliceStack, make_stack

from . import mutate
from .images import ORIGIN, SHAPE, SPACING
from .target import Target, Wrong, decimals

WANTED = "Tumour"
SEGMENTS = {"Lymph node": (1, 0), WANTED: (1, 1), "Oedema": (2, 0)}
"""Label value and layer."""
STEPS = np.array([[SPACING[1], 0, 0], [0, SPACING[0], 0], [0, 0, 2.5]])
"""Along i, j and k, LPS mm."""


def segmentation_target(folder: Path) -> Target:
    """Segments in one and two layers, compressed and not; read by name."""
    folder.mkdir(exist_ok=True)
    path = folder / "v.seg.nrrd"
    positions = [(*ORIGIN[:2], ORIGIN[2] + 2.5 * k) for k in range(SHAPE[0])]
    stack, _ = make_stack(np.eye(3), positions, SPACING, SHAPE[1:])

    def read(data: bytes) -> VoxelROI:
        path.write_bytes(data)
        return LabelMap(path).read(WANTED, SimpleNamespace(stack=stack))

    return Target("segmentation", list(_files()), _change, read, lambda roi, data: judge_segments(roi, data, stack))


def _files() -> Iterator[bytes]:
    layers = np.zeros((*SHAPE, 2), np.uint8)
    layers[1:3, 10:14, 9:17, 0], layers[0:2, 3:9, 4:12, 1], layers[2, 1:4, 2:5, 0] = 1, 1, 2
    flat = np.where(layers[..., 1], 3, layers[..., 0]).astype(np.uint8)
    for encoding in ("gzip", "raw"):
        yield slicer_nrrd(layers, SEGMENTS.items(), STEPS, ORIGIN, encoding)
        yield slicer_nrrd(flat, (SEGMENTS | {WANTED: (3, 0)}).items(), STEPS, ORIGIN, encoding)


def _change(data: bytes, rng: random.Random) -> bytes:
    """A change of the header as what it is, mostly; or of any byte."""
    end = data.find(b"\n\n") + 2
    if end < 2 or rng.random() < 0.15:
        return mutate.any_bytes(data, rng)
    return mutate.several((mutate.number, mutate.lines, mutate.any_bytes), data[:end], rng) + data[end:]


def judge_segments(roi: VoxelROI, data: bytes, stack: SliceStack) -> None:
    """The voxels of the one segment of that name, where the file has them."""
    head, _, rest = data.replace(b"\r\n\r\n", b"\n\n", 1).partition(b"\n\n")
    lines = head.decode("utf-8", "replace").splitlines()
    values, origin, steps = _plain(dict(re.findall(r"^([a-z ]+): *(.*?) *$", "\n".join(lines), re.M)), rest)
    keys = dict(re.findall(r"^(Segment\d+_\w+):=(.*?)\s*$", "\n".join(lines), re.M))
    numbers = [key.split("_")[0] for key, name in keys.items() if key.endswith("_Name") and _alike(name, WANTED)]
    if len(numbers) != 1:
        raise Wrong(f"{len(numbers)} segments have that name")
    label, layer = (int(keys.get(f"{numbers[0]}_{key}", "0")) for key in ("LabelValue", "Layer"))
    k, j, i = np.nonzero(values[..., layer] == label)
    expected = stack.to_stack(origin + np.column_stack([i, j, k]) @ steps) / np.diag(STEPS)
    found = (np.argwhere(roi.voxels) + roi.corner)[:, ::-1]
    if sorted(map(tuple, np.rint(expected).astype(int).tolist())) != sorted(map(tuple, found.tolist())):
        raise Wrong(f"{len(found)} voxels where the segment has {len(k)}, or others")


def _alike(name: str, other: str) -> bool:
    return " ".join(name.casefold().split()) == other.casefold()


def _plain(fields: dict[str, str], rest: bytes) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Values (k, j, i, layer), LPS of the first voxel, the steps along i, j, k: by the letter of the format."""
    raw = rest if fields["encoding"] == "raw" else zlib.decompress(rest, 47)
    size = [int(n) for n in fields["sizes"].split()]
    values = np.frombuffer(raw, np.uint8, int(np.prod(size))).reshape(size[::-1])
    directions = [v.strip(" ()") for v in re.findall(r"\([^)]*\)", fields["space directions"])]
    steps = np.array([decimals(v, ",") for v in directions])
    signs = np.array([-1.0 if word[0] in "ra" else 1.0 for word in fields["space"].split("-")])
    origin = np.array(decimals(fields["space origin"].strip("() "), ","))
    return values.reshape(*size[::-1][:3], -1), origin * signs, steps * signs
