"""Where an epoch's time goes, and the plain Dataset/DataLoader loop over the same store beside it.

    python benchmarks/epoch.py STORE [--arch mtl-ri] [--backbone alexnet] [--device auto] [--steps 20] [--threads N]

The first steps warm up and are not counted. The plain loop is what one writes first: `PatchDataset` in a shuffling
`DataLoader`, torch's default Adam, default memory format, float32. Both train the same network on batches of 50.
"""

import argparse
import os
import time
from collections import defaultdict
from pathlib import Path

import torch

from ctpatch import open_store
from mtltrain import Settings, fit
from mtltrain.cli import ARCHS
from mtltrain.cohort import read_cohort
from mtltrain.data import PatchDataset
from mtltrain.device import pick_device
from mtltrain.models import forward, multitask_loss
from mtltrain.tasks import select

BATCH = 50
WARM_UP = 3


class Clock:
    """Adds up seconds per part; waits for the device so that the time falls on the part that caused it."""

    def __init__(self, device: torch.device):
        self.device, self.parts = device, defaultdict(float)
        self.start()

    def start(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        self.last = time.perf_counter()

    def lap(self, part: str) -> None:
        before = self.last
        self.start()
        self.parts[part] += self.last - before


def designed(run: fit.Run, steps: int) -> dict[str, float]:
    """Seconds of each part of mtltrain's own step, per step."""
    session = fit._Session(run, {})
    session.net.train()
    device = session.device
    order = torch.from_numpy(fit.shuffled(len(session.train), 0, 1)).to(device)
    weights = [task.weight for task in run.tasks]
    clock = Clock(device)
    for step, batch in enumerate(order.split(BATCH)[: steps + WARM_UP]):
        if step == WARM_UP:
            clock = Clock(device)
        lesion, hu = session.train.lesion[batch], session.train.hu[batch]
        clock.lap("gather")
        pictures = session.train.rendering.pictures(hu)
        clock.lap("render")
        major, auxiliary = forward(session.net, pictures)
        loss = multitask_loss(major, session.label[lesion], auxiliary, session.levels[lesion], weights)
        clock.lap("forward")
        loss.backward()
        clock.lap("backward")
        size = torch.nn.utils.get_total_norm([p.grad for p in session.net.parameters() if p.grad is not None])
        session.tally.add(loss.detach(), size, len(batch))
        clock.lap("check")
        session.optimizer.step()
        session.optimizer.zero_grad()
        clock.lap("optimiser")
    return {part: seconds / steps for part, seconds in clock.parts.items()}


def plain(store, run: fit.Run, device: torch.device, steps: int, workers: int) -> dict[str, float]:
    """Seconds of loading and of computing in the plain loop, per step."""
    cohort, tasks = run.cohort, run.tasks
    net = fit.build(run.identity).to(device, memory_format=torch.contiguous_format).train()
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    names = [name.removeprefix("aux_") for name in cohort.lesions if name.startswith("aux_")]
    columns = [names.index(task.name) for task in tasks]
    loader = torch.utils.data.DataLoader(
        PatchDataset(store, "train"),
        run.settings.batch_size,
        shuffle=True,
        num_workers=workers,
        persistent_workers=workers > 0,
    )
    clock, done = Clock(device), 0
    while done < steps + WARM_UP:
        for pictures, label, aux in loader:
            if done == WARM_UP:
                clock = Clock(device)
            level = [
                torch.tensor([task.levels.index(v) if v in task.levels else -1 for v in aux[:, c].tolist()])
                for task, c in zip(tasks, columns, strict=True)
            ]
            levels = torch.stack(level, 1) if level else torch.empty(len(label), 0, dtype=torch.long)
            clock.lap("load")
            major, auxiliary = net(pictures.to(device))
            weights = [task.weight for task in tasks] if auxiliary else []
            multitask_loss(major, label.to(device), auxiliary, levels.to(device), weights).backward()
            optimizer.step()
            optimizer.zero_grad()
            clock.lap("compute")
            done += 1
            if done == steps + WARM_UP:
                break
    return {part: seconds / steps for part, seconds in clock.parts.items()}


def show(title: str, parts: dict[str, float]) -> None:
    total = sum(parts.values())
    split = ", ".join(f"{part} {1000 * s:.1f} ms ({100 * s / total:.0f} %)" for part, s in parts.items())
    print(f"{title}: {BATCH / total:.1f} patches/s; a step of {BATCH}: {split}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store", type=Path)
    parser.add_argument("--arch", default="mtl-ri", choices=ARCHS)
    parser.add_argument("--backbone", default="alexnet")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--workers", type=int, default=0, help="of the plain loop's DataLoader")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    device = pick_device(args.device)
    with open_store(args.store) as store:
        start = time.perf_counter()
        cohort = read_cohort(store, device=device.type)
        read = time.perf_counter() - start
        settings = Settings(args.backbone, device=device.type)
        run = fit.Run(args.arch, 0, settings, cohort, select(cohort)[1])
        print(f"{run.arch} {args.backbone} on {device}, {torch.get_num_threads()} threads, torch {torch.__version__}")
        patches = sum(map(len, cohort.patches.values()))
        print(f"reading and checking {patches} patches, onto the device, once: {read:.2f} s")
        show("mtltrain", designed(run, args.steps))
        show(f"plain loop, {args.workers} workers", plain(store, run, device, args.steps, args.workers))


if __name__ == "__main__":
    main()
