import hashlib
import json
import math
import os
import random
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ctpatch.errors import InputError, Problems
from ctpatch.manifest import COLUMNS, PROBLEMS_MAX, Row, checks, class_notes, manifest_digest, read_manifest

GOOD = {
    "patient_id": ["007", "8", "9"],
    "image": ["ct", "ct", "ct"],
    "mask": ["a.dcm", "b.dcm", "c.dcm"],
    "label": ["T3", "T4", "T3"],
}
WITH_SPLIT = GOOD | {"split": ["train", "val", "test"]}


@pytest.fixture
def folder(tmp_path):
    return make_folder(tmp_path)


def make_folder(path):
    (path / "ct").mkdir()
    (path / "ct" / "1.dcm").write_bytes(b"x")
    for name in ("a.dcm", "b.dcm", "c.dcm"):
        (path / name).write_bytes(b"x")
    return path


def text_of(columns, delimiter=","):
    def cell(text):
        return '"' + text.replace('"', '""') + '"' if set(text) & set(delimiter + '"\n\r') else text

    lines = [list(columns), *zip(*columns.values(), strict=True)]
    return "".join(delimiter.join(map(cell, line)) + "\n" for line in lines)


def same_files(n):
    ids = [str(i) for i in range(n)]
    return {"patient_id": ids, "image": ["ct"] * n, "mask": ["a.dcm"] * n, "roi": ids, "label": ["T3"] * n}


def write(folder, content):
    path = folder / "m.csv"
    content = text_of(content) if isinstance(content, dict) else content
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def read(folder, content):
    return read_manifest(write(folder, content))


def refusals(folder, content):
    """The problems of a manifest that is refused, as (row, patient, line of text)."""
    with pytest.raises(InputError) as caught:
        read(folder, content)
    error = caught.value
    assert error.exit_status == 2
    problems = error.problems if isinstance(error, Problems) else (error,)
    assert str(error).count("\n") == len(problems) - 1
    for problem in problems:
        assert problem.found
        assert problem.do
        assert str(problem).isprintable()
        assert os.fspath(folder) not in str(problem)
    return [(p.row, p.patient, str(p)) for p in problems]


def only_refusal(folder, content, row, patient, part):
    found = refusals(folder, content)
    assert len(found) == 1, found
    assert found[0][:2] == (row, patient)
    assert part in found[0][2]


# -- What is read -------------------------------------------------------------------------------------------------


def test_everything_a_row_can_say(folder):
    columns = {name: [""] for name in COLUMNS} | {
        "patient_id": [" 007 "],
        "image": ["ct"],
        "mask": ["a.dcm"],
        "roi": ['GTV, "left"'],
        "series_uid": ["1.2.3"],
        "label": ["T3 "],
        "split": ["Test"],
        "center": ["-12.5  40 1e2"],
        "accept": ["gap; Overlap=XOR,frame"],
        "aux_lobulation": ["2.0"],
    }
    manifest = read(folder, columns)
    (row,) = manifest.rows
    expected = Row(
        line=2,
        patient_id="007",
        lesion_id="1",
        image_text="ct",
        mask_text="a.dcm",
        roi='GTV, "left"',
        series_uid="1.2.3",
        label="T3",
        split="test",
        center=(-12.5, 40.0, 100.0),
        accept=frozenset({"gap", "overlap=xor", "frame"}),
        aux=(("lobulation", 2.0),),
        root=folder,
    )
    assert row == expected
    assert (row.image, row.mask) == (folder / "ct", folder / "a.dcm")
    assert manifest.aux_levels == {"lobulation": {2: "2"}}
    assert manifest.label_classes == ("T3",)
    assert manifest.has_split


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_delimiters_encodings_and_line_ends(folder, delimiter, encoding, newline):
    columns = WITH_SPLIT | {"aux_édge": ["ja", "", "nein"]}
    text = text_of(columns, delimiter).replace("\n", newline)
    manifest = read(folder, text.encode(encoding))
    assert [row.patient_id for row in manifest.rows] == ["007", "8", "9"]
    assert [row.line for row in manifest.rows] == [2, 3, 4]
    assert manifest.aux_levels == {"édge": {0: "ja", 1: "nein"}}


