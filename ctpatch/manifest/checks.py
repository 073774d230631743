"""The checks that need every row: splits, labels, patients, lesions, files."""

from __future__ import annotations

import os
import stat
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from itertools import groupby, pairwise
from pathlib import Path

from ..errors import InputError
from .cells import Draft
from .rows import SPLITS, Row, at_row
from .text import DATE, MISSING, is_missing, label_key, patient_key, quoted


def split_problems(row: Row, has_split: bool) -> Iterator[InputError]:
    """What a row lacks, or has too much, for its split; without a split column any row may come to train."""
    if has_split and row.split not in SPLITS:
        found = f"split {quoted([row.split])} is not known" if row.split else "split is blank, in other rows it is not"
        yield at_row(row, found, "write train, val or test in every row, or leave the whole column out")
        return
    if row.split in ("", "train"):
        of = "a train row" if row.split else "a row of a manifest without splits (it may come to train)"
        if not row.mask_text:
            yield at_row(row, f"mask is blank in {of}", "give the contours or mask of the lesion")
        if row.center is not None:
            yield at_row(row, f"center is given in {of}", "clear it: it is for val and test rows of a split column")
    elif not row.mask_text and row.center is None:
        yield at_row(row, f"a {row.split} row has neither mask nor center", "give one of them")
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
            found = f"image, mask, roi, series_uid and center are the same as in row {twin.line}"
            yield at_row(row, found, "remove one of the rows, or name the other lesion's roi")


def _what(row: Row) -> tuple[object, ...]:
    """What a lesion is cut from."""
    return row.image, row.mask, row.roi, row.series_uid, row.center


def file_problems(rows: Sequence[Row], root: Path) -> Iterator[InputError]:
    """Images and masks that are not there or cannot be read; each path is looked at, and told, once."""
    for column in ("image", "mask"):
        uses = Counter(row.image_text if column == "image" else row.mask_text for row in rows)
        faults = {text: _file_fault(os.path.join(root, text), column == "image") for text in uses if text}
        for row in rows:
            text = row.image_text if column == "image" else row.mask_text
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
