"""`ctpatch scan`: which contours go with which CT series, and a manifest that needs only labels."""

from __future__ import annotations

import csv
import os
import random
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import highdicom as hd
import numpy as np
import pydicom
import pytest
import synthetic
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes

from ctpatch import scan as scanning
from ctpatch.cli import main
from ctpatch.contours.rtstruct import open_rtstruct
from ctpatch.errors import InputError
from ctpatch.manifest import read_manifest
from ctpatch.scan import ScanResult, write_manifest
from ctpatch.scan.remarks import is_organ
from ctpatch.scan.table import text_cell

DATA = Path(__file__).parents[3] / "shared" / "data"
real = pytest.mark.skipif(not DATA.is_dir(), reason="the shared real data are not here")
HU = np.zeros((4, 20, 24))
SPACING = 2.5


def series(folder: Path, patient_id: str = "P1", seed: int = 0, **options: object) -> synthetic.Series:
    positions = np.arange(4) * SPACING
    return synthetic.write_series(folder, HU, positions=positions, patient_id=patient_id, seed=seed, **options)


def structures(path: Path, of: synthetic.Series, rois: Sequence[str] = ("GTV",), **options: object) -> Path:
    contours = {roi: [synthetic.rectangle(of, k, (4, 4), (9, 9)) for k in (1, 2)] for roi in rois}
    return synthetic.write_rtstruct(path, contours, of, **options)


def segmentation(path: Path, of: synthetic.Series, labels: Sequence[str]) -> Path:
    images = [pydicom.dcmread(file) for file in of.paths]
    for image in images:
        image.SliceThickness = SPACING
    described = [
        hd.seg.SegmentDescription(
            number,
            label,
            codes.SCT.Tissue,
            codes.SCT.Neoplasm,
            hd.seg.SegmentAlgorithmTypeValues.MANUAL,
        )
        for number, label in enumerate(labels, start=1)
    ]
    pixels = np.zeros((*HU.shape, len(labels)), np.uint8)
    for i in range(len(labels)):
        pixels[1:3, 3:8, 2 + 3 * i : 4 + 3 * i, i] = 1
    made = hd.seg.Segmentation(
        images,
        pixels,
        hd.seg.SegmentationTypeValues.BINARY,
        described,
        series_instance_uid=synthetic.uid("seg", path),
        series_number=9,
        sop_instance_uid=synthetic.uid("seg image", path),
        instance_number=1,
        manufacturer="TEST",
        manufacturer_model_name="TEST",
        software_versions="1",
        device_serial_number="1",
    )
    made.save_as(path)
    return path


def lidc_xml(
    path: Path, of: synthetic.Series, nodules: Sequence[Sequence[tuple[int, int, int]]], **levels: object
) -> Path:
    """Each reader's nodules as (slice, low, high) squares; a nodule with low = high is a single point."""
    sessions = []
    for reader in nodules:
        drawn = []
        for k, low, high in reader:
            corners = [(low, low), (high, low), (high, high), (low, high)][: 1 if low == high else 4]
            edges = "".join(f"<edgeMap><xCoord>{x}</xCoord><yCoord>{y}</yCoord></edgeMap>" for x, y in corners)
            sop = of.sop_uids[k] if k < 4 else "1.2.3.4"
            roi = (
                f"<roi><imageZposition>{k * SPACING}</imageZposition><imageSOP_UID>{sop}</imageSOP_UID>"
                f"<inclusion>TRUE</inclusion>{edges}</roi>"
            )
            ratings = "".join(f"<{name}>{level}</{name}>" for name, level in levels.items())
            ratings = "" if low == high else f"<characteristics>{ratings}</characteristics>"
            drawn.append(f"<unblindedReadNodule><noduleID>N</noduleID>{ratings}{roi}</unblindedReadNodule>")
        sessions.append(f"<readingSession>{''.join(drawn)}</readingSession>")
    head = f"<ResponseHeader><SeriesInstanceUid>{of.series_uid}</SeriesInstanceUid></ResponseHeader>"
    path.write_text(f"<LidcReadMessage>{head}{''.join(sessions)}</LidcReadMessage>")
    return path


def scan(root: Path) -> ScanResult:
    """What a scan finds, without the rows of series that no usable contours belong to."""
    result = scanning.scan(root)
    return replace(result, rows=tuple(row for row in result.rows if row["mask"]))


def cells(result: ScanResult, *columns: str) -> list[tuple[str, ...]]:
    return [tuple(row[column] for column in columns) for row in result.rows]


def noted(result: ScanResult, *texts: str) -> bool:
    """Whether one note says all of it."""
    return any(all(text in note for text in texts) for note in result.notes)


