"""Files that people really have, from public trackers: each is computed right, or refused for what it is.

Stacks within stacks: vtk-dicom 220, dcm2niix 887 and monai-deploy-app-sdk 532; maps sent as CT: OnkoDICOM 172.
"""

from pathlib import Path
from typing import Any

import awkward
import numpy as np
import pydicom
import pytest
import synthetic
from awkward import POSITIONS, edited, refused
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

# -- Several stacks in one series ---------------------------------------------------------------------------------


def add_stack(ct: synthetic.Series, positions: np.ndarray, raised: float, **elements: Any) -> None:
    """More slices in `ct`'s series and folder: the phantom, so many HU higher."""
    origins = synthetic.slice_origins(positions, awkward.ORIGIN)
    other = awkward.series(
        ct.folder.parent, name="more", origins=origins, shape=(len(positions), *awkward.SHAPE[1:]), seed=1,
        hu=awkward.hu(origins=origins) + raised, series_uid=ct.series_uid, frame_uid=ct.frame_uid,
    )  # fmt: skip
    for k, path in enumerate(other.paths):
        moved = path.rename(ct.folder / f"more{k:02d}.dcm")

        def change(dataset: Dataset, k: int = k) -> None:
            dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = synthetic.uid("more", k)
            dataset.StudyInstanceUID = pydicom.dcmread(ct.paths[0]).StudyInstanceUID
            for keyword, value in elements.items():
                setattr(dataset, keyword, value)

        edited(moved, change)


def said(ct: synthetic.Series, **elements: Any) -> None:
    for path in ct.paths:
        edited(path, lambda dataset: [setattr(dataset, *pair) for pair in elements.items()])


INTERLEAVED = [
    pytest.param(POSITIONS + 16.5, {"AcquisitionNumber": 1}, {"AcquisitionNumber": 2}, id="passes overlap"),
    pytest.param(POSITIONS[:-1:2] + 1.5, {"SliceThickness": "3"}, {"SliceThickness": "6"}, id="thin and thick"),
    pytest.param(POSITIONS + 1.5, {"KVP": "80"}, {"KVP": "140"}, id="energies"),
    pytest.param(POSITIONS + 1.5, {"ConvolutionKernel": "B30f"}, {"ConvolutionKernel": "B70f"}, id="kernels"),
]


@pytest.mark.parametrize(("positions", "ours", "theirs"), INTERLEAVED)
def test_of_stacks_within_each_other_the_contours_choose_theirs(
    tmp_path: Path, positions: np.ndarray, ours: dict[str, Any], theirs: dict[str, Any]
) -> None:
    ct = awkward.case(tmp_path)
    said(ct, **ours)
    add_stack(ct, positions, 100, **theirs)
    store = awkward.built(tmp_path)
    awkward.assert_linear(store, ct)
    keyword, value = next(iter(ours.items()))
    assert f"several stacks; that of {keyword} {value}, which the contours refer to, is used" in store.notes


@pytest.mark.parametrize(("positions", "ours", "theirs"), INTERLEAVED)
@pytest.mark.parametrize("accept", ["", "gap"])
def test_stacks_within_each_other_are_refused_where_nothing_chooses(
    tmp_path: Path, positions: np.ndarray, ours: dict[str, Any], theirs: dict[str, Any], accept: str
) -> None:
    ct = awkward.case(tmp_path)
    awkward.contours(tmp_path, ct, references=False)
    said(ct, **ours)
    add_stack(ct, positions, 100, **theirs)
    refused(tmp_path, f"stacks of different {next(iter(ours))} lie within each other", path="ct", accept=accept)


def test_acquisitions_one_after_the_other_are_one_stack(tmp_path: Path) -> None:
    ct = awkward.case(tmp_path)
    for k, path in enumerate(ct.paths):
        edited(path, lambda dataset, k=k: setattr(dataset, "AcquisitionNumber", 1 + (k > 7)))  # type: ignore[misc]
    awkward.assert_linear(awkward.built(tmp_path), ct)


