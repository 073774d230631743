"""What is said of many lesions, said once."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

_SHOWN = 3


class Note(str):
    """A line about one lesion: who it is, and what there is to say.

    Attributes
    ----------
    who, what : str
    """

    __slots__ = ("what", "who")

    who: str
    what: str

    def __new__(cls, who: str, what: str) -> Note:
        """The line is `who: what`."""
        line = super().__new__(cls, f"{who}: {what}")
        line.who, line.what = who, what
        return line


def gathered(notes: Iterable[str]) -> Iterator[str]:
    """Lines in the order of their first: one for all lesions of which the same is said, but for numbers."""
    groups: dict[str, list[str]] = {}
    for note in notes:
        key = re.sub(r"\d[\d.,]*", "#", note.what) if isinstance(note, Note) else f" {note}"
        groups.setdefault(key, []).append(note)
    for group in groups.values():
        yield _together(group)


def _together(group: list[str]) -> str:
    first = group[0]
    if len(group) == 1 or not isinstance(first, Note):
        return first
    lesions = list(dict.fromkeys(note.who for note in group if isinstance(note, Note)))
    alike = all(isinstance(note, Note) and note.what == first.what for note in group)
    if len(lesions) == 1:
        who = f"{lesions[0]}, {len(group)} times"
    else:
        more = ", …" if len(lesions) > _SHOWN else ""
        who = f"{len(lesions)} lesions ({', '.join(lesions[:_SHOWN])}{more})"
    return f"{who}{'' if alike else ', with these numbers the first'}: {first.what}"
