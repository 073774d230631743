"""`make oldest` runs the tests with the lower bounds that pyproject declares; here the two are held together."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_46_the_oldest_versions_tested_are_the_lower_bounds_declared() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    declared = [*project["dependencies"], *project["optional-dependencies"]["dask"]]
    bounds = dict(dependency.split(">=") for dependency in declared)
    bounds["dask"] = bounds["distributed"]  # which takes the one of its own version
    pinned = dict(line.split("==") for line in (ROOT / "tests" / "oldest.txt").read_text(encoding="utf-8").splitlines())
    assert pinned.keys() == bounds.keys()
    for name, version in pinned.items():
        assert re.fullmatch(re.escape(bounds[name]) + r"(\.0)*", version), name
