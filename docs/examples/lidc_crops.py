"""Turn the LIDC nodule crops of `../shared/data/lidc_crops` into a patch store, through `ctpatch.StoreWriter`.

    python docs/examples/lidc_crops.py ../shared/data/lidc_crops lidc.h5
    mtltrain fit lidc.h5 --arch mtl-ri stl-ri

The folder has 71 x 71 axial crops (stored values) at the slice of each nodule's largest area, and `labels.csv` with
malignancy and eight more characteristics, 1 to 5 or 6. It shows what to do when one's data are arrays, not DICOM.

- HU: stored values minus 1024 on GE and Siemens and minus 1000 on Philips; Toshiba's, and one GE patient's, are HU
  already. Then the lung
  (the commonest values) of all four vendors lies between -900 and -840 HU, which is checked. What is below -1024 is
  padding and becomes -1024, before anything is interpolated.
- Label: malignancy 1-2 is `benign`, 4-5 `malignant`; nodules of malignancy 3 are left out.
- Patches: 64 x 64 at 0.5 mm about the crop's centre, bilinear. Training nodules also get moved copies: the sampling
  grid is turned by a multiple of 90 degrees plus an angle, then shifted by up to 5 mm, both limited per nodule so that
  the patch stays inside the crop. Otherwise corners of air would mark the training images only.
- Split: 60/10/30 % of the patients, by the rule of `ctpatch build` (stratified by class, ordered by SHA-256).
"""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates
from scipy.spatial.distance import pdist

from ctpatch import StoreWriter

INTERCEPT = {"GE MEDICAL SYSTEMS": -1024, "SIEMENS": -1024, "Philips": -1000, "TOSHIBA": 0}
LUNG_HU = (-900, -840)
STORED_HU = -400
"""Below this no vendor's offset values lie, but lung in HU does: one GE patient of five nodules is stored so."""
AIR = -1024
CHARACTERISTICS = (
    *("calcification", "internalStructure", "lobulation", "margin"),
    *("sphericity", "spiculation", "subtlety", "texture"),
)
SIZE, SPACING, MOST_SHIFT = 64, 0.5, 5.0
HALF = SIZE * SPACING / 2
"""Half a patch's width in mm."""


