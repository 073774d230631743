"""The run folder's report: two plots and one self-contained HTML page, made from the folder's own files."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from .compare import Scores, load_metrics, scores
from .metrics import one_vs_rest, roc_points
from .tables import read_csv, read_json, reasons, run_name, tables, write

TEMPLATE = Path(__file__).with_name("report.html")

DPI = 192  # twice what a browser calls a pixel
COLOURS = {"tl": "#0072b2", "ri": "#d55e00"}
LINES = {"mtl": "-", "stl": (0, (4, 2))}


def write_report(folder: Path) -> Path:
    """Write `roc.png`, `training.png` and `report.html`.

    Parameters
    ----------
    folder : path
        Run folder with `metrics.json`, `predictions.csv`, `history.csv` (run, seed, epoch, train_loss, val_auc, ...)
        and `config.json`: any JSON object, shown as it is; its optional `notes`, a list, join the caveats.

    Returns
    -------
    path
        The page.

    Raises
    ------
    InputError
        If `metrics.json` is missing or of another schema.
    """
    metrics, config = load_metrics(folder), read_json(folder / "config.json")
    group = scores(read_csv(folder / "predictions.csv"), metrics["classes"])
    roc, training = _png(plot_roc(metrics, group)), _png(plot_training(pd.read_csv(folder / "history.csv")))
    per_seed = "A line per seed, a dot at the epoch kept. MTL's loss has auxiliary terms: compare it with MTL's only"
    figures = {"ROC curves": _figure(roc, "ROC curves of the test lesions"), "Training": _figure(training, per_seed)}
    template = Environment(autoescape=True, trim_blocks=True).from_string(TEMPLATE.read_text(encoding="utf-8"))
    page = template.render(
        runs=map(run_name, metrics["runs"]),
        store=config.get("store", "a store"),
        tables={title: _html(table) for title, table in tables(metrics).items()},
        figures=figures,
        metrics=metrics,
        seeds=[len(entry["seeds"]) for entry in metrics["runs"].values()],
        reasons=reasons(metrics),
        notes=config.get("notes", []),
        settings=_html(_settings(config), header=False, classes="wrap"),
    )
    write(folder / "roc.png", roc)
    write(folder / "training.png", training)
    write(folder / "report.html", page)
    return folder / "report.html"


def plot_roc(metrics: Mapping[str, Any], group: Scores) -> Figure:
    """Draw the runs' ROC curves on the test lesions: one panel, or one per class with more than two classes."""
    classes, positive = metrics["classes"], metrics["positive"]
    panels = classes if positive is None else [positive]
    figure = Figure(figsize=(5.4 * len(panels), 5.4), layout="constrained")
    index = 0 if positive is None else classes.index(positive)
    for k, (name, axes) in enumerate(zip(panels, figure.subplots(1, len(panels), squeeze=False)[0], strict=True)):
        axes.plot([0, 1], [0, 1], color="#b9c1c7", linewidth=1)
        for run, entry in metrics["runs"].items():
            score, truth = (part[k] for part in one_vs_rest(group.averaged(run), group.labels, index))
            if 0 < truth.sum() < truth.size:
                value = entry["metrics"]["auc"]["value"]
                label = run_name(run) if positive is None else f"{run_name(run)}  AUC {value:.3f}"
                axes.plot(*roc_points(score, truth), label=label, **_style(run))
        _finish(axes, f"{name} against the rest" if positive is None else f"positive: {name}", "lower right")
        axes.set(xlabel="1 - specificity", ylabel="sensitivity", xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal")
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


def _html(table: pd.DataFrame, **options: Any) -> Markup:
    with pd.option_context("display.max_colwidth", None):
        return Markup(table.to_html(border=0, **options))


def _settings(config: dict[str, Any]) -> pd.DataFrame:
    """config.json as a table, without what the page shows elsewhere."""
    versions = {str(i): item for i, item in enumerate(config.get("versions", []), 1)}
    flat = pd.json_normalize({**config, "versions": versions}).drop(columns=["notes", "selection"], errors="ignore")
    return flat.iloc[0].map(lambda v: ", ".join(map(str, v)) if isinstance(v, list) else str(v)).to_frame()


def _figure(image: bytes, caption: str) -> dict[str, Any]:
    width = int.from_bytes(image[16:20], "big") * 96 // DPI  # a PNG has its width there
    return {"caption": caption, "width": width, "data": base64.b64encode(image).decode()}


def _style(run: str) -> dict[str, Any]:
    """Colour says the start (TL, RI), the line says MTL (full) or STL (dashed)."""
    kind, _, start = run.partition("-")
    return {"color": COLOURS.get(start, "#444444"), "linestyle": LINES.get(kind, ":"), "linewidth": 1.5}


def _finish(axes: Axes, title: str, legend: Any) -> None:
    axes.set_title(title, loc="left", fontsize=11)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#eef1f3")
    axes.set_axisbelow(True)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc=legend, frameon=False, fontsize=9)


def _png(figure: Figure) -> bytes:
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=DPI)
    return file.getvalue()
