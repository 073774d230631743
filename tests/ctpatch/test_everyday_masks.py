"""Contours and masks that people really have, from public trackers; numbers as in docs/reliability.md."""

import gzip
import re
from pathlib import Path
from typing import Any

import awkward
import nibabel as nib
import numpy as np
import pytest
import readings
import segments
import SimpleITK as sitk
import synthetic
from awkward import COLUMNS, ROWS, SLICES, edited, lesion_voxels, refused
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import Tag
from readings import LEVELS, Nodule, Roi
from scipy.ndimage import distance_transform_edt

from ctpatch.errors import short_uid

LESION = np.zeros(awkward.SHAPE, np.uint8)
LESION[SLICES[0] : SLICES[-1] + 1, ROWS[0] : ROWS[-1] + 1, COLUMNS[0] : COLUMNS[-1] + 1] = 1


def computed(folder: Path, ct: synthetic.Series, voxels: Any = None, **cells: str) -> awkward.Built:
    """Build and check: every patch and every voxel of the lesion is right."""
    (folder / "s.h5").unlink(missing_ok=True)
    store = awkward.built(folder, **cells)
    awkward.assert_linear(store, ct)
    assert awkward.voxels(awkward.plan(folder, **cells).mask) == (lesion_voxels() if voxels is None else voxels)
    return store


def label_map(path: Path, voxels: np.ndarray = LESION, origin: Any = awkward.ORIGIN, dz: float = 3.0) -> None:
    image = sitk.GetImageFromArray(voxels)
    image.SetSpacing((awkward.SPACING[1], awkward.SPACING[0], dz))
    image.SetOrigin(tuple(float(v) for v in origin))
    sitk.WriteImage(image, str(path))


@pytest.mark.parametrize("acquisition", ["", "1", "2"])
def test_172_a_segmentation_chooses_its_stack(tmp_path: Path, acquisition: str) -> None:
    """Two phases in one series, as in liver protocols: the segmentation lists the images that it was drawn on."""
    ct = awkward.series(tmp_path, name="ct/art", edit=awkward.only(-1, AcquisitionNumber=1))
    more = {"AcquisitionNumber": 2, "SeriesInstanceUID": ct.series_uid, "FrameOfReferenceUID": ct.frame_uid}
    more["StudyInstanceUID"] = ct.study_uid
    awkward.series(tmp_path, name="ct/ven", hu=awkward.hu() + 100, seed=1, edit=awkward.only(-1, **more))
    segments.write_seg(tmp_path / "seg.dcm", ct, {"GTV": LESION.astype(bool)})
    store = awkward.built(tmp_path, mask="seg.dcm", acquisition=acquisition)
    store.hu[:] -= 100 * (acquisition == "2")
    awkward.assert_linear(store, ct)
    assert awkward.voxels(awkward.plan(tmp_path, mask="seg.dcm", acquisition=acquisition).mask) == lesion_voxels()
    assert ("refers to other images of this series" in store.notes) == (acquisition == "2")


# -- Label maps: rounding, cut out, named -------------------------------------------------------------------------


@pytest.mark.parametrize("jitter", [0.004, 0.012, 0.028])
@pytest.mark.parametrize("name", ["m.nii.gz", "m.nrrd"])
def test_169_a_label_map_of_a_series_with_rounded_positions(tmp_path: Path, jitter: float, name: str) -> None:
    """As ITK writes it: even, from the first slice to the last."""
    positions = 3.0 * np.arange(16) + jitter * np.array([0, 1, -1] * 5 + [0])
    ct = awkward.series(tmp_path, positions=positions)
    label_map(tmp_path / name, origin=ct.origins[0], dz=float(np.ptp(positions)) / 15)
    store = computed(tmp_path, ct, mask=name)
    away = float(re.search("it is up to (.*) mm off that of the image", store.notes)[1])  # type: ignore[index]
    assert away == pytest.approx(jitter, rel=0.1)


def test_169_more_than_rounding_is_another_grid(tmp_path: Path) -> None:
    positions = 3.0 * np.arange(16) + 0.1 * np.array([0, 1, -1] * 5 + [0])
    ct = awkward.series(tmp_path, positions=positions)
    label_map(tmp_path / "m.nrrd", origin=ct.origins[0])
    refused(tmp_path, "the mask's grid", "accept `resample`", mask="m.nrrd")