def test_the_delimiter_is_sniffed_from_the_header_only(folder):
    manifest = read(folder, "patient_id,image,mask,label\n1,ct,a.dcm,x;y;z;w\n")
    assert manifest.label_classes == ("x;y;z;w",)


def test_column_names_in_any_case_and_pyradiomics_names(folder):
    manifest = read(folder, "Patient_ID,Image,Mask,LABEL\n1,ct,a.dcm,0\n")
    assert manifest.rows[0].mask == folder / "a.dcm"


def test_rows_are_sorted_as_text_and_blank_lines_keep_the_count(folder):
    text = "patient_id,lesion_id,image,mask,label\n9,1,ct,a.dcm,x\n\n,,,,\n10,2,ct,b.dcm,y\n10,1,ct,c.dcm,y\n"
    rows = read(folder, text).rows
    assert [(row.patient_id, row.lesion_id, row.line) for row in rows] == [
        ("10", "1", 6),
        ("10", "2", 5),
        ("9", "1", 2),
    ]


def test_paths_are_relative_to_the_manifest_not_to_the_process(folder, monkeypatch):
    path = write(folder, GOOD)
    monkeypatch.chdir(folder.parent)
    manifest = read_manifest(os.path.relpath(path))
    monkeypatch.chdir("/")
    assert all(row.image.exists() and row.mask.exists() for row in manifest.rows)


def test_absolute_paths_spaces_and_other_scripts(folder):
    (folder / "Müller 影像").mkdir()
    (folder / "Müller 影像" / "x").write_bytes(b"x")
    columns = GOOD | {"image": ["Müller 影像", str(folder / "ct"), "ct"]}
    images = [row.image for row in read(folder, columns).rows]
    assert images == [folder / "Müller 影像", folder / "ct", folder / "ct"]


def test_formula_cells_are_text(folder):
    manifest = read(folder, GOOD | {"patient_id": ["=1+1", "@x", "+3"], "label": ["-1", "+1", "-1"]})
    assert [row.patient_id for row in manifest.rows] == ["+3", "=1+1", "@x"]
    assert manifest.label_classes == ("+1", "-1")


def test_a_decomposed_id_is_composed(folder):
    rows = read(folder, GOOD | {"patient_id": ["Jose\u0301", "b", "c"]}).rows
    assert {row.patient_id for row in rows} == {"Jos\xe9", "b", "c"}


def test_centers_stand_in_for_masks_of_val_and_test_rows(folder):
    rows = read(folder, WITH_SPLIT | {"mask": ["a.dcm", "", ""], "center": ["", "1 2 3", "1 2 4"]}).rows
    assert [row.center for row in rows] == [None, (1, 2, 3), (1, 2, 4)]
    assert [row.mask is None for row in rows] == [False, True, True]


def test_test_rows_may_have_no_label(folder):
    manifest = read(folder, WITH_SPLIT | {"label": ["T3", "T4", ""]})
    assert manifest.label_classes == ("T3", "T4")
    assert manifest.notes[-1] == "test: 1 patients, 1 lesions (no label 1)"


def test_only_test_rows_need_no_label_column(folder):
    rows = read(folder, "patient_id,image,split,mask\n1,ct,test,a.dcm\n").rows
    assert rows[0].label == ""


def test_lesions_that_differ_in_one_thing_are_different(folder):
    head = "patient_id,lesion_id,image,mask,roi,series_uid,label,split,center\n"
    lines = [
        "1,1,ct,a.dcm,A,1.2,x,test,",
        "1,2,ct,a.dcm,B,1.2,x,test,",
        "1,3,ct,a.dcm,A,1.3,x,test,",
        "1,4,ct,b.dcm,A,1.2,x,test,",
        "1,5,ct,a.dcm,A,1.2,x,test,1 2 3",
    ]
    assert len(read(folder, head + "\n".join(lines)).rows) == 5


