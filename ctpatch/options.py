"""What can be said to the command `ctpatch`, and what was said as the values that it means."""

from __future__ import annotations

import argparse
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

from . import __version__
from .errors import InputError, one_line
from .recipe import ON_ERROR, BuildOptions, Recipe, check_jobs, flag_of

_EPILOG = "Exit status: 0 done; 1 something failed while running (what was finished is kept); 2 wrong input or call."


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """One line, as for every other refusal."""
        self.exit(2, f"ctpatch: {one_line(message)}. Do: see {self.prog} --help.\n")

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Refuse what this parser does not know: left to the whole one, no word would be said of the command."""
        known, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return known, unknown


@cache
def parser() -> argparse.ArgumentParser:
    """The parser of all commands; which one was called is `command` in what it gives."""
    whole = _Parser(
        prog="ctpatch", description="CT series and radiologists' contours to HDF5 patch stores.", epilog=_EPILOG
    )
    whole.add_argument("--version", action="version", version=f"ctpatch {__version__}")
    commands = whole.add_subparsers(required=True, dest="command", metavar="COMMAND")

    def command(name: str, text: str) -> argparse.ArgumentParser:
        return commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".", epilog=_EPILOG)

    _add_build(command("build", "build a patch store from a manifest"))
    _add_recipe(command("check", "find every problem of a manifest, its series and contours, decoding no pixels"))
    info = command("info", "say what is in a store")
    info.add_argument(
        "--card", action="store_true", help="as a data card in Markdown, without a word on single patients"
    )
    info.add_argument("-v", "--verbose", action="store_true", help="each note for each lesion, not once for all")
    verify = command("verify", "read a whole store against its digests")
    for sub in (info, verify):
        sub.add_argument("store", type=Path, help="a store (.h5)")
    _add_report(command("report", "write a page to look at before anything trains: cohort, lesions, outliers"))
    scan = command("scan", "write a manifest for a folder tree of DICOM or LIDC-IDRI; add the labels yourself")
    scan.add_argument("folder", type=Path, help="the folder tree")
    scan.add_argument("--out", type=Path, required=True, help="the manifest to write (.csv)")
    phantom = command("phantom", "write the simulated DICOM cohort that a manifest lists")
    phantom.add_argument("--manifest", type=Path, required=True, help="CSV, one row per simulated lesion")
    phantom.add_argument("--out", type=Path, required=True, help="a folder to make")
    phantom.add_argument("--seed", type=int, default=0, help="seed of the simulation (default 0)")
    _add_jobs(phantom)
    return whole


_RECIPE_FLAGS = (
    ("seed", None, "seed of all random draws"),
    ("patches", "P", "patches per training lesion"),
    ("augment", "G", "moved copies of each"),
    ("rotate_deg", "DEG", "largest rotation of a copy"),
    ("shift_mm", "MM", "largest shift of a copy"),
    ("spacing_mm", "MM", "of patch pixels"),
    ("lidc_consensus", "SHARE", "of the outlining readers"),
)
"""Field of `Recipe`, what its value is called, what it is."""


def _add_recipe(parser: argparse.ArgumentParser) -> None:
    defaults = {field.name: field.default for field in fields(Recipe)}
    parser.add_argument("--manifest", type=Path, required=True, help="CSV, one row per lesion")
    for name, metavar, text in _RECIPE_FLAGS:
        kind, told = type(defaults[name]), f"{text} (default {defaults[name]:g})"
        parser.add_argument(flag_of(name), dest=name, type=kind, default=defaults[name], metavar=metavar, help=told)
    parser.add_argument("--fold", metavar="I/K", help="the I-th of K cross-validation splits")
    parser.add_argument("-v", "--verbose", action="store_true", help="each note for each lesion, not once for all")


def _add_build(parser: argparse.ArgumentParser) -> None:
    _add_recipe(parser)
    parser.add_argument("--out", type=Path, required=True, help="the store to make (.h5)")
    _add_jobs(parser)
    parser.add_argument("--no-rgb", action="store_true", help="keep HU only, not the rendered pictures")
    parser.add_argument(
        "--on-error",
        choices=ON_ERROR,
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


def _add_report(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("store", type=Path, help="a store (.h5)")
    parser.add_argument(
        "--manifest", type=Path, help="the CSV that it was built from: the page shows outlines over the CT"
    )
    parser.add_argument("--out", type=Path, required=True, help="the page to write (.html)")
    parser.add_argument("--site", metavar="COLUMN", help="a column of the manifest that tells sites or scanners apart")
    _add_jobs(parser)


def recipe(arguments: argparse.Namespace) -> Recipe:
    """What shapes the pixels."""
    chosen = {name: getattr(arguments, name) for name, _, _ in _RECIPE_FLAGS}
    return Recipe(**chosen, rgb=not getattr(arguments, "no_rgb", False))


def fold(arguments: argparse.Namespace) -> tuple[int, int] | None:
    """Which of how many cross-validation splits, if any."""
    from .manifest.split import parse_fold

    return parse_fold(arguments.fold) if arguments.fold else None


def jobs(arguments: argparse.Namespace) -> int:
    """How many worker processes."""
    count: int = arguments.jobs
    check_jobs(count)
    return count


def build_options(arguments: argparse.Namespace) -> BuildOptions:
    """All that a build was told."""
    count = jobs(arguments)
    if arguments.scheduler and count != BuildOptions.jobs:
        raise InputError(f"--jobs {count} and --scheduler", "leave out --jobs: the cluster computes the lesions")
    return BuildOptions(
        recipe(arguments),
        count,
        fold(arguments),
        on_error=arguments.on_error,
        keep_uids=arguments.keep_uids,
        lock=not arguments.no_lock,
        scheduler=arguments.scheduler,
    )
