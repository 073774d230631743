"""External validation: the figures are those of `evaluate`, on lesions that took no part in the training."""

import json
import shutil

import pandas as pd
import pytest
import torch
from sklearn.metrics import roc_auc_score
from toystore import write_store

from ctpatch import InputError
from mtltrain import Settings
from mtltrain.cli import main
from mtltrain.clinical import youden
from mtltrain.compare import load_metrics
from mtltrain.external import validate
from mtltrain.files import read_csv
from mtltrain.folder import fit_folder, predict_folder

pytestmark = pytest.mark.usefixtures("narrow")
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A store and the folder of the RI pair trained on it."""
    folder = tmp_path_factory.mktemp("finished")
    path = write_store(folder / "s.h5", {"train": 16, "val": 12, "test": 16})
    fit_folder(
        path, folder / "out", ["mtl-ri", "stl-ri"], [0, 1], Settings("shufflenet_v2_x0_5", epochs=1, batch_size=12)
    )
    return path, folder / "out"


def elsewhere(table, hospital="H2"):
    """The lesions as another hospital's, in several splits."""
    return table.assign(patient_id=hospital + "-" + table["patient_id"])


def test_own_test_lesions_give_the_own_figures(finished):
    path, out = finished
    found, own = validate(out, predict_folder(out, path, ["test"], CPU)), load_metrics(out)
    for name in ("classes", "positive", "methods", "test", "runs", "tests", "decision_curve"):
        assert found[name] == own[name]


def test_every_labelled_lesion_counts_and_the_threshold_stays(finished):
    path, out = finished
    table = elsewhere(predict_folder(out, path, ["train", "val", "test"], CPU))
    found = validate(out, table)
    assert found["test"]["lesions"] == 44
    mean = table[table["run"] == "mtl-ri"].groupby("patient_id").agg({"p_malignant": "mean", "label": "first"})
    value = roc_auc_score(mean["label"] == "malignant", mean["p_malignant"])
    assert found["runs"]["mtl-ri"]["metrics"]["auc"]["value"] == pytest.approx(value)
    val = read_csv(out / "predictions.csv").astype({"p_malignant": float})
    val = val[(val["split"] == "val") & (val["run"] == "mtl-ri")].groupby(["patient_id", "label"])["p_malignant"].mean()
    chosen = youden(val, val.index.get_level_values("label") == "malignant")
    assert found["runs"]["mtl-ri"]["operating_point"]["malignant"]["thresholds"] == [pytest.approx(chosen)]


@pytest.mark.parametrize("split", ["train", "val"])
def test_patients_who_took_part_are_refused(finished, split):
    path, out = finished
    with pytest.raises(InputError, match="patients of the store took part in the training, as "):
        validate(out, predict_folder(out, path, ["test", split], CPU))
    written = predict_folder(out, path, [split], CPU)
    with pytest.raises(InputError, match="took part in the training"):
        validate(out, written.assign(patient_id=written["patient_id"].str.upper() + " "))


def test_without_labels_there_is_nothing_to_validate(finished):
    path, out = finished
    with pytest.raises(InputError, match="no lesion that was predicted has a label"):
        validate(out, elsewhere(predict_folder(out, path, ["test"], CPU)).assign(label=""))


def test_a_folder_that_does_not_say_whom_it_trained_on(finished, tmp_path):
    path, out = finished
    old = shutil.copytree(out, tmp_path / "old")
    config = json.loads((old / "config.json").read_text())
    del config["training_patients"]
    (old / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match="call the same mtltrain fit again"):
        validate(old, elsewhere(predict_folder(old, path, ["test"], CPU)))


def test_command(finished, tmp_path, capsys):
    path, out = finished
    call = ["predict", str(out), str(path), "--out", str(tmp_path / "p.csv"), "--metrics", str(tmp_path / "m.json")]
    assert main([*call, "--split", "train"]) == 2
    assert "took part in the training" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []  # refused before anything is written
    assert main(call) == 0
    printed = capsys.readouterr().out
    assert "Probabilities averaged over the seeds" in printed
    assert "MTL+RI against STL+RI: " in printed
    assert json.loads((tmp_path / "m.json").read_text())["test"]["lesions"] == 16
    assert len(pd.read_csv(tmp_path / "p.csv")) == 64


@pytest.mark.parametrize("name", ["s.h5", "out/metrics.json", "out", "p.csv"])
def test_figures_take_nothings_place(finished, tmp_path, capsys, name):
    path, out = finished
    call = ["predict", str(out), str(path), "--out", str(path.parent / "p.csv"), "--metrics", str(path.parent / name)]
    before = {file: file.stat().st_mtime_ns for file in path.parent.rglob("*")}
    assert main(call) == 2
    assert "--metrics is" in capsys.readouterr().err
    assert before == {file: file.stat().st_mtime_ns for file in path.parent.rglob("*")}
