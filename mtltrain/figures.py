"""The report's plots: ROC with its band, calibration, decision curve, training."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import rcParams
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import fontManager
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray
from scipy.stats import rankdata
from sklearn.metrics import roc_curve

from .metrics import Floats, clusters, few_patients, ranking
from .scores import Scores
from .tables import run_name

DPI = 192  # twice what a browser calls a pixel
COLOURS = {"mtl": "#0072b2", "stl": "#d55e00"}
LINES = {"mtl-tl": "-", "stl-tl": (0, (4, 2)), "mtl-ri": (0, (8, 2, 1, 2)), "stl-ri": (0, (1.5, 1.5))}
MARKERS = {"mtl": "o", "stl": "s"}
EAST_ASIAN = (
    *("Noto Sans CJK SC", "Noto Sans CJK JP", "Source Han Sans SC", "WenQuanYi Micro Hei", "WenQuanYi Zen Hei"),
    *("Droid Sans Fallback", "IPAexGothic", "PingFang SC", "PingFang HK", "Hiragino Sans", "Hiragino Sans GB"),
    *("Arial Unicode MS", "Microsoft YaHei", "SimHei", "Yu Gothic", "MS Gothic", "Malgun Gothic", "NanumGothic"),
)
"""Fonts with Chinese, Japanese or Korean characters; matplotlib's own has none."""
GRID = np.linspace(0, 1, 101)
"""Where bands are computed."""
RESAMPLES = 1000

Draw = Callable[[Axes, str, str], None]
"""Draws a run's line of a class."""


