"""A folder of DICOM files: which CT series are in it, and which one is meant."""

from __future__ import annotations

import os
import re
import stat
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType

from ..dicom.dataset import uid_of
from ..dicom.header import Header, read_header
from ..errors import InputError, short_uid

CT_IMAGE = "1.2.840.10008.5.1.4.1.1.2"
ENHANCED_CT = ("1.2.840.10008.5.1.4.1.1.2.1", "1.2.840.10008.5.1.4.1.1.2.2")
_PREAMBLE = 132
_PACKED = (b"\x1f\x8b", b"PK\x03\x04", b"BZh", b"\xfd7zXZ", b"7z\xbc\xaf", b"\x28\xb5\x2f\xfd")
_SHOWN = 4
"""Series that a message lists."""
State = tuple[int, ...]


@dataclass(frozen=True)
class Folder:
    """The CT headers below a folder by SeriesInstanceUID, and how many other files lie there."""

    path: Path
    series: Mapping[str, tuple[Header, ...]]
    others: int


def read_folder(path: Path) -> Folder:
    """Read the headers of all files below `path`; what is not a CT image is counted, never read as one.

    The last folder is kept until `forget_folder`, and read again where a file of it has changed: lesions of one patient
    follow each other, and where all patients lie in one folder it would be read for each of them.

    Raises
    ------
    InputError
        When a file or folder is unreadable or cut off, or there is no CT image.
    """
    return _read_folder(path, tuple(_files(path)))


def forget_folder() -> None:
    """Give back the memory of the last folder's headers, some 2 kB a file."""
    _read_folder.cache_clear()


@lru_cache(maxsize=1)
def _read_folder(path: Path, files: tuple[tuple[str, State], ...]) -> Folder:
    series: dict[str, list[Header]] = {}
    others = []
    kinds: Counter[str] = Counter()
    for name, _ in files:
        file = Path(name)
        header = read_header(file)
        if header is None or header.text("SOPClassUID") not in (CT_IMAGE, *ENHANCED_CT):
            others.append(file)
            kinds.update([kind_of(header)] if header else ())
            continue
        uid = header.text("SeriesInstanceUID")
        if not uid:
            raise InputError("SeriesInstanceUID is missing", "export the series again from its source", file)
        series.setdefault(uid, []).append(header)
    if not series:
        if packed := sum(map(is_packed, others)):
            found = f"no CT image among {len(others)} files, {packed} of which are compressed"
            raise InputError(found, "unpack them (.gz, .zip …) first", path, kind="compressed")
        listed = "".join(f", {n} {kind}" for kind, n in kinds.most_common(3))
        raise InputError(f"no CT image among {len(others)} files{listed}", "give the folder of a DICOM CT series", path)
    _refuse_stumps(others, {_suffix(header.path) for headers in series.values() for header in headers})
    return Folder(path, MappingProxyType({uid: tuple(series[uid]) for uid in sorted(series)}), len(others))


def kind_of(header: Header) -> str:
    """What a DICOM object is that is no CT image."""
    modality = header.text("Modality") or "unknown"
    if modality != "CT":
        return f"DICOM of modality {modality}"
    uid = uid_of(header.text("SOPClassUID"))
    return f"DICOM of modality CT that are no CT images ({uid.name.removesuffix(' Storage') or 'of no class'})"


def choose_series(
    folder: Folder, series_uid: str, referenced: frozenset[str], referenced_sops: frozenset[str]
) -> tuple[tuple[Header, ...], tuple[str, ...]]:
    """The headers of the one series meant, and a note where the contours chose it: by the images they name, if any."""
    series = {uid: headers for uid, headers in folder.series.items() if not all(map(is_localizer, headers))}
    series = series or dict(folder.series)
    if series_uid and series_uid not in series:
        found = f"no CT series {series_uid} among {_listing(series)}"
        raise InputError(found, "mend series_uid", folder.path)
    if series_uid or len(series) == 1:
        return series[series_uid or next(iter(series))], ()
    by_series = {uid: series[uid] for uid in series if uid in referenced}
    by_image = {uid: of for uid, of in series.items() if any(h.text("SOPInstanceUID") in referenced_sops for h in of)}
    if by_series and by_image and not by_series.keys() & by_image.keys():
        found = f"the contours refer to images of {_listing(by_image)}, their file to {_listing(by_series)}"
        raise InputError(found, "name one in series_uid", folder.path)
    chosen = by_image if len(by_image) == 1 else by_series or by_image
    if len(chosen) == 1:
        note = f"{len(series)} CT series in the folder; the one that the contours refer to is used"
        return next(iter(chosen.values())), (note,)
    if len(series) > 2 and all(len(headers) == 1 for headers in series.values()):
        found = f"{len(series)} CT series of one image each"
        do = "put series into the column accept if they are one stack, or name one in series_uid"
        raise InputError(found, do, folder.path, kind="many-series")
    raise InputError(f"{len(series)} CT series: {_listing(series)}", "name one in series_uid", folder.path)


