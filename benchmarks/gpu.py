"""The trainer's GPU part in one call of at most four minutes; one JSON line a row.

    python benchmarks/gpu.py [STORE] [--steps 200] [--device auto] [--seconds 200]

Without a store it makes one of noise, of 18,150 training patches. It needs Python, torch, torchvision, timm, h5py,
numba, numpy, pandas and scipy, and of ours only what lies beside it (PYTHONPATH=. where nothing is installed).

    eager, graph, compiled   a training step (MTL, STL): milliseconds and patches a second; `graph` as --cuda-graph does
                             it; `compiled` the same with rendering, network and loss through torch.compile
    kernels                  how many a step launches on the GPU, their time, and the longest
    saving                   what keeping checkpoints takes of an epoch: the copy, which the training waits for, and the
                             writing thread beside it
    plain                    what one writes first (see benchmarks/epoch.py), by workers of its DataLoader
    deterministic            whether two runs with --deterministic give the same bits, kernel by kernel and as graphs

What needs a GPU is left out on a CPU and says so; a row that fails says how, the others go on, and the status is 1.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import epoch
import numpy as np
import torch

from ctpatch import StoreWriter, open_store
from mtltrain import Settings, checkpoints, fit
from mtltrain.cohort import read_cohort
from mtltrain.device import guarded, pick_device
from mtltrain.graph import WARM_UP, GraphedStep
from mtltrain.tasks import select

PATCHES = 18_150
LESION = 150
ARCHS = ("mtl-ri", "stl-ri")
Row = dict[str, object]


def random_store(path: Path, patches: int) -> Path:
    """Noise in the range of lung, with five characteristics that go with the label."""
    rng = np.random.default_rng(0)
    names, lesions = [f"sign{k}" for k in range(5)], max(16, patches // LESION)
    splits = [*[("train", patches // lesions)] * lesions, *[("val", 1)] * 8, *[("test", 1)] * 8]
    with StoreWriter(path, label_classes=["a", "b"], aux_levels={name: {} for name in names}, rgb=False) as store:
        for k, (split, count) in enumerate(splits):
            hu = (-800 + rng.integers(0, 32, (count, 64, 64)) * 30).astype(np.int16)
            aux = {name: float(k % 2 if rng.random() < 0.95 else rng.integers(2)) for name in names}
            store.add(patient_id=f"{k:04d}", split=split, label="ab"[k % 2], hu=hu, aux=aux)
    return path


@dataclass
class Bench:
    """What the rows have in common."""

    path: Path
    device: torch.device
    steps: int
    settings: Settings
    workers: list[int]

    def __post_init__(self) -> None:
        with open_store(self.path) as store:
            self.cohort = read_cohort(store, device=self.device.type)
        self.tasks = select(self.cohort)[1]

    def run(self, arch: str) -> fit.Run:
        return fit.Run(arch, 0, self.settings, self.cohort, self.tasks)

    def session(self, arch: str, *, capturable: bool = False) -> fit._Session:
        torch.manual_seed(0)
        session = fit._Session(self.run(arch), {}, capturable=capturable)
        session.net.train()
        return session

    def batches(self) -> Iterator[torch.Tensor]:
        """Full batches, without end."""
        size, n = self.settings.batch_size, len(self.cohort.patches["train"])
        for number in range(1, 10**9):
            order = torch.from_numpy(fit.shuffled(n, 0, number)).to(self.device)
            yield from order[: n // size * size].split(size)

    def wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def rate(self, step: Callable[[torch.Tensor], None]) -> Row:
        """Of steps after a warm-up, which is longer than a graph's."""
        batches = self.batches()
        for _ in range(WARM_UP + 2 if self.device.type == "cuda" else 1):
            step(next(batches))
        self.wait()
        start = time.perf_counter()
        for _ in range(self.steps):
            step(next(batches))
        self.wait()
        step_s = (time.perf_counter() - start) / self.steps
        return {"ms_per_step": round(1000 * step_s, 3), "patches_per_s": round(self.settings.batch_size / step_s)}


