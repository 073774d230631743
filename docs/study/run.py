"""Train the study's cells, the most valuable first: what is finished is skipped, what was begun goes on.

    python docs/study/run.py --root study --crops ../shared/data/lidc_crops --jobs 2 --until 16:20
    python docs/study/run.py --root study --beyond     # only what docs/study/predictions/ does not hold yet

`study/cohorts/agc` and `ggn` hold what `ctpatch phantom` made of the manifests; while a cohort is not there, its cells
wait. `study/lite0.safetensors` is made by docs/examples/efficientnet_lite0.py.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import stores
from design import BACKBONE, EPOCHS, POSITIVE, SETTINGS, SHARES, WEIGHED, Cell, cells
from predictions import holds, read_predictions

from ctpatch import CtpatchError

Running = dict[str, tuple[Cell, subprocess.Popen[bytes]]]
"""The `mtltrain fit` at work in each run folder."""


def main() -> None:
    """Work through the list until it, or the time, is at its end; exit 1 where a cell failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, default=Path("study"))
    parser.add_argument("--crops", type=Path, default=Path("../shared/data/lidc_crops"))
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--until", help="HH:MM: stop then; the next call goes on from the last finished epochs")
    parser.add_argument("--beyond", action="store_true", help="leave out the cells that predictions/ holds")
    parser.add_argument("--list", action="store_true", help="print the cells, and which are done")
    args = parser.parse_args()
    published = read_predictions(Path(__file__).parent / "predictions") if args.beyond else {}
    wanted = [cell for cell in cells() if not holds(published, cell)]
    if args.list:
        for cell in wanted:
            print("done" if done(cell, args.root) else "    ", cell.folder, "seed", cell.seed, *cell.archs)
        return
    failed = work(wanted, args.root, args.crops, args.jobs, _end(args.until))
    sys.exit(bool(failed))


def done(cell: Cell, root: Path) -> bool:
    """Whether all its runs are finished and evaluated."""
    folder = root / "runs" / cell.folder
    each = (folder / arch / f"seed-{cell.seed}" / "predictions.csv" for arch in cell.archs)
    return all(path.exists() for path in each) and (folder / "metrics.json").exists()


def ready(cell: Cell, root: Path) -> bool:
    """Whether its cohort is there: LIDC always, a simulated one when its manifest is beside it."""
    return cell.cohort == "lidc" or (root / "cohorts" / cell.cohort / f"{cell.cohort}.csv").exists()


def following(wanted: Sequence[Cell], root: Path, running: Running, failed: set[Cell]) -> Cell | None:
    """The first cell that is neither done, nor failed, nor in a folder at work, nor of a cohort not there yet."""
    for cell in wanted:
        if cell not in failed and cell.folder not in running and ready(cell, root) and not done(cell, root):
            return cell
    return None


def work(wanted: Sequence[Cell], root: Path, crops: Path, jobs: int, end: float) -> set[Cell]:
    """Keep `jobs` trainings at work until `end` (seconds since 1970); the cells that failed."""
    running: Running = {}
    failed: set[Cell] = set()
    while time.time() < end:
        for folder, (cell, process) in list(running.items()):
            if process.poll() is not None:
                del running[folder]
                failed |= {cell} if process.returncode else set()
                _tell(f"{'failed' if process.returncode else 'done'} {folder} seed {cell.seed}")
        cell = following(wanted, root, running, failed) if len(running) < jobs else None
        if cell:
            try:
                running[cell.folder] = cell, _begin(cell, root, crops)
            except (CtpatchError, OSError, subprocess.CalledProcessError) as error:  # its store cannot be made
                failed.add(cell)
                _tell(f"failed {cell.folder} seed {cell.seed}: {error}")
        elif not running:
            break
        else:
            time.sleep(2)
    for _, process in running.values():
        process.terminate()  # not SIGINT, which what runs in the background may have been told to ignore
        process.wait()
    return failed


def call(cell: Cell, root: Path, store: Path, crops: Path) -> list[str]:
    """The cell's `mtltrain fit`."""
    args = [str(store), "--out", str(root / "runs" / cell.folder), "--arch", *cell.archs, "--seeds", str(cell.seed)]
    args += ["--backbone", BACKBONE[cell.backbone], *SETTINGS[cell.backbone], "--positive", POSITIVE[cell.cohort]]
    if any(arch.endswith("tl") for arch in cell.archs):
        args += ["--weights", str(root / "lite0.safetensors")]
    if cell.variant in EPOCHS:
        args += ["--epochs", EPOCHS[cell.variant], "--patience", EPOCHS[cell.variant]]
    if cell.variant in SHARES:
        args += ["--m", SHARES[cell.variant]]
    if cell.variant in WEIGHED:
        unchanged = stores.make(replace(cell, variant="main"), root, crops)
        args += ["--tasks", *stores.tasks(unchanged, POSITIVE[cell.cohort], cell.variant)]
    return [str(Path(sys.executable).with_name("mtltrain")), "fit", *args]


def _begin(cell: Cell, root: Path, crops: Path) -> subprocess.Popen[bytes]:
    store = stores.make(cell, root, crops)
    command = call(cell, root, store, crops)
    logs = root / "logs"
    logs.mkdir(exist_ok=True)
    _tell(f"begins {cell.folder} seed {cell.seed}")
    with open(logs / f"{cell.folder.replace('/', '-')}-seed-{cell.seed}.log", "ab") as log:
        log.write((" ".join(command) + "\n").encode())
        log.flush()
        return subprocess.Popen(command, stdout=log, stderr=log, env=os.environ | {"OMP_NUM_THREADS": "1"})


def _end(until: str | None) -> float:
    if until is None:
        return float("inf")
    hours, minutes = map(int, until.split(":"))
    now = datetime.now().astimezone()
    end = now.replace(hour=hours, minute=minutes, second=0, microsecond=0)
    return (end if end > now else end + timedelta(days=1)).timestamp()


def _tell(line: str) -> None:
    print(f"{datetime.now():%H:%M:%S} {line}", flush=True)


if __name__ == "__main__":
    main()
