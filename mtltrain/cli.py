"""The `mtltrain` command: parse, call, print."""

from __future__ import annotations

import argparse
import math
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import NoReturn

from ctpatch.store import SPLITS, CtpatchError, InputError, open_store

from . import ARCHS, Settings, __version__

_EPILOG = "Exit status: 0 done; 1 something failed while running (what was finished is kept); 2 wrong input or call."

DEVICES = ("auto", "cpu", "cuda")
MOST = 2**63 - 1
"""The largest number of torch and pandas."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """One line, as for every other refusal."""
        self.exit(2, f"{self.prog}: {message}. Do: see {self.prog} --help.\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; 0 done, 1 failed while running (what was finished is kept), 2 wrong input or call."""
    args = _parser().parse_args(argv)
    try:
        args.run(args)
        print(end="", flush=True)
    except CtpatchError as error:
        print(f"mtltrain: {error}", file=sys.stderr)
        return error.exit_status
    except BrokenPipeError:  # whoever read the output has enough: nor shall Python miss its reader at the end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        print(
            f"mtltrain: {error}. Do: see that the store can be read and the folder of the results written.",
            file=sys.stderr,
        )
        return 1
    except KeyboardInterrupt:
        print("mtltrain: interrupted; the same command goes on from the last finished epoch", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="mtltrain",
        description="Train and compare multi-task and single-task CNNs on a patch store.",
        epilog=_EPILOG,
    )
    parser.add_argument("--version", action="version", version=f"mtltrain {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, text: str) -> argparse.ArgumentParser:
        return commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".", epilog=_EPILOG)

    _add_fit(command("fit", "train the architectures and compare them"))
    predict = command("predict", "apply the trained runs of a run folder to a store")
    predict.add_argument("folder", type=Path, metavar="RUN", help="a folder that fit made")
    predict.add_argument("store", type=Path, metavar="STORE", help="a store of ctpatch (.h5)")
    predict.add_argument("--split", nargs="+", default=["test"], choices=SPLITS, help="default: test")
    predict.add_argument("--out", type=Path, help="a CSV file (default: beside the store)")
    predict.add_argument(
        "--metrics", type=Path, help="external validation: evaluate the labelled lesions, and write the figures (JSON)"
    )
    predict.add_argument("--device", default="auto", choices=DEVICES, help="default: %(default)s")
    predict.set_defaults(run=_predict)
    compare = command("compare", "show the results of several run folders side by side")
    compare.add_argument("folders", type=Path, nargs="+", metavar="RUN", help="a folder that fit made")
    compare.add_argument(
        "--pool", action="store_true", help="the folders are folds: one result of all their predictions"
    )
    compare.add_argument("--out", type=Path, help="with --pool: a folder for its metrics.json and predictions.csv")
    compare.set_defaults(run=_compare)
    return parser


def _add_fit(fit: argparse.ArgumentParser) -> None:
    fit.add_argument("store", type=Path, metavar="STORE", help="a store of ctpatch (.h5)")
    fit.add_argument("--arch", nargs="+", default=ARCHS, choices=ARCHS, help="default: all four")
    fit.add_argument("--out", type=Path, help="the run folder (default: beside the store)")
    fit.add_argument("--backbone", help="a torchvision classification network, or timm:NAME (default: %(default)s)")
    fit.add_argument(
        "--weights", type=Path, help="pre-trained weights: a state dict (.pth, .safetensors) or a run's best.pt"
    )
    fit.add_argument("--epochs", type=_number(int, 1), help="at most (default: %(default)s)")
    fit.add_argument(
        "--patience", type=_number(int, 1), help="epochs without a better validation AUC (default: %(default)s)"
    )
    fit.add_argument("--batch-size", type=_number(int, 1, MOST), help="patches a step (default: %(default)s)")
    fit.add_argument(
        "--lr", type=_number(float, 1e-12), help="of new layers; of pre-trained ones a fifth (default: %(default)s)"
    )
    fit.add_argument("--seeds", type=_number(int, 0, MOST), nargs="+", default=[0], help="one run each (default: 0)")
    fit.add_argument("--device", choices=DEVICES, help="default: %(default)s, a GPU where there is one")
    fit.add_argument("--positive", help="the positive one of two classes (default: the last in sorted order)")
    fit.add_argument("--label-order", nargs="+", help="the classes from lowest to highest")
    fit.add_argument("--balanced", action="store_true", help="weight the classes by one over their frequency")
    fit.add_argument(
        "--m",
        dest="major_share",
        type=_number(float, 0, 1),
        metavar="M",
        help="the major task's share of the loss (default: %(default)s)",
    )
    fit.add_argument(
        "--tasks",
        dest="chosen_tasks",
        nargs="+",
        metavar="NAME[=W]",
        help="these auxiliary tasks, whatever their p; weight |r| or W",
    )
    fit.add_argument("--deterministic", action="store_true", help="the same bits on a GPU each time, slower")
    fit.add_argument("--cuda-graph", action="store_true", help="a GPU's steps as one CUDA graph; not yet tried on one")
    fit.set_defaults(run=_fit, **asdict(Settings()) | {"device": "auto"})


