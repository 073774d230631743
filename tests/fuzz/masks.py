"""Targets that read contours and masks: RTSTRUCT, LIDC-IDRI XML, DICOM SEG; and the scan of a folder."""

from __future__ import annotations

import csv
import random
import warnings
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from xml.etree import ElementTree

import highdicom
import numpy as np
import oracle
import oracle_lesion
import pydicom
import readings
import synthetic
from pydicom.sr.codedict import codes

from ctpatch.build.one_lesion import LesionPlan, plan_lesion
from ctpatch.contours.lidc import LidcRead, read_lidc
from ctpatch.contours.roi import VoxelROI
from ctpatch.contours.seg import open_seg
from ctpatch.errors import InputError
from ctpatch.images.image import Image
from ctpatch.images.series import read_series
from ctpatch.manifest import Row
from ctpatch.recipe import Recipe
from ctpatch.scan import scan, write_manifest

from . import mutate
from .images import DICOM
from .target import Target, Wrong, decimals

SHAPE, SPACING, ORIGIN = (6, 20, 22), (1.5, 1.25), (-20.0, 10.0, -300.0)
POSITIONS = 2.5 * np.arange(SHAPE[0])


def write_ct(folder: Path) -> synthetic.Series:
    def thick(dataset: pydicom.Dataset, k: int) -> None:
        dataset.SliceThickness = 2.5

    places = {"spacing": SPACING, "origin": ORIGIN, "positions": POSITIONS}
    return synthetic.write_series(folder / "ct", synthetic.texture_hu(SHAPE), edit=thick, **places)


# ------------------------------------------------------------------------------------------------------ RTSTRUCT


def rtstruct_target(folder: Path) -> Target:
    """An RTSTRUCT of one lesion with a hole, two pieces on a slice, or CLOSEDPLANAR_XOR, up to the lesion's planes.

    The same file also with all that a row may accept of contours.
    """
    ct, path = write_ct(folder), folder / "rt.dcm"
    seeds = []
    for rois, options in (
        ({"GTV": [synthetic.circle(ct, k, (10.2, 9.7), 6.1, 24) for k in (1, 2, 3)]}, {}),
        ({"GTV": _ring(ct, 2)}, {"transfer_syntax": "implicit"}),
        ({"GTV": _ring(ct, 2)}, {"geometric_type": "CLOSEDPLANAR_XOR"}),
        ({"A": [synthetic.rectangle(ct, 4, (2.5, 3.5), (7.5, 8.5))], "GTV": _pieces(ct)}, {}),
        ({"GTV": [synthetic.rectangle(ct, k, (3, 3), (9, 12)) for k in (0, 1)]}, {"references": False}),
    ):
        synthetic.write_rtstruct(path, rois, ct, **options)
        seeds.append(path.read_bytes())
    row = Row(2, "P1", "1", ct.folder, path, "GTV", label="x", split="train")
    accepting = replace(row, accept=frozenset({"between", "stray", "gap", "frame", "overlap=union"}))
    recipe = Recipe(patches=3, augment=1)
    series = oracle.read_series(ct.folder)

    def read(data: bytes) -> LesionPlan:
        path.write_bytes(data)
        with suppress(InputError):
            plan_lesion(accepting, recipe)
        return plan_lesion(row, recipe)

    return Target("rtstruct", seeds, partial(mutate.several, DICOM), read, lambda p, _: judge_contours(p, path, series))


def _ring(ct: synthetic.Series, k: int) -> list[np.ndarray]:
    return [synthetic.rectangle(ct, k, (2.5, 3.5), (14.5, 16.5)), synthetic.rectangle(ct, k, (6.5, 7.5), (10.5, 11.5))]


def _pieces(ct: synthetic.Series) -> list[np.ndarray]:
    low, high = ((2.5, 3.5), (7.5, 8.5)), ((12.25, 9.25), (18.75, 15.5))
    return [synthetic.rectangle(ct, k, *corners) for k in (2, 3) for corners in (low, high)]


