"""Weights as they are published: every form in which a file holds them, and names that have changed since."""

import argparse
import re
from collections import OrderedDict

import numpy as np
import pytest
import torch
import torchvision
from safetensors.torch import save_file
from valueless import valueless

from ctpatch import InputError
from mtltrain import backbones, checkpoints, models

NAME = "shufflenet_v2_x0_5"


@pytest.fixture(scope="module")
def published():
    torch.manual_seed(1)
    return torchvision.models.get_model(NAME).state_dict()


def empty(arch, backbone=NAME):
    """A network without values: what is loaded becomes its tensors."""
    with valueless():
        return models.build(arch, backbone, 2, [2, 3])


def without_counts(state):
    """As torch wrote them before 0.4.1."""
    return {name: tensor for name, tensor in state.items() if not name.endswith("num_batches_tracked")}


FORMS = {
    "plain": lambda state: state,
    "before torch 0.4.1": without_counts,
    "a training script's": lambda state: {
        "epoch": 3,
        "arch": "shufflenet",
        "state_dict": {f"module.{name}": tensor for name, tensor in state.items()},
        "optimizer": {"state": {}, "param_groups": [{"lr": 0.1}]},
    },
    "torchvision's references": lambda state: {"model": state, "epoch": 3, "args": argparse.Namespace(lr=0.1)},
    "with numpy's numbers": lambda state: {"best": np.float64(0.7), "n": np.int64(3), "state_dict": state},
    "averaged": lambda state: {"state_dict": {}, "state_dict_ema": state},
    "compiled, in DataParallel": lambda state: {f"_orig_mod.module.{name}": tensor for name, tensor in state.items()},
    "Lightning's": lambda state: {"state_dict": {f"model.{name}": tensor for name, tensor in state.items()}},
    "ten classes": lambda state: {**state, "fc.weight": torch.zeros(10, 1024), "fc.bias": torch.zeros(10)},
}


DEEPER = [
    ("resnet18", "resnet34"),
    ("resnet50", "resnet101"),
    ("convnext_tiny", "convnext_small"),
    ("swin_t", "swin_s"),
    ("efficientnet_b0", "efficientnet_b1"),
]


@pytest.mark.parametrize(("backbone", "deeper"), DEEPER)
@pytest.mark.parametrize("arch", ["mtl-tl", "stl-tl"])
def test_weights_of_a_deeper_network_are_no_weights_of_this_one(backbone, deeper, arch):
    """They have all of its tensors."""
    with valueless():
        weights = torchvision.models.get_model(deeper).state_dict()
    with pytest.raises(InputError, match=r"\d+ blocks of layers that the backbone does not .*name the --backbone"):
        models.load_pretrained(empty(arch, backbone), weights)


@pytest.mark.parametrize(
    "backbone", [n for n in torchvision.models.list_models(torchvision.models) if "regnet" not in n]
)
@pytest.mark.parametrize("arch", ["mtl-tl", "stl-tl"])
def test_each_network_s_own_weights_are_taken_with_what_they_have_beside(backbone, arch):
    """Heads of other sizes, and auxiliary classifiers, are left behind."""
    with valueless():
        options = {"init_weights": False} if backbone in ("googlenet", "inception_v3") else {}
        weights = torchvision.models.get_model(backbone, **options).state_dict()
    models.load_pretrained(empty(arch, backbone), weights)


@pytest.mark.parametrize("text", ["Rate limit", "Quota exceeded", "(see readme)", "a,b\n1,2\n", "Repository not found"])
def test_a_page_instead_of_weights(tmp_path, text):
    (tmp_path / "w.pth").write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=r"w\.pth: no readable checkpoint"):
        checkpoints.load_weights(tmp_path / "w.pth")


def test_tensors_without_names(tmp_path):
    torch.save({0: torch.zeros(2)}, tmp_path / "w.pth")
    with pytest.raises(InputError, match="no state dict"):
        checkpoints.load_weights(tmp_path / "w.pth")


def same(net, expected):
    """Whether all tensors of the backbone but the head's are the published ones, under the published names."""
    found = {k: tensor for k, tensor in net.backbone.state_dict().items() if not k.startswith(("fc", "classifier"))}
    wanted = {k for k in expected if not k.startswith(("fc", "classifier"))}
    return wanted == set(found) and all(torch.equal(tensor, expected[k]) for k, tensor in found.items())


@pytest.mark.parametrize("arch", ["stl-tl", "mtl-tl"])
@pytest.mark.parametrize("form", FORMS)
def test_files_in_every_form(tmp_path, published, form, arch):
    torch.save(FORMS[form](published), tmp_path / "w.pth")
    net = empty(arch)
    models.load_pretrained(net, checkpoints.load_weights(tmp_path / "w.pth"))
    assert same(net, published)


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float64])
def test_other_precision_becomes_the_networks_own(published, monkeypatch, kind):
    monkeypatch.setattr(models, "WIDTH", 8)
    net = models.build("mtl-tl", NAME, 2, [2])
    before = [id(tensor) for tensor in net.parameters()]
    half = {name: tensor.to(kind) if tensor.is_floating_point() else tensor for name, tensor in published.items()}
    models.load_pretrained(empty("mtl-tl"), half)
    models.load_pretrained(net, half)
    assert same(net, {name: half[name].to(tensor.dtype) for name, tensor in published.items()})
    assert [id(tensor) for tensor in net.parameters()] == before


