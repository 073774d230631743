"""Writing a store: lesion after lesion into a temporary file that takes its final name only when complete."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import InputError
from ..manifest import SPLITS
from . import schema
from .disk import Sink, sync, uninterrupted, writing
from .records import (
    Lesion,
    Patches,
    Stream,
    as_column,
    as_hu,
    check_lesion,
    class_names,
    deflate,
    is_deflated,
    is_text,
    json_document,
    level_names,
)
from .schema import IMAGES, PATCHES

_PIECE = 4
"""Pictures that are rendered and hashed at once."""


class StoreWriter:
    """Write a patch store, also from one's own arrays.

    The store is written beside its final place under another name and appears at `path` only when it is complete; an
    exception inside the `with` block leaves nothing.

    Parameters
    ----------
    path : path
        The store to make; an existing one is replaced at the end.
    label_classes : sequence of str
        The diagnostic classes in their order.
    aux_levels : mapping, optional
        For each auxiliary characteristic the name of each numeric level, e.g. `{"margin": {1: "poor", 5: "sharp"}}`.
    recipe, provenance : mapping, optional
        JSON documents: what shaped the pixels, and what they were made from.
    rgb : bool
        Whether to keep the rendered pictures beside the HU.
    temporary : path, optional
        Where to write until complete; on the same file system. Default: beside `path`.

    Examples
    --------
    >>> with ctpatch.StoreWriter("own.h5", label_classes=["benign", "malignant"], rgb=False) as store:
    ...     store.add(patient_id="p1", split="train", label="benign", hu=hu)  # hu: (N, 64, 64) int16
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        label_classes: Sequence[str],
        aux_levels: Mapping[str, Mapping[float, str]] | None = None,
        recipe: Mapping[str, Any] | None = None,
        provenance: Mapping[str, Any] | None = None,
        rgb: bool = True,
        temporary: str | os.PathLike[str] | None = None,
    ):
        self.path = Path(path)
        self.label_classes = class_names(label_classes)
        self.aux_levels = level_names(aux_levels or {})
        documents = {"recipe": recipe, "provenance": provenance}
        self.documents = {name: json_document(name, given) for name, given in documents.items()}
        self._images = IMAGES if rgb else ("hu",)
        self._lesions: list[Lesion] = []
        self._counts: list[int] = []
        self._skipped: list[tuple[str, str, str]] = []
        self._columns: dict[str, dict[str, list[NDArray[Any]]]] = {split: {} for split in SPLITS}
        self._digests = {(split, name): hashlib.sha256() for split in SPLITS for name in self._images}
        self._temporary = Path(temporary or self.path.with_name(f".{self.path.name}.{os.getpid()}.tmp"))
        with writing(self.path.name):
            self._temporary.unlink(missing_ok=True)
            self._disk = Sink(self._temporary)
        self._file = h5py.File(self._disk, "w", libver=schema.LIBVER)
        for split in SPLITS:
            for name in self._images:
                _create_images(self._file, f"{split}/{name}", PATCHES[name])

    def __enter__(self) -> StoreWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        if kind is not None:
            self.discard()
        elif self._file:  # not yet finished within the block
            self.finish()

    def add(
        self,
        *,
        patient_id: str,
        split: str,
        label: str,
        hu: ArrayLike,
        lesion_id: str = "1",
        plane: ArrayLike = 0,
        copy: ArrayLike = 0,
        center: ArrayLike = np.nan,
        angle: ArrayLike = 0.0,
        shift: ArrayLike = 0.0,
        aux: Mapping[str, float] | None = None,
        series: str = "",
        diameter_mm: float = float("nan"),
        n_readers: int = 0,
    ) -> None:
        """Add one lesion; lesions come in the order of (patient_id, lesion_id).

        Parameters
        ----------
        patient_id, lesion_id, split, label, aux, series, diameter_mm, n_readers
            As in `Lesion`.
        hu : (N, 64, 64) int16
            Patches in HU; other integer types are accepted where the values fit.
        plane : (N,) or scalar
            0 = xy, 1 = xz, 2 = yz.
        copy : (N,) or scalar
            0 = original, 1… = moved copies.
        center : (N, 3)
            mm LPS; NaN when unknown.
        angle : (N,) or scalar
            Degrees.
        shift : (N, 2) or scalar
            mm along the plane's axes.

        Raises
        ------
        InputError
            When a value does not fit the store: order, split, label, shape, range, or a patient in two splits.
        """
        hu = as_hu(hu)
        given = {"plane": plane, "copy": copy, "center": center, "angle": angle, "shift": shift}
        columns = {name: as_column(name, value, len(hu)) for name, value in given.items()}
        images = {"hu": deflate("hu", hu)}
        if "rgb" in self._images:
            from ..patches.render import rendered

            images["rgb"] = deflate("rgb", rendered(hu))
        lesion = Lesion(patient_id, lesion_id, split, label, series, diameter_mm, n_readers, aux)
        self.add_patches(lesion, Patches(hu, images, columns))

    def add_patches(self, lesion: Lesion, patches: Patches) -> None:
        """Add one lesion whose images are compressed already.

        The digests are of what the streams hold, but none is inflated for them: HU are at hand, and rendering again
        takes a fifth of the time. A stream has to end in the checksum of its patch, or of what was rendered.
        """
        self._check_open()
        check_lesion(lesion, self.label_classes, self.aux_levels)
        self._check_order(lesion)
        count = len(patches.hu)
        self._digest(lesion.split, patches)
        with uninterrupted():
            for name in self._images:
                self._append(lesion.split, name, patches.images[name])
        with writing(self.path.name):
            self._disk.check()
        columns = {**patches.columns, "lesion": np.full(count, len(self._lesions), PATCHES["lesion"].dtype)}
        for name, values in columns.items():
            self._columns[lesion.split].setdefault(name, []).append(values)
        self._lesions.append(lesion)
        self._counts.append(count)

    def skip(self, patient_id: str, lesion_id: str, reason: str) -> None:
        """List a lesion that was left out, and why."""
        for text in (patient_id, lesion_id, reason):
            if not is_text(text):
                found = f"{text!r:.80} is no text that UTF-8 can hold"
                raise InputError(found, "give a str without NUL", f"lesion {lesion_id}", f"{patient_id}")
        self._skipped.append((patient_id, lesion_id, reason))

    def finish(self) -> None:
        """Write what is left, flush to the disk, and give the store its final name."""
        self._check_open()
        try:
            with uninterrupted():
                self._write_tables()
                root = self._file
                root.attrs["version"], root.attrs["complete"] = schema.VERSION, True
                schema.set_text(root, "format", schema.FORMAT)
                schema.set_text(root, "sha256", schema.store_digest(root))
                root.close()
            with writing(self.path.name):
                self._disk.check()
                self._disk.close()
                with ThreadPoolExecutor(1) as thread:  # the disk writes while the digest is made, and then little more
                    flushed = thread.submit(sync, self._temporary)
                    _seal(self._temporary)
                    flushed.result()
                sync(self._temporary)
                os.replace(self._temporary, self.path)
        except BaseException:
            self.discard()
            raise
        with writing(self.path.name):
            sync(self.path.absolute().parent)

    def discard(self) -> None:
        """Drop what was written; the final name is untouched."""
        with uninterrupted(), writing(self.path.name):
            self._file.close()
            self._disk.close()
            self._temporary.unlink(missing_ok=True)

    def _check_open(self) -> None:
        if not self._file:
            raise InputError("the store is finished, or discarded", "begin another StoreWriter", self.path.name)

    def _check_order(self, lesion: Lesion) -> None:
        if not self._lesions:
            return
        last = self._lesions[-1]
        if (lesion.patient_id, lesion.lesion_id) <= (last.patient_id, last.lesion_id):
            found = f"comes after patient {last.patient_id!r} lesion {last.lesion_id!r}"
            raise InputError(found, "add lesions in the order of (patient_id, lesion_id), each once")
        if lesion.patient_id == last.patient_id and lesion.split != last.split:
            raise InputError(
                f"one patient in two splits: {last.split}, {lesion.split}",
                "give it one split",
                f"lesion {lesion.lesion_id}",
                lesion.patient_id,
            )

    def _digest(self, split: str, patches: Patches) -> None:
        hu = np.ascontiguousarray(patches.hu)
        for name in self._images:
            if len(patches.images[name]) != len(hu):
                raise ValueError(f"{len(patches.images[name])} {name} streams of {len(hu)} patches")
        if not all(map(is_deflated, patches.images["hu"], hu)):
            raise ValueError("a stream that is not its patch")
        if "rgb" in self._images:
            self._digest_pictures(split, patches.images["rgb"], hu)
        self._digests[split, "hu"].update(hu.data)

    def _digest_pictures(self, split: str, streams: Sequence[Stream], hu: NDArray[np.int16]) -> None:
        """Pictures are hashed by a thread while the next are rendered, in pieces that stay in the processor's cache."""
        from ..patches.render import render

        digest, hashed = self._digests[split, "rgb"], Future[None]()
        hashed.set_result(None)
        with ThreadPoolExecutor(1) as thread:
            for start in range(0, len(hu), _PIECE):
                pictures = render(hu[start : start + _PIECE])
                if not all(map(is_deflated, streams[start : start + _PIECE], pictures)):
                    raise ValueError("a picture that is not what its HU render to")
                hashed.result()
                hashed = thread.submit(digest.update, pictures.data)
            hashed.result()

    def _append(self, split: str, name: str, streams: Sequence[Stream]) -> None:
        dataset, tail = self._file[f"{split}/{name}"], (0,) * len(PATCHES[name].tail)
        start = dataset.shape[0]
        dataset.resize(start + len(streams), axis=0)
        for n, stream in enumerate(streams, start):
            dataset.id.write_direct_chunk((n, *tail), stream)

    def _write_tables(self) -> None:
        root = self._file
        for (split, name), digest in self._digests.items():
            schema.set_text(root[f"{split}/{name}"], "sha256", digest.hexdigest())
        for split, columns in self._columns.items():
            for name, column in PATCHES.items():
                if name not in IMAGES:
                    empty = np.empty((0, *column.tail), column.dtype)
                    _create(root, f"{split}/{name}", np.concatenate([empty, *columns.get(name, [])]))
        for name, values in _lesion_columns(self._lesions, self._counts, self.aux_levels).items():
            _create(root, f"lesions/{name}", values)
        for k, name in enumerate(schema.SKIPPED):
            _create(root, f"skipped/{name}", schema.text_array([entry[k] for entry in self._skipped]))
        for name, document in self.documents.items():
            _create(root, name, schema.json_bytes(document))
        lesions = root["lesions"]
        schema.set_text(lesions, "label_classes", list(self.label_classes))
        levels = {
            n: {np.format_float_positional(v, trim="-"): name for v, name in by.items()}
            for n, by in self.aux_levels.items()
        }
        schema.set_text(lesions, "aux_classes", schema.json_bytes(levels).tobytes().decode())


