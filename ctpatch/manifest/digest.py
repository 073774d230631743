"""The digest of a manifest's rows."""

from __future__ import annotations

import hashlib
import json
import math
import posixpath
from collections.abc import Iterable

from .rows import Row


def manifest_digest(rows: Iterable[Row]) -> str:
    """sha256 (hex) of what the rows say, whatever their order and wherever the manifest lies.

    Per row, sorted by (patient_id, lesion_id), one line of JSON with sorted keys, no spaces, UTF-8 and a final
    newline: `accept` (sorted list), `aux` (object, unknown null), `center` (list or null), `image`, `label`,
    `lesion_id`, `mask`, `patient_id`, `roi`, `series_uid`, `split`. Paths are as typed in the manifest with `/`
    between their parts, so a folder that moves as a whole changes nothing.
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
        line = json.dumps(values, ensure_ascii=False, allow_nan=False, sort_keys=True, separators=(",", ":"))
        digest.update(line.encode() + b"\n")
    return digest.hexdigest()


def _slashes(typed: str) -> str:
    return posixpath.normpath(typed.replace("\\", "/")) if typed else ""
