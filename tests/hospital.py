"""A folder of CT series and RTSTRUCTs as a hospital hands it over, for the pages of the documentation.

Soft tissue with a bright ellipsoid, in 48 x 48 x 12 voxels. Every second patient has a `malignant`, larger lesion
with a less sharp margin.
"""

from __future__ import annotations

import atexit
import csv
import shutil
import tempfile
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import synthetic

SHAPE = (12, 48, 48)
SPACING = (1.25, 1.25)
STEP = 3.0
FAT, TISSUE, LESION = -90, 45, 110
LESION_SLICES = range(5, 10)
MOST = 14
"""Patients there are."""
DISEASES = ("benign", "malignant")


def write_patient(folder: Path, name: str, *, seed: int = 0, size: float = 6.0, roi: str = "GTV") -> synthetic.Series:
    """`folder/ct` and `folder/rtstruct.dcm`: one lesion with semi-axes of `size` pixels and two and a half slices."""
    ct = write_ct(folder / "ct", name, seed=seed, size=size)
    middle = SHAPE[1] / 2
    outlines = [synthetic.circle(ct, k, (middle, middle), size * _share(k), 60) for k in LESION_SLICES]
    synthetic.write_rtstruct(folder / "rtstruct.dcm", {roi: outlines}, ct)
    return ct


def write_ct(folder: Path, name: str, *, seed: int = 0, size: float = 6.0, series: int = 0) -> synthetic.Series:
    """A series; `series` tells a patient's several ones apart."""
    rng = np.random.default_rng((seed, series))
    z, rows, columns = np.indices(SHAPE)
    middle = SHAPE[1] / 2
    away = np.hypot(rows - middle, columns - middle)
    hu = np.where(away < 21, TISSUE, FAT) + rng.normal(0, 12, SHAPE)
    hu[away < size * np.vectorize(_share)(z)] += LESION - TISSUE
    options: dict[str, Any] = {}
    if series:
        options = {"series_uid": synthetic.uid("series", name, series), "names": lambda k: f"{series}-{k:04d}.dcm"}
    positions = np.arange(SHAPE[0]) * STEP
    return synthetic.write_series(
        folder, np.round(hu), spacing=SPACING, positions=positions, patient_id=name, seed=seed, **options
    )


def _share(k: int) -> float:
    """Radius on slice k as a share of the largest; 0 where the lesion is not."""
    middle = (LESION_SLICES[0] + LESION_SLICES[-1]) / 2
    return float(np.sqrt(max(0.0, 1 - ((k - middle) / 2.5) ** 2)))


@cache
def _written() -> Path:
    """The folder as `write_hospital` wrote it first in this process."""
    kept = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, kept, ignore_errors=True)
    for i, name in enumerate(_names(MOST)):
        write_patient(kept / name, name, seed=i, size=5.0 + 4 * (i % 2) + i % 3)
    return kept


def write_hospital(folder: Path, patients: int = MOST) -> list[str]:
    """Patients P01, P02, … below `folder/hospital`, and what the clinic knows of them in `folder/diagnoses.csv`."""
    shutil.copytree(_written(), folder / "hospital")
    for name in _names(MOST)[patients:]:
        shutil.rmtree(folder / "hospital" / name)
    write_diagnoses(folder / "diagnoses.csv", _names(patients))
    return _names(patients)


def _names(patients: int) -> list[str]:
    return [f"P{i:02d}" for i in range(1, patients + 1)]


def write_diagnoses(path: Path, names: Iterable[str]) -> None:
    """Class and one characteristic: a margin from 1, sharp, to 4, and above 2 where the lesion is malignant."""
    with open(path, "w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(("patient_id", "label", "aux_margin"))
        for i, name in enumerate(names):
            table.writerow((name, DISEASES[i % 2], 1 + 2 * (i % 2) + i // 2 % 2))


def write_oddities(folder: Path) -> None:
    """What hospital folders are like: a slice missing, a second series, an undiagnosed patient, one who came twice."""
    (folder / "hospital/P03/ct/0007.dcm").unlink()
    write_ct(folder / "hospital/P05/ct", "P05", seed=4, size=5.0, series=2)
    write_patient(folder / "hospital/P12 follow-up", "P12", seed=111, size=11.0)
    lines = (folder / "diagnoses.csv").read_text(encoding="utf-8").splitlines(keepends=True)
    (folder / "diagnoses.csv").write_text(
        "".join(line for line in lines if not line.startswith("P09")), encoding="utf-8"
    )
