"""A patch store as the trainer sees it: its lesions' classes, and its patches as the network's input."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from ctpatch.store import InputError, PatchStore

SPLITS = ("train", "val", "test")
UNKNOWN = -1
"""Class index of a label or level that is not known."""

WINDOWS = ((-800, -200), (-200, 400), (-1000, 400))
"""(lowest, highest) HU of the R, G and B channel (section 2.3 of the paper)."""

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""ImageNet's, as torchvision's weights expect; a constant, so nothing of val or test enters it."""

_RENDERED, _PARTS = 224, 14  # bilinear weights of 64 -> 224 pixels are multiples of 1/14
_LOW, _HIGH = _PARTS**2 * np.array(WINDOWS).T
_GCD = np.gcd(255, _HIGH - _LOW)  # 255 / width in lowest terms keeps the products below 2**24


def levels(hu: Tensor) -> Tensor:
    """The levels 0-255 of the store's `rgb`, computed where the patches are.

    Every intermediate value is a whole number below 2**24 and the one division is correctly rounded, so float32 is
    exact: the result equals the store's integer arithmetic on any device.

    Parameters
    ----------
    hu : Tensor, shape (N, 64, 64)
        HU, int16.

    Returns
    -------
    Tensor, shape (N, 3, 224, 224), float32
    """
    width = _HIGH - _LOW
    low, width, scale, divisor = (_channels(v, hu) for v in (_LOW, width, 255 // _GCD, width // _GCD))
    unit = _upsample(_upsample(hu.float(), 1), 2)[:, None]
    inside = torch.minimum((unit - low).clamp_(min=0), width)
    return inside.mul_(scale).add_(divisor / 2).div_(divisor).floor_()


def render(hu: Tensor) -> Tensor:
    """The network's input, (levels / 255 - MEAN) / STD, shape (N, 3, 224, 224); `hu` as for `levels`."""
    mean, std = _channels(MEAN, hu), _channels(STD, hu)
    return levels(hu).mul_(1 / (255 * std)).sub_(mean / std)


def _channels(values: Any, like: Tensor) -> Tensor:
    return torch.tensor(values, dtype=torch.float32, device=like.device)[:, None, None]


def _upsample(values: Tensor, axis: int) -> Tensor:
    """14 times the bilinear interpolation to 224 points along `axis` (half-pixel centres, clamped edges)."""
    size = values.shape[axis]
    place = (4 * torch.arange(_RENDERED, device=values.device) - 5).clamp(0, _PARTS * (size - 1))
    lower = (place // _PARTS).clamp(max=size - 2)
    weight = (place - _PARTS * lower).to(values.dtype)
    weight = weight if axis == 2 else weight[:, None]
    return values.index_select(axis, lower) * (_PARTS - weight) + values.index_select(axis, lower + 1) * weight


class PatchDataset(torch.utils.data.Dataset[tuple[Tensor, int, Tensor]]):
    """One split of a store for `torch.utils.data.DataLoader`; `mtltrain fit` does without it.

    Item i is (picture (3, 224, 224) float32, class index or -1, characteristics (A,) float32 with NaN where unknown),
    A being the `aux_*` columns of `store.lesions` in their order.
    """

    def __init__(self, store: PatchStore, split: str):
        patches = store.split(split)
        self._hu, self._lesion = patches.hu, np.asarray(patches.lesion)
        self._label = class_index(store.lesions["label"], store.label_classes)
        self._aux = torch.tensor(store.lesions.filter(regex="^aux_").to_numpy(np.float32))

    def __len__(self) -> int:
        return len(self._lesion)

    def __getitem__(self, index: int) -> tuple[Tensor, int, Tensor]:
        lesion = self._lesion[index]
        assert self._hu is not None
        hu = torch.from_numpy(np.asarray(self._hu[index]))
        return render(hu[None])[0], int(self._label[lesion]), self._aux[lesion]


@dataclass(frozen=True)
class Patches:
    """A split's patches on the device that trains: `hu` (N, 64, 64) int16 and their `lesion` (N,) rows, int64."""

    hu: Tensor
    lesion: Tensor

    def __len__(self) -> int:
        return len(self.lesion)


def load_patches(store: PatchStore, split: str, device: torch.device) -> Patches:
    """The whole split, put on the device once; 8 KiB a patch."""
    part = store.split(split)
    hu, lesion = np.asarray(part.hu, np.int16), np.asarray(part.lesion, np.int64)
    return Patches(torch.from_numpy(hu).to(device), torch.from_numpy(lesion).to(device))


@dataclass(frozen=True)
class Cohort:
    """A store that can be trained on.

    `label` is each lesion's class index, shape (lesions,), -1 where unknown; `order` are the classes from lowest to
    highest; `notes` are findings worth telling that change nothing; `digest` stands for the store's whole content.
    """

    lesions: pd.DataFrame
    classes: tuple[str, ...]
    order: tuple[str, ...]
    label: NDArray[np.int64]
    patches: Mapping[str, Patches]
    notes: tuple[str, ...]
    digest: str

    @property
    def positive(self) -> str | None:
        """The positive class of two."""
        return self.order[-1] if len(self.order) == 2 else None


def read_cohort(
    store: PatchStore, positive: str | None = None, order: Sequence[str] | None = None, device: str = "cpu"
) -> Cohort:
    """Lesions, classes and patches of a store that can be trained on.

    Raises
    ------
    InputError
        If a patient is in two splits, train or val lacks a class, or `positive` or `order` do not fit the classes.
    """
    lesions, classes = store.lesions, tuple(store.label_classes)
    label, order = class_index(lesions["label"], classes), label_order(classes, positive, order)
    refuse_missing_classes(lesions, classes)
    patches = {split: load_patches(store, split, torch.device("cpu")) for split in SPLITS}
    flat = {split: part.hu.amin((1, 2)) == part.hu.amax((1, 2)) for split, part in patches.items()}
    pixels = [_digests(patches[split], ~constant) for split, constant in flat.items()]
    refuse_leaks(lesions, pd.concat(pixels))
    counts = sorted(Counter(zip(lesions["split"], lesions["label"], strict=True)).items())
    notes = [f"{split}: {n} of {name or 'unknown class'}" for (split, name), n in counts]
    for split, constant in flat.items():
        if constant.any():
            notes.append(f"{split}: {int(constant.sum())} of {len(constant)} patches are of one HU throughout")
    there = {split: Patches(part.hu.to(device), part.lesion.to(device)) for split, part in patches.items()}
    return Cohort(lesions, classes, order, label, there, tuple(notes), store.digest)


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
    if positive is not None:
        return *(name for name in classes if name != positive), positive
    return tuple(order or sorted(classes))


def class_index(labels: pd.Series[Any], classes: Sequence[str]) -> NDArray[np.int64]:
    """Index of each label within `classes`, -1 where it is blank; an `InputError` for a label of another class."""
    strange = sorted(set(labels) - set(classes) - {""})
    if strange:
        raise InputError(f"label {strange[0]!r} is not one of {', '.join(classes)}", "use a store of these classes")
    index = {name: i for i, name in enumerate(classes)}
    return np.array([index.get(label, UNKNOWN) for label in labels], np.int64)


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
        "ids that look like one patient": lesions["patient_id"].map(_plain),
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


def _plain(patient: str) -> str:
    """The id without what differs between two writings of it: Unicode form, case, blanks, leading zeros."""
    return re.sub(r"^0+(?=.)", "", unicodedata.normalize("NFKC", patient).strip().casefold())


def _digests(patches: Patches, chosen: Tensor) -> pd.Series[str]:
    """A digest of each chosen patch, indexed by its lesion."""
    found = [hashlib.blake2b(hu.tobytes(), digest_size=16).hexdigest() for hu in patches.hu[chosen].numpy()]
    return pd.Series(found, index=patches.lesion[chosen].numpy(), dtype=str)
