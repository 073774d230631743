"""A split's patches as the network's input: on the device that trains, or item by item for a loader."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from ctpatch.store import IMAGENET, InputError, Normalisation, PatchStore, Windows, network_input
from ctpatch.store import Rendering as Constants

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

    def first_of_lesions(self) -> tuple[NDArray[np.int64], NDArray[np.intp]]:
        """Rows of the lesions that have patches, ascending, and the first patch of each; (lesions,) both."""
        return np.unique(self.lesion.cpu().numpy(), return_index=True)


def load_patches(
    store: PatchStore, split: str, device: torch.device, normalisation: Normalisation = IMAGENET
) -> DevicePatches:
    """The whole split, put on the device once; 8 KiB a patch."""
    part = store.split(split)
    hu, lesion = np.asarray(part.hu, np.int16), np.asarray(part.lesion, np.int64)
    rendering = Rendering.of(store.windows, device, normalisation)
    return DevicePatches(torch.from_numpy(hu).to(device), torch.from_numpy(lesion).to(device), rendering)


def class_index(labels: pd.Series[Any], classes: Sequence[str]) -> NDArray[np.int64]:
    """Index of each label within `classes`, -1 where it is blank; an `InputError` for a label of another class."""
    strange = sorted(set(labels) - set(classes) - {""})
    if strange:
        raise InputError(f"label {strange[0]!r} is not one of {', '.join(classes)}", "use a store of these classes")
    index = {name: i for i, name in enumerate(classes)}
    return np.array([index.get(label, UNKNOWN) for label in labels], np.int64)