def no_references(dataset: Dataset) -> None:
    del dataset.ReferencedFrameOfReferenceSequence[0].RTReferencedStudySequence


# ---------------------------------------------------------------------------------------- what is paired


def test_an_rtstruct_goes_with_the_series_it_refers_to(tmp_path: Path) -> None:
    a, b = series(tmp_path / "a" / "ct", "A", 1), series(tmp_path / "b" / "ct", "B", 2)
    structures(tmp_path / "a" / "rs.dcm", a, ["GTV", "CTV 1"])
    structures(tmp_path / "a" / "other.dcm", b)
    result = scan(tmp_path)
    assert cells(result, "patient_id", "image", "mask", "roi", "series_uid", "lesion_id", "label") == [
        ("A", str(a.folder), str(tmp_path / "a" / "rs.dcm"), "GTV", "", "1", ""),
        ("A", str(a.folder), str(tmp_path / "a" / "rs.dcm"), "CTV 1", "", "2", ""),
        ("B", str(b.folder), str(tmp_path / "a" / "other.dcm"), "GTV", "", "1", ""),
    ]
    (note,) = result.notes
    assert note == (
        "1 file of contours with several ROIs, a row each; rows of what is named like an organ or help structure: "
        "'CTV 1'; other ROIs: 'GTV'; delete the rows of what is no lesion"
    )


@pytest.mark.parametrize(
    ("rois", "told"),
    [
        (["Lesion 1"], ""),
        (["Lesion 1", "Lung_R"], "like an organ or help structure: 'Lung_R'; other ROIs: 'Lesion 1'"),
        (["a", "b", "c", "d", "e", "f"], "they are: 'a', 'b', 'c', 'd', 'e', …; delete"),
        (["BODY"], "rows of what is named like an organ or help structure: 'BODY'"),
        (["Lung nodule", "liver mets 2"], "they are: 'Lung nodule', 'liver mets 2'; delete"),
    ],
)
def test_rois_that_may_be_no_lesions_are_rows_and_said_once(tmp_path: Path, rois: list[str], told: str) -> None:
    structures(tmp_path / "rs.dcm", series(tmp_path / "ct"), rois)
    result = scan(tmp_path)
    assert [cell for (cell,) in cells(result, "roi")] == rois
    assert len(result.notes) == bool(told)
    assert not told or told in result.notes[0]


def test_lesions_of_readers_are_no_organs(tmp_path: Path) -> None:
    lidc_xml(tmp_path / "reads.xml", series(tmp_path / "ct"), [[(1, 2, 8), (2, 10, 16)]], lobulation=2)
    assert not noted(scan(tmp_path), "several ROIs")


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        *(
            (name, True)
            for name in ("Lungs-GTV", "SpinalCord_PRV", "R Lung", "External", "PTV60", "couch top", "Heart")
        ),
        *((name, False) for name in ("GTV", "Lesion 1", "lung tumour", "Nodule_RUL", "1", "", "Roi body mass")),
    ],
)
def test_names_of_organs(name: str, kind: bool) -> None:
    assert is_organ(name) == kind


def test_series_uid_is_given_only_where_the_folder_holds_several(tmp_path: Path) -> None:
    alone = series(tmp_path / "alone", "A", 1)
    outer, inner = series(tmp_path / "b", "B", 2), series(tmp_path / "b" / "late" / "x", "B", 3)
    one, two = (series(tmp_path / "c", "C", seed, names=lambda k, seed=seed: f"{seed}-{k}.dcm") for seed in (4, 5))
    for each in (alone, outer, inner, one, two):
        structures(tmp_path / f"{each.series_uid}.dcm", each)
    result = scan(tmp_path)
    uids = {
        image: {uid for i, uid in cells(result, "image", "series_uid") if i == image}
        for image, *_ in cells(result, "image")
    }
    assert uids == {
        str(alone.folder): {""},
        str(outer.folder): {outer.series_uid},
        str(inner.folder): {""},
        str(one.folder): {one.series_uid, two.series_uid},
    }


def test_a_series_over_several_folders_is_given_by_the_one_that_holds_them(tmp_path: Path) -> None:
    of = series(tmp_path / "p" / "all")
    for k, path in enumerate(of.paths):
        (tmp_path / "p" / f"part{k % 2}").mkdir(exist_ok=True)
        path.rename(tmp_path / "p" / f"part{k % 2}" / path.name)
    structures(tmp_path / "rs.dcm", of)
    assert cells(scan(tmp_path), "image", "series_uid") == [(str(tmp_path / "p"), "")]


