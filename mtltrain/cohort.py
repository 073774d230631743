"""A store that can be trained on: its lesions, classes and patches; what would give a wrong answer is refused."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from ctpatch.store import IMAGENET, SPLITS, WINDOWS, InputError, Normalisation, PatchStore, Windows, patient_key

from .data import DevicePatches, class_index, load_patches

FEW = 20
"""Validation lesions of a class below which an AUC's standard error is about 0.04 to 0.07 (Hanley & McNeil, at 0.8)."""


@dataclass(frozen=True)
class Cohort:
    """A store that can be trained on.

    `label` is each lesion's class index, shape (lesions,), -1 where unknown; `order` are the classes from lowest to
    highest; `notes` are findings worth telling that change nothing; `digest` stands for the store's whole content, and
    `windows` made its pictures, which the network sees in `normalisation`; `levels` name each characteristic's levels.
    """

    lesions: pd.DataFrame
    classes: tuple[str, ...]
    order: tuple[str, ...]
    label: NDArray[np.int64]
    patches: Mapping[str, DevicePatches]
    notes: tuple[str, ...]
    digest: str
    windows: Windows = WINDOWS
    normalisation: Normalisation = IMAGENET
    levels: Mapping[str, Mapping[float, str]] = field(default_factory=dict)

    @property
    def positive(self) -> str | None:
        """The positive class of two."""
        return self.order[-1] if len(self.order) == 2 else None

    @property
    def counted(self) -> list[str]:
        """The lesions of each split and class, a line each."""
        return [f"{split}: {n} of {name or 'unknown class'}" for (split, name), n in _counts(self.lesions)]


def read_cohort(
    store: PatchStore,
    positive: str | None = None,
    order: Sequence[str] | None = None,
    device: str = "cpu",
    normalisation: Normalisation = IMAGENET,
) -> Cohort:
    """Lesions, classes and patches of a store that can be trained on.

    Raises
    ------
    InputError
        If a patient is in two splits, train or val lacks a class, or `positive` or `order` do not fit the classes.
    """
    lesions, classes, chosen = store.lesions, tuple(store.label_classes), positive is not None or order is not None
    label, order = class_index(lesions["label"], classes), label_order(classes, positive, order)
    refuse_missing_classes(lesions, classes)
    patches = {split: load_patches(store, split, torch.device(device), normalisation) for split in SPLITS}
    flat = {split: part.hu.amin((1, 2)) == part.hu.amax((1, 2)) for split, part in patches.items()}
    pixels = [_digests(patches[split], ~constant) for split, constant in flat.items()]
    refuse_leaks(lesions, pd.concat(pixels))
    notes = []
    if len(order) == 2 and not chosen:
        last = f"the last of {' and '.join(classes)} in sorted order"
        notes.append(f"positive class: {order[-1]}, {last}; --positive {order[0]} makes it the other")
    if scarce := {name: n for (split, name), n in _counts(lesions) if split == "val" and n < FEW}:
        told = ", ".join(f"{n} of {name}" for name, n in scarce.items())
        notes.append(f"few val lesions ({told}): which epoch is kept, and Youden's threshold, are close to chance")
    for split, constant in flat.items():
        if constant.any():
            notes.append(f"{split}: {int(constant.sum())} of {len(constant)} patches are of one HU throughout")
    known = (store.digest, store.windows, normalisation, store.aux_levels)
    return Cohort(lesions, classes, order, label, patches, tuple(notes), *known)


def _counts(lesions: pd.DataFrame) -> list[tuple[tuple[str, str], int]]:
    return sorted(Counter(zip(lesions["split"], lesions["label"], strict=True)).items())


def label_order(classes: Sequence[str], positive: str | None, order: Sequence[str] | None) -> tuple[str, ...]:
    """The classes from lowest to highest; with two, the positive one is last.

    Raises
    ------
    InputError
        If `positive` or `order` name other classes, or more than two classes have no `order`.
    """
    names = ", ".join(classes)
    if positive is not None and (positive not in classes or len(classes) != 2):
        raise InputError(f"--positive {positive}, but the classes are {names}", "name one of two classes")
    if order is not None and sorted(order) != sorted(classes):
        raise InputError(f"--label-order {' '.join(order)}, but the classes are {names}", "name each once")
    if len(classes) > 2 and order is None:
        raise InputError(f"{len(classes)} classes ({names}) have no order", "add --label-order LOWEST ... HIGHEST")
    if positive is not None and order is not None and order[-1] != positive:
        raise InputError(f"--positive {positive}, but --label-order ends with {order[-1]}", "leave one of them out")
    if positive is not None:
        return *(name for name in classes if name != positive), positive
    return tuple(order or sorted(classes))


def refuse_missing_classes(lesions: pd.DataFrame, classes: Sequence[str]) -> None:
    """Raise InputError unless train and val have every class and no blank label."""
    if len(classes) < 2:
        raise InputError(f"the store has {len(classes)} class ({', '.join(classes)})", "label two classes or more")
    for split in ("train", "val"):
        counts = lesions.loc[lesions["split"] == split, "label"].value_counts()
        if set(counts.index) != set(classes):
            found = ", ".join(f"{n} of {name or 'unknown class'}" for name, n in counts.items()) or "no lesions"
            raise InputError(f"{split} has {found}", f"give {split} lesions of each class: {', '.join(classes)}")


def refuse_leaks(lesions: pd.DataFrame, pixels: pd.Series[str]) -> None:
    """Raise InputError if a patient is in two splits: also under ids written differently, by series or by pixels.

    Parameters
    ----------
    lesions : DataFrame
        Columns patient_id, split, series ("" = unknown).
    pixels : Series of str
        Digests of patches, indexed by row of `lesions`.
    """
    signs = {
        "ids that look like one patient": lesions["patient_id"].map(alike),
        "the same series": lesions["series"][lesions["series"] != ""],
        "the same pixels": pixels,
    }
    for sign, value in signs.items():
        rows = lesions.loc[value.index, ["patient_id", "split"]].set_index(value.to_numpy())
        splits = rows["split"].groupby(level=0).nunique()
        if (splits > 1).any():
            rows = rows.loc[[splits.idxmax()]]
            ids = sorted(set(rows["patient_id"]))
            raise InputError(
                f"patient {' and '.join(map(repr, ids))} is in {' and '.join(sorted(set(rows['split'])))}"
                + (f" ({sign})" if len(ids) > 1 else ""),
                "keep each patient in one split and rebuild the store",
            )


def alike(patient: str) -> str:
    """Equal for ids that a manifest takes for one patient, and for those that differ in zeros before a letter."""
    return patient_key(patient).lstrip("0")


def digests(patients: Iterable[str]) -> list[str]:
    """Digests by which patients are found again, whose ids are not told."""
    return sorted({hashlib.sha256(alike(patient).encode()).hexdigest() for patient in patients})


def _digests(patches: DevicePatches, chosen: Tensor) -> pd.Series[str]:
    """A digest of each chosen patch, indexed by its lesion."""
    found = [hashlib.blake2b(hu.tobytes(), digest_size=16).hexdigest() for hu in patches.hu[chosen].cpu().numpy()]
    return pd.Series(found, index=patches.lesion[chosen].cpu().numpy(), dtype=str)
