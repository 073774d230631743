"""A page to look at before anything trains: the cohort, every lesion with its outline, and what stands out."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from ..errors import InputError

EXTRA = ("jinja2", "markupsafe", "matplotlib", "PIL")
"""What the extra `[report]` brings."""


def write_report(
    store: str | os.PathLike[str],
    out: str | os.PathLike[str],
    manifest: str | os.PathLike[str] | None = None,
    *,
    site: str | None = None,
    jobs: int = 1,
    progress: Callable[[int, int, str], None] | None = None,
) -> int:
    """Write the page of a store.

    Parameters
    ----------
    store : path
    out : path
        The page (.html): one file that needs nothing else.
    manifest : path, optional
        The manifest that the store was built from; with it the page shows outlines, voxels, spacing and noise.
    site : str, optional
        A column of the manifest that tells sites or scanners apart; its groups are compared like the classes.
    jobs : int
        Worker processes.
    progress : callable, optional
        Called after each lesion with how many are done, how many there are, and a word on the last.

    Returns
    -------
    int
        How many findings are on the page.

    Raises
    ------
    InputError
        When the store, the manifest or the call is wrong, or the extra is not installed.
    """
    try:
        from .page import write_page
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in EXTRA:
            raise
        raise InputError(
            f"the page needs {error.name}, which is not installed", "pip install 'ctpatch[report]'"
        ) from None
    table = None if manifest is None else Path(manifest)
    return write_page(Path(store), Path(out), table, site=site, jobs=jobs, progress=progress)
