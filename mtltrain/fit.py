"""Training: a run is one architecture, trained once with one seed; its checkpoints are whole, or absent."""

from __future__ import annotations

import hashlib
import math
import os
import re
import resource
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ctpatch.store import WINDOWS, CtpatchError, InputError, one_line, replacing

from . import Settings, metrics, models, weights
from .data import IMAGENET, Cohort
from .tasks import Characteristic, targets

Watch = Callable[[Sequence[Tensor], str], Iterable[Tensor]]
"""Wraps an epoch's batches to show progress; the text says which epoch of which run."""


@dataclass(frozen=True)
class Run:
    """One architecture, trained once: everything that decides its weights."""

    arch: str
    seed: int
    settings: Settings
    cohort: Cohort
    tasks: Sequence[Characteristic]

    @property
    def name(self) -> str:
        """Also the run's place below the run folder."""
        return f"{self.arch}/seed-{self.seed}"

    @property
    def identity(self) -> dict[str, Any]:
        """What a checkpoint must have been made with to belong to this run; numbers, text, lists and dicts only."""
        start = {} if self.arch.endswith("tl") else {"tl_weights": ""}
        return {
            "arch": self.arch,
            "seed": self.seed,
            "store": self.cohort.digest,
            "windows": listed(self.cohort.windows),
            "normalisation": listed(self.cohort.normalisation),
            "classes": list(self.cohort.classes),
            "tasks": [task.task() for task in self.tasks] if self.arch.startswith("mtl") else [],
            **asdict(self.settings),
            **start,
        }