def _fit(args: argparse.Namespace) -> None:
    from tqdm import tqdm

    from .device import pick_device
    from .folder import fit_folder
    from .tables import format_tables, verdicts

    args.device = str(pick_device(args.device))
    args.chosen_tasks = _tasks(args.chosen_tasks, args.store)
    settings = Settings(**{field.name: getattr(args, field.name) for field in fields(Settings)})
    out = _folder(args.out or args.store.parent / f"{args.store.stem}-mtltrain")
    metrics = fit_folder(
        args.store,
        out,
        list(dict.fromkeys(args.arch)),
        list(dict.fromkeys(args.seeds)),
        settings,
        weights=args.weights,
        positive=args.positive,
        order=args.label_order,
        graph=args.cuda_graph,
        log=lambda line: print(line, flush=True),
        watch=lambda batches, title: tqdm(batches, title, disable=None, leave=False),
    )
    print("", format_tables(metrics), "", *verdicts(metrics), "", out / "report.html", sep="\n")


def _predict(args: argparse.Namespace) -> None:
    from .device import pick_device
    from .external import validate
    from .files import write_csv, write_json
    from .folder import predict_folder
    from .tables import format_tables, verdicts

    out = args.out or args.store.parent / f"{args.store.stem}-predictions.csv"
    _refuse_taken("--out", out)
    if args.metrics:
        _refuse_taken("--metrics", args.metrics)
        if args.metrics.resolve() == out.resolve():
            raise InputError("--metrics is --out", "name another file", out)
    predictions = predict_folder(args.folder, args.store, list(dict.fromkeys(args.split)), pick_device(args.device))
    metrics = validate(args.folder, predictions) if args.metrics else {}
    write_csv(out, predictions)
    if metrics:
        write_json(args.metrics, metrics)
        print("", format_tables(metrics), "", *verdicts(metrics), "", args.metrics, sep="\n")
    print(out)


def _refuse_taken(option: str, path: Path) -> None:
    """Raise InputError where a result would replace something; before anything is predicted."""
    if path.exists():
        raise InputError(f"{option} is there already", f"name another file with {option}, or remove this one", path)


def _compare(args: argparse.Namespace) -> None:
    from .compare import load_metrics, other_lesions
    from .tables import format_comparison

    if args.out and not args.pool:
        raise InputError(f"--out {args.out}, but nothing is pooled", "add --pool")
    if args.pool:
        _pool(args)
    else:
        print(format_comparison({str(folder): load_metrics(folder) for folder in args.folders}))
        if note := other_lesions(args.folders):
            print(f"\n{note}")


def _pool(args: argparse.Namespace) -> None:
    from .files import write_csv, write_json
    from .pool import pool_folds
    from .tables import format_tables

    if args.out and (_folder(args.out) / "config.json").exists():
        raise InputError("--out is a run folder of mtltrain fit", "name another, or its results are lost", args.out)
    metrics, predictions = pool_folds(args.folders)
    if args.out:
        write_csv(args.out / "predictions.csv", predictions)
        write_json(args.out / "metrics.json", metrics)
    print(f"{len(args.folders)} folds pooled: out-of-fold predictions\n\n{format_tables(metrics)}")
    if missing := metrics["missing_folds"]:
        print(f"\nNot every patient was tested: fold {', '.join(map(str, missing))} is in none of these folders.")
    print(
        "\nPooling takes the probabilities of different networks for comparable: compare with the folds' own figures."
    )


def _folder(out: Path) -> Path:
    if out.exists() and not out.is_dir():
        raise InputError("--out is a file", "name a folder", out)
    return out


def _tasks(given: Sequence[str], store: Path) -> dict[str, float | None]:
    """Characteristics and their weights in the words of --tasks, some of which may be names with an equals sign."""
    names = set()
    if any("=" in text for text in given):
        with open_store(store) as opened:
            names = set(opened.aux_levels)
    tasks: dict[str, float | None] = {}
    for text in given:
        name, weight = (text, None) if text in names or "=" not in text else _weighted(text)
        if name in tasks:
            raise InputError(f"--tasks names {name} twice", "name it once")
        tasks[name] = weight
    return tasks


def _weighted(text: str) -> tuple[str, float]:
    name, _, weight = text.rpartition("=")
    try:
        return name, _number(float, 0)(weight)
    except (ValueError, argparse.ArgumentTypeError):
        raise InputError(f"--tasks {text}: {weight!r} is no weight of 0 or more", "say NAME=W") from None


def _number(kind: Callable[[str], float], least: float, most: float | None = None) -> Callable[[str], float]:
    def number(text: str) -> float:
        value = kind(text)
        if not least <= value < math.inf or (most is not None and value > most):
            meant = f"{least} or more" if most is None else f"{least} to {most}"
            raise argparse.ArgumentTypeError(f"{text!r} is not {meant}")
        return value

    return number


if __name__ == "__main__":
    sys.exit(main())
