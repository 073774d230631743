"""Build, kill, resume, change, damage, verify in any order: a model says what must come of each step.

The model knows the plan (seed, a lesion's label) that finished lesions belong to, which inputs were touched since, and
the store that was completed last. Whatever happens, a store is byte for byte that of an undisturbed build, or refused.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import tempfile
from collections.abc import Callable
from pathlib import Path

import cohort
import pytest
from calls import in_fork
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from ctpatch.build.parts import part_path
from ctpatch.build.run import BuildOptions, BuildResult, build
from ctpatch.errors import InputError
from ctpatch.manifest import read_manifest
from ctpatch.recipe import Recipe
from ctpatch.store import open_store
from ctpatch.store.verify import verify_store

SPLITS = ("train", "train", "val", "test")
LESIONS = len(SPLITS)
Plan = tuple[int, str]
"""Seed, label of the first lesion."""
_COHORT = Path(tempfile.mkdtemp(prefix="stateful-"))
_PLAIN: dict[Plan, bytes] = {}


def teardown_module() -> None:
    shutil.rmtree(_COHORT)


class Stop(Exception):
    """An interruption."""


def options(plan: Plan) -> BuildOptions:
    return BuildOptions(Recipe(seed=plan[0], patches=2, augment=1, rgb=False))


def write_manifest(folder: Path, label: str, *, turned: bool = False) -> Path:
    """The cohort's manifest, its first lesion of class `label`."""
    header, first, *rest = (_COHORT / "manifest.csv").read_text(encoding="utf-8").splitlines()
    rows = [first.replace("benign", label), *rest]
    path = folder / "manifest.csv"
    path.write_text("\n".join([header, *(rows[::-1] if turned else rows)]) + "\n", encoding="utf-8")
    return path


def undisturbed(plan: Plan) -> bytes:
    """The store of a build that nothing interrupts."""
    if plan not in _PLAIN:
        with tempfile.TemporaryDirectory() as name:
            folder = copied(Path(name) / "cohort")
            build(write_manifest(folder, plan[1]), folder / "o.h5", options(plan))
            _PLAIN[plan] = (folder / "o.h5").read_bytes()
    return _PLAIN[plan]


def copied(folder: Path) -> Path:
    if not (_COHORT / "manifest.csv").exists():
        cohort.write_cohort(_COHORT, SPLITS)
    return shutil.copytree(_COHORT, folder)


