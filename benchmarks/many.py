"""What one of very many lesions costs: computing it in a job that is under way, and adding it to the store.

    python benchmarks/many.py --slices 300 --lesions 30

Writes the 512 × 512 × `--slices` series of `lesion.py` and two manifests of it, of one training lesion and of
`--lesions` more under other names. `ctpatch build --shard 1/1` on each computes the parts, and the `build` that follows
puts the store together. The difference of the two manifests is what a lesion costs without the start of the command;
medians of `--repeats`, with pictures and without, one process, files in the system's cache.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from lesion import write_input


def write_manifests(folder: Path, slices: int, lesions: int) -> None:
    """`1.csv`, and another with so many more; each row has the series under a name of its own."""
    write_input(folder, slices)
    for count in (1, 1 + lesions):
        rows = [f"P1,{i},ct{i},rs.dcm,GTV,T3,train\n" for i in range(count)]
        (folder / f"{count}.csv").write_text("patient_id,lesion_id,image,mask,roi,label,split\n" + "".join(rows))
    for i in range(1 + lesions):
        (folder / f"ct{i}").symlink_to("ct")


def run(manifest: Path, out: Path, *more: str) -> tuple[float, float]:
    """Wall and CPU seconds of a build."""
    command = [sys.executable, "-m", "ctpatch", "build", "--manifest", str(manifest), "--out", str(out), *more]
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def measure(folder: Path, lesions: int, repeats: int, *more: str) -> str:
    """A line of the table."""
    out, seconds, size = folder / "o.h5", {}, {}
    for _ in range(repeats):
        for count in (1, 1 + lesions):
            for step in ("--shard=1/1", "--seed=0"):
                seconds.setdefault((count, step), []).append(run(folder / f"{count}.csv", out, *more, step))
            size[count] = out.stat().st_size
            out.unlink()
    medians = {
        key: [statistics.median(column) for column in zip(*pairs, strict=True)] for key, pairs in seconds.items()
    }
    each = [
        (medians[1 + lesions, step][i] - medians[1, step][i]) / lesions
        for step in ("--shard=1/1", "--seed=0")
        for i in (0, 1)
    ]
    stored = (size[1 + lesions] - size[1]) / lesions / 1e6
    return "".join(f"{value:12.3f}" for value in (*each, medians[1, "--shard=1/1"][1], stored))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slices", type=int, default=300)
    parser.add_argument("--lesions", type=int, default=30)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    titles = ("compute s", "its CPU s", "add s", "its CPU s", "first CPU s", "MB")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_manifests(folder, arguments.slices, arguments.lesions)
        print(f"{'':10}" + "".join(f"{title:>12}" for title in titles))
        for more in ((), ("--no-rgb",)):
            told = measure(folder, arguments.lesions, arguments.repeats, *more)
            print(f"{' '.join(more) or 'pictures':10}{told}", flush=True)


if __name__ == "__main__":
    main()