def test_a_series_that_is_there_twice_is_given_by_one_folder_that_holds_it(tmp_path: Path) -> None:
    """Of a copy elsewhere, such as a backup, the first by name; of one that is part of it, the whole."""
    of = series(tmp_path / "p" / "ct")
    shutil.copytree(of.folder, tmp_path / "q" / "ct")
    (tmp_path / "a").mkdir()
    shutil.copy(of.paths[0], tmp_path / "a" / "one.dcm")
    structures(tmp_path / "rs.dcm", of)
    assert cells(scan(tmp_path), "image", "series_uid") == [(str(of.folder), "")]


def test_images_tell_the_series_where_no_series_is_named(tmp_path: Path) -> None:
    """Two series of one frame of reference: only the contours' own images tell them apart."""
    a = series(tmp_path / "a", seed=1, frame_uid="1.2.3")
    series(tmp_path / "b", seed=2, frame_uid="1.2.3")
    structures(tmp_path / "rs.dcm", a, frame_uid="1.2.3", edit=no_references)
    result = scan(tmp_path)
    assert cells(result, "image") == [(str(a.folder),)]
    assert noted(result, "1 CT series without usable contours, a row with a blank mask each: b")


def test_the_frame_of_reference_tells_only_when_one_series_has_it(tmp_path: Path) -> None:
    a = series(tmp_path / "a", seed=1)
    path = structures(tmp_path / "rs.dcm", a, references=False, series_uid="9.9.9")
    result = scan(tmp_path)
    assert cells(result, "image", "mask") == [(str(a.folder), str(path))]
    assert noted(result, "rs.dcm: paired with the only CT series of its frame of reference")
    series(tmp_path / "b", seed=2, frame_uid=a.frame_uid)
    result = scan(tmp_path)
    assert result.rows == ()
    assert noted(result, "left out: rs.dcm: it refers to no series; 2 CT series here share its frame of reference")


def test_contours_on_images_of_two_series_are_left_out(tmp_path: Path) -> None:
    a, b = series(tmp_path / "a", seed=1), series(tmp_path / "b", seed=2)
    images = (a.sop_uids[0], a.sop_uids[1], b.sop_uids[2], b.sop_uids[3])
    structures(tmp_path / "rs.dcm", a, sop_uids=images, frame_uid="1.2.3", edit=no_references)
    result = scan(tmp_path)
    assert result.rows == ()
    assert noted(result, "rs.dcm: it refers to 2 of the CT series here; 0 CT series here share its frame of reference")


def test_scouts_and_other_patients_do_not_count_for_the_frame_of_reference(tmp_path: Path) -> None:
    def scout(dataset: Dataset, k: int) -> None:
        dataset.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]

    a = series(tmp_path / "a", seed=1)
    series(tmp_path / "scout", seed=2, frame_uid=a.frame_uid, edit=scout)
    series(tmp_path / "else", "P2", 3, frame_uid=a.frame_uid)
    structures(tmp_path / "rs.dcm", a, references=False)
    assert cells(scan(tmp_path), "image") == [(str(a.folder),)]


def test_contours_of_an_absent_series_are_left_out(tmp_path: Path) -> None:
    """Also when they lie beside the only series of the tree: neighbours are no reference."""
    series(tmp_path, seed=1)
    structures(tmp_path / "rs.dcm", series(tmp_path.parent / "absent", seed=2))
    result = scan(tmp_path)
    assert result.rows == ()
    assert noted(result, "left out: rs.dcm: it refers to series …", "not here; 0 CT series here share its frame")


def test_contours_on_no_slice_of_a_series_of_the_same_frame_are_left_out(tmp_path: Path) -> None:
    a = series(tmp_path / "a", seed=1)
    contours = {"GTV": [synthetic.rectangle(a, 1, (4, 4), (9, 9), dz=1.0)]}
    synthetic.write_rtstruct(tmp_path / "rs.dcm", contours, a, references=False)
    result = scan(tmp_path)
    assert result.rows == ()
    assert noted(result, "left out: rs.dcm:", "a contour lies 1 mm off every slice")


def test_contours_whose_slices_are_missing_are_left_out(tmp_path: Path) -> None:
    a = series(tmp_path / "a")
    contours = {
        "High": [synthetic.rectangle(a, 3, (4, 4), (9, 9), dz=SPACING)],
        "GTV": [synthetic.rectangle(a, 3, (4, 4), (9, 9))],
    }
    synthetic.write_rtstruct(tmp_path / "rs.dcm", contours, a)
    result = scan(tmp_path)
    assert cells(result, "roi") == [("GTV",)]
    assert noted(result, "left out: rs.dcm: a contour lies 2.5 mm from the nearest slice")


