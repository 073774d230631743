"""Pre-trained weights as they are published: files in several forms, under names that have changed since."""

from __future__ import annotations

import argparse
import os
import re
from collections import OrderedDict, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from ctpatch.store import InputError

WRAPPERS = ("state_dict_ema", "model_ema", "state_dict", "model_state_dict", "model")
"""Where training scripts keep the state dict within what they save, averaged weights first (timm's order)."""

_SCALAR = np.float64().__reduce__()[0]
PLAIN: list[Any] = [argparse.Namespace, np.dtype, _SCALAR, (_SCALAR, "numpy.core.multiarray.scalar")]
PLAIN += [type(np.dtype(code)) for code in ("f4", "f8", "i4", "i8")]
"""What training scripts save beside tensors, numbers and text: their arguments, and numpy's scalars (an accuracy), also
under the name that numpy 1 had for them. None of it runs code."""

_PREFIX = re.compile(r"^(module\.|_orig_mod\.|model\.|net\.|backbone\.)+")
"""What DataParallel, torch.compile, Lightning and our own runs put before a network's names."""

_OLD_DENSENET = re.compile(r"(denselayer\d+\.(?:norm|relu|conv))\.(?=[12]\.)")
"""Names of before 2018, as in torchvision's own files: `denselayer1.norm.1.weight` is `denselayer1.norm1.weight`."""


def read(path: Path) -> dict[str, Any]:
    """What torch.save or safetensors wrote, without running code from it; an `InputError` where it cannot be read."""
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        with torch.serialization.safe_globals(PLAIN):
            state = torch.load(path, map_location="cpu", weights_only=True)
    except MemoryError:
        raise
    except Exception as error:  # a text file is read as a pickle, whose reader raises whatever it meets
        found = f"no readable checkpoint ({type(error).__name__})"
        do = "name a whole file, of a script's checkpoint its state dict alone, or delete it and train again"
        raise InputError(found, do, path) from None
    return state if isinstance(state, dict) else {"": state}


def state_dict(found: Mapping[str, Any], path: Path) -> dict[str, Tensor]:
    """The network's tensors in what `read` found, by their names within the network.

    Raises
    ------
    InputError
        If there is no state dict in it.
    """
    inner = next((found[key] for key in WRAPPERS if isinstance(found.get(key), Mapping)), found)
    if not inner or not all(isinstance(name, str) and isinstance(value, Tensor) for name, value in inner.items()):
        raise InputError(
            "this is no state dict", "give a state dict of the --backbone or an earlier run's best.pt", path
        )
    return {_PREFIX.sub("", name): value for name, value in inner.items()}


def copy_into(
    network: nn.Module, weights: Mapping[str, Tensor], new: Sequence[nn.Module], where: str | os.PathLike[str] = ""
) -> None:
    """Copy all but the layers `new` from `weights`, by the network's own loading code.

    That code knows older forms: torchvision's of its ViT and MNASNet, torch's of BatchNorm, which had no
    `num_batches_tracked` before 0.4.1. On the meta device the network takes the tensors themselves.

    Raises
    ------
    InputError
        If a tensor is missing, of another shape, quantised or not finite, or the weights are those of a deeper network;
        `where` is the file that it names.
    """
    ids = {id(tensor) for layer in new for tensor in layer.state_dict(keep_vars=True).values()}
    own = network.state_dict(keep_vars=True)
    skipped = {name for name, tensor in own.items() if id(tensor) in ids}
    named = {_OLD_DENSENET.sub(r"\1", name): tensor for name, tensor in weights.items()}
    given = OrderedDict((name, tensor) for name, tensor in named.items() if name not in skipped)
    # no version but that of the whole, which MNASNet demands: torch and torchvision then look for old names
    given._metadata = {"": {"version": network._version}}  # type: ignore[attr-defined]
    _refuse_deeper(given, {name: tensor for name, tensor in own.items() if name not in skipped}, where)
    _refuse_integers(given, own, where)
    meta = any(tensor.is_meta for tensor in own.values())
    try:
        missing = set(network.load_state_dict(given, strict=False, assign=meta).missing_keys) - skipped
        bad = [name for name in own if name in missing]
    except RuntimeError as error:
        bad = re.findall(r"size mismatch for ([^:]+):", str(error))
        if not bad:
            raise
    if bad:
        raise InputError(
            f"the weights lack {len(bad)} of the backbone's {len(own) - len(skipped)} tensors, or have another shape "
            f"({', '.join(bad[:3])}{', ...' * (len(bad) > 3)})",
            "name the --backbone that they were trained with",
            where,
        )
    _refuse_infinite({name: tensor for name, tensor in network.state_dict().items() if name not in skipped}, where)


def _refuse_integers(given: Mapping[str, Tensor], own: Mapping[str, Tensor], where: str | os.PathLike[str]) -> None:
    """Raise InputError on the first tensor of whole numbers where the network's is none: quantised weights."""
    for name, tensor in given.items():
        if name in own and own[name].is_floating_point() and not tensor.is_floating_point():
            kind, ours = (str(one.dtype).removeprefix("torch.") for one in (tensor, own[name]))
            found = f"the weights' {name} is of {kind} where the backbone's is of {ours}"
            raise InputError(found, "give the weights as they were before they were quantised", where)


def _refuse_infinite(loaded: Mapping[str, Tensor], where: str | os.PathLike[str]) -> None:
    """Raise InputError on the first tensor with NaN or infinity: no --lr would mend a training from there."""
    for name, tensor in loaded.items():
        if not tensor.is_meta and not tensor.float().isfinite().all():
            raise InputError(f"the weights' {name} is not finite", "give the file of another epoch or training", where)


def _refuse_deeper(given: Mapping[str, Tensor], own: Mapping[str, Tensor], where: str | os.PathLike[str]) -> None:
    """Raise InputError on numbered blocks that `own` lacks and has others of their kind: a ResNet-34's `layer1.2`.

    Heads and auxiliary classifiers, which are left behind as well, are no such.
    """
    theirs, ours = _blocks(given), _blocks(own)
    kinds = {(parent, shapes) for (parent, _), shapes in ours.items()}
    deeper = [
        ".".join((parent, n))
        for (parent, n), shapes in theirs.items()
        if (parent, n) not in ours and (parent, shapes) in kinds
    ]
    if deeper:
        found = f"the weights have {len(deeper)} blocks of layers that the backbone does not ({', '.join(deeper[:3])}"
        found += f"{', ...' * (len(deeper) > 3)})"
        raise InputError(found, "name the --backbone that they were trained with", where)


def _blocks(tensors: Mapping[str, Tensor]) -> dict[tuple[str, str], frozenset[tuple[str, tuple[int, ...]]]]:
    """The names within, and the shapes, of each numbered block's tensors, by the block's parent and number."""
    found = defaultdict(set)
    for name, tensor in tensors.items():
        parts = name.split(".")
        for k, part in enumerate(parts):
            if part.isdecimal() and parts[-1] != "num_batches_tracked":  # which old files lack
                found[".".join(parts[:k]), part].add((".".join(parts[k + 1 :]), tuple(tensor.shape)))
    return {place: frozenset(held) for place, held in found.items()}
