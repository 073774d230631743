"""Contours and masks: one door for RTSTRUCT, DICOM SEG, LIDC-IDRI XML and label maps, one module per format."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ..dicom.header import Header, read_header
from ..errors import InputError
from .mask_file import OTHER_PATIENT, ListedROI, MaskFile, patient_notes, patient_of
from .roi import References
from .rtstruct import RT_STRUCTURE_SET, open_rtstruct
from .seg import open_seg
from .seg_file import SEGMENTATION

__all__ = [
    "OTHER_PATIENT",
    "ListedROI",
    "MaskFile",
    "References",
    "is_mask",
    "open_mask",
    "patient_notes",
    "patient_of",
]

_DICOM: dict[str, Callable[[Path, str], MaskFile]] = {
    RT_STRUCTURE_SET: open_rtstruct,
    **dict.fromkeys(SEGMENTATION, open_seg),
}


def open_mask(path: Path) -> MaskFile:
    """Open a file of contours or voxels, whatever its format; what its ROIs hold is read when asked for.

    Raises
    ------
    InputError
        When it is of no known format, or cannot be read.
    """
    from ..images.volume import is_volume_file

    if is_volume_file(path):
        from .labelmap import LabelMap

        return LabelMap(path)
    if path.suffix.lower() == ".xml":
        from .lidc import read_lidc

        return read_lidc(path)
    header = read_header(path)
    if header and (opened := _DICOM.get(header.text("SOPClassUID"))):
        return opened(path, patient_of(header))
    what = f"DICOM of modality {header.text('Modality') or 'unknown'}" if header else "no DICOM file"
    do = "give an RTSTRUCT, DICOM SEG, LIDC-IDRI XML or a NIfTI, NRRD or MHA label map"
    raise InputError(f"the mask is {what}", do, path)


def is_mask(path: Path, header: Header | None) -> bool:
    """Whether a file that lies among others holds contours that name their images, by its header if it is DICOM."""
    from .lidc_xml import is_lidc

    if header is None:
        return path.suffix.lower() == ".xml" and is_lidc(path)
    return header.text("SOPClassUID") in _DICOM
