"""One lesion out of a large CT series: `ctpatch build` against a hand-written SimpleITK pipeline.

    python benchmarks/peer.py --slices 300

Writes a 512 × 512 × `--slices` series with a spherical lesion, then builds the 300 patches of that lesion four
times over, each time in a fresh process: ctpatch with and without `rgb`, and a pipeline as one writes it with
SimpleITK, scikit-image and h5py (read the series, resample all of it to 0.5 mm, rasterise, crop; the moved
copies by one resampling per plane), with and without `rgb`. Both draw the same patches, so the HU are compared
too. Prints, as the best of `--repeats`, the wall and CPU time of a build in a process that has already built a small
series (so without imports and loading of kernels), and the process's peak memory; the ratios are of CPU time,
which a busy machine disturbs least.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

SPACING, STEP = 0.7, 1.25  # mm in the slice, between slices
WINDOWS = ((-800, -200), (-200, 400), (-1000, 400))
RUNS = ("ctpatch", "ctpatch --no-rgb", "SimpleITK", "SimpleITK --no-rgb")


# ------------------------------------------------------------------------------------------ the input


def write_input(folder: Path, slices: int) -> None:
    """The series (smooth noise), the RTSTRUCT and the manifest."""
    from pydicom.uid import generate_uid
    from scipy.ndimage import gaussian_filter

    rng = np.random.default_rng(0)
    noise = gaussian_filter(rng.normal(0, 3000, (512, 512)), 2)
    uids = {name: generate_uid(entropy_srcs=["peer", name]) for name in ("study", "series", "frame", "rt")}
    (folder / "ct").mkdir()
    for k in range(slices):
        write_slice(folder / "ct", k, np.roll(noise, 3 * k, axis=1) + rng.normal(0, 20, noise.shape), uids)
    write_contours(folder / "rs.dcm", sphere(slices), uids)
    row = "P1,ct,rs.dcm,GTV,T3,train"
    (folder / "manifest.csv").write_text(f"patient_id,image,mask,roi,label,split\n{row}\n", encoding="utf-8")


def write_slice(folder: Path, k: int, hu: np.ndarray, uids: dict[str, str]) -> None:
    """One slice as the scanner would write it."""
    ds = dataset("1.2.840.10008.5.1.4.1.1.2", f"slice{k}", "CT", uids)
    ds.SeriesInstanceUID, ds.FrameOfReferenceUID, ds.InstanceNumber = uids["series"], uids["frame"], k + 1
    ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.Rows, ds.Columns, ds.PixelSpacing = 512, 512, [SPACING, SPACING]
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 16, 15, 1
    ds.ImageOrientationPatient, ds.ImagePositionPatient = [1, 0, 0, 0, 1, 0], [-179, -179, STEP * k]
    ds.RescaleSlope, ds.RescaleIntercept, ds.RescaleType = 1, -1024, "HU"
    ds.PixelData = (np.clip(np.rint(hu), -1000, 3000) + 1024).astype("<i2").tobytes()
    ds.save_as(folder / f"{k:04d}.dcm", enforce_file_format=True)


def sphere(slices: int) -> list[np.ndarray]:
    """A sphere of 15 mm radius about the middle of the series, (M, 3) mm per slice."""
    centre, angle = np.array([3.3, -7.1, STEP * (slices // 2)]), np.linspace(0, 2 * np.pi, 120, endpoint=False)
    rings = []
    for k in range(slices):
        height = STEP * k - centre[2]
        if abs(height) < 15:
            radius = np.sqrt(15**2 - height**2)
            ring = np.stack([radius * np.cos(angle), radius * np.sin(angle), 0 * angle + height], axis=1)
            rings.append(np.round(centre + ring, 4))
    return rings


def write_contours(path: Path, contours: list[np.ndarray], uids: dict[str, str]) -> None:
    """The RTSTRUCT."""
    from pydicom.dataset import Dataset

    ds = dataset("1.2.840.10008.5.1.4.1.1.481.3", "rtstruct", "RTSTRUCT", uids)
    ds.SeriesInstanceUID, ds.StructureSetLabel = uids["rt"], "GTV"
    roi, drawn = Dataset(), Dataset()
    roi.ROINumber, roi.ROIName, roi.ReferencedFrameOfReferenceUID, roi.ROIGenerationAlgorithm = (
        1,
        "GTV",
        uids["frame"],
        "",
    )
    drawn.ReferencedROINumber, drawn.ContourSequence = 1, []
    for points in contours:
        item = Dataset()
        item.ContourGeometricType, item.NumberOfContourPoints = "CLOSED_PLANAR", len(points)
        item.ContourData = [f"{value:.4f}" for value in points.ravel()]
        drawn.ContourSequence.append(item)
    frame, study, series = Dataset(), Dataset(), Dataset()
    series.SeriesInstanceUID = uids["series"]
    study.ReferencedSOPClassUID, study.ReferencedSOPInstanceUID = "1.2.840.10008.3.1.2.3.1", uids["study"]
    study.RTReferencedSeriesSequence = [series]
    frame.FrameOfReferenceUID, frame.RTReferencedStudySequence = uids["frame"], [study]
    ds.ReferencedFrameOfReferenceSequence = [frame]
    ds.StructureSetROISequence, ds.ROIContourSequence = [roi], [drawn]
    ds.save_as(path, enforce_file_format=True)


def dataset(sop_class: str, name: str, modality: str, uids: dict[str, str]):
    """What every DICOM object begins with."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, generate_uid

    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = sop_class
    ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=["peer", name])
    ds.PatientID, ds.PatientName, ds.Modality = "P1", "P1", modality
    ds.StudyInstanceUID, ds.StudyID, ds.SeriesNumber = uids["study"], "1", 1
    return ds


