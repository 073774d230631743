"""A patch store as the trainer sees it: its lesions' classes, and its patches as the network's input."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from ctpatch.store import (
    IMAGENET,
    SPLITS,
    WINDOWS,
    InputError,
    Normalisation,
    PatchStore,
    Windows,
    network_input,
    patient_key,
)
from ctpatch.store import Rendering as Constants

FEW = 20
"""Validation lesions of a class below which an AUC's standard error is about 0.04 to 0.07 (Hanley & McNeil, at 0.8)."""

UNKNOWN = -1
"""Class index of a label or level that is not known."""

SIZE = 224
"""Rows and columns of the network's input."""

_PARTS = 14  # bilinear weights of 64 -> 224 pixels are multiples of 1/14


@dataclass(frozen=True, eq=False)
class Rendering:
    """From HU to the network's input by a store's windows: constants, made once, on the device where the patches are.

    Attributes
    ----------
    host : ctpatch.store.Rendering
        The constants as ctpatch's compiled kernel takes them, which is what renders on a CPU.
    lower, upper, weight : Tensor, shape (224,)
        Of each picture row or column: the patch's row or column before it and behind it, and the share of the latter in
        fourteenths.
    low, width, scale, divisor : Tensor, shape (3, 1, 1)
        As in `host`, by channel.
    gain, offset : Tensor, shape (3, 1, 1), float32
        (level / 255 - mean) / std is gain * level - offset.
    """

    host: Constants
    lower: Tensor
    upper: Tensor
    weight: Tensor
    low: Tensor
    width: Tensor
    scale: Tensor
    divisor: Tensor
    gain: Tensor
    offset: Tensor

    @classmethod
    def of(
        cls, windows: Windows, device: torch.device | str = "cpu", normalisation: Normalisation = IMAGENET
    ) -> Rendering:
        """The rendering by these windows, normalised for these weights.

        Raises
        ------
        InputError
            If a window reaches so far that not even float64 is exact.
        """
        host = Constants.of(windows, normalisation)
        channels = (host.low, host.width, host.scale, host.divisor, host.gain, host.offset)
        weight = host.weight.astype(host.low.dtype)
        made = (host.lower, host.lower + 1, weight, *(values[:, None, None] for values in channels))
        return cls(host, *(torch.from_numpy(values).to(device) for values in made))

    def levels(self, hu: Tensor) -> Tensor:
        """The levels 0-255 of the store's `rgb`: the same whole numbers on any device.

        Every intermediate value is a whole number that the dtype holds and the one division is correctly rounded, so
        the result equals the store's integer arithmetic.

        Parameters
        ----------
        hu : Tensor, shape (N, 64, 64)
            HU, int16.

        Returns
        -------
        Tensor, shape (N, 3, 224, 224), float32
        """
        unit = self._upsample(self._upsample(hu.to(self.low.dtype), 1), 2)[:, None]
        inside = torch.minimum((unit - self.low).clamp_(min=0), self.width)
        return inside.mul_(self.scale).add_(self.divisor / 2).div_(self.divisor).floor_().float()

    def pictures(self, hu: Tensor) -> Tensor:
        """The network's input, (levels / 255 - mean) / std, shape (N, 3, 224, 224); `hu` as for `levels`."""
        if hu.device.type == "cpu":
            return torch.from_numpy(network_input(hu.numpy(), self.host))
        return self.levels(hu).mul_(self.gain).sub_(self.offset)

    def _upsample(self, values: Tensor, axis: int) -> Tensor:
        """14 times the bilinear interpolation to 224 points along `axis` (half-pixel centres, clamped edges)."""
        weight = self.weight if axis == 2 else self.weight[:, None]
        before, after = (values.index_select(axis, index) for index in (self.lower, self.upper))
        return before * (_PARTS - weight) + after * weight


class PatchDataset(torch.utils.data.Dataset[tuple[Tensor, Any, Tensor]]):
    """One split of a store for `torch.utils.data.DataLoader`; `mtltrain fit` does without it.

    Item i is (picture (3, 224, 224) float32, class index or -1, characteristics (A,) float32 with NaN where unknown),
    A being the `aux_*` columns of `store.lesions` in their order. A list of indices gives a batch, each of its three as
    one tensor with a row per index. Copying single items together costs a loader about as much as making them; batches
    come without it from

        DataLoader(data, batch_size=None, sampler=BatchSampler(RandomSampler(data), 50, drop_last=False))

    Parameters
    ----------
    store : PatchStore
    split : str
        `train`, `val` or `test`.
    normalisation : (mean, std), optional
        Three numbers each, in levels / 255; ImageNet's by default.
    """

    def __init__(self, store: PatchStore, split: str, normalisation: Normalisation = IMAGENET):
        self._patches, self._normalisation = store.split(split), normalisation
        lesion = np.asarray(self._patches.lesion)
        self._label = class_index(store.lesions["label"], store.label_classes)[lesion]
        self._places = np.arange(len(lesion))
        self._aux = torch.tensor(store.lesions.filter(regex="^aux_").to_numpy(np.float32)[lesion])

    def __len__(self) -> int:
        return len(self._label)

    def __getitem__(self, index: Any) -> tuple[Tensor, Any, Tensor]:
        place = self._places[index].copy()  # for a tensor, and a slice backwards, which torch does not take
        pictures = torch.from_numpy(self._patches.pictures(place, normalisation=self._normalisation))
        label = self._label[place]
        return pictures, int(label) if label.ndim == 0 else torch.from_numpy(label), self._aux[place]


@dataclass(frozen=True, eq=False)
class DevicePatches:
    """A split's patches on the device that trains: `hu` (N, 64, 64) int16 and their `lesion` (N,) rows, int64."""

    hu: Tensor
    lesion: Tensor
    rendering: Rendering

    def __len__(self) -> int:
        return len(self.lesion)

    def pictures(self, chosen: Tensor | slice) -> Tensor:
        """The network's input for the chosen patches."""
        return self.rendering.pictures(self.hu[chosen])


def load_patches(
    store: PatchStore, split: str, device: torch.device, normalisation: Normalisation = IMAGENET
) -> DevicePatches:
    """The whole split, put on the device once; 8 KiB a patch."""
    part = store.split(split)
    hu, lesion = np.asarray(part.hu, np.int16), np.asarray(part.lesion, np.int64)
    rendering = Rendering.of(store.windows, device, normalisation)
    return DevicePatches(torch.from_numpy(hu).to(device), torch.from_numpy(lesion).to(device), rendering)


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
        counts = sorted(Counter(zip(self.lesions["split"], self.lesions["label"], strict=True)).items())
        return [f"{split}: {n} of {name or 'unknown class'}" for (split, name), n in counts]


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
    counts = sorted(Counter(zip(lesions["split"], lesions["label"], strict=True)).items())
    notes = []
    if len(order) == 2 and not chosen:
        last = f"the last of {' and '.join(classes)} in sorted order"
        notes.append(f"positive class: {order[-1]}, {last}; --positive {order[0]} makes it the other")
    if scarce := {name: n for (split, name), n in counts if split == "val" and n < FEW}:
        told = ", ".join(f"{n} of {name}" for name, n in scarce.items())
        notes.append(f"few val lesions ({told}): which epoch is kept, and Youden's threshold, are close to chance")
    for split, constant in flat.items():
        if constant.any():
            notes.append(f"{split}: {int(constant.sum())} of {len(constant)} patches are of one HU throughout")
    known = (store.digest, store.windows, normalisation, store.aux_levels)
    return Cohort(lesions, classes, order, label, patches, tuple(notes), *known)


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
