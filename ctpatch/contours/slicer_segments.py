"""The segments that 3D Slicer names in the header of a `.seg.nrrd`: name, label value, layer."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import InputError
from ..images.volume_header import nrrd_header
from .mask_file import named_like, normal

_SHOWN = 10
_KEY = re.compile(r"^Segment(\d{1,6})_(Name|LabelValue|Layer):=(.*?)\s*$", re.M)


@dataclass(frozen=True)
class Segment:
    """A named segment: the voxels of `layer` that have the value `label`."""

    name: str
    label: int
    layer: int


def read_segments(path: Path) -> tuple[Segment, ...]:
    """The segments that an NRRD's header names, in its order; none where it is another kind of file.

    Raises
    ------
    InputError
        When a segment has no label value, or two have the same.
    """
    if not path.name.lower().endswith((".nrrd", ".nhdr")):
        return ()
    told: dict[int, dict[str, str]] = {}
    for number, what, value in _KEY.findall(nrrd_header(path)[0]):
        told.setdefault(int(number), {})[what] = value
    segments = tuple(_segment(keys, path) for _, keys in sorted(told.items()) if "Name" in keys)
    places = [(segment.layer, segment.label) for segment in segments]
    if len(set(places)) < len(places):
        raise InputError("two of its segments have one label value in one layer", "save the segmentation again", path)
    return segments


def _segment(keys: dict[str, str], path: Path) -> Segment:
    label, layer = keys.get("LabelValue", ""), keys.get("Layer", "0")
    if not (label.isdecimal() and layer.isdecimal()):
        found = f"segment {keys['Name']!r} has label value {label!r} in layer {layer!r}"
        raise InputError(found, "save the segmentation again", path)
    return Segment(keys["Name"], int(label), int(layer))


def choose_segment(segments: Sequence[Segment], roi: str) -> Segment | None:
    """The segment that `roi` names; None when it is a number and no name, or blank where there are several.

    Raises
    ------
    InputError
        When several segments have that name, or none has and it is no number.
    """
    wanted = normal(roi)
    if not wanted:
        return segments[0] if len(segments) == 1 else None
    named = named_like(roi, [segment.name for segment in segments])
    if len(named) == 1:
        return segments[named[0]]
    if named:
        do = "rename one, or give its label value in `roi`"
        raise InputError(f"{len(named)} segments are named {wanted!r}", do)
    numbered = [segment for segment in segments if str(segment.label) == wanted]
    if len(numbered) == 1:
        return numbered[0]
    if len(numbered) > 1:
        names = ", ".join(repr(segment.name) for segment in numbered)
        raise InputError(f"roi {wanted!r} is the label value of {names}", "give the segment's name in `roi`")
    return None


def listed(segments: Sequence[Segment]) -> str:
    """Segments in a message."""
    names = ", ".join(f"{segment.label} {segment.name!r}" for segment in segments[:_SHOWN])
    return names + (f", … ({len(segments)} segments)" if len(segments) > _SHOWN else "")
