"""A small cohort for the tests: per patient a texture series, an RTSTRUCT of boxes, and a manifest over all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import synthetic

SHAPE = (6, 20, 24)
SPACING = (1.25, 1.0)
POSITIONS = (0.0, 2.0, 4.0, 6.5, 9.0, 11.5)


def write_cohort(
    folder: Path,
    splits: Sequence[str] = ("train", "train", "val", "test"),
    *,
    labels: Sequence[str] = ("benign", "malignant"),
    lesions: int = 1,
    columns: Callable[[int], dict[str, Any]] = lambda i: {},
    **series: Any,
) -> Path:
    """Write patients P00, P01, … and `manifest.csv`; returns its path.

    `splits` has one entry per patient, blank for manifests without a split column; `columns(i)` adds to or replaces
    the cells of patient i; `series` goes to `synthetic.write_series`.
    """
    rows = []
    for i, split in enumerate(splits):
        name = f"P{i:02d}"
        written = write_patient(folder / name, name, seed=i, lesions=lesions, **series)
        for lesion in range(lesions):
            row = {
                "patient_id": name,
                "lesion_id": str(lesion + 1),
                "image": f"{name}/ct",
                "mask": written.relative_to(folder).as_posix(),
                "roi": f"lesion {lesion + 1}",
                "label": labels[i % len(labels)],
            }
            rows.append({**row, **({"split": split} if split else {}), **columns(i)})
    return synthetic.write_manifest(folder / "manifest.csv", rows)


def write_patient(folder: Path, patient_id: str, *, seed: int = 0, lesions: int = 1, **series: Any) -> Path:
    """Write `ct/` and `rtstruct.dcm`; returns the latter's path. Lesion k is a box in rows 3 + 5k to 7 + 5k."""
    hu = synthetic.texture_hu(SHAPE, seed=seed)
    options = {"spacing": SPACING, "positions": POSITIONS, "patient_id": patient_id, "seed": seed, **series}
    ct = synthetic.write_series(folder / "ct", hu, **options)
    rois = {
        f"lesion {k + 1}": [synthetic.rectangle(ct, z, (5.25, 3.25 + 5 * k), (14.75, 6.75 + 5 * k)) for z in (2, 3, 4)]
        for k in range(lesions)
    }
    return synthetic.write_rtstruct(folder / "rtstruct.dcm", rois, ct)
