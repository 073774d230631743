"""The example that turns LIDC crops into a store: HU, geometry, split, and no patch that leaves its crop."""

import importlib.util
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctpatch import open_store

ROOT = Path(__file__).parents[2]
CROPS = ROOT / "../shared/data/lidc_crops"
spec = importlib.util.spec_from_file_location("lidc_crops", ROOT / "docs/examples/lidc_crops.py")
example = importlib.util.module_from_spec(spec)
spec.loader.exec_module(example)

real = pytest.mark.skipif(not CROPS.is_dir(), reason="needs ../shared/data/lidc_crops")


def ramp(across, down, spacing):
    """71 x 71 crop whose value is linear in the mm from its centre."""
    rows, columns = (np.indices((71, 71)) - 35) * spacing
    return np.rint(across * columns + down * rows).astype(np.int16)


def test_a_patch_about_the_centre():
    patch = example.sample(ramp(10, 30, 0.5), 0.5, np.zeros(1), np.zeros((1, 2)))[0]
    rows, columns = (np.indices((64, 64)) - 32) * 0.5
    np.testing.assert_array_equal(patch, 10 * columns + 30 * rows)


def test_turned_and_shifted():
    """u' = (cos, sin), v' = (-sin, cos) in (u, v): a quarter turn takes u to v and v to -u."""
    patch = example.sample(ramp(10, 30, 0.5), 0.5, np.array([90.0]), np.array([[1.0, -0.5]]))[0]
    rows, columns = (np.indices((64, 64)) - 32) * 0.5
    np.testing.assert_array_equal(patch, 10 * (1 - rows) + 30 * (-0.5 + columns))


@settings(max_examples=50, deadline=None)
@given(st.floats(0.46, 1.0), st.integers(1, 9999))
def test_moved_copies_stay_inside_the_crop(spacing, number):
    row = pd.Series({"PixelSpacing": str(spacing), "noduleID": str(number)})
    angle, shift = example.moves(row, 20, 0)
    cos, sin = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    assert (angle[0], shift[0].tolist()) == (0, [0, 0])
    assert (abs(shift) <= 5).all()
    for a, b in ((-16, -16), (-16, 15.5), (15.5, -16), (15.5, 15.5)):
        for place in (shift[:, 0] + b * cos - a * sin, shift[:, 1] + b * sin + a * cos):
            assert (abs(place) <= 71 * spacing / 2 + 1e-9).all()


@real
def test_the_store(tmp_path):
    table, hu = example.read_crops(CROPS)
    assert len(table) == len(hu) == 1030
    assert hu.min() >= -1024
    # values that are HU already are not shifted once more; the stored values of one nodule are mostly 0
    assert np.count_nonzero((hu == -1024).mean(axis=(1, 2)) > 0.4) <= 1
    chosen = table[table["patient"].isin(sorted(set(table["patient"]))[:40])]
    split = example.split_patients(chosen, 0)
    example.write_store(tmp_path / "lidc.h5", chosen, hu, split, copies=2, seed=0, rgb=False)
    with open_store(tmp_path / "lidc.h5") as store:
        assert store.label_classes == ("benign", "malignant")
        assert store.lesions.groupby("patient_id")["split"].nunique().max() == 1
        assert (store.lesions.loc[store.lesions["split"] == "train", "n_patches"] == 3).all()
        assert (store.lesions.loc[store.lesions["split"] != "train", "n_patches"] == 1).all()
        assert sum(name.startswith("aux_") for name in store.lesions) == 8
        assert store.lesions["diameter_mm"].between(2, 60).all()


@real
def test_a_wrong_intercept_is_noticed(monkeypatch):
    monkeypatch.setitem(example.INTERCEPT, "SIEMENS", 0)
    with pytest.raises(SystemExit, match="SIEMENS: the commonest value"):
        example.read_crops(CROPS)
