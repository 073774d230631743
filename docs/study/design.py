"""What the study trains, and in which order: the numbers of protocol.md, once, for `stores`, `run` and `recompute`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

FOLDS = 3
SEEDS = range(5)
POSITIVE = {"lidc": "malignant", "agc": "T4", "ggn": "IAC"}
LITE0 = "timm:tf_efficientnet_lite0"
BACKBONE = {"alexnet": "alexnet", "lite0": LITE0}
START = {"alexnet": "ri", "lite0": "tl"}
"""Of the primary comparisons."""
SETTINGS = {
    "alexnet": ("--epochs", "3", "--batch-size", "50"),
    "lite0": ("--epochs", "2", "--batch-size", "8"),
}
"""Learning rates and m are mtltrain's own, which are the paper's."""

PATCHES = {"agc": ("3", "1"), "ggn": ("4", "1")}
"""`--patches` and `--augment` of ctpatch build; LIDC has one picture of a nodule, and one moved copy of it."""
COPIES = 1

SHARES = {"m10": "1", "m03": "0.3", "m05": "0.5", "m09": "0.9"}
STORES = {"blank", "shuffled", "patients10", "patients30"}
"""Variants that change the training lesions of the store, and nothing else."""
WEIGHED = {"equal", "unrelated", "shuffled"}
"""Variants that name the auxiliary tasks and their weights."""
EPOCHS = {"patients30": "10", "patients10": "30"}
"""As many steps as with all patients; none of them is stopped early."""
BOTH = {"patients10", "patients30"}
"""Variants in which the single-task network is another one too."""


@dataclass(frozen=True)
class Cell:
    """One call of `mtltrain fit`: some architectures, trained once on one fold with one seed."""

    cohort: str
    backbone: str
    variant: str
    fold: int
    seed: int
    archs: tuple[str, ...]

    @property
    def folder(self) -> str:
        """Its run folder, which cells of other seeds and architectures share."""
        return f"{self.cohort}/{self.backbone}/{self.variant}/fold-{self.fold}"

    @property
    def runs(self) -> list[str]:
        """Its trainings' names in `predictions/`, backbone/variant/architecture/seed."""
        return [f"{self.backbone}/{self.variant}/{arch}/{self.seed}" for arch in self.archs]

    @property
    def store(self) -> str:
        """Name of the store that it is trained on."""
        changed = f"-{self.variant}" if self.variant in STORES else ""
        return f"{self.cohort}-{self.fold}of{FOLDS}{changed}"


def cells() -> list[Cell]:
    """Every cell, the most valuable first; a block is whole before the next begins."""
    return [cell for block in _blocks() for cell in block]


def _blocks() -> Iterator[list[Cell]]:
    for cohort, backbone in (("lidc", "alexnet"), ("lidc", "lite0"), *product(("ggn", "agc"), ("alexnet", "lite0"))):
        start = START[backbone]
        yield _folds(cohort, backbone, "main", 0, (f"mtl-{start}", f"stl-{start}"))
        yield _folds(cohort, backbone, "m10", 0, (f"mtl-{start}",))
    yield _folds("lidc", "alexnet", "shuffled", 0, ("mtl-ri",))
    yield from _ablations(0)
    for seed in SEEDS[1:]:
        yield _folds("lidc", "alexnet", "main", seed, ("mtl-ri", "stl-ri"))
        if seed < 3:
            yield _folds("lidc", "alexnet", "m10", seed, ("mtl-ri",))
            yield _folds("lidc", "alexnet", "shuffled", seed, ("mtl-ri",))
    for cohort in POSITIVE:
        yield _folds(cohort, "lite0", "main", 0, ("mtl-ri", "stl-ri"))
    for seed in SEEDS[1:]:
        for cohort, (backbone, start) in product(POSITIVE, START.items()):
            if (cohort, backbone) != ("lidc", "alexnet"):
                yield _folds(cohort, backbone, "main", seed, (f"mtl-{start}", f"stl-{start}"))
    for seed in SEEDS[1:]:
        yield _folds("agc", "alexnet", "m10", seed, ("mtl-ri",))
    for seed in (1, 2):
        yield from _ablations(seed)


def _ablations(seed: int) -> Iterator[list[Cell]]:
    """What the answer depends on: LIDC, AlexNet from random weights."""
    for variant in ("m03", "m05", "m09", "equal", "unrelated", "blank", "patients30", "patients10"):
        archs = ("mtl-ri", "stl-ri") if variant in BOTH else ("mtl-ri",)
        yield _folds("lidc", "alexnet", variant, seed, archs)


def _folds(cohort: str, backbone: str, variant: str, seed: int, archs: tuple[str, ...]) -> list[Cell]:
    return [Cell(cohort, backbone, variant, fold, seed, archs) for fold in range(1, FOLDS + 1)]
