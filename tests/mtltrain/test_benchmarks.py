"""Benchmarks find what they import, and gpu.py also where there is little but torch: such machines are borrowed."""

import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

ABSENT = ["SimpleITK", "captum", "gdcm", "highdicom", "isal", "jinja2", "joblib", "matplotlib", "nibabel", "openjpeg"]
ABSENT += ["pydicom", "pylibjpeg", "shapely", "sklearn", "statsmodels", "tqdm"]

BARE = f"""
import importlib.machinery, runpy, sys
find = importlib.machinery.PathFinder.find_spec
absent = lambda name, *args: None if name.partition(".")[0] in {ABSENT} else find(name, *args)
importlib.machinery.PathFinder.find_spec = staticmethod(absent)
from mtltrain import models
models.WIDTH = 64
gpu = runpy.run_path(sys.argv[1])
for rows in ("deterministic", "others"):
    sys.argv = [*sys.argv[1:], "--rows", rows]
    if gpu["main"]():
        sys.exit(1)
    sys.argv = ["", *sys.argv[:-2]]
"""


@pytest.mark.parametrize("script", sorted((ROOT / "benchmarks").glob("*.py")), ids=lambda script: script.stem)
def test_each_finds_what_it_imports(script, monkeypatch):
    monkeypatch.syspath_prepend(script.parent)
    try:
        runpy.run_path(str(script))
    except ModuleNotFoundError as error:
        if error.name != "rt_utils":
            raise
        pytest.skip("rt-utils is in the extra [bench]")


def test_gpu_py_on_a_cpu_without_the_other_packages(tmp_path):
    words = ["--device", "cpu", "--steps", "1", "--patches", "32", "--batch", "8", "--workers", "0"]
    script = ROOT / "benchmarks" / "gpu.py"
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": f"{ROOT}:{script.parent}"}
    call = [sys.executable, "-c", BARE, script, *words, "--backbone", "shufflenet_v2_x0_5"]
    done = subprocess.run(call, env=environment, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = {row.pop("row"): row for row in map(json.loads, done.stdout.splitlines())}
    assert rows["machine"]["patches"] == 32
    assert rows["deterministic mtl-ri"] == {"same": True}
    for name in ("eager mtl-ri", "eager stl-ri", "plain mtl-ri 0 workers"):
        assert rows[name]["ms_per_step"] > 0
        per_second = 8000 / rows[name]["ms_per_step"]
        assert rows[name]["patches_per_s"] == pytest.approx(per_second, rel=0.1, abs=0.5)  # it is a whole number
    assert rows["saving mtl-ri"]["copy_s"] < rows["saving mtl-ri"]["write_s"]
    assert {row["left_out"] for name, row in rows.items() if "graph" in name or "compiled" in name} == {"needs a GPU"}
    assert list(tmp_path.iterdir()) == []
