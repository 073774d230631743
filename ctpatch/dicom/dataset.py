"""pydicom, asked quietly: a data set, or one clear line."""

from __future__ import annotations

import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import CtpatchError, InputError

if TYPE_CHECKING:
    from pydicom.dataset import Dataset
    from pydicom.uid import UID

MAX_INFLATED = 2**29
"""Bytes that a file of the Deflated transfer syntax may inflate to: a thousand slices of 512 × 512."""
DEFLATED = "1.2.840.10008.1.2.1.99"
_PIECE = 2**20


def read_dataset(path: Path, **options: Any) -> Dataset:
    """`pydicom.dcmread` without its warnings: what matters is checked by the caller and refused.

    Values are parsed when they are first asked for; a caller that asks for more than a few does so within `parsing`.

    Raises
    ------
    InputError
        When the file cannot be read as DICOM, or would inflate to more than `MAX_INFLATED` bytes.
    """
    import pydicom

    with parsing(path), open(path, "rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as view:
        # a plain file would make room for the 4 GB that a garbled length asks for, a map gives what there is
        _refuse_bomb(view)
        view.seek(0)
        return pydicom.dcmread(view, **options)  # type: ignore[arg-type]


def uid_of(text: str) -> UID:
    """A text as a UID, quietly also where it is none."""
    from pydicom.config import IGNORE
    from pydicom.uid import UID

    return UID(text, validation_mode=IGNORE)


@contextmanager
def parsing(path: Path) -> Iterator[None]:
    """A block in which pydicom parses values of `path`: quietly, and what it raises becomes an `InputError`.

    An `InputError` from within gets the path, where it has none.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        except InputError as error:
            raise error.at(where=path) from None
        except (CtpatchError, MemoryError):
            raise
        except OSError as error:
            found = f"cannot be read ({error.strerror or 'cut off'})"
            raise InputError(found, "mend the file's permissions or copy it again", path) from error
        except Exception as error:  # in garbage, pydicom raises whatever its parser meets
            found = f"not readable as DICOM ({type(error).__name__})"
            raise InputError(found, "copy the file again from its source", path) from error


def _refuse_bomb(file: mmap) -> None:
    """Count what a deflated data set inflates to, piece by piece: pydicom inflates all of it at once."""
    from pydicom.filereader import read_dataset as read_elements

    if file.read(132)[128:] != b"DICM":
        file.seek(0)
    meta = read_elements(file, False, True, stop_when=lambda tag, vr, length: tag >> 16 != 2)  # type: ignore[arg-type]
    if meta.get("TransferSyntaxUID") != DEFLATED:
        return
    stream, size = zlib.decompressobj(wbits=-zlib.MAX_WBITS), 0
    while size <= MAX_INFLATED and (piece := stream.unconsumed_tail or file.read(_PIECE)):
        size += len(stream.decompress(piece, _PIECE))
    if size > MAX_INFLATED:
        found = f"its deflated data set inflates to more than {MAX_INFLATED >> 20} MB"
        raise InputError(found, "convert it to an uncompressed transfer syntax")