def test_overlapping_contours_are_a_row_with_a_note(tmp_path: Path) -> None:
    """What only a person can decide is no reason to leave the row out."""
    a = series(tmp_path / "a")
    contours = {"GTV": [synthetic.rectangle(a, 1, (4, 4), (9, 9)), synthetic.rectangle(a, 1, (7, 7), (12, 12))]}
    synthetic.write_rtstruct(tmp_path / "rs.dcm", contours, a)
    result = scan(tmp_path)
    assert cells(result, "roi") == [("GTV",)]
    assert noted(result, "rs.dcm: ROI 'GTV': ", "overlap", "accept")


def test_another_frame_of_reference_is_a_row_with_a_note(tmp_path: Path) -> None:
    structures(tmp_path / "rs.dcm", series(tmp_path / "a"), frame_uid="1.2.3.4")
    result = scan(tmp_path)
    assert len(result.rows) == 1
    assert noted(result, "rs.dcm: its frame of reference is not the image's: put frame into the column accept")


def test_segments_go_with_the_series_they_refer_to(tmp_path: Path) -> None:
    a = series(tmp_path / "a", seed=1)
    series(tmp_path / "b", seed=2, frame_uid=a.frame_uid)
    path = segmentation(tmp_path / "seg.dcm", a, ["Tumour", "Node", "node", "=1+1"])
    result = scan(tmp_path)
    image = str(a.folder)
    assert cells(result, "image", "mask", "roi") == [(image, str(path), roi) for roi in ("Tumour", "Node", "node", "4")]


def test_a_segmentation_of_another_frame_of_reference_is_a_row_with_a_note(tmp_path: Path) -> None:
    path = segmentation(tmp_path / "seg.dcm", series(tmp_path / "a"), ["Tumour"])
    dataset = pydicom.dcmread(path)
    dataset.FrameOfReferenceUID = "1.2.3"
    dataset.save_as(path)
    result = scan(tmp_path)
    assert cells(result, "roi") == [("Tumour",)]
    assert noted(result, "seg.dcm: its frame of reference is not the image's: put frame into the column accept")


def test_a_segmentation_of_two_series_is_left_out(tmp_path: Path) -> None:
    a, b = series(tmp_path / "a", seed=1), series(tmp_path / "b", seed=2)
    path = segmentation(tmp_path / "seg.dcm", a, ["Tumour"])
    dataset = pydicom.dcmread(path)
    dataset.FrameOfReferenceUID = "1.2.3"
    second, image = Dataset(), Dataset()
    image.ReferencedSOPClassUID, image.ReferencedSOPInstanceUID = b.sop_class, b.sop_uids[0]
    second.SeriesInstanceUID, second.ReferencedInstanceSequence = b.series_uid, [image]
    dataset.ReferencedSeriesSequence.append(second)
    dataset.save_as(path)
    result = scan(tmp_path)
    assert result.rows == ()
    assert noted(result, "seg.dcm: it refers to 2 of the CT series here; 0 CT series here share its frame")


def test_lidc_lesions_come_with_their_characteristics(tmp_path: Path) -> None:
    a = series(tmp_path / "ct")
    levels = {"subtlety": 4, "internalStructure": 1, "lobulation": 2, "malignancy": 5}
    path = lidc_xml(tmp_path / "reads.xml", a, [[(1, 2, 8), (2, 10, 16)], [(1, 2, 8)]], **levels)
    result = scan(tmp_path)
    assert cells(
        result, "mask", "roi", "lesion_id", "readers", "malignancy", "aux_internalstructure", "aux_texture"
    ) == [
        (str(path), "1", "1", "2", "5", "1", ""),
        (str(path), "2", "2", "1", "5", "1", ""),
    ]
    assert "aux_malignancy" not in result.rows[0]
    assert {name for name in result.rows[0] if name.startswith("aux_")} == {
        *("aux_subtlety", "aux_internalstructure", "aux_calcification", "aux_sphericity", "aux_margin"),
        *("aux_lobulation", "aux_spiculation", "aux_texture"),
    }


def test_lidc_lesions_that_cannot_be_built_are_left_out_and_points_listed(tmp_path: Path) -> None:
    a = series(tmp_path / "ct")
    readers = [[(1, 2, 8), (7, 2, 8), (2, 5, 5)], [(2, 10, 16), (2, 12, 18)]]
    lidc_xml(tmp_path / "reads.xml", a, readers, margin=3)
    result = scan(tmp_path)
    assert cells(result, "roi", "lesion_id") == [("1", "1"), ("2", "2")]
    assert noted(result, "lesion 2: reader 2 has 2 outlines in one lesion", "put readers into the column accept")
    assert noted(result, "left out: reads.xml: lesion 3: 1 of its slices missing: at z = 17.5 mm")
    assert noted(result, "reads.xml: 1 marks of nodules < 3 mm", "(5, 5, 5)")


