"""The run folder: a planted signal is found and none is made up; finished runs are left alone."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
import torchvision
from toystore import discs, write_store

from ctpatch import InputError, StoreWriter, open_store
from ctpatch.store import data_card
from mtltrain import Settings, checkpoints, fit
from mtltrain.folder import fit_folder, predict_folder
from mtltrain.tables import tables

SMALL = Settings("shufflenet_v2_x0_5", epochs=1, batch_size=12)
FILES = {"config.json", "history.csv", "predictions.csv", "auxiliary.csv", "metrics.json", "report.html"}
FILES |= {"roc.png", "calibration.png", "decision.png", "training.png", "model_card.md", "data_card.md", ".lock"}


pytestmark = pytest.mark.usefixtures("narrow")


def contents(folder):
    return {path.relative_to(folder): (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.rglob("*.*")}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A store and the folder of the RI pair trained on it."""
    folder = tmp_path_factory.mktemp("finished")
    path = write_store(folder / "s.h5")
    fit_folder(path, folder / "out", ["mtl-ri", "stl-ri"], [0], SMALL)
    return path, folder / "out"


def test_planted_signal(tmp_path):
    path = write_store(tmp_path / "s.h5", {"train": 40, "val": 16, "test": 40}, patches=3)
    settings = Settings("shufflenet_v2_x0_5", epochs=3, batch_size=12)
    metrics = fit_folder(path, tmp_path / "out", ["mtl-ri", "stl-ri"], [0], settings)
    assert all(run["metrics"]["auc"]["value"] >= 0.9 for run in metrics["runs"].values())
    assert [(row["task"], row["lesions"]) for row in metrics["auxiliary"]] == [("size", 40)]


def test_tasks_and_weights_of_ones_own(tmp_path):
    path = write_store(tmp_path / "s.h5", {"train": 40, "val": 16, "test": 40}, patches=1)
    settings = replace(SMALL, epochs=1, major_share=0.5, chosen_tasks={"noise": 0.25})
    metrics = fit_folder(path, tmp_path / "out", ["mtl-ri"], [0], settings)
    assert [row["task"] for row in metrics["auxiliary"]] == ["noise"]
    assert [(row["name"], row["kept"]) for row in metrics["selection"]] == [("noise", False), ("size", True)]
    saved = checkpoints.load_checkpoint(tmp_path / "out/mtl-ri/seed-0/best.pt")["run"]
    assert [(task["name"], task["weight"]) for task in saved["tasks"]] == [("noise", 0.25)]
    fit_folder(path, tmp_path / "out", ["mtl-ri"], [0], settings)  # the same call goes on
    with pytest.raises(InputError, match="chosen_tasks"):
        fit_folder(path, tmp_path / "out", ["mtl-ri"], [0], replace(settings, chosen_tasks={"noise": 0.3}))


def test_shuffled_labels(tmp_path):
    path = write_store(tmp_path / "s.h5", {"train": 40, "val": 16, "test": 60}, signal=False, aux=False)
    metrics = fit_folder(
        path, tmp_path / "out", ["stl-ri"], [0], Settings("shufflenet_v2_x0_5", epochs=2, batch_size=12)
    )
    auc = metrics["runs"]["stl-ri"]["metrics"]["auc"]
    assert auc["low"] <= 0.5 <= auc["high"]


def test_what_a_folder_holds(finished):
    out = finished[1]
    assert {item.name for item in out.iterdir() if item.is_file()} == FILES
    runs = {item.name for item in (out / "mtl-ri" / "seed-0").iterdir()}
    assert runs == {"best.pt", "history.csv", "predictions.csv", "auxiliary.csv", "attention.npy"}
    table = pd.read_csv(out / "predictions.csv", dtype=str)
    columns = ["run", "seed", "patient_id", "lesion_id", "split", "label", "p_benign", "p_malignant"]
    assert list(table) == columns
    assert table.groupby(["run", "split"]).size().to_dict() == {
        (r, s): 8 for r in ("mtl-ri", "stl-ri") for s in ("val", "test")
    }
    config = json.loads((out / "config.json").read_text())
    assert (config["backbone"], config["seeds"], config["store"]) == ("shufflenet_v2_x0_5", [0], "s.h5")
    assert {"torch", "python", "threads", "cpu"} < set(config["versions"][0])
    assert str(out.parent) not in (out / "config.json").read_text()


