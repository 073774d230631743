"""Small stores made of noise, with a bright disc whose size tells the class where there is a signal."""

from pathlib import Path

import numpy as np

from ctpatch import StoreWriter

CLASSES = ("benign", "malignant")
LEVELS = {"size": {}, "noise": {}}


def discs(rng, n, radius):
    """(n, 64, 64) int16: lung with a soft-tissue disc near the middle."""
    rows, columns = np.indices((64, 64)) - 32
    offset = rng.integers(-6, 7, (n, 2, 1, 1))
    inside = (rows - offset[:, 0]) ** 2 + (columns - offset[:, 1]) ** 2 <= radius**2
    return np.where(inside, 40, -850).astype(np.int16) + rng.integers(-60, 61, (n, 64, 64)).astype(np.int16)


def write_store(
    path: Path, counts=None, *, patches=2, signal=True, classes=CLASSES, aux=True, rgb=False, seed=0, first="P"
) -> Path:
    """`counts` gives lesions per split; classes alternate; size (1 or 2) follows the class but for one in eight."""
    rng = np.random.default_rng(seed)
    counts = counts or {"train": 12, "val": 8, "test": 8}
    number = 0
    with StoreWriter(path, label_classes=classes, aux_levels=LEVELS if aux else {}, rgb=rgb) as store:
        for split, count in counts.items():
            for k in range(count):
                index = k % len(classes) if signal else int(rng.integers(len(classes)))
                truth = index if signal else k % len(classes)
                size = truth if k % 8 != 7 else 1 - truth
                store.add(
                    patient_id=f"{first}{number:04d}",
                    split=split,
                    label=classes[index],
                    hu=discs(rng, patches if split == "train" else 1, 6 + 8 * truth),
                    copy=np.arange(patches if split == "train" else 1),
                    aux={"size": 1.0 + size, "noise": float(rng.integers(1, 4))} if aux else None,
                )
                number += 1
    return path
