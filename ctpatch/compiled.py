"""numba's compiler for inner loops, also where its cache can be kept nowhere."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numba
from numba.core.caching import FunctionCache
from numba.core.runtime.nrt import rtsys

_uncached: list[str] = []


def compiled(**options: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """`numba.njit` with its cache, or without where no folder for it is writable (package, home, NUMBA_CACHE_DIR).

    numba then raises while it decorates ("no locator available"), as in a container without a home.
    """

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        made: Any = numba.njit(**options)(function)
        try:
            made._cache = _Cache(function)
        except RuntimeError:
            _uncached.append(function.__name__)
        return made

    return decorate


def vectorized(signature: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """`numba.vectorize` of one signature, likewise; it compiles, or loads, while it decorates."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        made: Callable[..., Any]
        try:
            made = numba.vectorize([signature], cache=True)(function)
        except Exception:  # of the cache, or what comes again
            made = numba.vectorize([signature])(function)
        return made

    return decorate


class _Cache(FunctionCache):
    """A cache whose faults are not the caller's: what is damaged is compiled anew, what has no room is not kept.

    numba 0.68.1 raises EOFError or UnpicklingError for files that were cut off, and the OSError of a full disk.
    """

    def load_overload(self, signature: Any, target: Any) -> Any:
        with suppress(Exception):  # without numba's declarations of all that it can compile, which take half a second
            rtsys.initialize(target)
            return self._load_overload(signature, target)
        try:
            return super().load_overload(signature, target)
        except Exception:
            with suppress(OSError):
                self.flush()
            return None

    def save_overload(self, signature: Any, data: Any) -> None:
        try:
            super().save_overload(signature, data)
        except OSError:
            _uncached.append(self._name)


def uncached() -> bool:
    """Whether the loops are compiled anew in each process."""
    return bool(_uncached)
