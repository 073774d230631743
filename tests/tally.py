"""Run the corpus of wrong and awkward inputs and print the tally: `make tally`, or `python tests/tally.py [PATH ...]`.

The corpus is every test whose name begins with case numbers (`test_54_55_...`; docs/reliability.md lists the cases).
One test item is one input: files prepared for it, on which a real command runs (`ctpatch` or `mtltrain`, in this
process or another) and whose outcome is asserted. Items that call the library and no command are counted apart.
`test_valid_...` are valid series: they count as refused or wrong, not as inputs.

The items run in a child process with a time limit each, so that a crash or a hang is a line of the tally, not its end.
"""

from __future__ import annotations

import argparse
import faulthandler
import functools
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

SECTIONS = {
    "A geometry": range(1, 25),
    "B pixels and numbers": range(25, 45),
    "C contours": range(45, 73),
    "D LIDC XML": range(73, 84),
    "E masks, DICOM SEG": range(84, 91),
    "F manifest and lesions": range(91, 112),
    "G stores": range(112, 133),
    "H privacy, security": range(133, 141),
    "I trainer": range(141, 157),
    "J everyday files": range(157, 203),
    "K clusters": range(210, 225),
}
CASES = [case for cases in SECTIONS.values() for case in cases]
KINDS = {
    "right": "right",
    "store": "wrong stores",
    "traceback": "tracebacks",
    "hang": "hangs",
    "crash": "crashes",
    "refusal": "wrong refusals",
    "other": "other failures",
}
LIMIT_S = 60.0
_COMMAND = re.compile(r"(^|/)(ctpatch|mtltrain)$|\b(ctpatch|mtltrain)\.cli\b")


def cases_of(name: str) -> tuple[int, ...]:
    """The case numbers a test's name begins with."""
    match = re.match(r"test_((?:\d+_)+)", name)
    return tuple(int(number) for number in match[1].split("_") if number) if match else ()


def section_of(case: int) -> str:
    return next(name for name, cases in SECTIONS.items() if case in cases)


# -- In the child: which items, and what came of each -------------------------------------------------------------


class Hang(BaseException):
    """An item ran longer than its limit; not an Exception, so that no handler takes it for a failed decoder."""


class Tally:
    """A pytest plugin that keeps only the corpus and writes a line of JSON per item."""

    def __init__(self, path: Path, limit: float = LIMIT_S, done: Sequence[str] = ()) -> None:
        self.path, self.limit, self.done = path, limit, set(done)
        self.commands: list[tuple[tuple[str, ...], int | None]] = []
        self.raised = False
        self.kind = "right"

    def pytest_configure(self) -> None:
        import ctpatch.cli
        import mtltrain.cli

        for module in (ctpatch.cli, mtltrain.cli):
            module.main = self.watched(module.main)  # before any test module takes the name from there
        sys.addaudithook(self.see_process)

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items[:] = [item for item in items if is_corpus(item) and item.nodeid not in self.done]

    def watched(self, main: Callable[..., int]) -> Callable[..., int]:
        """`main`, with its calls, their statuses and what came out of it noted."""

        @functools.wraps(main)
        def call(argv: Sequence[str] | None = None) -> int:
            words, status = tuple(map(str, argv or ())), None
            try:
                status = main(argv)
            except SystemExit as error:
                status = error.code if isinstance(error.code, int) else 1
                raise
            except Exception:
                self.raised = True
                raise
            finally:
                self.saw(words, status)
            return status

        return call

    def see_process(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "subprocess.Popen" and any(_COMMAND.search(str(word)) for word in arguments[1]):
            self.saw(tuple(map(str, arguments[1])), None)

    def saw(self, words: tuple[str, ...], status: int | None) -> None:
        """A command came to its end with this status; None when that is not known."""
        self.commands.append((words, status))

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        self.commands, self.raised, self.kind = [], False, "right"
        self.write({"start": item.nodeid, "name": item.name, "time": time.time()})
        result = yield
        self.write({"item": item.nodeid, "name": item.name, "kind": self.kind, "commands": len(self.commands)})
        return result

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self) -> Iterator[None]:
        # where no signal is heard, in C
        faulthandler.dump_traceback_later(1.5 * self.limit + 5, exit=True, file=sys.__stderr__)
        signal.signal(signal.SIGALRM, self.stop)
        signal.setitimer(signal.ITIMER_REAL, self.limit)
        try:
            return (yield)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            faulthandler.cancel_dump_traceback_later()

    def stop(self, *_: Any) -> None:
        raise Hang(f"longer than {self.limit:g} s")

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
        report = yield
        if report.skipped:
            self.kind = "skipped"
        elif report.failed and self.kind == "right":
            self.kind = self.kind_of(call.excinfo)
        return report

    def kind_of(self, failure: Any) -> str:
        """What went wrong, from the exception and the last command's status."""
        if failure.errisinstance(Hang):
            return "hang"
        if self.raised or "Traceback (most recent call last)" in str(failure.value):
            return "traceback"
        statuses = [status for words, status in self.commands if "build" in words or "fit" in words]
        if statuses and statuses[-1] == 0:  # a store, where there should be none or not this one
            return "store"
        due = any("refus" in entry.name for entry in failure.traceback)
        return "refusal" if statuses and not due else "other"

    def write(self, record: dict[str, Any]) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")


def is_corpus(item: pytest.Item) -> bool:
    return bool(cases_of(item.name)) or item.name.startswith("test_valid_")