# ----------------------------------------------------------------------------------------- what is not


def test_empty_point_and_open_rois_are_left_out(tmp_path: Path) -> None:
    a = series(tmp_path / "ct")
    square = synthetic.rectangle(a, 1, (4, 4), (9, 9))
    rois = {"GTV": [square], "Empty": [], "ISO": [square[:1]], "Wire": [square]}
    kinds = {"ISO": "POINT", "Wire": "OPEN_PLANAR"}
    synthetic.write_rtstruct(tmp_path / "rs.dcm", rois, a, geometric_type=kinds)
    result = scan(tmp_path)
    assert cells(result, "roi") == [("GTV",)]
    assert noted(result, "left out: rs.dcm: ROI 'Empty' has no contours")
    assert noted(result, "left out: rs.dcm: ROI 'ISO' has contours that enclose nothing: 1 POINT")
    assert noted(result, "left out: rs.dcm: ROI 'Wire' has contours that enclose nothing: 1 OPEN_PLANAR")


def test_several_files_of_contours_are_all_listed_and_said(tmp_path: Path) -> None:
    a = series(tmp_path / "ct")
    for name in ("v1.dcm", "v2.dcm"):
        structures(tmp_path / name, a)
    result = scan(tmp_path)
    assert cells(result, "mask", "lesion_id") == [(str(tmp_path / "v1.dcm"), "1"), (str(tmp_path / "v2.dcm"), "2")]
    assert noted(result, "ct: 2 files of contours, keep the rows you mean: v1.dcm, v2.dcm")


def test_a_series_that_is_no_stack_leaves_its_contours_out_once(tmp_path: Path) -> None:
    def double(dataset: Dataset, k: int) -> None:
        if k == 2:
            dataset.ImagePositionPatient = [0, 0, SPACING]
            dataset.RescaleIntercept = -900  # other pixels, or it were one image sent twice

    structures(tmp_path / "rs.dcm", series(tmp_path / "ct", edit=double), ["A", "B"])
    result = scan(tmp_path)
    assert result.rows == ()
    assert noted(result, "left out: rs.dcm: ct: two images at one position", "(2 ROIs)")


def test_an_unreadable_image_is_named_and_keeps_its_folder_out(tmp_path: Path) -> None:
    a = series(tmp_path / "ct")
    structures(tmp_path / "rs.dcm", a)
    a.paths[3].write_bytes(b"")
    result = scan(tmp_path)
    assert result.rows == ()
    assert noted(result, "unreadable: ct/0003.dcm: zero bytes")
    assert noted(result, "left out: rs.dcm: ct/0003.dcm: zero bytes")


def test_broken_contour_files_are_named_and_stop_nothing(tmp_path: Path) -> None:
    a = series(tmp_path / "ct")
    good = structures(tmp_path / "good.dcm", a)
    whole = good.read_bytes()
    (tmp_path / "cut.dcm").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "bad.xml").write_text("<LidcReadMessage><readingSession>")
    (tmp_path / "cxr.xml").write_text("<IdriReadMessage><CXRreadingSession/></IdriReadMessage>")
    result = scan(tmp_path)
    assert cells(result, "mask") == [(str(good),)]
    assert noted(result, "cut.dcm")
    assert noted(result, "left out: bad.xml: not well-formed XML")
    assert noted(result, "left out: cxr.xml: its readings are of a chest radiograph")


def test_everything_else_is_counted(tmp_path: Path) -> None:
    def capture(dataset: Dataset, k: int) -> None:
        dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.7"
        dataset.Modality = "OT"

    structures(tmp_path / "rs.dcm", series(tmp_path / "ct"))
    series(tmp_path / "other", seed=2, edit=capture)
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "page.xml").write_text("<html/>")
    (tmp_path / "gone").symlink_to(tmp_path / "nothing")
    (tmp_path / "again").symlink_to(tmp_path / "ct", target_is_directory=True)
    os.mkfifo(tmp_path / "pipe")
    result = scan(tmp_path)
    assert len(result.rows) == 1
    assert result.notes == (
        "skipped: 4 DICOM of modality OT, 1 links to folders, not followed, 2 neither DICOM nor LIDC-IDRI XML, "
        "2 no regular files",
    )


def test_a_folder_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no such folder"):
        scan(tmp_path / "nothing")


