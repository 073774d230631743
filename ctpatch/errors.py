"""The one way in which ctpatch says no: a single clear line, and an exit status."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

MESSAGE_MAX = 400
"""Characters of a message: what lists many things is cut, what to do is not."""
PATH_MAX = 160
FOUND_MIN = 60


class CtpatchError(Exception):
    """Something failed while running; what was finished is kept (exit status 1)."""

    exit_status = 1


class InputError(CtpatchError):
    """The input or the call is wrong (exit status 2).

    Readers raise it knowing only the file; `at` adds the patient and the manifest line on the way up.

    Parameters
    ----------
    found : str
        What was found, with numbers.
    do : str
        One action or flag that helps.
    where : path or str, optional
        The series or file.
    patient : str, optional
        The manifest's patient id.
    row : int, optional
        The manifest's line (the header is line 1).
    kind : str, optional
        A short word that stays the same whatever the wording, such as `cut-off`.
    """

    exit_status = 2

    def __init__(
        self,
        found: str,
        do: str,
        where: str | os.PathLike[str] = "",
        patient: str = "",
        row: int | None = None,
        kind: str = "",
    ):
        self.found, self.do, self.where, self.patient, self.row, self.kind = found, do, where, patient, row, kind
        super().__init__(found, do, where, patient, row, kind)

    def at(
        self,
        *,
        patient: str = "",
        row: int | None = None,
        where: str | os.PathLike[str] = "",
        root: Path | None = None,
    ) -> InputError:
        """The same error with what the caller knows filled in, its path relative to `root`."""
        place = self.where or where
        if root is not None and isinstance(place, os.PathLike):
            place = relative(place, root)
        line = row if self.row is None else self.row
        return type(self)(self.found, self.do, place, self.patient or patient, line, self.kind)

    def __str__(self) -> str:
        head = [f"patient={self.patient}"] if self.patient else []
        head += [f"row={self.row}"] if self.row is not None else []
        head += [shortened(os.fspath(self.where), PATH_MAX, end=True)] if self.where else []
        before, after = " ".join(head) + (": " if head else ""), f". Do: {self.do}."
        return one_line(before + shortened(self.found, MESSAGE_MAX - len(before) - len(after)) + after)


class Unfinished(InputError):
    """A lesion that may be skipped like wrong input, though the machine failed and not the input."""

    exit_status = 1


class Problems(InputError):
    """Several problems of one input, reported together."""

    def __init__(self, problems: Iterable[InputError]):
        self.problems = tuple(problems)
        super().__init__(f"{len(self.problems)} problems", "mend each")
        self.args = (self.problems,)

    def at(self, **known: Any) -> Problems:
        """The same problems, each with what the caller knows filled in; see `InputError.at`."""
        return type(self)(problem.at(**known) for problem in self.problems)

    def __str__(self) -> str:
        return "\n".join(str(problem) for problem in self.problems)


@contextmanager
def located(where: str | os.PathLike[str]) -> Iterator[None]:
    """A block whose `InputError`s get the file or series they are about, where they do not name one."""
    try:
        yield
    except InputError as error:
        raise error.at(where=where) from None


def relative(path: str | os.PathLike[str], root: Path) -> str:
    """`path` as seen from `root` where it lies below it or beside it, so that no home directory is printed."""
    try:
        return os.path.relpath(path, root)
    except ValueError:  # another drive on Windows
        return os.fspath(path)


def shortened(text: str, length: int, *, end: bool = False) -> str:
    """`text` in no more than `length` characters (but at least `FOUND_MIN`): its beginning, or its end."""
    length = max(length, FOUND_MIN)
    if len(text) <= length:
        return text
    return f"…{text[1 - length :]}" if end else f"{text[: length - 1]}…"


def one_line(text: str) -> str:
    """`text` with control characters escaped: input never adds lines or terminal codes to a message."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def short_uid(uid: str) -> str:
    """The end of a UID: enough to tell two apart, and no more of a patient's data than that."""
    return f"…{uid[-12:]}" if len(uid) > 12 else uid or "(none)"


def public(text: str) -> str:
    """`text` as it may stand in a store: what input put into it — quoted or in brackets — and UIDs left out.

    Messages quote names, labels and header text, so that what remains is ctpatch's own words and numbers.
    """
    for pattern in (r"'[^']*'", r'"[^"]*"', r"\([^()]*\)", r"…?[0-9]+(\.[0-9]+){3,}", r"…[0-9.]+"):
        text = re.sub(pattern, "…", text)
    return text
