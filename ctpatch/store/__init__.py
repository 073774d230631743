"""The patch store: HDF5, readable with plain h5py; written once, by `StoreWriter`, and then only read."""

from .reader import PatchStore, SplitView, open_store
from .writer import StoreWriter

__all__ = ["PatchStore", "SplitView", "StoreWriter", "open_store"]
