"""The tally counts what goes wrong as what it is: the product is broken on purpose, one way per item."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SABOTAGED = """
import os, time
import awkward
import pytest
from ctpatch.errors import InputError
from ctpatch.images import ct_image

def wrong(*_):
    return 1 / 16 + 0.01

def test_1_right(tmp_path):
    ct = awkward.case(tmp_path)
    awkward.assert_linear(awkward.built(tmp_path), ct)

def test_2_wrong_values(tmp_path, monkeypatch):
    monkeypatch.setattr(ct_image, "rescale_slope", wrong)
    ct = awkward.case(tmp_path)
    awkward.assert_linear(awkward.built(tmp_path), ct)

def test_27_a_store_that_should_be_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(ct_image, "rescale_slope", wrong)
    awkward.case(tmp_path, edit=awkward.only(8, RescaleSlope="0"))
    awkward.refused(tmp_path, "RescaleSlope is 0")

@pytest.mark.parametrize("what", ["traceback", "hang", "crash", "refusal"])
def test_4_5_broken(tmp_path, monkeypatch, what):
    def broken(*_):
        if what == "traceback":
            raise ZeroDivisionError
        if what == "hang":
            time.sleep(600)
        if what == "crash":
            os.abort()
        raise InputError("nothing is wrong", "nothing")

    monkeypatch.setattr(ct_image, "rescale_slope", broken)
    awkward.case(tmp_path)
    awkward.built(tmp_path)

def test_6_refused_in_other_words(tmp_path):
    awkward.case(tmp_path, edit=awkward.only(8, RescaleSlope="0"))
    awkward.refused(tmp_path, "words that nobody said")

def test_141_the_library_only():
    pass

def test_142_skipped():
    pytest.skip("not here")

@pytest.mark.parametrize("slope", [0.0625, 0])
def test_valid_series(tmp_path, monkeypatch, slope):
    ct = awkward.case(tmp_path, edit=awkward.only(8, RescaleSlope=str(slope)))
    awkward.assert_linear(awkward.built(tmp_path), ct)

def test_of_something_else():
    raise AssertionError("not in the corpus")
"""
LINES = """
A geometry 5/24 1/7 0/0
B pixels and numbers 1/20 0/1 0/0
I trainer 1/16 0/0 1/1
through the library, not a command: 141
valid series: 1 of 2 refused, 0 wrong
"""
LAST = (
    "1/8 inputs right over 6 of 217 cases; 2 wrong stores, 1 tracebacks, 1 hangs, 1 crashes, 1 wrong refusals, "
    "1 other failures"
)


def test_every_kind_of_failure_is_counted(tmp_path: Path) -> None:
    (tmp_path / "test_sabotaged.py").write_text(SABOTAGED, encoding="utf-8")
    script = Path(__file__).parents[1] / "tally.py"
    words = [sys.executable, str(script), "--limit", "8", str(tmp_path / "test_sabotaged.py")]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 1
    printed = [" ".join(line.split()) for line in done.stdout.splitlines()]
    for line in [*LINES.strip().splitlines(), LAST]:
        assert " ".join(line.split()) in printed, done.stdout + done.stderr
    for kind, name in (("hangs", "[hang]"), ("crashes", "[crash]"), ("tracebacks", "[traceback]")):
        assert any(line.startswith(f"{kind}: ") and line.endswith(name) for line in printed)


def test_a_corpus_that_is_right_ends_with_0(tmp_path: Path) -> None:
    (tmp_path / "test_one.py").write_text("def test_46_it():\n    pass\n", encoding="utf-8")
    words = [sys.executable, str(Path(__file__).parents[1] / "tally.py"), str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0/0 inputs right over 0 of 217 cases; 0 wrong stores, 0 tracebacks, 0 hangs" in done.stdout


def test_what_cannot_be_collected_is_no_tally(tmp_path: Path) -> None:
    (tmp_path / "test_one.py").write_text("import nothing_of_this_name\n", encoding="utf-8")
    words = [sys.executable, str(Path(__file__).parents[1] / "tally.py"), str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 1
    assert "inputs right" not in done.stdout
