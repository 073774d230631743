"""What a build costs: `ctpatch build` against an earlier commit and against what people write themselves.

    make bench
    python benchmarks/bench.py [--against PYTHON] [--sts FOLDER] [--demo MANIFEST] [--repeats 7] [--whole]

One JSON line a row. `lesion` rows: one training lesion out of 512 × 512 × 300, built again and again within a process
that has built it before, so without imports and with warm caches; ctpatch and one other take turns. ctpatch makes 300
patches and writes them durably; the others make 100 and write nothing (peers.py). `cohort` rows: whole commands, two
workers, over the sarcomas at `--sts` (17 lesions of each, all the same, for more are not at hand) and the simulated
cohort of `--demo`. Times are medians and peaks maxima; a ratio is how many times ctpatch's wall time of the same turns.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent
STS = HERE.parents[1] / "shared" / "data" / "sts"
SLICES = {"small": 30, "large": 300}
EARLIER = "988454f"
ENVIRONMENT = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "OMP_NUM_THREADS")}
"""With a working directory elsewhere: each interpreter has the ctpatch that is installed for it."""
COPIES = 17
ANSWER = """
import json, resource, sys, time
for line in sys.stdin:
    start, cpu = time.perf_counter(), time.process_time()
    work(line.strip())
    spent = time.perf_counter() - start, time.process_time() - cpu
    print(json.dumps([*spent, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss]), file=sys.__stdout__, flush=True)
"""
CTPATCH = """
import contextlib, io, pathlib, sys
from ctpatch.cli import main
def work(folder):
    out = pathlib.Path(sys.argv[1])
    out.unlink(missing_ok=True)
    words = ["build", "--manifest", folder + "/manifest.csv", "--out", str(out), "--jobs", "1", *sys.argv[2:]]
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        assert main(words) == 0
"""
PEER = """
import contextlib, io, pathlib, sys, warnings
sys.path.insert(0, sys.argv[1])
import peers
warnings.simplefilter("ignore")
def work(folder):
    with contextlib.redirect_stdout(io.StringIO()):
        getattr(peers, sys.argv[2] + "_patches")(pathlib.Path(folder), first=sys.argv[3] == "first")
"""


@dataclass
class Side:
    """One way to build the lesion, in a process of its own that stays; and what it took each time."""

    name: str
    command: Sequence[str]
    repeats: int
    taken: list[tuple[float, float, float]] = field(default_factory=list)

    def start(self, folder: Path) -> None:
        """Import, and build once: the small series where one repeat of the large one is all there is time for."""
        pipe = subprocess.PIPE
        null, options = subprocess.DEVNULL, {"text": True, "env": ENVIRONMENT, "cwd": folder}
        self.process = subprocess.Popen(self.command, stdin=pipe, stdout=pipe, stderr=null, **options)
        for warm in ("small", "large")[: min(2, self.repeats)]:
            self.build(folder / warm)
        self.taken.clear()

    def build(self, folder: Path) -> None:
        """Build once more; nothing is noted when the process has ended (out of memory, say)."""
        try:
            self.process.stdin.write(f"{folder}\n")
            self.process.stdin.flush()
            self.taken.append(tuple(json.loads(self.process.stdout.readline())))
        except (OSError, ValueError):
            self.repeats = 0

    def row(self) -> dict[str, object]:
        """The row's numbers."""
        self.process.communicate()
        if not self.repeats or not self.taken:
            return {"pipeline": self.name, "ended": self.process.returncode}
        wall, cpu, peak = zip(*self.taken, strict=True)
        times = {"wall_ms": 1e3 * statistics.median(wall), "cpu_ms": 1e3 * statistics.median(cpu)}
        return {
            "pipeline": self.name,
            **{k: round(v, 1) for k, v in times.items()},
            "peak_mib": round(max(peak) / 1024),
        }


def builds(python: Sequence[str], scratch: Path, repeats: int) -> list[Side]:
    """ctpatch with and without pictures; `python` is this checkout's interpreter and the earlier commit's, if given."""
    found = []
    for pictures in ([], ["--no-rgb"]):
        for name, interpreter in zip(("ctpatch", EARLIER), python, strict=False):
            words = [str(scratch / f"{name}{len(pictures)}.h5"), *pictures]
            found.append(Side(" ".join([name, *pictures]), [interpreter, "-c", CTPATCH + ANSWER, *words], repeats))
    return found


def meetings(python: Sequence[str], scratch: Path, repeats: int, whole: bool) -> Iterator[list[Side]]:
    """Who takes turns: ctpatch and its earlier self; then it and one other at a time, for some leave a cold cache."""
    yield builds(python, scratch, repeats)
    for peer in ("simpleitk", "torchio", "monai"):
        for way in ("first", "whole")[: 1 + whole]:
            times = 1 if way == "whole" else repeats if peer == "simpleitk" else min(repeats, 3)
            words = [python[0], "-c", PEER + ANSWER, str(HERE), peer, way]
            name = f"{peer} {'crop first' if way == 'first' else 'whole volume'}"
            yield [*builds(python[:1], scratch, times), Side(name, words, times)]


