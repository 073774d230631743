"""From a manifest to a store: lesions in parallel, one writer, and nothing lost when it is interrupted."""

from __future__ import annotations

import contextlib
import errno
import operator
import os
import shutil
from collections.abc import Callable, Generator, Iterable
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

from ..errors import CtpatchError, InputError, Problems, Unfinished, located, public
from ..manifest import Manifest, Row, manifest_digest, read_manifest
from ..manifest.split import assign_splits
from ..processes import Call, WorkerDied
from ..recipe import BuildOptions
from ..store.records import COMPRESSION
from ..store.verify import is_store
from .assembly import Assembly, BuildResult, Outcome, refusal, skippable
from .elsewhere import NEW_S, check_files, check_ticket, ticket
from .engine import runner
from .parts import FinishedPart, PartsFolder, bytes_to_write, inputs_digest, part_path
from .plans import Plans
from .shards import Shard, ShardResult, SharedParts

__all__ = ["BuildOptions", "BuildResult", "Shard", "ShardResult", "build", "build_shard", "split_rows"]

SPACE = 1.2
"""Free space that a build wants, as a multiple of what it is expected to write."""

_MACHINE = {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EAGAIN}
"""What no file that is read is to blame for."""

Progress = Callable[[int, int, str], None]
"""Called with how many lesions are done, how many there are, and a word on the last."""


def build(
    manifest_path: str | os.PathLike[str],
    out: str | os.PathLike[str],
    options: BuildOptions,
    progress: Progress | None = None,
) -> BuildResult:
    """Build a patch store.

    Parameters
    ----------
    manifest_path : path
        The manifest (CSV).
    out : path
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
    out = Path(out)
    manifest, rows, parts = _open(Path(manifest_path), out, options, PartsFolder)
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
    manifest_path: str | os.PathLike[str],
    out: str | os.PathLike[str],
    shard: Shard,
    options: BuildOptions,
    progress: Progress | None = None,
) -> ShardResult:
    """Compute a share of a build's lesions, for a `build` that puts the store together when all shards have ended.

    Parameters and errors are those of `build`; shards of one store may run at the same time, on any machines that see
    its folder.
    """
    out = Path(out)
    manifest, rows, parts = _open(Path(manifest_path), out, options, SharedParts)
    skipped: list[InputError] = []
    computed, own = 0, shard.of(rows)
    try:
        _check_space(bytes_to_write(parts.path, rows, options.recipe), out)
        with contextlib.closing(_run(own, parts, options, manifest.path)) as outcomes:
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
    # beside the store, or for folds, which share them, beside the first store
    place = out.with_name(f"{manifest_path.stem}.folds.parts" if options.fold else f"{out.name}.parts")
    return manifest, rows, folder(place, _plan(manifest, options), locked=options.lock)


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


def _plan(manifest: Manifest, options: BuildOptions) -> dict[str, Any]:
    """What finished lesions depend on; a build goes on only under the same plan."""
    rows = (replace(row, split="") for row in manifest.rows) if options.fold else manifest.rows
    chosen = {"keep_uids": options.keep_uids, "compression": COMPRESSION}
    return {**options.recipe.document(), **chosen, "manifest": manifest_digest(rows)}


def _assemble(assembly: Assembly, progress: Progress | None) -> BuildResult:
    """Write the store while workers are busy with the lesions."""
    rows = assembly.rows
    outcomes = _run(rows, assembly.parts, assembly.options, assembly.manifest.path)
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


def _run(
    rows: tuple[Row, ...], parts: PartsFolder, options: BuildOptions, manifest_path: Path
) -> Generator[tuple[Row, Outcome], None, None]:
    """Each row's outcome in the rows' order, while workers are busy with the following ones.

    Where there are several to compute, all are planned before: workers that are done with that begin to compute.
    """
    folder = parts.path.absolute() if options.scheduler else parts.path
    missing = [row for row in rows if part_path(folder, row).name not in parts.before]
    planned = missing if len(missing) > 1 else []
    with ticket(folder) if options.scheduler else contextlib.nullcontext() as under_way:
        plans = Plans(folder, options.recipe)
        calls = chain(
            ((_plan_row, *_call(row, plans, options, under_way)) for row in planned),
            ((_work, *_call(row, plans, options, under_way)) for row in rows),
        )
        made = runner(options.jobs, options.scheduler, len(rows)).run(operator.call, calls)
        with contextlib.closing(made) as outcomes:
            _refuse(zip(planned, outcomes), manifest_path, options)  # noqa: B905 - the rest is for what follows
            for row, outcome in zip(rows, outcomes, strict=True):
                yield row, _killed(outcome) if isinstance(outcome, WorkerDied) else outcome


def _refuse(outcomes: Iterable[tuple[Row, Outcome]], manifest_path: Path, options: BuildOptions) -> None:
    """Raise the problems of all plans together, unless such lesions are skipped: then each is met again in its turn."""
    problems = [
        refusal(outcome.problem, row, manifest_path)
        for row, outcome in outcomes
        if not isinstance(outcome, WorkerDied) and outcome.problem
    ]
    if problems and options.on_error == "stop":
        raise Problems(problems) if len(problems) > 1 else problems[0]


def _call(row: Row, plans: Plans, options: BuildOptions, under_way: Path | None) -> Call:
    """The arguments of `_plan_row` and `_work`; nothing of the working folder, which is another on another machine."""
    if under_way:
        row = replace(row, root=row.root.absolute())
    return row, plans, options.keep_uids, under_way


def _killed(death: WorkerDied) -> Outcome:
    found = f"its worker process ended twice when it was computed alone: {death}; out of memory?"
    return Outcome(problem=Unfinished(found, "use a machine with more memory, or see the system's log"))


def _plan_row(row: Row, plans: Plans, keep_uids: bool, under_way: Path | None) -> Outcome:
    """A lesion's plan, for `_work` to use."""
    return _outcome(lambda: plans.make(row), row, under_way)


