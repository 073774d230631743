"""Every write, flush, rename and removal of a build fails once, or is where it is killed (cases 113 and 115)."""

from __future__ import annotations

import builtins
import errno
import io
import os
import signal
from pathlib import Path

import awkward
import cohort
import pytest
from calls import in_fork

from ctpatch.store.disk import Sink

CALLS = ("open", "fsync", "replace", "unlink", "mkdir", "rmdir")
"""Of `os`."""
SHARES = 6


class Disk:
    """Counts what a build asks of the disk under `folder`, and calls `fault` instead of doing the `at`-th."""

    def __init__(self, folder: Path, at: int = -1, fault=None):
        self.folder, self.at, self.fault, self.calls = str(folder), at, fault, []

    def ask(self, what):
        self.calls.append(what)
        if len(self.calls) - 1 == self.at:
            self.fault(what)

    def wrapped(self, name):
        really = getattr(os, name)

        def call(path, *arguments, **options):
            if isinstance(path, int) or options.get("dir_fd") is not None or str(path).startswith(self.folder):
                self.ask(name)
            return really(path, *arguments, **options)

        return call

    def install(self, monkeypatch):
        disk, open_ = self, builtins.open

        class Raw(io.FileIO):
            def write(self, data):
                disk.ask("write")
                return super().write(data)

            def truncate(self, size=None):
                disk.ask("truncate")
                return super().truncate(size)

        class FaultySink(Sink, Raw):
            """`Sink` itself, whose super() is `Raw`."""

        def opened(path, mode="r", *arguments, opener=None, **options):
            if not str(path).startswith(disk.folder) or mode not in ("wb", "r+b"):
                return open_(path, mode, *arguments, opener=opener, **options)
            if opener is None:
                disk.ask("open")
            raw = Raw(path, mode, opener=opener)
            return io.BufferedWriter(raw) if mode == "wb" else io.BufferedRandom(raw)

        for name in CALLS:
            monkeypatch.setattr(os, name, self.wrapped(name))
        monkeypatch.setattr(builtins, "open", opened)
        monkeypatch.setattr("ctpatch.store.writer.Sink", FaultySink)


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    return cohort.write_cohort(tmp_path_factory.mktemp("cohort"), ("train", "val", "test"))


def build(manifest, out):
    return awkward.run(*("build", "--manifest", manifest, "--out", out, "--patches", "2", "--augment", "0", "--no-rgb"))


@pytest.fixture(scope="module")
def plain(manifest, tmp_path_factory):
    """The bytes of an undisturbed build."""
    out = tmp_path_factory.mktemp("plain") / "o.h5"
    assert build(manifest, out).status == 0
    return out.read_bytes()


@pytest.fixture(scope="module")
def calls(manifest, plain, tmp_path_factory):
    """What an undisturbed build asks of the disk, in order."""
    folder = tmp_path_factory.mktemp("count")
    with pytest.MonkeyPatch.context() as monkeypatch:
        disk = Disk(folder)
        disk.install(monkeypatch)
        assert build(manifest, folder / "o.h5").status == 0
    assert (folder / "o.h5").read_bytes() == plain
    return disk.calls


def test_all_kinds_of_calls_are_among_them(calls):
    assert {*CALLS, "write", "truncate"} == set(calls)
    assert calls.count("fsync") == 4 + 2 + 1  # three lesions and the plan, the store twice, its folder
    assert calls.count("replace") == 4 + 1
    assert calls.count("write") > 60


def failing(what):
    number = errno.ENOSPC if what in ("write", "truncate", "mkdir") else errno.EIO
    raise OSError(number, os.strerror(number))


def killed(what):
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("before", [False, True])
@pytest.mark.parametrize("share", range(SHARES))
def test_115_each_call_fails_once(manifest, plain, calls, old, tmp_path, share, before):
    """One line, the old store or none or, when only the clearing up failed, the new one; and it goes on."""
    out, done = tmp_path / "o.h5", last_rename(calls)
    for at in range(share, len(calls), 3 * SHARES if before else SHARES):
        out.unlink(missing_ok=True)
        if before:
            out.write_bytes(old)
        with pytest.MonkeyPatch.context() as monkeypatch:
            disk = Disk(tmp_path, at, failing)
            disk.install(monkeypatch)
            result = build(manifest, out)
        told = (at, calls[at], result)
        assert len(disk.calls) > at, told
        assert result.status == 1, told
        assert len(result.err) == 1, told
        assert result.err[0].startswith("ctpatch: o.h5"), told
        assert str(tmp_path) not in result.err[0], told
        left = out.read_bytes() if out.exists() else None
        assert left == (plain if at > done else old if before else None), told
        resumes(manifest, out, plain)


def last_rename(calls):
    """The one that gives the store its name."""
    return len(calls) - 1 - calls[::-1].index("replace")


def resumes(manifest, out, plain):
    again = build(manifest, out)
    assert (again.status, again.err) == (0, ())
    assert out.read_bytes() == plain
    assert [path.name for path in out.parent.iterdir()] == ["o.h5"]


@pytest.fixture(scope="module")
def old(manifest, tmp_path_factory):
    """Another store."""
    out = tmp_path_factory.mktemp("old") / "o.h5"
    words = ("--patches", "1", "--augment", "0", "--no-rgb", "--seed", "5")
    assert awkward.run("build", "--manifest", manifest, "--out", out, *words).status == 0
    return out.read_bytes()


@pytest.mark.parametrize("share", range(SHARES))
def test_112_113_killed_at_each_kind_of_call(manifest, plain, calls, tmp_path, share):
    """SIGKILL in the place of a call: nothing is flushed, nothing is cleared up."""
    out, done = tmp_path / "o.h5", last_rename(calls)
    rare = [at for at, what in enumerate(calls) if what not in ("write", "open")]
    often = range(0, len(calls), 7)
    for at in sorted({*rare, *often})[share::SHARES]:
        out.unlink(missing_ok=True)
        assert in_fork(lambda at=at: killed_build(manifest, out, at)) == -signal.SIGKILL, (at, calls[at])
        assert out.exists() == (at > done), (at, calls[at])
        assert not out.exists() or out.read_bytes() == plain
        resumes(manifest, out, plain)


def killed_build(manifest, out, at):
    Disk(out.parent, at, killed).install(pytest.MonkeyPatch())
    build(manifest, out)