# -- In the parent: child processes until every item has run ------------------------------------------------------


def run(paths: Sequence[str], limit: float) -> tuple[list[dict[str, Any]], str]:
    """Every item's record, and what pytest printed of those that are not right."""
    with tempfile.TemporaryDirectory() as folder:
        path, printed, records, done = Path(folder, "items.jsonl"), "", [], -1
        while len(records) > done:  # a child that died takes one item with it; the next one goes on
            done = len(records)
            child = _child(path, paths, limit)
            records = _records(path, limit)
            if child.returncode not in (0, 5):
                printed += child.stdout + child.stderr
            if child.returncode in (0, 1, 5) and _finished(path):
                return records, printed
            if child.returncode in (2, 3, 4):
                break
        sys.exit(f"{printed}\ntally: pytest did not run to its end")


def _child(path: Path, paths: Sequence[str], limit: float) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, __file__, "--child", str(path), "--limit", str(limit), *paths]
    return subprocess.run(words, capture_output=True, text=True)


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def _finished(path: Path) -> bool:
    lines = _lines(path)
    return bool(lines) and "end" in lines[-1]


def _records(path: Path, limit: float) -> list[dict[str, Any]]:
    """The items' records; one that began and did not end crashed, or hung where no signal was heard."""
    lines = _lines(path)
    ended = {line["item"] for line in lines if "item" in line}
    lost = [line for line in lines if "start" in line and line["start"] not in ended]
    with path.open("a", encoding="utf-8") as file:
        for line in lost:
            kind = "hang" if time.time() - line["time"] > limit else "crash"
            record = {"item": line["start"], "name": line["name"], "kind": kind, "commands": 1}
            file.write(json.dumps(record) + "\n")
    return [line for line in _lines(path) if "item" in line]


def child(path: Path, paths: Sequence[str], limit: float) -> int:
    """Run what has not run yet."""
    root = Path(__file__).parents[1]
    sys.path[:1] = [str(root), str(root / "tests")]  # the packages before the folders of tests named like them
    plugin = Tally(path, limit, [line["item"] for line in _lines(path) if "item" in line])
    status = pytest.main(
        ["-q", "--tb=short", "-p", "no:cacheprovider", "-c", "pyproject.toml", *paths], plugins=[plugin]
    )
    plugin.write({"end": int(status)})
    return int(status)


# -- The tally ----------------------------------------------------------------------------------------------------


def report(records: Sequence[dict[str, Any]]) -> list[str]:
    """The table and its last line."""
    corpus = [record for record in records if cases_of(record["name"]) and record["kind"] != "skipped"]
    inputs = [record for record in corpus if record["commands"]]
    others = [record for record in corpus if not record["commands"]]
    lines = [f"{'section':24}{'cases':>9}{'inputs right':>16}{'library calls right':>22}"]
    for name, cases in SECTIONS.items():
        covered = f"{len(covered_by(corpus) & set(cases))}/{len(cases)}"
        lines.append(f"{name:24}{covered:>9}{_right(inputs, name):>16}{_right(others, name):>22}")
    lines += [f"{KINDS[r['kind']]}: {r['item']}" for r in records if r["kind"] not in ("right", "skipped")]
    lines += [f"skipped: {r['item']}" for r in records if r["kind"] == "skipped"]
    lines.append(f"without an input: {_listed(set(CASES) - covered_by(corpus))}")
    lines.append(f"through the library, not a command: {_listed(covered_by(others) - covered_by(inputs))}")
    return [*lines, *_valid(records), _last_line(inputs, len(covered_by(inputs)))]


def _last_line(inputs: Sequence[dict[str, Any]], covered: int) -> str:
    count = Counter(record["kind"] for record in inputs)
    wrong = ", ".join(f"{count[kind]} {words}" for kind, words in KINDS.items() if kind != "right")
    return f"{count['right']}/{len(inputs)} inputs right over {covered} of {len(CASES)} cases; {wrong}"


def _valid(records: Sequence[dict[str, Any]]) -> list[str]:
    kinds = [record["kind"] for record in records if not cases_of(record["name"])]
    refused = kinds.count("refusal")
    wrong = len(kinds) - refused - kinds.count("right")
    return [f"valid series: {refused} of {len(kinds)} refused, {wrong} wrong"] if kinds else []


def covered_by(records: Sequence[dict[str, Any]]) -> set[int]:
    return {case for record in records for case in cases_of(record["name"])} & set(CASES)


def _right(records: Sequence[dict[str, Any]], section: str) -> str:
    kinds = [record["kind"] for record in records if section_of(cases_of(record["name"])[0]) == section]
    return f"{kinds.count('right')}/{len(kinds)}"


def _listed(cases: set[int]) -> str:
    return ", ".join(map(str, sorted(cases))) or "none"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", nargs="*", default=["tests"])
    parser.add_argument("--limit", type=float, default=LIMIT_S, metavar="S", help="seconds for one item (default 60)")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    os.chdir(Path(__file__).parents[1])
    if arguments.child:
        return child(arguments.child, arguments.paths, arguments.limit)
    records, printed = run(arguments.paths, arguments.limit)
    sys.stdout.write("\n".join([*([printed] if printed else []), *report(records), ""]))
    return int(any(record["kind"] not in ("right", "skipped") for record in records))


if __name__ == "__main__":
    sys.exit(main())
