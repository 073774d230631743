"""The page is whole, escaped and needs nothing from outside; it tells what was done, and to whom."""

from __future__ import annotations

import base64
import io
import json
import re
import shlex
from dataclasses import asdict
from html.parser import HTMLParser

import matplotlib.image
import pandas as pd
import pytest
from toystore import history, predictions

from mtltrain import Settings, cli, figures
from mtltrain.compare import evaluate
from mtltrain.report import command, write_report


class Page(HTMLParser):
    """Tags with attributes, and the text between them."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.text, self.open = [], "", []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


@pytest.fixture(autouse=True)
def _small_plots(monkeypatch):
    monkeypatch.setattr(figures, "DPI", 40)
    monkeypatch.setattr(figures, "RESAMPLES", 50)


def folder(path, classes=("T3", "T4"), change=lambda table: table, **settings):
    table = change(predictions(classes=classes, lesions=30, **settings))
    selection = [{"name": "<script>alert(1)</script>", "r": 0.4, "p": 0.01, "n": 9, "kept": True, "reason": ""}]
    metrics = evaluate(table, classes, selection=selection)
    metrics["flow"] = [{"name": "left out", "patients": 3, "lesions": 4, classes[0]: 1, classes[1]: 0}]
    (path / "metrics.json").write_text(json.dumps(metrics))
    table.to_csv(path / "predictions.csv", index=False)
    pd.DataFrame(columns=["run", "seed", "patient_id", "lesion_id", "split"]).to_csv(path / "auxiliary.csv")
    history().to_csv(path / "history.csv", index=False)
    config = {"store": "a&b.h5", "lr": 0.001, "recipe": {"windows": [[-800, -200]]}, "versions": [{"torch": "2.6"}]}
    (path / "config.json").write_text(json.dumps({**config, "notes": ["a demonstration <only>"]}))
    return path


@pytest.mark.parametrize("classes", [("T3", "T4"), ("T2", "T3", "T4")])
def test_page_is_self_contained_and_escaped(tmp_path, classes):
    html = write_report(folder(tmp_path, classes)).read_text(encoding="utf-8")
    page = Page(html)
    assert page.open == []
    assert {tag for tag, _ in page.tags}.isdisjoint({"script", "link", "iframe"})
    assert all(dict(attributes)["href"].startswith("#") for tag, attributes in page.tags if tag == "a")
    assert not re.search(r"https?:|url\(|@import", html)
    images = [attributes["src"] for tag, attributes in page.tags if tag == "img"]
    plots = ("roc.png", "calibration.png", "decision.png", "training.png")
    for name, source in zip(plots, images, strict=True):
        data = base64.b64decode(source.removeprefix("data:image/png;base64,"))
        assert data == (tmp_path / name).read_bytes()
        assert matplotlib.image.imread(io.BytesIO(data)).std() > 0.01
    for text in ("<script>alert(1)</script>", "a demonstration <only>", "a&b.h5", "recipe.windows", "versions.1.torch"):
        assert text in page.text


def test_the_flow_and_what_was_said_are_counted(tmp_path):
    text = Page(write_report(folder(tmp_path)).read_text(encoding="utf-8")).text
    assert "3 patients, 4 lesions" in text
    assert "T3 1" in text
    assert "T4 0" not in text
    assert "known T3" in text


def test_only_the_splits_come_out_of_the_flow(tmp_path):
    """One arrow, before train: no patient goes from there to val."""
    page = write_report(folder(tmp_path))
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    steps = ("in the manifest", "left out", "train", "val")
    metrics["flow"] = [{"name": name, "patients": 1, "lesions": 1} for name in steps]
    (tmp_path / "metrics.json").write_text(json.dumps(metrics))
    assert re.findall(r"→ *([a-z ]+)", Page(write_report(tmp_path).read_text(encoding="utf-8")).text) == ["train"]
    assert "<title>a&amp;b.h5: mtltrain report</title>" in page.read_text(encoding="utf-8")


@pytest.mark.parametrize("classes", [["-T3", "T 4"], ["T2", "T3", "T4"]])
def test_the_command_that_makes_it_again_is_read_as_the_same_settings(classes):
    settings = Settings("resnet18", 7, 3, 20, 2e-4, "cpu", "w.pt sha256 0", True, False, 0.5, {"a b": None, "c": 0.25})
    config = asdict(settings) | {"arch": ["mtl-ri", "stl-tl"], "seeds": [0, 5], "order": classes, "positive": None}
    config["positive"] = classes[-1] if len(classes) == 2 else None
    words = shlex.split(command(config))
    assert words[:3] == ["mtltrain", "fit", "STORE.h5"]
    args = vars(cli._parser().parse_args(words[1:]))
    for name in ("backbone", "epochs", "patience", "batch_size", "lr", "balanced", "deterministic", "major_share"):
        assert args[name] == getattr(settings, name)
    assert (args["arch"], args["seeds"], str(args["weights"])) == (config["arch"], config["seeds"], "FILE")
    assert args["chosen_tasks"] == ["a b", "c=0.25"]
    assert (args["positive"], args["label_order"]) == (("T 4", None) if len(classes) == 2 else (None, classes))


def test_page_is_the_same_each_time(tmp_path):
    page = write_report(folder(tmp_path))
    first = page.read_bytes()
    assert write_report(tmp_path).read_bytes() == first


def test_one_class_is_drawn_and_said_to_be_undefined(tmp_path):
    page = write_report(folder(tmp_path, change=lambda table: table.assign(label="T3")))
    assert "Undefined: MTL+RI AUC: a class has no test lesion." in Page(page.read_text(encoding="utf-8")).text


def test_caveats_tell_what_was_done(tmp_path):
    single = Page(write_report(folder(tmp_path)).read_text(encoding="utf-8")).text
    assert "Wilson" in single
    assert "one seed" in single
    assert "several seeds" not in single
    assert "15 of class T3" in single
    assert "15 of class T4" in single
    clustered = Page(write_report(folder(tmp_path, per_patient=2)).read_text(encoding="utf-8")).text
    assert "Obuchowski" in clustered
    assert "patient bootstrap" in clustered
