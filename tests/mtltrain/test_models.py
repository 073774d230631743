"""Shapes, parameter counts and gradient flow of both wirings, where pre-trained weights go, and equations 1 to 3."""

import math
import urllib.error

import pytest
import torch
import torchvision
from torch import nn
from valueless import valueless

from ctpatch import InputError
from mtltrain import backbones, checkpoints, models

FC0 = {"alexnet": 9216, "resnet18": 512, "vgg16": 25088, "convnext_tiny": 768, "squeezenet1_1": 512}
LAST = {"alexnet": 4096, "resnet18": 512, "vgg16": 4096, "convnext_tiny": 768, "squeezenet1_1": 512}
TOTAL = {
    "alexnet": 61100840,
    "resnet18": 11689512,
    "vgg16": 138357544,
    "convnext_tiny": 28589128,
    "squeezenet1_1": 1235496,
}
"""Parameters of torchvision's 1000-class networks, from torchvision's documentation."""
LEVELS = [2, 5]


def count(module):
    return sum(p.numel() for p in module.parameters())


def on_meta(make):
    with valueless():
        return make()


@pytest.mark.parametrize("backbone", FC0)
def test_single_task_is_the_plain_network_resized(backbone):
    net = on_meta(lambda: models.SingleTask(backbone, 3))
    assert count(net) == TOTAL[backbone] - (1000 - 3) * (LAST[backbone] + 1)
    logits, auxiliary = net(torch.empty(2, 3, 224, 224, device="meta"))
    assert (logits.shape, auxiliary) == ((2, 3), [])


@pytest.mark.parametrize("backbone", FC0)
def test_multi_task_wiring(backbone):
    net = on_meta(lambda: models.MultiTask(backbone, 3, LEVELS))
    assert (net.fc1[0].in_features, net.fc2[0].in_features) == (FC0[backbone], FC0[backbone])
    assert count(net.fc1) == count(net.fc2) == (FC0[backbone] + 1) * 4096
    assert count(net.auxiliary) == 4097 * 7
    assert count(net.major) == (4096 + 7 + 1) * 3
    logits, auxiliary = net(torch.empty(2, 3, 224, 224, device="meta"))
    assert [t.shape for t in (logits, *auxiliary)] == [(2, 3), (2, 2), (2, 5)]
    removed = {
        "alexnet": 58631144,
        "resnet18": 513000,
        "vgg16": 123642856,
        "convnext_tiny": 769000,
        "squeezenet1_1": 513000,
    }
    assert count(net.backbone) == TOTAL[backbone] - removed[backbone]


def leaves_without_gradient(net, loss):
    net.zero_grad()
    loss.backward()
    return {name.split(".")[0] for name, p in net.named_parameters() if p.grad is None or not p.grad.any()}


@pytest.mark.parametrize("backbone", ["alexnet", "resnet18", "convnext_tiny", "squeezenet1_1"])
def test_gradient_flow(backbone):
    """The major task reaches everything, through the auxiliary softmaxes too; an auxiliary one only its own branch."""
    torch.manual_seed(0)
    net = models.build("mtl-ri", backbone, 2, LEVELS)
    major, auxiliary = net(torch.randn(2, 3, 224, 224))
    assert leaves_without_gradient(net, major[:, 0].sum()) <= {"backbone"}  # a ReLU may be dead; whole parts are not
    assert any(p.grad.any() for p in net.backbone.parameters())
    major, auxiliary = net(torch.randn(2, 3, 224, 224))
    assert leaves_without_gradient(net, auxiliary[0][:, 0].sum()) >= {"fc2", "major"}
    assert not net.auxiliary[1].weight.grad.any() if net.auxiliary[1].weight.grad is not None else True
    assert net.fc1[0].weight.grad.any()


def test_vgg16_gradient_reaches_the_first_convolution():
    net = models.build("stl-ri", "vgg16", 2, [])
    net(torch.randn(1, 3, 224, 224))[0][0, 0].backward()
    assert net.backbone.features[0].weight.grad.any()


def test_gaussian_of_variance_two_over_fan_in():
    torch.manual_seed(0)
    net = models.build("stl-ri", "alexnet", 2, [])
    for layer in (net.backbone.features[3], net.backbone.classifier[1]):
        weight = layer.weight.detach()
        assert weight.std().item() == pytest.approx(math.sqrt(2 / weight[0].numel()), rel=0.01)
        assert abs((weight / weight.std()).pow(4).mean().item() - 3) < 0.05  # kurtosis of a Gaussian
        assert not layer.bias.any()


@pytest.mark.parametrize("arch", ["mtl-tl", "stl-tl"])
@pytest.mark.parametrize("backbone", ["alexnet", "squeezenet1_1", "convnext_tiny"])
def test_pretrained_weights_and_learning_rates(arch, backbone):
    torch.manual_seed(0)
    source = torchvision.models.get_model(backbone).state_dict()
    net = models.build(arch, backbone, 2, LEVELS)
    fresh = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    models.load_pretrained(net, source)
    old, new = models.parameter_groups(net, 1e-3, True)
    assert (old["lr"], new["lr"]) == (pytest.approx(2e-4), 1e-3)
    assert len(old["params"]) + len(new["params"]) == len(list(net.parameters()))
    ids = {id(p) for p in old["params"]}
    for name, p in net.named_parameters():
        loaded = source[name.removeprefix("backbone.")] if id(p) in ids else fresh[name]
        assert torch.equal(p, loaded), name
    if backbone == "alexnet":
        assert {id(p) for p in net.backbone.features.parameters()} == ids


