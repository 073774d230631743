"""Every code block of README.md and docs/ runs as it stands, in the page's order, in a folder made for it.

Those of docs/lidc.md run in test_lidc.py.
"""

from __future__ import annotations

import io
import re
from dataclasses import dataclass
from pathlib import Path

import hospital
import pages
import pytest
import synthetic
import torch
from PIL import Image
from sybil.example import SybilFailure
from torch import nn
from toystore import write_store

from ctpatch.build.run import build
from ctpatch.recipe import BuildOptions, Recipe
from ctpatch.report import plots
from mtltrain import Settings, backbones, cases, cli, figures, metrics, models

MOST_NOT_RUN = 12
"""Blocks of all pages that no test can run: installations, downloads, batch systems."""
UNFENCED = {"results.md", "study"}
"""Pages of results: what made them stands there as a record, and takes days."""


def _toy(folder: Path) -> None:
    write_store(folder / "cohort.h5", {"train": 12, "val": 8, "test": 8}, rgb=True)


def _toys(folder: Path) -> None:
    _toy(folder)
    for number in (1, 2):
        write_store(folder / f"fold{number}.h5", {"train": 8, "val": 4, "test": 6}, first=f"F{number}-")


def _hospital(folder: Path) -> None:
    hospital.write_hospital(folder)


def _clinic(folder: Path) -> None:
    hospital.write_hospital(folder, 8)


def _hospital_as_it_is(folder: Path) -> None:
    hospital.write_hospital(folder)
    hospital.write_oddities(folder)


def _built(folder: Path) -> None:
    """`cohort.h5` with pictures, of six patients, and its manifest."""
    names = hospital.write_hospital(folder, 6)
    rows = [
        {"patient_id": name, "image": f"hospital/{name}/ct", "mask": f"hospital/{name}/rtstruct.dcm", "label": label}
        for name, label in zip(names, 3 * ["benign", "malignant"], strict=True)
    ]
    manifest = synthetic.write_manifest(folder / "cohort.csv", rows)
    build(manifest, folder / "cohort.h5", BuildOptions(Recipe(patches=13, augment=1)))


PREPARED = {
    "README.md": _hospital,
    "tutorial.md": _hospital_as_it_is,
    "manifest.md": _clinic,
    "store.md": _built,
    "performance.md": _toy,
    "reading.md": _toy,
    "training.md": _toys,
}


def _blank() -> bytes:
    file = io.BytesIO()
    Image.new("1", (2 * figures.DPI, figures.DPI)).save(file, "PNG")
    return file.getvalue()


BLANK = _blank()


class Small(nn.Sequential):
    """Instead of any backbone: one convolution, so that an epoch takes a second."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 8, 16, stride=16), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten())
        self.classifier = nn.Sequential(nn.Linear(8 * 7 * 7, 1000))


@dataclass(frozen=True)
class Brief(Settings):
    """One epoch, whatever is asked for."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "epochs", 1)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small networks, one epoch and blank plots, whatever the page says: these have tests of their own."""
    torch.set_num_threads(1)
    monkeypatch.setattr(backbones.Torchvision, "_build", lambda self: Small())
    monkeypatch.setattr(models, "WIDTH", 16)
    monkeypatch.setattr(figures, "png", lambda figure: BLANK)
    monkeypatch.setattr(plots, "svg_uri", lambda figure: "data:,")
    monkeypatch.setattr(figures, "RESAMPLES", 20)
    monkeypatch.setattr(metrics, "RESAMPLES", 50)
    monkeypatch.setattr(cases, "SHOWN", 2)
    monkeypatch.setattr(cli, "Settings", Brief)


@pytest.mark.parametrize("path", [path for path in pages.PAGES if path.name != "lidc.md"], ids=lambda path: path.name)
def test_the_blocks_of_a_page(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    PREPARED.get(path.name, lambda folder: None)(tmp_path)
    page = pages.Page(path).run()
    accounted = sorted([*page.ran, *page.shown, *page.not_run, *page.lacking])
    assert accounted == [line for line, _ in page.blocks()]
    if page.lacking:
        lacking = ", ".join(sorted({*page.lacking.values()}))
        pytest.skip(f"not installed: {lacking}; the other {len(page.ran)} blocks ran")


@pytest.mark.parametrize(
    "block",
    [
        "```python\nassert 1 == 2\n```",
        "```sh\nfalse\n```",
        "```sh\nctpatch verify absent.h5\n```",
        "```console\n$ echo one\ntwo\n```",
        "```console\n$ echo one\none …more\n```",
        "```ruby\nputs 1\n```",
    ],
)
def test_a_wrong_block_is_seen(block: str, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"# A page\n\n<!-- not run: for once -->\n{block}\n", encoding="utf-8")
    assert pages.Page(page).run().not_run == {4: "for once"}
    page.write_text(f"# A page\n\n{block}\n", encoding="utf-8")
    with pytest.raises((AssertionError, SybilFailure)):
        pages.Page(page).run()


def test_a_right_dialogue(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "```console\n$ echo one two \\\n  three\none … three\n$ false\n$ echo $?\n1\n```\n", encoding="utf-8"
    )
    assert pages.Page(page).run().ran == [1]


@pytest.mark.parametrize("path", [path for path in pages.PAGES if not UNFENCED & {*path.parts}], ids=lambda p: p.name)
def test_no_code_hides_in_an_indent(path: Path) -> None:
    assert not re.search(r"^(?![-*|>0-9 ]).*\n\n {4,}\S", path.read_text(encoding="utf-8"), re.MULTILINE)


def test_few_blocks_are_not_run() -> None:
    looked = {path.name: pages.Page(path).run(evaluate=False) for path in pages.PAGES}
    not_run = {f"{name}:{line}": why for name, page in looked.items() for line, why in page.not_run.items()}
    assert len(not_run) <= MOST_NOT_RUN, not_run
    assert all(len(why) > 10 for why in not_run.values())
    assert sum(len(page.ran) for page in looked.values()) > 4 * len(not_run)