def test_an_empty_folder_gives_no_manifest(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no CT series to write of"):
        write_manifest(scan(tmp_path), tmp_path / "out.csv")
    assert not (tmp_path / "out.csv").exists()


# --------------------------------------------------------------------------------------------- patients


def test_a_blank_patient_id_becomes_the_folders_name_and_is_said(tmp_path: Path) -> None:
    for i, (folder, patient_id) in enumerate([("x/ct", ""), ("y/ct", " "), ("z/scan", "None"), ("w/ct2", "007")]):
        structures(tmp_path / f"{i}.dcm", series(tmp_path / folder, patient_id, i))
    result = scan(tmp_path)
    assert cells(result, "patient_id", "lesion_id") == [("007", "1"), ("scan", "1"), ("x/ct", "1"), ("y/ct", "1")]
    assert noted(result, "x/ct: PatientID is blank; the folder's name 'x/ct' is used")
    assert not noted(result, "w/ct2")


def test_lesions_of_a_patient_are_counted_over_series_and_files(tmp_path: Path) -> None:
    for i in range(3):
        structures(tmp_path / f"{i}.dcm", series(tmp_path / f"ct{i}", "P" if i else "Q", i), ["A", "B"])
    assert cells(scan(tmp_path), "patient_id", "lesion_id") == [
        *(("P", str(n)) for n in (1, 2, 3, 4)),
        *(("Q", str(n)) for n in (1, 2)),
    ]


def test_contours_of_another_patient_id_are_said(tmp_path: Path) -> None:
    def rename(dataset: Dataset) -> None:
        dataset.PatientID = "someone"

    structures(tmp_path / "rs.dcm", series(tmp_path / "ct", "P1"), edit=rename)
    result = scan(tmp_path)
    assert cells(result, "patient_id") == [("P1",)]
    said = "rs.dcm: its PatientID is 'someone', but it refers to the CT series of 'P1', which is used"
    assert said in result.notes  # nobody here is someone
    structures(tmp_path / "x" / "rs.dcm", series(tmp_path / "x" / "ct", "someone", 7))
    assert said in scan(tmp_path).notes


def copied(path: Path, of: synthetic.Series, patient_id: str) -> Path:
    """Contours of a series in a file that says it is another patient's."""

    def rename(dataset: Dataset) -> None:
        dataset.PatientID = patient_id

    return structures(path, of, edit=rename)


@pytest.mark.parametrize(
    ("patient_id", "said"),
    [
        ("P2", "its PatientID is 'P2', but it refers to the CT series of 'P1', which is used"),
        ("P1", "it lies beside the CT series of 'P2', but refers to that of 'P1', which is used"),
        ("", "it lies beside the CT series of 'P2', but refers to that of 'P1', which is used"),
    ],
)
def test_another_patient_s_contours_leave_a_patient_without(tmp_path: Path, patient_id: str, said: str) -> None:
    first, second = series(tmp_path / "a" / "ct", "P1", 1), series(tmp_path / "b" / "ct", "P2", 2)
    structures(tmp_path / "a" / "rs.dcm", first)
    copied(tmp_path / "b" / "rs.dcm", first, patient_id)
    assert f"b/rs.dcm: {said}, and then patient 'P2' has no contours of its own" in scan(tmp_path).notes
    structures(tmp_path / "b" / "own.dcm", second)
    assert not noted(scan(tmp_path), "of its own")


def test_a_series_of_two_patients_is_left_out(tmp_path: Path) -> None:
    def rename(dataset: Dataset, k: int) -> None:
        dataset.PatientID = "A" if k else "B"

    structures(tmp_path / "rs.dcm", series(tmp_path / "ct", edit=rename))
    result = scan(tmp_path)
    assert result.rows == ()
    assert noted(result, "left out: rs.dcm: ct: the images of its series have 2 PatientIDs")


# --------------------------------------------------------------------------------------------- the CSV


def labelled(path: Path) -> Path:
    """The manifest with a label in every row, as a user would fill it in."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    for i, row in enumerate(rows):
        row["label"] = "ab"[i % 2]
    return synthetic.write_manifest(path.with_name(f"labelled-{path.name}"), rows)


def test_the_manifest_needs_only_labels(tmp_path: Path) -> None:
    a, b = series(tmp_path / "data" / "a", "007", 1), series(tmp_path / "data" / "b", "B", 2)
    mask = structures(tmp_path / "data" / "rs.dcm", a)
    xml = lidc_xml(tmp_path / "data" / "reads.xml", b, [[(1, 2, 8), (2, 10, 16)]], lobulation=2, malignancy=5)
    (tmp_path / "work").mkdir()
    out = tmp_path / "work" / "manifest.csv"
    write_manifest(scan(tmp_path / "data"), out)
    assert out.read_text().startswith("patient_id,image,mask,roi,series_uid,lesion_id,label,malignancy,readers,aux_")
    assert str(tmp_path) not in out.read_text()
    rows = read_manifest(labelled(out)).rows
    assert [(row.patient_id, row.lesion_id, row.roi) for row in rows] == [
        ("007", "1", "GTV"),
        ("B", "1", "1"),
        ("B", "2", "2"),
    ]
    assert [row.image.resolve() for row in rows] == [a.folder, b.folder, b.folder]
    assert [row.mask.resolve() for row in rows if row.mask] == [mask, xml, xml]
    assert dict(rows[1].aux)["lobulation"] == 2


def test_an_existing_manifest_is_never_overwritten(tmp_path: Path) -> None:
    structures(tmp_path / "rs.dcm", series(tmp_path / "ct"))
    result = scan(tmp_path)
    out = tmp_path / "manifest.csv"
    out.write_text("filled in with care")
    with pytest.raises(InputError, match="there is a file of this name already"):
        write_manifest(result, out)
    assert out.read_text() == "filled in with care"
    with pytest.raises(InputError, match="cannot be written"):
        write_manifest(result, tmp_path / "no folder" / "manifest.csv")


@pytest.mark.parametrize("out", ["old.csv", "no folder/new.csv"])
def test_a_place_that_cannot_be_written_is_refused_before_the_scan(
    tmp_path: Path, out: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "old.csv").touch()
    monkeypatch.setattr(scanning, "scan", lambda _: pytest.fail("scanned"))
    assert main(["scan", str(tmp_path), "--out", str(tmp_path / out)]) == 2
    assert re.fullmatch("ctpatch: .* (already|no such folder). Do: .*another --out.\n", capfd.readouterr().err)


def test_a_full_disk_leaves_no_manifest_that_is_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    structures(tmp_path / "in" / "rs.dcm", series(tmp_path / "in" / "ct"))
    result = scan(tmp_path / "in")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match=r"cannot be written \(No space left"):
        write_manifest(result, tmp_path / "manifest.csv")
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


@pytest.mark.parametrize(
    ("text", "cell"),
    [
        ("=1+1", "'=1+1"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("+cmd|' /C calc'!A0", "'+cmd|' /C calc'!A0"),
        ("-A1", "'-A1"),
        ("\t=1", "'\t=1"),
        ("-12.5", "-12.5"),
        ("+3", "+3"),
        ("-1e-3", "-1e-3"),
        ("007", "007"),
        ("", ""),
    ],
)
def test_text_that_spreadsheets_would_run_gets_a_quote_and_numbers_do_not(text: str, cell: str) -> None:
    assert text_cell(text) == cell


def test_awkward_names_come_back_as_themselves(tmp_path: Path) -> None:
    """Formulas as patient, folder and ROI, commas, quotes, spaces, non-ASCII, two ROIs of one name."""
    root = tmp_path / "in"
    names = ["=HYPERLINK(1)", "GTV", "GTV", 'Größe, 3"', "-x", "2"]
    a = series(root / '-ct, ü "x"', "=1+1")
    unnamed = {str(i): [synthetic.rectangle(a, 1, (2 + i, 2), (12 + i, 9))] for i in range(len(names))}

    def rename(dataset: Dataset) -> None:
        dataset.SpecificCharacterSet = "ISO_IR 192"
        for item, name in zip(dataset.StructureSetROISequence, names, strict=True):
            item.ROIName = name

    path = synthetic.write_rtstruct(root / "@rs.dcm", unnamed, a, edit=rename)
    out = root / "manifest.csv"
    result = scan(root)
    write_manifest(result, out)
    with out.open(newline="", encoding="utf-8") as file:
        assert not any(cell.startswith(("=", "+", "-", "@")) for line in csv.reader(file) for cell in line)
    rows = sorted(read_manifest(labelled(out)).rows, key=lambda row: int(row.lesion_id))
    assert [row.roi for row in rows] == ["1", "3", 'Größe, 3"', "5", "2"]
    assert noted(result, "left out: @rs.dcm: ROI 2 'GTV' has neither a name nor a number of its own")
    for row, number in zip(rows, (1, 3, 4, 5, 6), strict=True):
        assert (row.image.resolve(), row.mask and row.mask.resolve()) == (a.folder, path)
        assert row.patient_id == "'=1+1"
        assert open_rtstruct(path).drawn(row.roi).contours[0][0, 0] == pytest.approx(1 + number)


def test_paths_hold_through_a_link_on_the_way(tmp_path: Path) -> None:
    """`..` from a linked folder leads beside the link's target."""
    a = series(tmp_path / "data" / "ct")
    structures(tmp_path / "data" / "rs.dcm", a)
    (tmp_path / "far" / "deep").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "far" / "deep", target_is_directory=True)
    out = tmp_path / "link" / "manifest.csv"
    write_manifest(scan(tmp_path / "data"), out)
    assert read_manifest(labelled(out)).rows[0].image.resolve() == a.folder