@pytest.mark.parametrize("counts", [True, False])
def test_safetensors(tmp_path, published, counts):
    save_file(published if counts else without_counts(published), tmp_path / "w.safetensors")
    net = empty("stl-tl")
    models.load_pretrained(net, checkpoints.load_weights(tmp_path / "w.safetensors"))
    assert same(net, published)


def test_legacy_file_of_torch_before_1_6(tmp_path, published):
    torch.save(published, tmp_path / "w.pth", _use_new_zipfile_serialization=False)
    net = empty("stl-tl")
    models.load_pretrained(net, checkpoints.load_weights(tmp_path / "w.pth"))
    assert same(net, published)


def test_numbers_of_numpy_1(tmp_path, published):
    """It called its scalars' module otherwise."""
    torch.save(
        {"best": np.float64(0.7), "state_dict": published}, tmp_path / "w.pth", _use_new_zipfile_serialization=False
    )
    data = (tmp_path / "w.pth").read_bytes()
    assert b"numpy._core.multiarray" in data or np.__version__ < "2"
    (tmp_path / "w.pth").write_bytes(data.replace(b"numpy._core.multiarray", b"numpy.core.multiarray"))
    assert len(checkpoints.load_weights(tmp_path / "w.pth")) == len(published)


@pytest.mark.parametrize("content", [b"", b"{}", (99).to_bytes(8, "little") + b"{"])
def test_damaged_safetensors(tmp_path, content):
    (tmp_path / "w.safetensors").write_bytes(content)
    with pytest.raises(InputError, match="no readable checkpoint"):
        checkpoints.load_weights(tmp_path / "w.safetensors")


@pytest.mark.parametrize("made", [{"state_dict": {}}, {"state_dict": {"w": 1}}, {"epoch": 1}, {}, torch.ones(2)])
def test_files_without_a_state_dict(tmp_path, made):
    torch.save(made, tmp_path / "w.pth")
    with pytest.raises(InputError, match=r"lack|no state dict"):
        models.load_pretrained(empty("stl-tl"), checkpoints.load_weights(tmp_path / "w.pth"))


def misshapen(state):
    return {**state, "conv1.0.weight": torch.zeros(24, 1, 3, 3)}


def cut(state):
    return {name: tensor for name, tensor in state.items() if not name.startswith("conv5.1.")}


@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize(
    ("change", "says"),
    [
        (misshapen, r"lack 1 of the backbone's 336 tensors, or have another shape \(conv1\.0\.weight\)"),
        (
            cut,
            r"lack 4 of the .* \(conv5\.1\.weight, conv5\.1\.bias, conv5\.1\.running_mean, \.\.\.\)",
        ),
    ],
)
def test_what_is_missing_or_misshapen_is_named(published, change, says, device):
    with torch.device(device):
        net = models.build("stl-tl", NAME, 2, [])
    with pytest.raises(InputError, match=says):
        models.load_pretrained(net, without_counts(change(published)))


def quantised(state):
    return {name: tensor.to(torch.int8) for name, tensor in state.items()}


def holed(value):
    def change(state):
        return {**state, "conv1.0.weight": torch.full_like(state["conv1.0.weight"], value)}

    return change


@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize(
    ("change", "says"),
    [
        (quantised, r"the weights' conv1\.0\.weight is of int8 where the backbone's is of float32\. Do: "),
        (holed(torch.nan), r"the weights' conv1\.0\.weight is not finite\. Do: "),
        (holed(-torch.inf), r"the weights' conv1\.0\.weight is not finite\. Do: "),
    ],
)
def test_tensors_that_nothing_can_be_trained_from_are_named(published, change, says, device):
    with torch.device(device):
        net = models.build("stl-tl", NAME, 2, [])
    with pytest.raises(InputError, match=says):
        models.load_pretrained(net, change(published))


def test_what_a_head_that_is_left_behind_holds_is_no_matter(published):
    heads = {"fc.weight": torch.full((7, 1024), torch.nan), "fc.bias": torch.zeros(7, dtype=torch.int8)}
    models.load_pretrained(empty("stl-tl"), {**published, **heads})


def old_densenet_names(state):
    """As in torchvision's densenet121-a639ec97.pth, of 2017."""
    old = without_counts(state).items()
    return {re.sub(r"(denselayer\d+\.(?:norm|conv))([12]\.)", r"\1.\2", name): tensor for name, tensor in old}


def test_densenet_of_before_2018(tmp_path, monkeypatch):
    """As a file, and where torchvision's download would have put it."""
    state = torchvision.models.densenet121().state_dict()
    old = old_densenet_names(state)
    assert "features.denseblock1.denselayer1.norm.1.weight" in old
    (tmp_path / "checkpoints").mkdir()
    file = tmp_path / "checkpoints/densenet121-a639ec97.pth"
    torch.save(old, file)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    for weights in (checkpoints.load_weights(file), backbones.published("densenet121")):
        net = empty("mtl-tl", "densenet121")
        models.load_pretrained(net, weights)
        assert same(net, state)


@pytest.mark.parametrize("backbone", ["vit_b_32", "mnasnet0_5"])
def test_torchvisions_own_older_names(backbone):
    """ViT's two linear layers had other names; MNASNet looks for the version of what it loads."""
    with valueless():
        state = torchvision.models.get_model(backbone).state_dict()
    old = OrderedDict((re.sub(r"mlp\.([03])\.", _linear, name), tensor) for name, tensor in state.items())
    assert (backbone == "vit_b_32") == any("linear_2" in name for name in old)
    models.load_pretrained(empty("stl-tl", backbone), old)


def _linear(match):
    return f"mlp.linear_{1 if match[1] == '0' else 2}."