# -- Characteristics ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cells", "values", "levels"),
    [
        (["1", "3", "2"], [1, 3, 2], {1: "1", 2: "2", 3: "3"}),
        (["2.0", "", "1.0"], [2, None, 1], {1: "1", 2: "2"}),
        (["2", "2.0", "-1"], [2, 2, -1], {-1: "-1", 2: "2"}),
        (["yes", "no", ""], [1, 0, None], {0: "no", 1: "yes"}),
        (["b", "b", "b"], [0, 0, 0], {0: "b"}),
        (["", "", ""], [None] * 3, {}),
        (["None", "4", "NaN"], [None, 4, None], {4: "4"}),
    ],
)
def test_characteristics(folder, cells, values, levels):
    manifest = read(folder, GOOD | {"aux_x": cells, "AUX_y": ["1", "1", "1"]})
    got = [None if math.isnan(v) else v for row in manifest.rows for name, v in row.aux if name == "x"]
    assert got == values
    assert manifest.aux_levels == {"x": levels, "y": {1: "1"}}
    assert list(manifest.aux_levels["x"]) == sorted(levels)
    told = any("aux_x" in note and "'None'" in note and "2 cells" in note for note in manifest.notes)
    assert told == ("None" in cells)


@pytest.mark.parametrize(
    ("cells", "row"),
    [
        (["1.5", "2", "3"], 2),
        (["1", "x", ""], 3),
        (["a", "b", "c"], 2),
        (["Yes", "yes", ""], 2),
        (["1", "2", "inf"], 4),
        (["1", "1e3", "2"], 3),
        (["1,5", "2,5", ""], 2),
        (["1", "2-Mar", ""], 3),
        (["1", "9999999", ""], 3),
        (["1", "9" * 4000, ""], 3),
    ],
)
def test_characteristics_that_are_none(folder, cells, row):
    only_refusal(folder, GOOD | {"aux_x": cells}, row, GOOD["patient_id"][row - 2], "aux_x")


def test_at_most_32_levels(folder):
    def columns(n):
        return same_files(n) | {"aux_x": [str(i) for i in range(n)]}

    assert len(read(folder, columns(32)).aux_levels["x"]) == 32
    only_refusal(folder, columns(33), 2, "0", "32 levels at most")


# -- What is told -------------------------------------------------------------------------------------------------


def test_notes(folder):
    columns = WITH_SPLIT | {"patient_id": ["1", "2", "3"], "age": ["5", "6", "7"], "Comment": ["", "", ""]}
    assert read(folder, columns).notes == (
        "ignored columns: 'age', 'Comment'",
        "train: 1 patients, 1 lesions (T3 1); one class only",
        "val: 1 patients, 1 lesions (T4 1); one class only",
        "test: 1 patients, 1 lesions (T3 1); one class only",
    )


def test_class_notes_name_absent_classes_and_empty_splits():
    rows = [Row(i, str(i), "1", "ct", label=label, split="train") for i, label in enumerate("aab")]
    assert class_notes(rows, ("a", "b", "c")) == (
        "train: 3 patients, 3 lesions (a 2, b 1); none of class 'c'",
        "val: 0 patients, 0 lesions",
        "test: 0 patients, 0 lesions",
    )


def test_a_blank_split_column_is_none(folder):
    manifest = read(folder, GOOD | {"split": ["", " ", ""]})
    assert not manifest.has_split
    assert "split column is blank" in manifest.notes[0]
    assert manifest.notes[1] == "all rows: 3 patients, 3 lesions (T3 2, T4 1)"


def test_a_column_beside_the_known_one_is_ignored(folder):
    assert "'labels', 'mask2'" in read(folder, GOOD | {"labels": ["", "", ""], "mask2": ["", "", ""]}).notes[0]


