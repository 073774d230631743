"""Training: a run is one architecture, trained once with one seed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ctpatch.store import IMAGENET, WINDOWS, CtpatchError, InputError, one_line

from . import Settings, metrics, models
from .checkpoints import Saver, newest_checkpoint, restore_best
from .cohort import Cohort
from .graph import GraphedStep
from .tasks import Characteristic, targets

LOOK = {"cpu": 1, "cuda": 100}
"""After how many steps to see whether all were finite: a GPU is not waited for at each."""

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


def train(
    run: Run,
    folder: Path,
    start: Mapping[str, Tensor],
    log: Callable[[str], None],
    watch: Watch,
    *,
    graph: bool = False,
) -> list[dict[str, float]]:
    """Train one run from its last checkpoint on, leaving best.pt in `folder`; the history, one dict per epoch.

    Seeds are derived from (seed, epoch), so an interrupted run needs no generator's state to go on as if nothing had
    happened: on a CPU, with the same number of threads, its final weights are the same bits. With `graph`, on a GPU,
    the steps of full batches are one CUDA graph.

    Raises
    ------
    CtpatchError
        If the loss is no longer finite; finished epochs are kept.
    """
    with torch.random.fork_rng(["cuda"] if run.settings.device == "cuda" else []):
        torch.manual_seed(number("initial", run.seed))
        session = _Session(run, start, capturable=graph)
        session.resume(folder, log)
        step = GraphedStep(session.step, run.settings.batch_size) if graph else session.step
        with Saver(folder, run.identity, session.device.type) as saver:
            while session.unfinished():
                session.epoch(watch, step)
                session.save(saver)
                log(f"{run.name} " + "  ".join(f"{k} {v:.4g}" for k, v in session.history[-1].items()))
    return session.history


class _Tally:
    """What an epoch's steps came to, on the device, so that none has to be waited for.

    `loss` is the sum over the patches; `made` the number of steps before the first that was not finite; `stopped` is 1
    from that one on, which makes fused Adam leave everything as it is.
    """

    def __init__(self, device: torch.device):
        self.loss = torch.zeros((), dtype=torch.float64, device=device)
        self.made = torch.zeros((), dtype=torch.int64, device=device)
        self.stopped = torch.zeros((), device=device)

    def reset(self) -> None:
        for tensor in (self.loss, self.made, self.stopped):
            tensor.zero_()

    def add(self, loss: Tensor, size: Tensor, patches: int) -> None:
        """A batch's mean loss, and the size of its gradient."""
        finite = (loss + 0 * size).isfinite()
        self.stopped.copy_(torch.maximum(self.stopped, (~finite).float()))
        self.made.add_(self.stopped == 0)
        self.loss.add_(loss, alpha=patches)


