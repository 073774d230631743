"""The manifests of the paper's two cohorts: the paper's numbers, and the bytes of their generator."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from scipy.stats import spearmanr

from ctpatch.manifest import Row
from ctpatch.manifest.split import assign_splits
from ctpatch.phantom.table import SHAPING, read_table
from manifests import make_cohorts

MANIFESTS = Path(make_cohorts.__file__).parent
CLASSES = {"agc": {"T3": 153, "T4": 204}, "ggn": {"non-invasive": 113, "IAC": 123}}
WORDS = {"absent": "0", "present": "1", "normal": "0", "raised": "1"}
POSITIVE = {"agc": "T4", "ggn": "IAC"}
RELATED = {
    "agc": {
        "clinical_T_stage": 0.38,
        "clinical_N_stage": 0.24,
        "nodular_sign": 0.28,
        "cord_outside_serosa": 0.35,
        "fat_infiltration": 0.35,
        "high_enhanced_layer": 0.35,
    },
    "ggn": {"lobulation": 0.29, "spiculation": 0.34, "spine_like_process": 0.36, "air_bronchogram": 0.37},
}
UNRELATED = {"agc": {"CEA_level", "CA199_level", "CA724_level"}, "ggn": {"cusp_angle", "foam_like_sign"}}

OTHERS = {"label", "name", "split", "severity"}


@pytest.fixture(scope="module", params=["agc", "ggn"])
def cohort(request) -> tuple[str, pd.DataFrame]:
    """Name, and a table: label as 0 and 1, characteristics as numbers (NaN unknown), class, default split, severity."""
    cells = pd.read_csv(MANIFESTS / f"{request.param}.csv", dtype=str, keep_default_na=False)
    table = cells.filter(regex="^aux_").replace(WORDS).apply(pd.to_numeric).rename(columns=lambda c: c[4:])
    rows = [
        Row(i, patient, "1", "", label=label)
        for i, (patient, label) in enumerate(cells[["patient_id", "label"]].values)
    ]
    return request.param, table.assign(
        label=(cells["label"] == POSITIVE[request.param]).astype(int),
        name=cells["label"],
        split=[row.split for row in assign_splits(rows, seed=0)],
        severity=cells["severity"].astype(float),
    )


@pytest.mark.parametrize("design", [make_cohorts.AGC, make_cohorts.GGN], ids=lambda design: design.name)
def test_the_generator_makes_the_same_bytes(design, tmp_path):
    make_cohorts.write(make_cohorts.make(design)[1], tmp_path / "again.csv")
    assert (tmp_path / "again.csv").read_bytes() == (MANIFESTS / f"{design.name}.csv").read_bytes()


def test_patients_of_each_class(cohort):
    name, table = cohort
    assert table["name"].value_counts().to_dict() == CLASSES[name]


def test_spearman_is_that_of_table_1(cohort):
    name, table = cohort
    for characteristic, r in RELATED[name].items():
        known = table[[characteristic, "label"]].dropna()
        assert spearmanr(known[characteristic], known["label"]).statistic == pytest.approx(r, abs=0.03)


def test_training_patients_select_the_related_ones_only(cohort):
    name, table = cohort
    train = table[table["split"] == "train"]
    p = {
        column: spearmanr(train[column], train["label"], nan_policy="omit").pvalue
        for column in RELATED[name].keys() | UNRELATED[name]
    }
    assert {column for column, value in p.items() if value < 0.05} == set(RELATED[name])
    assert set(table) - OTHERS == set(p)


def test_blanks_are_as_many_as_clinics_have(cohort):
    _, table = cohort
    blank = table.drop(columns=[*OTHERS]).isna().mean()
    assert blank.between(0.045, 0.155).all()


def test_every_sign_of_the_manifest_shapes_the_picture(cohort):
    name, _ = cohort
    rows = read_table(MANIFESTS / f"{name}.csv").rows
    (anatomy,) = {row.anatomy for row in rows}
    columns = {f"aux_{sign}".lower() for sign in SHAPING[anatomy]}
    markers = {cell for cell in rows[0].cells if cell.endswith("_level")}
    assert columns | markers == {cell for cell in rows[0].cells if cell.startswith("aux_")}
    assert all(row.severity is not None for row in rows)


def test_severity_is_behind_label_and_signs(cohort):
    name, table = cohort
    r = table.drop(columns=["name", "split"]).corr("spearman")["severity"].abs()
    assert r["label"] == pytest.approx(0.63, abs=0.09)
    assert r[[*RELATED[name]]].min() > 0.25
    assert r[[*UNRELATED[name]]].max() < 0.15
