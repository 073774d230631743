"""Checkpoints are whole or absent, never run code, and tell when a byte changed."""

import pytest
import torch

from ctpatch import InputError
from mtltrain import checkpoint

STATE = {
    "epoch": 3,
    "model": {"w": torch.arange(6.0).reshape(2, 3)},
    "history": [{"val_auc": 0.1}],
    "n": torch.tensor(2),
}


def test_round_trip(tmp_path):
    checkpoint.save(tmp_path / "a.pt", STATE)
    found = checkpoint.load(tmp_path / "a.pt")
    assert checkpoint.digest(found) == checkpoint.digest(STATE)
    assert torch.equal(found["model"]["w"], STATE["model"]["w"])


@pytest.mark.parametrize(
    "other",
    [
        {**STATE, "epoch": 4},
        {**STATE, "model": {"w": torch.arange(6.0).reshape(3, 2)}},
        {**STATE, "model": {"w": torch.arange(6).reshape(2, 3)}},
        {**STATE, "history": [{"val_auc": 0.1}, {}]},
        {**STATE, "model": {"v": torch.arange(6.0).reshape(2, 3)}},
    ],
)
def test_digest_tells_states_apart(other):
    assert checkpoint.digest(other) != checkpoint.digest(STATE)


def test_a_changed_byte_is_found(tmp_path):
    path = tmp_path / "a.pt"
    checkpoint.save(path, STATE)
    data = bytearray(path.read_bytes())
    data[data.index(torch.arange(6.0).numpy().tobytes()) + 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(InputError, match="sha256"):
        checkpoint.load(path)


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04"])
def test_unreadable(tmp_path, content):
    (tmp_path / "a.pt").write_bytes(content)
    with pytest.raises(InputError):
        checkpoint.load(tmp_path / "a.pt")
    with pytest.raises(InputError):
        checkpoint.load(tmp_path / "absent.pt")


def test_previous_checkpoint_stands_in(tmp_path):
    path = tmp_path / "last.pt"
    assert checkpoint.newest(path) is None
    checkpoint.save(path, {"epoch": 1}, keep=True)
    checkpoint.save(path, {"epoch": 2}, keep=True)
    assert checkpoint.newest(path) == {"epoch": 2}
    path.write_bytes(path.read_bytes()[:100])
    assert checkpoint.newest(path) == {"epoch": 1}


def test_an_error_while_writing_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a.pt"
    checkpoint.save(path, {"epoch": 1})

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match="No space"):
        checkpoint.save(path, {"epoch": 2})
    assert checkpoint.load(path) == {"epoch": 1}


def test_weights_files(tmp_path):
    torch.save({"w": torch.ones(2)}, tmp_path / "plain.pth")
    assert checkpoint.load_weights(tmp_path / "plain.pth")["w"].tolist() == [1, 1]
    checkpoint.save(tmp_path / "best.pt", {"run": {}, "model": {"w": torch.zeros(1)}})
    assert checkpoint.load_weights(tmp_path / "best.pt")["w"].tolist() == [0]
    torch.save({"w": 1}, tmp_path / "other.pth")
    with pytest.raises(InputError, match="no state dict"):
        checkpoint.load_weights(tmp_path / "other.pth")
