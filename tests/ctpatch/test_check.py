import cohort
import numpy as np
import pydicom
import pytest
import synthetic

from ctpatch.build.check import check_manifest, dice
from ctpatch.build.run import BuildOptions, build
from ctpatch.contours import OTHER_PATIENT
from ctpatch.contours.roi import VoxelROI
from ctpatch.errors import InputError, Problems
from ctpatch.recipe import Recipe

RECIPE = Recipe(patches=2, augment=0, rgb=False)


def test_a_good_manifest_has_no_problems(tmp_path):
    seen = []
    manifest = cohort.write_cohort(tmp_path, lesions=2)
    result = check_manifest(manifest, RECIPE, progress=lambda *word: seen.append(word))
    assert (result.lesions, result.problems) == (8, ())
    assert [done for done, total, word in seen] == list(range(1, 9))
    assert seen[0] == (1, 8, "patient=P00 lesion=1")
    assert any(note.startswith("train: 2 patients, 4 lesions") for note in result.notes)
    assert "patient=P00 row=2: slice spacing from 2 to 2.5 mm; each slice is used where it lies" in result.notes
    assert len(result.notes) == len(set(result.notes))
    assert list(tmp_path.glob("*.h5*")) == []


@pytest.mark.parametrize("label", ["benign", ""])
def test_a_fold_that_is_none_is_refused_whatever_else_is_wrong(tmp_path, label):
    manifest = cohort.write_cohort(tmp_path, columns=lambda i: {"split": "", "label": label or "benign" * (i > 0)})
    with pytest.raises(InputError, match="1 <= i <= k"):
        check_manifest(manifest, RECIPE, fold=(0, 3))


def test_a_path_may_be_text(tmp_path):
    manifest = spoil(cohort.write_cohort(tmp_path))
    told = [[str(p) for p in check_manifest(path, RECIPE).problems] for path in (manifest, str(manifest))]
    assert told[0] == told[1] != []


def test_no_pixel_is_decoded(tmp_path, monkeypatch):
    import ctpatch.images.series as series

    manifest = cohort.write_cohort(tmp_path)
    names = [name for name, value in vars(series).items() if isinstance(value, type) and hasattr(value, "read_hu")]
    assert names
    for name in names:
        monkeypatch.setattr(getattr(series, name), "read_hu", lambda *_: pytest.fail("pixels were read"))
    assert check_manifest(manifest, RECIPE).problems == ()


def spoil(manifest):
    """A ROI that is not there, a mask that is no mask, a series that ends too soon."""
    text = manifest.read_text().replace("P00/rtstruct.dcm,lesion 1", "P00/rtstruct.dcm,tumour")
    manifest.write_text(text.replace("P01/rtstruct.dcm", "P01/ct/0000.dcm"))
    for name in ("0003.dcm", "0004.dcm", "0005.dcm"):
        (manifest.parent / "P02/ct" / name).unlink()
    return manifest


def test_every_problem_at_once_and_the_same_as_a_build_s(tmp_path):
    manifest = spoil(cohort.write_cohort(tmp_path / "in"))
    problems = check_manifest(manifest, RECIPE).problems
    lines = [str(problem) for problem in problems]
    assert lines[0].startswith("patient=P00 row=2 P00/rtstruct.dcm: ")
    assert lines[1].startswith("patient=P01 row=3 P01/ct/0000.dcm: the mask is DICOM of modality CT")
    assert lines[2].startswith("patient=P02 row=4 P02/")
    assert all("\n" not in line and " Do: " in line and str(tmp_path) not in line for line in lines)
    skipped = build(manifest, tmp_path / "o.h5", BuildOptions(RECIPE, on_error="skip")).skipped
    assert [str(problem) for problem in skipped] == lines


def test_rows_beside_wrong_ones_are_checked_to_the_end(tmp_path):
    manifest = spoil(cohort.write_cohort(tmp_path, columns=lambda i: {"label": ""} if i < 2 else {}))
    result = check_manifest(manifest, RECIPE)
    assert [problem.row for problem in result.problems] == [2, 3, 4]
    assert [problem.found for problem in result.problems[:2]] == ["label is blank"] * 2
    assert "slice" in result.problems[2].found
    assert result.lesions == 4
    assert not any("lesions" in note for note in result.notes)  # nobody can count classes yet


