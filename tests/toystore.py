"""Small stores made of noise, with a bright disc whose size tells the class where there is a signal.

And what trained networks might say of test lesions.
"""

from pathlib import Path

import numpy as np
import pandas as pd

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
    path: Path,
    counts=None,
    *,
    patches=2,
    signal=True,
    classes=CLASSES,
    aux=True,
    rgb=False,
    seed=0,
    first="P",
    windows=None,
) -> Path:
    """`counts` gives lesions per split; classes alternate; size (1 or 2) follows the class but for one in eight.

    `windows` go into the recipe, where there are any.
    """
    rng = np.random.default_rng(seed)
    counts = counts or {"train": 12, "val": 8, "test": 8}
    number = 0
    recipe = {"rendering": {"windows_hu": windows}} if windows else {}
    with StoreWriter(path, label_classes=classes, aux_levels=LEVELS if aux else {}, rgb=rgb, recipe=recipe) as store:
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


def predictions(runs=("mtl-ri", "stl-ri"), seeds=(0,), classes=("T3", "T4"), lesions=40, per_patient=1, seed=0):
    """As in predictions.csv, of informative models for test lesions of known labels; classes alternate."""
    rng = np.random.default_rng(seed)
    labels = np.arange(lesions) % len(classes)
    places = [(f"{i // per_patient:03d}", str(i % per_patient + 1)) for i in range(lesions)]
    frames = []
    for run in runs:
        for number in seeds:
            score = np.exp(rng.normal(size=(lesions, len(classes))) + 1.2 * np.eye(len(classes))[labels])
            frame = pd.DataFrame(score / score.sum(axis=1, keepdims=True), columns=[f"p_{name}" for name in classes])
            frame[["patient_id", "lesion_id"]] = places
            frames.append(frame.assign(run=run, seed=number, split="test", label=np.array(classes)[labels]))
    return pd.concat(frames, ignore_index=True)
