"""From scenes to DICOM: contours where the lesion is, all that a patch needs, the same bytes from any jobs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
import shapely
import SimpleITK as sitk
from synthetic import write_manifest

from ctpatch.build.check import check_manifest
from ctpatch.geometry import make_stack
from ctpatch.phantom import acquisition, write_phantom
from ctpatch.phantom.acquisition import EXAMINATIONS, examine
from ctpatch.phantom.outlines import outlines
from ctpatch.phantom.table import SHAPING, read_table
from ctpatch.recipe import Recipe

ROWS = [
    {"patient_id": "1", "label": "T3", "anatomy": "stomach", "severity": "0.2", "aux_nodular_sign": "absent"},
    {"patient_id": "2", "label": "T4", "anatomy": "Stomach", "severity": "0.9", "aux_nodular_sign": "present"},
    {"patient_id": "3", "label": "T4", "anatomy": "lung", "severity": "", "aux_nodular_sign": ""},
]


@pytest.fixture
def coarse(monkeypatch):
    """Large pixels and thick slices: a tenth of the work."""
    for name, how in EXAMINATIONS.items():
        quick = replace(how, pixels=(1.9, 2.1), slices={3.0: 0.5, 4.0: 0.5})
        monkeypatch.setitem(acquisition.EXAMINATIONS, name, quick)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.parametrize("anatomy", EXAMINATIONS)
def test_images_reach_as_far_as_patches_do_and_differ_in_spacing(coarse, anatomy):
    recipe = Recipe()
    reach = (32 * recipe.spacing_mm + recipe.shift_mm) * np.sqrt(2)
    level = dict.fromkeys(SHAPING[anatomy], 1.0) | {"severity": 1.0}
    stacks = []
    for seed in (1, 2):
        series = examine(anatomy, level, np.random.default_rng(seed), np.random.default_rng(seed))
        (contours,) = series.contours
        assert series.hu.dtype == np.int16
        assert -1024 <= series.hu.min() < -990
        z = np.concatenate(list(contours.values()))[:, 2]
        assert z.min() - series.scan.stack.origins[0, 2] > reach
        assert series.scan.stack.origins[-1, 2] - z.max() > reach
        assert series.scan.stack.positions[1] == pytest.approx(series.scan.thickness)
        stacks.append(series.scan.stack)
    assert stacks[0].spacing != stacks[1].spacing


def test_contours_enclose_the_lesion_of_the_picture(coarse, tmp_path):
    """From the files alone: inside the tumour's contours there is soft tissue, in the nodule's glass and more."""
    manifest = write_phantom(write_manifest(tmp_path / "m.csv", ROWS[1:]), tmp_path / "out")
    result = check_manifest(manifest, Recipe())
    assert not result.problems
    for patient, low, high in (("2", 40, 130), ("3", -750, 0)):
        files = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(tmp_path / "out" / patient / "CT"))
        image = sitk.ReadImage(files)
        hu = sitk.GetArrayFromImage(image)
        masked = []
        for item in pydicom.dcmread(tmp_path / "out" / patient / "RTSTRUCT.dcm").ROIContourSequence[0].ContourSequence:
            points = np.array(item.ContourData, float).reshape(-1, 3)
            index = np.array([image.TransformPhysicalPointToContinuousIndex(point) for point in points.tolist()])
            y, x = np.indices(hu.shape[1:])
            polygon = shapely.Polygon(index[:, :2])
            assert polygon.is_valid
            masked.append(hu[round(index[0, 2])][shapely.contains_xy(polygon, x, y)])
        assert low < np.median(np.concatenate(masked)) < high


def test_what_shapes_a_lesion(tmp_path):
    """The label does not, a severity given does, and what is blank is drawn."""
    tables = [
        read_table(write_manifest(tmp_path / f"{label}.csv", [row | {"label": label} for row in ROWS]))
        for label in ("T3", "T4")
    ]
    first, second = ([table.levels(row, np.random.default_rng(1)) for row in table.rows] for table in tables)
    assert first == second
    assert [levels["severity"] for levels in first[:2]] == [0.2, 0.9]
    assert [levels["nodular_sign"] for levels in first[:2]] == [0.0, 1.0]
    assert 0 < first[2]["severity"] < 1
    assert set(first[2]) == {*SHAPING["lung"], "severity"}


def test_same_bytes_from_any_number_of_jobs(tmp_path):
    rows = [ROWS[2], {"patient_id": "4", "label": "T3"}]
    for jobs in (1, 2):
        write_phantom(write_manifest(tmp_path / "m.csv", rows), tmp_path / str(jobs), jobs=jobs)
    one, two = contents(tmp_path / "1"), contents(tmp_path / "2")
    assert len(one) > 100
    assert one == two


# -------------------------------------------------------------------------------------------- outlines


def test_outlines_are_the_level_sets_of_one_lesion():
    """A cylinder that leans, with a smaller one beside it and a third piece after a gap."""
    y, x = np.mgrid[:40, :50].astype(np.float32)
    depth = np.stack([np.maximum(9 - np.hypot(x - 20 - k, y - 18), 4 - np.hypot(x - 42, y - 30)) for k in range(8)])
    depth[6] = -np.inf
    depth[0] = 1 - np.hypot(x - 20, y - 18)  # smaller than any reader would outline
    stack, _ = make_stack(np.eye(3), [(-7, 11, 3 * k) for k in range(8)], (0.8, 0.5), (40, 50))
    found = outlines(depth, stack)
    assert list(found) == [1, 2, 3, 4, 5]
    for k, points in found.items():
        polygon = shapely.Polygon(points[:, :2])
        np.testing.assert_allclose(points[:, 2], 3 * k)
        np.testing.assert_allclose(polygon.area, np.pi * 81 * 0.8 * 0.5, rtol=0.02)
        np.testing.assert_allclose(polygon.centroid.coords[0], (-7 + (20 + k) * 0.5, 11 + 18 * 0.8), atol=0.05)
