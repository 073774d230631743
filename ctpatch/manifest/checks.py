"""What needs every row: splits, labels, patients, lesions, files, the levels of characteristics; and notes on them."""

from __future__ import annotations

import math
import os
import re
import stat
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import groupby, pairwise
from pathlib import Path

from ..errors import InputError
from .rows import SPLITS, Row, at_row
from .table import AUX_PREFIX, Columns, Draft
from .text import DATE, MISSING, NUMBER, is_missing, label_key, patient_key, quoted

LEVELS_MAX = 32
"""Levels an auxiliary characteristic may have; more is a measurement, not a characteristic."""
_SMALL_INTEGER = re.compile(r"([+-]?[0-9]{1,6})(\.0*)?", re.ASCII)  # pandas writes 2.0 when a column has blanks


def split_problems(row: Row, has_split: bool) -> Iterator[InputError]:
    """What a row lacks, or has too much, for its split; without a split column any row may come to train."""
    if has_split and row.split not in SPLITS:
        found = f"split {quoted([row.split])} is not known" if row.split else "split is blank, in other rows it is not"
        yield at_row(row, found, "write train, val or test in every row, or leave the whole column out")
        return
    if row.split in ("", "train"):
        of = "a train row" if row.split else "a row of a manifest without splits (it may come to train)"
        if not row.mask_text:
            yield at_row(row, f"mask is blank in {of}", "give the lesion's contours or mask, or leave the row out")
        if row.center is not None:
            yield at_row(row, f"center is given in {of}", "clear it: it is for val and test rows of a split column")
    elif not row.mask_text and row.center is None:
        yield at_row(row, f"a {row.split} row has neither mask nor center", "give one of them, or leave the row out")
    if row.label.casefold() in MISSING:
        do = "give its class" if row.split != "test" else "give its class, or leave the cell blank"
        yield at_row(row, f"label {quoted([row.label])} means no class", do)
    elif not row.label and row.split != "test":
        yield at_row(row, "label is blank", "give its class (only test rows may have none)")


def label_problems(rows: Sequence[Row]) -> Iterator[InputError]:
    """Labels that are dates, and different labels that look like one class."""
    counts = Counter(row.label for row in rows if not is_missing(row.label))
    first = {row.label: row for row in reversed(rows)}
    groups = defaultdict(list)
    for label, _ in counts.most_common():
        groups[label_key(label)].append(label)
        if DATE.fullmatch(label):
            do = "format the column as text and type the class again"
            yield at_row(first[label], f"label {quoted([label])} is a date", do)
    for alike in (group for group in groups.values() if len(group) > 1):
        shown = ", ".join(f"{quoted([label])} ({counts[label]} rows)" for label in alike[:8])
        yield at_row(first[alike[-1]], f"labels that look like one class: {shown}", "spell each class one way")


def look_alikes(drafts: Sequence[Draft]) -> Iterator[InputError]:
    """Patient ids spelled in different ways that look like one patient; each further spelling once."""
    first: dict[str, Draft] = {}
    told = set()
    for draft in sorted(drafts, key=lambda draft: draft.row.line):
        if not draft.row.patient_id:
            continue
        twin = first.setdefault(patient_key(draft.typed_id), draft)
        if twin.typed_id != draft.typed_id and draft.typed_id not in told:
            told.add(draft.typed_id)
            both = f"{twin.typed_id[:40]!a} (row {twin.row.line}) and {draft.typed_id[:40]!a}"
            yield at_row(draft.row, f"patient ids {both} look like one patient", "spell one patient one way")


def two_splits(rows: Sequence[Row]) -> Iterator[InputError]:
    """Patients in more than one split; rows are sorted by patient."""
    for patient, group in groupby(rows, key=lambda row: row.patient_id):
        first: dict[str, Row] = {}
        for row in sorted(group, key=lambda row: row.line):
            if row.split in SPLITS:
                first.setdefault(row.split, row)
        if patient and len(first) > 1:
            places = " and ".join(f"in {split} (row {row.line})" for split, row in first.items())
            yield at_row(list(first.values())[1], f"the patient is {places}", "keep all rows of a patient in one split")


