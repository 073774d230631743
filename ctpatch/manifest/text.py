"""Cell texts: which are numbers, dates or no value, which are alike, how a message shows them."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

MISSING = frozenset(("na", "n/a", "#n/a", "#na", "n.a.", "<na>", "nan", "-nan", "none", "null"))
"""How programs and people write "no value" (casefolded): the words pandas reads as NaN, and `n.a.`."""
NUMBER = re.compile(r"[+-]?([0-9]+[.,]?[0-9]*|[.,][0-9]+)(e[+-]?[0-9]+)?", re.IGNORECASE | re.ASCII)
SHORTENED = re.compile(r"[0-9]([.,][0-9]+)?[Ee]\+[0-9]{2,}")
"""A number as spreadsheets show what has too many digits: others of the same first digits have become the same."""
FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""What a spreadsheet takes for the beginning of a formula, and runs (CWE-1236)."""
_SHOWN = 8
_LEADING_ZEROS = re.compile(r"(?<![0-9])0+(?=[0-9])")
_MONTH = "(jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)"
DATE = re.compile(
    rf"[0-9]{{1,2}}-{_MONTH}(-[0-9]{{2,4}})?|{_MONTH}-[0-9]{{1,4}}"  # what spreadsheets make of 2-3 and 3-2
    r"|[0-9]{4}-[0-9]{2}-[0-9]{2}( [0-9:.]+)?|[0-9]{1,2}(?P<mark>[./])[0-9]{1,2}(?P=mark)[0-9]{2,4}",
    re.IGNORECASE,
)


def is_missing(text: str) -> bool:
    """Whether a cell is blank or says that there is no value."""
    return not text or text.casefold() in MISSING


def label_key(label: str) -> str | float:
    """Equal for labels that a person would take for one class: by letter case, Unicode form, spaces, or as numbers."""
    if NUMBER.fullmatch(label):
        return float(label.replace(",", "."))
    return " ".join(unicodedata.normalize("NFKC", label).casefold().split())


def patient_key(typed: str) -> str:
    """Equal for ids that differ in letter case, Unicode form, invisible characters or leading zeros only."""
    folded = unicodedata.normalize("NFKC", typed).casefold().strip()
    if not folded.isascii():
        folded = "".join(c for c in folded if unicodedata.category(c) != "Cf")
    return _LEADING_ZEROS.sub("", folded)


def guarded(text: str) -> str:
    """`text` as a cell that no spreadsheet runs: an apostrophe before what begins like a formula; see `unguarded`."""
    return f"'{text}" if text.lstrip("'").startswith(FORMULA) else text


def unguarded(text: str) -> str:
    """The text that `guarded` made a cell of."""
    return text[1:] if text.startswith("'") and text.lstrip("'").startswith(FORMULA) else text


def quoted(texts: Iterable[str]) -> str:
    """Cell texts for a message: quoted, each cut at 40 characters, no more than `_SHOWN` of them."""
    texts = list(texts)
    shown = [f"'{text if len(text) <= 40 else text[:40] + '…'}'" for text in texts[:_SHOWN]]
    return ", ".join(shown) + (f" and {len(texts) - _SHOWN} more" if len(texts) > _SHOWN else "")
