"""Where a network looked: Grad-CAM (Selvaraju et al., ICCV 2017) of the last layer that still has rows and columns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from .data import DevicePatches
from .models import Network, forward

NOTHING = np.zeros((0, 0, 0, 0), np.float16)


def class_maps(net: Network, patches: DevicePatches, batch_size: int) -> NDArray[np.float16]:
    """What spoke for each class in the first patch of each lesion.

    Parameters
    ----------
    net : Network
        On the device of the patches.
    patches : DevicePatches
    batch_size : int

    Returns
    -------
    array, shape (lesions, classes, rows, columns)
        Of the store's lesions that have patches, ascending; 0 where nothing speaks for the class. Rows and columns are
        the layer's. Empty where the network has no such layer (transformers), its gradient cannot be computed, or there
        are no patches.
    """
    first = torch.from_numpy(patches.first_of_lesions()[1]).to(patches.lesion.device)
    layer = spatial_layer(net, patches.pictures(first[:1])) if len(first) else None
    if layer is None:
        return NOTHING
    try:
        return _maps(net, layer, patches, first.split(batch_size))
    except RuntimeError:  # a gradient that has no deterministic kernel, or no memory: a trained run is worth more
        return NOTHING


def _maps(net: Network, layer: nn.Module, patches: DevicePatches, batches: Sequence[Tensor]) -> NDArray[np.float16]:
    from captum.attr import LayerGradCam  # a third of a second that other commands need not wait

    method = LayerGradCam(lambda pictures: forward(net, pictures)[0], layer)
    classes = range(forward(net, patches.pictures(batches[0][:1]))[0].shape[1])
    parts = []
    for batch in batches:
        pictures = patches.pictures(batch)
        maps = [method.attribute(pictures, target=k, relu_attributions=True).detach() for k in classes]
        parts.append(torch.cat(maps, 1).float().cpu())
    return torch.cat(parts).numpy().astype(np.float16)


def spatial_layer(net: Network, pictures: Tensor) -> nn.Module | None:
    """The last layer of the backbone before its head that gives more than one row and column, poolings aside."""
    outputs: list[tuple[nn.Module, Any]] = []
    children = list(net.backbone.children())[:-1]
    hooks = [child.register_forward_hook(lambda layer, _, out: outputs.append((layer, out))) for child in children]
    try:
        net.eval()
        with torch.no_grad():
            forward(net, pictures)
    finally:
        for hook in hooks:
            hook.remove()
    outputs = [(layer, out) for layer, out in outputs if isinstance(out, Tensor)]
    if any(out.ndim == 3 for _, out in outputs):  # a transformer's tokens
        return None
    found = [layer for layer, out in outputs if out.ndim == 4 and out.shape[2] == out.shape[3] > 1]
    found = [layer for layer in found if not isinstance(layer, nn.Identity)]
    return _innermost(found[-1]) if found else None


def _innermost(layer: nn.Module) -> nn.Module:
    while isinstance(layer, nn.Sequential):
        layer = next(inner for inner in reversed(layer) if not isinstance(inner, nn.MaxPool2d))
    return layer
