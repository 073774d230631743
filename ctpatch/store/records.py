"""What goes into a store: one lesion, its patches as compressed chunks, names, and whether they fit."""

from __future__ import annotations

import math
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import InputError
from ..manifest import SPLITS
from .schema import PATCHES, json_bytes

try:  # the same format at several times zlib's speed; machines that only read or convert can do without
    from isal import isal_zlib as zlib

    # never 1 or 2: their streams depend on where the process's memory lies (intel/isa-l#140; findings/isal_levels.sh)
    COMPRESSION: dict[str, Any] = {"program": "isal", "hu": 3, "rgb": 0}
except ImportError:  # pragma: no cover - isal is a dependency
    import zlib  # type: ignore[no-redef]

    COMPRESSION = {"program": "zlib", "hu": 4, "rgb": 4}
"""What makes the chunks, and the level for each image: only the same gives the same bytes for the same pixels."""


@dataclass(frozen=True)
class Lesion:
    """What a store says of one lesion besides its patches.

    Attributes
    ----------
    patient_id, lesion_id : str
    split : str
        `train`, `val` or `test`.
    label : str
        One of the store's `label_classes`, or empty when unknown.
    series : str
        Digest of the series (or its UID, where its owner keeps UIDs).
    diameter_mm : float
        Longest in-slice diameter; NaN when there is no mask.
    n_readers : int
        Readers who outlined it; 0 when unknown.
    aux : mapping of str to float
        Auxiliary characteristics; a missing one or NaN is unknown.
    """

    patient_id: str
    lesion_id: str
    split: str
    label: str
    series: str = ""
    diameter_mm: float = float("nan")
    n_readers: int = 0
    aux: Mapping[str, float] | None = None


Stream = bytes | memoryview
"""One compressed chunk."""


@dataclass(frozen=True, eq=False)
class Patches:
    """The patches of one lesion: HU, and images as zlib streams of one chunk each.

    Attributes
    ----------
    hu : (N, 64, 64) little-endian int16
    images : mapping of str to list of bytes or memoryview
        `hu` and, unless left out, `rgb`: a zlib stream of the C-order little-endian array per patch.
    columns : mapping of str to array
        `plane`, `copy`, `center`, `angle`, `shift`: one element per patch.
    """

    hu: NDArray[np.int16]
    images: Mapping[str, Sequence[Stream]]
    columns: Mapping[str, NDArray[Any]]


def deflate(name: str, arrays: Iterable[NDArray[Any]]) -> list[bytes]:
    """A zlib stream for each array of image `name`: a chunk that HDF5's gzip filter reads."""
    return [zlib.compress(np.ascontiguousarray(array), COMPRESSION[name]) for array in arrays]


def inflate(stream: Stream, size: int) -> bytes:
    """The `size` bytes that a chunk holds; its checksum is compared."""
    decompressor = zlib.decompressobj()
    inflated: bytes = decompressor.decompress(stream, size + 1)
    if len(inflated) != size or not decompressor.eof or decompressor.unused_data:
        raise ValueError(f"a chunk of other than {size} bytes")
    return inflated


def is_deflated(stream: Stream, array: NDArray[Any]) -> bool:
    """Whether a zlib stream says of itself, in its last four bytes (Adler-32), that it holds these bytes."""
    return stream[-4:] == zlib.adler32(array).to_bytes(4, "big")


def crc32(data: Stream, before: int = 0) -> int:
    """CRC-32 of data that come after others whose CRC-32 is `before`: against damage, at the speed of memory."""
    value: int = zlib.crc32(data, before)
    return value


def class_names(given: Sequence[str]) -> tuple[str, ...]:
    """The names of the classes, each once, in the order given: a set has another one in each run."""
    names = tuple(given)
    if isinstance(given, str | Set) or not all(map(is_text, names)) or len(set(names)) < len(names):
        raise InputError(f"label_classes is {given!r:.80}", "give a list of different str without NUL")
    if "" in names:
        raise InputError("label_classes has a blank name, which stands for an unknown class", "leave it out")
    return names


def level_names(given: Mapping[str, Mapping[float, str]]) -> dict[str, dict[float, str]]:
    """The levels of each characteristic, whose name has to be one for a dataset."""
    for name, levels in given.items():
        if not is_text(name) or not name.strip(".") or "/" in name:
            raise InputError(f"characteristic {name!r} cannot name a dataset", "give it a name without /")
        if not isinstance(levels, Mapping) or not all(
            _is_number(value) and value == value and is_text(level) for value, level in levels.items()
        ):
            do = "give the name of each number, such as {1: 'poor', 5: 'sharp'}"
            raise InputError(f"the levels of {name!r} are {levels!r:.80}", do)
    return {name: dict(given[name]) for name in sorted(given)}


def json_document(name: str, given: Mapping[str, Any] | None) -> dict[str, Any]:
    """A document that JSON can hold."""
    try:
        document = dict(given or {})
        json_bytes(document)
    except (TypeError, ValueError) as error:
        raise InputError(f"{name} is no JSON document ({error})", "give str, int, float, lists and dicts") from error
    return document


