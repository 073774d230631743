"""Is this file laid out as a store, and is its content what its digests say?

A store may come from a stranger, and HDF5 can make a file read other files or pretend to hold terabytes. So only
hard links to declared, plain datasets are read, and no dataset may claim more than its file could hold.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from ..errors import InputError, one_line
from . import schema

DEFLATE_RATIO = 1100
"""DEFLATE cannot shrink by more than about 1032 to 1."""
_FILTERS = {h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_FLETCHER32, h5py.h5z.FILTER_SHUFFLE}


def check_layout(root: h5py.File, path: Path) -> None:
    """Refuse what is not a complete ctpatch store of this version with just the declared objects.

    Raises
    ------
    InputError
        Naming what was found.
    """
    if root.attrs.get("format") != schema.FORMAT:
        raise InputError("an HDF5 file, but not a ctpatch store", "give a store made by ctpatch build", path)
    version = root.attrs.get("version")
    if version != schema.VERSION:
        found = f"store version {version}, this ctpatch reads version {schema.VERSION}"
        raise InputError(found, "build it again, or install the ctpatch that wrote it", path)
    if not root.attrs.get("complete", False):
        raise InputError("the store is incomplete", "rerun ctpatch build", path)
    problem = next(_layout_problems(root, path.stat().st_size), None)
    if problem:
        raise InputError(problem, "use a store from ctpatch build or StoreWriter", path)


def verify_store(root: h5py.File, progress: Callable[[int], None] = lambda size: None) -> list[str]:
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
    problems = []
    for name, dataset in schema.datasets(root):
        try:
            digest = _digest(dataset, progress)
        except (OSError, RuntimeError):
            problems.append(f"{name} cannot be read: its checksum or compression is damaged")
            continue
        if digest != dataset.attrs.get("sha256"):
            problems.append(
                f"{name} was altered: sha256 {digest[:12]}…, recorded {str(dataset.attrs.get('sha256'))[:12]}…"
            )
    if schema.store_digest(root) != root.attrs.get("sha256"):
        problems.append("an attribute, type or shape was altered: the root's sha256 differs")
    return problems


def _digest(dataset: h5py.Dataset, progress: Callable[[int], None]) -> str:
    digest = hashlib.sha256()
    row = max(1, dataset.dtype.itemsize * int(np.prod(dataset.shape[1:])))
    step = max(1, 2**24 // row)
    for start in range(0, dataset.shape[0], step):
        piece = dataset[start : start + step].tobytes()
        digest.update(piece)
        progress(len(piece))
    return digest.hexdigest()


def _layout_problems(root: h5py.File, size: int) -> Iterator[str]:
    try:
        aux = json.loads(root["lesions"].attrs["aux_classes"])
    except (KeyError, ValueError, TypeError):
        yield "/lesions lacks a readable aux_classes attribute"
        return
    tables = {
        "lesions": schema.LESIONS,
        "skipped": schema.SKIPPED,
        **dict.fromkeys(schema.SPLITS, schema.PATCHES),
    }
    yield from _children(root, {*tables, *schema.DOCUMENTS}, set())
    for group, columns in tables.items():
        extra = {"aux"} if group == "lesions" else set()
        yield from _children(root[group], {*columns, *extra}, {*schema.OPTIONAL, *extra})
        lengths = set()
        for name in set(columns) & set(root[group]):
            lengths.add(root[group][name].shape[:1])
            yield from _dataset_problems(root[group][name], columns[name], size)
        if len(lengths) > 1:
            yield f"/{group}'s datasets differ in length"
    if "aux" in root["lesions"] or aux:
        yield from _children(root["lesions"]["aux"], set(aux), set())
        for dataset in root["lesions"]["aux"].values():
            yield from _dataset_problems(dataset, schema.AUX, size)
            if dataset.shape != root["lesions/label"].shape:
                yield f"{dataset.name} differs in length from /lesions"
    for name in schema.DOCUMENTS:
        yield from _dataset_problems(root[name], schema.Column("|u1"), size)
        if root[name].shape[0] > schema.JSON_LIMIT:
            yield f"/{name} holds {root[name].shape[0]} bytes"


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
    plist = dataset.id.get_create_plist()
    if dataset.external is not None or dataset.is_virtual:
        yield f"{dataset.name} keeps its data elsewhere"
    if {plist.get_filter(i)[0] for i in range(plist.get_nfilters())} - _FILTERS:
        yield f"{dataset.name} uses a filter other than gzip, shuffle and fletcher32"
    text = h5py.check_string_dtype(dataset.dtype)
    fits = (
        (text is not None and text.length is not None) if column.dtype == schema.TEXT else dataset.dtype == column.dtype
    )
    if not fits or dataset.ndim != 1 + len(column.tail) or dataset.shape[1:] != column.tail:
        shape = ", ".join(map(str, ("N", *column.tail)))
        yield f"{dataset.name} is {dataset.dtype} {dataset.shape}, not {column.dtype} ({shape})"
    elif dataset.size * dataset.dtype.itemsize > DEFLATE_RATIO * size:
        yield f"{dataset.name} claims {dataset.size * dataset.dtype.itemsize} bytes in a file of {size}"
