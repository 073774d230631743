"""The run folder's report: two plots and one self-contained HTML page, made from the folder's own files."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator, Mapping
from html import escape
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from .compare import Scores, load_metrics, read_predictions, reasons, run_name, scores, tables
from .metrics import one_vs_rest, roc_points

DPI = 192  # twice what a browser calls a pixel
COLOURS = {"tl": "#0072b2", "ri": "#d55e00"}
LINES = {"mtl": "-", "stl": (0, (4, 2))}
CSS = """
:root { color-scheme: light }
body { max-width: 62rem; margin: 2.5rem auto; padding: 0 1.25rem; background: #fff; color: #1d2328;
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif }
h1 { font-size: 1.7rem; font-weight: 600; margin: 0 0 .25rem }
h2 { font-size: 1.1rem; font-weight: 600; margin: 2.4rem 0 .6rem }
.lead { color: #59636b; margin: 0 }
.scroll { overflow-x: auto }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums }
th, td { padding: .35rem 1rem .35rem 0; text-align: left !important; white-space: nowrap; vertical-align: top }
thead th { font-weight: 600; border-bottom: 1.5px solid #1d2328 }
tbody th { font-weight: 500 }
tbody tr + tr > * { border-top: 1px solid #e4e8eb }
.wrap td { white-space: normal; overflow-wrap: anywhere }
img { max-width: 100%; height: auto; display: block }
figcaption { color: #59636b; font-size: .9rem }
figure { margin: 0 }
li { margin: .2rem 0 }
"""


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
    metrics = load_metrics(folder)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    group = scores(read_predictions(folder / "predictions.csv"), metrics["classes"])
    plots = {"roc.png": plot_roc(metrics, group), "training.png": plot_training(pd.read_csv(folder / "history.csv"))}
    images = {name: _png(figure) for name, figure in plots.items()}
    for name, image in images.items():
        (folder / name).write_bytes(image)
    page = folder / "report.html"
    page.write_text(_page(metrics, config, images), encoding="utf-8")
    return page


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


def caveats(metrics: Mapping[str, Any]) -> Iterator[str]:
    """Say what the numbers do not say."""
    methods, test = metrics["methods"], metrics["test"]
    yield f"95 % intervals: {methods['auc']} for AUC, {methods['proportions']} for proportions."
    yield (
        f"The intervals say how much depends on which {test['lesions']} lesions were tested, not how another training "
        "run or another hospital would differ."
    )
    if metrics["tests"]:
        yield f"MTL against STL: {methods['auc_test']} and {methods['test']}, two-sided, not adjusted for their number."
    if any(len(entry["seeds"]) == 1 for entry in metrics["runs"].values()):
        yield "Trained with one seed: a difference between two runs may be one of chance in training."
    if any(len(entry["seeds"]) > 1 for entry in metrics["runs"].values()):
        yield "With several seeds, values and tests are of each lesion's probabilities averaged over the seeds."
    yield "The epoch kept is the one with the best validation AUC; test lesions took no part in any choice."
    few = [f"{count} of class {name}" for name, count in test["counts"].items() if count < 30]
    if few:
        yield f"Few test lesions ({', '.join(few)}): expect wide intervals."
    if test["unlabelled"]:
        yield f"Test lesions without a label, predicted and not scored: {test['unlabelled']}."
    yield from (f"Undefined: {reason}." for reason in reasons(metrics))
    yield "For research; not a medical device."


def _page(metrics: Mapping[str, Any], config: Mapping[str, Any], images: Mapping[str, bytes]) -> str:
    sections = {title: _table(table) for title, table in tables(metrics).items()}
    sections["ROC curves"] = _figure(images["roc.png"], "ROC curves of the test lesions")
    caption = "A line per seed, a dot at the epoch kept. MTL's loss has auxiliary terms: compare it with MTL's only"
    sections["Training"] = _figure(images["training.png"], caption)
    notes = [*config.get("notes", []), *caveats(metrics)]
    sections["How to read this"] = "<ul>" + "".join(f"<li>{escape(str(note))}</li>" for note in notes) + "</ul>"
    settings = pd.Series(dict(_flat(config)), dtype=str).to_frame()
    sections["To run it again"] = _table(settings, header=False, classes="wrap")
    body = "".join(f"<section><h2>{escape(title)}</h2>{content}</section>\n" for title, content in sections.items())
    lead = ", ".join(run_name(run) for run in metrics["runs"]) + f" trained on {config.get('store', 'a store')}"
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; img-src data:; style-src 'unsafe-inline'\">"
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>mtltrain report</title><style>{CSS}</style></head>\n<body><h1>Multi-task against single-task</h1>"
        f'<p class="lead">{escape(lead)}</p>\n{body}</body></html>\n'
    )


def _table(table: pd.DataFrame, *, header: bool = True, classes: str = "") -> str:
    with pd.option_context("display.max_colwidth", None):
        html = table.to_html(border=0, header=header, classes=classes)
    return f'<div class="scroll">{html}</div>'


def _figure(image: bytes, caption: str) -> str:
    source = "data:image/png;base64," + base64.b64encode(image).decode()
    text, width = escape(caption), int.from_bytes(image[16:20], "big") * 96 // DPI  # a PNG has its width there
    return f'<figure><img alt="{text}" width="{width}" src="{source}"><figcaption>{text}.</figcaption></figure>'


def _flat(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """Nested JSON as `a.b` -> text, without what the page shows elsewhere."""
    if isinstance(value, list) and any(isinstance(item, Mapping) for item in value):
        value = {str(i): item for i, item in enumerate(value, 1)}
    if isinstance(value, Mapping):
        for key, item in value.items():
            if key not in ("notes", "selection"):
                yield from _flat(item, f"{name}.{key}" if name else str(key))
    else:
        yield name, ", ".join(map(str, value)) if isinstance(value, list) else str(value)


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
