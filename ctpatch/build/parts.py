"""Finished lesions on disk, one file each: what makes an interrupted build go on where it stopped.

They lie in a folder beside the store (`OUT.parts`) together with a lock and the plan they belong to.
"""

from __future__ import annotations

import contextlib
import errno
import glob
import hashlib
import json
import math
import os
import secrets
import shutil
import stat
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from ..errors import CtpatchError, InputError
from ..images.image import NOBODY, Person
from ..manifest import Row
from ..recipe import Recipe
from ..store.disk import lock, replacing, unlock, writing
from ..store.records import Lesion, Patches, Stream, crc32
from ..store.schema import PATCHES, json_bytes

PATCH_BYTES = {"hu": 5_700, "rgb": 47_000}
"""What a patch of a nodule takes compressed; LIDC-IDRI's are within some tens of per cent of it."""
_CHECK_BYTES = 4
_HU = PATCHES["hu"]


@dataclass(frozen=True, eq=False)
class FinishedPart:
    """A finished lesion: what the store will hold of it, and what is to say of it.

    Attributes
    ----------
    lesion : Lesion
    patches : Patches
    inputs : str
        `inputs_digest` of the files it was made from.
    content : str
        Digest of its image's pixels: the same for a copy under another name.
    notes : tuple of str
    lossy : bool
        Whether its image went through lossy compression.
    person : Person
        Digests of who its image is said to be of.
    """

    lesion: Lesion
    patches: Patches
    inputs: str
    content: str
    notes: tuple[str, ...] = ()
    lossy: bool = False
    person: Person = NOBODY

    def save(self, path: Path, ready: Callable[[], None] = lambda: None) -> None:
        """Write it whole: the length of a JSON header, that, the columns, HU, the streams, and the CRC-32 of it all.

        HU stand there as they are, too: reading them costs a tenth of inflating them. `ready` is as in `replacing`.
        """
        columns = {name: np.ascontiguousarray(values) for name, values in sorted(self.patches.columns.items())}
        images = dict(sorted(self.patches.images.items()))  # the header's names are sorted
        header = json_bytes(
            {
                "lesion": {**asdict(self.lesion), "aux": None, "diameter_mm": self.lesion.diameter_mm.hex()},
                "about": {name: getattr(self, name) for name in ("inputs", "content", "notes", "lossy")}
                | {"person": asdict(self.person)},
                "columns": {name: [values.dtype.str, values.shape] for name, values in columns.items()},
                "images": {name: [len(stream) for stream in streams] for name, streams in images.items()},
            }
        ).tobytes()
        pieces: list[Stream] = [
            len(header).to_bytes(8, "little"),
            header,
            *(values.tobytes() for values in columns.values()),
            np.ascontiguousarray(self.patches.hu, _HU.dtype).tobytes(),
        ]
        pieces += [stream for streams in images.values() for stream in streams]
        check = 0
        with writing(path.parent.name), replacing(path, private=True, ready=ready) as file:
            for piece in pieces:
                check = crc32(piece, check)
                file.write(piece)
            file.write(check.to_bytes(_CHECK_BYTES, "little"))

    @classmethod
    def load(cls, path: Path, row: Row) -> FinishedPart | None:
        """The part of a row's lesion; None when there is none, or it is damaged.

        Label, split and characteristics are the row's: they shape no pixel.
        """
        try:
            whole = memoryview(path.read_bytes())
            if crc32(whole[:-_CHECK_BYTES]).to_bytes(_CHECK_BYTES, "little") != whole[-_CHECK_BYTES:]:
                return None
            return cls._read(whole[:-_CHECK_BYTES], row)
        except Exception:  # there is none, or something else wrote it
            return None

    @classmethod
    def _read(cls, whole: memoryview, row: Row) -> FinishedPart:
        pieces = _Pieces(whole)
        header = json.loads(bytes(pieces.take(int.from_bytes(pieces.take(8), "little"))))
        told = {**header["lesion"], "diameter_mm": float.fromhex(header["lesion"]["diameter_mm"])}
        lesion = Lesion(**{**told, "split": row.split, "label": row.label, "aux": dict(row.aux)})
        columns = {}
        for name, (code, shape) in header["columns"].items():
            dtype = np.dtype(code)
            columns[name] = np.frombuffer(pieces.take(dtype.itemsize * math.prod(shape)), dtype).reshape(shape)
        count = len(header["images"]["hu"])
        hu = np.frombuffer(pieces.take(count * _HU.nbytes), _HU.dtype).reshape(count, *_HU.tail)
        images = {name: [pieces.take(length) for length in lengths] for name, lengths in header["images"].items()}
        if pieces.left:
            raise ValueError("a part longer than its header says")
        told = header["about"]
        about = {**told, "notes": tuple(told["notes"]), "person": Person(**told["person"])}
        return cls(lesion, Patches(hu, images, columns), **about)


class _Pieces:
    """Bytes taken from the front, without copying them."""

    def __init__(self, whole: memoryview) -> None:
        self.left = whole

    def take(self, count: int) -> memoryview:
        """The next `count` bytes."""
        if not 0 <= count <= len(self.left):
            raise ValueError("a part shorter than its header says")
        piece, self.left = self.left[:count], self.left[count:]
        return piece


