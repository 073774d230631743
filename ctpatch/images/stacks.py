"""Several stacks in one series: what tells their images apart, which stack is meant, and which images count twice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import combinations, pairwise
from pathlib import Path

import numpy as np

from ..errors import InputError
from ..geometry import Floats, position_tolerance
from .ct_image import MEASURES, Slice, plain_number
from .image import Fault

_SPLITTERS = (  # what tells two images at one position apart, most telling first
    "TemporalPositionIdentifier",
    "TriggerTime",
    "AcquisitionNumber",
    "AcquisitionTime",
    "KVP",
    "ConvolutionKernel",
    "SliceThickness",
    "ImageType",
    "InstanceNumber",
)
_ALTERNATING = ("TemporalPositionIdentifier", "AcquisitionNumber", "KVP", "ConvolutionKernel", "SliceThickness")
"""What tells stacks at other positions apart. Not AcquisitionTime, which scanners that step write in any order, nor
ImageType."""
_LONGER, _MOST = 1.5, 0.75
"""How much longer than its usual steps one is that leaves a slice out; the share of a stack that is as it should."""
_SENT_AGAIN = "InstanceNumber"
"""What an image that was sent twice may say differently."""
CHOOSE = "name one in the column acquisition, or give a folder with one of them"
Groups = list[list[int]]


def of_acquisition(slices: Sequence[Slice], acquisition: str, path: Path) -> tuple[list[Slice], str]:
    """The slices of one acquisition (or time, energy, kernel …), and a note of what its value belongs to.

    Raises
    ------
    InputError
        When it is no value of anything that tells slices apart.
    """
    told = {keyword: Counter(piece.told(keyword) for piece in slices) for keyword in _SPLITTERS[:-1]}
    for keyword in ("AcquisitionNumber", *told):
        wanted = plain_number(acquisition) if keyword in MEASURES else acquisition
        if wanted in told[keyword] and (len(told[keyword]) > 1 or keyword == "AcquisitionNumber"):
            return [piece for piece in slices if piece.told(keyword) == wanted], f"{keyword} {wanted}"
    shown = "; ".join(_shown(keyword, counts) for keyword, counts in told.items() if len(counts) > 1)
    raise InputError(f"no acquisition {acquisition!r}: {shown or 'nothing tells its images apart'}", CHOOSE, path)


def at_one_position(positions: Floats) -> Groups:
    """Indices of the slices that share a position, by increasing position (K,)."""
    steps = np.diff(positions)
    tolerance = position_tolerance(float(np.median(steps)))
    return [g.tolist() for g in np.split(np.arange(len(positions)), np.flatnonzero(steps > tolerance) + 1)]


def without_repeats(slices: Sequence[Slice], groups: Groups, sop_uids: frozenset[str]) -> list[Slice]:
    """The slices, those that are one image sent again under another UID once: the one that contours refer to."""
    kept: list[Slice] = []
    for group in groups:
        here: list[Slice] = []
        for piece in _referred_first([slices[i] for i in group], sop_uids):
            if not any(_same_image(piece, other) for other in here):
                here.append(piece)
        kept += here
    return kept


def split_by(slices: Sequence[Slice], positions: Floats, groups: Groups) -> str:
    """The element that tells whole stacks in one series apart; empty for one stack, or one after another."""
    if len(groups) == len(slices):
        told = ((keyword, [piece.told(keyword) for piece in slices]) for keyword in _ALTERNATING)
        return next((keyword for keyword, values in told if _within_each_other(values, positions)), "")
    sizes = [len(group) for group in groups]  # an image of one of the stacks may be missing
    whole = sizes.count(max(sizes)) >= _MOST * len(groups)
    telling = [k for k in _SPLITTERS if whole and _tells_apart(k, groups, slices)]
    # a value for each stack before one for each image, as the time of a scanner that writes it slice by slice
    few = [k for k in telling if len({piece.told(k) for piece in slices}) == max(sizes)]
    return (few or telling or [""])[0]


def referred(slices: Sequence[Slice], keyword: str, sop_uids: frozenset[str]) -> list[Slice]:
    """The stack with one value of `keyword`, where all images that the contours refer to have that one."""
    values = {s.told(keyword) for s in slices if s.header.text("SOPInstanceUID") in sop_uids}
    chosen = [s for s in slices if len(values) == 1 and s.told(keyword) in values]
    return chosen if 1 < len(chosen) < len(slices) else []


def refuse_stacks(slices: Sequence[Slice], groups: Groups, keyword: str, path: Path) -> None:
    """Refuse several whole stacks: they are no finer one, and nothing says which is meant."""
    if len(groups) == 1:
        found = f"all {len(slices)} images lie at one position: ImagePositionPatient is lost, or they are no stack"
        raise InputError(found, "export the series again from its source, or give another one", path)
    sizes = {len(group) for group in groups}
    counts = Counter(piece.told(keyword) for piece in slices)
    shown = _shown(keyword, counts) if keyword else ""
    if len(groups) == len(slices):
        if keyword:
            raise InputError(f"stacks of different {shown} lie within each other", CHOOSE, path, kind="two-stacks")
    elif len(sizes) == 1 or keyword:
        told = f"{shown or 'no time or acquisition tag'} tells them apart"
        found = f"{len(groups)} positions with {'' if len(sizes) == 1 else 'up to '}{max(sizes)} images each: {told}"
        stacks = keyword in _SPLITTERS[:-1] and len(counts) < len(groups)  # else a value is of a single image
        do = CHOOSE if stacks else "give a folder with one of them"
        raise InputError(found, do, path, kind="two-stacks")


def without_doubles(
    slices: Sequence[Slice], positions: Floats, groups: Groups, sop_uids: frozenset[str], path: Path
) -> tuple[list[Slice], tuple[Fault, ...]]:
    """One slice for each position, and where there are several: nothing says which is right, so none must be used."""
    kept, faults = [], []
    levels = [float(positions[group[0]]) for group in groups]
    for place, group in enumerate(groups):
        first, *others = _referred_first([slices[i] for i in group], sop_uids)
        kept.append(first)
        if others:
            below, above = max(place - 1, 0), min(place + 1, len(levels) - 1)
            faults.append(Fault(levels[below], levels[above], _two_images(first, others[0], path)))
    return kept, tuple(faults)


def _two_images(a: Slice, b: Slice, path: Path) -> InputError:
    a, b = sorted((a, b), key=lambda piece: piece.path)
    differing = [k for k in _SPLITTERS if a.told(k) != b.told(k)]
    what = ", ".join(f"{k} {a.told(k) or 'none'} / {b.told(k) or 'none'}" for k in differing)
    found = (
        f"two images at one position, {a.path.name!r} (SOPInstanceUID …{a.header.text('SOPInstanceUID')[-12:]}) and "
        f"{b.path.name!r} (…{b.header.text('SOPInstanceUID')[-12:]}): {what or 'only the pixels differ'}"
    )
    return InputError(found, "keep the right one of the two", path, kind="two-images")


def _referred_first(slices: Iterable[Slice], sop_uids: frozenset[str]) -> list[Slice]:
    def key(piece: Slice) -> tuple[bool, str, int]:
        uid = piece.header.text("SOPInstanceUID")
        return uid not in sop_uids, uid, piece.frame

    return sorted(slices, key=key)


def _same_image(piece: Slice, other: Slice) -> bool:
    alike = all(piece.told(k) == other.told(k) for k in _SPLITTERS if k != _SENT_AGAIN)
    return alike and piece.same_pixels(other)


def _within_each_other(values: Sequence[str], positions: Floats) -> bool:
    """Whether the slices of two values are two stacks, each with its own steps through the other.

    In one stack a value may come again (thick, thin, thick), or be another in a few slices: without these it has gaps.
    """
    counts = Counter(values)
    if sum(a != b for a, b in pairwise(values)) < len(counts):  # one after another
        return False
    stacks = [positions[np.array(values) == value] for value, count in counts.items() if count > 1]
    return any(_goes_through(a, b) and _goes_through(b, a) for a, b in combinations(stacks, 2))


def _goes_through(stack: Floats, other: Floats) -> bool:
    """Whether slices of another stack lie between those of `stack` (K,), and hardly ever in the place of one."""
    steps = np.diff(stack)
    across = steps[np.diff(np.searchsorted(other, stack)) > 0]
    return across.size > 0 and bool(np.mean(across <= _LONGER * np.quantile(steps, 0.25)) >= _MOST)


def _tells_apart(keyword: str, groups: Groups, slices: Sequence[Slice]) -> bool:
    return all(len({slices[i].told(keyword) for i in group}) == len(group) for group in groups)


def _shown(keyword: str, counts: Counter[str]) -> str:
    """Values of `keyword` and how many images have each."""
    listed = ", ".join(f"{value or 'none'} ({n})" for value, n in sorted(counts.items())[:6])
    return f"{keyword}: {listed}{', …' if len(counts) > 6 else ''}"
