"""A share of a build's lesions for each of several jobs that run at once, and the folder that they share."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from ..errors import InputError
from ..manifest import Row
from ..manifest.split import parse_share
from ..store.disk import lock, unlock
from .parts import PartsFolder

STARTING_S = 30.0
"""How long a shard waits for one that is starting; a build holds the folder for longer."""


@dataclass(frozen=True)
class Shard:
    """Every n-th lesion.

    Attributes
    ----------
    i, n : int
        The i-th (from 1) of n shards.
    """

    i: int
    n: int

    @classmethod
    def parse(cls, text: str) -> Shard:
        """`"2/5"` as the second of five.

        Raises
        ------
        InputError
            When it is not i/n with 1 <= i <= n.
        """
        i, n = parse_share(text)
        if not 1 <= i <= n:
            do = "give for example --shard 1/8, in an array job with indices from 1 (--array=1-8)"
            raise InputError(f"--shard '{text[:40]}' is not i/n with 1 <= i <= n", do)
        return cls(i, n)

    def of(self, rows: Sequence[Row]) -> tuple[Row, ...]:
        """Its rows: those next to each other, often of one patient or split, go to different shards."""
        return tuple(rows[self.i - 1 :: self.n])


@dataclass(frozen=True)
class ShardResult:
    """What a shard did.

    Attributes
    ----------
    parts : Path
        The folder with the finished lesions.
    lesions : int
        Those of the shard that are finished.
    computed : int
        Those computed in this run.
    skipped : tuple of InputError
        Refused lesions.
    """

    parts: Path
    lesions: int
    computed: int
    skipped: tuple[InputError, ...]


class SharedParts(PartsFolder):
    """The folder of finished lesions, held by any number of shards of one plan, and by no build meanwhile.

    Parameters and errors are those of `PartsFolder`. A shard neither clears the folder up, unless it is alone, nor
    removes it.
    """

    def _locked(self, plan: dict[str, Any], *, needed: bool) -> IO[bytes]:
        """The open lock file, shared with the other shards; who finds none clears up as a build does."""
        if needed and (alone := lock(self.path / "lock")):
            try:
                super()._prepare(plan)
            finally:
                unlock(alone)
        end = time.monotonic() + STARTING_S
        while (file := lock(self.path / "lock", needed=needed, shared=True)) is None:
            if time.monotonic() > end:
                do = "wait for it, or give another --out"
                raise InputError("a build is writing this store", do, self.path.name)
            time.sleep(0.05)
        return file

    def _prepare(self, plan: dict[str, Any]) -> None:
        """See that the plan is this one, also before a lesion is finished: others are at work on theirs."""
        before = self._plan()
        if before:
            self._compare(before, plan)
        elif any(self.path.glob("*.part")):
            do = f"when no shard is at work, remove {self.path.name} to begin anew"
            raise InputError("what its lesions were made with cannot be read", do, self.path.name)
        else:
            self._write_plan(plan)

    def abandon(self) -> None:
        """Let go of the folder after a failure; other shards may be at work in it."""
        self.release()
