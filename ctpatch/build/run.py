"""From a manifest to a store: lesions in parallel, one writer, and nothing lost when it is interrupted."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Generator
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..errors import CtpatchError, InputError, Unfinished, located, public
from ..manifest import Manifest, Row, manifest_digest, read_manifest
from ..manifest.split import assign_splits
from ..processes import Call, WorkerDied
from ..recipe import BuildOptions, Recipe
from ..store.records import COMPRESSION
from ..store.verify import is_store
from .assembly import Assembly, BuildResult, Outcome, skippable
from .elsewhere import NEW_S, check_files, check_ticket, ticket
from .engine import runner
from .one_lesion import cut_lesion, plan_lesion
from .parts import FinishedPart, PartsFolder, bytes_to_write, inputs_digest, part_path
from .shards import Shard, ShardResult, SharedParts

__all__ = ["BuildOptions", "BuildResult", "Shard", "ShardResult", "build", "build_shard", "split_rows"]

SPACE = 1.2
"""Free space that a build wants, as a multiple of what it is expected to write."""

Progress = Callable[[int, int, str], None]


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
    manifest, rows, parts = _open(manifest_path, out, options, PartsFolder)
    try:
        _check_space(bytes_to_write(parts.path, rows, options.recipe), out)
        result = _assemble(Assembly(manifest, rows, out, parts, options), progress)
    except BaseException:
        parts.abandon()
        raise
    if options.fold:
        parts.release()  # the next fold reuses them
    else:
        parts.remove()
    return result


def build_shard(
    manifest_path: Path, out: Path, shard: Shard, options: BuildOptions, progress: Progress | None = None
) -> ShardResult:
    """Compute a share of a build's lesions, for a `build` that puts the store together when all shards have ended.

    Parameters and errors are those of `build`; shards of one store may run at the same time, on any machines that see
    its folder.
    """
    manifest, rows, parts = _open(manifest_path, out, options, SharedParts)
    skipped: list[InputError] = []
    computed, own = 0, shard.of(rows)
    try:
        _check_space(bytes_to_write(parts.path, rows, options.recipe), out)
        with contextlib.closing(_run(own, parts.path, options)) as outcomes:
            for done, (row, outcome) in enumerate(outcomes, start=1):
                computed += outcome.computed
                if outcome.problem:
                    skipped.append(skippable(outcome.problem, row, manifest.path, options))
                if progress:
                    progress(done, len(own), f"patient={row.patient_id} lesion={row.lesion_id}")
    finally:
        parts.release()
    return ShardResult(parts.path, len(own) - len(skipped), computed, tuple(skipped))


def _open(
    manifest_path: Path, out: Path, options: BuildOptions, folder: type[PartsFolder]
) -> tuple[Manifest, tuple[Row, ...], PartsFolder]:
    """The manifest, its rows with their splits, and the folder of finished lesions."""
    manifest = read_manifest(manifest_path)
    rows = split_rows(manifest, options.recipe.seed, options.fold)
    _check_out(out)
    place, plan = parts_folder(manifest_path, out, options), _plan(manifest, options)
    return manifest, rows, folder(place, plan, locked=options.lock)


def _check_out(out: Path) -> None:
    """Refuse to put a store where it cannot be, or where something other than a store lies."""
    if not out.absolute().parent.is_dir():
        raise InputError("the folder of --out does not exist", "make it first", out)
    if out.is_dir() or (out.exists() and not is_store(out)):
        raise InputError("--out exists and is no ctpatch store", "give another --out, or remove it", out)


def _check_space(needed: int, out: Path) -> None:
    """Refuse to begin what will not fit."""
    free = shutil.disk_usage(out.absolute().parent).free
    if free < SPACE * needed:
        found = f"about {needed / 1e6:.1f} MB are still to be written, and {free / 1e6:.1f} MB are free"
        do = f"make {SPACE * needed / 1e6:.1f} MB free, give another --out, or fewer --patches, or --no-rgb"
        raise InputError(found, do, out)


def split_rows(manifest: Manifest, seed: int, fold: tuple[int, int] | None) -> tuple[Row, ...]:
    """Rows with their splits: the manifest's own, or assigned."""
    with located(manifest.path.name):
        return manifest.rows if manifest.has_split and not fold else assign_splits(manifest.rows, seed=seed, fold=fold)


