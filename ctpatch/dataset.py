"""pydicom, asked quietly: a data set, or one clear line."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import CtpatchError, InputError

if TYPE_CHECKING:
    from pydicom.dataset import Dataset


def read_dataset(path: Path, **options: Any) -> Dataset:
    """`pydicom.dcmread` without its warnings: what matters is checked by the caller and refused.

    Values are parsed when they are first asked for; a caller that asks for more than a few does so within `parsing`.

    Raises
    ------
    InputError
        When the file cannot be read as DICOM.
    """
    import pydicom

    with parsing(path):
        return pydicom.dcmread(path, **options)


@contextmanager
def parsing(path: Path) -> Iterator[None]:
    """A block in which pydicom parses values of `path`: quietly, and what it raises becomes an `InputError`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        except CtpatchError:
            raise
        except OSError as error:
            found = f"cannot be read ({error.strerror or 'cut off'})"
            raise InputError(found, "mend the file's permissions or copy it again", path) from error
        except Exception as error:  # in garbage, pydicom raises whatever its parser meets
            raise InputError("not readable as DICOM", "copy the file again from its source", path) from error
