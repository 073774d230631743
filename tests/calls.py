"""Calls that the tests have worker processes make, and what can be told of them afterwards."""

import ctypes
import os
import signal
import time
from pathlib import Path

import numpy as np

BOUNDED_S = 120
"""Long enough for a machine that stalls, and far below what waits for ever."""


def square(number, folder="", deaths=0, seconds=0.0):
    """A call that notes when it is made, and ends its process as often as told."""
    time.sleep(seconds)
    if folder:
        before = len(list(Path(folder).glob(f"{number}.*")))
        Path(folder, f"{number}.{before}.{os.getpid()}").touch()
        if before < deaths:
            os.kill(os.getpid(), signal.SIGKILL)
    return number * number


def pid_of(number):
    time.sleep(0.05)
    return os.getpid()


def fail(number):
    if number == 3:
        raise ValueError(f"number {number}")
    return number


def blocked(number):
    return [int(name) for name in signal.pthread_sigmask(signal.SIG_BLOCK, [])]


def crash(number):
    if number == 3:
        ctypes.string_at(0)
    return number


def grow(number, kept=[]):  # noqa: B006 - it is to grow
    """A call after which its process is larger by 400 MB, and long enough for loky to look."""
    kept.append(np.ones(50_000_000))
    time.sleep(1.05)
    return number


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def made(folder):
    return {path.name for path in Path(folder).iterdir()}
