"""Checkpoints: whole, or absent; written beside the training, from copies of its state."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from ctpatch.store import InputError, replacing

from . import weights

SHARE = {"cpu": 0.02, "cuda": 0.25}
"""Of the time, how much writing may take: on a CPU it has the training's cores, beside a GPU cores of its own. Where
epochs are shorter than that, a kill goes back by several: AlexNet's 937 MB take 1 to 3 s, so by 4 to 12 s on a GPU."""


@dataclass(frozen=True)
class _Snapshot:
    """A run's state at an epoch's end, in memory that nothing else writes to."""

    history: list[dict[str, float]]
    model: dict[str, Any]
    optimizer: dict[str, Any]


class Saver:
    """Keeps a run's best.pt and last.pt, as a context manager around its training.

    The state is copied to the host at every epoch's end. A thread writes the newest copy when it has nothing to write
    and its last writing was no more than `SHARE` of the time since that began; a copy that is not written makes room
    for the next. When the block ends, by whatever exception too, the last finished epoch is written: only a process
    that is killed loses finished epochs, those since its last writing began.

    Parameters
    ----------
    folder : Path
    run : dict
        The run's identity, which both files repeat.
    device : str
        `cpu` or `cuda`: where the state lies that is copied.

    Raises
    ------
    OSError
        From `keep` or the end of the block, when a file could not be written; the one before is still there.
    """

    def __init__(self, folder: Path, run: dict[str, Any], device: str):
        self.folder, self.run, self.share, self.pinned = folder, run, SHARE[device], device == "cuda"
        self.kept: tuple[_Snapshot | None, _Snapshot | None] = None, None
        """The newest state, and the best where it is not on the disk yet: one value, which Ctrl-C finds whole."""
        self.written: _Snapshot | None = None
        self._best_written: _Snapshot | None = None
        self._begun, self._cost = -float("inf"), 0.0
        self._memory: dict[str, list[Any]] = {"model": [], "optimizer": []}
        self._thread = ThreadPoolExecutor(1, "checkpoints")
        self._writing: tuple[Future[float], _Snapshot, _Snapshot | None] | None = None

    def keep(self, history: list[dict[str, float]], model: Any, optimizer: Any, *, best: bool) -> None:
        """Copy the state after an epoch, and have it written if it is time; `best`: it is the best epoch so far."""
        self._collect(wait=False)
        model, optimizer = self._copy("model", model), self._copy("optimizer", optimizer)
        newest = _Snapshot([dict(entry) for entry in history], model, optimizer)
        self.kept = newest, newest if best else self.kept[1]
        if not self._writing and self.share * (time.monotonic() - self._begun) >= self._cost:
            self._hand_over(*self.kept)

    def wait(self) -> None:
        """Until nothing is being written."""
        self._collect(wait=True)

    def __enter__(self) -> Saver:
        return self

    def __exit__(self, *error: object) -> None:
        with self._thread:
            self.wait()
            newest, best = self.kept
            if newest and newest is not self.written:
                self._hand_over(newest, best)
                self.wait()

    def _hand_over(self, newest: _Snapshot, best: _Snapshot | None) -> None:
        self._begun = time.monotonic()
        self._writing = self._thread.submit(self._write, newest, best), newest, best

    def _write(self, newest: _Snapshot, best: _Snapshot | None) -> float:
        """best.pt first: where the machine stops between the two, its epoch is done again; see `restore_best`."""
        if best and best is not self._best_written:  # or the one before it would be lost where last.pt did not follow
            state = {"run": self.run, "history": best.history, "model": best.model}
            save_checkpoint(self.folder / "best.pt", state, keep=True)
            self._best_written = best
        state = {"run": self.run, "history": newest.history, "model": newest.model, "optimizer": newest.optimizer}
        save_checkpoint(self.folder / "last.pt", state, keep=True)
        return time.monotonic() - self._begun

    def _collect(self, wait: bool) -> None:
        """Take note of what has been written; raise what went wrong."""
        if self._writing and (wait or self._writing[0].done()):
            (future, newest, best), self._writing = self._writing, None
            self._cost, self.written = future.result(), newest
            if self.kept[1] is best:
                self.kept = self.kept[0], None

    def _copy(self, part: str, state: Any) -> Any:
        """A copy of a part of the state in memory whose content is on the disk or out of date, or else in new."""
        newest, best = self.kept
        needed = [newest if newest is not self.written else None, best]
        needed += self._writing[1:] if self._writing else ()
        used = [getattr(snapshot, part) for snapshot in needed if snapshot]
        copies = self._memory[part]
        free = next((copy for copy in copies if not any(copy is other for other in used)), None)
        made = _copied(state, free, self.pinned)
        if self.pinned:
            torch.cuda.current_stream().synchronize()
        self._memory[part] = [made, *(copy for copy in copies if copy is not free)]
        return made


