"""Does AlexNet start to learn? Fixed-width Gaussian initialisation against He's, on one store, step by step.

python benchmarks/initialisation.py STORE [--steps 100]
"""

import argparse
import math
from pathlib import Path

import numpy as np
import torch
from torch import nn

from ctpatch import open_store
from mtltrain import models
from mtltrain.cohort import read_cohort


def naive(net: nn.Module) -> None:
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.normal_(module.weight, std=0.01)
            nn.init.zeros_(module.bias)


def losses(store: Path, initialise, steps: int, seed: int) -> list[float]:
    torch.manual_seed(seed)
    net = models.build("stl-ri", "alexnet", 2, [])
    initialise(net)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3, fused=True)
    with open_store(store) as opened:
        cohort = read_cohort(opened)
    patches = cohort.patches["train"]
    label = torch.from_numpy(cohort.label)[patches.lesion]
    found = []
    for step in range(steps):
        batch = torch.from_numpy(np.random.default_rng([seed, step]).choice(len(label), 50, replace=False))
        major, _ = models.forward(net, patches.pictures(batch))
        loss = models.multitask_loss(major, label[batch], [], label, [])
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        found.append(loss.item())
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("store", type=Path)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    print(f"mean loss of each tenth of {args.steps} steps; ln 2 = {math.log(2):.4f}")
    for name, initialise in (("sigma 0.01", naive), ("He", models.initialise)):
        parts = np.array_split(losses(args.store, initialise, args.steps, args.seed), 10)
        print(name, *(f"{part.mean():.4f}" for part in parts))


if __name__ == "__main__":
    main()
