"""The data card: counts that a reader can check, no word on a single patient, and no markup from a manifest."""

import re

import numpy as np
import pytest

from ctpatch import StoreWriter, open_store
from ctpatch.cli import main
from ctpatch.store import data_card, flow, markdown, markdown_table

HU = np.zeros((2, 64, 64), np.int16)
LESIONS = [
    ("Huber", "1", "test", ""),
    ("Meier", "1", "val", "T4"),
    ("Mueller", "1", "train", "T3"),
    ("Mueller", "2", "train", "T4"),
]


def write(path, levels=("poor", "sharp"), **documents):
    aux = {"margin": dict(enumerate(levels))}
    with StoreWriter(path, label_classes=["T3", "T4"], aux_levels=aux, rgb=False, **documents) as store:
        for n, (patient, lesion, split, label) in enumerate(LESIONS):
            hu = HU if split == "train" else HU[:1]
            more = {"hu": hu, "diameter_mm": 4.0 + n, "aux": {"margin": (1.0, np.nan, 0.0, 1.0)[n]}}
            store.add(patient_id=patient, lesion_id=lesion, split=split, label=label, **more)
        store.skip("Huber", "2", "a contour lies outside")
        store.skip("Schmidt", "1", "a slice is missing")
    return path


def cells(line):
    """A Markdown table's line; an escaped bar does not end a cell."""
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


def test_flow_from_the_manifest_to_the_splits(tmp_path):
    with open_store(write(tmp_path / "s.h5")) as store:
        rows = {row["name"]: row for row in flow(store)}
    counts = {name: (row["patients"], row["lesions"]) for name, row in rows.items()}
    assert counts == {"in the manifest": (4, 6), "left out": (1, 2), "train": (1, 2), "val": (1, 1), "test": (1, 1)}
    assert [rows["train"][name] for name in ("class T3", "class T4", "unlabelled")] == [1, 1, 0]
    assert [rows["test"][name] for name in ("class T3", "class T4", "unlabelled")] == [0, 0, 1]
    split = [sum(rows[name][what] for name in ("train", "val", "test", "left out")) for what in ("patients", "lesions")]
    assert split == [4, 6]


def test_card_says_what_is_in_the_store(tmp_path, capsys):
    recipe = {
        "seed": 4,
        "patches": 2,
        "rows": [{"accept": ["gap"], "center": None}, {"accept": ["gap"], "center": [0]}],
    }
    provenance = {
        "manifest_sha256": "ab" * 32,
        "keep_uids": False,
        "versions": {"numpy": "2.0"},
        "notes": {"Huber 1": []},
    }
    path = write(tmp_path / "s.h5", recipe=recipe, provenance=provenance)
    assert main(["info", "--card", str(path)]) == 0
    card = capsys.readouterr().out
    with open_store(path) as store:
        assert card == data_card(store)
        assert f"`{store.digest}`" in card
    lines = [cells(line) for line in card.splitlines() if line.startswith("|")]
    for line in (["train", "1", "2", "1", "1", "0"], ["margin", "poor: 1, sharp: 2", "1"], ["gap", "2"], ["seed", "4"]):
        assert line in lines
    for text in (
        "4.0 to 7.0 mm, median 5.5 mm",
        "train 4, val 1, test 1",
        "ab" * 32,
        "numpy 2.0",
    ):
        assert text in card
    assert "digests of SeriesInstanceUIDs" in card


def test_card_names_no_patient_and_no_path(tmp_path):
    with open_store(write(tmp_path / "s.h5", provenance={"notes": {"Huber 1": ["a gap"]}})) as store:
        card = data_card(store)
    assert not [name for name, *_ in LESIONS if name in card]
    assert "Schmidt" not in card
    assert str(tmp_path) not in card
    assert "s.h5" not in card
    assert "not made by ctpatch build" in card


@pytest.mark.parametrize(
    "document", [{}, {"rows": 1, "notes": "x", "versions": [1]}, {"rows": [1, {"accept": 2}], "fold": {}}]
)
def test_documents_of_another_shape(tmp_path, document):
    with open_store(write(tmp_path / "s.h5", recipe=document, provenance=document)) as store:
        assert data_card(store).startswith("# Data card")


EVIL = "a|b<script>*x*`\n# title"


def test_names_stay_names(tmp_path):
    with open_store(write(tmp_path / "s.h5", levels=(EVIL, "sharp"))) as store:
        card = data_card(store)
    (line,) = [line for line in card.splitlines() if line.startswith("| margin")]
    assert len(cells(line)) == 3
    assert not re.search(r"(?<!\\)<script|^# title", card, re.M)
    assert re.sub(r"\\([^n])", r"\1", markdown(EVIL)) == EVIL.replace("\n", r"\n")


def test_table_of_rows():
    rows = [{"name": "a", "n": 1}, {"name": "b", "m": 2.5}]
    assert markdown_table(rows).splitlines() == [
        "|  | n | m |",
        "| --- | --- | --- |",
        "| a | 1 |  |",
        "| b |  | 2.5 |",
    ]
    assert markdown_table([]) == ""
