"""Ten more situations from public trackers, listed in docs/reliability.md; each is computed right to the voxel."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import awkward
import numpy as np
import pydicom
import pytest
import segments
import SimpleITK as sitk
import synthetic
from awkward import COLUMNS, ROWS, SLICES, edited, lesion_voxels
from pydicom.dataset import Dataset

LESION = np.zeros(awkward.SHAPE, np.uint8)
LESION[SLICES[0] : SLICES[-1] + 1, ROWS[0] : ROWS[-1] + 1, COLUMNS[0] : COLUMNS[-1] + 1] = 1


def computed(folder: Path, ct: synthetic.Series, voxels: Any = None, **cells: str) -> awkward.Built:
    store = awkward.built(folder, **cells)
    awkward.assert_linear(store, ct)
    assert awkward.voxels(awkward.plan(folder, **cells).mask) == (lesion_voxels() if voxels is None else voxels)
    return store


@pytest.mark.parametrize("least", [1, 12])
def test_193_bits_stored_that_differ_from_slice_to_slice(tmp_path: Path, least: int) -> None:
    """HighBit just above each slice's own largest value (dicom-numpy 15)."""
    ct = awkward.case(tmp_path, slope=1, intercept=0)
    for path in ct.paths:

        def fitted(dataset: Dataset) -> None:
            bits = max(least, int(dataset.pixel_array.max()).bit_length())
            dataset.BitsStored, dataset.HighBit = bits, bits - 1

        edited(path, fitted)
    assert len({pydicom.dcmread(path).HighBit for path in ct.paths}) > (least == 1)
    computed(tmp_path, ct)


def test_194_contours_on_a_series_of_mixed_spacing(tmp_path: Path) -> None:
    """3 mm and 6 mm: an averaged spacing would put contours on other slices (Dicom_RT_and_Images_to_Mask 44)."""
    positions = np.cumsum([0.0, *[3.0] * 7, *[6.0] * 2, *[3.0] * 6])
    ct = awkward.series(tmp_path, positions=positions)
    awkward.contours(tmp_path, ct)
    computed(tmp_path, ct)


@pytest.mark.parametrize("decimals", [1, 2, 4])
def test_195_contour_positions_are_rounded_otherwise_than_slices(tmp_path: Path, decimals: int) -> None:
    """Slices 2.49916 mm apart (SlicerRT 334, TROTS 42)."""
    ct = awkward.series(tmp_path, positions=2.49916 * np.arange(16))
    rounded = [np.column_stack([box[:, :2], np.round(box[:, 2], decimals)]) for box in awkward.box(ct)]
    awkward.contours(tmp_path, ct, {"GTV": rounded})
    computed(tmp_path, ct)


def test_196_contours_that_name_no_images(tmp_path: Path) -> None:
    """ContourSequence items without ContourImageSequence (OHIF Viewers 2102)."""
    ct = awkward.case(tmp_path)

    def nameless(dataset: Dataset) -> None:
        for item in dataset.ROIContourSequence[0].ContourSequence:
            del item.ContourImageSequence

    edited(tmp_path / "rt.dcm", nameless)
    computed(tmp_path, ct)


@pytest.mark.parametrize("angles", [(12.0, -8.0, 5.0), (0.0, 35.0, 0.0)])
def test_197_slices_turned_against_the_patient(tmp_path: Path, angles: tuple[float, float, float]) -> None:
    """The z of a contour's points differs: one z per contour leaves slices out (platipy 165)."""
    ct = awkward.series(tmp_path, iop=synthetic.rotation_iop(angles))
    awkward.contours(tmp_path, ct)
    assert np.ptp(awkward.box(ct)[0][:, 2]) > 3
    computed(tmp_path, ct)


@pytest.mark.parametrize("way", ["nested", "keyhole"])
def test_198_a_ring_keeps_its_hole(tmp_path: Path, way: str) -> None:
    """Two nested contours, or one with a channel (platipy 244, dcmrtstruct2nii 32, SlicerRT 171)."""
    ct = awkward.series(tmp_path)
    paths = []
    for k in SLICES:
        outer = synthetic.rectangle(ct, k, (14.5, 12.5), (28.5, 26.5))
        inner = synthetic.rectangle(ct, k, (18.5, 16.5), (24.5, 22.5))
        channel = np.concatenate([outer, outer[:1], inner[::-1], inner[-1:], outer[:1]])
        paths += [outer, inner] if way == "nested" else [channel]
    awkward.contours(tmp_path, ct, {"GTV": paths})
    hole = lesion_voxels(SLICES, range(17, 23), range(19, 25))
    computed(tmp_path, ct, lesion_voxels() - hole)


