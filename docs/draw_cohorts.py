"""Draw docs/cohorts/*.png, the pictures of docs/cohorts.md: `.venv/bin/python docs/draw_cohorts.py`.

For each sign one simulated patient twice, without it and with it, and else the same to the last draw.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from skimage.io import imsave
from skimage.transform import rescale

from ctpatch.geometry import Floats
from ctpatch.phantom import generator
from ctpatch.phantom.acquisition import Series, examine
from ctpatch.phantom.table import SHAPING, read_table

HERE = Path(__file__).parent
WINDOWS = {"stomach": (-160.0, 240.0), "lung": (-1350.0, 150.0)}
SIGNS = {
    "stomach": {
        "clinical_T_stage": 3,
        "clinical_N_stage": 11,
        "nodular_sign": 9,
        "cord_outside_serosa": 8,
        "fat_infiltration": 5,
        "high_enhanced_layer": 5,
    },
    "lung": {
        "lobulation": 5,
        "spiculation": 3,
        "spine_like_process": 5,
        "air_bronchogram": 3,
        "cusp_angle": 8,
        "foam_like_sign": 1,
    },
}
"""Which patient shows a sign; picked by eye."""
CROP_MM = {"stomach": 84.0, "lung": 56.0}
SHOWN_PX = 168
COHORTS = {"agc": ("AGC005", "AGC010", "AGC024"), "ggn": ("GGN002", "GGN004", "GGN010")}


def main() -> None:
    """Draw all."""
    (HERE / "cohorts").mkdir(exist_ok=True)
    for anatomy, signs in SIGNS.items():
        for sign, patient in signs.items():
            pair = [crop(simulated(anatomy, {sign: level}, patient), anatomy) for level in (0.0, 1.0)]
            save(f"{sign}.png", pair)
    for name, patients in COHORTS.items():
        table = read_table(HERE.parent / "manifests" / f"{name}.csv")
        rows = {row.patient_id: row for row in table.rows}
        whole = []
        for patient in patients:
            own = generator(0, patient, "1")
            anatomy, level = rows[patient].anatomy, table.levels(rows[patient], own)
            series = examine(anatomy, level, generator(0, patient), own)
            whole.append(gray(series.hu[middle(series)[0]], anatomy))
        save(f"{name}.png", whole)


def simulated(anatomy: str, levels: dict[str, float], seed: int) -> Series:
    """A patient of middling severity and stage without signs, but for the given levels."""
    level = dict.fromkeys(SHAPING[anatomy], 0.0) | {"severity": 0.6, "clinical_T_stage": 0.5} | levels
    return examine(anatomy, level, np.random.default_rng(seed), np.random.default_rng(1000 + seed))


def middle(series: Series) -> tuple[int, Floats]:
    """The middle one of the slices with a contour, and the middle of that contour as row and column."""
    (contours,) = series.contours
    k = sorted(contours)[len(contours) // 2]
    stack = series.scan.stack
    column, row = stack.to_pixels(stack.to_stack(contours[k]), k).mean(axis=0)
    return k, np.array([row, column])


def crop(series: Series, anatomy: str) -> NDArray[np.uint8]:
    """The lesion and what is around it."""
    k, centre = middle(series)
    half = round(CROP_MM[anatomy] / series.scan.stack.spacing[0] / 2)
    row, column = np.rint(centre).astype(int)
    shown = gray(series.hu[k], anatomy)[max(row - half, 0) : row + half, max(column - half, 0) : column + half]
    return np.rint(rescale(shown, SHOWN_PX / (2 * half), order=1, preserve_range=True)).astype(np.uint8)


def gray(hu: NDArray[np.int16], anatomy: str) -> NDArray[np.uint8]:
    """The usual window."""
    low, high = WINDOWS[anatomy]
    return (np.clip((hu - low) / (high - low), 0, 1) * 255).astype(np.uint8)


def save(name: str, pictures: list[NDArray[np.uint8]]) -> None:
    """Side by side, cut to the same height."""
    height = min(len(picture) for picture in pictures)
    gap = np.full((height, 4), 255, np.uint8)
    parts = [part for picture in pictures for part in (picture[:height], gap)]
    imsave(HERE / "cohorts" / name, np.hstack(parts[:-1]), check_contrast=False)


if __name__ == "__main__":
    main()
