"""Checkpoints: whole or absent, with a digest of their content, and never unpickled but with `weights_only=True`."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ctpatch.store import InputError

from .files import replacing


def save(path: Path, state: dict[str, Any], *, keep: bool = False) -> None:
    """Write a checkpoint of tensors, numbers and text; with `keep`, the one before stays as `.old`."""
    with replacing(path, keep=keep) as file:
        torch.save({**state, "sha256": digest(state)}, file)


def load(path: Path) -> dict[str, Any]:
    """A checkpoint; an `InputError` where it cannot be read or its content differs from its digest."""
    state = _read(path)
    if state.pop("sha256", None) != digest(state):
        raise InputError("the checkpoint's content differs from its sha256", "delete it and train again", path)
    return state


def load_weights(path: Path) -> dict[str, Tensor]:
    """The state dict in a torchvision file or in an earlier run's best.pt; an `InputError` where there is neither."""
    state = _read(path)
    weights = load(path).get("model") if "sha256" in state else state
    if not isinstance(weights, Mapping) or not all(isinstance(value, Tensor) for value in weights.values()):
        raise InputError("this is no state dict", "give a torchvision state dict or an earlier run's best.pt", path)
    return dict(weights)


def newest(path: Path) -> dict[str, Any] | None:
    """The last whole checkpoint of an unfinished run, `path` or the one before it; None where there never was one."""
    found = [candidate for candidate in (path, path.with_suffix(".old")) if candidate.exists()]
    for candidate in found:
        with suppress(InputError):
            return load(candidate)
    return load(found[0]) if found else None


def digest(value: Any) -> str:
    """SHA-256 of nested dicts and lists of tensors, numbers and text."""
    sha = hashlib.sha256()
    _feed(sha, value)
    return sha.hexdigest()


def _read(path: Path) -> dict[str, Any]:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, pickle.UnpicklingError) as error:
        found = f"no readable checkpoint ({type(error).__name__})"
        raise InputError(found, "name a whole .pt file, or delete it and train again", path) from None
    return state if isinstance(state, dict) else {"": state}


def _feed(sha: hashlib._Hash, value: Any) -> None:
    if isinstance(value, Tensor):
        sha.update(f"{value.dtype}{tuple(value.shape)}".encode())
        sha.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    elif isinstance(value, Mapping):
        sha.update(f"dict{len(value)}".encode())
        for key, item in value.items():
            sha.update(repr(key).encode())
            _feed(sha, item)
    elif isinstance(value, list | tuple):
        sha.update(f"list{len(value)}".encode())
        for item in value:
            _feed(sha, item)
    else:
        sha.update(repr(value).encode())