# -- What is refused ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "row", "patient", "part"),
    [
        ({"patient_id": ["1", "", "3"]}, 3, "", "patient_id is blank"),
        ({"patient_id": ["1", "1.2E+11", "3"]}, 3, "", "a long number that a spreadsheet has shortened"),
        ({"patient_id": ["1", "1e+11", "3"]}, 3, "", "a long number that a spreadsheet has shortened"),
        ({"patient_id": ["1", "nan", "3"]}, 3, "", "patient_id is 'nan'"),
        ({"image": ["ct", "", "ct"]}, 3, "8", "image is blank"),
        ({"image": ["ct", "no/such", "no/such"]}, 3, "8", "no/such: image does not exist (used by 2 rows)"),
        ({"image": ["ct", "a.dcm/x", "ct"]}, 3, "8", "does not exist"),
        ({"image": ["ct", "nothing", "ct"]}, 3, "8", "image is an empty folder"),
        ({"image": ["ct", "x" * 4000, "ct"]}, 3, "8", "image cannot be read (File name too long)"),
        ({"image": ["ct", "a\\b", "ct"]}, 3, "8", "write / between folders"),
        ({"mask": ["a.dcm", "zero.dcm", "c.dcm"]}, 3, "8", "zero.dcm: mask is an empty file (0 bytes)"),
        ({"mask": ["a.dcm", "ct", "c.dcm"]}, 3, "8", "mask is a folder"),
        ({"mask": ["a.dcm", "pipe", "c.dcm"]}, 3, "8", "mask is not a regular file"),
        ({"mask": ["a.dcm", "", "c.dcm"]}, 3, "8", "mask is blank"),
        ({"mask": ["a.dcm", "b.dcm", "a.dcm"]}, 4, "9", "are the same as in row 2"),
        ({"label": ["T3", "", "T4"]}, 3, "8", "label is blank"),
        ({"label": ["T3", "n/a", "T4"]}, 3, "8", "label 'n/a' means no class"),
        ({"label": ["T3", "None", "T4"]}, 3, "8", "label 'None' means no class"),
        ({"label": ["T3", "T3", "t3"]}, 4, "9", "'T3' (2 rows), 't3' (1 rows)"),
        ({"label": ["1", "1", "1.0"]}, 4, "9", "'1' (2 rows), '1.0' (1 rows)"),
        ({"label": ["T3", "T3", "\uff343"]}, 4, "9", "look like one class"),
        ({"label": ["1", "2-Mar", "1"]}, 3, "8", "label '2-Mar' is a date"),
        ({"label": ["1", "Mar-02", "1"]}, 3, "8", "is a date"),
        ({"label": ["1", "2024-03-02", "1"]}, 3, "8", "is a date"),
        ({"label": ["1", "02/03/2024", "1"]}, 3, "8", "is a date"),
        ({"center": ["", "1 2 3", ""]}, 3, "8", "center is given in a row of a manifest without splits"),
        ({"accept": ["gap", "gaps", ""]}, 3, "8", "unknown word 'gaps'"),
        ({"accept": ["overlap=xor", "overlap", ""]}, 3, "8", "unknown word 'overlap'"),
        ({"accept": ["", "overlap=xor overlap=union", ""]}, 3, "8", "both"),
        ({"note": ["", "two\nlines", ""]}, 3, "8", "line break or control character (U+000A)"),
        ({"label": ["T3", "T\x004", "T3"]}, 3, "8", "(U+0000)"),
        ({"label": ["T3", "T4" * 3000, "T3"]}, 3, "8", "holds 6000 characters"),
        (
            {"patient_id": ["7", "x", "x"], "lesion_id": ["1", "1", "1"]},
            4,
            "x",
            "lesion_id '1' of this patient is also in",
        ),
        ({"patient_id": ["P1", "8", "p1"]}, 4, "p1", "'P1' (row 2) and 'p1' look like one patient"),
        ({"patient_id": ["007", "8", "7"]}, 4, "7", "look like one patient"),
        ({"patient_id": ["LIDC-0001", "8", "lidc-1"]}, 4, "lidc-1", "look like one patient"),
        ({"patient_id": ["A\u200b1", "8", "A1"]}, 4, "A1", r"'A\u200b1' (row 2) and 'A1'"),
        ({"patient_id": ["é", "8", "e\u0301"], "lesion_id": list("123")}, 4, "é", r"'\xe9' (row 2) and 'e\u0301'"),
    ],
)
def test_one_refusal(folder, change, row, patient, part):
    (folder / "zero.dcm").write_bytes(b"")
    (folder / "nothing").mkdir()
    os.mkfifo(folder / "pipe")
    only_refusal(folder, GOOD | change, row, patient, part)


