"""Masks that are voxels, for the tests: DICOM SEG objects as highdicom writes them, label maps as SimpleITK does."""

from __future__ import annotations

import gzip
import warnings
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import pydicom
import SimpleITK as sitk
import synthetic
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes


def write_seg(
    path: Path,
    series: synthetic.Series,
    masks: Mapping[str, np.ndarray],
    kind: str = "BINARY",
    edit: Callable[[Dataset], None] | None = None,
    **options: Any,
) -> Path:
    """A SEG by highdicom; `masks` (z, y, x) by label, numbered from 1. Frames of slices without a mask are left out."""
    manual = hd.seg.SegmentAlgorithmTypeValues.MANUAL
    described = [
        hd.seg.SegmentDescription(i, label, codes.SCT.Tissue, codes.SCT.Tissue, manual)
        for i, label in enumerate(masks, start=1)
    ]
    stacked = np.stack(list(masks.values()), axis=-1)
    if kind == "LABELMAP":
        stacked = (stacked * np.arange(1, len(masks) + 1)).max(axis=-1)
    sources = [pydicom.dcmread(p) for p in series.paths]
    for source in sources:  # highdicom asks for it, CT readers do not
        source.SliceThickness = source.get("SliceThickness", abs(series.positions[1]))
    uids = [synthetic.uid("seg", path, n) for n in range(2)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset = hd.seg.Segmentation(
            sources, stacked.astype(float if kind == "FRACTIONAL" else np.uint8), kind, described,
            uids[0], 1, uids[1], 1, "maker", "model", "1", "1", **options,
        )  # fmt: skip
        dataset.save_as(path)
    if edit is not None:
        altered = pydicom.dcmread(path)
        edit(altered)
        altered.save_as(path)
    return path


def frames_of(dataset: Dataset) -> np.ndarray:
    """All bit-packed frames, (n, rows, columns)."""
    count = int(dataset.NumberOfFrames) * dataset.Rows * dataset.Columns
    bits = np.unpackbits(np.frombuffer(dataset.PixelData, np.uint8), bitorder="little")[:count]
    return bits.reshape(-1, dataset.Rows, dataset.Columns)


def set_frames(dataset: Dataset, frames: np.ndarray) -> None:
    packed = np.packbits(frames.ravel(), bitorder="little").tobytes()
    dataset.PixelData = packed + b"\0" * (len(packed) % 2)


def volume(series: synthetic.Series, voxels: np.ndarray) -> sitk.Image:
    """A SimpleITK image with `voxels` (z, y, x) on the grid of an evenly spaced series."""
    image = sitk.GetImageFromArray(voxels)
    image.SetDirection(series.axes.T.ravel().tolist())
    image.SetOrigin(series.origins[0].tolist())
    image.SetSpacing((series.spacing[1], series.spacing[0], float(series.positions[1])))
    return image


def slicer_nrrd(
    voxels: np.ndarray,
    segments: Iterable[tuple[str, tuple[int, int]]],
    steps: Iterable[Iterable[float]],
    origin: Iterable[float],
    encoding: str = "gzip",
) -> bytes:
    """A .seg.nrrd as 3D Slicer writes it: segments by name, with their label value and layer.

    `voxels` are uint8 (k, j, i), or (k, j, i, layer) where segments overlap; `steps` and `origin` LPS mm, by i, j, k.
    """
    layers = voxels.shape[3:]
    extent = " ".join(f"0 {n - 1}" for n in voxels.shape[2::-1])
    lines = [
        "NRRD0004",
        "# Complete NRRD file format specification at:",
        "type: unsigned char",
        f"dimension: {voxels.ndim}",
        "space: left-posterior-superior",
        f"sizes: {' '.join(map(str, (*layers, *voxels.shape[2::-1])))}",
        f"space directions: {' '.join([*['none' for _ in layers], *map(_vector, steps)])}",
        f"kinds: {'list ' * len(layers)}domain domain domain",
        f"encoding: {encoding}",
        f"space origin: {_vector(origin)}",
    ]
    for i, (name, (label, layer)) in enumerate(segments):
        told = {"ID": f"Segment_{i}", "LabelValue": label, "Layer": layer, "Name": name, "Extent": extent}
        lines += [f"Segment{i}_{key}:={value}" for key, value in told.items()]
    raw = np.ascontiguousarray(voxels).tobytes()
    return "\n".join([*lines, "", ""]).encode() + (gzip.compress(raw, mtime=0) if encoding == "gzip" else raw)


def _vector(values: Iterable[float]) -> str:
    return f"({','.join(f'{value:g}' for value in values)})"
