"""A store's patches as network input, pictures a second on one thread: ctpatch's ways, torch's and MONAI's.

    python benchmarks/loaders.py STORE [--against FOLDER] [--batches 8] [--rounds 7]

Every row makes shuffled batches of 50, float32 (50, 3, 224, 224), from the same HU of the training split; rounds of all
rows are interleaved, and each row's median is given. One JSON line a row:

`pictures_per_s`; `times_plain` and `times_earlier`, how many times those rows'; `off`, the largest difference from the
store's exact integer levels (where they are the same, a float32's last bits); `same`, the share of values that round to
them. `torch` and `MONAI` do not round to levels: in a training loop nobody would. MONAI's version stands in
benchmarks/requirements.txt; without MONAI its row is left out.

    earlier            PatchDataset of the commit whose files lie in FOLDER, in a DataLoader of batch_size 50
    plain              one patch at a time from HDF5, rendered by torch operations, collated: what PatchDataset once was
    items              PatchDataset in a DataLoader of batch_size 50
    batches            PatchDataset in a DataLoader of whole batches
    pictures           SplitView.pictures(list of 50)
    pictures, out      the same into memory that is used again
    torch              one patch at a time from HDF5, stacked, then interpolate, clamp, normalise on the whole batch
    torch, in memory   the same from an array in memory; fused, in memory: ctpatch's kernel from the same array
    MONAI              Dataset and Compose in its DataLoader, from HDF5
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch.utils.data import BatchSampler, DataLoader, Dataset

from ctpatch import open_store
from ctpatch.patches.render import network_input
from ctpatch.store import IMAGENET, SplitView
from ctpatch.store import Rendering as Constants
from mtltrain.data import PatchDataset, Rendering

BATCH = 50
MEAN, STD = (torch.tensor(values)[:, None, None] for values in IMAGENET)

EARLIER = """
import json, sys, time, torch
from torch.utils.data import DataLoader
from ctpatch.store import open_store
from mtltrain.data import PatchDataset
torch.set_num_threads(1)
with open_store(sys.argv[1]) as store:
    loader = DataLoader(PatchDataset(store, "train"), int(sys.argv[2]), sampler=json.loads(sys.argv[3]))
    for line in sys.stdin:
        start = time.perf_counter()
        for _ in loader:
            pass
        print(time.perf_counter() - start, flush=True)
"""


class Earlier:
    """Another commit's loader in a process of its own: called, the seconds that it takes."""

    def __init__(self, folder: Path, store: Path, order: list[int]):
        words = [sys.executable, "-c", EARLIER, str(store.absolute()), str(BATCH), json.dumps(order)]
        environment = {**os.environ, "PYTHONPATH": str(folder.absolute())}
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(words, stdin=pipe, stdout=pipe, text=True, cwd=folder, env=environment)
        self()  # imports, and what is done once

    def __call__(self) -> float:
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return float(self.process.stdout.readline())


class Plain(Dataset):
    """What PatchDataset was before it was fused."""

    def __init__(self, part: SplitView):
        self.hu, self.by = part.hu, Rendering.of(part.store.windows)

    def __len__(self) -> int:
        return len(self.hu)

    def __getitem__(self, index: int) -> torch.Tensor:
        levels = self.by.levels(torch.from_numpy(np.asarray(self.hu[index]))[None])
        return levels.mul_(self.by.gain).sub_(self.by.offset)[0]


def by_torch(hu: torch.Tensor, windows) -> torch.Tensor:
    """Interpolate, clamp, normalise: a batch at a time, in place where torch can."""
    wide = F.interpolate(hu.float()[:, None], size=224, mode="bilinear", align_corners=False)
    channels = [wide.clamp(low, high).sub_(low).div_(high - low) for low, high in windows]
    return torch.cat(channels, 1).sub_(MEAN).div_(STD)


