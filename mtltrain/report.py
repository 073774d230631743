"""The run folder's report: plots and one self-contained HTML page, made from the folder's own files and the cohort."""

from __future__ import annotations

import base64
import shlex
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, Template
from markupsafe import Markup

from ctpatch.store import SPLITS

from . import figures
from .cases import cases, shown_window
from .cohort import Cohort
from .compare import load_metrics
from .confusion import characteristics, diagnoses
from .files import read_csv, read_json, write
from .scores import scores, votes
from .tables import FEWEST, FLOW, reasons, run_name, tables, verdicts

TEMPLATE = Path(__file__).with_name("report.html")

CAPTIONS = {
    "roc.png": (
        "ROC curves",
        "Test lesions. Bands are pointwise 95 % intervals over resampled patients; a perfect curve has"
        " none, however few the lesions",
    ),
    "calibration.png": (
        "Calibration",
        "Test lesions: on the diagonal, of those given 30 % three in ten are of the class. Bars are 95 % intervals,"
        " ticks at the edges the lesions; MTL's are at the top",
    ),
    "decision.png": (
        "Decision curve",
        "Test lesions: benefit, in true positives per lesion, of acting on probabilities above a threshold, which says"
        " how many false alarms a true one is worth",
    ),
    "training.png": (
        "Training",
        "A line per seed, a dot at the epoch kept. MTL's loss has auxiliary terms: compare it with MTL's only",
    ),
}
"""Title and caption of each plot by its file."""


def write_report(folder: Path, cohort: Cohort | None = None) -> Path:
    """Write `report.html` and the plots in it.

    Parameters
    ----------
    folder : path
        Run folder with `metrics.json`, `predictions.csv`, `auxiliary.csv`, `history.csv` (run, seed, epoch,
        train_loss, val_auc, ...) and `config.json`: any JSON object, shown as it is; its optional `notes`, a list, join
        the caveats. Each run's `attention.npy`, where it is.
    cohort : Cohort, optional
        The store's lesions and patches; with it the page shows the lesions that each run got most wrong and right.

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
    group = scores(read_csv(folder / "predictions.csv"), metrics["classes"], metrics["positive"])
    said = votes(read_csv(folder / "auxiliary.csv"))
    drawn = {
        "roc.png": figures.plot_roc(metrics, group),
        "calibration.png": figures.plot_calibration(metrics, group),
        "decision.png": figures.plot_decision(metrics, group),
        "training.png": figures.plot_training(pd.read_csv(folder / "history.csv")),
    }
    images = {name: figures.png(figure) for name, figure in drawn.items()}
    page = _template().render(
        runs=[run_name(run) for run in metrics["runs"]],
        store=config.get("store", "a store"),
        flow=_flow(metrics),
        tables=_tables({title: table for title, table in tables(metrics).items() if title != FLOW}),
        confusion=_tables(diagnoses(group)),
        characteristics=_tables(characteristics(said, cohort.levels if cohort else {})),
        figures=[_figure(image, *CAPTIONS[name]) for name, image in images.items()],
        cases=cases(folder, cohort, group, said) if cohort else {},
        window=shown_window(cohort) if cohort else None,
        width=_width(config),
        command=command(config) if "arch" in config else "",
        metrics=metrics,
        seeds=[len(entry["seeds"]) for entry in metrics["runs"].values()],
        fewest=FEWEST,
        reasons=reasons(metrics),
        verdicts=verdicts(metrics),
        notes=config.get("notes", []),
        settings=_html(_settings(config), header=False, classes="wrap"),
    )
    for name, image in images.items():
        write(folder / name, image)
    write(folder / "report.html", page)
    return folder / "report.html"


@cache
def _template() -> Template:
    return Environment(autoescape=True, trim_blocks=True).from_string(TEMPLATE.read_text(encoding="utf-8"))


def _flow(metrics: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Steps of the flow of patients as {name, patients, lesions, classes (text), arrow}; none in older files.

    The arrow is at the first split, to which and not from which the others are divided.
    """
    shown, rows, steps = ("name", "patients", "lesions"), metrics.get("flow", []), []
    first = next((row["name"] for row in rows if row["name"] in SPLITS), None)
    for row in rows:
        counts = [f"{key.removeprefix('class ')} {n}" for key, n in row.items() if key not in shown and n]
        told = {"classes": ", ".join(counts), "arrow": row["name"] == first}
        steps.append({key: row[key] for key in shown} | told)
    return steps


def _tables(made: Mapping[str, pd.DataFrame]) -> dict[str, Markup]:
    return {title: _html(table) for title, table in made.items()}


def _html(table: pd.DataFrame, **options: Any) -> Markup:
    with pd.option_context("display.max_colwidth", None):
        html = table.to_html(border=0, **options)
    return Markup(html.replace("<th></th>", "<td></td>"))  # the corner is nobody's head


def _settings(config: dict[str, Any]) -> pd.DataFrame:
    """config.json as a table, without what the page shows elsewhere, and whom it was trained on."""
    versions = {str(i): item for i, item in enumerate(config.get("versions", []), 1)}
    flat = pd.json_normalize({**config, "versions": versions}).drop(
        columns=["notes", "selection", "training_patients"], errors="ignore"
    )
    return flat.iloc[0].map(lambda v: ", ".join(map(str, v)) if isinstance(v, list) else str(v)).to_frame()


def command(config: Mapping[str, Any]) -> str:
    """The call that makes a run folder of this `config.json`."""
    told = {name: config[name] for name in ("arch", "seeds", "backbone", "epochs", "patience", "batch_size", "lr")}
    told |= {"m": config["major_share"]}
    told |= {"positive": config["positive"]} if config["positive"] else {"label_order": config["order"]}
    if tasks := config["chosen_tasks"]:
        told["tasks"] = [name if weight is None else f"{name}={weight:g}" for name, weight in tasks.items()]
    told |= {"weights": "FILE"} if " sha256 " in config["tl_weights"] else {}
    words = ["mtltrain", "fit", "STORE.h5"]
    for name, value in told.items():
        words += [f"--{name.replace('_', '-')}", *map(str, value if isinstance(value, list) else [value])]
    return shlex.join(words + [f"--{name}" for name in ("balanced", "deterministic") if config[name]])


def _width(config: Mapping[str, Any]) -> str:
    """Of a patch, mm; "" where the store does not say."""
    side = [config.get("recipe", {}).get(name) for name in ("patch_size", "spacing_mm")]
    return f"{side[0] * side[1]:g}" if all(isinstance(value, int | float) for value in side) else ""


def _figure(image: bytes, title: str, caption: str) -> dict[str, Any]:
    width = int.from_bytes(image[16:20], "big") * 96 // figures.DPI  # a PNG has its width there
    return {"title": title, "caption": caption, "width": width, "data": base64.b64encode(image).decode()}