def eager(bench: Bench, arch: str) -> Row:
    return bench.rate(bench.session(arch).step)


def graph(bench: Bench, arch: str, compiled: bool = False) -> Row:
    session = bench.session(arch, capturable=True)
    if compiled:
        session.loss = torch.compile(session.loss, dynamic=False)
    found = bench.rate(GraphedStep(session.step, bench.settings.batch_size))
    return found | {"finite": not bool(session.tally.stopped)}


def kernels(bench: Bench, arch: str, graphed: bool) -> Row:
    session = bench.session(arch, capturable=graphed)
    step = GraphedStep(session.step, bench.settings.batch_size) if graphed else session.step
    batches, counted = bench.batches(), 10
    for _ in range(WARM_UP + 2):
        step(next(batches))
    bench.wait()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        for _ in range(counted):
            step(next(batches))
        bench.wait()
    found = [event for event in profile.key_averages() if event.self_device_time_total > 0]  # not the calls of the host
    found.sort(key=lambda event: -event.self_device_time_total)
    longest = {event.key[:60]: round(event.self_device_time_total / 1000 / counted, 3) for event in found[:15]}
    return {
        "per_step": round(sum(event.count for event in found) / counted),
        "ms_per_step": round(sum(event.self_device_time_total for event in found) / 1000 / counted, 3),
        "longest_ms": longest,
    }


def saving(bench: Bench, arch: str) -> Row:
    """Epochs alone, and while the checkpoint of the one before is written; the copying between them."""
    session, alone, copying, beside = bench.session(arch), [], [], []
    watch = lambda batches, title: batches if bench.device.type == "cuda" else batches[: bench.steps]
    with tempfile.TemporaryDirectory() as folder, checkpoints.Saver(Path(folder), {}, bench.device.type) as saver:
        saver.share = float("inf")
        for _ in range(4):
            saver.wait()
            alone.append(seconds(lambda: session.epoch(watch, session.step)))
            copying.append(seconds(lambda: session.save(saver)))
            beside.append(seconds(lambda: session.epoch(watch, session.step)))
        saver.wait()
        written = saver._cost
        size = (Path(folder) / "last.pt").stat().st_size
    epoch_s, copy_s, beside_s = (float(np.median(values[1:])) for values in (alone, copying, beside))
    found = {"epoch_s": epoch_s, "copy_s": copy_s, "epoch_while_writing_s": beside_s, "write_s": written}
    found["copy_share"], found["whole_share_if_each_is_written"] = copy_s / epoch_s, (copy_s + beside_s) / epoch_s - 1
    return {name: round(value, 4) for name, value in found.items()} | {"MB": round(size / 1e6)}


