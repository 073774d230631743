"""Numbers in text, by the letter: Python's own `float` and `int` also take 1_000 and digits of other scripts."""

from __future__ import annotations

import re

_DECIMAL = re.compile(r" *[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)? *", re.ASCII)
_WHOLE = re.compile(r" *[+-]?[0-9]{1,18} *", re.ASCII)


def decimal(text: str) -> float:
    """A decimal number; infinite where it is too large for a float.

    Raises
    ------
    ValueError
        When the text is anything else: no number, NaN, several.
    """
    if not _DECIMAL.fullmatch(text):
        raise ValueError(f"{text[:40]!r} is not a decimal number")
    return float(text)


def whole(text: str) -> int:
    """A whole number.

    Raises
    ------
    ValueError
        When the text is anything else.
    """
    if not _WHOLE.fullmatch(text):
        raise ValueError(f"{text[:40]!r} is not a whole number")
    return int(text)