@pytest.mark.parametrize(
    ("change", "row", "patient", "part"),
    [
        ({"split": ["train", "validation", "test"]}, 3, "8", "split 'validation' is not known"),
        ({"split": ["train", "", "test"]}, 3, "8", "split is blank"),
        ({"patient_id": ["7", "8", "7"], "lesion_id": ["1", "1", "2"]}, 4, "7", "in train (row 2) and in test (row 4)"),
        ({"mask": ["", "b.dcm", "c.dcm"]}, 2, "007", "mask is blank in a train row"),
        ({"mask": ["a.dcm", "", "c.dcm"]}, 3, "8", "a val row has neither mask nor center"),
        ({"label": ["T3", "", "T4"]}, 3, "8", "label is blank"),
        ({"label": ["T3", "T4", "NA"]}, 4, "9", "or leave the cell blank"),
        ({"center": ["1 2 3", "", ""]}, 2, "007", "center is given in a train row"),
        ({"center": ["", "1 2", ""]}, 3, "8", "center '1 2' is not three numbers"),
        ({"center": ["", "1,5 2 3", ""]}, 3, "8", "is not three numbers"),
        ({"center": ["", "1 2 nan", ""]}, 3, "8", "is not three numbers"),
        ({"center": ["", "1 2 1e999", ""]}, 3, "8", "is not three numbers"),
        ({"center": ["", "1 2 3 4", ""]}, 3, "8", "is not three numbers"),
        ({"center": ["", "1 2 ³", ""]}, 3, "8", "is not three numbers"),
    ],
)
def test_one_refusal_with_splits(folder, change, row, patient, part):
    only_refusal(folder, WITH_SPLIT | change, row, patient, part)


def test_a_mask_without_permission(folder, monkeypatch):
    def deny(file, mode="r", **options):
        if str(file).endswith("a.dcm"):
            raise PermissionError(13, "Permission denied")
        return open(file, mode, **options)

    monkeypatch.setattr(checks, "open", deny, raising=False)  # chmod would not stop a root user
    only_refusal(folder, GOOD, 2, "007", "a.dcm: mask cannot be read (Permission denied)")


@pytest.mark.parametrize(
    ("header", "part"),
    [
        ("patient_id,image,mask,lable", "column 'lable' is not known. Do: name it label"),
        ("patientid,image,mask,label", "name it patient_id"),
        ("Patient ID,image,mask,label", "name it patient_id"),
        ("patient,image,mask,label", "name it patient_id"),
        ("patient_id,image,mask,label,centre", "name it center"),
        ("patient_id,image,mask,label,center_x", "name it center"),
        ("patient_id,image,mask,label,SeriesUID", "name it series_uid"),
        ("patient_id,image,mask,label,spilt", "name it split"),
        ("patient_id,image,mask,label,aux lobulation", "name it aux_<characteristic>"),
        ("patient_id,image,mask,label,aux_", "no usable name"),
        ("patient_id,image,mask,label,aux_a/b", "no usable name"),
        ("patient_id,image,mask,label,aux_..", "no usable name"),
        ("patient_id,image,mask,label,Label", "column 'label' is there 2 times"),
        ("patient_id,image,mask,label,x,x", "column 'x' is there 2 times"),
        ("patient_id,image", "needed columns are missing: mask, label (found 'patient_id', 'image')"),
        ("a|b", "needed columns are missing: patient_id, image, mask, label (found 'a|b')"),
        ("sep=;", "first line is a spreadsheet's 'sep=;'"),
        ("", "header line is blank"),
        ("p\0atient_id,image", "NUL"),
        ("patient_id,image,mask,label," + "x" * 70_000, "has no end"),
    ],
)
def test_headers_that_are_refused(folder, header, part):
    only_refusal(folder, header + "\n1,ct,a.dcm,T3\n", 1, "", part)


def test_all_header_problems_together(folder):
    assert len(refusals(folder, "patientid,Mask,mask,lable\n")) == 4


@pytest.mark.parametrize("name", ["lesion_size", "patient_sex", "age", "site", "comment", "origin", "margin"])
def test_names_that_are_no_near_misses(folder, name):
    assert read(folder, GOOD | {name: ["", "", ""]}).notes[0] == f"ignored columns: '{name}'"