def doubles(rows: Sequence[Row]) -> Iterator[InputError]:
    """One lesion id twice in a patient, and one lesion under two ids; rows are sorted by patient and lesion."""
    for row, other in pairwise(rows):
        if row.patient_id and (row.patient_id, row.lesion_id) == (other.patient_id, other.lesion_id):
            found = f"lesion_id {quoted([row.lesion_id])} of this patient is also in row {row.line}"
            yield at_row(other, found, "remove one of the rows, or give each lesion its lesion_id")
    first: dict[int, Row] = {}  # by hash: a million paths as keys would fill a gigabyte
    for row in rows:
        if not row.image_text or (not row.mask_text and row.center is None):
            continue
        twin = first.setdefault(hash(_what(row)), row)
        if twin is not row and _what(twin) == _what(row):
            found = f"image, mask, roi, series_uid, acquisition and center are the same as in row {twin.line}"
            yield at_row(row, found, "remove one of the rows, or name the other lesion's roi")


def _what(row: Row) -> tuple[object, ...]:
    """What a lesion is cut from."""
    return row.image, row.mask, row.roi, row.series_uid, row.acquisition, row.center


def file_problems(rows: Sequence[Row], root: Path) -> Iterator[InputError]:
    """Images and masks that are not there or cannot be read; each path is looked at, and told, once."""
    for column in ("image", "mask"):
        typed = [row.image_text if column == "image" else row.mask_text for row in rows]
        uses = Counter(typed)
        faults = {text: _file_fault(os.path.join(root, text), column == "image") for text in uses if text}
        for row, text in zip(rows, typed, strict=True):
            if fault := faults.pop(text, ""):
                used = f" (used by {uses[text]} rows)" if uses[text] > 1 else ""
                do = f"correct the path, or put the {column} there"
                if "\\" in text and os.sep == "/":
                    do = "write / between folders, not \\"
                yield at_row(row, f"{column} {fault}{used}", do, text)


def _file_fault(place: str, folder_allowed: bool) -> str:
    """What keeps a file, or a folder where allowed, from being read; empty when nothing does."""
    try:
        status = os.stat(place)
        if stat.S_ISDIR(status.st_mode):
            with os.scandir(place) as entries:
                empty = next(entries, None) is None
            return "is an empty folder" if empty else "" if folder_allowed else "is a folder, not a file"
        if not stat.S_ISREG(status.st_mode):
            return "is not a regular file"
        with open(place, "rb"):
            return "" if status.st_size else "is an empty file (0 bytes)"
    except (FileNotFoundError, NotADirectoryError):
        return "does not exist"
    except OSError as error:
        return f"cannot be read ({error.strerror})"


# ---------------------------------------------------------------- characteristics


def all_levels(
    columns: Columns, drafts: Sequence[Draft]
) -> tuple[dict[str, dict[int, str]], list[InputError], list[str]]:
    """Levels of every characteristic, with the problems and the notes about its cells."""
    levels: dict[str, dict[int, str]] = {}
    problems, notes = [], []
    for i, name in enumerate(columns.aux):
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


def with_aux(drafts: Sequence[Draft], columns: Columns, levels: Mapping[str, Mapping[int, str]]) -> tuple[Row, ...]:
    """The rows with their characteristics as numbers."""
    numbers = [{name: float(n) for n, name in levels[aux].items()} for aux in columns.aux]

    @lru_cache(maxsize=4096)
    def values(texts: tuple[str, ...]) -> tuple[tuple[str, float], ...]:
        pairs = zip(columns.aux, numbers, texts, strict=True)
        return tuple((aux, of.get(_level_name(text), math.nan)) for aux, of, text in pairs)

    return tuple(replace(draft.row, aux=values(draft.aux)) for draft in drafts)


# ---------------------------------------------------------------- notes


def column_notes(columns: Columns, has_split: bool) -> Iterator[str]:
    """Columns of the file that are not used."""
    if columns.ignored:
        yield f"ignored columns: {quoted(columns.ignored)}"
    if "split" in columns.known and not has_split:
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