def _copied(state: Any, into: Any, pinned: bool) -> Any:
    """Nested dicts and lists with copies of their tensors on the host, in an earlier copy's memory where it fits."""
    if isinstance(state, Tensor):
        if not (isinstance(into, Tensor) and into.shape == state.shape and into.dtype == state.dtype):
            into = torch.empty_like(state, device="cpu", pin_memory=pinned, requires_grad=False)
        return into.copy_(state.detach(), non_blocking=pinned)
    if isinstance(state, Mapping):
        by_key = into if isinstance(into, Mapping) else {}
        return {key: _copied(value, by_key.get(key), pinned) for key, value in state.items()}
    if isinstance(state, list | tuple):
        by_place = into if isinstance(into, list | tuple) and len(into) == len(state) else [None] * len(state)
        return type(state)(_copied(value, old, pinned) for value, old in zip(state, by_place, strict=True))
    return state


def save_checkpoint(path: Path, state: dict[str, Any], *, keep: bool = False) -> None:
    """Write a checkpoint of tensors, numbers and text; with `keep`, the one before stays as `.old`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as file:
        _save({**state, "sha256": digest(state)}, file)
        if keep and path.exists():
            file.flush()
            os.fsync(file.fileno())  # before the old one loses its name
            path.replace(path.with_suffix(".old"))


def _save(state: dict[str, Any], file: IO[bytes]) -> None:
    """`torch.save`, whose error on a disk that fills up meanwhile is of its own end of file, not the disk's."""
    try:
        torch.save(state, file)
    except RuntimeError as error:  # "unexpected pos" (torch 2.14.1), while the OSError is handled
        if isinstance(error.__context__, OSError):
            raise error.__context__ from None
        raise


def load_checkpoint(path: Path) -> dict[str, Any]:
    """A checkpoint; an `InputError` where it cannot be read or its content differs from its digest."""
    state = weights.read(path)
    if state.pop("sha256", None) != digest(state):
        raise InputError("the checkpoint's content differs from its sha256", "delete it and train again", path)
    return state


def load_weights(path: Path) -> dict[str, Tensor]:
    """The backbone's state dict in a published file or an earlier run's best.pt; an `InputError` if it is neither."""
    state = weights.read(path)
    return weights.state_dict(load_checkpoint(path) if "sha256" in state else state, path)


def newest_checkpoint(path: Path) -> dict[str, Any] | None:
    """The last whole checkpoint of an unfinished run, `path` or the one before it; None where there never was one."""
    found = [candidate for candidate in (path, path.with_suffix(".old")) if candidate.exists()]
    for candidate in found:
        with suppress(InputError):
            return load_checkpoint(candidate)
    return load_checkpoint(found[0]) if found else None


def restore_best(path: Path, history: list[dict[str, float]]) -> None:
    """Take back a best.pt of an epoch that is to be done again, which may come out otherwise (GPU, other threads).

    Parameters
    ----------
    path : Path
        best.pt; the one before it is beside it as `.old`.
    history : list of dict
        The run's epochs, as far as they are kept, up to the best.
    """
    old = path.with_suffix(".old")
    if not _is_of(path, history) and _is_of(old, history):
        old.replace(path)


def _is_of(path: Path, history: list[dict[str, float]]) -> bool:
    with suppress(InputError):
        return bool(load_checkpoint(path)["history"] == history)
    return False


def digest(value: Any) -> str:
    """SHA-256 of nested dicts and lists of tensors, numbers and text."""
    sha = hashlib.sha256()
    _feed(sha, value)
    return sha.hexdigest()


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