def test_no_pretraining_one_rate():
    net = models.build("stl-ri", "squeezenet1_1", 2, [])
    (group,) = models.parameter_groups(net, 1e-3, False)
    assert len(group["params"]) == len(list(net.parameters()))


def test_weights_of_another_backbone():
    net = models.build("stl-tl", "squeezenet1_1", 2, [])
    with pytest.raises(InputError, match="of the backbone's"):
        models.load_pretrained(net, torchvision.models.resnet18().state_dict())


def test_torchvision_weights_through_the_hub(tmp_path, monkeypatch):
    """As downloaded: the file that torchvision would have put into the hub's folder is found and used."""
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    state = torchvision.models.squeezenet1_1().state_dict()
    name = torchvision.models.SqueezeNet1_1_Weights.DEFAULT.url.rpartition("/")[2]
    (tmp_path / "checkpoints").mkdir()
    torch.save(state, tmp_path / "checkpoints" / name)
    found = backbones.published("squeezenet1_1")
    assert all(torch.equal(found[k], v) for k, v in state.items())
    assert str(backbones.named("squeezenet1_1").published_name) == "SqueezeNet1_1_Weights.IMAGENET1K_V1"


def test_no_network(tmp_path, monkeypatch):
    def offline(*args, **kwargs):
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    with pytest.raises(InputError, match="no route to host") as error:
        backbones.published("squeezenet1_1")
    assert "--weights FILE" in str(error.value)
    assert "--arch mtl-ri stl-ri" in str(error.value)


@pytest.mark.parametrize("arch", ["mtl-ri", "stl-ri"])
def test_an_earlier_run_as_weights(tmp_path, arch):
    torch.manual_seed(0)
    first = models.build(arch, "squeezenet1_1", 2, LEVELS)
    checkpoints.save_checkpoint(tmp_path / "best.pt", {"run": {}, "model": first.state_dict()})
    second = models.build("mtl-tl", "squeezenet1_1", 3, [4])
    models.load_pretrained(second, checkpoints.load_weights(tmp_path / "best.pt"))
    for one, two in zip(first.backbone.features.parameters(), second.backbone.features.parameters(), strict=True):
        assert torch.equal(one, two)


def test_unknown_backbone():
    with pytest.raises(InputError, match="no network 'lenet'"):
        models.build("stl-ri", "lenet", 2, [])


@pytest.mark.parametrize(
    "backbone", ["googlenet", "densenet121", "mobilenet_v3_small", "swin_t", "vit_b_32", "maxvit_t"]
)
def test_other_networks_have_a_place_to_cut(backbone):
    net = on_meta(lambda: models.MultiTask(backbone, 2, LEVELS))
    assert isinstance(net.fc1[0], nn.Linear)
    assert count(net.backbone) > 0
    assert count(on_meta(lambda: models.SingleTask(backbone, 2))) > 0


# -- the loss, against a case worked out by hand ----------------------------------------------------------------------

MAJOR = torch.tensor([[0.0, 0.0], [math.log(3), 0.0]], dtype=torch.float64)
LABEL = torch.tensor([0, 1])
AUX = [
    torch.tensor([[0.0, 0.0, 0.0], [0.0, math.log(2), 0.0]], dtype=torch.float64),
    torch.tensor([[0.0, math.log(4)], [0.0, 0.0]], dtype=torch.float64),
]


def test_by_hand():
    """p = 1/2 and 1/4 for the major task; 1/3 and 2/4 for task one; 1/5 and unknown for task two."""
    major = (math.log(2) + math.log(4)) / 2
    aux = (0.3 * (math.log(3) + math.log(2)) + 0.2 * math.log(5)) / 2
    loss = models.multitask_loss(MAJOR, LABEL, AUX, torch.tensor([[0, 0], [1, -1]]), [0.3, 0.2])
    assert loss.dtype == torch.float64
    assert loss.item() == pytest.approx(0.7 * major + 0.3 * aux, rel=1e-14)


def test_other_shares_of_the_major_task():
    major = (math.log(2) + math.log(4)) / 2
    aux = (0.3 * (math.log(3) + math.log(2)) + 0.2 * math.log(5)) / 2
    for m in (0, 0.3, 1):
        levels = torch.tensor([[0, 0], [1, -1]])
        loss = models.multitask_loss(MAJOR, LABEL, AUX, levels, [0.3, 0.2], major_share=m)
        assert loss.item() == pytest.approx(m * major + (1 - m) * aux, rel=1e-14)


def test_nothing_known_adds_nothing():
    loss = models.multitask_loss(MAJOR, LABEL, AUX, torch.full((2, 2), -1), [0.3, 0.2])
    assert loss.item() == pytest.approx(0.7 * (math.log(2) + math.log(4)) / 2, rel=1e-14)


def test_single_task_is_plain_cross_entropy():
    loss = models.multitask_loss(MAJOR, LABEL, [], torch.empty(2, 0), [])
    assert loss.item() == pytest.approx((math.log(2) + math.log(4)) / 2, rel=1e-14)


def test_unknown_levels_have_no_gradient():
    logits = AUX[1].clone().requires_grad_()
    models.multitask_loss(MAJOR, LABEL, [AUX[0], logits], torch.tensor([[0, 0], [1, -1]]), [0.3, 0.2]).backward()
    assert logits.grad[0].abs().min() > 0
    assert (logits.grad[1] == 0).all()