class _Session:
    """A network in training: the state that a checkpoint holds, and the data it is trained on."""

    def __init__(self, run: Run, start: Mapping[str, Tensor], *, capturable: bool = False):
        self.run, self.history = run, list[dict[str, float]]()
        self.train, self.val = run.cohort.patches["train"], run.cohort.patches["val"]
        self.device = self.train.hu.device
        self.net = build(run.identity).to(self.device)
        if run.arch.endswith("tl"):
            models.load_pretrained(self.net, start)
        groups = models.parameter_groups(self.net, run.settings.lr, run.arch.endswith("tl"))
        self.optimizer = torch.optim.Adam(groups, lr=run.settings.lr, fused=True, capturable=capturable)
        self.tally = _Tally(self.device)
        self.optimizer.found_inf = self.tally.stopped  # type: ignore[attr-defined]  # as torch's GradScaler gives it
        self.label = torch.from_numpy(run.cohort.label).to(self.device)
        self.levels = targets(run.cohort, run.tasks).to(self.device)
        counts = self.label[self.train.lesion].bincount(minlength=len(run.cohort.classes))  # the loss is over patches
        self.class_weights = counts.sum() / (len(counts) * counts) if run.settings.balanced else None

    def resume(self, folder: Path, log: Callable[[str], None]) -> None:
        path = folder / "last.pt"
        state = newest_checkpoint(path)
        if state is None:
            return
        refuse_difference(state["run"], self.run.identity, path)
        self.net.load_state_dict(state["model"])
        capturable = self.optimizer.defaults["capturable"]
        self.optimizer.load_state_dict(state["optimizer"])
        for group in self.optimizer.param_groups:
            group["capturable"] = capturable  # whichever way the run was begun
        self.history = state["history"]
        restore_best(folder / "best.pt", self.history[: self.best()])
        begun, device = state["run"]["device"], self.run.settings.device
        log(f"{self.run.name} goes on after epoch {len(self.history)}" + f", begun on {begun}" * (begun != device))

    def best(self) -> int:
        return best_epoch(self.history)

    def unfinished(self) -> bool:
        settings, done = self.run.settings, len(self.history)
        return done < settings.epochs and done - self.best() < settings.patience

    def epoch(self, watch: Watch, step: Callable[[Tensor], None]) -> None:
        epoch = len(self.history) + 1
        torch.manual_seed(number("dropout", self.run.seed, epoch))
        order = torch.from_numpy(shuffled(len(self.train), self.run.seed, epoch)).to(self.device)
        self.net.train()
        self.tally.reset()
        batches = order.split(self.run.settings.batch_size)
        for k, batch in enumerate(watch(batches, f"{self.run.name} epoch {epoch}"), 1):
            step(batch)
            if k % LOOK[self.device.type] == 0:
                self.look(batches)
        self.look(batches)
        loss = float(self.tally.loss) / len(order)
        self.history.append({"epoch": epoch, "train_loss": loss, "val_auc": self.validate()})

    def validate(self) -> float:
        """AUC of the validation lesions, macro one-vs-rest with more than two classes."""
        rows, tables = models.predict(self.net, self.val, self.run.settings.batch_size)
        cohort = self.run.cohort
        positive = cohort.classes.index(cohort.order[-1])
        auc = metrics.auc(*metrics.one_vs_rest(metrics.ranking(tables[0]), cohort.label[rows], positive)).value
        assert auc is not None  # read_cohort saw to every class
        return auc

    def loss(self, batch: Tensor) -> Tensor:
        lesion = self.train.lesion[batch]
        major, auxiliary = models.forward(self.net, self.train.pictures(batch))
        shares, m = [task.weight for task in self.run.tasks], self.run.settings.major_share
        levels = self.levels[lesion]
        return models.multitask_loss(major, self.label[lesion], auxiliary, levels, shares, self.class_weights, m)

    def step(self, batch: Tensor) -> None:
        """An optimiser step, not made if its loss or gradient, or that of a step before it, is not finite.

        Nothing in it waits for the device; `look` does.
        """
        loss = self.loss(batch)
        loss.backward()
        size = torch.nn.utils.get_total_norm([p.grad for p in self.net.parameters() if p.grad is not None])
        self.tally.add(loss.detach(), size, len(batch))
        self.optimizer.step()
        self.optimizer.zero_grad()

    def look(self, batches: Sequence[Tensor]) -> None:
        """Wait for the steps so far; raise if one could not be made."""
        if self.tally.stopped:
            lesion = self.train.lesion[batches[int(self.tally.made)]]
            rows = self.run.cohort.lesions.iloc[sorted(set(lesion.tolist()))]
            names = ", ".join(f"{p}/{k}" for p, k in zip(rows["patient_id"], rows["lesion_id"], strict=True))
            raise CtpatchError(
                f"{self.run.name}: the loss or its gradient is not finite in epoch {len(self.history) + 1}, in a batch "
                f"of lesions {one_line(names)}; the step was not made, best.pt is of epoch {self.best()}. "
                "Do: try a lower --lr."
            )

    def save(self, saver: Saver) -> None:
        best = self.best() == len(self.history)
        saver.keep(self.history, self.net.state_dict(), self.optimizer.state_dict(), best=best)


def best_epoch(history: Sequence[Mapping[str, float]]) -> int:
    """Number of the first epoch with the highest validation AUC; 0 where there is none."""
    aucs = [entry["val_auc"] for entry in history]
    return aucs.index(max(aucs)) + 1 if aucs else 0


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


def listed(rows: Sequence[Sequence[float]]) -> list[list[float]]:
    """Windows, or a normalisation, as a checkpoint and config.json keep them."""
    return [list(row) for row in rows]
