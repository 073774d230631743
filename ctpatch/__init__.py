"""CT series and radiologists' contours to HDF5 patch stores.

Importing it needs numpy, h5py and pandas only; readers of DICOM and compiled kernels load when they are used.
"""

from .errors import CtpatchError, InputError, Problems
from .store import PatchStore, StoreWriter, open_store

__version__ = "0.1.0"
__all__ = ["CtpatchError", "InputError", "PatchStore", "Problems", "StoreWriter", "__version__", "open_store"]