def monai_loader(part: SplitView, order: list[int]):
    """MONAI's own transforms for the same; None without MONAI."""
    try:
        from monai.data import DataLoader as Loader
        from monai.data import Dataset as Items
        from monai.transforms import Compose, Lambda, NormalizeIntensity, Resize, ScaleIntensityRange
    except ImportError:
        return None
    windows = [ScaleIntensityRange(low, high, 0.0, 1.0, clip=True) for low, high in part.store.windows]
    steps = [
        Lambda(lambda index: torch.from_numpy(part.hu[index].astype(np.float32))[None], track_meta=False),
        Resize((224, 224), mode="bilinear", align_corners=False),
        Lambda(lambda wide: torch.cat([window(wide) for window in windows])),
        NormalizeIntensity(*IMAGENET, channel_wise=True),
    ]
    return Loader(Items(order, Compose(steps)), batch_size=BATCH)


def rows(part: SplitView, order: list[int]) -> dict[str, Callable[[], list[torch.Tensor]]]:
    """What gives the batches of each row."""
    data, hu, windows = PatchDataset(part.store, part.name), np.asarray(part.hu), part.store.windows
    batches = [order[start : start + BATCH] for start in range(0, len(order), BATCH)]
    constants, out = Constants.of(windows), np.empty((BATCH, 3, 224, 224), np.float32)
    read = lambda batch: torch.from_numpy(np.stack([part.hu[i] for i in batch]))
    found = {
        "plain": lambda: DataLoader(Plain(part), BATCH, sampler=order),
        "items": lambda: (item[0] for item in DataLoader(data, BATCH, sampler=order)),
        "batches": lambda: (
            item[0] for item in DataLoader(data, batch_size=None, sampler=BatchSampler(order, BATCH, False))
        ),
        "pictures": lambda: (torch.from_numpy(part.pictures(batch)) for batch in batches),
        "pictures, out": lambda: (torch.from_numpy(part.pictures(batch, out=out[: len(batch)])) for batch in batches),
        "torch": lambda: (by_torch(read(batch), windows) for batch in batches),
        "torch, in memory": lambda: (by_torch(torch.from_numpy(hu[batch]), windows) for batch in batches),
        "fused, in memory": lambda: (torch.from_numpy(network_input(hu[batch], constants)) for batch in batches),
    }
    monai = monai_loader(part, order)
    return found | ({"MONAI": lambda: iter(monai)} if monai else {})


def seconds(make: Callable[[], list[torch.Tensor]]) -> float:
    start = time.perf_counter()
    for _ in make():
        pass
    return time.perf_counter() - start


def difference(batch: torch.Tensor, exact: torch.Tensor) -> dict[str, float]:
    """From the exact levels: the largest difference, and the share of values that round to them."""
    levels = (batch * STD + MEAN) * 255
    off = float((levels - exact).abs().max())
    return {"off": round(off, 3), "same": round(float((levels.round() == exact).float().mean()), 5)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store", type=Path)
    parser.add_argument("--against", type=Path, help="the earlier commit's files")
    parser.add_argument("--batches", type=int, default=8, help="per round and row")
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    torch.set_num_threads(1)
    with open_store(args.store) as store:
        part = store.split("train")
        order = np.random.default_rng(0).permutation(len(part))[: args.batches * BATCH].tolist()
        ways = rows(part, order)
        by = Rendering.of(store.windows)
        exact = by.levels(torch.from_numpy(part.hu[order[:BATCH]]))
        found = {name: difference(torch.as_tensor(next(iter(make()))), exact) for name, make in ways.items()}
        timed = {name: partial(seconds, make) for name, make in ways.items()}
        if args.against:
            timed["earlier"] = Earlier(args.against, args.store, order)
        taken = {name: [] for name in timed}
        for _ in range(args.rounds):
            for name, spent in timed.items():
                taken[name].append(len(order) / spent())
        rates = {name: statistics.median(each) for name, each in taken.items()}
        for name, rate in rates.items():
            others = [other for other in ("earlier", "plain") if other in rates]
            times = {f"times_{other}": round(rate / rates[other], 2) for other in others}
            print(json.dumps({"row": name, "pictures_per_s": round(rate), **times, **found.get(name, {})}), flush=True)


if __name__ == "__main__":
    main()
