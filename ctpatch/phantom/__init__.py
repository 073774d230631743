"""A simulated cohort: for each lesion of a manifest a real DICOM CT series and RTSTRUCT that look as it says.

A patient's `anatomy` is a `body`, an ellipse (fat around soft tissue, air outside) with up to `MAX_LESIONS` lesions,
cut by the slices his `geometry` asks for and contoured exactly; or the upper abdomen around a tumour of the `stomach`,
or one side of the chest around a nodule of the `lung`, as a radiologist knows them (docs/cohorts.md). A simulation to
run and test the pipeline on: nothing measured on it says anything about patients.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..build.engine import LocalRunner
from ..errors import CtpatchError, InputError
from ..geometry import Floats
from ..processes import WorkerDied
from .acquisition import examine, examine_body
from .anatomy import MAX_LESIONS
from .dicom import Identity, write_ct, write_rtstruct
from .table import LesionRow, PhantomTable, read_table, write_table

__all__ = ["MAX_LESIONS", "generator", "write_phantom"]

IMAGE_FOLDER = "CT"
MASK_FILE = "RTSTRUCT.dcm"


def write_phantom(
    manifest: Path, out: Path, *, seed: int = 0, jobs: int = 1, progress: Callable[[int, int], None] | None = None
) -> Path:
    """Write a CT series and an RTSTRUCT for every patient of `manifest`, and the manifest that names them.

    Parameters
    ----------
    manifest : Path
        CSV with `patient_id` and `label`, and if wanted `lesion_id`, `roi`, `aux_*`, `geometry` (`axial`, `oblique`,
        `tilt`, `uneven`; blank = `axial`), `anatomy` (`body`, `stomach`, `lung`; blank = `body`) and `severity` (0 to
        1; not of a body). `image` and `mask` may be blank or absent. What `table.SHAPING` names for the anatomy shapes
        a lesion by its rank among the column's values; a blank one is drawn at random; other columns shape nothing
        and are copied.
    out : Path
        A new or empty folder. It gets ``<patient_id>/CT/*.dcm``, ``<patient_id>/RTSTRUCT.dcm`` and, last, the manifest
        with `image`, `mask` and `roi` filled in, its paths relative to itself.
    seed : int
        With the patient's rows it decides everything: the same input gives the same bytes, in any row order.
    jobs : int
        Worker processes, -1 for one per core; the bytes do not depend on them.
    progress : callable, optional
        Called with (patients written, patients) after each patient.

    Returns
    -------
    Path
        The written manifest.

    Raises
    ------
    InputError
        When the manifest cannot be used (`Problems` when several rows cannot), or `out` is not empty.
    CtpatchError
        When a worker process dies.
    """
    table = read_table(manifest)
    _check_empty(out)
    patients = table.by_patient()
    if manifest.name in patients:
        raise InputError(f"patient_id {manifest.name!r} is this file's name, too", "rename the file", manifest)
    calls = ((out / patient_id, rows, table, seed) for patient_id, rows in patients.items())
    with closing(LocalRunner.sized(jobs, len(patients)).run(_write_patient, calls)) as written:
        for number, died in enumerate(written, start=1):
            if isinstance(died, WorkerDied):
                raise CtpatchError(f"a worker process ended twice: {died}; out of memory? Do: give fewer --jobs.")
            if progress is not None:
                progress(number, len(patients))
    places = [(f"{row.patient_id}/{IMAGE_FOLDER}", f"{row.patient_id}/{MASK_FILE}", row.roi) for row in table.rows]
    return write_table(out / manifest.name, table, places)


def _check_empty(out: Path) -> None:
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        found = "the output folder is not empty" if out.is_dir() else "the output is a file"
        raise InputError(found, "give a new or empty folder with --out", out)


def _write_patient(folder: Path, rows: tuple[LesionRow, ...], table: PhantomTable, seed: int) -> None:
    shutil.rmtree(folder, ignore_errors=True)  # what a worker that died had begun
    patient_id, anatomy = rows[0].patient_id, rows[0].anatomy
    rng = generator(seed, patient_id)
    streams = [generator(seed, patient_id, row.lesion_id) for row in rows]
    levels = [table.levels(row, stream) for row, stream in zip(rows, streams, strict=True)]
    if anatomy == "body":
        series = examine_body(rows[0].geometry, levels, rng, streams)
    else:
        series = examine(anatomy, levels[0], rng, streams[0])
    outlines = {row.roi: contours for row, contours in zip(rows, series.contours, strict=True)}
    identity = Identity(patient_id, _digest(series.hu, series.scan.stack.origins, outlines))
    write_ct(folder / IMAGE_FOLDER, series.hu, series.scan, identity)
    write_rtstruct(folder / MASK_FILE, outlines, identity)


def _digest(hu: NDArray[np.int16], origins: Floats, outlines: Mapping[str, Mapping[int, Floats]]) -> str:
    content = hashlib.sha256(hu.tobytes() + origins.tobytes())
    for name, contours in outlines.items():
        content.update(name.encode())
        for points in contours.values():
            content.update(points.tobytes())
    return content.hexdigest()


def generator(seed: int, *ids: str) -> np.random.Generator:
    """The random numbers of a patient, or of one lesion of his."""
    digest = hashlib.sha256("\0".join(["ctpatch-phantom-1", str(seed), *ids]).encode()).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest[:16], "big")))
