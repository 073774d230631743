"""The cohort in plots: where each lesion lies among its class, and the classes' HU."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
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
UPRIGHT, MOST_IN_LEGEND = 26, 40
"""Letters of all classes that stand side by side under an axis, and of one in a legend."""
RARE = 0.001
"""Share of a class's pixels at either end that the HU curves leave out."""
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
    shown = shortened(names)
    slanted: dict[str, Any] = {"rotation": 30, "ha": "right", "rotation_mode": "anchor"}
    axes.set_xticks(range(len(names)), shown, **slanted if len("".join(shown)) > UPRIGHT else {})
    axes.set(xlim=(-0.6, len(names) - 0.4))
    keys = [Line2D([], [], linestyle="", marker=MARKERS[name], color="#555555", label=name) for name in splits(table)]
    figure.legend(handles=keys, loc="outside lower center", ncols=len(keys), frameon=False, fontsize=8)
    figure.suptitle(UNITS[column], x=0.02, ha="left", fontsize=10)
    _finish(axes)
    return figure


def hu_curves(histograms: Mapping[str, NDArray[np.int64]]) -> Figure:
    """Share of the original patches' pixels at each HU, a curve per class."""
    figure = Figure(figsize=(7.1, 2.9), layout="constrained")
    axes = figure.subplots()
    shown = shortened(list(histograms), MOST_IN_LEGEND)
    for k, (name, counts) in enumerate(zip(shown, histograms.values(), strict=True)):
        colour, line = COLOURS[k % len(COLOURS)], ("-", "--", ":", "-.")[k % 4]
        share = counts / max(counts.sum(), 1)
        axes.stairs(100 * share, HU_EDGES, color=colour, linestyle=line, linewidth=1.6, label=name)
    axes.legend(frameon=False)
    axes.set(xlabel="HU", ylabel="% of pixels", xlim=_met(list(histograms.values())))
    axes.set_title("HU of the original patches, by class", loc="left")
    _finish(axes)
    return figure


def shortened(names: Sequence[str], most: int = 20) -> list[str]:
    """Names that fit under an axis, in full where they would else look alike; dollar signs are no formulas."""
    short = [name if len(name) <= most else name[: most - 1] + "…" for name in names]
    return [text.replace("$", r"\$") for text in (short if len(set(short)) == len(names) else names)]


def _met(histograms: Sequence[NDArray[np.int64]]) -> tuple[float, float]:
    """The HU between which all but a thousandth of each class's pixels lie, and a bin more on either side."""
    shares = [counts.cumsum() / max(counts.sum(), 1) for counts in histograms]
    low = min(int((share <= RARE).sum()) for share in shares)
    high = max(int((share < 1 - RARE).sum()) for share in shares)
    return float(HU_EDGES[max(low - 1, 0)]), float(HU_EDGES[min(high + 2, len(HU_EDGES) - 1)])


def _finish(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#e8ebee")
    axes.set_axisbelow(True)


def svg_uri(figure: Figure) -> str:
    """A figure as the text of an image's address: the same each time."""
    file = io.BytesIO()
    with mpl.rc_context(_SVG):
        figure.savefig(file, format="svg", dpi=160, metadata={"Date": None, "Creator": None})
    return "data:image/svg+xml;base64," + base64.b64encode(file.getvalue()).decode()