class Builds(RuleBasedStateMachine):
    """One manifest, one output, any history."""

    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp())
        self.folder = copied(self.root / "cohort")
        self.out = self.root / "out" / "o.h5"
        self.out.parent.mkdir()
        self.parts = self.out.with_name("o.h5.parts")
        self.plan: Plan = (0, "benign")
        self.finished: dict[str, int] = {}  # patient: how often its files had been touched
        self.begun: Plan | None = None  # the plan that the finished lesions belong to
        self.touched = dict.fromkeys(self.patients, 0)
        self.store: bytes | None = None

    @property
    def patients(self) -> list[str]:
        return [f"P{i:02d}" for i in range(LESIONS)]

    @property
    def manifest(self) -> Path:
        return self.folder / "manifest.csv"

    @initialize(turned=st.booleans())
    def begin(self, turned: bool) -> None:
        write_manifest(self.folder, "benign", turned=turned)

    def teardown(self) -> None:
        shutil.rmtree(self.root)

    # ------------------------------------------------------------------------------------------------------ changes

    @rule(seed=st.sampled_from([0, 1]))
    def change_the_seed(self, seed: int) -> None:
        self.plan = (seed, self.plan[1])

    @rule(label=st.sampled_from(["benign", "malignant"]), turned=st.booleans())
    def change_a_row_and_the_rows_order(self, label: str, turned: bool) -> None:
        self.plan = (self.plan[0], label)
        write_manifest(self.folder, label, turned=turned)

    @rule(i=st.integers(0, LESIONS - 1))
    def touch_an_input(self, i: int) -> None:
        patient = self.patients[i]
        self.touched[patient] += 1
        path = self.folder / patient / "rtstruct.dcm"
        os.utime(path, ns=(0, path.stat().st_mtime_ns + 1_000_000_000))

    @precondition(lambda self: self.parts.exists())
    @rule()
    def begin_anew(self) -> None:
        shutil.rmtree(self.parts)
        self.finished, self.begun = {}, None

    @precondition(lambda self: self.finished)
    @rule(rng=st.randoms(use_true_random=False))
    def damage_a_finished_lesion(self, rng: random.Random) -> None:
        patient = rng.choice(sorted(self.finished))
        path = self.part(patient)
        data = bytearray(path.read_bytes())
        if rng.random() < 0.5:
            del data[rng.randrange(len(data)) :]
        else:
            start = rng.randrange(len(data) // 2)
            data[start : start + 600] = rng.randbytes(600)
        path.write_bytes(data)
        del self.finished[patient]

    # ------------------------------------------------------------------------------------------------------- builds

    @rule(jobs=st.sampled_from([1, 1, 1, 1, 1, 1, 1, 2]))
    def build_to_the_end(self, jobs: int) -> None:
        before = dict(self.finished)
        problem = self.obstacle()
        if problem:
            self.refused(problem, lambda: self.build(jobs=jobs))
            return
        result = self.build(jobs=jobs)
        assert (result.lesions, result.computed) == (LESIONS, LESIONS - len(before))
        self.completed()

    @rule(lesions=st.integers(1, LESIONS), killed=st.booleans())
    def build_and_stop(self, lesions: int, killed: bool) -> None:
        def stop(done: int, total: int, word: str) -> None:
            if done == lesions:
                if killed:
                    os.kill(os.getpid(), signal.SIGKILL)
                raise Stop

        problem = self.obstacle(lesions)
        if problem:
            self.refused(problem, lambda: self.build())
            return
        if killed:
            assert in_fork(lambda: self.build(stop)) == -signal.SIGKILL
        else:
            with pytest.raises(Stop):
                self.build(stop)
        self.begun = self.plan
        self.finished |= {patient: self.touched[patient] for patient in self.patients[:lesions]}

    @rule(at=st.integers(1, LESIONS))
    def build_while_another_tries(self, at: int) -> None:
        def intrude(done: int, total: int, word: str) -> None:
            if done == at:
                with pytest.raises(InputError, match="another build is writing this store"):
                    self.build()

        problem = self.obstacle()
        if problem:
            self.refused(problem, lambda: self.build(intrude))
            return
        self.build(intrude)
        self.completed()

    # -------------------------------------------------------------------------------------------------------- stores

    @precondition(lambda self: self.store)
    @rule(rng=st.randoms(use_true_random=False))
    def flip_a_bit_and_verify(self, rng: random.Random) -> None:
        assert self.store
        data = bytearray(self.store)
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        self.out.write_bytes(data)
        try:
            with open_store(self.out) as store:
                assert verify_store(store.file)
        except InputError:
            pass
        self.out.write_bytes(self.store)

    @precondition(lambda self: self.store)
    @rule()
    def verify_and_read(self) -> None:
        with open_store(self.out) as store:
            assert verify_store(store.file) == []
            assert store.lesions.patient_id.tolist() == self.patients
            assert [len(store.split(name)) for name in ("train", "val", "test")] == [8, 1, 1]

    @invariant()
    def the_store_is_whole_or_absent(self) -> None:
        assert (self.out.read_bytes() if self.out.exists() else None) == self.store
        assert {path.name for path in self.out.parent.iterdir()} <= {self.out.name, self.parts.name}

    @invariant()
    def finished_lesions_are_there(self) -> None:
        assert all(self.part(patient).exists() for patient in self.finished)

    # --------------------------------------------------------------------------------------------------------- model

    def build(self, progress: Callable[[int, int, str], None] | None = None, jobs: int = 1) -> BuildResult:
        chosen = options(self.plan)
        return build(self.manifest, self.out, BuildOptions(chosen.recipe, jobs), progress)

    def part(self, patient: str) -> Path:
        (row,) = (row for row in read_manifest(self.manifest).rows if row.patient_id == patient)
        return part_path(self.parts, row)

    def obstacle(self, lesions: int = LESIONS) -> str:
        """Why a build of the first lesions must be refused now; empty when it must not."""
        leftovers = self.parts.exists() and any(self.parts.glob("*.part"))
        if not leftovers or self.begun is None:
            return ""
        if self.begun[1] != self.plan[1]:
            return "begun with manifest = [0-9a-f]{64}, now [0-9a-f]{64}"
        if self.begun[0] != self.plan[0]:
            return f"begun with seed = {self.begun[0]}, now {self.plan[0]}"
        return "files changed since this lesion was finished" if self.changed(lesions) else ""

    def refused(self, found: str, act: Callable[[], object]) -> None:
        with pytest.raises(InputError, match=found):
            act()
        if "files changed" in found:  # lesions before that one were finished first
            for patient in self.patients[: self.patients.index(self.changed(LESIONS)[0])]:
                self.finished.setdefault(patient, self.touched[patient])

    def changed(self, lesions: int) -> list[str]:
        """Finished lesions among the first, in the order of a build, whose files were touched since."""
        first = (patient for patient in self.patients[:lesions] if patient in self.finished)
        return [patient for patient in first if self.finished[patient] != self.touched[patient]]

    def completed(self) -> None:
        self.store, self.finished, self.begun = undisturbed(self.plan), {}, None
        assert self.out.read_bytes() == self.store
        assert not self.parts.exists()


BuildsTest = Builds.TestCase
BuildsTest.settings = settings(
    max_examples=settings.default.max_examples // 4,
    stateful_step_count=20,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
