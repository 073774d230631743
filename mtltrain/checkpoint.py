"""Files that are whole or absent: written aside, synced and renamed; checkpoints carry a digest of their content."""

from __future__ import annotations

import hashlib
import os
import pickle
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from ctpatch.store import InputError


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """A binary file that takes the name `path` only once it is complete and on disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(path.name + ".tmp")
    with aside.open("wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text so that it is whole or absent."""
    with replacing(path) as file:
        file.write(text.encode())


def save(path: Path, state: dict[str, Any], *, keep: bool = False) -> None:
    """Write a checkpoint of tensors, numbers and text; with `keep`, the one before stays as `.old`."""
    previous = path.with_suffix(".old")
    aside = path.with_suffix(".new")
    with replacing(aside) as file:
        torch.save({**state, "sha256": digest(state)}, file)
    if keep and path.exists():
        path.replace(previous)
    aside.replace(path)


def load(path: Path) -> dict[str, Any]:
    """A checkpoint, only ever unpickled with `weights_only=True`.

    Raises
    ------
    InputError
        If it cannot be read or its content differs from its digest.
    """
    return _verified(_load(path), path)


def load_weights(path: Path) -> dict[str, Tensor]:
    """The state dict in a torchvision file or in an earlier run's best.pt.

    Raises
    ------
    InputError
        If the file holds neither.
    """
    state = _load(path)
    weights = _verified(state, path).get("model") if "sha256" in state else state
    if not isinstance(weights, Mapping) or not all(isinstance(value, Tensor) for value in weights.values()):
        raise InputError("this is no state dict", "give a torchvision state dict or an earlier run's best.pt", path)
    return dict(weights)


def newest(path: Path) -> dict[str, Any] | None:
    """The last whole checkpoint of an unfinished run: `path`, else the one before it, else None."""
    for candidate in (path, path.with_suffix(".old")):
        try:
            return load(candidate)
        except InputError:
            continue
    return None


def digest(value: Any) -> str:
    """SHA-256 of nested dicts and lists of tensors, numbers and text."""
    sha = hashlib.sha256()
    _feed(sha, value)
    return sha.hexdigest()


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror})", "name a .pt file", path) from None


def _load(path: Path) -> dict[str, Any]:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, pickle.UnpicklingError) as error:
        raise InputError(f"no readable checkpoint ({type(error).__name__})", "name a whole .pt file", path) from None
    return state if isinstance(state, dict) else {"": state}


def _verified(state: dict[str, Any], path: Path) -> dict[str, Any]:
    claimed = state.pop("sha256", None)
    if claimed != digest(state):
        raise InputError("the checkpoint's content differs from its sha256", "delete it and train again", path)
    return state


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
