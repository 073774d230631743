"""The plots show what scikit-learn and scipy compute, and what metrics.json says."""

from itertools import product

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm
from sklearn.metrics import confusion_matrix, roc_auc_score, roc_curve
from toystore import history, predictions

from mtltrain import figures
from mtltrain.compare import evaluate
from mtltrain.confusion import characteristics, diagnoses
from mtltrain.figures import COLOURS, GRID, plot_calibration, plot_decision, plot_roc, plot_training
from mtltrain.scores import scores, votes

RUNS = ("mtl-tl", "mtl-ri", "stl-tl", "stl-ri")


@pytest.fixture(scope="module", params=[("T3", "T4"), ("T2", "T3", "T4")], ids=["two classes", "three classes"])
def compared(request):
    table = predictions(runs=RUNS, classes=request.param, lesions=60)
    return table, evaluate(table, request.param), scores(table, request.param)


@pytest.fixture(autouse=True)
def few_resamples(monkeypatch):
    monkeypatch.setattr(figures, "RESAMPLES", 50)


def lines(axes, label):
    return [line for line in axes.lines if line.get_label().startswith(label)]


def test_roc_curves_enclose_the_auc_and_lie_in_their_bands(compared):
    table, metrics, group = compared
    names = ["T4"] if metrics["positive"] else metrics["classes"]
    axes = plot_roc(metrics, group).axes
    assert len(axes) == 2 * len(names)
    for k, name in enumerate(names):
        for panel, start in zip(axes[2 * k : 2 * k + 2], ("TL", "RI"), strict=True):
            for kind in ("MTL", "STL"):
                (line,) = lines(panel, f"{kind}+{start}")
                rows = table[table["run"] == f"{kind}-{start}".lower()]
                value = roc_auc_score(rows["label"] == name, rows[f"p_{name}"])
                assert np.trapezoid(line.get_ydata(), line.get_xdata()) == pytest.approx(value)
                if metrics["positive"]:
                    assert line.get_label().endswith(f"{value:.3f}")
            assert len(panel.collections) == 2


def test_the_band_is_as_wide_as_the_binormal_curve_varies(monkeypatch):
    monkeypatch.setattr(figures, "RESAMPLES", 1000)
    rng = np.random.default_rng(0)
    truth = np.repeat([True, False], 100)

    def sample():
        return rng.normal(np.where(truth, 1.2, 0))

    low, high = figures.roc_band(sample(), truth, np.arange(200))
    middle = [int(np.flatnonzero(np.isclose(GRID, x))[0]) for x in (0.1, 0.3, 0.5)]
    curves = [np.interp(GRID, *roc_curve(truth, sample(), drop_intermediate=False)[:2]) for _ in range(400)]
    spread = np.quantile(curves, 0.975, axis=0) - np.quantile(curves, 0.025, axis=0)
    assert (high - low)[middle] == pytest.approx(spread[middle], rel=0.4)
    assert (low[middle] < norm.cdf(1.2 + norm.ppf(GRID[middle]))).all()
    twice = figures.roc_band(np.repeat(sample(), 2), np.repeat(truth, 2), np.repeat(np.arange(200), 2))
    assert (
        (twice[1] - twice[0])[middle] > 0.75 * (high - low)[middle]
    ).all()  # a patient's lesions are not two patients


def test_what_is_drawn_is_what_metrics_json_says(compared):
    """Calibration by bins, net benefit by thresholds; a row of panels per class, a column per start."""
    _, metrics, group = compared
    names = ["T4"] if metrics["positive"] else metrics["classes"]
    calibration, decision = (plot(metrics, group).axes for plot in (plot_calibration, plot_decision))
    for k, (name, start) in enumerate(product(names, ("tl", "ri"))):
        for kind in ("mtl", "stl"):
            entry, label = metrics["runs"][f"{kind}-{start}"], f"{kind}+{start}".upper()
            (points,), (curve,) = (lines(axes[k], label) for axes in (calibration, decision))
            bins = entry["calibration"][name]["bins"]
            assert points.get_xdata() == pytest.approx([item["predicted"] for item in bins])
            assert points.get_ydata() == pytest.approx([item["observed"]["value"] for item in bins])
            assert curve.get_ydata() == pytest.approx(entry["net_benefit"][name])
            bars = np.array([bar[:, 1] for line in calibration[k].collections for bar in line.get_segments()])
            assert [item["observed"]["low"] for item in bins] == pytest.approx(
                bars[: len(bins), 0] if kind == "mtl" else bars[-len(bins) :, 0]
            )
        (everyone,) = lines(decision[k], "treat all")
        assert everyone.get_ydata() == pytest.approx(metrics["decision_curve"]["all"][name])