@pytest.mark.parametrize("decimals", [2, 1])
def test_169_a_segmentation_with_rounded_positions(tmp_path: Path, decimals: int) -> None:
    """Slices 3.0013 mm apart; 2 decimals are rounding, 1 is not."""
    ct = awkward.series(tmp_path, positions=3.0013 * np.arange(16), origin=(-31.5, 12.75, -405.256))
    path = segments.write_seg(tmp_path / "seg.dcm", ct, {"Lesion": LESION})

    def rounded(dataset: Dataset) -> None:
        for group in dataset.PerFrameFunctionalGroupsSequence:
            item = group.PlanePositionSequence[0]
            item.ImagePositionPatient = [round(float(v), decimals) for v in item.ImagePositionPatient]

    edited(path, rounded)
    if decimals == 1:
        refused(tmp_path, "the mask's grid|from the nearest slice", mask="seg.dcm")
        return
    store = awkward.built(tmp_path, mask="seg.dcm")
    assert awkward.voxels(awkward.plan(tmp_path, mask="seg.dcm").mask) == lesion_voxels()
    assert "mm off that of the image" in store.notes


def cut_out(path: Path, low: tuple[int, int, int], high: tuple[int, int, int], moved: Any = 0.0) -> None:
    """Voxels low to high (z, y, x) of the label map as a file of their own."""
    part = LESION[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
    corner = np.array(low[::-1]) * (awkward.SPACING[1], awkward.SPACING[0], 3.0)
    label_map(path, part, np.array(awkward.ORIGIN) + corner + moved)


@pytest.mark.parametrize(
    ("low", "high"),
    [
        ((5, 13, 15), (11, 27, 29)),
        ((0, 0, 0), (11, 40, 44)),
        ((5, 0, 0), (16, 40, 44)),
        ((3, 5, 15), (12, 40, 29)),
    ],
    ids=["to the lesion", "from above", "from below", "in part"],
)
@pytest.mark.parametrize("name", ["m.nii.gz", "m.nrrd", "m.mha"])
def test_170_a_label_map_cut_out_of_the_images_grid(tmp_path: Path, low: Any, high: Any, name: str) -> None:
    ct = awkward.series(tmp_path)
    cut_out(tmp_path / name, low, high)
    computed(tmp_path, ct, mask=name)


def test_170_cut_down_to_one_slice(tmp_path: Path) -> None:
    ct = awkward.series(tmp_path)
    cut_out(tmp_path / "m.nrrd", (7, 13, 15), (8, 27, 29))
    computed(tmp_path, ct, lesion_voxels([7]), mask="m.nrrd")


@pytest.mark.parametrize(
    ("low", "high"), [((5, 13, 20), (9, 20, 21)), ((5, 13, 20), (9, 14, 29)), ((10, 26, 28), (11, 27, 29))]
)
def test_170_cut_down_to_one_column_row_or_voxel(tmp_path: Path, low: Any, high: Any) -> None:
    ct = awkward.series(tmp_path)
    cut_out(tmp_path / "m.nrrd", low, high)
    voxels = lesion_voxels(*(range(a, b) for a, b in zip(low, high, strict=True)))
    computed(tmp_path, ct, voxels, mask="m.nrrd")


@pytest.mark.parametrize("iop", [synthetic.CORONAL, synthetic.SAGITTAL])
def test_170_cut_out_of_another_orientation(tmp_path: Path, iop: Any) -> None:
    ct = awkward.series(tmp_path, iop=iop)
    part = sitk.GetImageFromArray(LESION)
    part.SetSpacing((awkward.SPACING[1], awkward.SPACING[0], 3.0))
    part.SetOrigin(tuple(ct.origins[0]))
    part.SetDirection(ct.axes.T.ravel().tolist())
    sitk.WriteImage(sitk.Crop(part, (10, 8, 3), (9, 7, 2)), str(tmp_path / "m.nii.gz"))
    computed(tmp_path, ct, mask="m.nii.gz")


def test_170_around_the_image_where_no_lesion_is(tmp_path: Path) -> None:
    ct = awkward.series(tmp_path)
    around = np.pad(LESION, ((2, 3), (4, 0), (1, 5)))
    label_map(tmp_path / "m.nrrd", around, np.array(awkward.ORIGIN) - (1.5, 8.0, 6.0))
    computed(tmp_path, ct, mask="m.nrrd")
    around[0, 20, 20] = 1
    label_map(tmp_path / "m.nrrd", around, np.array(awkward.ORIGIN) - (1.5, 8.0, 6.0))
    (tmp_path / "s.h5").unlink()
    refused(tmp_path, "voxels of '1' lie outside the image", "give the image that it was drawn on", mask="m.nrrd")


@pytest.mark.parametrize("moved", [(0.4, 0, 0), (0, 1.0, 0), (0, 0, 1.5)])
def test_170_cut_out_between_the_images_voxels_is_refused(tmp_path: Path, moved: Any) -> None:
    awkward.series(tmp_path)
    cut_out(tmp_path / "m.nrrd", (5, 13, 15), (11, 27, 29), moved)
    refused(tmp_path, "the mask's grid", "accept `resample`", mask="m.nrrd")


def test_170_a_whole_label_map_one_voxel_off_is_no_part(tmp_path: Path) -> None:
    awkward.series(tmp_path)
    label_map(tmp_path / "m.nrrd", origin=np.add(awkward.ORIGIN, (0, 2.0, 0)))
    refused(tmp_path, "the mask's grid", mask="m.nrrd")


SEGMENTS = {"Tumour": (1, 0), "Lymph node": (2, 0), "Oedema": (1, 1)}
"""Label value and layer."""


def slicer(path: Path, layers: int = 2, names: Any = SEGMENTS, cut: int = 0) -> None:
    """A .seg.nrrd as 3D Slicer writes it: segments by name, those that overlap in layers."""
    voxels = np.zeros((*awkward.SHAPE, 2), np.uint8)
    voxels[..., 0] = LESION
    voxels[12:14, 30:34, 30:34, 0] = 2
    voxels[4:12, 11:29, 13:31, 1] = 1
    voxels, origin = voxels[cut : 16 - cut], np.add(awkward.ORIGIN, (0, 0, 3 * cut))
    named = names.items() if isinstance(names, dict) else names
    data = voxels if layers > 1 else voxels[..., 0]
    path.write_bytes(segments.slicer_nrrd(data, named, np.diag((1.5, 2, 3)), origin))


WHERE = {
    "Tumour": lesion_voxels(),
    "Lymph node": lesion_voxels(range(12, 14), range(30, 34), range(30, 34)),
    "Oedema": lesion_voxels(range(4, 12), range(11, 29), range(13, 31)),
}


@pytest.mark.parametrize("roi", [*WHERE, "tumour", "2"])
@pytest.mark.parametrize("cut", [0, 2])
def test_171_a_segment_of_3d_slicer_by_name_from_its_layer(tmp_path: Path, roi: str, cut: int) -> None:
    ct = awkward.series(tmp_path)
    slicer(tmp_path / "x.seg.nrrd", cut=cut)
    voxels = WHERE[{"tumour": "Tumour", "2": "Lymph node"}.get(roi, roi)]
    computed(tmp_path, ct, voxels, mask="x.seg.nrrd", roi=roi)


@pytest.mark.parametrize("roi", ["Tumour", "1"])
def test_171_a_segmentation_of_one_layer(tmp_path: Path, roi: str) -> None:
    ct = awkward.series(tmp_path)
    slicer(tmp_path / "x.seg.nrrd", layers=1, names={"Tumour": (1, 0), "Lymph node": (2, 0)})
    computed(tmp_path, ct, mask="x.seg.nrrd", roi=roi)


def test_171_a_single_segment_needs_no_name(tmp_path: Path) -> None:
    ct = awkward.series(tmp_path)
    slicer(tmp_path / "x.seg.nrrd", names={"Tumour": (1, 0)})
    computed(tmp_path, ct, mask="x.seg.nrrd")


@pytest.mark.parametrize(
    ("roi", "names", "found"),
    [
        ("", SEGMENTS, "several segments: 1 'Tumour', 2 'Lymph node', 1 'Oedema'"),
        ("Liver", SEGMENTS, "roi 'Liver' is none of its segments: 1 'Tumour'"),
        ("1", SEGMENTS, "roi '1' is the label value of 'Tumour', 'Oedema'"),
        ("A", [("A", (1, 0)), ("A", (2, 0))], "2 segments are named 'A'"),
        ("A", {"A": (7, 0)}, "segment 'A' is empty"),
        ("A", {"A": (1, 2)}, "layer 2 of 2"),
        ("A", {"A": ("one", 0)}, "segment 'A' has label value 'one'"),
        ("A", {"A": (1, 0), "B": (1, 0)}, "two of its segments have one label value in one layer"),
        ("", {}, "2 layers without names of segments"),
    ],
)
def test_171_what_names_no_segment_is_refused(tmp_path: Path, roi: str, names: Any, found: str) -> None:
    awkward.series(tmp_path)
    slicer(tmp_path / "x.seg.nrrd", names=names)
    refused(tmp_path, found, mask="x.seg.nrrd", roi=roi)


def test_171_layers_are_no_image(tmp_path: Path) -> None:
    awkward.case(tmp_path)
    slicer(tmp_path / "x.seg.nrrd")
    refused(tmp_path, "2 values for each voxel", image="x.seg.nrrd")


@pytest.mark.parametrize("dtype", [np.uint8, np.int16])
@pytest.mark.parametrize("name", ["m.nii", "m.nii.gz"])
def test_182_a_label_map_whose_scl_slope_is_nan_is_unscaled(tmp_path: Path, dtype: Any, name: str) -> None:
    ct = awkward.series(tmp_path)
    label_map(tmp_path / "plain.nii", LESION.astype(dtype))
    raw = bytearray((tmp_path / "plain.nii").read_bytes())
    raw[112:120] = np.array([np.nan, np.nan], "<f4").tobytes()
    (tmp_path / name).write_bytes(gzip.compress(bytes(raw)) if name.endswith("gz") else bytes(raw))
    computed(tmp_path, ct, mask=name)


# -- Contours -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("points", [1, 2])
@pytest.mark.parametrize("count", [1, 3])
def test_173_stray_contours_are_left_out_where_accepted(tmp_path: Path, points: int, count: int) -> None:
    ct = awkward.series(tmp_path)
    strays = [ct.to_lps(12 + i, [(3.0, 3.0), (4.0, 3.0)][:points]) for i in range(count)]
    awkward.contours(tmp_path, ct, {"GTV": [*awkward.box(ct), *strays]})
    refused(tmp_path, f"{count} contours of ROI 'GTV' have fewer than 3 points", "put stray into the column accept")
    store = computed(tmp_path, ct, accept="stray")
    assert f"{count} contours of fewer than 3 points are left out; accepted" in store.notes


@pytest.mark.parametrize("kind", ["POINT", "OPEN_PLANAR", "CLOSED_PLANAR"])
@pytest.mark.parametrize("text", ["-20\\30\\-370", "", None], ids=["point", "empty", "absent"])
def test_173_a_stray_may_say_what_it_is(tmp_path: Path, kind: str, text: str | None) -> None:
    """Clicks are exported as POINT, as PS3.3 C.8.8.6.3 has it, and erased contours as items without points."""

    def edit(dataset: Dataset) -> None:
        stray = Dataset()
        stray.ContourGeometricType, stray.NumberOfContourPoints = kind, int(bool(text))
        if text is not None:
            stray.ContourData = text
        dataset.ROIContourSequence[0].ContourSequence.append(stray)

    ct = awkward.series(tmp_path)
    awkward.contours(tmp_path, ct, edit=edit)
    refused(tmp_path, "1 contours of ROI 'GTV' have fewer than 3 points", "put stray into the column accept")
    assert "1 contours of fewer than 3 points are left out; accepted" in computed(tmp_path, ct, accept="stray").notes


def test_173_nothing_but_strays_is_no_lesion(tmp_path: Path) -> None:
    ct = awkward.series(tmp_path)
    awkward.contours(tmp_path, ct, {"GTV": [ct.to_lps(k, [(3.0, 3.0), (4.0, 3.0)]) for k in SLICES]})
    assert "stray" not in refused(tmp_path, "6 contours of ROI 'GTV' have fewer than 3 points", accept="stray")["do"]


def ellipse(ct: synthetic.Series, k: int, centre: tuple[float, float], radii: tuple[float, float]) -> np.ndarray:
    angle = np.linspace(0, 2 * np.pi, 200, endpoint=False)
    return ct.to_lps(k, np.column_stack([centre[0] + radii[0] * np.cos(angle), centre[1] + radii[1] * np.sin(angle)]))


def test_174_every_second_slice_is_kept_as_drawn(tmp_path: Path) -> None:
    ct = awkward.series(tmp_path)
    awkward.contours(tmp_path, ct, {"GTV": awkward.box(ct, range(5, 12, 2))})
    store = computed(tmp_path, ct, lesion_voxels(range(5, 12, 2)))
    assert "3 slices between the lesion's" not in store.notes or "kept as drawn" in store.notes


def test_174_between_fills_a_prism_exactly(tmp_path: Path) -> None:
    ct = awkward.series(tmp_path)
    awkward.contours(tmp_path, ct, {"GTV": awkward.box(ct, [5, 7, 10])})
    store = computed(tmp_path, ct, lesion_voxels(range(5, 11)), accept="between")
    assert "3 slices without a contour are filled from those beside them" in store.notes


@pytest.mark.parametrize("steps", [(3.0, 3.0), (2.5, 3.5)], ids=["even", "uneven"])
@pytest.mark.parametrize("shear", [(0.0, 0.0), (0.0, 0.5)], ids=["straight", "tilted"])
def test_174_between_is_raya_and_udupas_interpolation(tmp_path: Path, steps: Any, shear: Any) -> None:
    """An ellipse that moves and grows: voxels deep in are in, those far out are out, as the formula says."""
    positions = np.cumsum([0, *steps * 7, steps[0]])
    ct = awkward.series(tmp_path, positions=positions, shear=shear)
    ends = {4: ((18.0, 18.0), (6.0, 5.0)), 8: ((22.0, 20.0), (10.0, 8.0))}
    paths = {k: ellipse(ct, k, *shape) for k, shape in ends.items()}
    awkward.contours(tmp_path, ct, {"GTV": list(paths.values())})
    mask = awkward.plan(tmp_path, accept="between").mask
    row, column = np.indices(awkward.SHAPE[1:])
    place = ct.to_lps(0, np.stack([column, row], -1).astype(float)) @ ct.axes.T  # of slice 0, in-plane mm
    start = (ct.origins @ ct.axes.T)[:, :2]

    def distance(k: int, at: int) -> np.ndarray:
        """Signed distance of slice `at`'s pixels to the ellipse of slice `k`, by a fine grid of its own."""
        fine = 0.25
        x, y = np.arange(-10, 80, fine), np.arange(-10, 95, fine)
        (cx, cy), (rx, ry) = ends[k]
        inside = ((x[None] / 1.5 - cx) / rx) ** 2 + ((y[:, None] / 2.0 - cy) / ry) ** 2 < 1
        signed = (distance_transform_edt(inside) - distance_transform_edt(~inside)) * fine
        points = place[..., :2] - start[0] + (start[at] - start[k])
        i = np.clip(((points[..., 1] + 10) / fine).round().astype(int), 0, len(y) - 1)
        j = np.clip(((points[..., 0] + 10) / fine).round().astype(int), 0, len(x) - 1)
        return signed[i, j]

    for k in (5, 6, 7):
        share = (positions[k] - positions[4]) / (positions[8] - positions[4])
        wanted = (1 - share) * distance(4, k) + share * distance(8, k)
        found = np.zeros(awkward.SHAPE[1:], bool)
        rows, columns = (slice(c, c + n) for c, n in zip(mask.corner[1:], mask.voxels.shape[1:], strict=True))
        found[rows, columns] = mask.voxels[k - mask.corner[0]]
        assert found[wanted > 2.0].all()
        assert not found[wanted < -2.0].any()
        assert np.count_nonzero(found) == pytest.approx(np.count_nonzero(wanted > 0), rel=0.1)


def test_174_outlines_apart_are_not_joined(tmp_path: Path) -> None:
    ct = awkward.series(tmp_path)
    boxes = [synthetic.rectangle(ct, 5, (4.5, 4.5), (9.5, 9.5)), synthetic.rectangle(ct, 7, (20.5, 20.5), (30.5, 30.5))]
    awkward.contours(tmp_path, ct, {"GTV": boxes})
    mask = awkward.plan(tmp_path, accept="between").mask
    assert mask.voxels.any(axis=(1, 2)).tolist() == [True, False, True]


def test_183_another_frame_although_all_else_fits_is_told(tmp_path: Path) -> None:
    ct = awkward.series(tmp_path)
    awkward.contours(tmp_path, ct, frame_uid=synthetic.uid("another frame"))
    found = (
        "FrameOfReferenceUID .*, although they refer to this very series and every contour lies on one of its slices"
    )
    refused(tmp_path, found, "put frame into the column accept")
    computed(tmp_path, ct, accept="frame")


def test_183_another_frame_and_contours_off_the_slices_is_not_recommended(tmp_path: Path) -> None:
    ct = awkward.series(tmp_path)
    awkward.contours(tmp_path, ct, {"GTV": awkward.box(ct, dz=1.0)}, frame_uid=synthetic.uid("another frame"))
    assert "although" not in refused(tmp_path, "FrameOfReferenceUID")["found"]


@pytest.mark.parametrize("ending", [b"\\", b"\\ ", b"\r\n", b"\\\r\n"])
def test_184_contour_data_with_an_ending(tmp_path: Path, ending: bytes) -> None:
    ct = awkward.case(tmp_path)

    def ended(dataset: Dataset) -> None:
        for item in dataset.ROIContourSequence[0].ContourSequence:
            text = "\\".join(str(v) for v in item.ContourData).encode() + ending
            text += b" " * (len(text) % 2)
            item._dict[Tag(0x30060050)] = RawDataElement(Tag(0x30060050), "DS", len(text), text, 0, False, True)

    edited(tmp_path / "rt.dcm", ended)
    computed(tmp_path, ct)


def test_184_a_value_that_is_missing_is_no_ending(tmp_path: Path) -> None:
    awkward.case(tmp_path)

    def cut(dataset: Dataset) -> None:
        item = dataset.ROIContourSequence[0].ContourSequence[0]
        text = "\\".join(str(v) for v in item.ContourData[:-1]).encode() + b"\\"
        text += b" " * (len(text) % 2)
        item._dict[Tag(0x30060050)] = RawDataElement(Tag(0x30060050), "DS", len(text), text, 0, False, True)

    edited(tmp_path / "rt.dcm", cut)
    refused(tmp_path, "is not numbers")


# -- LIDC-IDRI ----------------------------------------------------------------------------------------------------


def rois(slices: Any, low: tuple[int, int], high: tuple[int, int], **options: Any) -> list[Roi]:
    """A box whose outline, which is out, runs through the corners (column, row)."""
    path = [low, (high[0], low[1]), high, (low[0], high[1])]
    return [Roi(k, path, **options) for k in slices]


def write(folder: Path, ct: synthetic.Series, *sessions: list[Nodule]) -> None:
    placed = [[Nodule([readings.on(ct, roi) for roi in n.rois], n.name, n.ratings) for n in s] for s in sessions]
    readings.write(folder, placed, series=str(ct.series_uid))


def within(slices: Any, low: tuple[int, int], high: tuple[int, int]) -> set[tuple[int, int, int]]:
    return lesion_voxels(list(slices), range(low[1] + 1, high[1]), range(low[0] + 1, high[0]))


A, B = ((14, 12), (22, 27)), ((22, 12), (29, 27))


@pytest.mark.parametrize("others", [1, 3])
def test_178_two_outlines_of_one_reader_count_as_one_where_accepted(tmp_path: Path, others: int) -> None:
    """One reader drew two halves of what the others drew whole; half of the readers must agree."""
    ct = awkward.series(tmp_path)
    whole = Nodule(rois(SLICES, (14, 12), (29, 27)), "whole", LEVELS | {"margin": 2})
    halves = [
        Nodule(rois(SLICES, *A), "left", LEVELS | {"margin": 5}),
        Nodule(rois(SLICES, *B), "right", LEVELS | {"margin": 4}),
    ]
    write(tmp_path, ct, *[[whole]] * others, halves)
    found = f"reader {others + 1} has 2 outlines in one lesion, nodules 'left', 'right'"
    refused(tmp_path, found, "put readers into the column accept", mask="reads.xml")
    voxels = within(SLICES, (14, 12), (29, 27))  # with one other reader every voxel has half of the votes
    store = computed(tmp_path, ct, voxels, mask="reads.xml", accept="readers")
    assert "they count as one" in store.notes
    result = awkward.run("scan", tmp_path, "--out", tmp_path / "scanned.csv")
    margin = {1: 3, 3: 2}[others]  # medians of (2, 4.5) and (2, 2, 2, 4.5), halves rounded up
    text = (tmp_path / "scanned.csv").read_text(encoding="utf-8").splitlines()
    cells = dict(zip(text[0].split(","), text[1].split(","), strict=True))
    assert cells["aux_margin"] == str(margin)
    assert "put readers into the column accept" in result.notes


@pytest.mark.parametrize("rule", ["union", "xor"])
def test_179_overlapping_paths_of_one_nodule_by_the_rule(tmp_path: Path, rule: str) -> None:
    ct = awkward.series(tmp_path)
    one, two, hole = ((14, 12), (24, 27)), ((20, 12), (29, 27)), ((15, 14), (18, 17))
    paths = [*rois(SLICES, *one), *rois(SLICES, *two), *rois(SLICES, *hole, inclusion="FALSE")]
    write(tmp_path, ct, [Nodule(paths, "N", LEVELS)])
    refused(
        tmp_path, "two paths of nodule 'N' of reader 1 overlap", "put overlap=union or overlap=xor", mask="reads.xml"
    )
    first, second = within(SLICES, *one), within(SLICES, *two)
    rim = lesion_voxels(SLICES, range(14, 18), range(15, 19))  # an exclusion takes out what it runs through
    if rule == "union":
        voxels = (first | second) - rim
    else:  # even-odd over all paths; what a path runs through is out
        lines = lesion_voxels(SLICES, range(40), [24, 20])
        voxels = (first ^ second) - rim - lines
    store = computed(tmp_path, ct, voxels, mask="reads.xml", accept=f"overlap={rule}")
    assert f"combined by {rule}" in store.notes


def test_181_an_image_at_two_z_is_the_fault_of_one_nodule(tmp_path: Path) -> None:
    ct = awkward.series(tmp_path)
    good = [Nodule(rois(SLICES, (14, 12), (29, 27)), f"good {i}", LEVELS) for i in range(2)]
    odd = Nodule([*rois([6], (31, 3), (38, 9)), *rois([7], (31, 3), (38, 9), z=float(ct.origins[9, 2]))], "odd", LEVELS)
    write(tmp_path, ct, [good[0]], [good[1], odd])
    found = f"image {short_uid(ct.sop_uids[7])} is said to lie at z = .* and at .* mm .nodule 'odd' of reader 2"
    refused(tmp_path, found, "leave this lesion out", mask="reads.xml", roi="1")
    computed(tmp_path, ct, within(SLICES, (14, 12), (29, 27)), mask="reads.xml", roi="2")


@pytest.mark.parametrize("values", [[0, 1], [0, 1, 2, 3, 7], [0, 1, 117]])
def test_85_a_label_map_saved_as_floats_with_its_cts_header(tmp_path: Path, values: list[int]) -> None:
    """nibabel spreads them over int16, and what comes back is nearly whole (nipy/nibabel#1069)."""
    awkward.series(tmp_path)
    affine = np.diag([-awkward.SPACING[1], -awkward.SPACING[0], 3.0, 1.0])
    affine[:3, 3] = np.array(awkward.ORIGIN) * (-1, -1, 1)
    header = nib.Nifti1Image(np.zeros(awkward.SHAPE[::-1], np.int16), affine).header
    labels = LESION.T.astype(np.float64)
    labels[0, 0, : len(values)] = values
    nib.save(nib.Nifti1Image(labels, affine, header), tmp_path / "m.nii.gz")
    assert not np.isin(nib.load(tmp_path / "m.nii.gz").get_fdata(), values).all()
    awkward.built(tmp_path, mask="m.nii.gz", roi="1")
    found = awkward.voxels(awkward.plan(tmp_path, mask="m.nii.gz", roi="1").mask)
    assert found - lesion_voxels() <= {(k, 0, 0) for k in range(len(values))}
    assert lesion_voxels() <= found