def pick_device(name: str) -> torch.device:
    """`cpu`, `cuda`, or with `auto` the GPU where there is one; an `InputError` if there is no such device here."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise InputError("--device cuda, but torch sees no GPU here", "use --device cpu")
    return torch.device(name)


def train(
    run: Run, folder: Path, start: Mapping[str, Tensor], log: Callable[[str], None], watch: Watch
) -> list[dict[str, float]]:
    """Train one run from its last finished epoch on, leaving best.pt in `folder`; the history, one dict per epoch.

    Seeds are derived from (seed, epoch), so an interrupted run needs no generator's state to go on as if nothing had
    happened: on a CPU, with the same number of threads, its final weights are the same bits.

    Raises
    ------
    CtpatchError
        If the loss is no longer finite; finished epochs are kept.
    """
    with torch.random.fork_rng(["cuda"] if run.settings.device == "cuda" else []):
        torch.manual_seed(number("initial", run.seed))
        session = _Session(run, start)
        session.resume(folder / "last.pt", log)
        while session.unfinished():
            session.epoch(watch)
            session.save(folder)
            log(f"{run.name} " + "  ".join(f"{k} {v:.4g}" for k, v in session.history[-1].items()))
    return session.history


class _Session:
    """A network in training: the state that a checkpoint holds, and the data it is trained on."""

    def __init__(self, run: Run, start: Mapping[str, Tensor]):
        self.run, self.history = run, list[dict[str, float]]()
        self.train, self.val = run.cohort.patches["train"], run.cohort.patches["val"]
        self.device = self.train.hu.device
        self.net = build(run.identity).to(self.device)
        if run.arch.endswith("tl"):
            models.load_pretrained(self.net, start)
        groups = models.parameter_groups(self.net, run.settings.lr, run.arch.endswith("tl"))
        self.optimizer = torch.optim.Adam(groups, lr=run.settings.lr, fused=True)
        self.label = torch.from_numpy(run.cohort.label).to(self.device)
        self.levels = targets(run.cohort, run.tasks).to(self.device)
        counts = self.label[self.train.lesion.unique()].bincount(minlength=len(run.cohort.classes))
        self.class_weights = counts.sum() / (len(counts) * counts) if run.settings.balanced else None

    def resume(self, path: Path, log: Callable[[str], None]) -> None:
        state = newest_checkpoint(path)
        if state is None:
            return
        refuse_difference(state["run"], self.run.identity, path)
        self.net.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.history = state["history"]
        begun, device = state["run"]["device"], self.run.settings.device
        log(f"{self.run.name} goes on after epoch {len(self.history)}" + f", begun on {begun}" * (begun != device))

    def best(self) -> int:
        """Number of the first epoch with the highest validation AUC."""
        aucs = [entry["val_auc"] for entry in self.history]
        return aucs.index(max(aucs)) + 1 if aucs else 0

    def unfinished(self) -> bool:
        settings, done = self.run.settings, len(self.history)
        return done < settings.epochs and done - self.best() < settings.patience

    def epoch(self, watch: Watch) -> None:
        epoch = len(self.history) + 1
        torch.manual_seed(number("dropout", self.run.seed, epoch))
        order = torch.from_numpy(shuffled(len(self.train), self.run.seed, epoch)).to(self.device)
        self.net.train()
        total = 0.0
        for batch in watch(order.split(self.run.settings.batch_size), f"{self.run.name} epoch {epoch}"):
            total += self.step(batch) * len(batch)
        self.history.append({"epoch": epoch, "train_loss": total / len(order), "val_auc": self.validate()})

    def validate(self) -> float:
        """AUC of the validation lesions, macro one-vs-rest with more than two classes."""
        rows, tables = models.predict(self.net, self.val, self.run.settings.batch_size)
        cohort = self.run.cohort
        positive = cohort.classes.index(cohort.order[-1])
        auc = metrics.auc(*metrics.one_vs_rest(tables[0], cohort.label[rows], positive)).value
        assert auc is not None  # read_cohort saw to every class
        return auc

    def loss(self, batch: Tensor) -> Tensor:
        lesion = self.train.lesion[batch]
        major, auxiliary = models.forward(self.net, self.train.pictures(batch))
        shares, m = [task.weight for task in self.run.tasks], self.run.settings.major_share
        levels = self.levels[lesion]
        return models.multitask_loss(major, self.label[lesion], auxiliary, levels, shares, self.class_weights, m)

    def step(self, batch: Tensor) -> float:
        """One optimiser step; refuses to make it with a loss or gradient that is not finite."""
        loss = self.loss(batch)
        loss.backward()
        size = torch.nn.utils.get_total_norm([p.grad for p in self.net.parameters() if p.grad is not None])
        value = float(loss.detach() + 0 * size)
        if not math.isfinite(value):
            raise self.not_finite(self.train.lesion[batch])
        self.optimizer.step()
        self.optimizer.zero_grad()
        return value

    def not_finite(self, lesion: Tensor) -> CtpatchError:
        rows = self.run.cohort.lesions.iloc[sorted(set(lesion.tolist()))]
        names = ", ".join(f"{p}/{k}" for p, k in zip(rows["patient_id"], rows["lesion_id"], strict=True))
        return CtpatchError(
            f"{self.run.name}: the loss or its gradient is not finite in epoch {len(self.history) + 1}, in a batch of "
            f"lesions {one_line(names)}; the step was not made, best.pt is of epoch {self.best()}. "
            "Do: try a lower --lr."
        )

    def save(self, folder: Path) -> None:
        """best.pt first: where the machine stops between the two, the epoch is done again and best.pt with it."""
        state = {"run": self.run.identity, "history": self.history, "model": self.net.state_dict()}
        if self.best() == len(self.history):
            save_checkpoint(folder / "best.pt", state)
        save_checkpoint(folder / "last.pt", {**state, "optimizer": self.optimizer.state_dict()}, keep=True)


def build(identity: dict[str, Any]) -> models.Network:
    """The network of a run or checkpoint, freshly initialised."""
    levels = [len(task["levels"]) for task in identity["tasks"]]
    return models.build(identity["arch"], identity["backbone"], len(identity["classes"]), levels)


def load_network(state: dict[str, Any], device: torch.device) -> models.Network:
    """The trained network of a checkpoint."""
    net = build(state["run"])
    net.load_state_dict(state["model"])
    return net.to(device)


def shuffled(n: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """The order of the patches in an epoch: a function of (seed, epoch) alone."""
    return np.random.default_rng(number("order", seed, epoch)).permutation(n)


def number(*parts: object) -> int:
    """A 63-bit seed from what it is for."""
    text = "\0".join(map(str, ("mtltrain-1", *parts)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def refuse_difference(
    saved: dict[str, Any],
    now: dict[str, Any],
    where: Path,
    do: str = "repeat the earlier call, or name another folder with --out",
) -> None:
    """Raise InputError on the first value in which a checkpoint or run folder differs from this call.

    The device is none: a run begun on a GPU goes on without it, in other bits.
    """
    saved = {**asdict(Settings()), "windows": listed(WINDOWS), "normalisation": listed(IMAGENET)} | saved  # older ones
    for key, value in now.items():
        if key != "device" and saved.get(key) != value:
            raise InputError(f"made with {key} = {saved.get(key)}, this call has {value}", do, where)


def save_checkpoint(path: Path, state: dict[str, Any], *, keep: bool = False) -> None:
    """Write a checkpoint of tensors, numbers and text; with `keep`, the one before stays as `.old`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as file:
        torch.save({**state, "sha256": digest(state)}, file)
        if keep and path.exists():
            file.flush()
            os.fsync(file.fileno())  # before the old one loses its name
            path.replace(path.with_suffix(".old"))


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


def listed(rows: Sequence[Sequence[float]]) -> list[list[float]]:
    """Windows, or a normalisation, as a checkpoint and config.json keep them."""
    return [list(row) for row in rows]


@contextmanager
def guarded(settings: Settings, do: str = "lower --batch-size, in another --out") -> Iterator[None]:
    """Compute with deterministic kernels only, where `settings` say so; memory that runs out is a CtpatchError."""
    before = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark
    if settings.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS reads it when first used
        torch.use_deterministic_algorithms(True)
        torch.backends.cudnn.benchmark = False
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if "does not have a deterministic implementation" in str(error):
            found = f"--deterministic, but {settings.backbone} needs an operation that is not ({error})"
            raise InputError(found, "leave it out, or take another --backbone") from error
        if not isinstance(error, MemoryError) and not re.search(
            "out of memory|allocate memory|ALLOC_FAILED", str(error)
        ):
            raise
        raise CtpatchError(
            f"out of memory on {settings.device} at a peak of {_peak(settings.device)} MiB with batches of "
            f"{settings.batch_size} patches of 64 x 64 shown at 224 x 224; finished epochs are kept. Do: {do}."
        ) from error
    finally:
        torch.use_deterministic_algorithms(before[0])
        torch.backends.cudnn.benchmark = before[1]


def _peak(device: str) -> int:
    """Most MiB that were in use."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated() // 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
