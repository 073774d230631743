"""The command `ctpatch`: it calls and prints; everything else is elsewhere."""

from __future__ import annotations

import argparse
import io
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from . import options
from .errors import CtpatchError, InputError, one_line
from .notes import gathered
from .processes import STOPS
from .recipe import BuildOptions

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

    from .build.run import Progress


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status."""
    _prepare_streams()
    arguments = options.parser().parse_args(argv)
    try:
        with _stoppable():
            return COMMANDS[arguments.command](arguments)
    except CtpatchError as error:
        print(f"ctpatch: {error}".replace("\n", "\nctpatch: "), file=sys.stderr)
        return error.exit_status
    except KeyboardInterrupt as stop:
        print("ctpatch: interrupted; finished lesions are kept, run the same command to go on", file=sys.stderr)
        return 128 + stop.args[0] if stop.args else 1
    except BrokenPipeError:
        return 1
    except MemoryError:
        print("ctpatch: out of memory", file=sys.stderr)
        return 1
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        print(f"ctpatch: {one_line(where)}{error.strerror or error}", file=sys.stderr)
        return 1


def _prepare_streams() -> None:
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by the caller; a process that is started wants them too
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115 - as long as the process
        stream = getattr(sys, name)
        if isinstance(stream, io.TextIOWrapper):  # what a terminal lacks gets its escape, not a traceback
            stream.reconfigure(errors="backslashreplace")


@contextmanager
def _stoppable() -> Iterator[None]:
    """A time limit's SIGTERM and a closed terminal's SIGHUP end a command as Ctrl-C does, unless they are ignored."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt(number)

    main = threading.current_thread() is threading.main_thread()
    ours = [number for number in STOPS if main and signal.getsignal(number) is signal.SIG_DFL]
    for number in ours:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number in ours:
            signal.signal(number, signal.SIG_DFL)


def _build(arguments: argparse.Namespace) -> int:
    from .build.run import build

    chosen = options.build_options(arguments)
    if arguments.shard is not None:
        return _build_shard(arguments, chosen)
    with _progress("build") as progress:
        result = build(arguments.manifest, arguments.out, chosen, progress)
    _print_notes(result.notes, arguments.verbose)
    _print_skipped(result.skipped)
    patches = ", ".join(f"{split} {count}" for split, count in result.patches.items())
    print(f"{result.path}: {result.lesions} lesions, patches: {patches}{_earlier(result.lesions, result.computed)}")
    return 1 if result.skipped else 0


def _build_shard(arguments: argparse.Namespace, chosen: BuildOptions) -> int:
    from .build.run import Shard, build_shard

    shard = Shard.parse(arguments.shard)
    with _progress("build") as progress:
        result = build_shard(arguments.manifest, arguments.out, shard, chosen, progress)
    _print_skipped(result.skipped)
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


def _print_skipped(problems: Sequence[InputError]) -> None:
    for problem in problems:
        print(f"skipped: {problem}", file=sys.stderr)


def _print_notes(notes: Sequence[str], verbose: bool) -> None:
    """One line for all lesions of which the same is said, or with -v for each."""
    for note in notes if verbose else gathered(notes):
        print(f"note: {one_line(note)}")


def _check(arguments: argparse.Namespace) -> int:
    from .build.check import check_manifest

    with _progress("check") as progress:
        result = check_manifest(arguments.manifest, options.recipe(arguments), options.fold(arguments), progress)
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

    # its own lock is of all processes (tqdm 4.70.1): a semaphore, left behind when this process is killed
    tqdm.set_lock(threading.RLock())
    with open_store(path) as store, tqdm(unit="B", unit_scale=True, disable=not sys.stderr.isatty()) as bar:
        return verify_store(store.file, bar.update)


def _report(arguments: argparse.Namespace) -> int:
    from .report import write_report

    with _progress("report") as progress:
        findings = write_report(
            arguments.store,
            arguments.out,
            arguments.manifest,
            site=arguments.site,
            jobs=options.jobs(arguments),
            progress=progress,
        )
    print(f"{arguments.out}: {findings} findings to look at; open it in a browser")
    return 0


def _scan(arguments: argparse.Namespace) -> int:
    from .scan import scan, write_manifest
    from .scan.table import check_out

    check_out(arguments.out)
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
            jobs=options.jobs(arguments),
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


COMMANDS: dict[str, Callable[[argparse.Namespace], int]] = {
    "build": _build,
    "check": _check,
    "info": _info,
    "verify": _verify,
    "report": _report,
    "scan": _scan,
    "phantom": _phantom,
}
"""What each command does; the exit status."""


if __name__ == "__main__":
    sys.exit(main())