def _lesion_columns(
    lesions: Sequence[Lesion], counts: Sequence[int], aux: Mapping[str, Any]
) -> dict[str, NDArray[Any]]:
    """The /lesions group's datasets by path."""
    columns: dict[str, NDArray[Any]] = {}
    for name, column in schema.LESIONS.items():
        values: list[Any] = list(counts) if name == "n_patches" else [getattr(lesion, name) for lesion in lesions]
        columns[name] = schema.text_array(values) if column.dtype == schema.TEXT else np.array(values, column.dtype)
    for name in aux:
        values = [(lesion.aux or {}).get(name, np.nan) for lesion in lesions]
        columns[f"aux/{name}"] = np.array(values, schema.AUX.dtype)
    return columns


def _create_images(root: h5py.File, path: str, column: schema.Column) -> None:
    """An empty, growing dataset with a chunk per patch; no fill values, since every chunk is written."""
    root.create_dataset(
        path,
        shape=(0, *column.tail),
        maxshape=(None, *column.tail),
        chunks=(1, *column.tail),
        dtype=column.dtype,
        compression="gzip",
        compression_opts=4,
        fillvalue=0,
    )


def _create(root: h5py.File, path: str, values: NDArray[Any]) -> None:
    """A complete dataset with its digest; gzip carries a checksum for every chunk."""
    if values.dtype.kind == "S":
        values = values.astype(h5py.string_dtype("utf-8", values.dtype.itemsize))
    chunk = (max(1, min(len(values), 16384)), *values.shape[1:])
    dataset = root.create_dataset(
        path, data=values, chunks=chunk, maxshape=(None, *values.shape[1:]), compression="gzip"
    )
    schema.set_text(dataset, "sha256", schema.array_digest(values))


def _seal(path: Path) -> None:
    """Append the digest of the file's bytes."""
    with open(path, "r+b") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        file.seek(0, os.SEEK_END)
        file.write(schema.seal(digest))
