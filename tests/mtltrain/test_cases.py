"""Where a network looked is where what decides is; the lesions shown are the most wrong and the most right."""

import base64
import io
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from toystore import run_folder, write_store

from ctpatch.store import open_store
from mtltrain import cases, models
from mtltrain.attention import class_maps, spatial_layer
from mtltrain.cohort import read_cohort
from mtltrain.files import read_csv
from mtltrain.report import write_report
from mtltrain.scores import scores, votes


class Bright(nn.Module):
    """A network whose second class is how bright the patch is anywhere."""

    def __init__(self):
        super().__init__()
        blocks = nn.Sequential(nn.Conv2d(3, 1, 16, 16, bias=False), nn.ReLU())
        nn.init.ones_(blocks[0].weight)
        head = nn.Linear(1, 2, bias=False)
        head.weight.data = torch.tensor([[-1.0], [1.0]])
        pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.backbone = nn.Sequential(blocks, pool, head)

    def forward(self, pictures):
        return self.backbone(pictures), []


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    path = write_store(tmp_path_factory.mktemp("store") / "toy.h5", {"train": 4, "val": 4, "test": 24})
    with open_store(path) as store:
        return read_cohort(store)


def test_the_map_is_brightest_on_the_disc_that_decides(cohort):
    maps = class_maps(Bright(), cohort.patches["test"], batch_size=5)
    assert maps.shape == (24, 2, 14, 14)
    assert maps.dtype == np.float16
    assert not maps[:, 0].any()  # nothing speaks for the first class
    hu = cohort.patches["test"].hu.numpy()
    for k, one in enumerate(maps[:, 1].astype(float)):
        row, column = np.unravel_index(one.argmax(), one.shape)
        assert hu[k][int((row + 0.5) * 64 / 14), int((column + 0.5) * 64 / 14)] > -200


@pytest.mark.parametrize(
    ("backbone", "size"), [("alexnet", 13), ("resnet18", 7), ("squeezenet1_1", 13), ("mobilenet_v3_small", 7)]
)
def test_the_layer_is_the_last_with_rows_and_columns(monkeypatch, cohort, backbone, size):
    monkeypatch.setattr(models, "WIDTH", 8)
    for arch in ("mtl-ri", "stl-ri"):
        net = models.build(arch, backbone, 2, [2]).eval()
        found = []
        pictures = cohort.patches["test"].pictures(slice(0, 1))
        layer = spatial_layer(net, pictures)
        layer.register_forward_hook(lambda module, _, out, found=found: found.append(out.shape))
        models.forward(net, pictures)
        assert found[0][2:] == (size, size)


def test_a_transformer_has_no_such_layer(cohort):
    class Tokens(nn.Module):
        def __init__(self):
            super().__init__()
            encoder = nn.Flatten(2)
            self.backbone = nn.Sequential(nn.Conv2d(3, 2, 16, 16), encoder, nn.Flatten(), nn.Linear(392, 2))

        def forward(self, pictures):
            return self.backbone(pictures), []

    assert class_maps(Tokens(), cohort.patches["test"], 8).size == 0


def test_a_gradient_that_cannot_be_had_costs_the_map_only(cohort, monkeypatch):
    def refuse(*_, **__):
        raise RuntimeError("adaptive_avg_pool2d_backward does not have a deterministic implementation")

    monkeypatch.setattr("captum.attr.LayerGradCam.attribute", refuse)
    assert class_maps(Bright(), cohort.patches["test"], 8).size == 0


def shown(folder, cohort):
    """The ends of the folder's only run."""
    group = scores(read_csv(folder / "predictions.csv"), cohort.classes)
    (ends,) = cases.cases(folder, cohort, group, votes(read_csv(folder / "auxiliary.csv"))).values()
    return ends


def picture(case):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(case.picture.partition(",")[2]))), float)


def test_the_most_wrong_and_the_most_right_lesions_are_shown(tmp_path, cohort):
    folder, test = run_folder(tmp_path, cohort)
    ends = shown(folder, replace(cohort, levels={"size": {1.0: "small"}}))
    assert [case.patient_id for case in ends["most right"].shown] == test["patient_id"][:10].tolist()
    assert [case.patient_id for case in ends["most wrong"].shown] == test["patient_id"][::-1][:9].tolist()
    assert (ends["most wrong"].total, ends["most right"].total) == (9, 15)  # what was right is not among the wrong
    worst = ends["most wrong"].shown[0]
    assert worst.share == pytest.approx(0.95 - 0.03 * 23)
    assert {worst.label, worst.said} == {"benign", "malignant"}
    known = {1: "small", 2: "2"}[test["aux_size"].iloc[-1]]
    assert worst.characteristics == (("size", known, "small"),)


def test_the_picture_is_the_lesion_s_own_patch_and_its_map(tmp_path, cohort):
    folder, _ = run_folder(tmp_path, cohort)
    ends = shown(folder, cohort)
    hu = cohort.patches["test"].hu.numpy()
    best = picture(ends["most right"].shown[0])
    assert best.shape == (112, 224, 3)
    inside = np.repeat(np.repeat(hu[0] > -200, 7, 0), 7, 1)[::4, ::4]  # 64 -> 112 pixels
    assert best[:, :112][inside].mean() - best[:, :112][~inside].mean() > 100
    heat = np.abs(best[:, 112:] - best[:, :112]).mean(axis=(1, 2))
    assert heat[:56].mean() > 3 * heat[84:].mean()  # both seeds looked at the upper left
    assert ends["most right"].shown[0].looked


def test_without_maps_the_patch_stands_alone(tmp_path, cohort):
    folder, _ = run_folder(tmp_path, cohort, maps=False)
    ends = shown(folder, cohort)
    assert not any(case.looked for case in ends["most wrong"].shown)
    assert picture(ends["most wrong"].shown[0]).shape == (112, 112, 3)
    text = write_report(folder, cohort).read_text()
    assert text.count('class="miss"') > 0
    assert text.count('alt="Patch of') == 19
    assert text.count("No map: nothing in the patch spoke") == 19
    assert "Most wrong: 9 of 9 classified wrongly" in text
    assert "Most right: 10 of 15 classified rightly" in text