def reversed_frames(dataset: Dataset) -> None:
    frames = segments.frames_of(dataset)
    groups = dataset.PerFrameFunctionalGroupsSequence
    dataset.PerFrameFunctionalGroupsSequence = pydicom.Sequence(list(groups)[::-1])
    segments.set_frames(dataset, frames[::-1])


@pytest.mark.parametrize("edit", [None, reversed_frames], ids=["as written", "reversed"])
@pytest.mark.parametrize("empty", [True, False], ids=["drawn slices only", "all slices"])
def test_199_200_frames_lie_where_they_say(tmp_path: Path, edit: Callable[[Dataset], None] | None, empty: bool) -> None:
    """Frames in the other order (highdicom 330), and without those that are empty (dcmqi 513, 462)."""
    ct = awkward.series(tmp_path)
    segments.write_seg(tmp_path / "seg.dcm", ct, {"Lesion": LESION}, edit=edit, omit_empty_frames=empty)
    computed(tmp_path, ct, mask="seg.dcm")


@pytest.mark.parametrize("roi", ["Lesion", "4002"])
def test_200_segments_that_are_not_numbered_in_a_row(tmp_path: Path, roi: str) -> None:
    """378 is followed by 4002 (dcmqi 69; FreeSurfer's labels, highdicom 316)."""
    ct = awkward.series(tmp_path)
    other = np.roll(LESION, 3, axis=2)

    def renumbered(dataset: Dataset) -> None:
        for item in dataset.SegmentSequence:
            item.SegmentNumber = {1: 378, 2: 4002}[item.SegmentNumber]
        for group in dataset.PerFrameFunctionalGroupsSequence:
            item = group.SegmentIdentificationSequence[0]
            item.ReferencedSegmentNumber = {1: 378, 2: 4002}[item.ReferencedSegmentNumber]

    segments.write_seg(tmp_path / "seg.dcm", ct, {"Other": other, "Lesion": LESION}, edit=renumbered)
    computed(tmp_path, ct, mask="seg.dcm", roi=roi)


@pytest.mark.parametrize("off", [1e-5, 3e-4])
def test_201_a_mask_whose_origin_is_written_with_fewer_digits(tmp_path: Path, off: float) -> None:
    """ITK's tolerance is 4e-6 (pyradiomics 226, 482, 507)."""
    ct = awkward.series(tmp_path)
    image = segments.volume(ct, LESION)
    image.SetOrigin(tuple(v + off for v in image.GetOrigin()))
    sitk.WriteImage(image, str(tmp_path / "m.nrrd"))
    computed(tmp_path, ct, mask="m.nrrd")


@pytest.mark.parametrize("background", [True, False])
def test_202_a_labelmap_segmentation_with_gaps_in_its_numbers(tmp_path: Path, background: bool) -> None:
    """Numbers need not follow each other, and 0 may be described as a segment (Slicer 9163, dcmqi 537)."""
    ct = awkward.series(tmp_path)
    other = np.zeros_like(LESION)
    other[12:14, 2:6, 2:6] = 1

    def renumbered(dataset: Dataset) -> None:
        pixels = np.frombuffer(dataset.PixelData, np.uint8).copy()
        pixels[pixels == 2] = 9
        dataset.PixelData = pixels.tobytes()
        for item in list(dataset.SegmentSequence):
            if item.SegmentNumber == 2:
                item.SegmentNumber = 9
            if item.SegmentNumber == 0 and not background:
                dataset.SegmentSequence.remove(item)

    segments.write_seg(tmp_path / "seg.dcm", ct, {"Other": other, "Lesion": LESION}, kind="LABELMAP", edit=renumbered)
    computed(tmp_path, ct, mask="seg.dcm", roi="Lesion")
