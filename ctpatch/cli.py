"""The command `ctpatch`: it parses, calls and prints; everything else is elsewhere."""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Callable, Sequence
from contextlib import closing, contextmanager
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

from . import __version__
from .errors import CtpatchError, InputError, one_line
from .notes import gathered
from .recipe import BuildOptions, Recipe

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .build.run import Progress

_EPILOG = "Exit status: 0 done; 1 something failed while running (what was finished is kept); 2 wrong input or call."


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status."""
    for stream in (sys.stdout, sys.stderr):  # a terminal that lacks a character gets its escape, not a traceback
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    arguments = _parser().parse_args(argv)
    try:
        status: int = arguments.run(arguments)
        return status
    except CtpatchError as error:
        print(f"ctpatch: {error}".replace("\n", "\nctpatch: "), file=sys.stderr)
        return error.exit_status
    except KeyboardInterrupt:
        print("ctpatch: interrupted; finished lesions are kept, run the same command to go on", file=sys.stderr)
        return 1
    except BrokenPipeError:
        return 1
    except MemoryError:
        print("ctpatch: out of memory", file=sys.stderr)
        return 1
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        print(f"ctpatch: {one_line(where)}{error.strerror or error}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="ctpatch", description="CT series and radiologists' contours to HDF5 patch stores.", epilog=_EPILOG
    )
    parser.add_argument("--version", action="version", version=f"ctpatch {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, run: Callable[[argparse.Namespace], int], text: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".", epilog=_EPILOG)
        sub.set_defaults(run=run)
        return sub

    _add_build(command("build", _build, "build a patch store from a manifest"))
    _add_check(
        command("check", _check, "find every problem of a manifest, its series and contours, decoding no pixels")
    )
    info = command("info", _info, "say what is in a store")
    info.add_argument(
        "--card", action="store_true", help="as a data card in Markdown, without a word on single patients"
    )
    info.add_argument("-v", "--verbose", action="store_true", help="each note for each lesion, not once for all")
    verify = command("verify", _verify, "read a whole store against its digests")
    for sub in (info, verify):
        sub.add_argument("store", type=Path, help="a store (.h5)")
    _add_report(command("report", _report, "write a page to look at before anything trains: cohort, lesions, outliers"))
    _add_scan(
        command("scan", _scan, "write a manifest for a folder tree of DICOM or LIDC-IDRI; add the labels yourself")
    )
    _add_phantom(command("phantom", _phantom, "write the simulated DICOM cohort that a manifest lists"))
    return parser


_RECIPE_FLAGS = (
    ("--seed", "seed", None, "seed of all random draws"),
    ("--patches", "patches", "P", "patches per training lesion"),
    ("--augment", "augment", "G", "moved copies of each"),
    ("--rotate", "rotate_deg", "DEG", "largest rotation of a copy"),
    ("--shift", "shift_mm", "MM", "largest shift of a copy"),
    ("--spacing", "spacing_mm", "MM", "of patch pixels"),
    ("--lidc-consensus", "lidc_consensus", "SHARE", "of the outlining readers"),
)
"""Flag, field of `Recipe`, what its value is called, what it is."""


def _add_recipe(parser: argparse.ArgumentParser) -> None:
    defaults = {field.name: field.default for field in fields(Recipe)}
    parser.add_argument("--manifest", type=Path, required=True, help="CSV, one row per lesion")
    for flag, name, metavar, text in _RECIPE_FLAGS:
        kind, told = type(defaults[name]), f"{text} (default {defaults[name]:g})"
        parser.add_argument(flag, dest=name, type=kind, default=defaults[name], metavar=metavar, help=told)
    parser.add_argument("--fold", metavar="I/K", help="the I-th of K cross-validation splits")
    parser.add_argument("-v", "--verbose", action="store_true", help="each note for each lesion, not once for all")


def _add_build(parser: argparse.ArgumentParser) -> None:
    _add_recipe(parser)
    parser.add_argument("--out", type=Path, required=True, help="the store to make (.h5)")
    _add_jobs(parser)
    parser.add_argument("--no-rgb", action="store_true", help="keep HU only, not the rendered pictures")
    parser.add_argument(
        "--on-error",
        choices=("stop", "skip"),
        default=BuildOptions.on_error,
        help="a refused lesion stops the build, or is listed and left out",
    )
    parser.add_argument("--keep-uids", action="store_true", help="keep SeriesInstanceUIDs instead of their digests")
    no_lock = "for file systems without locks; no other build may write this store meanwhile"
    parser.add_argument("--no-lock", action="store_true", help=no_lock)
    shard = "compute the I-th of N shares of the lesions, and stop: N jobs, then one build without it"
    parser.add_argument("--shard", metavar="I/N", help=shard)
    scheduler = (
        "address of a Dask scheduler, whose workers see the same files and compute the lesions (tcp://HOST:8786)"
    )
    parser.add_argument("--scheduler", default=BuildOptions.scheduler, metavar="ADDRESS", help=scheduler)


def _add_jobs(parser: argparse.ArgumentParser) -> None:
    text = f"worker processes (default {BuildOptions.jobs}; -1: one per core)"
    parser.add_argument("--jobs", type=int, default=BuildOptions.jobs, metavar="N", help=text)


def _add_check(parser: argparse.ArgumentParser) -> None:
    _add_recipe(parser)


def _add_report(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("store", type=Path, help="a store (.h5)")
    parser.add_argument(
        "--manifest", type=Path, help="the CSV that it was built from: the page shows outlines over the CT"
    )
    parser.add_argument("--out", type=Path, required=True, help="the page to write (.html)")
    parser.add_argument("--site", metavar="COLUMN", help="a column of the manifest that tells sites or scanners apart")
    _add_jobs(parser)


def _add_scan(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, help="the folder tree")
    parser.add_argument("--out", type=Path, required=True, help="the manifest to write (.csv)")


def _add_phantom(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--manifest", type=Path, required=True, help="CSV, one row per simulated lesion")
    parser.add_argument("--out", type=Path, required=True, help="a folder to make")
    parser.add_argument("--seed", type=int, default=0, help="seed of the simulation (default 0)")
    _add_jobs(parser)


def _recipe(arguments: argparse.Namespace) -> Recipe:
    chosen = {name: getattr(arguments, name) for _, name, _, _ in _RECIPE_FLAGS}
    return Recipe(**chosen, rgb=not getattr(arguments, "no_rgb", False))


def _fold(arguments: argparse.Namespace) -> tuple[int, int] | None:
    from .manifest.split import parse_fold

    return parse_fold(arguments.fold) if arguments.fold else None


def _jobs(arguments: argparse.Namespace) -> int:
    jobs: int = arguments.jobs
    if jobs == 0 or jobs < -1:
        raise InputError(f"--jobs is {jobs}", "give the number of worker processes, or -1")
    return jobs


def _build(arguments: argparse.Namespace) -> int:
    from .build.run import build
    from .compiled import uncached

    options = _options(arguments)
    if arguments.shard is not None:
        return _build_shard(arguments, options)
    with _progress("build") as progress:
        result = build(arguments.manifest, arguments.out, options, progress)
    _print_notes(result.notes, arguments.verbose)
    if uncached():
        print("note: numba has no folder for its cache, so each process compiles anew: set NUMBA_CACHE_DIR")
    for problem in result.skipped:
        print(f"skipped: {problem}", file=sys.stderr)
    patches = ", ".join(f"{split} {count}" for split, count in result.patches.items())
    print(f"{result.path}: {result.lesions} lesions, patches: {patches}{_earlier(result.lesions, result.computed)}")
    return 1 if result.skipped else 0


def _build_shard(arguments: argparse.Namespace, options: BuildOptions) -> int:
    from .build.run import Shard, build_shard

    shard = Shard.parse(arguments.shard)
    with _progress("build") as progress:
        result = build_shard(arguments.manifest, arguments.out, shard, options, progress)
    for problem in result.skipped:
        print(f"skipped: {problem}", file=sys.stderr)
    print(
        f"{result.parts}: shard {shard.i}/{shard.n}, {result.lesions} lesions"
        + _earlier(result.lesions, result.computed)
        + "; when all shards have ended, build without --shard"
    )
    return 1 if result.skipped else 0


def _earlier(lesions: int, computed: int) -> str:
    """How many lesions were finished before, and if not all, how many were left."""
    earlier = lesions - computed
    if earlier <= 0:
        return ""
    return f"; {earlier} lesions were finished before" + (f", {computed} computed now" if computed else "")


def _options(arguments: argparse.Namespace) -> BuildOptions:
    jobs = _jobs(arguments)
    if arguments.scheduler and jobs != BuildOptions.jobs:
        raise InputError(f"--jobs {jobs} and --scheduler", "leave out --jobs: the cluster computes the lesions")
    return BuildOptions(
        _recipe(arguments),
        jobs,
        _fold(arguments),
        on_error=arguments.on_error,
        keep_uids=arguments.keep_uids,
        lock=not arguments.no_lock,
        scheduler=arguments.scheduler,
    )


def _print_notes(notes: Sequence[str], verbose: bool) -> None:
    """One line for all lesions of which the same is said, or with -v for each."""
    for note in notes if verbose else gathered(notes):
        print(f"note: {one_line(note)}")


def _check(arguments: argparse.Namespace) -> int:
    from .build.check import check_manifest

    with _progress("check") as progress:
        result = check_manifest(arguments.manifest, _recipe(arguments), _fold(arguments), progress)
    _print_notes(result.notes, arguments.verbose)
    for problem in result.problems:
        print(f"problem: {problem}", file=sys.stderr)
    print(f"{arguments.manifest}: {result.lesions} lesions, {len(result.problems)} problems, {len(result.notes)} notes")
    return 2 if result.problems else 0


def _info(arguments: argparse.Namespace) -> int:
    from .store import data_card, open_store
    from .store.summary import describe_store

    if arguments.card:
        with open_store(arguments.store) as store:
            print(data_card(store), end="")
    else:
        print("\n".join(describe_store(arguments.store, verbose=arguments.verbose)))
    return 0


def _verify(arguments: argparse.Namespace) -> int:
    from .processes import OwnProcess, WorkerDied

    with closing(OwnProcess()) as reader:
        try:
            problems = reader(_verify_store, arguments.store)
        except WorkerDied as death:  # HDF5 has crashed on crafted files, and will again
            problems = [f"the process that read it crashed ({death}): its structure is damaged"]
    for problem in problems:
        print(f"ctpatch: {arguments.store}: {problem}. Do: build it again, or copy it again.", file=sys.stderr)
    if not problems:
        print(f"{arguments.store}: whole and unaltered")
    return 1 if problems else 0


def _verify_store(path: Path) -> list[str]:
    """What is wrong with a store; runs in a process of its own."""
    from tqdm import tqdm

    from .store import open_store
    from .store.verify import verify_store

    with open_store(path) as store, tqdm(unit="B", unit_scale=True, disable=not sys.stderr.isatty()) as bar:

        def advance(size: int) -> None:
            bar.update(size)

        return verify_store(store.file, advance)


def _report(arguments: argparse.Namespace) -> int:
    from .report import write_report

    with _progress("report") as progress:
        findings = write_report(
            arguments.store,
            arguments.out,
            arguments.manifest,
            site=arguments.site,
            jobs=_jobs(arguments),
            progress=progress,
        )
    print(f"{arguments.out}: {findings} findings to look at; open it in a browser")
    return 0


def _scan(arguments: argparse.Namespace) -> int:
    from .scan import scan, write_manifest

    result = scan(arguments.folder)
    for note in result.notes:  # before anything can fail: they say why there may be nothing to write
        print(f"note: {one_line(note)}")
    write_manifest(result, arguments.out)
    bare = sum(not row["mask"] for row in result.rows)
    todo = "fill in the column label" + (f", and mask in {bare} rows" if bare else "")
    print(f"{arguments.out}: {len(result.rows)} rows; {todo}")
    return 0


def _phantom(arguments: argparse.Namespace) -> int:
    from .phantom import write_phantom

    with _progress("phantom") as progress:
        written = write_phantom(
            arguments.manifest,
            arguments.out,
            seed=arguments.seed,
            jobs=_jobs(arguments),
            progress=lambda done, total: progress(done, total, ""),
        )
    print(f"{written}: build it with  ctpatch build --manifest {written} --out STORE.h5")
    return 0


@contextmanager
def _progress(what: str) -> Iterator[Progress]:
    """A bar on a terminal; in a log a plain line whenever another tenth is done."""
    if sys.stderr.isatty():
        from tqdm import tqdm

        with tqdm(desc=what, unit="lesion") as bar:

            def advance(done: int, total: int, word: str) -> None:
                bar.total, bar.n = total, done
                bar.set_postfix_str(one_line(word), refresh=True)

            yield advance
        return
    told = 0

    def tell(done: int, total: int, word: str) -> None:
        nonlocal told
        if done * 10 // total > told or done == total:
            told = done * 10 // total
            print(f"{what}: {done} of {total}", file=sys.stderr)

    yield tell
