"""What a manifest says: the values that the other modules of ctpatch work with, and their digest."""

from __future__ import annotations

import hashlib
import json
import math
import posixpath
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass
from pathlib import Path

from ..errors import InputError

SPLITS = ("train", "val", "test")
ACCEPTED = (
    *("gap", "overlap=union", "overlap=xor", "frame", "resample", "readers"),
    *("between", "stray", "series", "units", "padding"),
)
"""What a row may accept (column `accept`)."""


@dataclass(frozen=True, slots=True)
class Row:
    """One lesion of a manifest.

    Attributes
    ----------
    line : int
        Line in the file; the header is line 1.
    patient_id, lesion_id : str
        As typed, stripped, in Unicode's NFC; never parsed as numbers.
    image_text, mask_text : str
        The paths as typed in the manifest, the mask's empty when not given; `manifest_digest` uses these, so that
        moved data keep their digest.
    roi, series_uid, acquisition : str
        Which ROI, which series, which of several stacks in it; empty when not given.
    label : str
        The major class; empty when unknown (test rows only).
    split : str
        `train`, `val` or `test`; empty until `split.assign_splits` decides.
    center : (float, float, float) or None
        Marked tumour centre, x y z in mm LPS (val and test rows only).
    accept : frozenset of str
        Words of `ACCEPTED`.
    aux : tuple of (str, float)
        Name (without `aux_`) and numeric level of each characteristic, NaN when unknown.
    root : Path
        The manifest's folder, which relative paths are relative to.
    """

    line: int
    patient_id: str
    lesion_id: str
    image_text: str
    mask_text: str = ""
    roi: str = ""
    series_uid: str = ""
    acquisition: str = ""
    label: str = ""
    split: str = ""
    center: tuple[float, float, float] | None = None
    accept: frozenset[str] = frozenset()
    aux: tuple[tuple[str, float], ...] = ()
    root: Path = Path()

    @property
    def image(self) -> Path:
        """Folder with a DICOM series, or a volume file; made when asked for, since a million would fill a gigabyte."""
        return self.root / self.image_text

    @property
    def mask(self) -> Path | None:
        """RTSTRUCT, DICOM SEG, LIDC-IDRI XML or label map."""
        return self.root / self.mask_text if self.mask_text else None


@dataclass(frozen=True)
class Manifest:
    """A manifest without problems.

    Attributes
    ----------
    path : Path
        The CSV file.
    rows : tuple of Row
        Sorted by (patient_id, lesion_id).
    label_classes : tuple of str
        The labels in sorted order.
    aux_levels : mapping of str to (mapping of int to str)
        For each characteristic its numeric levels in increasing order, with their names.
    has_split : bool
        Whether the manifest says which split a row is in; otherwise `split.assign_splits` does.
    notes : tuple of str
        What deserves a line in the report.
    """

    path: Path
    rows: tuple[Row, ...]
    label_classes: tuple[str, ...]
    aux_levels: Mapping[str, Mapping[int, str]]
    has_split: bool
    notes: tuple[str, ...] = ()


def overlap_rule(accept: Set[str]) -> str:
    """The rule that a row accepts for partly overlapping contours: "", "union" or "xor"."""
    return next((word.partition("=")[2] for word in accept if word.startswith("overlap=")), "")


def at_row(row: Row, found: str, do: str, where: str = "") -> InputError:
    """A problem of `row`."""
    return InputError(found, do, where, row.patient_id, row.line)


def manifest_digest(rows: Iterable[Row]) -> str:
    """sha256 (hex) of what the rows say, whatever their order and wherever the manifest lies.

    Per row, sorted by (patient_id, lesion_id), one line of JSON with sorted keys, no spaces, UTF-8 and a final
    newline: `accept` (sorted list), `aux` (object, unknown null), `center` (list or null), `image`, `label`,
    `lesion_id`, `mask`, `patient_id`, `roi`, `series_uid`, `split`; and `acquisition` where it is given. Paths are
    as typed in the manifest with `/` between their parts, so a folder that moves as a whole changes nothing.
    """
    digest = hashlib.sha256()
    for row in sorted(rows, key=lambda row: (row.patient_id, row.lesion_id)):
        values = {
            "accept": sorted(row.accept),
            "aux": {name: None if math.isnan(value) else value for name, value in row.aux},
            "center": row.center,
            "image": _slashes(row.image_text),
            "label": row.label,
            "lesion_id": row.lesion_id,
            "mask": _slashes(row.mask_text),
            "patient_id": row.patient_id,
            "roi": row.roi,
            "series_uid": row.series_uid,
            "split": row.split,
        }
        values |= {"acquisition": row.acquisition} if row.acquisition else {}
        line = json.dumps(values, ensure_ascii=False, allow_nan=False, sort_keys=True, separators=(",", ":"))
        digest.update(line.encode() + b"\n")
    return digest.hexdigest()


def _slashes(typed: str) -> str:
    return posixpath.normpath(typed.replace("\\", "/")) if typed else ""