def bench_lesion(scratch: Path, python: Sequence[str], repeats: int, whole: bool) -> None:
    """One lesion by every pipeline."""
    from lesion import write_input

    for size, slices in SLICES.items():
        (scratch / size).mkdir()
        write_input(scratch / size, slices)
    for number, running in enumerate(meetings(python, scratch, repeats, whole)):
        for name, row in in_turn(running, scratch).items():
            if number == 0 or not name.startswith("ctpatch"):
                tell("lesion", row)


def in_turn(running: list[Side], scratch: Path) -> dict[str, dict[str, object]]:
    """The rows of pipelines that take turns, with how many times ctpatch's wall time of the same turns each took."""
    for side in running:
        side.start(scratch)
    for number in range(max(side.repeats for side in running)):
        for side in running:
            if number < side.repeats:
                side.build(scratch / "large")
    rows = {side.name: side.row() for side in running}
    for name, row in rows.items():
        base = {"rgb_": rows["ctpatch"], "hu_": rows["ctpatch --no-rgb"]}
        if name.startswith(EARLIER):
            base = {"": rows[name.replace(EARLIER, "ctpatch")]}
        for key, of in base.items():
            if not name.startswith("ctpatch") and "wall_ms" in row and "wall_ms" in of:
                row[f"{key}ratio"] = round(row["wall_ms"] / of["wall_ms"], 2)
    return rows


def bench_cohort(name: str, manifest: Path, scratch: Path, python: Sequence[str], repeats: int) -> None:
    """Whole commands with two workers, in turn."""
    taken: dict[str, list[tuple[float, float]]] = {}
    for _ in range(repeats):
        for side, interpreter in zip(("ctpatch", EARLIER), python, strict=False):
            out = scratch / f"{name}.{side}.h5"
            out.unlink(missing_ok=True)
            words = [interpreter, "-m", "ctpatch", "build", "--manifest", manifest, "--out", out, "--jobs", 2]
            start = time.perf_counter()
            null = subprocess.DEVNULL
            process = subprocess.Popen(list(map(str, words)), stdout=null, stderr=null, env=ENVIRONMENT, cwd=scratch)
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            assert process.returncode == 0, words
            taken.setdefault(side, []).append((time.perf_counter() - start, usage.ru_utime + usage.ru_stime))
    medians = {
        side: [statistics.median(column) for column in zip(*times, strict=True)] for side, times in taken.items()
    }
    for side, (wall, cpu) in medians.items():
        row = {"pipeline": f"{side} {name}", "wall_s": round(wall, 2), "cpu_s": round(cpu, 2)}
        if side != "ctpatch":
            row["ratio"] = round(wall / medians["ctpatch"][0], 2)
        tell("cohort", row)


def sts_manifest(folder: Path, out: Path) -> Path:
    """Each sarcoma under `folder` as several training lesions, with a copy of its contours each."""
    out.mkdir()
    with open(out / "sts.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("patient_id", "lesion_id", "image", "mask", "roi", "label", "split"))
        for patient in sorted(folder.glob("STS_*")):
            for n in range(COPIES):
                mask = shutil.copy(next((patient / "mask").glob("*.dcm")), out / f"{patient.name}.{n}.dcm")
                writer.writerow((patient.name, n, patient / "image", mask, "GTV_Mass_CT", "sarcoma", "train"))
    return out / "sts.csv"


def tell(kind: str, row: dict[str, object]) -> None:
    """Print a row."""
    print(json.dumps({"row": kind} | row), flush=True)


def main() -> None:
    """Parse, and run what there is input for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    path = os.path.abspath  # the pipelines run in another folder; an environment's links are kept
    parser.add_argument("--against", type=path, help="the interpreter of an environment with the earlier commit")
    parser.add_argument("--sts", type=path, default=STS)
    parser.add_argument("--demo", type=path)
    parser.add_argument("--repeats", type=int, default=7, help="of ctpatch's lesion; the slow ones take three at most")
    parser.add_argument("--rows", choices=("lesion", "sts", "demo"), nargs="+", default=("lesion", "sts", "demo"))
    parser.add_argument("--whole", action="store_true", help="also resample the whole volume: minutes, and tens of GB")
    arguments = parser.parse_args()
    python = [sys.executable, arguments.against][: 1 + bool(arguments.against)]
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        if "lesion" in arguments.rows:
            bench_lesion(scratch, python, arguments.repeats, arguments.whole)
        if "sts" in arguments.rows and Path(arguments.sts).is_dir():
            manifest = sts_manifest(Path(arguments.sts), scratch / "sts")
            bench_cohort("sts", manifest, scratch, python, arguments.repeats)
        if "demo" in arguments.rows and arguments.demo:
            bench_cohort("demo", arguments.demo, scratch, python, min(arguments.repeats, 3))


if __name__ == "__main__":
    main()
