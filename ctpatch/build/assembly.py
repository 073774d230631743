"""A store in the making: finished lesions in the rows' order, and what there is to say of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import CtpatchError, InputError, Problems, public
from ..images.image import Person
from ..manifest import SPLITS, Manifest, Row, class_notes, manifest_digest
from ..notes import Note
from ..recipe import ALGORITHM, BuildOptions
from ..store.records import COMPRESSION
from ..store.writer import StoreWriter
from .elsewhere import arrived
from .environment import versions
from .parts import FinishedPart, PartsFolder, part_path

UNCACHED = "numba has no folder for its cache, so each process compiles anew: set NUMBA_CACHE_DIR"


@dataclass(frozen=True)
class BuildResult:
    """What a build made.

    Attributes
    ----------
    path : Path
        The store.
    patches : dict of str to int
        Patches per split.
    lesions : int
    computed : int
        Lesions computed in this run; the others were finished before.
    notes : tuple of str
        Lines for the summary.
    skipped : tuple of InputError
        Refused lesions that were left out.
    """

    path: Path
    patches: dict[str, int]
    lesions: int
    computed: int
    notes: tuple[str, ...]
    skipped: tuple[InputError, ...]


@dataclass(frozen=True)
class Outcome:
    """What became of one lesion in a worker, and whether that process had to compile its loops anew."""

    computed: bool = False
    problem: CtpatchError | None = None
    uncached: bool = False


class Assembly:
    """The writer of a store, and the ledger of its lesions.

    Parameters
    ----------
    manifest : Manifest
    rows : tuple of Row
        With their splits, in the manifest's order.
    out : Path
        The store.
    parts : PartsFolder
        The finished lesions.
    options : BuildOptions
    """

    def __init__(self, manifest: Manifest, rows: tuple[Row, ...], out: Path, parts: PartsFolder, options: BuildOptions):
        self.manifest, self.rows, self.parts, self.options = manifest, rows, parts, options
        self.writer = StoreWriter(
            out,
            label_classes=manifest.label_classes,
            aux_levels={name: {float(v): n for v, n in by.items()} for name, by in manifest.aux_levels.items()},
            rgb=options.recipe.rgb,
            temporary=parts.path / "store.tmp",
        )
        self.copies = CopyGuard()
        self.counts = dict.fromkeys(SPLITS, 0)
        self.computed, self.uncached = 0, False
        self.notes: dict[str, list[str]] = {}
        self.special: list[dict[str, Any]] = []
        self.skipped: list[InputError] = []

    def take(self, row: Row, outcome: Outcome) -> None:
        """Add the next row's lesion, or list it as skipped.

        Raises
        ------
        CtpatchError
            The lesion's problem, unless such lesions are skipped.
        """
        self.uncached |= outcome.uncached
        problem = outcome.problem or self._add(row, outcome.computed)
        if problem is None:
            return
        refused = skippable(problem, row, self.manifest.path, self.options)
        self.skipped.append(refused)
        reason = public(f"{refused.found}. Do: {refused.do}.")  # in a store there is no path, name or UID
        self.writer.skip(row.patient_id, row.lesion_id, reason)

    def finish(self) -> BuildResult:
        """Complete the store.

        Raises
        ------
        Problems
            When not one lesion is left.
        """
        if len(self.skipped) == len(self.rows):
            raise Problems(self.skipped)
        self.writer.documents["recipe"] = {**self.options.recipe.document(), "rows": self.special}
        self.writer.documents["provenance"] = _provenance(self.rows, self.options, self.notes)
        self.writer.finish()
        return BuildResult(
            self.writer.path,
            self.counts,
            len(self.rows) - len(self.skipped),
            self.computed,
            self._told(),
            tuple(self.skipped),
        )

    def discard(self) -> None:
        """Drop what was written; finished lesions stay in their folder."""
        self.writer.discard()

    def _add(self, row: Row, computed: bool) -> InputError | None:
        path = part_path(self.parts.path, row)
        part = FinishedPart.load(path, row) or (arrived(path, row) if self.options.scheduler else None)
        if part is None:
            raise CtpatchError(f"patient={row.patient_id} row={row.line}: its finished part cannot be read; run again")
        self.computed += computed or path.name not in self.parts.before  # its worker's answer may have been lost
        if problem := self.copies.problem(row, part.lesion.series, part.content, part.person):
            return problem
        self.writer.add_patches(part.lesion, part.patches)
        self.counts[row.split] += len(part.patches.images["hu"])
        if notes := (*part.notes, *self.copies.notes(row, part.person)):
            self.notes[f"{row.patient_id} {row.lesion_id}"] = list(notes)
        if row.accept or row.center or part.lossy:
            self.special.append(_special(row, part.lossy))
        return None

    def _told(self) -> tuple[str, ...]:
        classes = () if self.manifest.has_split else class_notes(self.rows, self.manifest.label_classes)
        each = (Note(who, note) for who, lines in self.notes.items() for note in lines)
        return (*self.manifest.notes, *classes, *each, *([UNCACHED] if self.uncached else ()))


class CopyGuard:
    """Series, pixels and persons seen so far, by patient: one patient under two ids would leak between splits."""

    def __init__(self) -> None:
        self._owners: dict[str, Row] = {}
        self._told: set[tuple[str, str]] = set()

    def notes(self, row: Row, person: Person) -> Iterator[str]:
        """A note, once, when the images of another patient in another split have the same PatientID."""
        owner = self._owners.setdefault(f"PatientID {person.patient}", row) if person.patient else row
        pair = (owner.patient_id, row.patient_id)
        if owner.patient_id != row.patient_id and owner.split != row.split and pair not in self._told:
            self._told.add(pair)
            yield f"its images have the PatientID of patient={owner.patient_id}, which is in {owner.split}: one person?"

    def problem(self, row: Row, series: str, content: str, person: Person) -> InputError | None:
        """What is wrong when another patient has the same series, or the same pixels under another name.

        Also when another patient in another split has the same PatientID, birth date and sex.
        """
        for key, what in ((series, "series"), (content, "pixels")):
            owner = self._owners.setdefault(key, row)
            if owner.patient_id != row.patient_id:
                found = f"the same {what} as patient={owner.patient_id} row={owner.line}"
                return InputError(found, "give one patient one patient_id", row.image)
        owner = self._owners.setdefault(f"person {person.certain}", row) if person.certain else row
        if owner.patient_id != row.patient_id and owner.split != row.split:
            found = f"PatientID, birth date and sex are those of patient={owner.patient_id} row={owner.line}"
            return InputError(f"{found}, which is in {owner.split}", "give one patient one patient_id", row.image)
        return None


def skippable(problem: CtpatchError, row: Row, manifest_path: Path, options: BuildOptions) -> InputError:
    """A lesion's problem, placed; raised where it ends the build."""
    refused = refusal(problem, row, manifest_path)
    if options.on_error == "stop":
        raise refused
    return refused