def _work(row: Row, plans: Plans, keep_uids: bool, under_way: Path | None) -> Outcome:
    """One lesion, unless it is finished already; on another machine, while its run is `under_way`."""
    return _outcome(lambda: _compute(row, plans, keep_uids, under_way), row, under_way)


def _compute(row: Row, plans: Plans, keep_uids: bool, under_way: Path | None) -> bool:
    """Finish a lesion; whether it had to be computed."""
    path, inputs = part_path(plans.parts, row), inputs_digest(row)
    finished = FinishedPart.load(path, row)
    if finished is not None:
        if finished.inputs != inputs:
            changed = f"digest {finished.inputs[:12]}…, now {inputs[:12]}…"
            found = f"files changed since this lesion was finished ({changed})"
            raise InputError(found, f"remove {plans.parts.name} to begin anew", row.image)
        return False
    from .one_lesion import cut_lesion  # the workers' alone, see `Plans`

    plan = plans.take(row, inputs)
    lesion, patches, notes = cut_lesion(plan, plans.recipe, keep_uid=keep_uids)
    told = tuple(public(note) for note in (*plan.notes, *notes))
    part = FinishedPart(lesion, patches, inputs, plan.image.content, told, plan.image.lossy, plan.image.person)
    # as late as can be: a run that was killed, and whose folder is another's by now, must not leave its part there
    part.save(path, lambda: check_ticket(under_way) if under_way else None)
    return True


def _outcome(step: Callable[[], bool | None], row: Row, under_way: Path | None) -> Outcome:
    """What became of a step, which may say that it computed a lesion; problems are values."""
    try:
        if under_way:
            check_ticket(under_way, NEW_S)
            check_files(row)
        computed = bool(step())
        return Outcome(computed, uncached=computed and _uncached())
    except CtpatchError as problem:
        return Outcome(problem=problem)
    except OSError as error:
        return Outcome(problem=_unread(error, row))
    except MemoryError:
        return Outcome(problem=Unfinished("out of memory", "use fewer --jobs, or a machine with more memory"))


def _unread(error: OSError, row: Row) -> CtpatchError:
    """What the system said: of a file of the row's it is the lesion's problem, of anything else the machine's."""
    place = Path(os.fsdecode(error.filename)) if error.filename else row.image
    inputs = [row.image, *([row.mask] if row.mask else [])]
    whose = any(place.is_relative_to(path) or (path.is_file() and place.parent == path.parent) for path in inputs)
    if whose and error.errno not in _MACHINE:
        return InputError(f"cannot be read ({error.strerror})", "mend the file's permissions, link or disk", place)
    what = f"{place.name}: " if error.filename else ""
    return CtpatchError(
        f"{what}{error.strerror or error}; see that this machine has room and files to spare, run again"
    )


def _uncached() -> bool:
    from ..compiled import uncached  # has loaded numba, which a process that waits for workers can do without

    return uncached()
