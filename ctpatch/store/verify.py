"""Is this file laid out as a store, and is its content what its digests say?

A store may come from a stranger, and HDF5 can make a file read other files or pretend to hold terabytes. So only
hard links to declared, plain datasets are read, and no dataset may claim more than its file could hold.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import h5py

from ..errors import InputError, one_line
from ..manifest import SPLITS
from . import schema
from .chunks import Rows, filters, row_bytes
from .records import inflate

DEFLATE_RATIO = 1100
"""DEFLATE cannot shrink by more than about 1032 to 1."""
_PIECE = 2**24
_THREADS = 4
_FILTERS = {h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_FLETCHER32, h5py.h5z.FILTER_SHUFFLE}


def is_store(path: Path) -> bool:
    """Whether a file says of itself that it is a store; it may be damaged or of another version."""
    try:
        with h5py.File(path, "r", locking=False) as root:
            return bool(_told(root, "format") == schema.FORMAT)
    except Exception:  # on damaged structures, h5py raises whatever its reading meets
        return False


def check_layout(root: h5py.File, path: Path) -> None:
    """Refuse what is not a complete ctpatch store of this version with just the declared objects.

    Raises
    ------
    InputError
        Naming what was found.
    """
    try:
        _check_identity(root, path)
        problem = next(_layout_problems(root, path.stat().st_size), None)
    except InputError:
        raise
    except Exception as error:  # on damaged structures, h5py raises whatever its reading meets
        raise InputError(
            "its HDF5 structure is damaged", "copy the store again, or rerun ctpatch build", path
        ) from error
    if problem:
        raise InputError(problem, "use a store from ctpatch build or StoreWriter", path)


def verify_store(root: h5py.File, progress: Callable[[int], object] = lambda size: None) -> list[str]:
    """Read everything once and compare with the digests.

    Parameters
    ----------
    root : h5py.File
        A store that passed `check_layout`.
    progress : callable
        Called with the number of bytes read after each piece.

    Returns
    -------
    list of str
        What is wrong; empty when the store is whole and unaltered.
    """
    problems = _seal_problems(Path(root.filename), progress)
    for name, dataset in schema.datasets(root):
        try:
            digest, recorded = _digest(dataset, progress), str(schema.attribute(dataset, "sha256"))
        except Exception:  # damage makes h5py raise all kinds
            problems.append(f"{name} cannot be read: its checksum or compression is damaged")
            continue
        if digest != recorded:
            problems.append(f"{name} was altered: sha256 {digest[:12]}…, recorded {one_line(recorded)[:12]}…")
    try:
        altered = schema.store_digest(root) != schema.attribute(root, "sha256")
    except Exception:
        altered = True
    if altered:
        problems.append("an attribute, type or shape was altered: the root's sha256 differs")
    return problems


def _check_identity(root: h5py.File, path: Path) -> None:
    name, version, complete = (_told(root, key) for key in ("format", "version", "complete"))
    if name != schema.FORMAT:
        found = "an HDF5 file, but not a ctpatch store of this layout"
        raise InputError(found, "give a store made by ctpatch build; an earlier one has to be built again", path)
    if version != schema.VERSION:
        found = f"store version {version}, this ctpatch reads version {schema.VERSION}"
        raise InputError(found, "build it again, or install the ctpatch that wrote it", path)
    if complete is not True:
        raise InputError("the store is incomplete", "rerun ctpatch build", path)


def _told(item: h5py.Group, name: str) -> Any:
    """An attribute; None when it is not there, or nothing that a store has."""
    try:
        return schema.attribute(item, name)
    except (KeyError, TypeError):
        return None


def _seal_problems(path: Path, progress: Callable[[int], object]) -> list[str]:
    """Whether the file's bytes are those that were written, also where HDF5 does not look."""
    digest, left = hashlib.sha256(), path.stat().st_size - schema.SEAL_BYTES
    with open(path, "rb") as file:
        while left > 0 and (piece := file.read(min(left, _PIECE))):
            digest.update(piece)
            left -= len(piece)
            progress(len(piece))
        whole = file.read() == schema.seal(digest.hexdigest())
    return [] if whole else ["the file's bytes are not those that were written"]


def _digest(dataset: h5py.Dataset, progress: Callable[[int], object]) -> str:
    digest = hashlib.sha256()
    rows = Rows(dataset)
    for piece in _inflated(rows) if rows.one_each else _slices(dataset):
        digest.update(piece)
        progress(len(piece))
    return digest.hexdigest()


