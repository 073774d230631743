"""What a store's bytes depend on besides its inputs: the versions of what made it."""

from __future__ import annotations

import importlib.metadata
import platform
from functools import cache

from ..recipe import ALGORITHM
from ..store.records import COMPRESSION

PACKAGES = ("ctpatch", "numpy", "h5py", "numba", "isal", "pydicom", "nibabel", "SimpleITK", "scipy", "shapely")
"""Whose versions a store records."""


@cache
def versions() -> dict[str, str]:
    """The version of each package, and of Python."""
    return {name: _version(name) for name in PACKAGES} | {"python": platform.python_version()}


def environment() -> dict[str, str]:
    """All of it, to be compared with another process's."""
    made = {"algorithm": ALGORITHM, "compression": " ".join(map(str, COMPRESSION.values()))}
    return made | versions()


def differences(theirs: dict[str, str], ours: dict[str, str]) -> str:
    """Where another environment is not ours; empty when it is."""
    return ", ".join(
        f"{name} {theirs.get(name, 'none')}, not {ours.get(name, 'none')}"
        for name in sorted({*theirs, *ours})
        if theirs.get(name) != ours.get(name)
    )


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "none"
