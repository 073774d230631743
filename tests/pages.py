"""The pages of the documentation, and their code blocks run as they stand, in order, in one folder per page.

`python` blocks share a namespace; `sh` and `bash` blocks are commands that have to succeed; `console` blocks are
commands after `$ ` with what they print, where `…` stands for anything. What is shown only (`csv`, `text`, …) is not
run. A block that cannot run here has a line `<!-- not run: why -->` before it, one that needs a package `<!-- needs:
package -->`.
"""

from __future__ import annotations

import importlib.util
import io
import re
import shlex
import subprocess
import warnings
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path

from sybil import Example, Sybil
from sybil.evaluators.python import PythonEvaluator
from sybil.parsers.markdown import CodeBlockParser

from ctpatch.cli import main as ctpatch
from mtltrain.cli import main as mtltrain

ROOT = Path(__file__).parents[1]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
COMMANDS = {"ctpatch": ctpatch, "mtltrain": mtltrain}
"""Run within this process by the function that their console script calls: starting Python 60 times takes a minute."""
SHOWN = ("csv", "json", "text", "xml")
MARKER = re.compile(r"<!-- (not run|needs): ([^>]+) -->\n\Z")
PROGRESS = re.compile(r"^(build|check|report|phantom): \d+ of \d+\n", re.MULTILINE)


@dataclass
class Shell:
    """A shell that knows the packages' commands, and the exit status of the last one."""

    status: int = 0

    def succeed(self, example: Example) -> str | None:
        """Evaluate an `sh` block."""
        for line in example.parsed.replace("\\\n", " ").splitlines():
            printed = self.run(line)
            if self.status:
                return f"{line}\nended with {self.status}:\n{printed}"
        return None

    def converse(self, example: Example) -> str | None:
        """Evaluate a `console` block."""
        for command, expected in _dialogue(example.parsed):
            printed = self.run(command)
            pattern = re.escape(" ".join(expected.split())).replace("…", ".*")
            if not re.fullmatch(pattern, " ".join(printed.split())):
                return f"{command}\nprints\n{printed}\nnot\n{expected}"
        return None

    def run(self, line: str) -> str:
        """What a line prints, on either stream."""
        if line == "echo $?":
            return str(self.status)
        if re.search(r"[|<>;&$*]", line) or not (words := shlex.split(line, comments=True)) or words[0] not in COMMANDS:
            done = subprocess.run(line, shell=True, capture_output=True, text=True, executable="/bin/bash")
            self.status = done.returncode
            return done.stdout + done.stderr
        printed = io.StringIO()
        with redirect_stdout(printed), redirect_stderr(printed):
            try:
                self.status = COMMANDS[words[0]](words[1:])
            except SystemExit as end:
                self.status = end.code if isinstance(end.code, int) else 1
        return PROGRESS.sub("", printed.getvalue())


def _dialogue(text: str) -> Iterator[tuple[str, str]]:
    for piece in re.split(r"^\$ ", text.replace("\\\n", " "), flags=re.MULTILINE)[1:]:
        command, _, expected = piece.partition("\n")
        yield command, expected


@dataclass
class Page:
    """A page and what became of its blocks: line numbers."""

    path: Path
    ran: list[int] = field(default_factory=list)
    shown: list[int] = field(default_factory=list)
    not_run: dict[int, str] = field(default_factory=dict)
    lacking: dict[int, str] = field(default_factory=dict)

    def run(self, *, evaluate: bool = True) -> Page:
        """Evaluate the blocks in the present folder, or only look at them."""
        shell = Shell()
        evaluators = {
            "python": PythonEvaluator(),
            "sh": shell.succeed,
            "bash": shell.succeed,
            "console": shell.converse,
        }
        languages = dict(self.blocks())
        parsers = [CodeBlockParser(name, evaluators.get(name, lambda _: None)) for name in {*languages.values()} - {""}]
        document = Sybil(parsers).parse(self.path)
        document.namespace["__name__"] = "__main__"
        for example in document.examples():
            language = languages[example.line]
            kind, word = _marker(document.text, example)
            if language in SHOWN:
                self.shown.append(example.line)
            elif kind == "not run":
                self.not_run[example.line] = word
            elif kind == "needs" and importlib.util.find_spec(word) is None:
                self.lacking[example.line] = word
            else:
                assert language in evaluators, f"{self.path.name}, line {example.line}: blocks of {language!r}"
                with warnings.catch_warnings():
                    if kind == "needs":  # what these packages do with torch and numpy is not ours to mend
                        warnings.simplefilter("ignore")
                    if evaluate:
                        example.evaluate()
                self.ran.append(example.line)
        return self

    def blocks(self) -> list[tuple[int, str]]:
        """Line and language of every fenced block, found without the parser."""
        fences = []
        for number, line in enumerate(self.path.read_text(encoding="utf-8").splitlines(), start=1):
            if fence := re.match(r"\s*```\s*(\S*)", line):
                fences.append((number, fence[1]))
        return fences[::2]


def _marker(text: str, example: Example) -> tuple[str, str]:
    """The kind of marker in the line before a block, and its word."""
    found = MARKER.search(text[: example.region.start])
    return (found[1], found[2]) if found else ("", "")
