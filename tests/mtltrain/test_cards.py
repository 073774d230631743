"""The model card has the folder's own numbers, and neither patients nor files nor markup from a manifest."""

import re
from dataclasses import asdict

import pytest
from toystore import predictions

from mtltrain import Settings
from mtltrain.cards import model_card
from mtltrain.compare import evaluate
from mtltrain.tables import run_name

SELECTION = [
    {"name": "a|b<i>", "r": -0.294, "p": 0.04, "test": "permutation", "n": 25, "kept": True, "reason": ""},
    {"name": "cusp", "r": 0.1, "p": 0.6, "test": "t", "n": 90, "kept": False, "reason": "p >= 0.05"},
]
FLOW = [{"name": "train", "patients": 3, "lesions": 4, "class T3": 1, "class T4": 3}]


def card(classes=("T3", "T4"), runs=("mtl-tl", "stl-ri"), **config):
    made = {
        **asdict(Settings()),
        "normalisation": [[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]],
        "windows": [[-800, -200], [-200, 400], [-1000, 400]],
        "store_sha256": "ab" * 32,
        "store": "Mueller.h5",
        "seeds": [0, 1],
        "device": ["cuda", "cpu"],
        "tl_weights": "Mueller-imagenet.pth sha256 " + "cd" * 32,
        "versions": [{"torch": "2.6", "python": "3.11"}],
        "notes": ["train: 3 of T3"],
        **config,
    }
    table = predictions(runs=runs, classes=classes, seeds=(0, 1), lesions=30)
    metrics = evaluate(table, list(classes), selection=SELECTION, flow=FLOW)
    return model_card(made, metrics), metrics


@pytest.mark.parametrize("classes", [("T3", "T4"), ("T2", "T3", "T4")])
def test_every_figure_of_the_tables(classes):
    text, metrics = card(classes)
    for run, entry in metrics["runs"].items():
        assert run_name(run) in text
        points = [entry["calibration"][name]["slope"] for name in entry["calibration"]]
        for item in (*entry["metrics"].values(), *points):
            assert f"{item['value']:.3f} ({item['low']:.3f} to {item['high']:.3f})" in text
    for part in ("| train | 3 | 4 | 1 | 3 |", "cusp", "ab" * 32, "cuda, cpu", "torch 2.6, python 3.11", "DeLong"):
        assert part in text


def test_sections_and_tasks():
    text, _ = card()
    titles = re.findall(r"^## (.*)", text, re.M)
    assert titles == [
        *("Model", "Intended use", "Data", "Training", "Results", "How they were found", "Limits", "Made with")
    ]
    assert r"| auxiliary tasks of MTL | a\|b\<i\> (\|r\| 0.29) |" in text
    assert "<i>" not in text


def test_the_tasks_are_those_that_were_trained():
    text, _ = card(chosen_tasks={"cusp": 0.5, "a|b<i>": None})
    assert r"| auxiliary tasks of MTL | cusp (weight 0.5), a\|b\<i\> (weight \|r\|) |" in text
    single, _ = card(runs=("stl-tl", "stl-ri"))
    assert "| auxiliary tasks of MTL | none |" in single


def test_no_patient_and_no_file():
    text, _ = card()
    assert "Mueller" not in text
    assert "a file of sha256 " + "cd" * 32 in text
    published, _ = card(tl_weights="AlexNet_Weights.IMAGENET1K_V1")
    assert r"| pre-trained weights of TL | AlexNet\_Weights.IMAGENET1K\_V1 |" in published
    assert "| pre-trained weights of TL | none |" in card(runs=("mtl-ri", "stl-ri"))[0]
