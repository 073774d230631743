"""Small stores made of noise, with a bright disc whose size tells the class where there is a signal.

And what trained networks might say of test lesions.
"""

import json
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


def history():
    """As in history.csv, of two runs and two seeds."""
    epochs = [(run, seed, e) for run in ("mtl-ri", "stl-ri") for seed in (0, 1) for e in range(1, 6)]
    table = pd.DataFrame(epochs, columns=["run", "seed", "epoch"])
    return table.assign(train_loss=1 / table["epoch"], val_auc=[0.5, 0.7, 0.8, 0.75, 0.6] * 4)


def run_folder(path, cohort, maps=True):
    """A run folder of two seeds whose error grows with the patient's number, the seeds' mean; also the test lesions."""
    from mtltrain.compare import evaluate

    test = cohort.lesions[cohort.lesions["split"] == "test"].reset_index(drop=True)
    parts, levels = [], []
    for seed, change in ((0, -0.02), (1, 0.02)):
        right = 0.95 - 0.03 * np.arange(len(test)) + change
        malignant = np.where(test["label"] == "malignant", right, 1 - right)
        part = test[["patient_id", "lesion_id", "split", "label"]].assign(run="mtl-ri", seed=seed)
        parts.append(part.assign(p_benign=1 - malignant, p_malignant=malignant))
        told = test[["patient_id", "lesion_id", "split"]].assign(run="mtl-ri", seed=seed, task="size")
        levels.append(told.assign(level=test["aux_size"], predicted=1.0, majority=1.0))
        if maps:
            (path / "mtl-ri" / f"seed-{seed}").mkdir(parents=True)
            heat = np.zeros((24, 2, 4, 4), np.float16)
            heat[:, :, seed, 0] = 1 + seed
            np.save(path / "mtl-ri" / f"seed-{seed}" / "attention.npy", heat)
    predictions, auxiliary = pd.concat(parts), pd.concat(levels)
    predictions.to_csv(path / "predictions.csv", index=False)
    auxiliary.to_csv(path / "auxiliary.csv", index=False)
    history().assign(run="mtl-ri").to_csv(path / "history.csv", index=False)
    (path / "metrics.json").write_text(json.dumps(evaluate(predictions, cohort.classes)))
    return path, test
