"""The command: one line and status 2 for a wrong call, and defaults that are the settings'."""

import re
import shutil
from dataclasses import asdict

import pytest

from mtltrain import Settings
from mtltrain.cli import _parser, main

FAST = ["--backbone", "shufflenet_v2_x0_5", "--epochs", "1", "--arch", "stl-ri", "--device", "cpu"]


def test_fit_predict_compare(store, tmp_path, capsys):
    assert main(["fit", str(store), *FAST]) == 0
    printed = capsys.readouterr().out
    out = tmp_path / "toy-mtltrain"
    for text in ("Table 1", "Table 2", "STL+RI", "stl-ri/seed-0 epoch 1", str(out / "report.html")):
        assert text in printed
    assert main(["predict", str(out), str(store)]) == 0
    assert (tmp_path / "toy-predictions.csv").read_text().count("\n") == 1 + 8
    shutil.copytree(out, tmp_path / "second")
    assert main(["compare", str(out), str(tmp_path / "second")]) == 0
    assert capsys.readouterr().out.count("STL+RI") == 2


def test_defaults_are_the_settings():
    args = vars(_parser().parse_args(["fit", "s.h5"]))
    assert {**asdict(Settings()), "device": "auto"}.items() <= args.items()


@pytest.mark.parametrize(
    "call",
    [
        [],
        ["train"],
        ["fit"],
        ["fit", "{store}", "--epochs", "0"],
        ["fit", "{store}", "--batch-size", "1.5"],
        ["fit", "{store}", "--lr", "nan"],
        ["fit", "{store}", "--lr", "-1"],
        ["fit", "{store}", "--seeds", "-1"],
        ["fit", "{store}", "--m", "1.01"],
        ["fit", "{store}", "--m", "nan"],
        ["fit", "{store}", "--tasks", "size=-1"],
        ["fit", "{store}", "--tasks", "size="],
        ["fit", "{store}", "--tasks", "age"],
        ["fit", "{store}", "--arch", "cnn"],
        ["fit", "{store}", "--backbone", "lenet"],
        ["fit", "{store}", "--positive", "T4"],
        ["fit", "{store}", "--label-order", "benign"],
        ["fit", "{store}", "--arch", "stl-tl", "--weights", "absent.pt"],
        ["fit", "{store}", "--arch", "stl-tl", "--weights", "{store}"],
        ["fit", "{store}", "--arch", "stl-ri", "--weights", "{store}"],
        ["fit", "absent.h5"],
        ["predict", "absent", "{store}"],
        ["predict", "absent", "{store}", "--split", "all"],
        ["compare"],
        ["compare", "absent"],
    ],
    ids=" ".join,
)
def test_wrong_calls(store, capsys, call):
    try:
        status = main([word.format(store=store) for word in call])
    except SystemExit as error:
        status = error.code
    printed = capsys.readouterr()
    assert (status, printed.out) == (2, "")
    assert re.fullmatch(r"mtltrain.*: .*\. Do: .*\.\n", printed.err)


def test_results_cannot_be_written(store, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert main(["fit", str(store), *FAST, "--out", str(tmp_path / "file")]) == 1
    assert re.fullmatch(r"mtltrain: .*\. Do: .*\.\n", capsys.readouterr().err)


def test_a_foreign_folder(store, tmp_path, capsys):
    for content in ("{}", "[]", "no JSON"):
        (tmp_path / "config.json").write_text(content)
        assert main(["fit", str(store), *FAST, "--out", str(tmp_path)]) == 2
        assert re.fullmatch(r"mtltrain: .*config.json: .*\. Do: .*\.\n", capsys.readouterr().err)


def test_offline(store, capsys, monkeypatch, tmp_path):
    import torch

    def offline(*args, **kwargs):
        raise OSError("no network")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    assert main(["fit", str(store), "--backbone", "shufflenet_v2_x0_5"]) == 2
    printed = capsys.readouterr()
    assert "--weights FILE" in printed.err
    assert "--arch mtl-ri stl-ri" in printed.err
    assert not (tmp_path / "toy-mtltrain").exists()