def test_flow_and_cards(finished):
    path, out = finished
    flow = json.loads((out / "metrics.json").read_text())["flow"]
    assert [(row["name"], row["patients"], row["lesions"]) for row in flow] == [
        *(("in the manifest", 28, 28), ("left out", 0, 0), ("train", 12, 12), ("val", 8, 8), ("test", 8, 8))
    ]
    with open_store(path) as store:
        assert (out / "data_card.md").read_text() == data_card(store)
        ids = set(store.lesions["patient_id"])
    text = (out / "model_card.md").read_text()
    assert "| test | 8 | 8 | 4 | 4 | 0 |" in text
    assert not [name for name in (*ids, path.name, str(out)) if name in text]


def test_again_changes_nothing(finished):
    path, out = finished
    before = contents(out)
    fit_folder(path, out, ["mtl-ri", "stl-ri"], [0], SMALL)
    assert contents(out) == before


def test_another_seed_leaves_the_finished_runs_alone(finished):
    path, out = finished
    before = contents(out)
    metrics = fit_folder(path, out, ["stl-ri"], [3], SMALL)
    after = contents(out)
    assert all(after[name] == before[name] for name in before if "seed-0" in name.parts)
    assert metrics["runs"]["stl-ri"]["seeds"] == [0, 3]
    assert json.loads((out / "config.json").read_text())["seeds"] == [0, 3]


def test_copies_of_runs_are_no_runs(finished, tmp_path):
    """As somebody made them by hand, to be safe, within the folder."""
    path, out = finished[0], shutil.copytree(finished[1], tmp_path / "out")
    names = ("predictions.csv", "metrics.json", "auxiliary.csv", "report.html")
    before = [predict_folder(out, path, ["test"], torch.device("cpu")), *((out / name).read_bytes() for name in names)]
    shutil.copytree(out / "mtl-ri", out / "mtl-ri.bak")
    for name in ("seed-0.bak", "seed-0 (copy)", "seed-00"):
        shutil.copytree(out / "mtl-ri/seed-0", out / "mtl-ri" / name)
    fit_folder(path, out, ["mtl-ri"], [0], SMALL)
    after = [predict_folder(out, path, ["test"], torch.device("cpu")), *((out / name).read_bytes() for name in names)]
    pd.testing.assert_frame_equal(before.pop(0), after.pop(0))
    assert before == after


def test_changed_settings_are_refused(finished):
    path, out = finished
    with pytest.raises(InputError, match=r"made with lr = 0.001, this call has 0.01\."):
        fit_folder(path, out, ["stl-ri"], [0], Settings("shufflenet_v2_x0_5", epochs=1, batch_size=12, lr=0.01))


@pytest.mark.parametrize("recorded", ["cuda", ["cuda"]])
def test_168_begun_on_another_device(finished, tmp_path, monkeypatch, recorded):
    """A run that a GPU began goes on without one, and config.json says so; `recorded` once was one word."""
    path, out = finished[0], tmp_path / "out"
    save = fit._Session.save

    def stop(session, saver):
        save(session, saver)
        raise KeyboardInterrupt

    monkeypatch.setattr(fit._Session, "save", stop)
    with pytest.raises(KeyboardInterrupt):
        fit_folder(path, out, ["stl-ri"], [0], replace(SMALL, epochs=2))
    monkeypatch.setattr(fit._Session, "save", save)
    state = checkpoints.load_checkpoint(out / "stl-ri/seed-0/last.pt")
    checkpoints.save_checkpoint(out / "stl-ri/seed-0/last.pt", {**state, "run": {**state["run"], "device": "cuda"}})
    config = json.loads((out / "config.json").read_text())
    (out / "config.json").write_text(json.dumps({**config, "device": recorded}))
    lines = []
    fit_folder(path, out, ["stl-ri"], [0], replace(SMALL, epochs=2), log=lines.append)
    assert any("goes on after epoch 1, begun on cuda" in line for line in lines)
    assert json.loads((out / "config.json").read_text())["device"] == ["cuda", "cpu"]
    assert checkpoints.load_checkpoint(out / "stl-ri/seed-0/best.pt")["run"]["device"] in ("cuda", "cpu")


def test_changed_store_is_refused(finished, tmp_path):
    with pytest.raises(InputError, match="made with store_sha256 = "):
        fit_folder(write_store(tmp_path / "s.h5", seed=5), finished[1], ["stl-ri"], [0], SMALL)


def test_nothing_to_learn_beside_the_label(tmp_path):
    path = write_store(tmp_path / "s.h5", aux=False)
    with pytest.raises(InputError, match="none of 0 characteristics"):
        fit_folder(path, tmp_path / "out", ["stl-ri", "mtl-ri"], [0], SMALL)
    assert not (tmp_path / "out").exists()


def test_weights_nobody_uses(store, tmp_path):
    with pytest.raises(InputError, match="no architecture starts from them"):
        fit_folder(store, tmp_path / "out", ["stl-ri"], [0], SMALL, weights=tmp_path / "w.pt")