def test_a_table_that_is_none_is_refused(tmp_path):
    manifest = tmp_path / "m.csv"
    manifest.write_text("patient,picture\nP1,ct\n")
    with pytest.raises(Problems, match="needed columns are missing"):
        check_manifest(manifest, RECIPE)


def test_a_fold_that_needs_the_rows_left_out_is_no_problem_yet(tmp_path):
    columns = lambda i: {"split": "", "label": "" if i < 2 else "a"}
    manifest = cohort.write_cohort(tmp_path, columns=columns)
    result = check_manifest(manifest, RECIPE, fold=(1, 4))
    assert [problem.found for problem in result.problems] == ["label is blank"] * 2


def test_another_patient_s_contours_are_noted(tmp_path):
    manifest = cohort.write_cohort(tmp_path)
    path = tmp_path / "P01" / "rtstruct.dcm"
    dataset = pydicom.dcmread(path)
    dataset.PatientID = "P77"
    dataset.save_as(path)
    result = check_manifest(manifest, RECIPE)
    assert result.problems == ()
    assert [note for note in result.notes if "PatientID" in note] == [f"patient=P01 row=3: {OTHER_PATIENT}"]
    dataset.PatientID = ""
    dataset.save_as(path)
    assert not any("PatientID" in note for note in check_manifest(manifest, RECIPE).notes)


def test_fold_of_a_manifest_with_splits(tmp_path):
    with pytest.raises(InputError, match="has its own splits"):
        check_manifest(cohort.write_cohort(tmp_path), RECIPE, fold=(1, 2))


def test_copies_of_a_patient(tmp_path):
    manifest = cohort.write_cohort(tmp_path, ("train", "val"), lesions=2)
    header, first, _, _, last = manifest.read_text().splitlines()
    manifest.write_text("\n".join([header, first, last.replace("P01/", "P00/")]))
    (problem,) = check_manifest(manifest, RECIPE).problems
    assert "row=3" in str(problem)
    assert "the same series as patient=P00 row=2" in str(problem)


def test_the_same_lesion_twice_is_noted(tmp_path):
    manifest = cohort.write_cohort(tmp_path, ("train", "test"))
    folder = tmp_path / "P00"
    series = synthetic.write_series(
        folder / "ct",
        synthetic.texture_hu(cohort.SHAPE, seed=0),
        spacing=cohort.SPACING,
        positions=cohort.POSITIONS,
        patient_id="P00",
    )
    boxes = [synthetic.rectangle(series, z, (5.25, 3.25), (14.75, 6.75)) for z in (2, 3, 4)]
    synthetic.write_rtstruct(folder / "rtstruct.dcm", {"lesion 1": boxes, "GTV": boxes}, series)
    lines = manifest.read_text().splitlines()
    twice = lines[1].replace("P00,1", "P00,2").replace("lesion 1", "GTV")
    manifest.write_text("\n".join([*lines, twice]))
    result = check_manifest(manifest, RECIPE)
    assert result.problems == ()
    assert "patient=P00 row=4: Dice 1.00 with the lesion of row 2: the same lesion twice?" in result.notes


@pytest.mark.parametrize("seed", range(5))
def test_dice_is_that_of_sets(seed):
    rng = np.random.default_rng(seed)
    rois = [
        VoxelROI("r", tuple(int(v) for v in rng.integers(0, 4, 3)), rng.random(tuple(rng.integers(1, 5, 3))) < 0.7)
        for _ in range(2)
    ]
    a, b = ({tuple(at) for at in np.argwhere(roi.voxels) + roi.corner} for roi in rois)
    if a and b:
        assert dice(*rois) == pytest.approx(2 * len(a & b) / (len(a) + len(b)))


def test_dice_of_boxes_apart():
    box = np.ones((2, 2, 2), bool)
    assert dice(VoxelROI("a", (0, 0, 0), box), VoxelROI("b", (2, 0, 0), box)) == 0
    assert dice(VoxelROI("a", (0, 0, 0), box), VoxelROI("b", (0, 0, 0), box)) == 1
