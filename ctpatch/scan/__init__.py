"""From a folder tree of DICOM or LIDC-IDRI to a manifest that needs only labels.

Contours go with the CT series they refer to: by SeriesInstanceUID, else by the images they name, else by the frame of
reference when exactly one CT series of that patient has it. Nothing is guessed beyond that: what cannot be paired, or
not be built from the images present, is left out and said so.

`tree` finds the files, `pairing` makes rows of what `contours` lists in them, `table` writes them.
"""

from .pairing import ScanResult, scan, write_manifest

__all__ = ["ScanResult", "scan", "write_manifest"]