def refusal(problem: CtpatchError, row: Row, manifest_path: Path) -> InputError:
    """A lesion's problem, placed; raised where it is none of the lesion's."""
    placed = place_problem(problem, row, manifest_path)
    if not isinstance(placed, InputError):  # a full disk is no refused lesion
        raise placed
    return placed


def place_problem(problem: CtpatchError, row: Row, manifest_path: Path) -> CtpatchError:
    """A lesion's problem with patient, line and a path relative to the manifest."""
    if not isinstance(problem, InputError):
        return problem
    root = manifest_path.absolute().parent
    return problem.at(patient=row.patient_id, row=row.line, where=row.image, root=root)


def _special(row: Row, lossy: bool) -> dict[str, Any]:
    """What the recipe says of a row that accepted something, marked its centre, or came lossily compressed."""
    return {
        "patient_id": row.patient_id,
        "lesion_id": row.lesion_id,
        "accept": sorted(row.accept),
        "center": list(row.center) if row.center else None,
        "lossy": lossy,
    }


def _provenance(rows: tuple[Row, ...], options: BuildOptions, notes: dict[str, list[str]]) -> dict[str, Any]:
    return {
        "algorithm": ALGORITHM,
        "manifest_sha256": manifest_digest(rows),
        "fold": list(options.fold) if options.fold else None,
        "keep_uids": options.keep_uids,
        "compression": COMPRESSION,
        "versions": versions(),
        "notes": notes,
    }