def join_series(folder: Folder) -> tuple[tuple[Header, ...], tuple[str, ...]]:
    """The images of all series that have a single one, as one series, and a note of it.

    De-identification may give each slice a SeriesInstanceUID of its own; series of several images are none of these.

    Raises
    ------
    InputError
        When there are not two such, or images are of different patients or studies.
    """
    alone = [headers[0] for headers in folder.series.values() if len(headers) == 1]
    alone = [header for header in alone if not is_localizer(header)]
    if len(alone) < 2:
        found = f"{len(alone)} CT series of one image, so accept=series has nothing to join"
        raise InputError(found, "take series out of the column accept", folder.path)
    for keyword in ("StudyInstanceUID", "PatientID"):
        if len(values := {header.text(keyword) for header in alone}) > 1:
            found = f"the {len(alone)} images have {len(values)} values of {keyword}"
            raise InputError(found, "give a folder with one of them", folder.path)
    return tuple(alone), (f"{len(alone)} images with a SeriesInstanceUID each are one series, as the manifest says",)


def _files(path: Path) -> list[tuple[str, State]]:
    """The files below `path` in the order of paths, each with what changes with its content."""
    if path.is_file():  # an Enhanced CT image may be named itself
        return [(str(path), _state(path))]
    walk = os.walk(path, onerror=_refuse_folder)
    files = (os.path.join(folder, name) for folder, _, names in walk for name in names)
    found = ((file, _state(file)) for file in files)
    return sorted(((file, state) for file, state in found if state), key=lambda each: each[0].split(os.sep))


def _state(file: str | Path) -> State:
    """What changes with a file's content; nothing of a pipe, which would hang.

    Who unpacks or copies files sets their time back (tar, rsync -a, cp -p), but not that of their last change.
    """
    try:
        status = os.stat(file)
    except OSError:  # a broken link may have been a slice, and is refused when it is opened
        return (0,)
    known = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    return known if stat.S_ISREG(status.st_mode) else ()


def _refuse_folder(error: OSError) -> None:
    found = f"the folder cannot be read ({error.strerror})"
    raise InputError(found, "mend its permissions or disk", Path(error.filename)) from error


def _refuse_stumps(files: Iterable[Path], suffixes: set[str]) -> None:
    """Refuse a file too short for a DICOM header that is named like the series' images: it may have been a slice."""
    for file in files:
        if file.suffix.lower() == ".gz" and _suffix(Path(file.stem)) in suffixes:
            raise InputError("an image of the series is compressed", "unpack it", file, kind="compressed")
        size = file.stat().st_size
        if size < _PREAMBLE and _suffix(file) in suffixes and not file.name.startswith("."):
            raise InputError(f"{size} bytes, cut off before any DICOM header", "copy the series again", file)


def is_packed(path: Path) -> bool:
    """Whether a file is an archive or compressed by its first bytes: gzip, zip, bzip2, xz, 7z, zstandard."""
    with open(path, "rb") as file:
        return file.read(6).startswith(_PACKED)


def _suffix(path: Path) -> str:
    """A file's suffix; where it has none, or a number as UIDs have, its name but for what is numbers."""
    suffix = path.suffix.lower()
    return re.sub("[0-9A-Fa-f]+", "0", path.name) if suffix[1:].isdecimal() or not suffix else suffix


def _listing(series: Mapping[str, tuple[Header, ...]]) -> str:
    def line(uid: str) -> str:
        first = series[uid][0]
        return f"{short_uid(uid)} ({first.text('SeriesDescription') or 'no description'}, {len(series[uid])} images)"

    more = len(series) - _SHOWN
    return "; ".join(line(uid) for uid in list(series)[:_SHOWN]) + (f"; and {more} others" if more > 0 else "")


def drop_copies(headers: Sequence[Header]) -> tuple[tuple[Header, ...], int]:
    """Files equal to the last byte count once; one SOPInstanceUID with different bytes is an error."""
    kept: dict[str, Header] = {}
    for header in headers:
        uid = header.text("SOPInstanceUID")
        if not uid:
            raise InputError("SOPInstanceUID is missing", "export the series again from its source", header.path)
        if uid in kept and kept[uid].path.read_bytes() != header.path.read_bytes():
            found = f"SOPInstanceUID {short_uid(uid)} is also in {kept[uid].path.name!r}, with other content"
            raise InputError(found, "keep the right one of the two files", header.path)
        kept.setdefault(uid, header)
    return tuple(kept.values()), len(headers) - len(kept)


def is_localizer(header: Header) -> bool:
    """Whether ImageType says that it is a localizer."""
    return "LOCALIZER" in header.text("ImageType").upper().split("\\")


def drop_localizers(headers: tuple[Header, ...]) -> tuple[tuple[Header, ...], int]:
    """The images that are no localizers, if any, and how many were left aside."""
    images = tuple(header for header in headers if not is_localizer(header))
    return (images, len(headers) - len(images)) if images else (headers, 0)