def judge_contours(plan: LesionPlan, path: Path, series: oracle.Series) -> None:
    """The voxels are those that the contours of the one ROI named GTV enclose."""
    dataset = pydicom.dcmread(path, force=True)
    items = dataset.StructureSetROISequence
    named = {int(i.ROINumber) for i in items if str(i.get("ROIName", "")).strip() == "GTV"}
    if len(named) != 1:
        return  # it was meant by its letter case, or by number: not what is judged here
    drawn = [e for e in dataset.ROIContourSequence if int(e.get("ReferencedROINumber", -1)) in named]
    items = [contour for entry in drawn for contour in entry.ContourSequence]
    raw = [item.get_item("ContourData").value for item in items]
    contours = [np.reshape(decimals(v if isinstance(v, bytes) else "\\".join(map(str, v))), (-1, 3)) for v in raw]
    planes = np.unique([float(np.mean(c @ series.n)) for c in contours])
    steps = np.diff(planes)
    if ((steps > 1e-5) & (steps < 0.05)).any() or any("nearest to its middle" in note for note in plan.notes):
        return  # what is one plane, and lesions smaller than a voxel, have tests of their own
    expected = oracle_lesion.lesion_voxels(series, contours)
    assert plan.mask is not None
    compare(whole(plan.mask, series.hu.shape), expected)


def whole(roi: VoxelROI, shape: tuple[int, ...]) -> np.ndarray:
    """A ROI's voxels on the whole image."""
    out = np.zeros(shape, bool)
    out[tuple(slice(a, a + n) for a, n in zip(roi.corner, roi.voxels.shape, strict=True))] = roi.voxels
    return out


def compare(found: np.ndarray, expected: np.ndarray) -> None:
    if (found != expected).any():
        both = np.count_nonzero(found & expected)
        raise Wrong(f"{np.count_nonzero(found)} voxels, {np.count_nonzero(expected)} expected, {both} in both")


# ---------------------------------------------------------------------------------------------------- LIDC-IDRI


def lidc_target(folder: Path) -> Target:
    """An LIDC-IDRI XML of two lesions, one of two readers, with an exclusion and a mark of a small nodule.

    Each lesion also with `readers` accepted.
    """
    ct, path = write_ct(folder), folder / "reads.xml"
    image = read_series(ct.folder)
    seeds = [_readings(ct).encode(), _readings(ct, "").encode(), _readings(ct).encode("utf-16")]

    def read(data: bytes) -> LidcRead:
        path.write_bytes(data)
        found = read_lidc(path)
        for lesion in found.lesions:
            with suppress(InputError):
                found.place(lesion, image, accept={"readers", "overlap=xor"})
            try:
                found.place(lesion, image)
            except InputError:
                if len(found.lesions) == 1:
                    raise
        return found

    mutators = (mutate.xml, mutate.xml, mutate.any_bytes)
    return Target("lidc", seeds, partial(mutate.several, mutators), read, lambda found, _: judge_readings(found, path))


def _readings(ct: synthetic.Series, xmlns: str = ' xmlns="http://www.nih.gov"') -> str:
    def roi(k: int, low: int, high: int, inclusion: str = "TRUE") -> str:
        points = ((low, low), (high, low), (high, high), (low, high))
        edges = "".join(f"<edgeMap><xCoord>{x}</xCoord><yCoord>{y}</yCoord></edgeMap>" for x, y in points)
        uid = f"<imageSOP_UID>{ct.sop_uids[k]}</imageSOP_UID>" if k % 2 else ""
        z = f"<imageZposition>{ct.origins[k][2]:g} </imageZposition>"
        return f"<roi>{z}{uid}<inclusion>{inclusion}</inclusion>{edges}</roi>"

    def nodule(name: str, rois: str, level: int = 3) -> str:
        ratings = f"<characteristics><margin>{level}</margin><malignancy>{level}</malignancy></characteristics>"
        return f"<unblindedReadNodule><noduleID>{name}</noduleID>{ratings}{rois}</unblindedReadNodule>"

    z, edge = (
        f"<imageZposition>{ct.origins[2][2]:g}</imageZposition>",
        "<edgeMap><xCoord>5</xCoord><yCoord>6</yCoord></edgeMap>",
    )
    mark = f"<roi>{z}<inclusion>TRUE</inclusion>{edge}</roi>"
    small = f"<unblindedReadNodule><noduleID>s</noduleID>{mark}</unblindedReadNodule>"
    first = nodule("a", roi(1, 3, 9) + roi(2, 3, 9)) + nodule("b", roi(3, 11, 18) + roi(3, 13, 15, "FALSE"))
    second = nodule("c", roi(1, 4, 10) + roi(2, 2, 8), 4) + small
    header = f"<ResponseHeader><SeriesInstanceUid>{ct.series_uid}</SeriesInstanceUid></ResponseHeader>"
    sessions = f"<readingSession>{first}</readingSession><readingSession>{second}</readingSession>"
    return f"<LidcReadMessage{xmlns}>{header}{sessions}</LidcReadMessage>"


