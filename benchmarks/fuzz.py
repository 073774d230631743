"""Fuzz everything that ctpatch reads, for as long as there is time.

    python benchmarks/fuzz.py --minutes 60 --finds finds

Each target (see tests/fuzz) runs in a process of its own, in turns of a minute at most. A find is an exception other
than a clean refusal, a warning, more than 10 s or 1.5 GiB, a killed process, or an accepted input that an independent
reading understands otherwise. The last lines give the tally. `--guided` needs atheris (pip install atheris).
"""

from __future__ import annotations

import argparse
import contextlib
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).absolute().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
NAMES = ("manifest", "header", "series", "enhanced", "rtstruct", "lidc", "seg", "volume", "labelmap", "scan")
NAMES += ("segmentation", "store", "part")
TURN = 60
"""Seconds of one process."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=1.0, help="in all (default 1)")
    parser.add_argument("--inputs", type=int, help="for each target, instead of --minutes")
    parser.add_argument("--target", nargs="+", default=NAMES, choices=NAMES, metavar="T", help=", ".join(NAMES))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--finds", type=Path, help="folder for the bytes of finds (default: a temporary one)")
    parser.add_argument("--guided", action="store_true", help="let atheris choose by coverage")
    parser.add_argument("--turn", type=float, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.turn:
        return work(arguments)
    with contextlib.ExitStack() as stack:
        folder = arguments.finds or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder.mkdir(parents=True, exist_ok=True)
        return lead(arguments, folder.absolute())


def lead(arguments: argparse.Namespace, folder: Path) -> int:
    """Give every target its turns and print the tally."""
    from fuzz.worker import Counts

    counts = {name: Counts(folder / f"counts-{name}") for name in arguments.target}
    before = {name: counts[name].values.copy() for name in counts}
    begin, turns = time.monotonic(), 0
    end = begin + 60 * arguments.minutes
    while True:
        for name in arguments.target:
            left = (end - time.monotonic()) / len(arguments.target)
            turn(arguments, folder, name, arguments.seed + turns, min(TURN, max(left, 5)))
        turns += 1
        if arguments.inputs or time.monotonic() > end - 5:
            break
    print(f"{'target':10}" + "".join(f"{word:>10}" for word in Counts.NAMES))
    rows = {name: counts[name].values - before[name] for name in counts}
    for name, row in (rows | {"all": sum(rows.values())}).items():
        print(f"{name:10}" + "".join(f"{value:10}" for value in row))
    print(f"{(time.monotonic() - begin) / 60:.1f} minutes, seeds from {arguments.seed}")
    return int(any(row[-1] for row in rows.values()))


def turn(arguments: argparse.Namespace, folder: Path, name: str, seed: int, seconds: float) -> None:
    """One process of one target; one that is killed, or gives no sign of life, has found something."""
    from fuzz.worker import SECONDS, Counts, save_find

    command = [sys.executable, __file__, "--target", name, "--seed", str(seed), "--finds", str(folder)]
    command += ["--turn", str(seconds), *(["--guided"] if arguments.guided else [])]
    command += ["--inputs", str(arguments.inputs)] if arguments.inputs else []
    current, counts = folder / f"current-{name}", Counts(folder / f"counts-{name}")
    worker = subprocess.Popen(command)
    try:
        start = told = int(counts.values[0])
        since = time.monotonic()
        while worker.poll() is None:
            time.sleep(0.2)
            if counts.values[0] != told:
                told, since = int(counts.values[0]), time.monotonic()
            if time.monotonic() - since > (6 * SECONDS if told > start else 300):  # it begins by compiling
                worker.kill()
    finally:
        worker.kill()
    if worker.wait() not in (0, -signal.SIGINT) and current.exists():
        counts.add("finds")
        about = f"process ended with {worker.returncode} at input {counts.values[0]} of {name}"
        save_find(folder, name, current.read_bytes(), about)


def work(arguments: argparse.Namespace) -> int:
    """Run one target in this process."""
    (name,) = arguments.target
    if arguments.guided:
        import atheris

        with atheris.instrument_imports(include=["ctpatch"]):
            from fuzz.target import accepted
            from fuzz.targets import TARGETS

            import ctpatch.cli  # noqa: F401 - everything below it
    else:
        from fuzz.target import accepted
        from fuzz.targets import TARGETS
    from fuzz.worker import Counts, Judge, limit_memory, run, run_guided

    with tempfile.TemporaryDirectory() as folder:
        target = TARGETS[name](Path(folder))
        for data in target.seeds:
            assert accepted(target, data), "a sound input is refused"
        limit_memory()
        judge = Judge(target, Counts(arguments.finds / f"counts-{name}"), arguments.finds)
        if arguments.guided:
            run_guided(judge, arguments.seed, arguments.turn)
        elif arguments.inputs:
            run(judge, arguments.seed, inputs=arguments.inputs)
        else:
            run(judge, arguments.seed, seconds=arguments.turn)
    return 0


if __name__ == "__main__":
    sys.exit(main())