def test_all_problems_together_by_line(folder):
    columns = {
        "patient_id": ["1", "1", "2", "2", "3"],
        "image": ["ct", "ct", "gone", "ct", "ct"],
        "mask": ["a.dcm", "", "b.dcm", "lost.dcm", "c.dcm"],
        "label": ["T3", "T3", "na", "t3", "T4"],
        "lesion_id": ["1", "1", "1", "2", "1"],
        "split": ["train", "test", "val", "val", "exam"],
        "center": ["", "x", "", "", ""],
        "accept": ["", "all", "", "", ""],
        "aux_a": ["1", "2", "3", "4", "five"],
    }
    found = refusals(folder, columns)
    assert [row for row, _, _ in found] == [3, 3, 3, 3, 4, 4, 5, 5, 6, 6]
    assert {patient for row, patient, _ in found if row in (4, 5)} == {"2"}


def test_ragged_rows_are_refused_with_their_line_and_patient(folder):
    text = text_of(GOOD) + "5,ct\n6,ct,a.dcm,T3,,\n"
    assert [found[:2] for found in refusals(folder, text)] == [(5, "5"), (6, "6")]


@pytest.mark.parametrize("tail", ['5,ct,"a.dcm,T3\n6,ct,b.dcm,T4\n', '5,ct,"a"b,T3\n', "5,ct,a.dcm," + "x" * 1_000_000])
def test_broken_csv_and_endless_cells(folder, tail):
    only_refusal(folder, text_of(GOOD) + tail, 5, "", "the line is not CSV")


def test_an_unclosed_quote_never_swallows_rows(folder):
    text = 'patient_id,image,mask,label,note\n1,ct,a.dcm,T3,"x\n2,ct,b.dcm,T4,y"\n3,ct,c.dcm,T3,\n'
    only_refusal(folder, text, 2, "1", "line break")


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (text_of(GOOD).encode("utf-16"), 1),
        (text_of(GOOD | {"patient_id": ["1", "Müller", "3"]}).encode("latin-1"), 3),
        (b"patient_id,image,mask,label\n" + b"1,ct,a.dcm,T3\n" * 5000 + b"\xff,ct,,\n", 5002),
    ],
)
def test_other_encodings(folder, content, line):
    only_refusal(folder, content, line, "", f"in line {line}")


def test_files_that_are_no_manifest(folder):
    assert "no rows" in refusals(folder, "patient_id,image,mask,label\n")[0][2]
    for path in (folder / "none.csv", folder):
        with pytest.raises(InputError, match="the manifest cannot be read"):
            read_manifest(path)


def test_each_path_is_looked_at_once(folder, monkeypatch):
    places = []
    real = checks._file_fault
    monkeypatch.setattr(checks, "_file_fault", lambda place, folder: places.append(place) or real(place, folder))
    read(folder, same_files(50))
    assert len(places) == 2


def test_a_flood_of_problems_is_cut(folder):
    text = "patient_id,image,mask,label\n" + "".join(f"{i},gone{i},a.dcm,T3\n" for i in range(12_000))
    found = refusals(folder, text)
    assert len(found) == PROBLEMS_MAX + 1
    assert "10000 problems or more" in found[-1][2]


# -- The digest ---------------------------------------------------------------------------------------------------


def test_digest_is_the_documented_json(folder):
    (row,) = read(folder, "patient_id,image,mask,label,aux_x,aux_a\né,./ct/,a.dcm,T3,2,\n").rows
    line = {
        "accept": [],
        "aux": {"a": None, "x": 2.0},
        "center": None,
        "image": "ct",
        "label": "T3",
        "lesion_id": "1",
        "mask": "a.dcm",
        "patient_id": "é",
        "roi": "",
        "series_uid": "",
        "split": "",
    }
    text = json.dumps(line, ensure_ascii=False, separators=(",", ":")) + "\n"
    assert manifest_digest([row]) == hashlib.sha256(text.encode()).hexdigest()


def test_digest_ignores_order_delimiter_and_place_of_the_folder(folder, tmp_path_factory):
    other = make_folder(tmp_path_factory.mktemp("moved"))
    columns = WITH_SPLIT | {"aux_x": ["1", "", "2"]}
    turned = {name: cells[::-1] for name, cells in reversed(columns.items())}
    first = manifest_digest(read(folder, columns).rows)
    assert manifest_digest(read(other, text_of(turned, ";")).rows) == first