def _repeats(nodule: ElementTree.Element) -> bool:
    """Whether a nodule has the same points on the same slice in two of its paths."""
    paths = []
    for roi in nodule:
        if roi.tag.endswith("roi"):
            numbers = [tuple(float(c.text or 0) for c in edge) for edge in roi if edge.tag.endswith("edgeMap")]
            heights = {float(child.text or 0) for child in roi if child.tag.endswith("imageZposition")}
            paths.append((frozenset(heights), frozenset(map(frozenset, numbers))))
    return len(set(paths)) < len(paths)


def judge_readings(read: LidcRead, path: Path) -> None:
    """Sound lesions have the voxels that an independent reading of the outlines gives them."""
    try:
        expected = oracle_lesion.lidc_lesions(path, (64, 64))
    except Exception:  # that reading knows sound files only
        return
    text = path.read_bytes().replace(b"\0", b"")
    twice = any(map(_repeats, ElementTree.parse(path).iter()))  # such a path counts once, in that reading twice
    if twice or any(map(readings.doubts, read.lesions)) or len(read.lesions) != len(expected):
        return
    shown = [{(round(read.planes[k].z, 2), i, j) for k, i, j in lesion.agreed(0.5).tolist()} for lesion in read.lesions]
    inside = [{voxel for voxel in voxels if min(voxel[1:]) >= 0 and max(voxel[1:]) < 64} for voxels in shown]
    found, right = sorted(map(sorted, inside)), sorted(sorted(lesion.voxels) for lesion in expected)
    if b"FALSE" in text.upper():  # an exclusion that reaches out of its outline adds nothing here
        wrong = not all(any(set(voxels) <= set(lesion) for lesion in right) for voxels in found)
    else:
        wrong = found != right
    if wrong:
        raise Wrong("lesions have other voxels than their outlines enclose")


# ----------------------------------------------------------------------------------------------------- DICOM SEG


def seg_target(folder: Path) -> Target:
    """A segmentation of two segments: binary, compressed, fractional, as a label map."""
    ct, path = write_ct(folder), folder / "seg.dcm"
    image = read_series(ct.folder)
    kinds = (("BINARY", {}), ("FRACTIONAL", {}), ("LABELMAP", {}))
    kinds += (("FRACTIONAL", {"transfer_syntax_uid": synthetic.TRANSFER_SYNTAXES["rle"]}),)
    seeds = [write_seg(path, ct, kind, **options) for kind, options in kinds]

    def read(data: bytes) -> VoxelROI:
        path.write_bytes(data)
        return open_seg(path).read("2", image)

    return Target("seg", seeds, partial(mutate.several, DICOM), read, lambda roi, _: judge_segment(roi, path, image))


def write_seg(path: Path, ct: synthetic.Series, kind: str, **options: object) -> bytes:
    masks = np.zeros((*SHAPE, 2), bool)
    masks[1:4, 3:9, 4:12, 0] = True
    masks[2:5, 10:17, 9:18, 1] = True
    pixels = (masks * [1, 2]).max(axis=-1) if kind == "LABELMAP" else masks
    manual = highdicom.seg.SegmentAlgorithmTypeValues.MANUAL
    about = [highdicom.seg.SegmentDescription(i, f"s{i}", codes.SCT.Tissue, codes.SCT.Tissue, manual) for i in (1, 2)]
    uids = [synthetic.uid("seg", kind, n) for n in range(2)]
    sources = [pydicom.dcmread(source) for source in ct.paths]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pixels = pixels.astype(float if kind == "FRACTIONAL" else np.uint8)
        highdicom.seg.Segmentation(
            sources, pixels, kind, about, uids[0], 1, uids[1], 1, "maker", "model", "1", "1", **options
        ).save_as(path)  # fmt: skip
    return path.read_bytes()


