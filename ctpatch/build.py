"""From a manifest to a store: lesions in parallel, one writer, and nothing lost when it is interrupted."""

from __future__ import annotations

import importlib.metadata
import json
import platform
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from .errors import CtpatchError, InputError, Problems
from .lesion import cut_lesion, plan_lesion
from .manifest import Manifest, Row, class_notes, manifest_digest, read_manifest
from .recipe import ALGORITHM, Recipe
from .shards import PartsFolder, inputs_digest, read_shard, shard_path, write_shard
from .split import assign_splits
from .store.writer import StoreWriter

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class BuildOptions:
    """How a store is built.

    Attributes
    ----------
    recipe : Recipe
        What shapes the pixels.
    jobs : int
        Worker processes.
    fold : (int, int) or None
        (i, k): the i-th of k cross-validation splits.
    on_error : {"stop", "skip"}
        What a refused lesion does to the others.
    keep_uids : bool
        Whether series are kept by UID instead of by digest.
    """

    recipe: Recipe = field(default_factory=Recipe)
    jobs: int = 1
    fold: tuple[int, int] | None = None
    on_error: str = "stop"
    keep_uids: bool = False


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
    skipped: tuple[CtpatchError, ...]


@dataclass(frozen=True)
class Outcome:
    """What became of one lesion in a worker."""

    computed: bool = False
    problem: CtpatchError | None = None


def build(manifest_path: Path, out: Path, options: BuildOptions, progress: Progress | None = None) -> BuildResult:
    """Build a patch store.

    Parameters
    ----------
    manifest_path : Path
        The manifest (CSV).
    out : Path
        The store; it appears there only when it is complete.
    options : BuildOptions
    progress : callable, optional
        Called after each lesion with how many are done, how many there are, and a word on the last.

    Raises
    ------
    InputError
        When the manifest or a lesion is wrong (the latter with `on_error="stop"`).
    CtpatchError
        When something failed while running; finished lesions are kept.
    """
    manifest = read_manifest(manifest_path)
    rows = split_rows(manifest, options.recipe.seed, options.fold)
    folder = parts_folder(manifest_path, out, options)
    if not out.absolute().parent.is_dir():
        raise InputError("the folder of --out does not exist", "make it first", out)
    parts = PartsFolder(folder, _plan(manifest, options))
    try:
        result = _build_parts(manifest, rows, out, parts.path, options, progress)
    except BaseException:
        parts.release()
        raise
    if options.fold:
        parts.release()  # the next fold reuses them
    else:
        parts.remove()
    return result


def split_rows(manifest: Manifest, seed: int, fold: tuple[int, int] | None) -> tuple[Row, ...]:
    """Rows with their splits: the manifest's own, or assigned."""
    try:
        return manifest.rows if manifest.has_split and not fold else assign_splits(manifest.rows, seed=seed, fold=fold)
    except InputError as error:
        raise error.at(where=manifest.path.name) from None


def parts_folder(manifest_path: Path, out: Path, options: BuildOptions) -> Path:
    """Where finished lesions lie: beside the store, or for folds, which share them, beside the first store."""
    return out.with_name(f"{manifest_path.stem}.folds.parts" if options.fold else f"{out.name}.parts")


def _plan(manifest: Manifest, options: BuildOptions) -> dict[str, Any]:
    """What finished lesions depend on; a build goes on only under the same plan."""
    rows = (replace(row, split="") for row in manifest.rows) if options.fold else manifest.rows
    return {**options.recipe.document(), "keep_uids": options.keep_uids, "manifest": manifest_digest(rows)}


def _build_parts(
    manifest: Manifest,
    rows: tuple[Row, ...],
    out: Path,
    parts: Path,
    options: BuildOptions,
    progress: Progress | None,
) -> BuildResult:
    aux_levels = {name: {float(v): n for v, n in by.items()} for name, by in manifest.aux_levels.items()}
    writer = StoreWriter(
        out,
        label_classes=manifest.label_classes,
        aux_levels=aux_levels,
        rgb=options.recipe.rgb,
        temporary=parts / "store.tmp",
    )
    notes: dict[str, list[str]] = {}
    skipped: list[CtpatchError] = []
    seen = CopyGuard()
    counts = dict.fromkeys(("train", "val", "test"), 0)
    computed = 0
    try:
        for done, (row, outcome) in enumerate(_run(rows, parts, options), start=1):
            computed += outcome.computed
            problem = outcome.problem
            if problem is None:
                lesion, patches, about = _finished(row, parts)
                problem = seen.problem(row, about["series"], about["content"])
            if problem is not None:
                problem = place_problem(problem, row, manifest.path)
                if options.on_error == "stop":
                    raise problem
                skipped.append(problem)
                writer.skip(row.patient_id, row.lesion_id, _reason(problem))
            else:
                writer.add_patches(lesion, patches)
                counts[row.split] += len(patches.images["hu"])
                if about["notes"]:
                    notes[f"{row.patient_id} {row.lesion_id}"] = about["notes"]
            if progress:
                progress(done, len(rows), f"patient={row.patient_id} lesion={row.lesion_id}")
        if len(skipped) == len(rows):
            raise Problems([p for p in skipped if isinstance(p, InputError)] or [InputError("no lesion", "add one")])
        writer.documents["recipe"] = _recipe_document(rows, options)
        writer.documents["provenance"] = _provenance(rows, options, notes)
        writer.finish()
    except BaseException:
        writer.discard()
        raise
    told = manifest.notes if manifest.has_split else (*manifest.notes, *class_notes(rows, manifest.label_classes))
    told += tuple(f"{who}: {note}" for who, lines in notes.items() for note in lines)
    return BuildResult(out, counts, len(rows) - len(skipped), computed, told, tuple(skipped))


