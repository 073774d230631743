"""The page is whole, escaped and needs nothing from outside; the plots are PNGs that show the runs."""

from __future__ import annotations

import base64
import io
import json
import re
from html.parser import HTMLParser

import matplotlib.image
import numpy as np
import pandas as pd
import pytest
from toystore import predictions

from mtltrain.compare import evaluate, scores
from mtltrain.metrics import auc
from mtltrain.report import plot_roc, plot_training, write_report


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


def history():
    epochs = [(run, seed, e) for run in ("mtl-ri", "stl-ri") for seed in (0, 1) for e in range(1, 6)]
    table = pd.DataFrame(epochs, columns=["run", "seed", "epoch"])
    return table.assign(train_loss=1 / table["epoch"], val_auc=[0.5, 0.7, 0.8, 0.75, 0.6] * 4)


def folder(path, classes=("T3", "T4"), change=lambda table: table, **settings):
    table = change(predictions(classes=classes, lesions=30, **settings))
    selection = [{"name": "<script>alert(1)</script>", "r": 0.4, "p": 0.01, "n": 9, "kept": True, "reason": ""}]
    (path / "metrics.json").write_text(json.dumps(evaluate(table, classes, selection=selection)))
    table.to_csv(path / "predictions.csv", index=False)
    history().to_csv(path / "history.csv", index=False)
    config = {"store": "a&b.h5", "lr": 0.001, "recipe": {"windows": [[-800, -200]]}, "versions": [{"torch": "2.6"}]}
    (path / "config.json").write_text(json.dumps({**config, "notes": ["a demonstration <only>"]}))
    return path


@pytest.mark.parametrize("classes", [("T3", "T4"), ("T2", "T3", "T4")])
def test_page_is_self_contained_and_escaped(tmp_path, classes):
    html = write_report(folder(tmp_path, classes)).read_text(encoding="utf-8")
    page = Page(html)
    assert page.open == []
    assert {tag for tag, _ in page.tags}.isdisjoint({"script", "link", "iframe", "a"})
    assert not re.search(r"https?:|url\(|@import", html)
    images = [attributes["src"] for tag, attributes in page.tags if tag == "img"]
    for name, source in zip(("roc.png", "training.png"), images, strict=True):
        data = base64.b64decode(source.removeprefix("data:image/png;base64,"))
        assert data == (tmp_path / name).read_bytes()
        assert matplotlib.image.imread(io.BytesIO(data)).std() > 0.01
    for text in ("<script>alert(1)</script>", "a demonstration <only>", "a&b.h5", "recipe.windows", "versions.1.torch"):
        assert text in page.text


def test_page_is_the_same_each_time(tmp_path):
    page = write_report(folder(tmp_path))
    first = page.read_bytes()
    assert write_report(tmp_path).read_bytes() == first


def test_one_class_is_drawn_and_said_to_be_undefined(tmp_path):
    page = write_report(folder(tmp_path, change=lambda table: table.assign(label="T3")))
    assert "Undefined: MTL+RI AUC: a class has no test lesion." in Page(page.read_text(encoding="utf-8")).text


def test_roc_curves_enclose_the_auc_of_their_legend():
    table = predictions(lesions=30)
    metrics = evaluate(table, ["T3", "T4"])
    (axes,) = plot_roc(metrics, scores(table, ["T3", "T4"])).axes
    for line, run in zip(axes.lines[1:], ("mtl-ri", "stl-ri"), strict=True):
        rows = table[table["run"] == run]
        value = auc(rows["p_T4"], rows["label"] == "T4").value
        assert np.trapezoid(line.get_ydata(), line.get_xdata()) == pytest.approx(value)
        assert line.get_label().endswith(f"{value:.3f}")


def test_training_curves_mark_the_best_epoch():
    losses, aucs = plot_training(history()).axes
    assert [text.get_text() for text in losses.get_legend().get_texts()] == ["MTL+RI", "STL+RI"]
    assert len(losses.lines) == len(aucs.lines) == 4
    assert all(line.get_markevery() == [2] for line in aucs.lines)
    assert aucs.lines[0].get_ydata() == pytest.approx([0.5, 0.7, 0.8, 0.75, 0.6])


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