def judge_segment(roi: VoxelROI, path: Path, image: Image) -> None:
    """As many voxels as pydicom's decoder finds in the frames of segment 2."""
    dataset = pydicom.dcmread(path)
    kind, frames = dataset.SegmentationType, dataset.PerFrameFunctionalGroupsSequence
    if dataset.file_meta.TransferSyntaxUID.is_compressed and not dataset.file_meta.TransferSyntaxUID.is_deflated:
        pixels = dataset.pixel_array
    else:
        bits = int(dataset.BitsAllocated)
        data = np.frombuffer(dataset.PixelData, np.uint8)
        data = np.unpackbits(data, bitorder="little") if bits == 1 else data.view(f"<u{bits // 8}")
        pixels = data[: len(frames) * dataset.Rows * dataset.Columns]
    pixels = pixels.reshape(len(frames), dataset.Rows, dataset.Columns)
    if kind == "LABELMAP":
        count = np.count_nonzero(pixels == 2)
    else:
        shared = (dataset.get("SharedFunctionalGroupsSequence") or [pydicom.Dataset()])[0]
        least = dataset.MaximumFractionalValue / 2 if kind == "FRACTIONAL" else 1
        sequence = "SegmentIdentificationSequence"
        numbers = [(f.get(sequence) or shared.get(sequence))[0].ReferencedSegmentNumber for f in frames]
        count = np.count_nonzero(pixels[np.array(numbers) == 2] >= least)
    if np.count_nonzero(roi.voxels) != count:
        raise Wrong(f"{np.count_nonzero(roi.voxels)} voxels where its frames hold {count}")
    if (np.array(roi.corner) + roi.voxels.shape > (len(image.stack), *image.stack.shape)).any() or min(roi.corner) < 0:
        raise Wrong("voxels outside the image")


# ------------------------------------------------------------------------------------------------ scan of a folder


def scan_target(folder: Path) -> Target:
    """A folder tree with a CT and, as its first byte says, one wild file: RTSTRUCT, SEG, XML or a slice."""
    ct, names = write_ct(folder / "tree"), ("rt.dcm", "seg.dcm", "reads.xml", "ct/0002.dcm")
    ring = synthetic.write_rtstruct(folder / "rt.dcm", {"GTV": _ring(ct, 2), "=1+1": _pieces(ct)}, ct).read_bytes()
    wild = [ring, write_seg(folder / "seg.dcm", ct, "BINARY"), _readings(ct).encode(), ct.paths[2].read_bytes()]
    table = folder / "m.csv"

    def change(data: bytes, rng: random.Random) -> bytes:
        mutator = mutate.xml if data[:1] == b"\2" else mutate.dicom
        return data[:1] + mutate.several((mutator, mutator, mutate.any_bytes), data[1:], rng)

    def read(data: bytes) -> None:
        for name in names[1:3]:
            (folder / "tree" / name).unlink(missing_ok=True)
        (folder / "tree" / names[0]).write_bytes(ring)
        ct.paths[2].write_bytes(wild[3])
        path = folder / "tree" / names[data[0] % 4 if data else 0]
        path.write_bytes(data[1:])
        table.unlink(missing_ok=True)
        found = scan(folder / "tree")
        write_manifest(found, table)
        if not any(row["mask"] for row in found.rows):
            raise InputError("no contours were paired", "see the notes")

    seeds = [bytes((n,)) + content for n, content in enumerate(wild)]
    return Target("scan", seeds, change, read, lambda _, __: judge_table(table))


def judge_table(path: Path) -> None:
    """The manifest has a cell for each column, and none that a spreadsheet would run or that breaks a line."""
    with open(path, encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file, strict=True)
    for cells in rows:
        if len(cells) != len(header) or any(cell[:1] in "=+@" and cell for cell in cells):
            raise Wrong(f"row {cells}")
        if not all(cell.isprintable() for cell in cells):
            raise Wrong(f"a cell that is no printable text in {cells}")