def test_the_same_tree_gives_the_same_manifest_whatever_the_file_names(tmp_path: Path) -> None:
    written = []
    for seed in (0, 1):
        root = tmp_path / str(seed)
        rng = random.Random(seed)
        for i in rng.sample(range(4), 4):
            of = series(root / f"p{i}" / "ct", f"P{i}", i, shuffle=seed)
            structures(root / f"p{i}" / "rs.dcm", of, ["GTV", "Node"])
        write_manifest(scan(root), root / "manifest.csv")
        written.append((root / "manifest.csv").read_bytes())
    assert written[0] == written[1]


def test_the_order_in_which_the_disk_lists_files_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for i in range(3):
        of = series(tmp_path / f"p{i}" / "ct", f"P{i}", i)
        for name in ("a.dcm", "b.dcm"):
            structures(tmp_path / f"p{i}" / name, of, ["GTV", "Empty"], frame_uid="1.2.3")
    first = scan(tmp_path)
    walk = os.walk

    def backwards(*args: object, **options: object) -> Iterator[tuple[str, list[str], list[str]]]:
        for folder, folders, names in walk(*args, **options):
            folders.sort(reverse=True)
            yield folder, folders, sorted(names, reverse=True)

    monkeypatch.setattr(os, "walk", backwards)
    assert scan(tmp_path) == first
    assert len(first.rows) == 12