# -- Maps that are sent as CT -------------------------------------------------------------------------------------


def mapping(unit: str) -> Sequence:
    code, item = Dataset(), Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = unit, "UCUM", "a unit"
    item.MeasurementUnitsCodeSequence = [code]
    return Sequence([item])


MAPS = {
    "iodine": ({"ImageType": ["DERIVED", "PRIMARY", "AXIAL", "MAT_SPECIFIC", "IODINE"]}, "Type says IODINE"),
    "effective Z": ({"ImageType": ["DERIVED", "PRIMARY", "AXIAL", "EFF_ATOMIC_NUM"]}, "Type says EFF_ATOMIC_NUM"),
    "perfusion": ({"ImageType": ["DERIVED", "PRIMARY", "PERFUSION"]}, "Type says PERFUSION"),
    "mapped": ({"RealWorldValueMappingSequence": mapping("mg/cm3")}, "gives 'mg/cm3', not HU"),
    "unspecified": ({"ImageType": ["DERIVED", "SECONDARY"], "RescaleType": "US"}, "RescaleType is 'US', not HU"),
    "other": ({"RescaleType": "MGML"}, "RescaleType is 'MGML', not HU"),
}


@pytest.mark.parametrize("syntax", ["explicit", "implicit", "big-endian"])
@pytest.mark.parametrize("name", MAPS)
def test_a_map_is_no_ct_unless_the_row_says_so(tmp_path: Path, name: str, syntax: str) -> None:
    elements, found = MAPS[name]
    ct = awkward.case(tmp_path, transfer_syntax=syntax)
    said(ct, **elements)
    refused(tmp_path, found, "put units into the column accept", path="ct/0000.dcm")
    store = awkward.built(tmp_path, accept="units")
    awkward.assert_linear(store, ct)
    assert "taken for HU whatever the header says; accepted by the manifest" in store.notes


@pytest.mark.parametrize(
    "elements",
    [
        {"RealWorldValueMappingSequence": mapping("[hnsf'U]")},
        {"ImageType": ["ORIGINAL", "PRIMARY", "AXIAL", "PERFUSION"]},
        {"ImageType": ["DERIVED", "PRIMARY", "AXIAL", "VMI"], "RescaleType": "HU_MOD"},
        {"ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"], "RescaleType": "US"},
    ],
)
def test_what_is_hu_stays_so(tmp_path: Path, elements: dict[str, Any]) -> None:
    ct = awkward.case(tmp_path)
    said(ct, **elements)
    awkward.assert_linear(awkward.built(tmp_path), ct)


def of_frames(dataset: Dataset, **groups: Dataset) -> None:
    for sequence, item in groups.items():
        setattr(dataset.SharedFunctionalGroupsSequence[0], sequence, [item])


def with_unit(dataset: Dataset) -> None:
    of_frames(dataset, RealWorldValueMappingSequence=mapping("ml/100ml/s")[0])


def with_frame_type(dataset: Dataset) -> None:
    frame_type = Dataset()
    frame_type.FrameType = ["DERIVED", "PRIMARY", "PERFUSION", "RCBF"]
    of_frames(dataset, CTImageFrameTypeSequence=frame_type)


@pytest.mark.parametrize(
    ("change", "found"), [(with_unit, "gives 'ml/100ml/s', not HU"), (with_frame_type, "Type says PERFUSION, RCBF")]
)
def test_a_map_in_an_enhanced_ct_is_refused_too(tmp_path: Path, change: Any, found: str) -> None:
    places = {"spacing": awkward.SPACING, "origin": awkward.ORIGIN, "positions": POSITIONS, "slope": 1 / 16}
    ct = synthetic.write_enhanced(tmp_path / "ct" / "all.dcm", awkward.hu(), **places)
    awkward.contours(tmp_path, ct)
    edited(tmp_path / "ct" / "all.dcm", change)
    refused(tmp_path, found, "put units into the column accept", path="ct/all.dcm")
    awkward.assert_linear(awkward.built(tmp_path, accept="units"), ct)
