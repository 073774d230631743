"""Functions that a process on a Dask worker makes in the place of the real one, on a machine with a fate."""

import dataclasses
import os
import signal
import time
from pathlib import Path


def work(*arguments):
    """The real one; who dies before needs none of what it loads."""
    from ctpatch.build.run import _work

    return _work(*arguments)


def end_process(folder, lesion, times, row, *arguments):
    """Kill the process so often when it comes to a lesion."""
    before = len(list(Path(folder).glob("death*")))
    if f"{row.patient_id}/{row.lesion_id}" == lesion and before < times:
        Path(folder, f"death{before}").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return work(row, *arguments)


def end_worker(folder, lesion, times, row, *arguments):
    """On a Dask cluster: kill the worker whose child this process is, so often, when it comes to a lesion."""
    before = len(list(Path(folder).glob("death*")))
    if f"{row.patient_id}/{row.lesion_id}" == lesion and before < times:
        parent = os.getppid()
        if any(word in Path(f"/proc/{parent}/cmdline").read_bytes() for word in (b"dask_worker", b"spawn_main")):
            Path(folder, f"death{before}").touch()
            os.kill(parent, signal.SIGKILL)
        time.sleep(60)  # it ends with its parent
    return work(row, *arguments)


def elsewhere(what, row, parts, recipe, keep_uids, under_way):
    """On a machine where the manifest's files, or the folder of parts, are not there."""
    import ctpatch.build.run

    if what == "files":
        row = dataclasses.replace(row, root=row.root / "elsewhere")
        return work(row, parts, recipe, keep_uids, under_way)
    patience, ctpatch.build.run.NEW_S = ctpatch.build.run.NEW_S, 0.1
    try:
        return work(row, parts, recipe, keep_uids, under_way.parent / "elsewhere" / under_way.name)
    finally:
        ctpatch.build.run.NEW_S = patience


def slowly(folder, row, *arguments):
    """Say who is at work, and be slow."""
    Path(folder, f"{row.patient_id}.{row.lesion_id}.{os.getpid()}").touch()
    time.sleep(30)
    return work(row, *arguments)
