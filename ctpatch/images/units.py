"""What DICOM says of an image's unit: maps that are sent as CT images and hold no HU."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..dicom.dataset import parsing, read_dataset
from ..dicom.header import Header
from ..errors import InputError

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

MAPS = frozenset(
    {"IODINE", "MAT_SPECIFIC", "MAT_FRACTIONAL", "MAT_VALUE_BASED", "EFF_ATOMIC_NUM", "ELECTRON_DENSITY", "ZEFF", "RHO"}
    | {"CBF", "CBV", "RCBF", "RCBV", "MTT", "TTP", "TMAX", "T_TEST", "Z_SCORE", "STD_DEVIATION", "VELOCITY"}
    | {"ADDITION", "SUBTRACTION", "MULTIPLICATION", "DIVISION"}
)
"""Values of ImageType and FrameType of maps (PS3.3 C.8.15.2.1.1, C.8.16.1, C.8.19.2), and names that scanners add."""
_HOUNSFIELD = ("[HNSF'U]", "HU", "HOUNSFIELD UNIT")
MAPPING = "RealWorldValueMappingSequence"
LOST_INTERCEPT = "look like HU + 1024 (air at 0 to 200, tissue about 1050)"
ACCEPT = "give the series in HU, or put units into the column accept"


def check_units(header: Header, kind: str, types: Iterable[str] = (), mapped: Iterable[str] = ()) -> None:
    """Refuse an image whose header says that its values are not HU.

    Parameters
    ----------
    header : Header
    kind : str
        RescaleType.
    types : iterable of str
        Values of FrameType, beside the header's ImageType.
    mapped : iterable of str
        Units of its RealWorldValueMappingSequence.

    Raises
    ------
    InputError
    """
    words = _words(header.text("ImageType")).union(word.strip().upper() for word in types)
    derived = "DERIVED" in words
    if not _is_hu(kind, derived=derived):
        raise InputError(f"RescaleType is {kind!r}, not HU", ACCEPT, header.path, kind="units")
    maps = (words & MAPS) | ({"PERFUSION"} & words if derived else set())
    if maps:
        found = f"ImageType or FrameType says {', '.join(sorted(maps))}: a map, not HU"
        raise InputError(found, ACCEPT, header.path, kind="units")
    units = tuple(mapped)
    if units and not any(unit.upper() in _HOUNSFIELD for unit in units):
        found = f"{MAPPING} gives {', '.join(map(repr, units[:3]))}, not HU"
        raise InputError(found, ACCEPT, header.path, kind="units")


@lru_cache
def _words(text: str) -> frozenset[str]:
    """The values of an ImageType, of which a series has few."""
    return frozenset(word.strip().upper() for word in text.split("\\"))


def has_lost_intercept(hu: NDArray[np.floating]) -> bool:
    """Whether a slice is a CT's in HU + 1024: air at 0 to 200 and soft tissue about 1,050, and little in between.

    Both are a tenth of the slice or more, and three times as frequent per HU as what lies between. In HU, a tenth of a
    patient between 874 and 1,174 would be dense bone, and 0 to 200 soft tissue.
    """
    air, between, tissue = (np.mean((low <= hu) & (hu < high)) for low, high in ((0, 200), (300, 800), (874, 1174)))
    return bool(min(air, tissue) >= 0.1 and min(air / 200, tissue / 300) >= 3 * between / 500)


def _is_hu(kind: str, *, derived: bool) -> bool:
    """Whether a RescaleType is HU, or says nothing; US (unspecified) is how old scanners name an original's HU."""
    kind = kind.upper()
    return kind in ("", "HU", "HU_MOD") or kind.startswith("HOUNSFIELD") or (kind == "US" and not derived)


def mapped_units(*places: Dataset | None) -> tuple[str, ...]:
    """The units of the real world value mappings in data sets (an image, or its functional groups)."""
    items = [item for place in places if place is not None for item in place.get(MAPPING) or ()]
    codes = [code for item in items for code in item.get("MeasurementUnitsCodeSequence") or ()]
    return tuple(dict.fromkeys(str(code.get("CodeValue", "")) for code in codes))


def units_of(header: Header) -> tuple[str, ...]:
    """The units of a single-frame image's real world value mappings."""
    if MAPPING not in header.values:
        return ()
    with parsing(header.path):
        return mapped_units(read_dataset(header.path, stop_before_pixels=True, force=True))
