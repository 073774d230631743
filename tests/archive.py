"""LIDC-IDRI as the archive's downloader lays it out, small and made up, with the oddities of the collection.

LIDC-IDRI/LIDC-IDRI-0001/01-01-2000-30178/3000566.000000-03192/1-01.dcm … 069.xml
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import readings
import synthetic
from readings import LEVELS, Nodule, Roi

SHAPE = (10, 48, 48)
SPACING = (0.7, 0.7)
STEP = 2.5
DRAWN = range(3, 7)
PATIENTS = 8


def write_archive(folder: Path) -> None:
    """`LIDC-IDRI/` with eight patients of one nodule each, benign and malignant by turns, and what is odd in some."""
    for number in range(1, PATIENTS + 1):
        patient = folder / "LIDC-IDRI" / f"LIDC-IDRI-{number:04d}" / "01-01-2000-30178"
        ct = write_ct(patient / "3000566.000000-03192", f"LIDC-IDRI-{number:04d}", number)
        write_readings(ct, number)
        if number == 1:  # a chest radiograph's readings lie beside the CT's in the collection
            (patient / "3000923.000000-62357").mkdir()
            text = '<IdriReadMessage xmlns="http://www.nih.gov"><CXRreadingSession/></IdriReadMessage>'
            (patient / "3000923.000000-62357" / "072.xml").write_text(text, encoding="utf-8")


def write_ct(folder: Path, name: str, seed: int) -> synthetic.Series:
    """Lung with a ball in its middle."""
    z, rows, columns = np.indices(SHAPE)
    away = np.sqrt(((z - 4.5) * STEP) ** 2 + ((rows - 24) * SPACING[0]) ** 2 + ((columns - 24) * SPACING[1]) ** 2)
    hu = np.where(away < 6, 30, -850) + np.random.default_rng(seed).normal(0, 15, SHAPE)
    positions = np.arange(SHAPE[0]) * STEP
    options = {"patient_id": name, "seed": seed, "names": lambda k: f"1-{k + 1:02d}.dcm"}
    return synthetic.write_series(folder, np.round(hu), spacing=SPACING, positions=positions, **options)


def write_readings(ct: synthetic.Series, number: int) -> None:
    """Three readers' outlines, and in some patients an oddity of the collection."""
    ratings = LEVELS | {"malignancy": 5 if number % 2 == 0 else 1 if number < 7 else 3}
    sessions = [[outlined(ct, f"R{reader}", ratings, widen=reader)] for reader in range(3)]
    if number == 3:  # one image at two z
        sessions[0][0].rois[0].z = float(ct.origins[DRAWN[1], 2])
    if number == 4:  # two outlines of one reader
        sessions[0].append(outlined(ct, "again", ratings, widen=-1))
    if number == 6:  # another path of the same nodule, half over the first
        sessions[2][0].rois.append(readings.on(ct, readings.square(24, 40, DRAWN[0])))
    if number == 5:  # a rating off its scale
        sessions[1][0].ratings["internalStructure"] = 5
    text = readings.document(sessions, series=str(ct.series_uid))
    (ct.folder / "069.xml").write_text(text, encoding="utf-8")


def outlined(ct: synthetic.Series, name: str, ratings: dict[str, object], widen: int = 0) -> Nodule:
    """One reader's squares on the slices of the ball."""
    low, high = 16 - widen, 32 + widen
    corners = [(low, low), (high, low), (high, high), (low, high)]
    rois = [readings.on(ct, Roi(k, [(float(x), float(y)) for x, y in corners])) for k in DRAWN]
    return Nodule(rois, name, dict(ratings))
