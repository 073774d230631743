"""numba's compiler for inner loops, also where its cache can be kept nowhere."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba

_uncached: list[str] = []


def compiled(**options: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """`numba.njit` with its cache, or without where no folder for it is writable (package, home, NUMBA_CACHE_DIR).

    numba then raises while it decorates ("no locator available"), as in a container without a home.
    """

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        try:
            made: Callable[..., Any] = numba.njit(cache=True, **options)(function)
        except RuntimeError:
            _uncached.append(function.__name__)
            made = numba.njit(**options)(function)
        return made

    return decorate


def uncached() -> bool:
    """Whether the loops are compiled anew in each process."""
    return bool(_uncached)
