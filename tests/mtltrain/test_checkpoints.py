"""Saving beside the training: what is on the disk is a finished epoch's state, whatever has become of it since."""

import contextlib
import io
import itertools
import threading

import pytest
import torch
from calls import awaited

from mtltrain import checkpoints
from mtltrain.checkpoints import Saver, load_checkpoint

RUN = {"arch": "stl-ri"}


class Training:
    """Stands for a network and its optimiser: every number in them is the epoch's, and changes in place."""

    def __init__(self, saver):
        self.saver, self.history = saver, []
        self.model = {"w": torch.zeros(2, 3).t(), "n": torch.tensor(0)}
        self.optimizer = {"state": {0: {"m": torch.zeros(4)}}, "param_groups": [{"lr": 0.1, "params": [0]}]}

    def epoch(self, best=False):
        number = len(self.history) + 1
        self.history.append({"epoch": number})
        self._fill(number)
        self.saver.keep(self.history, self.model, self.optimizer, best=best)
        self._fill(-number)  # the next epoch begins

    def _fill(self, number):
        for tensor in (*self.model.values(), self.optimizer["state"][0]["m"]):
            tensor.fill_(number)


def saved(folder, name):
    """The epoch that a file is of, in all of its parts."""
    state = load_checkpoint(folder / name)
    assert state["run"] == RUN
    assert [entry["epoch"] for entry in state["history"]] == list(range(1, len(state["history"]) + 1))
    tensors = list(state["model"].values())
    if "optimizer" in state:
        tensors.append(state["optimizer"]["state"][0]["m"])
        assert state["optimizer"]["param_groups"] == [{"lr": 0.1, "params": [0]}]
    assert all((tensor == len(state["history"])).all() for tensor in tensors)
    return len(state["history"])


def files(folder):
    return {path.name: saved(folder, path.name) for path in folder.iterdir()}


@pytest.fixture
def slow(monkeypatch):
    """A disk that writes nothing before it is told to; what it was asked for."""
    go, asked, write = threading.Event(), [], checkpoints.save_checkpoint

    def wait(path, state, **words):
        asked.append((path.name, len(state["history"])))
        assert go.wait(60)
        write(path, state, **words)

    monkeypatch.setattr(checkpoints, "save_checkpoint", wait)
    monkeypatch.setitem(checkpoints.SHARE, "cpu", 1e9)
    return go, asked


def test_a_slow_disk_gets_the_newest_state_and_nobody_waits(tmp_path, slow):
    go, asked = slow
    with Saver(tmp_path, RUN, "cpu") as saver:
        training = Training(saver)
        for best in (True, True, False, False):
            training.epoch(best)
        assert files(tmp_path) == {}
        go.set()
    assert asked == [("best.pt", 1), ("last.pt", 1), ("best.pt", 2), ("last.pt", 4)]
    assert files(tmp_path) == {"best.pt": 2, "best.old": 1, "last.pt": 4, "last.old": 1}


def test_a_best_epoch_is_written_once(tmp_path, monkeypatch):
    monkeypatch.setitem(checkpoints.SHARE, "cpu", 1e9)
    with Saver(tmp_path, RUN, "cpu") as saver:
        training = Training(saver)
        training.epoch(best=True)
        saver.wait()
        (tmp_path / "best.pt").unlink()
        training.epoch()
        saver.wait()
        assert files(tmp_path) == {"last.pt": 2, "last.old": 1}
        training.epoch(best=True)
    assert files(tmp_path) == {"best.pt": 3, "last.pt": 3, "last.old": 2}


def test_writing_takes_no_more_than_its_share(tmp_path, monkeypatch):
    """A second of writing in 50: after one that took 2 s, the next begins 100 s later or at the end."""
    now = [1000.0]
    monkeypatch.setattr(checkpoints.time, "monotonic", lambda: now[0])
    write = checkpoints.save_checkpoint

    def takes_a_second(path, state, **words):
        write(path, state, **words)
        now[0] += 1

    monkeypatch.setattr(checkpoints, "save_checkpoint", takes_a_second)
    with Saver(tmp_path, RUN, "cpu") as saver:
        training = Training(saver)
        training.epoch(best=True)  # begins at 1000, ends at 1002
        saver.wait()
        for moment, on_disk in ((1050, 1), (1099, 1), (1101, 4), (1120, 4), (1151.5, 6)):
            now[0] = moment
            training.epoch()
            saver.wait()
            assert saved(tmp_path, "last.pt") == on_disk
        training.epoch()
    assert files(tmp_path) == {"best.pt": 1, "last.pt": 7, "last.old": 6}


def interrupt(folder, error):
    with Saver(folder, RUN, "cpu") as saver:
        training = Training(saver)
        for best in (False, True, False):
            training.epoch(best)
        assert not folder.exists() or files(folder) == {}
        if error:
            raise error


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError, SystemExit])
def test_the_last_finished_epoch_is_written_however_it_ends(tmp_path, monkeypatch, error):
    monkeypatch.setitem(checkpoints.SHARE, "cpu", 0.0)
    with pytest.raises(error):
        interrupt(tmp_path, error)
    assert files(tmp_path) == {"best.pt": 2, "last.pt": 3}


