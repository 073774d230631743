"""Networks by name, torchvision's and timm's: where they are cut, what their input looks like, published weights."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from types import ModuleType
from typing import Any

import torch
import torchvision
from torch import Tensor, nn

from ctpatch.store import IMAGENET, InputError, Normalisation

from .data import SIZE

TIMM = "timm:"
"""What a timm network's name starts with; others are torchvision's."""

_OPTIONS: dict[str, dict[str, Any]] = {
    name: {"aux_logits": False, "transform_input": True, "init_weights": False}
    for name in ("googlenet", "inception_v3")
}


@dataclass(frozen=True)
class Torchvision:
    """A torchvision classification network."""

    name: str

    def __post_init__(self) -> None:
        known = torchvision.models.list_models(module=torchvision.models)
        if self.name not in known:
            raise InputError(
                f"torchvision has no network {self.name!r}", f"take one of {', '.join(known)}, or timm:NAME"
            )

    @property
    def normalisation(self) -> Normalisation:
        """What all its published weights expect."""
        return IMAGENET

    @property
    def published_name(self) -> str:
        """What identifies its ImageNet weights."""
        return str(torchvision.models.get_model_weights(self.name).DEFAULT)

    def published(self) -> Mapping[str, Tensor]:
        """Its ImageNet weights under today's names; torchvision's own builder brings old files up to them."""
        net: nn.Module = torchvision.models.get_model(self.name, weights="DEFAULT")
        return net.state_dict()

    def resized(self, classes: int) -> tuple[nn.Module, list[nn.Module]]:
        """The network with its last layer resized; its head's linear layers, the resized one last."""
        net = self._build()
        return net, _resize_last(net, classes)

    def cut(self) -> tuple[nn.Module, int]:
        """The network up to FC0, what its first fully-connected layer would receive, and the size of FC0."""
        net = self._build()
        name, head = list(net.named_children())[-1]
        before, size = _before_first_linear(head)
        setattr(net, name, before)
        return net, size

    def _build(self) -> nn.Module:
        net: nn.Module = torchvision.models.get_model(self.name, weights=None, **_OPTIONS.get(self.name, {}))
        for name, layer in net.named_children():
            if isinstance(layer, nn.AdaptiveAvgPool2d) and layer.output_size not in (1, (1, 1)):
                # AlexNet's and VGG's: they change nothing at 224 x 224, and have no deterministic gradient on CUDA
                setattr(net, name, nn.Identity())
        return net


@dataclass(frozen=True)
class Timm:
    """A timm network: `name`, or `name.tag` for one of several published weights."""

    name: str

    def __post_init__(self) -> None:
        timm = _timm()
        plain, _, tag = self.name.partition(".")
        tagged = timm.list_pretrained(f"{plain}.*") if timm.is_model(plain) else []
        if not timm.is_model(plain) or (tag and self.name not in tagged):
            near = tagged or difflib.get_close_matches(plain, timm.list_models(), n=5) or ["resnet18"]
            raise InputError(f"timm has no network {self.name!r}", f"take another, such as {', '.join(near)}")
        if not _classifies_pictures(self.name):
            raise InputError(
                f"timm's {self.name} cannot classify pictures of {SIZE} x {SIZE}", "take another --backbone"
            )

    @property
    def normalisation(self) -> Normalisation:
        """What its published weights expect."""
        config = _timm().get_pretrained_cfg(self.name)
        return (tuple(config.mean), tuple(config.std)) if config else IMAGENET

    @property
    def published_name(self) -> str:
        """What identifies its published weights."""
        config = _timm().get_pretrained_cfg(self.name)
        return f"{TIMM}{config.architecture}.{config.tag}" if config else f"{TIMM}{self.name}"

    def published(self) -> Mapping[str, Tensor]:
        """Its published weights, fitted to 224 x 224 pixels by timm where their number depends on it."""
        return _create(self.name, pretrained=True).state_dict()

    def resized(self, classes: int) -> tuple[nn.Module, list[nn.Module]]:
        """The network with a classifier of this size, and that classifier: one layer, or two (DeiT's)."""
        net: Any = _create(self.name, num_classes=classes)
        head = net.get_classifier()
        return net, list(head) if isinstance(head, tuple) else [head]

    def cut(self) -> tuple[nn.Module, int]:
        """The network up to its pooled features, and their number."""
        net: Any = _create(self.name, num_classes=0)
        return net, net.head_hidden_size


Backbone = Torchvision | Timm


def named(name: str) -> Backbone:
    """The network of this name; an `InputError` where there is none."""
    return Timm(name.removeprefix(TIMM)) if name.startswith(TIMM) else Torchvision(name)


def published(name: str) -> Mapping[str, Tensor]:
    """ImageNet weights through torchvision or timm; an `InputError` if they cannot be had."""
    backbone = named(name)
    try:
        return backbone.published()
    except (OSError, RuntimeError) as error:  # no network, or another file than the published one
        raise InputError(
            f"ImageNet weights of {name} cannot be had ({type(error).__name__}: {error})",
            "give a file of them with --weights FILE, or train without: --arch mtl-ri stl-ri",
        ) from None


def _timm() -> ModuleType:
    try:
        import timm
    except ImportError:
        raise InputError(
            "timm is not installed", "pip install 'ctpatch[timm]', or take a torchvision network"
        ) from None
    return timm


def _create(name: str, **options: Any) -> nn.Module:
    config = _timm().get_pretrained_cfg(name)
    if config and config.fixed_input_size:
        options["img_size"] = SIZE
    net: nn.Module = _timm().create_model(name, **options)
    return net


@cache
def _classifies_pictures(name: str) -> bool:
    """Whether the network takes our input and has a classifier: a few take other sizes only, a few are encoders."""
    try:
        with torch.device("meta"):
            net = _create(name, num_classes=2)
        return hasattr(net, "get_classifier") and net(torch.empty(2, 3, SIZE, SIZE, device="meta")).shape == (2, 2)
    except (AssertionError, RuntimeError, TypeError, ValueError):
        return False


def _before_first_linear(head: nn.Module) -> tuple[nn.Module, int]:
    """The head's layers up to FC0, and the size of FC0; a convolutional head's FC0 is the pooled features."""
    layers = list(head.children()) or [head]
    for i, layer in enumerate(layers):
        if isinstance(layer, nn.Linear):
            return nn.Sequential(*layers[:i]), layer.in_features
    convolution = next(layer for layer in layers if isinstance(layer, nn.Conv2d))
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()), convolution.in_channels


def _resize_last(net: nn.Module, classes: int) -> list[nn.Module]:
    """Give the head's last layer `classes` outputs; the head's linear layers and the resized one."""
    prefix, head = list(net.named_children())[-1]
    kinds = nn.Linear | nn.Conv2d
    names = [f"{prefix}.{name}".rstrip(".") for name, layer in head.named_modules() if isinstance(layer, kinds)]
    last: Any = net.get_submodule(names[-1])
    if isinstance(last, nn.Linear):
        net.set_submodule(names[-1], nn.Linear(last.in_features, classes, bias=last.bias is not None))
    else:
        net.set_submodule(names[-1], nn.Conv2d(last.in_channels, classes, last.kernel_size))
    return [net.get_submodule(name) for name in names]