def _slices(dataset: h5py.Dataset) -> Iterator[bytes]:
    """A dataset's bytes as HDF5 gives them."""
    step = max(1, _PIECE // row_bytes(dataset))
    for start in range(0, dataset.shape[0], step):
        yield dataset[start : start + step].tobytes()


def _inflated(rows: Rows) -> Iterator[bytes]:
    """The same of a dataset with a gzip chunk per row, which threads inflate, twice as fast as HDF5 does."""
    size = row_bytes(rows.dataset)

    def inflate_all(streams: list[bytes]) -> bytes:
        return b"".join(inflate(stream, size) for stream in streams)

    step = max(1, _PIECE // 4 // size)
    under_way: deque[Future[bytes]] = deque()
    with ThreadPoolExecutor(_THREADS) as threads:
        for start in range(0, len(rows), step):
            streams = [rows.stream(row) for row in range(start, min(start + step, len(rows)))]
            under_way.append(threads.submit(inflate_all, streams))
            if len(under_way) > 2 * _THREADS:
                yield under_way.popleft().result()
        while under_way:
            yield under_way.popleft().result()


def _layout_problems(root: h5py.File, size: int) -> Iterator[str]:
    tables = {
        "lesions": schema.LESIONS,
        "skipped": schema.SKIPPED,
        **dict.fromkeys(SPLITS, schema.PATCHES),
    }
    yield from _children(root, {*tables, *schema.DOCUMENTS}, set())
    aux = _aux_names(root["lesions"])
    if aux is None:
        yield "/lesions lacks a readable aux_classes attribute"
        return
    classes = _told(root["lesions"], "label_classes")
    if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
        yield "/lesions lacks a readable label_classes attribute"
    if not isinstance(_told(root, "sha256"), str):
        yield "/ lacks a readable sha256 attribute"
    for group, columns in tables.items():
        extra = {"aux"} if group == "lesions" and (aux or "aux" in root["lesions"]) else set()
        yield from _children(root[group], {*columns, *extra}, set(schema.OPTIONAL))
        lengths = set()
        for name in set(columns) & set(root[group]):
            dataset = root[group][name]
            yield from _dataset_problems(dataset, columns[name], size)
            lengths.add(dataset.shape[:1])
        if len(lengths) > 1:
            yield f"/{group}'s datasets differ in length"
    if "aux" in root["lesions"]:
        yield from _children(root["lesions"]["aux"], aux, set())
        for dataset in root["lesions"]["aux"].values():
            yield from _dataset_problems(dataset, schema.AUX, size)
            if dataset.shape != root["lesions/label"].shape:
                yield f"{dataset.name} differs in length from /lesions"
    for name in schema.DOCUMENTS:
        yield from _dataset_problems(root[name], schema.Column("|u1"), size)
        if root[name].shape[0] > schema.JSON_LIMIT:
            yield f"/{name} holds {root[name].shape[0]} bytes"


def _aux_names(lesions: h5py.Group) -> set[str] | None:
    """The characteristics that /lesions declares, each with its levels; None when it does not say."""
    try:
        levels = json.loads(schema.attribute(lesions, "aux_classes"))
        return set({name: {float(value): level for value, level in by.items()} for name, by in levels.items()})
    except (KeyError, ValueError, TypeError, AttributeError):
        return None


def _children(group: Any, declared: set[str], optional: set[str]) -> Iterator[str]:
    """Only declared names, all that are needed, each a hard link."""
    if not isinstance(group, h5py.Group):
        yield f"{one_line(str(group.name))} is not a group"
        return
    if unknown := sorted(set(group) - declared):
        yield f"undeclared object {one_line(unknown[0])!r} in {group.name}"
    if lacking := sorted(declared - optional - set(group)):
        yield f"{group.name} lacks {lacking[0]!r}"
    for name in sorted(set(group) & declared):
        if not isinstance(group.get(name, getlink=True), h5py.HardLink):
            yield f"{name!r} in {group.name} is a link to elsewhere"


def _dataset_problems(dataset: Any, column: schema.Column, size: int) -> Iterator[str]:
    if not isinstance(dataset, h5py.Dataset):
        yield f"{dataset.name} is not a dataset"
        return
    if dataset.external is not None or dataset.is_virtual:
        yield f"{dataset.name} keeps its data elsewhere"
    if set(filters(dataset)) - _FILTERS:
        yield f"{dataset.name} uses a filter other than gzip, shuffle and fletcher32"
    text = h5py.check_string_dtype(dataset.dtype)
    fits = (
        (text is not None and text.length is not None) if column.dtype == schema.TEXT else dataset.dtype == column.dtype
    )
    if not fits or dataset.ndim != 1 + len(column.tail) or dataset.shape[1:] != column.tail:
        shape = ", ".join(map(str, ("N", *column.tail)))
        yield f"{dataset.name} is {dataset.dtype} {dataset.shape}, not {column.dtype} ({shape})"
        return
    claimed = dataset.dtype.itemsize * max(dataset.size, math.prod(dataset.chunks or ()))
    if claimed > DEFLATE_RATIO * size:
        yield f"{dataset.name} claims {claimed} bytes in a file of {size}"
