"""The rooms of mtltrain in the order in which the data flows; of ctpatch it knows the store only."""

import ast
from pathlib import Path

import mtltrain

PACKAGE = Path(mtltrain.__file__).parent
ORDER = [
    *("data", "cohort", "tasks", "weights", "checkpoints", "backbones", "models", "metrics", "clinical", "device"),
    *("graph", "fit"),
    *("files", "scores", "compare", "tables", "attention", "confusion", "figures", "cases", "report", "cards"),
    *("pool", "external", "folder", "cli", "__main__"),
]
"""Each imports only what stands before it, and from the package itself its settings and version."""


def imports(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            yield from (f"{module}{'' if module == '.' else ':'}{name.name}" for name in node.names)
        elif isinstance(node, ast.Import):
            yield from (name.name for name in node.names)


def test_of_ctpatch_only_the_reader():
    used = {name for path in PACKAGE.glob("*.py") for name in imports(path) if name.startswith("ctpatch")}
    reader = ("open_store", "PatchStore", "SPLITS", "WINDOWS")
    rendering = ("network_input", "Rendering", "Windows", "Normalisation", "IMAGENET")
    errors = ("CtpatchError", "InputError", "one_line")
    cards = ("data_card", "flow", "markdown", "markdown_table")
    shared = ("patient_key", "guarded", "unguarded", "replacing", "lock", "unlock")  # each stands once
    assert used == {f"ctpatch.store:{name}" for name in (*reader, *rendering, *errors, *cards, *shared)}


def test_one_direction():
    assert {path.stem for path in PACKAGE.glob("*.py")} == {*ORDER, "__init__"}
    for path in PACKAGE.glob("*.py"):
        for name in imports(path):
            if name.startswith(".") and name[1:] not in mtltrain.__all__:
                assert path.stem in ORDER, f"{path.name}: {name}"
                assert ORDER.index(name.strip(".").split(":")[0]) < ORDER.index(path.stem), f"{path.name}: {name}"
