"""The patch store: HDF5, readable with plain h5py; written once, by `StoreWriter`, and then only read."""

from ..errors import CtpatchError, InputError, one_line
from ..manifest import SPLITS, guarded, patient_key, unguarded
from ..patches.rendering import IMAGENET, Normalisation, Rendering, Windows
from ..recipe import WINDOWS
from .card import data_card, flow, markdown, markdown_table
from .disk import lock, replacing, unlock
from .pictures import network_input
from .reader import PatchStore, open_store
from .views import SplitView
from .writer import StoreWriter

__all__ = [
    "IMAGENET",
    "SPLITS",
    "WINDOWS",
    "CtpatchError",
    "InputError",
    "Normalisation",
    "PatchStore",
    "Rendering",
    "SplitView",
    "StoreWriter",
    "Windows",
    "data_card",
    "flow",
    "guarded",
    "lock",
    "markdown",
    "markdown_table",
    "network_input",
    "one_line",
    "open_store",
    "patient_key",
    "replacing",
    "unguarded",
    "unlock",
]
