"""Targets that read tables and stores: the manifest, finished parts of a build, HDF5 stores."""

from __future__ import annotations

import csv
import hashlib
import io
import random
import unicodedata
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import toystore

from ctpatch.build.parts import FinishedPart
from ctpatch.errors import InputError
from ctpatch.manifest import SPLITS, Manifest, Row, manifest_digest, read_manifest
from ctpatch.store import open_store
from ctpatch.store.card import data_card
from ctpatch.store.records import Lesion, Patches, deflate
from ctpatch.store.schema import PATCHES, SEAL_BYTES, seal
from ctpatch.store.summary import describe_store
from ctpatch.store.verify import verify_store

from . import mutate
from .target import Target, Wrong

MANIFEST = """\
patient_id,lesion_id,image,mask,roi,label,split,center,accept,aux_size,note
001,1,ct,a.dcm,GTV,T3,train,,,1,x
002,1,ct,b.dcm,"G,TV",T4,train,,gap,2,
002,2,ct,b.dcm,b,T4,train,,gap frame,,é
003,1,ct,,,T3,val,1 -2.5 3e1,,1,
004,,ct,c.dcm,2,,test,,overlap=union,2,"x ""y"" z"
"""


# ------------------------------------------------------------------------------------------------------ manifest


def manifest_target(folder: Path) -> Target:
    """A manifest, judged by the csv module."""
    (folder / "ct").mkdir(parents=True, exist_ok=True)
    for name in ("ct/0.dcm", "a.dcm", "b.dcm", "c.dcm", "v.nii"):
        (folder / name).write_bytes(b"x")
    path = folder / "m.csv"
    plain = "patient_id;image;mask;label\n" + "".join(
        f"P{i};v.nii;{m}.dcm;{'ab'[i % 2]}\n" for i, m in enumerate("abc")
    )
    texts = (MANIFEST, MANIFEST.replace("\n", "\r\n"), plain, plain.replace(";", "\t"), "\ufeff" + plain)
    mutators = (mutate.cells, mutate.cells, mutate.lines, mutate.number, mutate.any_bytes)

    def read(data: bytes) -> Manifest:
        path.write_bytes(data)
        manifest = read_manifest(path)
        manifest_digest(manifest.rows)
        return manifest

    seeds = [text.encode() for text in texts]
    return Target("manifest", seeds, partial(mutate.several, mutators), read, judge_manifest)


def judge_manifest(manifest: Manifest, data: bytes) -> None:
    """The rows are those of the csv module, their cells stripped and in NFC; numbers are numbers."""
    text = io.StringIO(data.decode("utf-8-sig"), newline="")
    head = text.readline()
    for delimiter in ",;\t":
        names = [
            unicodedata.normalize("NFC", c).strip().casefold() for c in next(csv.reader([head], delimiter=delimiter))
        ]
        if {"patient_id", "image"} <= set(names):
            break
    else:
        raise Wrong("a manifest without patient_id or image")
    records = [[cell.strip() for cell in record] for record in csv.reader(text, delimiter=delimiter)]
    expected = sorted(_cells(dict(zip(names, record, strict=False))) for record in records if any(record))
    found = sorted(_row_cells(row) for row in manifest.rows)
    if found != expected:
        raise Wrong(
            f"rows {[r for r in found if r not in expected][:2]}, {[r for r in expected if r not in found][:2]}"
        )


def _cells(record: dict[str, str]) -> tuple[Any, ...]:
    def cell(name: str) -> str:
        return unicodedata.normalize("NFC", record.get(name, ""))

    center = tuple(float(word) for word in cell("center").split())
    texts = (cell("patient_id"), cell("lesion_id") or "1", record["image"], record.get("mask", ""), cell("roi"))
    return (*texts, cell("series_uid"), cell("label"), cell("split").casefold(), center)


def _row_cells(row: Row) -> tuple[Any, ...]:
    texts = (row.patient_id, row.lesion_id, row.image_text, row.mask_text, row.roi, row.series_uid, row.label)
    return (*texts, row.split, tuple(row.center or ()))


# --------------------------------------------------------------------------------------------- parts of a build


