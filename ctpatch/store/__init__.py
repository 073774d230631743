"""The patch store: HDF5, readable with plain h5py; written once, by `StoreWriter`, and then only read."""

from ..errors import CtpatchError, InputError, one_line
from .reader import PatchStore, SplitView, open_store
from .writer import StoreWriter

__all__ = ["CtpatchError", "InputError", "PatchStore", "SplitView", "StoreWriter", "one_line", "open_store"]
