"""The paper's multi-task wiring over any torchvision or timm network, the plain network beside it, and their loss."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from ctpatch.store import CtpatchError

from . import Settings
from .backbones import named
from .data import UNKNOWN, DevicePatches
from .weights import copy_into

WIDTH = 4096
"""Nodes of FC1 and FC2, as in AlexNet's own fully-connected layers."""

CONVOLUTION_LR_RATIO = 0.2
"""Pre-trained layers learn at 2e-4 where new ones learn at 1e-3."""


class SingleTask(nn.Module):
    """The plain network with its last layer resized; returns (logits (N, classes), []).

    `new` are the layers that no pre-trained weights are loaded into.
    """

    def __init__(self, backbone: str, classes: int):
        super().__init__()
        self.backbone, self.new = named(backbone).resized(classes)

    def forward(self, pictures: Tensor) -> tuple[Tensor, list[Tensor]]:
        """`pictures` (N, 3, 224, 224)."""
        return self.backbone(pictures), []


class MultiTask(nn.Module):
    """FC0 -> FC1 -> one softmax per auxiliary task; FC0 -> FC2; concat(FC2, those softmaxes) -> the major softmax.

    Returns the logits of the major task (N, classes) and of each auxiliary task (N, levels); `new` as in SingleTask.
    """

    def __init__(self, backbone: str, classes: int, levels: Sequence[int]):
        super().__init__()
        self.backbone, size = named(backbone).cut()
        self.fc1, self.fc2 = (
            nn.Sequential(nn.Linear(size, WIDTH), nn.ReLU(inplace=True), nn.Dropout(0.5)) for _ in range(2)
        )
        self.auxiliary = nn.ModuleList(nn.Linear(WIDTH, n) for n in levels)
        self.major = nn.Linear(WIDTH + sum(levels), classes)
        self.new: list[nn.Module] = [self.fc1, self.fc2, self.auxiliary, self.major]

    def forward(self, pictures: Tensor) -> tuple[Tensor, list[Tensor]]:
        """`pictures` (N, 3, 224, 224)."""
        fc0 = self.backbone(pictures)
        fc1, fc2 = self.fc1(fc0), self.fc2(fc0)
        auxiliary = [task(fc1) for task in self.auxiliary]
        return self.major(torch.cat([fc2, *(logits.softmax(1) for logits in auxiliary)], 1)), auxiliary


Network = SingleTask | MultiTask


def build(arch: str, backbone: str, classes: int, levels: Sequence[int]) -> Network:
    """A network with fresh Gaussian weights drawn from torch's global generator.

    Parameters
    ----------
    arch : str
        `mtl-tl`, `mtl-ri`, `stl-tl` or `stl-ri`.
    backbone : str
        A torchvision classification network, or `timm:` and a timm network.
    classes : int
        Diagnostic classes.
    levels : sequence of int
        Levels of each auxiliary task; a single-task network takes no notice of them.
    """
    net = MultiTask(backbone, classes, levels) if arch.startswith("mtl") else SingleTask(backbone, classes)
    initialise(net)
    return net.to(memory_format=torch.channels_last)


def initialise(net: nn.Module) -> None:
    """Gaussian weights of variance 2 / fan-in (He et al., ICCV 2015) and zero biases.

    A fixed standard deviation of 0.01 shrinks AlexNet's signal from layer to layer until only the last biases learn:
    see docs/performance.md for the two measured side by side.
    """
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.normal_(module.weight, std=math.sqrt(2 / module.weight[0].numel()))
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def forward(net: Network, pictures: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Logits of `pictures` (N, 3, 224, 224), in float32; on a GPU the network itself computes in bfloat16."""
    pictures = pictures.contiguous(memory_format=torch.channels_last)
    # a cache of the weights' casts must not outlive the capture of a CUDA graph, and no weight is used twice
    with torch.autocast("cuda", torch.bfloat16, enabled=pictures.is_cuda, cache_enabled=False):
        major, auxiliary = net(pictures)
    return major.float(), [logits.float() for logits in auxiliary]


@torch.no_grad()
def predict(
    net: Network, patches: DevicePatches, batch_size: int
) -> tuple[NDArray[np.int64], list[NDArray[np.float64]]]:
    """Probabilities, averaged over each lesion's patches.

    Returns
    -------
    rows : array, shape (lesions,)
        The store's rows of the lesions that have patches, ascending.
    tables : list of arrays, shapes (lesions, classes)
        Of the major task, then of each auxiliary one.
    """
    net.eval()
    batches = [slice(start, start + batch_size) for start in range(0, len(patches), batch_size)]
    outputs = [forward(net, patches.pictures(batch)) for batch in batches]
    tables = [torch.cat(part).double().softmax(1) for part in zip(*([o[0], *o[1]] for o in outputs), strict=True)]
    rows, index, count = patches.lesion.unique(return_inverse=True, return_counts=True)
    means = [t.new_zeros(len(count), t.shape[1]).index_add_(0, index, t) / count[:, None] for t in tables]
    if not all(mean.isfinite().all() for mean in means):
        raise CtpatchError("the network's outputs are not finite. Do: try a lower --lr.")
    return rows.cpu().numpy(), [mean.cpu().numpy() for mean in means]


def multitask_loss(
    major: Tensor,
    label: Tensor,
    auxiliary: Sequence[Tensor],
    levels: Tensor,
    weights: Sequence[float],
    class_weights: Tensor | None = None,
    major_share: float = Settings.major_share,
) -> Tensor:
    """L = m L_major + (1 - m) L_aux; without auxiliary outputs (a single-task network), L_major alone.

    L_aux = (1/N) sum over lesions n and tasks k of w_k CE_k; what is unknown adds nothing, and N stays the full batch.

    Parameters
    ----------
    major : Tensor, shape (N, classes)
        Logits of the diagnosis.
    label : Tensor, shape (N,)
        Class indices.
    auxiliary : sequence of Tensor, shapes (N, levels of the task)
        Logits of each task.
    levels : Tensor, shape (N, tasks)
        Level indices, -1 where unknown.
    weights : sequence of float
        w_k, |Spearman's r| of each task.
    class_weights : Tensor, shape (classes,), optional
        For `--balanced`: L_major becomes the mean over the batch weighted by these, one over each class's share of the
        training patches but for a factor.
    major_share : float
        m, 0 to 1.
    """
    loss = F.cross_entropy(major, label, class_weights)
    if not auxiliary:
        return loss
    shares = [
        weight * F.cross_entropy(logits, levels[:, k], ignore_index=UNKNOWN, reduction="sum")
        for k, (logits, weight) in enumerate(zip(auxiliary, weights, strict=True))
    ]
    return major_share * loss + (1 - major_share) * sum(shares[1:], shares[0]) / len(label)


def parameter_groups(net: Network, lr: float, pretrained: bool) -> list[dict[str, Any]]:
    """Adam's groups: everything at `lr`, but pre-trained layers at a fifth of it."""
    if not pretrained:
        return [{"params": list(net.parameters()), "lr": lr}]
    new = [p for layer in net.new for p in layer.parameters()]
    ids = {id(p) for p in new}
    old = [p for p in net.parameters() if id(p) not in ids]
    return [{"params": old, "lr": CONVOLUTION_LR_RATIO * lr}, {"params": new, "lr": lr}]


def load_pretrained(net: Network, weights: Mapping[str, Tensor], where: str | os.PathLike[str] = "") -> None:
    """Copy all but the new layers from weights of the plain network, under its names of today or earlier.

    Raises
    ------
    InputError
        If they are not of this backbone; `where` is the file that it names.
    """
    copy_into(net.backbone, weights, net.new, where)