def part_target(folder: Path) -> Target:
    """A finished lesion: damage is noticed, or does no harm."""
    folder.mkdir(exist_ok=True)
    path, row = folder / "s.part", Row(2, "P1", "1", folder, label="T3", split="train")
    hu = np.random.default_rng(0).integers(-1024, 3000, (4, 64, 64)).astype(np.int16)
    columns = {
        name: np.arange(4 * int(np.prod(PATCHES[name].tail))) for name in PATCHES if name not in ("hu", "rgb", "lesion")
    }
    shaped = {name: v.reshape(4, *PATCHES[name].tail).astype(PATCHES[name].dtype) for name, v in columns.items()}
    lesion = Lesion("P1", "1", "train", "T3", "digest", 12.5, 1, {})
    FinishedPart(lesion, Patches(hu, {"hu": deflate("hu", hu)}, shaped), "x", "c", ("n",)).save(path)
    good = path.read_bytes()
    names = list(range(8 + int.from_bytes(good[:8], "little")))  # the header

    def fingerprint(part: FinishedPart) -> str:
        patches, about = part.patches, (part.lesion, part.inputs, part.content, part.notes, part.lossy)
        parts = [repr(about), *(b"".join(v).hex() + str(list(map(len, v))) for v in patches.images.values())]
        parts += [name + v.dtype.str + str(v.shape) + v.tobytes().hex() for name, v in sorted(patches.columns.items())]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    first = FinishedPart.load(path, row)
    assert first is not None
    expected = fingerprint(first)

    def read(data: bytes) -> str:
        path.write_bytes(data)
        found = FinishedPart.load(path, row)
        if found is None:
            raise InputError("the part is damaged", "compute it again")
        return fingerprint(found)

    def judge(found: str, data: bytes) -> None:
        if found != expected:
            raise Wrong("a damaged part was read as another lesion's, or as other patches")

    return Target("part", [good], lambda data, rng: mutate.any_bytes(data, rng, names), read, judge)


# -------------------------------------------------------------------------------------------------------- stores


def store_target(folder: Path) -> Target:
    """A store with bytes changed, its last line made to fit again in half of the cases."""
    folder.mkdir(exist_ok=True)
    path = folder / "s.h5"
    toystore.write_store(path, {"train": 2, "val": 2, "test": 1})
    good = path.read_bytes()
    expected = content(path)
    metadata = _metadata(path)

    def change(data: bytes, rng: random.Random) -> bytes:
        for _ in range(rng.choice((1, 1, 1, 2, 4))):
            data = mutate.any_bytes(data, rng, metadata)
        if rng.random() < 0.5:
            return data
        body = data[:-SEAL_BYTES]
        return body + seal(hashlib.sha256(body).hexdigest())

    def read(data: bytes) -> str:
        path.write_bytes(data)
        found = content(path)
        describe_store(path)
        with open_store(path) as store:
            data_card(store)
            problems = verify_store(store.file)
        if problems:
            raise InputError("; ".join(problems), "copy it again")
        return found

    def judge(found: str, data: bytes) -> None:
        sealed = data[-SEAL_BYTES:] == seal(hashlib.sha256(data[:-SEAL_BYTES]).hexdigest())
        if found != expected or (data != good and not sealed):
            raise Wrong("an altered store passes as whole and unaltered")

    return Target("store", [good], change, read, judge)


def content(path: Path) -> str:
    """Digest of all that a reader gets from a store."""
    with open_store(path) as store:
        parts = [store.lesions.to_csv(), store.skipped.to_csv(), store.digest]
        parts += map(repr, (store.label_classes, store.aux_levels, store.recipe, store.provenance))
        for name in SPLITS:
            view = store.split(name)
            columns = [getattr(view, column) for column in PATCHES]
            parts += [
                repr((v.dtype, v.shape)) + hashlib.sha256(v[:].tobytes()).hexdigest() for v in columns if v is not None
            ]
    return hashlib.sha256("\n".join(parts).encode(errors="surrogatepass")).hexdigest()


def _metadata(path: Path) -> list[int]:
    """Positions in a store's file outside the compressed chunks."""
    taken = np.zeros(path.stat().st_size, bool)

    def visit(_: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset) and item.chunks:
            for i in range(item.id.get_num_chunks()):
                chunk = item.id.get_chunk_info(i)
                taken[chunk.byte_offset : chunk.byte_offset + chunk.size] = True

    with h5py.File(path, "r") as file:
        file.visititems(visit)
    return np.flatnonzero(~taken).tolist()
