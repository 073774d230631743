"""The cohort in plots: where each lesion lies among its class, and the classes' HU."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from .cohort import UNITS, classes, splits
from .from_store import HU_EDGES

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00")
"""Okabe & Ito's, which colour-blind people tell apart; used in turn."""
MARKERS = {"train": "o", "val": "s", "test": "^"}
_SVG: Any = {"svg.hashsalt": "ctpatch", "svg.fonttype": "path", "font.size": 9, "axes.titlesize": 10}
MANY = 400
"""From so many lesions on, dots are drawn as one picture and not as paths."""


def strip(table: pd.DataFrame, column: str) -> Figure:
    """A dot per lesion by class, a bar at the median; the marker says the split."""
    figure = Figure(figsize=(3.4, 2.9), layout="constrained")
    axes, names, rng = figure.subplots(), classes(table), np.random.default_rng(0)
    for k, name in enumerate(names):
        part = table[(table["label"] == name) & table[column].notna()]
        aside = k + rng.uniform(-0.28, 0.28, len(part))
        for split, marker in MARKERS.items():
            mine = (part["split"] == split).to_numpy()
            style: dict[str, Any] = {"color": COLOURS[k % len(COLOURS)], "alpha": 0.65, "linewidths": 0}
            axes.scatter(
                aside[mine], part.loc[mine, column], s=16, marker=marker, rasterized=len(table) > MANY, **style
            )
        if len(part):
            axes.hlines(part[column].median(), k - 0.36, k + 0.36, color="#1d2328", linewidth=1.6)
    axes.set_xticks(range(len(names)), [shortened(name) for name in names])
    axes.set(xlim=(-0.6, len(names) - 0.4))
    keys = [Line2D([], [], linestyle="", marker=MARKERS[name], color="#555555", label=name) for name in splits(table)]
    figure.legend(handles=keys, loc="outside lower center", ncols=len(keys), frameon=False, fontsize=8)
    _finish(axes, UNITS[column])
    return figure


def hu_curves(histograms: Mapping[str, NDArray[np.int64]]) -> Figure:
    """Share of the original patches' pixels at each HU, a curve per class."""
    figure = Figure(figsize=(7.1, 2.9), layout="constrained")
    axes = figure.subplots()
    for k, (name, counts) in enumerate(histograms.items()):
        colour, line = COLOURS[k % len(COLOURS)], ("-", "--", ":", "-.")[k % 4]
        share = counts / max(counts.sum(), 1)
        axes.stairs(100 * share, HU_EDGES, color=colour, linestyle=line, linewidth=1.6, label=shortened(name))
    axes.legend(frameon=False)
    axes.set(xlabel="HU", ylabel="% of pixels", xlim=(HU_EDGES[0], HU_EDGES[-1]))
    _finish(axes, "HU of the original patches, by class")
    return figure


def shortened(name: str, most: int = 14) -> str:
    """A name that fits under an axis; dollar signs are no formulas."""
    return (name if len(name) <= most else name[: most - 1] + "…").replace("$", r"\$")


def _finish(axes: Axes, title: str) -> None:
    axes.set_title(title, loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#e8ebee")
    axes.set_axisbelow(True)


def svg_uri(figure: Figure) -> str:
    """A figure as the text of an image's address: the same each time."""
    file = io.BytesIO()
    with mpl.rc_context(_SVG):
        figure.savefig(file, format="svg", dpi=160, metadata={"Date": None, "Creator": None})
    return "data:image/svg+xml;base64," + base64.b64encode(file.getvalue()).decode()