class PartsFolder:
    """The folder of finished lesions, held by one build at a time.

    Parameters
    ----------
    path : Path
        Made when missing.
    plan : mapping
        What the build's pixels depend on, as JSON: choices and the manifest's digest.
    locked : bool
        Whether another build is kept out; where the file system has no locks it cannot be.

    Attributes
    ----------
    before : frozenset of str
        Names of the parts that an earlier build has left.

    Raises
    ------
    InputError
        When another build holds the folder, its lesions belong to another plan, or it is a link.
    """

    def __init__(self, path: Path, plan: Mapping[str, Any], *, locked: bool = True):
        self.path = path
        if path.is_symlink():  # whose end could be on another disk, and stay when the folder is to go
            raise InputError("the folder of finished lesions is a link", "remove the link", path.name)
        with writing(path.name):
            path.mkdir(mode=0o700, exist_ok=True)
            self._lock = self._locked(dict(plan), needed=locked)
            try:
                self._prepare(dict(plan))
            except BaseException:
                self.release()
                raise
            self.before = frozenset(part.name for part in path.glob("*.part"))

    def _locked(self, plan: dict[str, Any], *, needed: bool) -> IO[bytes]:
        """The open lock file, when the folder is this build's; the plan is for shards, who share it."""
        file = lock(self.path / "lock", needed=needed)
        if file is not None:
            return file
        with contextlib.suppress(FileNotFoundError):  # the other build has ended meanwhile
            if shards := lock(self.path / "lock", shared=True):
                unlock(shards)
                raise InputError("shards of this store are at work", "wait until all have ended", self.path.name)
        raise InputError("another build is writing this store", "wait for it, or give another --out", self.path.name)

    def _prepare(self, plan: dict[str, Any]) -> None:
        """Clear up after builds that were killed, and see that what they finished is of this plan."""
        for leftover in self.path.glob("*.tmp"):
            leftover.unlink(missing_ok=True)
        for removed in self.path.parent.glob(f"{glob.escape(self.path.name)}.*.tmp"):
            shutil.rmtree(removed, ignore_errors=True)
        before, lesions = self._plan(), list(self.path.glob("*.part"))
        if not before or not lesions:
            # Lesions without a readable plan may be anything's: left by a removal that was interrupted, say.
            for leftover in lesions:
                leftover.unlink()
            self._write_plan(plan)
        else:
            self._compare(before, plan)

    def _plan(self) -> dict[str, Any]:
        """What the finished lesions depend on; empty when there is nothing to read."""
        try:
            return dict(json.loads((self.path / "plan.json").read_bytes()))
        except (FileNotFoundError, ValueError, TypeError):
            return {}

    def _write_plan(self, plan: dict[str, Any]) -> None:
        with replacing(self.path / "plan.json", private=True) as file:
            file.write(json_bytes(plan).tobytes())

    def _compare(self, before: dict[str, Any], plan: dict[str, Any]) -> None:
        for key in sorted({*before, *plan}):
            if before.get(key) != plan.get(key):
                found = f"begun with {key} = {before.get(key)}, now {plan.get(key)}"
                do = f"use the first again to go on, or remove {self.path.name} to begin anew"
                raise InputError(found, do, self.path.name)

    def release(self) -> None:
        """Let another build have the folder."""
        unlock(self._lock)

    def abandon(self) -> None:
        """Let go of the folder after a failure; with no lesion finished, nothing of it stays."""
        if any(self.path.glob("*.part")):
            self.release()
        else:
            with contextlib.suppress(CtpatchError):  # what failed before is worth more
                self.remove()

    def remove(self) -> None:
        """Remove the folder: its lesions are in the store, or there are none.

        It loses its name first, lest another build begin in what is left of it, and its lock next: NFS does not let go
        of a file that is open.
        """
        leaving = self.path.with_name(f"{self.path.name}.{secrets.token_hex(4)}.tmp")
        try:
            try:
                self.path.rename(leaving)
            finally:
                self.release()
            with contextlib.suppress(FileNotFoundError):  # a build that has begun meanwhile clears up, too
                shutil.rmtree(leaving)
        except OSError as error:
            found = f"{self.path.name}: cannot be removed ({error.strerror})"
            raise CtpatchError(f"{found}; the store is complete: remove the folder by hand") from error


def part_path(parts: Path, row: Row) -> Path:
    """Where a lesion's part lies; the name tells nobody who it is."""
    role = "train" if row.split == "train" else "center"
    return parts / (hashlib.sha256(f"{row.patient_id}\0{row.lesion_id}\0{role}".encode()).hexdigest()[:32] + ".part")


def bytes_to_write(parts: Path, rows: Iterable[Row], recipe: Recipe) -> int:
    """What a build is still expected to write: the lesions that are not finished, and the store with all of them."""
    finished = {part.name: part.stat().st_size for part in parts.glob("*.part")}  # the rest comes and goes
    images = (size for name, size in PATCH_BYTES.items() if name == "hu" or recipe.rgb)
    patch, total = sum(images), 0
    for row in rows:
        count = recipe.patches * (1 + recipe.augment) if row.split == "train" else 1
        raw, there = count * _HU.nbytes, finished.get(part_path(parts, row).name)
        total += 2 * count * patch + raw if there is None else there - raw
    return total


def inputs_digest(row: Row) -> str:
    """Digest of names, sizes and times of the files a row is made from: have they changed since?"""
    places = [path for path in (row.image, row.mask) if path is not None]
    files = [str(place) for place in places if not place.is_dir()]
    for place in places:
        for folder, below, names in os.walk(place):
            below[:] = [name for name in below if not name.endswith(".parts")]  # a build's own, where OUT is in there
            files += [os.path.join(folder, name) for name in names]
    lines = sorted(filter(None, map(_told_of_file, files)))
    return hashlib.sha256("\n".join(lines).encode(errors="surrogateescape")).hexdigest()


def _told_of_file(path: str) -> str:
    """A regular file's name, size and time; nothing of what is none, or not there."""
    try:
        status = os.stat(path)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            return ""
        raise
    told = f"{os.path.basename(path)}\0{status.st_size}\0{status.st_mtime_ns}"
    return told if stat.S_ISREG(status.st_mode) else ""
