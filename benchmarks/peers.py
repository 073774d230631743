"""The same lesion by what people write with the public libraries: read the series, rasterise, resample, crop patches.

Each makes the 100 patches without copies, HU only, and writes nothing: a third of what `ctpatch build` does. The whole
volume is resampled to 0.5 mm, or, with `first`, only the part around the lesion, cropped before. TorchIO and MONAI are
asked in their own way: a subject or dictionary, and a transform for each step.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

REACH = 18.0
"""mm beyond the lesion that its patches reach: half of 64 pixels, and rounding."""


def read_series(folder: Path):
    """The CT as a float32 SimpleITK image."""
    import SimpleITK as sitk

    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)  # ctpatch's kernels run on one thread too
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder / "ct")))
    reader.SetOutputPixelType(sitk.sitkFloat32)
    return reader.Execute()


def resampled(image, label):
    """Image and label on a grid of 0.5 mm."""
    import SimpleITK as sitk

    size = [int(np.ceil(n * s / 0.5)) for n, s in zip(image.GetSize(), image.GetSpacing(), strict=True)]
    grid = (size, sitk.Transform(), sitk.sitkLinear, image.GetOrigin(), (0.5,) * 3, image.GetDirection(), -1024.0)
    fine = sitk.Resample(image, *grid, sitk.sitkFloat32)
    return fine, sitk.Resample(label, fine, sitk.Transform(), sitk.sitkNearestNeighbor)


def choose(points: np.ndarray) -> np.ndarray:
    """ctpatch's own draw of 100 of the lesion's points."""
    seed = hashlib.sha256(b"ctpatch-1\x000\x00P1\x001").digest()[:16]
    rng = np.random.Generator(np.random.PCG64(int.from_bytes(seed, "big")))
    return points[rng.integers(0, len(points), 100)]


def crops(fine: np.ndarray, label: np.ndarray) -> np.ndarray:
    """100 patches (100, 64, 64) int16 out of a volume of 0.5 mm, (z, y, x) as its mask."""
    chosen = choose(np.argwhere(label))
    return np.stack([np.rint(crop(fine, point, i % 3)).astype(np.int16) for i, point in enumerate(chosen)])


def simpleitk_patches(folder: Path, *, first: bool) -> np.ndarray:
    """100 patches by SimpleITK."""
    import SimpleITK as sitk

    image = read_series(folder)
    label = rasterise(image, folder / "rs.dcm")
    if first:
        low, high = bounds(np.argwhere(sitk.GetArrayViewFromImage(label))[:, ::-1], image.GetSpacing(), image.GetSize())
        box = [int(n) for n in high - low], [int(n) for n in low]
        image, label = sitk.RegionOfInterest(image, *box), sitk.RegionOfInterest(label, *box)
    return crops(*map(sitk.GetArrayFromImage, resampled(image, label)))


def bounds(voxels: np.ndarray, spacing, size) -> tuple[np.ndarray, np.ndarray]:
    """First voxel, and the one after the last, of the part that patches reach."""
    margin = np.ceil(REACH / np.array(spacing)).astype(int)
    return np.maximum(voxels.min(axis=0) - margin, 0), np.minimum(voxels.max(axis=0) + margin + 1, size)


def torchio_patches(folder: Path, *, first: bool) -> np.ndarray:
    """100 patches by TorchIO."""
    import torch
    import torchio as tio

    torch.set_num_threads(1)
    image = tio.ScalarImage(folder / "ct")
    image.load()
    label = tio.LabelMap.from_sitk(rasterise(image.as_sitk(), folder / "rs.dcm"))
    subject = tio.Subject(ct=image, lesion=label)
    if first:
        low, high = bounds(np.argwhere(label.numpy()[0]), image.spacing, image.spatial_shape)
        after = np.array(image.spatial_shape) - high
        subject = tio.Crop([int(n) for pair in zip(low, after, strict=True) for n in pair])(subject)
    subject = tio.Resample(0.5)(subject)
    return crops(*(subject[name].numpy()[0].transpose(2, 1, 0) for name in ("ct", "lesion")))


def monai_patches(folder: Path, *, first: bool) -> np.ndarray:
    """100 patches by MONAI."""
    import SimpleITK as sitk
    import torch
    from monai.data import MetaTensor
    from monai.transforms import Compose, LoadImaged, SpacingD, SpatialCropD

    torch.set_num_threads(1)
    keys = ("ct", "lesion")
    data = LoadImaged("ct", reader="PydicomReader", swap_ij=True, ensure_channel_first=True)({"ct": folder / "ct"})
    ct = data["ct"]
    grid = sitk.Image([int(n) for n in ct.shape[1:]], sitk.sitkUInt8)
    affine = ct.affine.numpy()
    grid.SetSpacing(np.abs(np.diag(affine)[:3]).tolist())
    grid.SetOrigin((affine[:3, 3] * (-1, -1, 1)).tolist())  # RAS to LPS
    mask = sitk.GetArrayFromImage(rasterise(grid, folder / "rs.dcm")).transpose(2, 1, 0)
    data["lesion"] = MetaTensor(torch.from_numpy(mask[None].copy()), affine=ct.affine)
    low, high = bounds(np.argwhere(mask), grid.GetSpacing(), mask.shape)
    steps = [SpatialCropD(keys, roi_start=low.tolist(), roi_end=high.tolist())] if first else []
    steps.append(SpacingD(keys, pixdim=(0.5,) * 3, mode=("bilinear", "nearest")))
    data = Compose(steps)(data)
    return crops(*(data[name].numpy()[0].transpose(2, 1, 0) for name in keys))


def rasterise(image, path: Path):
    """The ROI on the image's grid."""
    import pydicom
    import SimpleITK as sitk
    from skimage.draw import polygon2mask

    mask = np.zeros(image.GetSize()[::-1], np.uint8)
    for item in pydicom.dcmread(path).ROIContourSequence[0].ContourSequence:
        points = np.array(item.ContourData, float).reshape(-1, 3)
        index = np.array([image.TransformPhysicalPointToContinuousIndex(point) for point in points])
        mask[round(index[0, 2])] |= polygon2mask(mask.shape[1:], index[:, 1::-1])
    label = sitk.GetImageFromArray(mask)
    label.CopyInformation(image)
    return label


def crop(fine: np.ndarray, point: np.ndarray, plane: int) -> np.ndarray:
    """64 × 64 out of the resampled volume, air outside."""
    axes = ((1, 2), (0, 2), (0, 1))[plane]
    flat = fine.take(point[({0, 1, 2} - set(axes)).pop()], axis=({0, 1, 2} - set(axes)).pop())
    row, column = point[axes[0]] - 32, point[axes[1]] - 32
    patch = np.full((64, 64), -1024.0, np.float32)
    rows = slice(max(row, 0), min(row + 64, flat.shape[0]))
    columns = slice(max(column, 0), min(column + 64, flat.shape[1]))
    patch[rows.start - row : rows.stop - row, columns.start - column : columns.stop - column] = flat[rows, columns]
    return patch
