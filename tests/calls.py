"""Calls that the tests have worker processes make, and what can be told of them afterwards."""

import atexit
import ctypes
import faulthandler
import os
import signal
import sys
import time
import traceback
import warnings
from multiprocessing.util import Finalize
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


def dwell(number, folder, seconds):
    """A call that notes when it begins."""
    Path(folder, f"{number}.0.{os.getpid()}").touch()
    time.sleep(seconds)
    return number


def last(number, folder, others):
    """A call that notes when it is made, the first of which waits for that of so many others."""
    if number == 0:
        awaited(lambda: len(made(folder)) >= others)
    Path(folder, f"{number}").touch()
    return number


def say_at_exit(number, folder, seconds):
    """A call whose process has something to do when it ends."""
    atexit.register(Path(folder, f"{os.getpid()}").touch)
    atexit.register(time.sleep, seconds)
    time.sleep(0.2)  # for the other process to have one too
    return number


def say_at_exit_with_a_child(number, folder, seconds):
    """The same, of a process that has started another one, as one that decodes has."""
    from ctpatch.processes import OwnProcess

    child = OwnProcess()
    child(int)
    Finalize(None, child.close, exitpriority=100)
    return say_at_exit(number, folder, seconds)


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


def in_fork(function):
    """How a function ends in a forked process: the number that it returns, or minus the signal that killed it.

    One that hangs says where and is ended by SIGALRM: a fork of a process with threads has their locks as they were.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 warns of just that
        child = os.fork()
    if not child:
        # not dump_traceback_later, which waits for pytest's own, whose thread is not in the child
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        faulthandler.register(signal.SIGALRM, file=sys.__stderr__, chain=True)
        signal.alarm(BOUNDED_S)
        status = 99
        try:
            answer = function()
            status = answer if isinstance(answer, int) else 0
        except BaseException:
            traceback.print_exc(file=sys.__stderr__)
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def awaited(condition):
    """Wait until it holds."""
    end = time.monotonic() + BOUNDED_S
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def made(folder):
    return {path.name for path in Path(folder).iterdir()}
