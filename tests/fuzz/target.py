"""What a fuzz target is, and the rules that every one of them holds ctpatch to."""

from __future__ import annotations

import random
import re
import traceback
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from awkward import assert_told

import ctpatch
from ctpatch.errors import InputError, Problems

_PACKAGE = Path(ctpatch.__file__).parent


class Wrong(AssertionError):
    """ctpatch accepted what it should not have, or made something else of it than an independent reading does."""


@dataclass(frozen=True, eq=False)
class Target:
    """One reader under test.

    Attributes
    ----------
    name : str
    seeds : sequence of bytes
        Sound inputs to begin with.
    mutate : callable
        ``mutate(data, rng)``: other bytes.
    read : callable
        ``read(data)`` gives what ctpatch makes of it, or raises `InputError` where it is refused. Anything else that it
        raises, a warning too, is a find.
    judge : callable
        ``judge(result, data)`` raises `Wrong` when that is not what the input says.
    """

    name: str
    seeds: Sequence[bytes]
    mutate: Callable[[bytes, random.Random], bytes]
    read: Callable[[bytes], Any]
    judge: Callable[[Any, bytes], None]


def accepted(target: Target, data: bytes) -> bool:
    """Whether an input was read; a refusal must be one printable line that says what was found and what to do."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            result = target.read(data)
        except InputError as error:
            for problem in error.problems if isinstance(error, Problems) else (error,):
                assert_told(problem)
            return False
        warnings.simplefilter("ignore")
        try:
            target.judge(result, data)
        except Wrong:
            raise
        except Exception:  # what the independent reading cannot read, it does not judge
            pass
    return True


def place(error: BaseException) -> str:
    """Where and what: equal for two finds that are probably one."""
    every = traceback.extract_tb(error.__traceback__)
    last = ([frame for frame in every if Path(frame.filename).is_relative_to(_PACKAGE)] or every)[-1]
    text = re.sub(r"[0-9.…-]+", "#", str(error).splitlines()[0] if str(error) else "")[:60]
    return f"{type(error).__name__} at {Path(last.filename).name}:{last.name}: {text}"


_DECIMAL = re.compile(r" *[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)? *", re.ASCII)


def decimals(text: str | bytes, separator: str = "\\") -> list[float]:
    """The decimal numbers of a DICOM value (PS3.5, DS and IS), by the letter of the standard but for their length."""
    text = text.decode("latin-1") if isinstance(text, bytes) else text
    parts = text.strip("\0").split(separator)
    if bad := [part for part in parts if not _DECIMAL.fullmatch(part)]:
        raise Wrong(f"{bad[0][:40]!r} was read as a number")
    return [float(part) for part in parts]