def check_lesion(lesion: Lesion, label_classes: Container[str], aux_levels: Mapping[str, Mapping[float, str]]) -> None:
    """Refuse what a store of these classes and characteristics cannot hold.

    Raises
    ------
    InputError
        Naming the lesion.
    """
    for found, do in chain(_misfits(lesion, label_classes), _aux_misfits(lesion.aux, aux_levels)):
        raise InputError(found, do, where=f"lesion {lesion.lesion_id}", patient=lesion.patient_id)


def _misfits(lesion: Lesion, label_classes: Container[str]) -> Iterator[tuple[str, str]]:
    """What is found wrong, and what to do."""
    if not is_text(lesion.label):
        yield f"label {lesion.label!r:.40} is no text that UTF-8 can hold", "give a str, '' where the class is unknown"
    for text in (lesion.patient_id, lesion.lesion_id, lesion.series):
        if not is_text(text):
            yield f"{text!r} is no text that UTF-8 can hold", "give a str without NUL"
    if not lesion.patient_id or not lesion.lesion_id:
        yield "a blank patient_id or lesion_id", "give every lesion both"
    if lesion.split not in SPLITS:
        yield f"split {lesion.split!r} is none of {', '.join(SPLITS)}", "mend the split"
    if lesion.label and lesion.label not in label_classes:
        yield f"label {lesion.label!r} is not in label_classes", "mend the label or the classes"
    if not _is_number(lesion.diameter_mm) or lesion.diameter_mm < 0:
        yield f"diameter_mm is {lesion.diameter_mm!r:.40}", "give mm, or NaN where it is unknown"
    readers = lesion.n_readers
    if not (_is_number(readers) and 0 <= readers < 2**31 and readers % 1 == 0):
        yield f"n_readers is {readers!r:.40}", "give a whole number, 0 where it is unknown"


def _aux_misfits(aux: Any, aux_levels: Mapping[str, Mapping[float, str]]) -> Iterator[tuple[str, str]]:
    if not isinstance(aux, Mapping | None):
        yield f"aux is {aux!r:.40}", "give a mapping of names to numbers"
        return
    for name, value in (aux or {}).items():
        if name not in aux_levels:
            yield f"characteristic {name!r} is not in aux_levels", "declare its levels"
        elif not _is_number(value):
            yield f"characteristic {name!r} is {value!r:.40}", "give a finite number, or NaN where it is unknown"
        elif aux_levels[name] and not math.isnan(value) and float(value) not in aux_levels[name]:
            yield f"characteristic {name!r} is {value!r:.40}, none of its levels", "mend it, or declare the level"


def _is_number(value: Any) -> bool:
    """Whether a value is a finite number, or NaN."""
    try:
        return not math.isinf(value)
    except (TypeError, OverflowError):
        return False


def is_text(value: object) -> bool:
    """Whether a fixed-length UTF-8 string gives the value back; trailing NULs would be lost."""
    return isinstance(value, str) and "\0" not in value and value == value.encode(errors="replace").decode()


def as_hu(hu: ArrayLike) -> NDArray[np.int16]:
    """Patches as int16 HU, refused unless that changes no value."""
    if np.ma.is_masked(hu):
        raise InputError("hu is a masked array, and a store has no mask", "fill it, as with -1000 for air")
    array = np.asarray(hu)
    if array.ndim != 3 or array.shape[1:] != PATCHES["hu"].tail or array.dtype.kind not in "iu":
        found = f"hu is {array.dtype} {array.shape}"
        raise InputError(found, "give integer HU of shape (N, 64, 64)")
    cast = array.astype("<i2")
    if not np.array_equal(cast, array):
        raise InputError(f"HU from {array.min()} to {array.max()} do not fit int16", "clip them first")
    if not len(cast):
        raise InputError("hu holds no patch", "leave the lesion out, or list it with skip")
    return cast


def as_column(name: str, value: ArrayLike, count: int) -> NDArray[Any]:
    """A patch column of `count` elements from an array or a scalar; nothing is rounded, wrapped or cut."""
    column, given = PATCHES[name], np.asarray(value)
    try:
        cast = given.astype(column.dtype)
        fits = np.array_equal(cast, given, equal_nan=True)
        values = np.broadcast_to(cast, (count, *column.tail))
    except (ValueError, TypeError) as error:
        shape = ", ".join(map(str, (count, *column.tail)))
        raise InputError(f"{name} is {given.dtype} {given.shape}", f"give numbers of shape ({shape})") from error
    if not fits or (name == "plane" and values.max(initial=0) > 2) or np.isinf(values).any():
        found = f"{name} has values from {given.min()} to {given.max()}"
        raise InputError(found, "give 0, 1 or 2" if name == "plane" else f"give what fits {column.dtype}")
    return values
