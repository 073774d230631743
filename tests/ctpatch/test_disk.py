"""Files that are whole or not there, and locks."""

import os
import stat

import pytest

from ctpatch.store.disk import lock, replacing


def test_file_is_whole_or_not_there(tmp_path, monkeypatch):
    path = tmp_path / "plan.json"
    with replacing(path) as file:
        file.write(b"one")

    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left on device"), replacing(path) as file:
        file.write(b"two")
    assert path.read_bytes() == b"one"
    assert list(tmp_path.iterdir()) == [path]


def test_a_private_file_is_its_owners(tmp_path):
    with replacing(tmp_path / "a", private=True) as file:
        file.write(b"x")
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o600


def test_lock_is_one_holders(tmp_path):
    held = lock(tmp_path / "lock")
    assert held is not None
    assert lock(tmp_path / "lock") is None
    held.close()
    again = lock(tmp_path / "lock")
    assert again is not None
    again.close()