# ------------------------------------------------------------------------------------------- the peer


def simpleitk_build(folder: Path, out: Path, rgb: bool) -> None:
    """The same 300 patches as a competent user of SimpleITK makes them."""
    import h5py
    import SimpleITK as sitk

    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)  # ctpatch's kernels run on one thread too
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder / "ct")))
    reader.SetOutputPixelType(sitk.sitkFloat32)
    image = reader.Execute()
    size = [int(np.ceil(n * s / 0.5)) for n, s in zip(image.GetSize(), image.GetSpacing(), strict=True)]
    grid = (size, sitk.Transform(), sitk.sitkLinear, image.GetOrigin(), (0.5,) * 3, image.GetDirection(), -1024.0)
    fine = sitk.GetArrayViewFromImage(fine_image := sitk.Resample(image, *grid, sitk.sitkFloat32))
    label = sitk.Resample(rasterise(image, folder / "rs.dcm"), fine_image, sitk.Transform(), sitk.sitkNearestNeighbor)
    points = np.argwhere(sitk.GetArrayViewFromImage(label))

    seed = hashlib.sha256(b"ctpatch-1\x000\x00P1\x001").digest()[:16]
    rng = np.random.Generator(np.random.PCG64(int.from_bytes(seed, "big")))
    chosen = points[rng.integers(0, len(points), 100)]
    angles, shifts = rng.uniform(-180, 180, (100, 2)), rng.uniform(-5, 5, (100, 2, 2))
    hu = np.empty((300, 64, 64), np.int16)
    for i, point in enumerate(chosen):
        hu[3 * i] = np.rint(crop(fine, point, i % 3))
        for g in range(2):
            centre = np.array(fine_image.TransformIndexToPhysicalPoint([int(v) for v in point[::-1]]))
            hu[3 * i + 1 + g] = np.rint(moved(image, centre, i % 3, angles[i, g], shifts[i, g]))
    with h5py.File(out, "w") as file:
        file.create_dataset("train/hu", data=hu, chunks=(1, 64, 64), compression="gzip")
        if rgb:
            shown = file.create_dataset(
                "train/rgb", (300, 224, 224, 3), "u1", chunks=(1, 224, 224, 3), compression="gzip"
            )
            for i, patch in enumerate(hu):
                shown[i] = render(patch)


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