def _run(rows: tuple[Row, ...], parts: Path, options: BuildOptions) -> Iterator[tuple[Row, Outcome]]:
    """Each row's outcome in the rows' order, while workers are busy with the following ones."""
    from joblib import Parallel, delayed
    from joblib.externals.loky.process_executor import TerminatedWorkerError

    tasks: Iterable[Any] = (delayed(_work)(row, parts, options.recipe, options.keep_uids) for row in rows)
    outcomes = Parallel(n_jobs=options.jobs, return_as="generator", batch_size=1, max_nbytes=None)(tasks)
    try:
        yield from zip(rows, outcomes, strict=True)
    except TerminatedWorkerError as error:
        found = "a worker process was killed (out of memory?); finished lesions are kept"
        raise CtpatchError(f"{found}: run the same command again, with fewer --jobs") from error
    finally:
        outcomes.close()


def _work(row: Row, parts: Path, recipe: Recipe, keep_uids: bool) -> Outcome:
    """One lesion, unless it is finished already."""
    path = shard_path(parts, row)
    try:
        inputs = inputs_digest(row)
        finished = read_shard(path, row)
        if finished is not None:
            before = finished[2]["inputs"]
            if before != inputs:
                found = f"files changed since this lesion was finished (digest {before[:12]}…, now {inputs[:12]}…)"
                raise InputError(found, f"remove {parts.name} to begin anew", row.image)
            return Outcome()
        plan = plan_lesion(row, recipe)
        lesion, patches, notes = cut_lesion(plan, recipe, keep_uid=keep_uids)
        about = {
            "inputs": inputs,
            "notes": [*plan.notes, *notes],
            "series": lesion.series,
            "content": plan.image.content,
        }
        write_shard(path, lesion, patches, about)
    except CtpatchError as problem:
        return Outcome(problem=problem)
    except MemoryError:
        return Outcome(
            problem=CtpatchError(f"patient={row.patient_id} row={row.line}: out of memory; use fewer --jobs")
        )
    return Outcome(computed=True)


def _finished(row: Row, parts: Path) -> Any:
    finished = read_shard(shard_path(parts, row), row)
    if finished is None:
        raise CtpatchError(f"patient={row.patient_id} row={row.line}: its finished part cannot be read; run again")
    return finished


class CopyGuard:
    """Series and pixels seen so far, by patient: one patient under two ids would leak between splits."""

    def __init__(self) -> None:
        self._owners: dict[str, Row] = {}

    def problem(self, row: Row, series: str, content: str) -> InputError | None:
        """What is wrong when another patient has the same series, or the same pixels under another name."""
        for key, what in ((series, "series"), (content, "pixels")):
            owner = self._owners.setdefault(key, row)
            if owner.patient_id != row.patient_id:
                found = f"the same {what} as patient={owner.patient_id} row={owner.line}"
                return InputError(found, "give one patient one patient_id", row.image)
        return None


def place_problem(problem: CtpatchError, row: Row, manifest_path: Path) -> CtpatchError:
    """A lesion's problem with patient, line and a path relative to the manifest."""
    if not isinstance(problem, InputError):
        return problem
    root = manifest_path.absolute().parent
    return problem.at(patient=row.patient_id, row=row.line, where=row.image, root=root)


def _reason(problem: CtpatchError) -> str:
    """Why a lesion was left out, without the path, which may name a patient."""
    return f"{problem.found}. Do: {problem.do}." if isinstance(problem, InputError) else str(problem)


def _recipe_document(rows: tuple[Row, ...], options: BuildOptions) -> dict[str, Any]:
    """The recipe, and what single rows accepted or marked."""
    special = [
        {
            "patient_id": row.patient_id,
            "lesion_id": row.lesion_id,
            "accept": sorted(row.accept),
            "center": list(row.center) if row.center else None,
        }
        for row in rows
        if row.accept or row.center
    ]
    return {**options.recipe.document(), "rows": special}


def _provenance(rows: tuple[Row, ...], options: BuildOptions, notes: dict[str, list[str]]) -> dict[str, Any]:
    packages = ("ctpatch", "numpy", "h5py", "numba", "isal", "pydicom", "scipy", "shapely")
    return {
        "algorithm": ALGORITHM,
        "manifest_sha256": manifest_digest(rows),
        "fold": list(options.fold) if options.fold else None,
        "keep_uids": options.keep_uids,
        "versions": {name: importlib.metadata.version(name) for name in packages}
        | {"python": platform.python_version()},
        "notes": json.loads(json.dumps(notes)),
    }
