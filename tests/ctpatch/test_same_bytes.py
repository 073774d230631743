"""The same bytes from every process: builds large enough that a compressor which depends on addresses shows itself.

isal's levels 1 and 2 gave another stream for about one buffer in some ten thousand, and small stores never showed it.
"""

import hashlib
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import cohort
import pytest

PROCESSES = 8
LESIONS = 24

COMPRESS = """
import hashlib, numpy as np
from ctpatch.patches.render import render
from ctpatch.store.records import deflate
rng, digest = np.random.default_rng(0), hashlib.sha256()
noise, (rows, columns) = rng.normal(0, 25, 200 * 64 * 64), np.indices((64, 64)) - 32
for n in range(50):
    moved = np.roll(noise, 997 * n).reshape(200, 64, 64)
    patches = (np.where(np.hypot(rows, columns) < 3 + n % 20, 40, -850) + moved).astype("<i2")
    for stream in (*deflate("hu", patches), *deflate("rgb", render(patches[:20]))):
        digest.update(stream)
print(digest.hexdigest())
"""


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    return cohort.write_cohort(tmp_path_factory.mktemp("cohort"), ("train",) * (LESIONS // 2), lesions=2)


def in_processes(run):
    """The different results of a call, each made by a thread that waits for a fresh process."""
    with ThreadPoolExecutor(2) as threads:
        return set(threads.map(run, range(PROCESSES)))


def test_eight_fresh_builds_are_one_file(manifest, tmp_path):
    """With one worker and two, and of a manifest whose rows stand the other way round."""
    header, *rows = manifest.read_text(encoding="utf-8").splitlines()
    turned = manifest.with_name("turned.csv")
    turned.write_text("\n".join([header, *reversed(rows)]), encoding="utf-8")

    def build(n):
        out = tmp_path / f"{n}.h5"
        command = [sys.executable, "-m", "ctpatch", "build", "--manifest", turned if n == 7 else manifest]
        command += ["--out", out, "--no-rgb", "--jobs", 1 + n % 2]
        subprocess.run(list(map(str, command)), check=True, capture_output=True)
        digest = hashlib.sha256(out.read_bytes()).hexdigest()
        out.unlink()
        return digest

    assert len(in_processes(build)) == 1


def test_ten_thousand_patches_and_their_pictures_are_compressed_alike():
    def compress(n):
        return subprocess.run([sys.executable, "-c", COMPRESS], check=True, capture_output=True).stdout

    assert len(in_processes(compress)) == 1