def test_every_plot_tells_mtl_from_stl_by_colour_and_each_run_by_its_line(compared):
    """In black and white a line is all there is."""
    _, metrics, group = compared
    met = set()
    for plot in (plot_roc, plot_calibration, plot_decision):
        for panel in plot(metrics, group).axes:
            shown = {line.get_label()[:3]: line for line in panel.lines if "TL+" in line.get_label()}
            assert {kind: line.get_color() for kind, line in shown.items()} == {
                k.upper(): c for k, c in COLOURS.items()
            }
            met |= {(line.get_label()[:6], str(line._unscaled_dash_pattern)) for line in shown.values()}
    assert len(met) == len({line for _, line in met}) == len(RUNS)
    (panel, *_) = plot_calibration(metrics, group).axes
    assert [line.get_marker() for line in panel.lines if "TL+" in line.get_label()] == ["o", "s"]


def test_training_curves_mark_the_best_epoch():
    losses, aucs = plot_training(history()).axes
    assert [text.get_text() for text in losses.get_legend().get_texts()] == ["MTL+RI", "STL+RI"]
    assert len(losses.lines) == len(aucs.lines) == 4
    assert all(line.get_markevery() == [2] for line in aucs.lines)
    assert aucs.lines[0].get_ydata() == pytest.approx([0.5, 0.7, 0.8, 0.75, 0.6])


def test_confusion_tables_are_scikit_learn_s(compared):
    table, metrics, group = compared
    found = diagnoses(group)
    assert list(found) == ["MTL+TL", "MTL+RI", "STL+TL", "STL+RI"]
    rows = table[table["run"] == "stl-ri"]
    said = rows[[f"p_{name}" for name in metrics["classes"]]].to_numpy().argmax(1)
    expected = confusion_matrix(rows["label"], np.array(metrics["classes"])[said])
    assert np.array_equal(found["STL+RI"].to_numpy(), expected)


def test_characteristics_are_counted_where_known_by_what_most_seeds_say():
    rows = [
        ("mtl-ri", seed, str(lesion), "1", "test", "margin", level, said)
        for lesion, (level, votes) in enumerate([("1.0", "112"), ("2.0", "111"), ("", "111"), ("2.0", "222")])
        for seed, said in enumerate(votes)
    ]
    table = pd.DataFrame(
        rows, columns=["run", "seed", "patient_id", "lesion_id", "split", "task", "level", "predicted"]
    )
    ((name, counts),) = characteristics(votes(table), {"margin": {2.0: "sharp"}}).items()
    assert name == "MTL+RI, margin"
    assert counts.to_numpy().tolist() == [[1, 0], [1, 1]]
    assert counts.index.tolist() == ["known 1", "known sharp"]


@pytest.mark.parametrize("name", ["≥$\\frac$5", "$5 & $6", "a_b^c", "恶性", "悪性"])
def test_names_of_classes_are_drawn_as_they_are(name):
    """No mathematics; what no installed font has is drawn as boxes, without a word."""
    table = predictions(runs=("mtl-$x^$", "stl-$x^$"), classes=("ok", name))
    metrics, group = evaluate(table, ["ok", name], name), scores(table, ["ok", name], name)
    for plot in (plot_roc, plot_calibration, plot_decision):
        figure = plot(metrics, group)
        assert figures.png(figure).startswith(b"\x89PNG")
        assert figure.axes[0].get_title(loc="left") == f"$X^$, positive: {name}"
    assert figures.png(plot_training(history().replace("mtl-ri", "mtl-$x^$"))).startswith(b"\x89PNG")


def test_characters_that_the_usual_font_lacks_come_from_one_that_has_them(monkeypatch):
    """STIX, which matplotlib brings along, stands for a Chinese font."""
    table = predictions(classes=("a", "Ⓐ"))
    drawn = []
    for fonts in ((), ("no such font",), ("no such font", "STIXGeneral")):
        monkeypatch.setattr(figures, "EAST_ASIAN", fonts)
        drawn.append(figures.png(plot_decision(evaluate(table, ["a", "Ⓐ"]), scores(table, ["a", "Ⓐ"]))))
    assert drawn[0] == drawn[1] != drawn[2]
