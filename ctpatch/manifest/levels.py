"""Auxiliary characteristics: the numeric levels of their cells."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache

from ..errors import InputError
from .cells import Draft
from .file import AUX_PREFIX, Header
from .rows import Row, at_row
from .text import DATE, MISSING, NUMBER, is_missing, label_key, quoted

LEVELS_MAX = 32
"""Levels an auxiliary characteristic may have; more is a measurement, not a characteristic."""
_SMALL_INTEGER = re.compile(r"([+-]?[0-9]{1,6})(\.0*)?", re.ASCII)  # pandas writes 2.0 when a column has blanks


def all_levels(
    header: Header, drafts: Sequence[Draft]
) -> tuple[dict[str, dict[int, str]], list[InputError], list[str]]:
    """Levels of every characteristic, with the problems and the notes about its cells."""
    levels: dict[str, dict[int, str]] = {}
    problems, notes = [], []
    for i, name in enumerate(header.aux):
        counts = Counter(draft.aux[i] for draft in drafts)
        levels[name], odd = _levels(list(counts))
        if odd:
            row = next(draft.row for draft in drafts if draft.aux[i] in odd)
            do = f"use small integers ({LEVELS_MAX} levels at most) or two words, and leave unknown cells blank"
            known = (text for text in counts if not is_missing(text))
            problems.append(at_row(row, f"{AUX_PREFIX}{name} is no characteristic: it holds {quoted(known)}", do))
        if unknown := [text for text in counts if text.casefold() in MISSING]:
            cells = sum(counts[text] for text in unknown)
            notes.append(f"{AUX_PREFIX}{name}: {quoted(unknown)} in {cells} cells is read as unknown")
    return levels, problems, notes


def _levels(texts: Iterable[str]) -> tuple[dict[int, str], set[str]]:
    """Levels of one characteristic from its different cells: small integers, or else two words as 0 and 1.

    The second value is what stands in the way of both; empty when nothing does.
    """
    known = sorted(text for text in texts if not is_missing(text))
    words = {text for text in known if not _SMALL_INTEGER.fullmatch(text)}
    if not words:
        numbers = sorted({int(_level_name(text)) for text in known})
        return {n: str(n) for n in numbers}, set(known) if len(numbers) > LEVELS_MAX else set()
    no_words = any(NUMBER.fullmatch(text) or DATE.fullmatch(text) for text in known)
    if no_words or len(known) > 2 or len({label_key(text) for text in known}) < len(known):
        return {}, words
    return dict(enumerate(known)), set()


def _level_name(text: str) -> str:
    """The level's name: an integer without what programs add to it (`2.0`, `+2`, `02`), a word as it is."""
    integer = _SMALL_INTEGER.fullmatch(text)
    return str(int(integer[1])) if integer else text


def with_aux(drafts: Sequence[Draft], header: Header, levels: Mapping[str, Mapping[int, str]]) -> tuple[Row, ...]:
    """The rows with their characteristics as numbers."""
    numbers = [{name: float(n) for n, name in levels[aux].items()} for aux in header.aux]

    @lru_cache(maxsize=4096)
    def values(texts: tuple[str, ...]) -> tuple[tuple[str, float], ...]:
        pairs = zip(header.aux, numbers, texts, strict=True)
        return tuple((aux, of.get(_level_name(text), math.nan)) for aux, of, text in pairs)

    return tuple(replace(draft.row, aux=values(draft.aux)) for draft in drafts)
