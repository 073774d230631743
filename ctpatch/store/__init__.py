"""The patch store: HDF5, readable with plain h5py; written once, by `StoreWriter`, and then only read."""

from ..errors import CtpatchError, InputError, one_line
from ..manifest import SPLITS, guarded, patient_key, unguarded
from ..recipe import WINDOWS
from .card import data_card, flow, markdown, markdown_table
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
    "data_card",
    "flow",
    "guarded",
    "lock",
    "markdown",
    "markdown_table",
    "one_line",
    "open_store",
    "patient_key",
    "replacing",
    "unguarded",
]