def moved(image, centre: np.ndarray, plane: int, angle: float, shift: np.ndarray) -> np.ndarray:
    """64 × 64 on the turned and shifted plane."""
    import SimpleITK as sitk

    u, v = np.eye(3)[[(0, 1), (0, 2), (1, 2)][plane], :]
    cos, sin = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    turned = (cos * u + sin * v, cos * v - sin * u)
    origin = centre + shift[0] * u + shift[1] * v - 16 * (turned[0] + turned[1])
    direction = np.stack([*turned, np.cross(*turned)], axis=1).ravel()
    grid = ((64, 64, 1), sitk.Transform(), sitk.sitkLinear, origin, (0.5,) * 3, direction, -1024.0, sitk.sitkFloat32)
    return sitk.GetArrayFromImage(sitk.Resample(image, *grid))[0]


def render(patch: np.ndarray) -> np.ndarray:
    """(224, 224, 3) uint8."""
    from skimage.transform import resize

    big = resize(patch.astype(np.float32), (224, 224), order=1, mode="edge", anti_aliasing=False, preserve_range=True)
    levels = [np.clip((big - low) / (high - low), 0, 1) * 255 for low, high in WINDOWS]
    return np.floor(np.stack(levels, axis=-1) + 0.5).astype(np.uint8)


# --------------------------------------------------------------------------------------- measurement


def run_once(name: str, folder: Path, out: Path) -> None:
    """One build in this process, after one of a small series; prints its seconds and the peak memory as JSON."""
    rgb = not name.endswith("--no-rgb")
    work = ctpatch_build if name.startswith("ctpatch") else simpleitk_build
    work(folder / "small", out.with_suffix(".small.h5"), rgb)
    start, cpu = time.perf_counter(), time.process_time()
    work(folder / "large", out, rgb)
    result = {"seconds": time.perf_counter() - start, "cpu": time.process_time() - cpu}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
    print(json.dumps(result | {"MiB": peak}))


def ctpatch_build(folder: Path, out: Path, rgb: bool) -> None:
    """The same through ctpatch's command line."""
    from ctpatch.cli import main

    words = ["build", "--manifest", folder / "manifest.csv", "--out", out, "--seed", 0, "--jobs", 1]
    status = main([str(word) for word in words] + ([] if rgb else ["--no-rgb"]))
    if status:
        sys.exit(status)


def measure(name: str, folder: Path, repeats: int) -> dict[str, float]:
    """The best time and the greatest peak of `repeats` fresh processes."""
    results = []
    for _ in range(repeats):
        out = folder / f"{name.replace(' ', '')}.h5"
        for old in folder.glob(f"{out.stem}*.h5"):
            old.unlink()
        command = [sys.executable, __file__, "--run", name, "--folder", str(folder), "--out", str(out)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        results.append(json.loads(done.stdout.splitlines()[-1]))
    peak = max(result["MiB"] for result in results)
    return {"MiB": peak} | {key: min(result[key] for result in results) for key in ("seconds", "cpu")}


def difference(folder: Path) -> str:
    """How far the two pipelines' HU are apart."""
    import h5py

    with h5py.File(folder / "ctpatch.h5") as ours, h5py.File(folder / "SimpleITK.h5") as theirs:
        off = np.abs(ours["train/hu"][...].astype(int) - theirs["train/hu"][...])
    return f"HU of the two: greatest difference {off.max()}, differing pixels {np.mean(off > 0):.1e}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slices", type=int, default=300)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--run", choices=RUNS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.run:
        run_once(arguments.run, arguments.folder, arguments.out)
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for size, slices in (("small", 30), ("large", arguments.slices)):
            (folder / size).mkdir()
            write_input(folder / size, slices)
        found = {run: measure(run, folder, arguments.repeats) for run in RUNS}
        print(f"one lesion, 300 patches, out of 512 × 512 × {arguments.slices}; one thread")
        columns = {"seconds": "wall s", "cpu": "CPU s", "MiB": "peak MiB"}
        print(
            f"{'':20}" + "".join(f"{title:>12}" for title in columns.values()) + f"{'CPU ratio':>12}{'MiB ratio':>12}"
        )
        for run, result in found.items():
            base = found["ctpatch --no-rgb" if run.endswith("--no-rgb") else "ctpatch"]
            ratios = "".join(f"{result[key] / base[key]:12.1f}" for key in ("cpu", "MiB"))
            print(f"{run:20}" + "".join(f"{result[key]:12.2f}" for key in columns) + ratios)
        print(difference(folder))


if __name__ == "__main__":
    main()
