"""The patch store: HDF5, readable with plain h5py; written once, by `StoreWriter`, and then only read."""

from ..errors import CtpatchError, InputError, one_line
from ..manifest import SPLITS, guarded, patient_key, unguarded
from ..recipe import WINDOWS
from .disk import lock, replacing
from .reader import PatchStore, SplitView, open_store
from .writer import StoreWriter

__all__ = [
    "SPLITS",
    "WINDOWS",
    "CtpatchError",
    "InputError",
    "PatchStore",
    "SplitView",
    "StoreWriter",
    "guarded",
    "lock",
    "one_line",
    "open_store",
    "patient_key",
    "replacing",
    "unguarded",
]