def seconds(call: Callable[[], None]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def plain(bench: Bench, arch: str, workers: int) -> Row:
    with open_store(bench.path) as store:
        parts = epoch.plain(store, bench.run(arch), bench.device, bench.steps, workers)
    whole = sum(parts.values())
    rate = {"ms_per_step": round(1000 * whole, 2), "patches_per_s": round(bench.settings.batch_size / whole)}
    return rate | {f"{part}_ms": round(1000 * value, 2) for part, value in parts.items()}


def deterministic(bench: Bench, arch: str) -> Iterator[tuple[str, Row]]:
    """Names and rows; on a GPU also of graphs."""
    settings = replace(bench.settings, epochs=2, deterministic=True)
    run = fit.Run(arch, 0, settings, bench.cohort, bench.tasks)
    few = lambda batches, title: [*batches[: min(bench.steps, 20)], batches[-1]]

    def digest(by_graph: bool) -> str:
        with tempfile.TemporaryDirectory() as folder, guarded(settings):
            fit.train(run, Path(folder), {}, lambda line: None, few, graph=by_graph)
            return checkpoints.digest(checkpoints.load_checkpoint(Path(folder) / "last.pt")["model"])

    one, two = digest(False), digest(False)
    yield f"deterministic {arch}", {"same": one == two}
    if bench.device.type == "cuda":
        one, two = digest(True), digest(True)
        yield f"deterministic {arch} graph", {"same": one == two, "as_eager": one == digest(False)}


def rows(bench: Bench) -> Iterator[tuple[str, bool, Callable[[], Row]]]:
    """Name, whether it needs a GPU, and what measures it: what is most likely to work first."""
    for arch in ARCHS:
        yield f"eager {arch}", False, lambda arch=arch: eager(bench, arch)
    yield "kernels eager mtl-ri", True, lambda: kernels(bench, "mtl-ri", False)
    yield "saving mtl-ri", False, lambda: saving(bench, "mtl-ri")
    for workers in bench.workers:
        yield f"plain mtl-ri {workers} workers", False, lambda workers=workers: plain(bench, "mtl-ri", workers)
    for arch in ARCHS:
        yield f"graph {arch}", True, lambda arch=arch: graph(bench, arch)
    yield "kernels graph mtl-ri", True, lambda: kernels(bench, "mtl-ri", True)
    for arch in ARCHS:
        yield f"compiled {arch}", True, lambda arch=arch: graph(bench, arch, True)


def tell(name: str, row: Row) -> None:
    print(json.dumps({"row": name, **row}), flush=True)


def measure(bench: Bench, deadline: float) -> bool:
    """Print all rows; whether none failed."""
    well = True
    for name, needs_gpu, row in rows(bench):
        if needs_gpu and bench.device.type != "cuda":
            tell(name, {"left_out": "needs a GPU"})
        elif time.monotonic() > deadline:
            tell(name, {"left_out": "no time left"})
        else:
            try:
                tell(name, row())
            except Exception as error:  # the others are wanted all the same
                tell(name, {"failed": f"{type(error).__name__}: {error}"[:400]})
                well = False
    return well


def repeats(bench: Bench) -> bool:
    """Print whether runs repeat; whether none failed."""
    try:
        for name, row in deterministic(bench, "mtl-ri"):
            tell(name, row)
    except Exception as error:
        tell("deterministic", {"failed": f"{type(error).__name__}: {error}"[:400]})
        return False
    return True


def main() -> int:
    began = time.monotonic()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store", type=Path, nargs="?")
    parser.add_argument("--steps", type=int, default=200, help="of each measurement")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--backbone", default="alexnet")
    parser.add_argument("--batch", type=int, default=50)
    parser.add_argument("--patches", type=int, default=PATCHES, help="of the store that is made")
    parser.add_argument("--workers", type=int, nargs="*", default=[0, 8])
    parser.add_argument("--seconds", type=float, default=200, help="after which no row begins")
    parser.add_argument("--rows", choices=("all", "deterministic", "others"), default="all")
    args = parser.parse_args()
    device = pick_device(args.device)
    with tempfile.TemporaryDirectory() as folder:
        path = args.store or random_store(Path(folder) / "noise.h5", args.patches)
        settings = Settings(args.backbone, batch_size=args.batch, device=device.type)
        bench = Bench(path, device, args.steps, settings, args.workers)
        if args.rows == "deterministic":
            return 0 if repeats(bench) else 1
        gpu = torch.cuda.get_device_name() if device.type == "cuda" else "none"
        versions = {"torch": torch.__version__, "python": platform.python_version()}
        tell("machine", {"gpu": gpu, **versions, "cpus": os.cpu_count(), "patches": len(bench.cohort.patches["train"])})
        well = args.rows == "others" or in_a_process_of_its_own(path, args)
        return 0 if measure(bench, began + args.seconds) and well else 1


def in_a_process_of_its_own(path: Path, args: argparse.Namespace) -> bool:
    """The rows `deterministic`: cuBLAS reads its setting once."""
    words = [path, "--rows", "deterministic", "--steps", args.steps, "--device", args.device]
    words += ["--backbone", args.backbone, "--batch", args.batch]
    return subprocess.run([sys.executable, __file__, *map(str, words)], check=False).returncode == 0


if __name__ == "__main__":
    sys.exit(main())