@pytest.mark.parametrize(
    "change",
    [
        {"patient_id": "x"},
        {"lesion_id": "x"},
        {"image_text": "x"},
        {"mask_text": "x"},
        {"roi": "x"},
        {"series_uid": "x"},
        {"label": "x"},
        {"split": "val"},
        {"center": (1.0, 2.0, 3.0)},
        {"accept": frozenset({"gap"})},
        {"aux": (("x", 1.0),)},
    ],
)
def test_digest_sees_every_change(change):
    row = Row(2, "1", "1", "ct")
    assert manifest_digest([replace(row, **change)]) != manifest_digest([row])


def test_digest_takes_both_slashes_as_one():
    windows, posix = (Row(2, "1", "1", text) for text in ("a\\b", "a/b"))
    assert manifest_digest([windows]) == manifest_digest([posix])


# -- Whatever comes -----------------------------------------------------------------------------------------------

WORDS = [
    *COLUMNS,
    "aux_a",
    "aux_b",
    "lable",
    "ct",
    "a.dcm",
    "gone",
    "1",
    "01",
    "1.0",
    "T3",
    "t3",
    "NA",
    "train",
    "test",
]
WORDS += ["gap", "1 2 3", "2-Mar", '"', '""', "\ufeff", "\0", "é", "e\u0301", "\u2028", "²", "=1+1", " ", "9" * 5000]
soups = st.lists(st.one_of(st.sampled_from([*WORDS, ",", ";", "\t", "\n", "\r\n"]), st.text(max_size=4))).map("".join)
headed = st.tuples(st.sampled_from([text_of(GOOD), text_of(WITH_SPLIT), "patient_id,image,mask,label,aux_a\n"]), soups)
tables = st.lists(
    st.lists(st.sampled_from(WORDS[len(COLUMNS) :]), min_size=10, max_size=10).map(",".join), max_size=6
).map(lambda lines: ",".join(COLUMNS[:9]) + ",aux_a\n" + "\n".join(lines))


# Mostly sound: each cell is drawn from what its column may hold.
SOUND = {
    "patient_id": ["1", "2", "3", "4"],
    "lesion_id": ["", "1", "2", "3"],
    "image": ["ct"],
    "mask": ["a.dcm", "b.dcm", "c.dcm"],
    "roi": ["x", "y", "z", "1", "2"],
    "label": ["T3", "T4"],
    "accept": ["", "gap", "gap frame"],
    "aux_a": ["", "1", "2.0", "NA"],
}
sound_rows = st.lists(st.tuples(*map(st.sampled_from, SOUND.values())).map(",".join), min_size=1, max_size=4)
sound = sound_rows.map(lambda lines: ",".join(SOUND) + "\n" + "\n".join(lines))


@pytest.fixture(scope="module")
def shared_folder(tmp_path_factory):
    return make_folder(tmp_path_factory.mktemp("soup"))


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.one_of(soups, headed.map("".join), tables, sound).map(str.encode) | st.binary())
def test_soup_is_read_or_refused_and_nothing_else(shared_folder, content):
    try:
        manifest = read(shared_folder, content)
    except InputError:
        return
    rows = manifest.rows
    assert rows
    assert [(r.patient_id, r.lesion_id) for r in rows] == sorted({(r.patient_id, r.lesion_id) for r in rows})
    assert len({(r.patient_id, r.split) for r in rows}) == len({r.patient_id for r in rows})
    assert all(r.image.exists() and (r.mask is None or r.mask.exists()) for r in rows)
    assert all(note.isprintable() for note in manifest.notes)
    assert len(manifest_digest(rows)) == 64


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 9), st.sampled_from(["", "0", "1", "2.0"])), min_size=1, max_size=20),
    st.randoms(),
)
def test_row_order_changes_lines_only(shared_folder, pairs, rng):
    cells = [f"P{p},{i},ct,a.dcm,{i},T{p % 2},{aux}\n" for i, (p, aux) in enumerate(pairs)]
    shuffled = random.Random(rng.random()).sample(cells, len(cells))
    head = "patient_id,lesion_id,image,mask,roi,label,aux_x\n"
    one, two = (read(shared_folder, head + "".join(lines)) for lines in (cells, shuffled))
    assert manifest_digest(one.rows) == manifest_digest(two.rows)
    assert (one.notes, one.aux_levels, one.label_classes) == (two.notes, two.aux_levels, two.label_classes)