def main() -> None:
    """Write the store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("crops", type=Path)
    parser.add_argument("store", type=Path)
    parser.add_argument("--copies", type=int, default=8, help="moved copies of each training patch")
    parser.add_argument("--seed", type=int, default=0, help="of the split and the copies")
    parser.add_argument("--rgb", action="store_true", help="also keep the rendered pictures")
    args = parser.parse_args()
    table, hu = read_crops(args.crops)
    write_store(args.store, table, hu, split_patients(table, args.seed), args.copies, args.seed, args.rgb)


def read_crops(folder: Path) -> tuple[pd.DataFrame, NDArray[np.int16]]:
    """Labels, one row per benign or malignant nodule, and their crops in HU, shape (nodules, 71, 71)."""
    table = pd.read_csv(folder / "labels.csv", dtype=str, keep_default_na=False)
    with np.load(folder / "crops_71x71_raw_int16.npz") as file:
        assert (file["noduleID"] == table["noduleID"].astype(int)).all()
        raw = file["raw"].astype(np.int32)
    hu = raw + intercepts(table, raw)[:, None, None]
    for vendor, rows in table.groupby("Manufacturer"):
        lung = commonest(hu[rows.index])
        if not LUNG_HU[0] <= lung <= LUNG_HU[1]:
            raise SystemExit(f"{vendor}: the commonest value is {lung} HU, which is no lung; is the intercept right?")
    keep = table["malignancy"] != "3"
    label = np.where(table["malignancy"].astype(int) < 3, "benign", "malignant")
    return table.assign(label=label)[keep].reset_index(drop=True), np.maximum(hu, AIR).astype(np.int16)[keep]


def intercepts(table: pd.DataFrame, raw: NDArray[np.int32]) -> NDArray[np.int64]:
    """What is added to stored values (nodules, 71, 71) for HU: the vendor's, or 0 where a patient's are HU already."""
    middle = pd.Series(np.median(raw, axis=(1, 2))).groupby(table["patient"]).transform("median")
    return np.where(middle < STORED_HU, 0, table["Manufacturer"].map(INTERCEPT)).astype(np.int64)


def commonest(hu: NDArray[np.int32]) -> int:
    """Centre of the fullest 20 HU wide bin below -500 HU: lung parenchyma."""
    counts, edges = np.histogram(hu, bins=np.arange(-1000, -499, 20))
    return int(edges[counts.argmax()]) + 10


def write_store(
    path: Path,
    table: pd.DataFrame,
    hu: NDArray[np.int16],
    split: Mapping[str, str],
    copies: int,
    seed: int,
    rgb: bool,
) -> None:
    """Write the nodules in the order of (patient, nodule); `split` says where each patient belongs."""
    recipe = {"source": "LIDC-IDRI crops 71 x 71", "size": SIZE, "spacing_mm": SPACING, "copies": copies, "seed": seed}
    levels: dict[str, dict[float, str]] = {name: {} for name in CHARACTERISTICS}
    with StoreWriter(path, label_classes=("benign", "malignant"), aux_levels=levels, recipe=recipe, rgb=rgb) as store:
        for i in table.sort_values(["patient", "noduleID"]).index:
            row = table.loc[i]
            where = split[row["patient"]]
            angle, shift = moves(row, copies if where == "train" else 0, seed)
            store.add(
                patient_id=row["patient"],
                lesion_id=row["noduleID"],
                split=where,
                label=row["label"],
                hu=sample(hu[i], float(row["PixelSpacing"]), angle, shift),
                copy=np.arange(len(angle)),
                angle=angle,
                shift=shift,
                aux={name: float(row[name] or "nan") for name in CHARACTERISTICS},
                diameter_mm=diameter(row),
                n_readers=sum(row[f"Malignancy_{k}"] != "0" for k in range(1, 5)),
            )


def split_patients(table: pd.DataFrame, seed: int) -> dict[str, str]:
    """Patient -> split; a patient's stratum is the last in sorted order of its nodules' classes."""
    split: dict[str, str] = {}
    strata = table.groupby("patient")["label"].max()
    for stratum in sorted(set(strata)):
        names = sorted(strata[strata == stratum].index, key=lambda p: rank(seed, p))
        val, test = int(0.1 * len(names) + 0.5), int(0.3 * len(names) + 0.5)
        parts = ["val"] * val + ["test"] * test + ["train"] * (len(names) - val - test)
        split.update(zip(names, parts, strict=True))
    return split


def rank(seed: int, patient: str) -> bytes:
    """What patients are ordered by before they are dealt out."""
    return hashlib.sha256(f"{seed}\0{patient}".encode()).digest()


def moves(row: pd.Series, copies: int, seed: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Angle (patches,) in degrees and shift (patches, 2) in mm of the unmoved patch and its copies.

    A square of half-width HALF turned by d degrees reaches HALF (cos d + sin d) from its centre along each axis.
    """
    rng = np.random.default_rng([seed, int(row["noduleID"])])
    reach = 71 * float(row["PixelSpacing"]) / 2
    turns = np.linspace(0, 45, 451)
    fits = turns[HALF * (np.cos(np.radians(turns)) + np.sin(np.radians(turns))) <= reach].max()
    turn = rng.uniform(-fits, fits, copies)
    slack = reach - HALF * (np.cos(np.radians(turn)) + np.sin(np.radians(abs(turn))))
    angle = 90.0 * rng.integers(0, 4, copies) + turn
    shift = rng.uniform(-1, 1, (copies, 2)) * np.minimum(slack, MOST_SHIFT)[:, None]
    return np.concatenate([[0.0], angle]), np.concatenate([np.zeros((1, 2)), shift])


def sample(
    crop: NDArray[np.int16], spacing: float, angle: NDArray[np.float64], shift: NDArray[np.float64]
) -> NDArray[np.int16]:
    """Patches (N, 64, 64) in HU of one crop: pixel (a, b) = t + s ((b - 32) u' + (a - 32) v') from its centre."""
    steps = SPACING * (np.arange(SIZE) - SIZE // 2)
    cos, sin = (f(np.radians(angle))[:, None, None] for f in (np.cos, np.sin))
    along, down = steps[None, None, :], steps[None, :, None]
    x = shift[:, 0, None, None] + cos * along - sin * down
    y = shift[:, 1, None, None] + sin * along + cos * down
    middle = (len(crop) - 1) / 2
    places = np.stack([middle + y / spacing, middle + x / spacing])
    values = map_coordinates(crop.astype(np.float64), places.reshape(2, -1), order=1, mode="nearest")
    return np.rint(values).astype(np.int16).reshape(len(angle), SIZE, SIZE)


def diameter(row: pd.Series) -> float:
    """Longest distance between two points of the outline, in mm."""
    points = np.array([point.split(";") for point in row["coords"].strip("|").split("|")], dtype=np.float64)
    return float(pdist(points).max() * float(row["PixelSpacing"]))


if __name__ == "__main__":
    main()