def test_missing_weights_stop_before_anything(store, tmp_path):
    with pytest.raises(InputError, match=r"w.pt: cannot be read"):
        fit_folder(store, tmp_path / "out", ["stl-ri", "stl-tl"], [0], SMALL, weights=tmp_path / "w.pt")
    assert not (tmp_path / "out").exists()


def test_misfit_weights_stop_before_anything(store, tmp_path):
    torch.save(torchvision.models.squeezenet1_1().state_dict(), tmp_path / "w.pth")
    with pytest.raises(InputError, match=r"w\.pth: the weights lack .*name the --backbone"):
        fit_folder(store, tmp_path / "out", ["stl-ri", "mtl-tl"], [0], SMALL, weights=tmp_path / "w.pth")
    assert not (tmp_path / "out").exists()


def test_transfer_from_a_file_and_from_a_run(finished, tmp_path):
    path, out = finished
    state = torchvision.models.shufflenet_v2_x0_5().state_dict()
    torch.save(state, tmp_path / "imagenet.pth")
    for name, weights in (("a", tmp_path / "imagenet.pth"), ("b", out / "mtl-ri" / "seed-0" / "best.pt")):
        metrics = fit_folder(path, tmp_path / name, ["stl-tl"], [0], SMALL, weights=weights)
        assert list(metrics["runs"]) == ["stl-tl"]
    run = checkpoints.load_checkpoint(tmp_path / "a/stl-tl/seed-0/best.pt")["run"]
    assert run["tl_weights"].startswith("imagenet.pth sha256")


def test_weights_are_a_matter_of_the_runs_that_start_from_them(store, tmp_path):
    """Runs from random weights may come before those from a file, and after them, in one folder."""
    file, other, out = tmp_path / "imagenet.pth", tmp_path / "other.pth", tmp_path / "out"
    for path, seed in ((file, 0), (other, 1)):
        torch.manual_seed(seed)
        torch.save(torchvision.models.shufflenet_v2_x0_5().state_dict(), path)

    def told():
        return json.loads((out / "config.json").read_text(encoding="utf-8"))["tl_weights"]

    fit_folder(store, out, ["stl-ri"], [0], SMALL)
    assert told() == ""
    fit_folder(store, out, ["stl-tl"], [0], SMALL, weights=file)
    metrics = fit_folder(store, out, ["stl-ri"], [1], SMALL)
    assert set(metrics["runs"]) == {"stl-tl", "stl-ri"}
    assert told().startswith("imagenet.pth sha256")
    with pytest.raises(InputError, match=r"made with tl_weights = imagenet.pth .*, this call has other.pth"):
        fit_folder(store, out, ["stl-tl"], [1], SMALL, weights=other)


def test_classes_with_the_names_of_columns(tmp_path):
    """What a table's or a report's own words are is no class's business."""
    path = write_store(tmp_path / "s.h5", classes=("n", "second"))
    metrics = fit_folder(path, tmp_path / "out", ["mtl-ri", "stl-ri"], [0], SMALL)
    (flow,) = (table for title, table in tables(metrics).items() if title.startswith("Flow"))
    assert list(flow.columns) == ["patients", "lesions", "class n", "class second", "unlabelled"]
    assert flow.loc["train"].tolist()[1:4] == [str(metrics["flow"][2][key]) for key in list(flow.columns)[1:4]]


def test_weights_for_a_network_that_has_no_outline(store, tmp_path):
    """RegNet computes with tensors while it is built."""
    torch.save(torchvision.models.regnet_y_400mf().state_dict(), tmp_path / "w.pth")
    settings = Settings("regnet_y_400mf", epochs=1, batch_size=24)
    fit_folder(store, tmp_path / "out", ["stl-tl"], [0], settings, weights=tmp_path / "w.pth")
    with pytest.raises(InputError, match="the weights lack"):
        fit_folder(store, tmp_path / "b", ["stl-tl"], [0], replace(settings, backbone="regnet_y_800mf"),
                   weights=tmp_path / "w.pth")  # fmt: skip


def test_a_batch_of_one_patch_where_a_network_normalises_pooled_features(tmp_path):
    path = write_store(tmp_path / "s.h5", {"train": 5, "val": 2, "test": 2}, patches=1)
    with pytest.raises(InputError, match=r"a batch of each epoch is of one patch.*give another --batch-size"):
        fit_folder(path, tmp_path / "o", ["stl-ri"], [0], Settings("timm:mobilenetv4_conv_small_035", batch_size=4))


