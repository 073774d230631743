"""The command: one line and status 2 for a wrong call, and defaults that are the settings'."""

import re
import shutil
from dataclasses import asdict

import numpy as np
import pytest
from toystore import CLASSES, discs

from ctpatch import StoreWriter
from ctpatch.store import SPLITS
from mtltrain import Settings, __version__
from mtltrain.cli import _parser, main
from mtltrain.files import read_json

FAST = ["--backbone", "shufflenet_v2_x0_5", "--epochs", "1", "--arch", "stl-ri", "--device", "cpu"]


def test_fit_predict_compare(store, tmp_path, capsys):
    assert main(["fit", str(store), *FAST]) == 0
    printed = capsys.readouterr().out
    out = tmp_path / "toy-mtltrain"
    for text in ("Table 1", "Table 2", "STL+RI", "stl-ri/seed-0 epoch 1", str(out / "report.html")):
        assert text in printed
    assert main(["predict", str(out), str(store)]) == 0
    assert (tmp_path / "toy-predictions.csv").read_text().count("\n") == 1 + 8
    found, second = tmp_path / "toy-predictions.csv", shutil.copytree(out, tmp_path / "second")
    before = found.stat()
    for named in ([], ["--out", str(found)]):
        assert main(["predict", str(second), str(store), *named]) == 2
        says = "toy-predictions.csv: --out is there already. Do: name another file with --out, or remove this one."
        assert says in capsys.readouterr().err
    assert found.stat() == before
    assert main(["predict", str(out), str(store), "--out", str(tmp_path / "p.csv"), "--split", "test", "test"]) == 0
    assert (tmp_path / "p.csv").read_bytes() == found.read_bytes()  # each lesion once
    assert main(["compare", str(out), str(second)]) == 0
    assert capsys.readouterr().out.count("STL+RI") == 2


@pytest.mark.parametrize("command", [[], ["fit"], ["predict"], ["compare"]])
def test_help_names_the_exit_statuses_and_every_argument(command, capsys):
    with pytest.raises(SystemExit):
        main([*command, "--help"])
    told = capsys.readouterr().out
    assert "Exit status: 0 done; 1 something failed" in told
    assert not re.findall(r"^  (?:STORE|RUN)$", told, re.MULTILINE)


def test_version(capsys):
    with pytest.raises(SystemExit):
        main(["--version"])
    assert capsys.readouterr().out == f"mtltrain {__version__}\n"


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
        ["fit", "{store}", "--seeds", "9223372036854775808"],
        ["fit", "{store}", "--batch-size", "9223372036854775808"],
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
        ["fit", "."],
        ["fit", ""],
        ["fit", "/"],
        ["fit", "{store}", "--out", "{store}"],
        ["predict", "absent", "{store}"],
        ["predict", "absent", "{store}", "--split", "all"],
        ["predict", "absent", "."],
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


def test_characteristics_with_an_equals_sign(tmp_path, capsys):
    """What is wholly a name is one; else the last sign is before the weight."""
    path, levels = tmp_path / "s.h5", {"ratio=2": {}, "ratio": {}}
    rng = np.random.default_rng(0)
    with StoreWriter(path, label_classes=CLASSES, aux_levels=levels, rgb=False) as store:
        for k in range(16):
            split, aux = SPLITS[(k >= 8) + (k >= 12)], {"ratio=2": float(k % 2), "ratio": float(k % 3)}
            hu = discs(rng, 1, 6 + 8 * (k % 2))
            store.add(patient_id=f"P{k:02d}", split=split, label=CLASSES[k % 2], hu=hu, aux=aux)
    call = ["fit", str(path), *FAST, "--arch", "mtl-ri"]
    for words, chosen in (
        (["ratio=2"], {"ratio=2": None}),
        (["ratio=2=0.5", "ratio=3"], {"ratio=2": 0.5, "ratio": 3.0}),
        (["ratio", "ratio=2=2"], {"ratio": None, "ratio=2": 2.0}),
    ):
        out = tmp_path / "=".join(words)
        assert main([*call, "--tasks", *words, "--out", str(out)]) == 0
        assert read_json(out / "config.json")["chosen_tasks"] == chosen
    capsys.readouterr()
    assert main([*call, "--tasks", "ratio=2=x"]) == 2
    assert capsys.readouterr().err == "mtltrain: --tasks ratio=2=x: 'x' is no weight of 0 or more. Do: say NAME=W.\n"
    for words in (["ratio", "ratio"], ["ratio=1", "ratio=0.5"], ["ratio=2", "ratio=2=1"]):
        assert main([*call, "--tasks", *words]) == 2
        name = "ratio=2" if words[0] == "ratio=2" else "ratio"
        assert capsys.readouterr().err == f"mtltrain: --tasks names {name} twice. Do: name it once.\n"


def test_results_cannot_be_written(store, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert main(["fit", str(store), *FAST, "--out", str(tmp_path / "file/out")]) == 1
    assert re.fullmatch(r"mtltrain: .*\. Do: .*\.\n", capsys.readouterr().err)


def test_a_file_for_a_folder_and_a_folder_for_a_file(store, tmp_path, capsys):
    for call in (["fit", store, "--out", store], ["compare", "a", "b", "--pool", "--out", store]):
        assert main([*map(str, call)]) == 2
        assert "toy.h5: --out is a file. Do: name a folder." in capsys.readouterr().err
    for out in (tmp_path, store):
        assert main(["predict", "absent", str(store), "--out", str(out)]) == 2
        assert f"{out.name}: --out is there already. Do: name another file" in capsys.readouterr().err


def test_files_of_ones_own_are_not_replaced(store, tmp_path, capsys):
    out = tmp_path / "mine"
    out.mkdir()
    (out / "report.html").write_text("mine")
    assert main(["fit", str(store), *FAST, "--out", str(out)]) == 2
    assert "--out has a report.html and is no run folder" in capsys.readouterr().err
    assert [(path.name, path.read_text()) for path in out.iterdir()] == [("report.html", "mine")]


def test_a_folder_with_what_a_killed_call_left(store, tmp_path):
    out = tmp_path / "out"
    (out / "stl-ri/seed-0").mkdir(parents=True)
    for name in (".lock", "config.json.7-0a1b2c3d.tmp", "fit.log"):  # the last is somebody's redirection
        (out / name).touch()
    assert main(["fit", str(store), *FAST, "--out", str(out)]) == 0


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
