"""What the pages list is what the code has: columns, accept words, options, datasets, recipe, kinds and messages."""

from __future__ import annotations

import argparse
import ast
import re
from dataclasses import fields
from functools import cache
from pathlib import Path

import numpy as np
import pytest

import ctpatch
import mtltrain
from ctpatch import options
from ctpatch.manifest import ACCEPTED, COLUMNS
from ctpatch.recipe import Recipe
from ctpatch.store import schema
from mtltrain import cli as trainer

DOCS = Path(__file__).parents[2] / "docs"
COMMANDS = {"ctpatch": options.parser(), "mtltrain": trainer._parser()}


def section(page: str, title: str) -> str:
    """The text below a heading up to the next one of any level."""
    text = (DOCS / page).read_text(encoding="utf-8")
    found = re.search(rf"^#+ {re.escape(title)}\n(.*?)(?=^#+ |\Z)", text, re.MULTILINE | re.DOTALL)
    assert found, f"{page} has no section {title}"
    return found[1]


def rows(text: str) -> list[list[str]]:
    """The cells of each row of the tables in a text, without their heads."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    heads = {i - 1 for i, line in enumerate(lines) if set(line) <= set("|-")}
    return [row for i, row in enumerate(cells) if i not in heads and not set(lines[i]) <= set("|-")]


def codes(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def names(table: list[list[str]]) -> list[str]:
    return [code for row in table for code in codes(row[0])]


def test_manifest_columns() -> None:
    assert sorted(names(rows(section("manifest.md", "Columns")))) == sorted([*COLUMNS, "aux_*"])


def test_accept_words() -> None:
    table = rows(section("manifest.md", "Accept"))
    assert names(table) == list(ACCEPTED)
    assert all(len(row) == 4 and all(row) for row in table)


def subcommands(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    (action,) = (a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    return dict(action.choices)


def test_every_command_has_a_section() -> None:
    titles = re.findall(r"^## (.*)$", (DOCS / "commands.md").read_text(encoding="utf-8"), re.MULTILINE)
    listed = [title for heading in titles for title in heading.split(", ")]
    assert sorted(listed) == sorted(
        f"{program} {name}" for program, parser in COMMANDS.items() for name in subcommands(parser)
    )


@pytest.mark.parametrize(
    "commands",
    [
        *("ctpatch build", "ctpatch check", "ctpatch report", "ctpatch info, ctpatch verify", "ctpatch scan"),
        *("ctpatch phantom", "mtltrain fit", "mtltrain predict", "mtltrain compare"),
    ],
)
def test_options(commands: str) -> None:
    table = rows(section("commands.md", commands))
    options: set[str] = set()
    for command in commands.split(", "):
        program, name = command.split()
        actions = subcommands(COMMANDS[program])[name]._actions
        options |= {flag for a in actions for flag in a.option_strings} - {"-h", "--help"}
        for action in actions:
            if action.option_strings and len(table) > 1:
                assert_default(table, action)
    assert {code for code in names(table) if code.startswith("-")} == options


def assert_default(table: list[list[str]], action: argparse.Action) -> None:
    """A number that the code has as its default stands in the second column."""
    for row in table:
        if len(row) == 3 and action.option_strings[-1] in codes(row[0]) and not isinstance(action.default, bool):
            if isinstance(action.default, int | float):
                assert float(row[1]) == action.default, row
            elif isinstance(action.default, str):
                assert row[1] == action.default, row


@pytest.mark.parametrize(("title", "group"), [("Patches", schema.PATCHES), ("Lesions", schema.LESIONS)])
def test_datasets(title: str, group: dict[str, schema.Column]) -> None:
    listed = [row for row in rows(section("store.md", title)) if len(row) == 5]
    expected = {name: described(column) for name, column in group.items()}
    if title == "Lesions":
        expected |= {"aux/<name>": described(schema.AUX)}
        skipped = {name: described(column) for name, column in schema.SKIPPED.items()}
        assert {codes(row[0])[0]: tuple(row[1:3]) for row in listed[-3:]} == {
            name: (kind, "(S,)") for name, (kind, _) in skipped.items()
        }
        listed = listed[:-3]
    letter = "N" if title == "Patches" else "L"
    assert {codes(row[0])[0]: tuple(row[1:3]) for row in listed} == {
        name: (kind, f"({letter},{tail})") for name, (kind, tail) in expected.items()
    }


def described(column: schema.Column) -> tuple[str, str]:
    kind = column.dtype if column.dtype == schema.TEXT else np.dtype(column.dtype).name
    return kind, "".join(f" {n}," for n in column.tail).rstrip(",")


def test_recipe_keys() -> None:
    listed = [row for row in rows(section("store.md", "Documents")) if len(row) == 2]
    assert set(names(listed)) == {*Recipe().document(), "rows"}
    assert {field.name for field in fields(Recipe)} == set(codes(listed[0][0]))


def test_windows_and_version() -> None:
    text = (DOCS / "store.md").read_text(encoding="utf-8").replace("−", "-")
    assert "[-800, -200], [-200, 400], [-1000, 400] HU" in text
    assert f"| `/` | `version` | {schema.VERSION} |" in text


# ---------------------------------------------------------------- errors


@cache
def sources() -> list[ast.Module]:
    paths = [path for package in (ctpatch, mtltrain) for path in Path(package.__file__).parent.rglob("*.py")]
    return [ast.parse(path.read_text(encoding="utf-8")) for path in paths]


def kinds() -> set[str]:
    """Every `kind=` of an `InputError`; where it is a variable, what its function may put into that."""
    found: set[str] = set()
    for tree in sources():
        for function in (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)):
            for node in ast.walk(function):
                if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "InputError":
                    for value in (keyword.value for keyword in node.keywords if keyword.arg == "kind"):
                        found |= _values(value, function)
    return found


def _values(value: ast.expr, function: ast.FunctionDef) -> set[str]:
    if isinstance(value, ast.Constant):
        return {str(value.value)}
    if isinstance(value, ast.Attribute):  # another error's, passed on
        assert value.attr == "kind"
        return set()
    assert isinstance(value, ast.Name)
    choices = [
        node.value
        for node in ast.walk(function)
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == value.id
    ]
    parts = [part for choice in choices if isinstance(choice, ast.IfExp) for part in (choice.body, choice.orelse)]
    assert parts
    return {str(part.value) for part in parts if isinstance(part, ast.Constant)}


def texts() -> str:
    """All string constants, those of one f-string with … for what is filled in."""
    parts = []
    for tree in sources():
        for node in ast.walk(tree):
            if isinstance(node, ast.JoinedStr):
                parts.append("".join(v.value if isinstance(v, ast.Constant) else "…" for v in node.values))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                parts.append(node.value)
    return "\n".join(parts)


def errors() -> list[list[str]]:
    text = (DOCS / "errors.md").read_text(encoding="utf-8")
    return [row for row in rows(text) if len(row) == 3]


def test_kinds() -> None:
    listed = {row[1] for row in errors()} - {""}
    assert listed == kinds()


def test_messages() -> None:
    known, listed = texts(), [code for row in errors() for code in codes(row[0])]
    assert len(listed) > 60
    assert [code for code in listed if code not in known] == []
