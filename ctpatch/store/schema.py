"""What a store holds: names, types and shapes, and the digests over them.

/                 attrs  format, version, complete, sha256
/recipe, /provenance     JSON as 1-D uint8
/lesions/         one element per lesion, ordered by (patient_id, lesion_id); attrs label_classes, aux_classes
/skipped/         what `--on-error skip` left out
/train/ /val/ /test/     one element per patch, ordered by lesion, patch, copy

Text is of fixed length everywhere, attributes too: text of variable length lies in a heap of the file whose damage can
keep HDF5 busy for ever, so none is read.

The root's `sha256` stands for the content. The bytes of the file, of which HDF5 leaves some unused, have a digest of
their own in a last line behind HDF5's end (`tail -n 1`), which no reader of HDF5 looks at.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

FORMAT = "ctpatch"
VERSION = 1
LIBVER = ("v110", "v110")  # pinned: the same content gives the same bytes, and HDF5 >= 1.10 reads it
JSON_LIMIT = 64 * 2**20


@dataclass(frozen=True)
class Column:
    """One dataset of a group: its dtype and the shape of one element; text is fixed-length UTF-8."""

    dtype: str
    tail: tuple[int, ...] = ()

    @property
    def nbytes(self) -> int:
        """Size of one element of numbers."""
        return np.dtype(self.dtype).itemsize * math.prod(self.tail)


TEXT = "text"
PATCHES = {
    "hu": Column("<i2", (64, 64)),
    "rgb": Column("|u1", (224, 224, 3)),
    "lesion": Column("<i4"),
    "plane": Column("|u1"),
    "copy": Column("|u1"),
    "center": Column("<f8", (3,)),
    "angle": Column("<f8"),
    "shift": Column("<f8", (2,)),
}
IMAGES = ("hu", "rgb")
"""Datasets whose chunks hold one patch."""
OPTIONAL = ("rgb",)
LESIONS = {
    "patient_id": Column(TEXT),
    "lesion_id": Column(TEXT),
    "split": Column(TEXT),
    "label": Column(TEXT),
    "series": Column(TEXT),
    "n_patches": Column("<i4"),
    "diameter_mm": Column("<f8"),
    "n_readers": Column("<i4"),
}
AUX = Column("<f8")
SKIPPED = {"patient_id": Column(TEXT), "lesion_id": Column(TEXT), "reason": Column(TEXT)}
DOCUMENTS = ("recipe", "provenance")


SEAL_BYTES = 81


def seal(digest: str) -> bytes:
    """The file's last line, behind what HDF5 reads: the sha256 of all bytes before it."""
    return b"\nctpatch sha256 %s\n" % digest.encode()


def text_array(values: list[str]) -> NDArray[np.bytes_]:
    """Strings as fixed-length UTF-8 bytes (at least one byte wide)."""
    encoded = [value.encode() for value in values]
    return np.array(encoded, dtype=f"S{max([1, *map(len, encoded)])}")


def set_text(item: h5py.Group | h5py.Dataset, name: str, text: str | list[str]) -> None:
    """Write an attribute of text."""
    values = text_array([text] if isinstance(text, str) else text)
    value: Any = values[0] if isinstance(text, str) else values
    item.attrs.create(name, value, dtype=h5py.string_dtype("utf-8", values.dtype.itemsize))


def attribute(item: h5py.Group | h5py.Dataset, name: str) -> Any:
    """An attribute as Python's own value: text, number, truth value, or a list of them.

    Raises
    ------
    KeyError
        When there is none.
    TypeError
        When it is of variable length, or refers to something.
    """
    return _value(item.attrs.get_id(name))


def _value(found: h5py.h5a.AttrID) -> Any:
    """By HDF5's own calls, like all of the root's digest: h5py's comfort takes four times as long."""
    dtype = found.dtype  # made anew each time it is asked for
    if dtype.hasobject or found.get_space().get_simple_extent_type() == h5py.h5s.NULL:
        raise TypeError(f"attribute {found.name!r} is of variable length, or of none")
    value = np.empty(found.shape, dtype)
    found.read(value)
    if dtype.kind == "S":
        value = np.char.decode(value, "utf-8")
    return value.tolist()


def json_bytes(document: Any) -> NDArray[np.uint8]:
    """A JSON document in canonical form as 1-D uint8."""
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return np.frombuffer(text.encode(), np.uint8)


def array_digest(array: NDArray[Any]) -> str:
    """sha256 of an array's C-order little-endian bytes."""
    little = array.astype(array.dtype.newbyteorder("<"), copy=False)
    return hashlib.sha256(np.ascontiguousarray(little).tobytes()).hexdigest()


def datasets(root: h5py.Group) -> Iterator[tuple[str, h5py.Dataset]]:
    """Every dataset below `root` with its path, in sorted order."""
    for name in sorted(root):
        child = root[name]
        if isinstance(child, h5py.Dataset):
            yield child.name, child
        else:
            yield from datasets(child)


def store_digest(root: h5py.File) -> str:
    """The root's sha256: over every attribute (datasets' own sha256 among them) and every dataset's type and shape.

    The hashed text is the canonical JSON of {path: {"attrs": {...}, "dtype": ..., "shape": [...]}}, without the
    root's own `sha256`.
    """
    objects: dict[str, Any] = {"/": {"attrs": _attributes(root.id)}}
    objects["/"]["attrs"].pop("sha256", None)

    def visit(name: bytes) -> None:
        item = h5py.h5o.open(root.id, name)
        told = objects["/" + name.decode()] = {"attrs": _attributes(item)}
        if isinstance(item, h5py.h5d.DatasetID):
            told |= {"dtype": item.dtype.str, "shape": list(item.shape)}

    h5py.h5o.visit(root.id, visit)
    return hashlib.sha256(json_bytes(objects).tobytes()).hexdigest()


def _attributes(item: h5py.h5g.GroupID | h5py.h5d.DatasetID) -> dict[str, Any]:
    attributes = (h5py.h5a.open(item, index=k) for k in range(h5py.h5a.get_num_attrs(item)))
    return {attribute.name.decode(): _value(attribute) for attribute in attributes}
