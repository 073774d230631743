"""Loops that numba compiles, where its cache is damaged, full or nowhere."""

import errno
import importlib.util
from collections.abc import Callable
from pathlib import Path

import pytest
from numba.core.base import BaseContext
from numba.core.caching import IndexDataCacheFile

from ctpatch import compiled

LOOP = """
from ctpatch.compiled import compiled

@compiled()
def double(n):
    return n + n
"""


@pytest.fixture
def loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """Load a module anew and call its loop: the next one finds what the cache holds of the one before."""
    monkeypatch.setattr(compiled, "_uncached", [])
    (tmp_path / "loop.py").write_text(LOOP)

    def load() -> int:
        spec = importlib.util.spec_from_file_location("loop", tmp_path / "loop.py")
        assert spec
        assert spec.loader
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        result: int = module.double(3)
        return result

    return load


def test_a_loop_from_the_cache_needs_no_compiler(loop: Callable[[], int], monkeypatch: pytest.MonkeyPatch) -> None:
    """numba's declarations of all that it can compile take a process longer than the loop."""
    assert loop() == 6
    monkeypatch.setattr(BaseContext, "refresh", lambda context: pytest.fail("all is declared"))
    assert loop() == 6


@pytest.mark.parametrize("kind", ["nbi", "nbc"])
@pytest.mark.parametrize("left", [0, 20])
def test_a_damaged_cache_is_replaced(loop: Callable[[], int], tmp_path: Path, kind: str, left: int) -> None:
    assert loop() == 6
    (file,) = tmp_path.rglob(f"*.{kind}")
    file.write_bytes(file.read_bytes()[:left])
    assert loop() == 6
    assert not compiled.uncached()
    assert any(len(path.read_bytes()) > 20 for path in tmp_path.rglob(f"*.{kind}"))


def test_a_cache_without_room_is_done_without(loop: Callable[[], int], monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(IndexDataCacheFile, "save", full)
    assert loop() == 6
    assert compiled.uncached()


def test_vectorized_does_without_a_cache() -> None:
    """A function that is in no file has no place for one."""
    space: dict[str, Callable[[float], float]] = {}
    exec("def double(n): return n + n", space)
    assert compiled.vectorized("f8(f8)")(space["double"])(3.0) == 6.0
