"""Folds as one test: figures of the pooled predictions by scikit-learn, and folders that do not belong together."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import asdict

import pandas as pd
import pytest
from sklearn.metrics import recall_score, roc_auc_score
from toystore import predictions

from ctpatch import InputError
from mtltrain import Settings
from mtltrain.cli import main
from mtltrain.clinical import youden
from mtltrain.compare import evaluate, load_metrics
from mtltrain.files import read_csv, write_csv
from mtltrain.pool import pool_folds


def write_fold(path, first, seed, seeds=(0, 1), per_patient=1, change=lambda config: config, **more):
    """A run folder of 24 test lesions of patients of its own, and 16 validation lesions."""
    made = {"seeds": seeds, "per_patient": per_patient, **more}
    test = predictions(lesions=24, seed=seed, **made)
    val = predictions(lesions=16, seed=seed + 50, **made).assign(split="val")
    test["patient_id"] = [f"{first}-{patient}" for patient in test["patient_id"]]
    val["patient_id"] = [f"V{patient}" for patient in val["patient_id"]]
    table = pd.concat([test, val])
    path.mkdir()
    write_csv(path / "predictions.csv", table)
    columns = ["patient_id", "lesion_id", "split", "run", "seed", "task", "level", "predicted", "majority"]
    write_csv(path / "auxiliary.csv", pd.DataFrame(columns=columns))
    (path / "metrics.json").write_text(json.dumps(evaluate(table, ["T3", "T4"])))
    config = {**asdict(Settings()), "classes": ["T3", "T4"], "store_sha256": str(seed)}
    (path / "config.json").write_text(json.dumps(change(config)))
    return path


@pytest.fixture
def folds(tmp_path):
    return [write_fold(tmp_path / f"fold{k}", first=chr(65 + k), seed=k) for k in range(3)]


def averaged(folders, run, split="test"):
    tables = [read_csv(folder / "predictions.csv").assign(fold=k) for k, folder in enumerate(folders)]
    table = pd.concat(tables)
    table = table[(table["run"] == run) & (table["split"] == split)].astype({"p_T4": float})
    return table.groupby(["fold", "patient_id", "lesion_id", "label"])["p_T4"].mean().reset_index()


def test_pooled_figures(folds):
    metrics, table = pool_folds(folds)
    assert (metrics["folds"], metrics["test"]["lesions"]) == (3, 72)
    assert sorted(table["fold"].unique()) == [1, 2, 3]
    for run, entry in metrics["runs"].items():
        mean = averaged(folds, run)
        assert entry["metrics"]["auc"]["value"] == pytest.approx(roc_auc_score(mean["label"] == "T4", mean["p_T4"]))
        each = [load_metrics(folder)["runs"][run]["metrics"]["auc"]["value"] for folder in folds]
        assert entry["over_folds"]["auc"]["values"] == each
        val = averaged(folds, run, "val")
        thresholds = [youden(part["p_T4"], part["label"] == "T4") for _, part in val.groupby("fold")]
        point = entry["operating_point"]["T4"]
        assert point["thresholds"] == pytest.approx(thresholds)
        called = mean["p_T4"] >= mean["fold"].map(dict(enumerate(point["thresholds"])))
        assert point["sensitivity"]["value"] == pytest.approx(recall_score(mean["label"] == "T4", called))
    assert metrics["tests"] == evaluate(table, ["T3", "T4"])["tests"]
    assert metrics["tests"][0]["p_auc"] is not None
    assert metrics["methods"]["auc"] == "DeLong"


def test_several_lesions_of_a_patient_are_clustered(tmp_path):
    folders = [write_fold(tmp_path / str(k), chr(65 + k), k, per_patient=2) for k in range(2)]
    metrics, _ = pool_folds(folders)
    assert (metrics["test"]["patients"], metrics["test"]["lesions"]) == (24, 48)
    assert "clustered" in metrics["methods"]["auc_test"]


def test_command(folds, tmp_path, capsys):
    assert main(["compare", *map(str, folds), "--pool", "--out", str(tmp_path / "pooled")]) == 0
    printed = capsys.readouterr().out
    for text in ("3 folds pooled", "Table 2. 72 test lesions", "MTL against STL", "the 3 folds' own figures"):
        assert text in printed
    assert load_metrics(tmp_path / "pooled")["folds"] == 3
    assert len(read_csv(tmp_path / "pooled/predictions.csv")) == 3 * 4 * 40
    assert main(["compare", str(tmp_path / "pooled"), str(folds[0])]) == 0
    assert "pooled MTL+RI" in capsys.readouterr().out
    assert main(["compare", str(folds[0]), "--out", str(tmp_path / "x")]) == 2
    assert "add --pool" in capsys.readouterr().err


def test_side_by_side_but_not_of_the_same_lesions(folds, tmp_path, capsys):
    same = shutil.copytree(folds[0], tmp_path / "same")
    for others, note in (
        ([same], None),
        ([folds[1]], "Not the same test lesions: 0 are in all of these folders, 48 in one or more."),
        ([same, folds[1], folds[2]], "Not the same test lesions: 0 are in all of these folders, 72 in one or more."),
    ):
        assert main(["compare", *map(str, (folds[0], *others))]) == 0
        printed = capsys.readouterr().out
        assert (note is None and "test lesions" not in printed) or printed.endswith(f"\n\n{note}\n")
    (same / "predictions.csv").unlink()  # as where somebody kept the numbers only
    assert main(["compare", str(folds[0]), str(same)]) == 0
    assert "test lesions" not in capsys.readouterr().out


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_reader_that_has_enough(folds, tmp_path, unbuffered):
    """As `| head -1` has: the files are there, and no disk is blamed."""
    reader, writer = os.pipe()
    os.close(reader)
    call = ["compare", *map(str, folds), "--pool", "--out", str(tmp_path / "pooled")]
    environment = os.environ | {"PYTHONUNBUFFERED": unbuffered}
    done = subprocess.run(
        [sys.executable, "-m", "mtltrain", *call], stdout=writer, stderr=subprocess.PIPE, env=environment
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (1, b"")
    assert {path.name for path in (tmp_path / "pooled").iterdir()} == {"metrics.json", "predictions.csv"}


@pytest.mark.parametrize(
    ("made", "says"),
    [
        ({"first": "a"}, r"12 patients are tested in several folders, A-000 in .*fold0 and .*other"),
        ({"first": "A"}, r"12 patients are tested in several folders, A-000 in .*fold0 and .*other"),
        ({"seeds": (0, 2)}, "made with runs and seeds = "),
        ({"runs": ["mtl-ri"]}, "made with runs and seeds = "),
        ({"change": lambda config: {**config, "lr": 0.1}}, r"made with lr = 0\.1, .*fold0 with 0\.001"),
        ({"change": lambda config: {**config, "backbone": "resnet18"}}, "made with backbone = resnet18"),
    ],
)
def test_folders_that_do_not_belong_together(tmp_path, made, says):
    one = write_fold(tmp_path / "fold0", "A", 0, per_patient=2)
    other = write_fold(tmp_path / "other", **{"first": "B", "seed": 1, "per_patient": 2, **made})
    with pytest.raises(InputError, match=says):
        pool_folds([one, other])


def test_a_fold_is_not_replaced_by_the_whole(folds, capsys):
    before = {path: path.read_bytes() for path in folds[0].iterdir()}
    assert main(["compare", *map(str, folds), "--pool", "--out", str(folds[0])]) == 2
    assert "fold0: --out is a run folder of mtltrain fit. Do: name another" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in folds[0].iterdir()} == before


def test_what_is_pooled_is_no_fold(folds, tmp_path):
    assert main(["compare", *map(str, folds), "--pool", "--out", str(tmp_path / "pooled")]) == 0
    with pytest.raises(InputError, match=r"pooled: no run folder: it has no config\.json\. Do: name folders that"):
        pool_folds([tmp_path / "pooled", folds[0]])


def test_one_folder_is_none(folds):
    with pytest.raises(InputError, match="name the run folders of all folds"):
        pool_folds(folds[:1])


def test_another_device_or_store_is_no_difference(tmp_path):
    one = write_fold(tmp_path / "a", "A", 0)
    other = write_fold(tmp_path / "b", "B", 1, change=lambda config: {**config, "device": ["cuda"]})
    assert pool_folds([one, other])[0]["folds"] == 2


def test_a_figure_that_a_fold_lacks_is_undefined(tmp_path, capsys):
    """As sensitivity is in a fold without lesions of the class."""
    one, other = write_fold(tmp_path / "a", "A", 0), write_fold(tmp_path / "b", "B", 1)
    table = read_csv(other / "predictions.csv")
    table = table[(table["label"] == "T3") | (table["split"] == "val")]
    write_csv(other / "predictions.csv", table)
    (other / "metrics.json").write_text(json.dumps(evaluate(table, ["T3", "T4"])))
    assert main(["compare", str(one), str(other), "--pool", "--out", str(tmp_path / "pooled")]) == 0
    assert "undefined ± undefined" in capsys.readouterr().out
    assert load_metrics(tmp_path / "pooled")["runs"]["mtl-ri"]["over_folds"]["sensitivity"]["mean"] is None


def of_fold(number, of=5, **recipe):
    return lambda config: {**config, "fold": [number, of], "recipe": {"spacing_mm": 0.5, "rows": [number], **recipe}}


def test_missing_folds_are_named(tmp_path, capsys):
    folders = [write_fold(tmp_path / str(k), chr(65 + k), k, change=of_fold(k + 1)) for k in range(5)]
    assert pool_folds(folders)[0]["missing_folds"] == []
    assert pool_folds(folders[1:4])[0]["missing_folds"] == [1, 5]
    assert main(["compare", *map(str, folders[1:4]), "--pool"]) == 0
    assert "Not every patient was tested: fold 1, 5 is in none of these folders." in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (of_fold(2, of=3), "made with the number of folds = 3, .* with 5"),
        (of_fold(2, spacing_mm=1.0), r"made with the store's spacing_mm = 1\.0, .* with 0\.5"),
    ],
)
def test_folds_of_stores_that_were_not_made_alike(tmp_path, change, says):
    one = write_fold(tmp_path / "a", "A", 0, change=of_fold(1))
    with pytest.raises(InputError, match=says):
        pool_folds([one, write_fold(tmp_path / "b", "B", 1, change=change)])


def test_lesions_of_one_name_and_two_labels_are_not_the_same(folds, tmp_path, capsys):
    same = shutil.copytree(folds[0], tmp_path / "same")
    table = read_csv(same / "predictions.csv")
    write_csv(same / "predictions.csv", table.assign(label=table["label"].map({"T3": "T4", "T4": "T3"})))
    assert main(["compare", str(folds[0]), str(same)]) == 0
    assert "Not the same test lesions: 0 are in all of these folders, 48 in one or more." in capsys.readouterr().out