# ------------------------------------------------------------------------------------------- real data


@real
def test_sts_gives_one_row_per_case(tmp_path: Path) -> None:
    result = scan(DATA / "sts")
    cases = ("STS_003", "STS_019", "STS_025")
    assert cells(result, "patient_id", "image", "mask", "roi", "series_uid", "lesion_id") == [
        (case, str(DATA / "sts" / case / "image"), str(DATA / "sts" / case / "mask" / "RS.dcm"), "GTV_Mass_CT", "", "1")
        for case in cases
    ]
    assert all(noted(result, f"{case}/mask/RS.dcm: no image that the contours refer to is here") for case in cases)
    write_manifest(result, tmp_path / "sts.csv")
    assert [row.patient_id for row in read_manifest(labelled(tmp_path / "sts.csv")).rows] == list(cases)


@real
def test_lidc_gives_the_lesions_whose_slices_are_there(tmp_path: Path) -> None:
    result = scan(DATA / "lidc")
    assert cells(result, "patient_id", "roi", "readers", "malignancy", "aux_spiculation", "aux_lobulation") == [
        ("LIDC-IDRI-0001", "1", "4", "5", "5", "3"),
        ("LIDC-IDRI-0003", "2", "4", "5", "3", "2"),
    ]
    assert all(noted(result, f"left out: LIDC-IDRI-0003/072.xml: lesion {n}: ", "slices missing") for n in (1, 3, 4))
    assert noted(result, "LIDC-IDRI-0001/069.xml: 9 marks of nodules < 3 mm")
    assert sum("not here" in note for note in result.notes) == 25  # xml_variety: 3 CXR, 1 without outlines
    assert sum("chest radiograph" in note for note in result.notes) == 3
    write_manifest(result, tmp_path / "lidc.csv")
    aux = dict(read_manifest(labelled(tmp_path / "lidc.csv")).rows[0].aux)
    assert (aux["internalstructure"], aux["texture"], len(aux)) == (1, 5, 8)


@real
def test_small_rtstructs_and_segmentations() -> None:
    small = scan(DATA / "rt_small")
    assert {(Path(mask).name, roi) for mask, roi in cells(small, "mask", "roi")} == {
        ("rt.dcm", "ROI-1"),
    }
    for kind in ("invalid", "non_existent"):
        name = f"left out: rtutils_mock/{kind}_reference_rt.dcm"
        assert noted(small, name, "5 mm from the nearest slice", "(4 ROIs)")
    assert noted(small, "rt.dcm: its frame of reference is not the image's")
    assert noted(small, "dicompyler: a single slice has no slice spacing", "(9 ROIs)")
    assert noted(small, "ROI 'Areola' has no contours")
    segments = [roi for (roi,) in cells(scan(DATA / "seg"), "roi")]
    assert segments == ["Liver", "GREEN", "ORANGE", "PURPLE", "LIGHT_BLUE", "DARK_BLUE"]
