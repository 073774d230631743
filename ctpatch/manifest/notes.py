"""What a manifest's report tells: columns that are ignored, lesions per class."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from .file import Header
from .levels import LEVELS_MAX
from .rows import SPLITS, Row
from .text import quoted


def header_notes(header: Header, has_split: bool) -> Iterator[str]:
    """Columns of the file that are not used."""
    if header.ignored:
        yield f"ignored columns: {quoted(header.ignored)}"
    if "split" in header.known and not has_split:
        yield "the split column is blank in every row: splits are assigned as if it were not there"


def class_notes(rows: Sequence[Row], classes: Sequence[str]) -> tuple[str, ...]:
    """Lesions per class in every split (or in all rows, before splits are assigned), and what is absent.

    Parameters
    ----------
    rows : sequence of Row
        All with a split, or all without.
    classes : sequence of str
        The labels of the whole manifest.
    """
    splits = SPLITS if any(row.split for row in rows) else ("",)
    return tuple(_class_note(split, [row for row in rows if row.split == split], classes) for split in splits)


def _class_note(split: str, rows: Sequence[Row], classes: Sequence[str]) -> str:
    counts = Counter(row.label for row in rows)
    shown = [f"{name} {counts[name]}" for name in classes[:LEVELS_MAX] if counts[name]]
    shown += [f"no label {counts['']}"] if counts[""] else []
    note = f"{split or 'all rows'}: {len({row.patient_id for row in rows})} patients, {len(rows)} lesions"
    note += f" ({', '.join(shown)})" if shown else ""
    present = [name for name in classes if counts[name]]
    if len(present) == 1:
        return f"{note}; one class only"
    absent = [name for name in classes if not counts[name]]
    return f"{note}; none of class {quoted(absent)}" if present and absent else note