def test_three_classes(tmp_path):
    path = write_store(tmp_path / "s.h5", {"train": 12, "val": 6, "test": 6}, classes=("T2", "T3", "T4"), aux=False)
    with pytest.raises(InputError, match="--label-order"):
        fit_folder(path, tmp_path / "out", ["stl-ri"], [0], SMALL)
    metrics = fit_folder(path, tmp_path / "out", ["stl-ri"], [0], SMALL, order=["T2", "T3", "T4"])
    assert metrics["positive"] is None
    assert "sensitivity T3" in metrics["runs"]["stl-ri"]["metrics"]


def test_no_test_lesions(tmp_path):
    path = write_store(tmp_path / "s.h5", {"train": 8, "val": 4}, aux=False)
    metrics = fit_folder(path, tmp_path / "out", ["stl-ri"], [0], SMALL)
    assert metrics["runs"]["stl-ri"]["metrics"]["auc"]["value"] is None


def test_predict_a_store_without_labels(finished, tmp_path):
    path = tmp_path / "new.h5"
    with StoreWriter(path, label_classes=[], rgb=False) as store:
        for k in range(4):
            store.add(patient_id=f"N{k}", split="test", label="", hu=discs(np.random.default_rng(k), 1, 10))
    table = predict_folder(finished[1], path, ["test"], torch.device("cpu"))
    assert set(table["run"]) == {"mtl-ri", "stl-ri"}
    assert set(table["label"]) == {""}
    assert (table[["p_benign", "p_malignant"]].sum(axis=1) - 1).abs().max() < 1e-12


def test_predict_repeats_what_fit_wrote(finished):
    path, out = finished
    again = predict_folder(out, path, ["val", "test"], torch.device("cpu")).reset_index(drop=True)
    table = pd.read_csv(out / "predictions.csv", dtype={"patient_id": str, "lesion_id": str})
    pd.testing.assert_frame_equal(again, table, check_dtype=False)


def test_predict_refusals(finished, tmp_path):
    cpu = torch.device("cpu")
    with pytest.raises(InputError, match="no finished run"):
        predict_folder(tmp_path, finished[0], ["test"], cpu)
    other = write_store(tmp_path / "o.h5", classes=("T3", "T4"))
    with pytest.raises(InputError, match="'T3' is not one of benign, malignant"):
        predict_folder(finished[1], other, ["test"], cpu)
    empty = write_store(tmp_path / "e.h5", {"train": 4}, aux=False)
    with pytest.raises(InputError, match="no lesion in test"):
        predict_folder(finished[1], empty, ["test"], cpu)


WINDOWS = [[-1400, 200], [-160, 240], [-500, 1500]]


def test_windows_are_kept_and_others_refused(finished, tmp_path):
    """Same lesions, other pictures: neither does a run predict them, nor do they go on with it."""
    path = write_store(tmp_path / "w.h5", windows=WINDOWS)
    with pytest.raises(InputError, match=r"made with windows = \[\[-800, -200\].*this call has \[\[-1400, 200\]"):
        predict_folder(finished[1], path, ["test"], torch.device("cpu"))
    fit_folder(path, tmp_path / "out", ["stl-ri"], [0], SMALL)
    assert json.loads((tmp_path / "out/config.json").read_text())["windows"] == WINDOWS
    assert checkpoints.load_checkpoint(tmp_path / "out/stl-ri/seed-0/best.pt")["run"]["windows"] == WINDOWS
    assert len(predict_folder(tmp_path / "out", path, ["test"], torch.device("cpu"))) == 8
    with pytest.raises(InputError, match=r"made with windows = \[\[-1400, 200\]"):
        predict_folder(tmp_path / "out", finished[0], ["test"], torch.device("cpu"))


def test_an_older_folder_knows_of_the_papers_windows(finished, tmp_path):
    path, out = finished[0], shutil.copytree(finished[1], tmp_path / "out")
    config = json.loads((out / "config.json").read_text())
    (out / "config.json").write_text(json.dumps({key: config[key] for key in config if key != "windows"}))
    for name in ("mtl-ri", "stl-ri"):
        file = out / name / "seed-0/best.pt"
        state = checkpoints.load_checkpoint(file)
        del state["run"]["windows"]
        checkpoints.save_checkpoint(file, state)
    fit_folder(path, out, ["mtl-ri", "stl-ri"], [0], SMALL)
    assert json.loads((out / "config.json").read_text()) == config
    assert len(predict_folder(out, path, ["test"], torch.device("cpu"))) == 8 * len([*out.glob("*/seed-*")])
    with pytest.raises(InputError, match="made with windows = "):
        fit.refuse_difference({}, {"windows": WINDOWS}, out)