@pytest.mark.parametrize(("share", "number"), [(0.0, 1), (1e9, 1), (1e9, 2), (1e9, 3)])
def test_ctrl_c_within_keep(tmp_path, monkeypatch, share, number):
    """After whichever assignment: a best epoch is in both files, or in neither."""
    monkeypatch.setitem(checkpoints.SHARE, "cpu", share)
    left = None

    def assign(saver, name, value):
        nonlocal left
        object.__setattr__(saver, name, value)
        if left and next(left) == number:
            left = None
            raise KeyboardInterrupt

    with contextlib.suppress(KeyboardInterrupt), Saver(tmp_path, RUN, "cpu") as saver:
        training = Training(saver)
        training.epoch(best=True)
        saver.wait()
        monkeypatch.setattr(Saver, "__setattr__", assign, raising=False)
        left = itertools.count(1)
        training.epoch(best=True)
    assert left is None
    assert saved(tmp_path, "best.pt") == saved(tmp_path, "last.pt") == 2


def test_the_best_before_outlives_a_last_that_cannot_be_written(tmp_path, monkeypatch):
    """However often that is tried: it is the one that the last.pt still there belongs to."""
    monkeypatch.setitem(checkpoints.SHARE, "cpu", 1e9)
    write, tried = checkpoints.save_checkpoint, []

    def save(path, state, **words):
        tried.append(path.name)
        (full if tried.count("last.pt") > 1 and path.name == "last.pt" else write)(path, state, **words)

    monkeypatch.setattr(checkpoints, "save_checkpoint", save)
    with contextlib.suppress(OSError), Saver(tmp_path, RUN, "cpu") as saver:
        training = Training(saver)
        training.epoch(best=True)
        saver.wait()
        training.epoch(best=True)
        awaited(saver._writing[0].done)
        training.epoch()
    assert tried.count("last.pt") == 3
    assert files(tmp_path) == {"best.pt": 2, "best.old": 1, "last.pt": 1}


def test_nothing_finished_nothing_written(tmp_path):
    with pytest.raises(KeyboardInterrupt), Saver(tmp_path / "run", RUN, "cpu"):
        raise KeyboardInterrupt
    assert not (tmp_path / "run").exists()


def full(path, state, **words):
    raise OSError(28, "No space left on device", str(path))


def test_a_full_disk_ends_the_training_at_the_next_epoch(tmp_path, monkeypatch):
    monkeypatch.setitem(checkpoints.SHARE, "cpu", 1e9)
    saver = Saver(tmp_path, RUN, "cpu")
    training = Training(saver)
    training.epoch(best=True)
    saver.wait()
    monkeypatch.setattr(checkpoints, "save_checkpoint", full)
    training.epoch(best=True)
    awaited(saver._writing[0].done)
    with pytest.raises(OSError, match="No space left"):
        training.epoch()
    assert files(tmp_path) == {"best.pt": 1, "last.pt": 1}


class Filling(io.BytesIO):
    """A file on a disk that has room for a megabyte."""

    def write(self, data):
        if self.tell() + len(data) > 10**6:
            raise OSError(28, "No space left on device")
        return super().write(data)


def test_a_disk_that_fills_up_under_torch_says_so(tmp_path, monkeypatch):
    """torch.save raises a RuntimeError of its own instead, when it ends its file."""
    monkeypatch.setattr(checkpoints, "replacing", lambda path: contextlib.nullcontext(Filling()))
    with pytest.raises(OSError, match="No space left"):
        checkpoints.save_checkpoint(tmp_path / "last.pt", {"model": {"w": torch.zeros(10**6)}})
    with pytest.raises((RuntimeError, AttributeError, TypeError)):  # what is wrong with the state stays what it is
        checkpoints.save_checkpoint(tmp_path / "last.pt", {"model": {"w": lambda: None}})


@pytest.mark.parametrize("error", [None, KeyboardInterrupt])
def test_a_full_disk_at_the_end_is_no_success(tmp_path, monkeypatch, error):
    monkeypatch.setattr(checkpoints, "save_checkpoint", full)
    monkeypatch.setitem(checkpoints.SHARE, "cpu", 0.0)
    with pytest.raises(OSError, match="No space left"):
        interrupt(tmp_path, error)


def test_memory_is_used_again(tmp_path, slow):
    """A copy that is being written, the best epoch's and the newest, and one to write the next epoch's into."""
    go, _ = slow
    with Saver(tmp_path, RUN, "cpu") as saver:
        training = Training(saver)
        for number in range(8):
            training.epoch(best=number in (0, 3))
        copies = [part["w"].data_ptr() for part in saver._memory["model"]]
        assert len(set(copies)) == len(copies) <= 5
        assert len(saver._memory["optimizer"]) <= 5
        go.set()
        saver.wait()
        for _ in range(8):
            training.epoch()
            saver.wait()
        assert [part["w"].data_ptr() for part in saver._memory["model"] if part["w"].data_ptr() not in copies] == []