def plot_roc(metrics: Mapping[str, Any], group: Scores) -> Figure:
    """Draw the runs' ROC curves on the test lesions, with their bands, MTL beside STL: see `roc_band`."""

    def draw(axes: Axes, run: str, name: str) -> None:
        truth = group.problem(run, name)[1]
        score = rankdata(ranking(group.averaged(run))[:, group.classes.index(name)])
        value = metrics["runs"][run]["metrics"]["auc"]["value"]
        label = run_name(run) if group.positive is None else f"{run_name(run)}  AUC {value:.3f}"
        if not few_patients(clusters(group.patients)):
            band = roc_band(score, truth, group.patients)
            axes.fill_between(GRID, *band, color=_colour(run), alpha=0.15, linewidth=0)
        x, y, _ = roc_curve(truth, score, drop_intermediate=False)
        axes.plot(x, y, label=label, **_style(run))

    figure = _panels(group, draw, _diagonal, "lower right")
    for axes in figure.axes:
        axes.set(xlabel="1 - specificity", ylabel="sensitivity", xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal")
    return figure


def roc_band(score: Floats, truth: NDArray[np.bool_], patients: NDArray[Any]) -> tuple[Floats, Floats]:
    """Lower and upper end of the pointwise 95 % interval of sensitivity at each 1 - specificity of `GRID`.

    Percentiles of 1000 bootstraps in which patients are drawn, with all their lesions (Fawcett's vertical averaging,
    Pattern Recognit. Lett. 27, 861, 2006). Resamples without one of the classes are left out.
    """
    cluster = clusters(patients)
    count = int(cluster.max()) + 1
    draws = np.random.default_rng(0).multinomial(count, np.full(count, 1 / count), size=RESAMPLES)
    order = np.argsort(-score, kind="stable")
    weight, true = draws[:, cluster[order]], truth[order]
    ends = np.flatnonzero(np.append(np.diff(score[order]) != 0, True))  # equal scores are one step
    hits, alarms = ((weight * side).cumsum(axis=1)[:, ends] for side in (true, ~true))
    usable = (hits[:, -1] > 0) & (alarms[:, -1] > 0)
    curves = [
        np.interp(GRID, np.append(0, x / x[-1]), np.append(0, y / y[-1]))
        for x, y in zip(alarms[usable], hits[usable], strict=True)
    ]
    low, high = np.quantile(curves, (0.025, 0.975), axis=0)
    return low, high


def plot_calibration(metrics: Mapping[str, Any], group: Scores) -> Figure:
    """Draw how often lesions of similar probability are of the class: a point for about ten lesions or more.

    Bars are the 95 % intervals of `metrics.json`, by patients where one recurs; ticks at the edges are lesions.
    """

    def draw(axes: Axes, run: str, name: str) -> None:
        bins = metrics["runs"][run]["calibration"][name]["bins"]
        low, high, observed = (np.array([k["observed"][key] for k in bins], float) for key in ("low", "high", "value"))
        predicted = [k["predicted"] for k in bins]
        axes.vlines(predicted, low, high, color=_colour(run), linewidth=0.8)
        axes.plot(predicted, observed, label=run_name(run), marker=MARKERS.get(_kind(run), "o"), **_style(run))
        score, level = group.problem(run, name)[0], -0.03 if run.startswith("stl") else 1.03
        axes.plot(score, np.full(len(score), level), "|", color=_colour(run), markersize=5, alpha=0.5)

    figure = _panels(group, draw, _diagonal, (0.68, 0.1))
    for axes in figure.axes:
        axes.set(xlabel="predicted probability", ylabel="share of the class", xlim=(-0.03, 1.03), ylim=(-0.06, 1.06))
        axes.set_aspect("equal")
    return figure


def plot_decision(metrics: Mapping[str, Any], group: Scores) -> Figure:
    """Draw the net benefit of treating the lesions above each threshold: see `mtltrain.clinical.net_benefit`."""
    curve = metrics["decision_curve"]

    def draw(axes: Axes, run: str, name: str) -> None:
        axes.plot(curve["thresholds"], metrics["runs"][run]["net_benefit"][name], label=run_name(run), **_style(run))

    def everyone(axes: Axes, name: str) -> None:
        grey: dict[str, Any] = {"color": "#59636b", "linewidth": 1}
        axes.plot(curve["thresholds"], curve["all"][name], label="treat all", **grey)
        axes.axhline(0, label="treat none", linestyle=":", **grey)
        share = metrics["test"]["counts"][name] / metrics["test"]["lesions"]
        axes.set_ylim(-0.1 * share, 1.1 * share)

    figure = _panels(group, draw, everyone, "upper right")
    for axes in figure.axes:
        axes.set(xlabel="threshold probability", ylabel="net benefit", xlim=(0, 1))
    return figure


def plot_training(history: pd.DataFrame) -> Figure:
    """Draw training loss and validation AUC by epoch, a line per run and seed, a dot at the epoch kept."""
    figure = Figure(figsize=(10.8, 4.2), layout="constrained")
    losses, aucs = figure.subplots(1, 2)
    for run in history["run"].unique():
        for i, (_, rows) in enumerate(history[history["run"] == run].groupby("seed")):
            style, best = _style(run), rows["val_auc"].to_numpy().argmax()
            losses.plot(rows["epoch"], rows["train_loss"], label="" if i else run_name(run), **style)
            aucs.plot(rows["epoch"], rows["val_auc"], marker="o", markersize=5, markevery=[best], **style)
    for axes, title in ((losses, "Training loss"), (aucs, "Validation AUC")):
        _finish(axes, title, "upper right")
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure


def png(figure: Figure) -> bytes:
    """A figure as the bytes of a PNG file."""
    file = io.BytesIO()
    with warnings.catch_warnings():  # what no font here has stays a box
        warnings.filterwarnings("ignore", r"Glyph .* missing from")
        figure.savefig(file, format="png", dpi=DPI)
    return file.getvalue()


def _diagonal(axes: Axes, name: str) -> None:
    axes.plot([0, 1], [0, 1], color="#b9c1c7", linewidth=1)


def _panels(group: Scores, draw: Draw, compared: Callable[[Axes, str], None], legend: Any) -> Figure:
    """A row per class that is told from the rest (one with two classes), a column per start (TL, RI): MTL and STL.

    Where there are lesions of one kind only, a panel stays empty.
    """
    starts = list(dict.fromkeys(map(_start, group.runs)))
    figure = Figure(figsize=(5.2 * len(starts), 5.0 * len(group.told)), layout="constrained")
    panels = figure.subplots(len(group.told), len(starts), squeeze=False)
    for row, name in zip(panels, group.told, strict=True):
        truth = group.labels == group.classes.index(name)
        for axes, start in zip(row, starts, strict=True):
            if 0 < truth.sum() < truth.size:
                compared(axes, name)
                for run in group.runs:
                    if _start(run) == start:
                        draw(axes, run, name)
            told = f"{name} against the rest" if group.positive is None else f"positive: {name}"
            _finish(axes, f"{start.upper()}, {told}", legend)
    return figure


def _start(run: str) -> str:
    return run.partition("-")[2]


def _kind(run: str) -> str:
    return run.partition("-")[0]


def _colour(run: str) -> str:
    return COLOURS.get(_kind(run), "#444444")


def _style(run: str) -> dict[str, Any]:
    """Colour says MTL or STL; each run has a line of its own, told apart in grey too."""
    return {"color": _colour(run), "linestyle": LINES.get(run, ":"), "linewidth": 1.5}


def _finish(axes: Axes, title: str, legend: Any) -> None:
    axes.set_title(title, loc="left", fontsize=11, parse_math=False, family=_families())  # a class may be called $5
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#eef1f3")
    axes.set_axisbelow(True)
    if axes.get_legend_handles_labels()[0]:
        for text in axes.legend(loc=legend, frameon=False, fontsize=9).get_texts():
            text.set_parse_math(False)


def _families() -> list[str]:
    """The usual font, and behind it what is installed for the characters that it lacks."""
    installed = {font.name for font in fontManager.ttflist}
    return [*rcParams["font.family"], *(name for name in EAST_ASIAN if name in installed)]
