"""Table 1 of the simulated cohorts, by the trainer's own selection: what the paper kept is kept, the rest is not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import ctpatch
from ctpatch.manifest import Row
from ctpatch.manifest.split import assign_splits
from mtltrain.cohort import read_cohort
from mtltrain.tasks import select

MANIFESTS = Path(__file__).parents[2] / "manifests"
KEPT = {
    "agc": {
        "clinical_T_stage",
        "clinical_N_stage",
        "nodular_sign",
        "cord_outside_serosa",
        "fat_infiltration",
        "high_enhanced_layer",
    },
    "ggn": {"lobulation", "spiculation", "spine_like_process", "air_bronchogram"},
}
DROPPED = {"agc": {"CEA_level", "CA199_level", "CA724_level"}, "ggn": {"cusp_angle", "foam_like_sign"}}
POSITIVE = {"agc": "T4", "ggn": "IAC"}


@pytest.mark.parametrize("name", ["agc", "ggn"])
def test_related_characteristics_are_kept_and_unrelated_ones_dropped(name, tmp_path):
    cells = pd.read_csv(MANIFESTS / f"{name}.csv", dtype=str, keep_default_na=False)
    aux = cells.filter(regex="^aux_").apply(lambda column: column.where(column != "").rank(method="dense"))
    levels = {column.removeprefix("aux_"): {1: "", 2: "", 3: "", 4: ""} for column in aux}
    rows = [Row(i, row.patient_id, "1", "", label=row.label) for i, row in enumerate(cells.itertuples())]
    own = np.zeros((1, 64, 64), np.int16)  # no two patients may have the same pixels
    classes = sorted(set(cells["label"]))
    with ctpatch.StoreWriter(tmp_path / "m.h5", label_classes=classes, aux_levels=levels, rgb=False) as store:
        for row, values in zip(assign_splits(rows, seed=0), aux.to_numpy(), strict=True):
            known = dict(zip(levels, values, strict=True))
            store.add(patient_id=row.patient_id, split=row.split, label=row.label, hu=own + row.line, aux=known)
    with ctpatch.open_store(tmp_path / "m.h5") as store:
        table, kept = select(read_cohort(store, positive=POSITIVE[name]))
    assert {line.name for line in kept} == KEPT[name]
    assert {line.name for line in table if not line.kept} == DROPPED[name]
    assert all(line.r > 0 for line in kept)
