"""How fast a store is verified, beside reading it with plain h5py and beside hashing its file, in one run.

    python benchmarks/verify.py STORE [--repeats 5]

`command` is `ctpatch verify` as a whole process; the others run in this one, in turn. MB are 10**6 bytes, of the file
and of the raw data that it inflates to.
"""

from __future__ import annotations

import argparse
import hashlib
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import h5py

from ctpatch import open_store
from ctpatch.store.schema import datasets
from ctpatch.store.verify import verify_store

PIECE = 2**24


def verify(path: Path) -> None:
    """What the command does, without its processes."""
    with open_store(path) as store:
        assert verify_store(store.file) == []


def plain(path: Path) -> None:
    """Every dataset through HDF5's own gzip, hashed as it comes, and the file's bytes hashed."""
    with h5py.File(path) as root:
        for _, dataset in datasets(root):
            digest = hashlib.sha256()
            step = max(1, PIECE // max(1, dataset[:1].nbytes))
            for start in range(0, len(dataset), step):
                digest.update(dataset[start : start + step].tobytes())
    floor(path)


def floor(path: Path) -> None:
    """The file's bytes hashed, nothing inflated."""
    with open(path, "rb") as file:
        hashlib.file_digest(file, "sha256")


def command(path: Path) -> None:
    """The whole command."""
    subprocess.run([sys.executable, "-m", "ctpatch", "verify", path], check=True, stdout=subprocess.DEVNULL)


def timed(function: Callable[[Path], None], path: Path) -> tuple[float, float]:
    """Wall and CPU seconds, those of child processes too."""

    def cpu() -> float:
        return sum(u.ru_utime + u.ru_stime for u in map(resource.getrusage, (resource.RUSAGE_SELF, -1)))

    wall, used = time.perf_counter(), cpu()
    function(path)
    return time.perf_counter() - wall, cpu() - used


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store", type=Path)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    with h5py.File(arguments.store) as root:
        raw = sum(dataset.nbytes for _, dataset in datasets(root)) / 1e6
    size = arguments.store.stat().st_size / 1e6
    print(f"{arguments.store}: {size:.0f} MB, which inflate to {raw:.0f} MB; medians of {arguments.repeats}")
    functions = (command, verify, plain, floor)
    times = [[timed(function, arguments.store) for function in functions] for _ in range(arguments.repeats)]
    print(f"{'':10}{'wall s':>8}{'CPU s':>8}{'file MB/s':>11}{'raw MB/s':>10}")
    for k, function in enumerate(functions):
        wall, cpu = (statistics.median(row[k][i] for row in times) for i in (0, 1))
        print(f"{function.__name__:10}{wall:8.2f}{cpu:8.2f}{size / wall:11.0f}{raw / wall:10.0f}")


if __name__ == "__main__":
    main()
