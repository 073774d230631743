"""What a reader of CT images hands on: geometry and identity; pixels only when asked for."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..geometry import SliceStack

AIR = -1024
"""HU of padding and of everything outside the image."""
HU_MAX = 32767
"""HU above this are saturated (the store keeps int16)."""


@dataclass(frozen=True)
class Box:
    """Half-open index ranges (slices, rows, columns) within an image, each as (start, stop)."""

    slices: tuple[int, int]
    rows: tuple[int, int]
    columns: tuple[int, int]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Size as (z, y, x)."""
        return tuple(stop - start for start, stop in (self.slices, self.rows, self.columns))  # type: ignore[return-value]


@dataclass(frozen=True)
class Fault:
    """A part of an image between two positions along the normal (mm) that must not be used, and why."""

    start: float
    stop: float
    error: InputError


@dataclass(frozen=True)
class Person:
    """Who an image is said to be of, as digests; empty where it does not say.

    Attributes
    ----------
    patient : str
        Of PatientID; sets that were made anonymous share some.
    certain : str
        Of PatientID, birth date and sex, where all three are known.
    """

    patient: str = ""
    certain: str = ""


NOBODY = Person()


def patient_digest(patient_id: str) -> str:
    """The digest of a PatientID, as in `Person`; empty where there is none."""
    return hashlib.sha256(patient_id.encode()).hexdigest() if patient_id else ""


class Image(Protocol):
    """A CT image on its own grid."""

    @property
    def stack(self) -> SliceStack:
        """Where the slices lie."""
        ...

    @property
    def uid(self) -> str:
        """SeriesInstanceUID, or a digest for a volume file."""
        ...

    @property
    def frame_of_reference(self) -> str:
        """FrameOfReferenceUID; empty when unknown."""
        ...

    @property
    def sop_uids(self) -> tuple[str, ...]:
        """SOPInstanceUID of each slice in the stack's order; empty for volume files."""
        ...

    @property
    def lossy(self) -> bool:
        """Whether it went through lossy compression."""
        ...

    @property
    def content(self) -> str:
        """Digest of (some of) the pixels as stored: equal for a copy under other identifiers."""
        ...

    @property
    def notes(self) -> tuple[str, ...]:
        """What deserves a line in the report."""
        ...

    @property
    def faults(self) -> tuple[Fault, ...]:
        """Parts that must not be used."""
        ...

    @property
    def person(self) -> Person:
        """Who it is said to be of."""
        ...

    def read_hu(self, box: Box) -> NDArray[np.float32]:
        """HU of a box, float32 (z, y, x): rescaled, padding and anything below at `AIR`, clipped at `HU_MAX`."""
        ...


def refuse_faults(image: Image, low: float, high: float) -> None:
    """Refuse an image that has a fault between two positions along the normal, mm."""
    for fault in image.faults:
        if low < fault.stop and high > fault.start:
            raise fault.error


def clean_hu(hu: NDArray[np.float64], padding: NDArray[np.bool_] | None = None) -> NDArray[np.float32]:
    """HU with padding and values below `AIR` set to `AIR`, and values above `HU_MAX` saturated; float32."""
    if padding is not None:
        hu = np.where(padding, AIR, hu)
    return np.clip(hu, AIR, HU_MAX).astype(np.float32)
