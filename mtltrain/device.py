"""Where a training runs: the device, its deterministic kernels, and what to do where it has not memory enough."""

from __future__ import annotations

import os
import re
import resource
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from ctpatch.store import CtpatchError, InputError

from . import Settings


def pick_device(name: str) -> torch.device:
    """`cpu`, `cuda`, or with `auto` the GPU where there is one; an `InputError` if there is no such device here."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise InputError("--device cuda, but torch sees no GPU here", "use --device cpu")
    return torch.device(name)


@contextmanager
def guarded(settings: Settings, do: str = "lower --batch-size, in another --out") -> Iterator[None]:
    """Compute with deterministic kernels only, where `settings` say so, and tell torch's errors in words.

    Raises
    ------
    InputError
        If the backbone cannot do with batches of one patch, or with deterministic kernels.
    CtpatchError
        If memory runs out; `do` is what it advises.
    """
    before = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark
    if settings.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS reads it when first used
        torch.use_deterministic_algorithms(True)
        torch.backends.cudnn.benchmark = False
    try:
        yield
    except (MemoryError, RuntimeError, ValueError) as error:
        told = _in_words(error, settings, do)
        if told is None:
            raise
        raise told from error
    finally:
        torch.use_deterministic_algorithms(before[0])
        torch.backends.cudnn.benchmark = before[1]


def _in_words(error: Exception, settings: Settings, do: str) -> CtpatchError | None:
    """What torch's error means to who called; None for one that is a mistake of ours."""
    backbone, size, text = settings.backbone, settings.batch_size, str(error)
    if "Expected more than 1 value per channel" in text:  # batch normalisation, behind the pooling
        found = (
            f"with --batch-size {size} a batch of each epoch is of one patch, and {backbone} normalises over a batch"
        )
        return InputError(found, "give another --batch-size, in another --out")
    if "does not have a deterministic implementation" in text:
        found = f"--deterministic, but {backbone} needs an operation that is not ({text})"
        return InputError(found, "leave it out, or take another --backbone")
    if isinstance(error, MemoryError) or re.search("out of memory|allocate memory|ALLOC_FAILED", text):
        return CtpatchError(
            f"out of memory on {settings.device} at a peak of {_peak(settings.device)} MiB with batches of {size} "
            f"patches of 64 x 64 shown at 224 x 224; finished epochs are kept. Do: {do}."
        )
    return None


def _peak(device: str) -> int:
    """Most MiB that were in use."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated() // 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
