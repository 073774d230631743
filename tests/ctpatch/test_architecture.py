"""One direction, no cycles: what each module may import, read from the source."""

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

ORDER = [
    "errors",
    "notes",
    "compiled",
    "geometry",
    "images.image",
    "recipe",
    "manifest",
    "processes",
    "dicom",
    "images",
    "lesion.raster",  # LIDC-IDRI's lesions are clustered by the voxels that their outlines share
    "contours",
    "lesion",
    "patches",
    "store.schema",
    "store.records",
    "store.chunks",
    "store.pictures",
    "store.verify",
    "store.disk",
    "store.views",
    "store.reader",
    "store.card",
    "store.writer",
    "store",
    "build.one_lesion",
    "build.parts",
    "build.plans",
    "build.shards",
    "build.elsewhere",
    "build.environment",
    "build.workers",
    "build.on_worker",
    "build.cluster",
    "build.engine",
    "build.assembly",
    "build.run",
    "build.check",
    "build",
    "scan",
    "phantom",
    "report",
    "",  # the package itself: `import ctpatch`
    "options",
    "cli",
    "__main__",
]
"""ctpatch's modules in the order in which the data flows: each imports only what stands before it.

A folder's name stands for those of its modules that are not named themselves.
"""


def modules(package):
    """Path of each module by its name within the package."""
    found = {}
    for path in sorted((ROOT / package).rglob("*.py")):
        parts = path.relative_to(ROOT / package).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports_of(path, package, name):
    """Absolute dotted names imported anywhere in a module, `from x import y` as x.y; not those for type checkers."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    here = ".".join(part for part in (package, name) if part).split(".")
    if path.name != "__init__.py":
        here = here[:-1]
    found = set()
    for node in runtime_nodes(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = here[: len(here) - node.level + 1] if node.level else []
            base = [*base, *([node.module] if node.module else [])]
            found |= {".".join([*base, alias.name]) for alias in node.names}
    return found


def runtime_nodes(tree):
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            continue
        yield node
        yield from runtime_nodes(node)


def graph(package):
    """For each module of a package the modules of the package that it imports."""
    known = modules(package)
    edges = {}
    for name, path in known.items():
        edges[name] = set()
        for imported in imports_of(path, package, name):
            if imported != package and not imported.startswith(f"{package}."):
                continue
            inner = imported.removeprefix(package).removeprefix(".")
            while inner not in known:  # from module import name
                inner = inner.rpartition(".")[0]
            edges[name].add(inner)
        edges[name] -= {name}
    return edges


@pytest.mark.parametrize("package", ["ctpatch", "mtltrain"])
def test_no_import_cycles(package):
    if not (ROOT / package).is_dir():
        pytest.skip(f"{package} is not here")
    edges = graph(package)
    # a package's __init__ gathers what its own modules define; they in turn never go back through it
    try:
        tuple(TopologicalSorter(edges).static_order())
    except CycleError as error:
        pytest.fail(f"import cycle: {' -> '.join(error.args[1])}")


def rank(name):
    while name not in ORDER:
        name = name.rpartition(".")[0]
    return ORDER.index(name)


def test_every_module_has_a_place():
    known = {name.partition(".")[0] for name in modules("ctpatch")}
    assert known <= {name.partition(".")[0] for name in ORDER}


def test_data_flows_one_way():
    wrong = [
        f"{name} imports {imported}"
        for name, targets in graph("ctpatch").items()
        for imported in targets
        if rank(imported) > rank(name)
        or (rank(imported) == rank(name) and name.partition(".")[0] != imported.partition(".")[0])
    ]
    assert wrong == []


def test_ctpatch_never_imports_torch_or_mtltrain():
    for name, path in modules("ctpatch").items():
        heads = {imported.partition(".")[0] for imported in imports_of(path, "ctpatch", name)}
        assert not heads & {"torch", "torchvision", "mtltrain"}, name


def test_mtltrain_imports_the_store_only():
    if not (ROOT / "mtltrain").is_dir():
        pytest.skip("mtltrain is not here")
    for name, path in modules("mtltrain").items():
        for imported in imports_of(path, "mtltrain", name):
            if imported.partition(".")[0] == "ctpatch":
                assert imported.split(".")[1:2] == ["store"], f"mtltrain.{name} imports {imported}"


FORMATS = {"rtstruct", "seg", "lidc", "labelmap"}


def strings(tree):
    """String literals of a module; docstrings, and strings that stand alone as a comment does, are none."""
    alone = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    return [
        n for n in ast.walk(tree) if isinstance(n, ast.Constant) and isinstance(n.value, str) and id(n) not in alone
    ]


def test_what_format_a_mask_has_is_known_below_contours_only():
    """`contours.open_mask` is the one door: nothing else asks which of the formats it opened."""
    asked = [
        f"{name} line {node.lineno}: {node.value!r}"
        for name, path in modules("ctpatch").items()
        if name.partition(".")[0] != "contours"
        for node in strings(ast.parse(path.read_text(encoding="utf-8")))
        if node.value in FORMATS
    ]
    readers = [
        f"{name} imports {imported}"
        for name, targets in graph("ctpatch").items()
        for imported in targets
        if name.partition(".")[0] != "contours" and imported.partition(".")[0] == "contours"
        if imported not in ("contours", "contours.roi")
    ]
    assert asked == readers == []


def calls(tree):
    return [node for node in ast.walk(tree) if isinstance(node, ast.Call)]


@pytest.mark.parametrize("package", ["ctpatch", "mtltrain"])
def test_library_code_neither_prints_nor_warns_nor_exits(package):
    if not (ROOT / package).is_dir():
        pytest.skip(f"{package} is not here")
    for name, path in modules(package).items():
        if name in ("cli", "__main__"):
            continue
        for call in calls(ast.parse(path.read_text(encoding="utf-8"))):
            called = ast.unparse(call.func)
            forbidden = called in ("print", "sys.exit", "exit", "warnings.warn", "os._exit")
            forbidden |= called.startswith(("sys.stdout", "sys.stderr.write", "logging."))
            assert not forbidden, f"{package}.{name} line {call.lineno}: {called}"


HEAVY = {
    "SimpleITK",
    "nibabel",
    "skimage",
    "pydicom",
    "highdicom",
    "numba",
    "scipy",
    "joblib",
    "dask",
    "distributed",
    "gdcm",
    "shapely",
    "matplotlib",
    "psutil",
    "tqdm",
}


@pytest.mark.parametrize("first", ["", "build.run"])
def test_nothing_heavy_is_loaded_where_it_is_not_needed(first):
    """Follows imports at module level from `ctpatch` on: a training machine, or a build that waits for its workers."""
    edges, known, todo, seen = graph("ctpatch"), modules("ctpatch"), ["", first], set()
    while todo:
        name = todo.pop()
        if name in seen:
            continue
        seen.add(name)
        tree = ast.parse(known[name].read_text(encoding="utf-8"))
        top = {alias.name.partition(".")[0] for n in tree.body if isinstance(n, ast.Import) for alias in n.names}
        top |= {n.module.partition(".")[0] for n in tree.body if isinstance(n, ast.ImportFrom) and not n.level}
        assert not top & HEAVY, f"ctpatch.{name} imports {top & HEAVY}"
        relative = {n for n in tree.body if isinstance(n, ast.ImportFrom) and n.level}
        todo += [target for target in edges[name] if any(_names(node, target) for node in relative)]
    assert "store.reader" in seen


def _names(node, target):
    """Whether a relative import may bring in a module."""
    words = {*(node.module or "").split("."), *(alias.name for alias in node.names)}
    return target.rpartition(".")[2] in words


def test_only_the_cluster_runner_knows_dask():
    """It is an extra: loaded where --scheduler is given, and nowhere else."""
    for name, path in modules("ctpatch").items():
        tree = ast.parse(path.read_text(encoding="utf-8"))
        heads = {imported.partition(".")[0] for imported in imports_of(path, "ctpatch", name)}
        top = {node.module for node in tree.body if isinstance(node, ast.ImportFrom)}
        top |= {alias.name for node in tree.body if isinstance(node, ast.Import) for alias in node.names}
        assert name == "build.cluster" or not heads & {"dask", "distributed"}, name
        assert "distributed" not in top, name