def parts_folder(manifest_path: Path, out: Path, options: BuildOptions) -> Path:
    """Where finished lesions lie: beside the store, or for folds, which share them, beside the first store."""
    return out.with_name(f"{manifest_path.stem}.folds.parts" if options.fold else f"{out.name}.parts")


def _plan(manifest: Manifest, options: BuildOptions) -> dict[str, Any]:
    """What finished lesions depend on; a build goes on only under the same plan."""
    rows = (replace(row, split="") for row in manifest.rows) if options.fold else manifest.rows
    chosen = {"keep_uids": options.keep_uids, "compression": COMPRESSION}
    return {**options.recipe.document(), **chosen, "manifest": manifest_digest(rows)}


def _assemble(assembly: Assembly, progress: Progress | None) -> BuildResult:
    """Write the store while workers are busy with the lesions."""
    rows = assembly.rows
    outcomes = _run(rows, assembly.parts.path, assembly.options)
    try:
        for done, (row, outcome) in enumerate(outcomes, start=1):
            assembly.take(row, outcome)
            if progress:
                progress(done, len(rows), f"patient={row.patient_id} lesion={row.lesion_id}")
        return assembly.finish()
    except BaseException:
        outcomes.close()  # workers stop before the folder is another build's
        assembly.discard()
        raise


def _run(rows: tuple[Row, ...], parts: Path, options: BuildOptions) -> Generator[tuple[Row, Outcome], None, None]:
    """Each row's outcome in the rows' order, while workers are busy with the following ones."""
    afar = ticket(parts.absolute()) if options.scheduler else contextlib.nullcontext()
    with afar as under_way:
        calls = (_call(row, parts, options, under_way) for row in rows)
        made = runner(options.jobs, options.scheduler, len(rows)).run(_work, calls)
        with contextlib.closing(made) as outcomes:
            for row, outcome in zip(rows, outcomes, strict=True):
                yield row, _killed(outcome) if isinstance(outcome, WorkerDied) else outcome


def _call(row: Row, parts: Path, options: BuildOptions, under_way: Path | None) -> Call:
    """The arguments of `_work`; without a word on the working folder, which is another's on another machine."""
    if under_way:
        row, parts = replace(row, root=row.root.absolute()), parts.absolute()
    return row, parts, options.recipe, options.keep_uids, under_way


def _killed(death: WorkerDied) -> Outcome:
    found = f"its worker process ended twice when it was computed alone: {death}; out of memory?"
    return Outcome(problem=Unfinished(found, "use a machine with more memory, or see the system's log"))


def _work(row: Row, parts: Path, recipe: Recipe, keep_uids: bool, under_way: Path | None = None) -> Outcome:
    """One lesion, unless it is finished already; on another machine, while its run is `under_way`."""
    path = part_path(parts, row)
    try:
        if under_way:
            check_ticket(under_way, NEW_S)
            check_files(row)
        inputs = inputs_digest(row)
        finished = FinishedPart.load(path, row)
        if finished is not None:
            if finished.inputs != inputs:
                changed = f"digest {finished.inputs[:12]}…, now {inputs[:12]}…"
                found = f"files changed since this lesion was finished ({changed})"
                raise InputError(found, f"remove {parts.name} to begin anew", row.image)
            return Outcome()
        plan = plan_lesion(row, recipe)
        lesion, patches, notes = cut_lesion(plan, recipe, keep_uid=keep_uids)
        told = tuple(public(note) for note in (*plan.notes, *notes))
        part = FinishedPart(lesion, patches, inputs, plan.image.content, told, plan.image.lossy, plan.image.person)
        if under_way:
            check_ticket(under_way)
        part.save(path)
    except CtpatchError as problem:
        return Outcome(problem=problem)
    except OSError as error:
        found = f"cannot be read ({error.strerror})"
        place = Path(error.filename) if error.filename else row.image
        return Outcome(problem=InputError(found, "mend the file's permissions, link or disk", place))
    except MemoryError:
        return Outcome(problem=Unfinished("out of memory", "use fewer --jobs, or a machine with more memory"))
    return Outcome(computed=True)
