"""The simulated cohort: real DICOM, slices where they were asked for, contours that enclose what the slices show."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pydicom
import pytest
import shapely
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr
from synthetic import write_manifest

from ctpatch.build.engine import LocalRunner
from ctpatch.errors import CtpatchError, InputError
from ctpatch.manifest import read_manifest
from ctpatch.manifest.split import assign_splits
from ctpatch.phantom import anatomy, write_phantom
from ctpatch.phantom.scanner import GEOMETRIES, make_scan
from ctpatch.phantom.table import rank_levels
from ctpatch.processes import WorkerDied

DEMO = Path(__file__).parents[2] / "manifests" / "demo.csv"
ROWS = [
    {"patient_id": "007", "label": "T3", "aux_lobulation": "1", "aux_rim": "no", "geometry": "axial"},
    {"patient_id": "8", "label": "T4", "aux_lobulation": "3", "aux_rim": "yes", "geometry": "oblique"},
    {"patient_id": "9", "label": "T4", "aux_lobulation": "", "aux_rim": "no", "geometry": "Tilt"},
    {"patient_id": "10", "label": "T3", "aux_lobulation": "2", "aux_rim": "NA", "geometry": "uneven", "roi": "GTV"},
    {"patient_id": "11 b", "lesion_id": "2", "label": "T3", "aux_lobulation": "3", "aux_rim": "no"},
    {"patient_id": "11 b", "lesion_id": "1", "label": "T4", "aux_lobulation": "1", "aux_rim": "no"},
]
PATIENT = {"axial": "007", "oblique": "8", "tilt": "9", "uneven": "10"}


@pytest.fixture(scope="module")
def cohort(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("phantom")
    return write_phantom(write_manifest(root / "m.csv", ROWS), root / "out").parent


@pytest.fixture
def plain(tmp_path, monkeypatch):
    """The same cohort without noise, texture and rim: two tissues and a lesion of one HU."""
    monkeypatch.setattr(anatomy, "NOISE_HU", 0.0)
    monkeypatch.setattr(anatomy, "TEXTURE_HU", (0.0, 0.0))
    monkeypatch.setattr(anatomy, "RIM_HU", 0.0)
    return write_phantom(write_manifest(tmp_path / "m.csv", ROWS), tmp_path / "out").parent


def read_rows(manifest: Path) -> list[dict[str, str]]:
    with manifest.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def read_ct(folder: Path) -> list[pydicom.Dataset]:
    """Slices in order along n."""
    slices = [pydicom.dcmread(path) for path in sorted(folder.glob("*.dcm"))]
    iop = np.array(slices[0].ImageOrientationPatient, float).reshape(2, 3)
    return sorted(slices, key=lambda ds: np.array(ds.ImagePositionPatient, float) @ np.cross(*iop))


def read_hu(slices: list[pydicom.Dataset]) -> np.ndarray:
    return np.array([ds.pixel_array * float(ds.RescaleSlope) + float(ds.RescaleIntercept) for ds in slices])


def axes_and_origins(slices: list[pydicom.Dataset]) -> tuple[np.ndarray, np.ndarray]:
    r, c = np.array(slices[0].ImageOrientationPatient, float).reshape(2, 3)
    return np.array([r, c, np.cross(r, c)]), np.array([ds.ImagePositionPatient for ds in slices], float)


def read_contours(mask: Path, roi: str) -> dict[str, np.ndarray]:
    """Contours of an ROI by the SOPInstanceUID they refer to."""
    ds = pydicom.dcmread(mask)
    (number,) = [item.ROINumber for item in ds.StructureSetROISequence if item.ROIName == roi]
    (found,) = [item for item in ds.ROIContourSequence if item.ReferencedROINumber == number]
    return {
        item.ContourImageSequence[0].ReferencedSOPInstanceUID: np.array(item.ContourData, float).reshape(-1, 3)
        for item in found.ContourSequence
    }


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


# ------------------------------------------------------------------------------------------------ files


def test_manifest_is_the_given_one_with_paths_filled_in(cohort):
    rows = read_rows(cohort / "m.csv")
    assert [{key: row[key] for key in given} for row, given in zip(rows, ROWS, strict=True)] == ROWS
    assert rows[0]["image"] == "007/CT"
    assert rows[0]["mask"] == "007/RTSTRUCT.dcm"
    assert [row["roi"] for row in rows] == ["Lesion 1", "Lesion 1", "Lesion 1", "GTV", "Lesion 2", "Lesion 1"]
    assert len(read_manifest(cohort / "m.csv").rows) == len(ROWS)


def test_ct_headers(cohort):
    uids = set()
    for patient in ("007", "8", "9", "10", "11 b"):
        slices = read_ct(cohort / patient / "CT")
        assert 20 <= len(slices) <= 40
        assert {ds.SOPClassUID for ds in slices} == {pydicom.uid.CTImageStorage}
        assert {ds.PatientID for ds in slices} == {patient}
        assert all(ds.file_meta.MediaStorageSOPInstanceUID == ds.SOPInstanceUID for ds in slices)
        for keyword in (
            "StudyInstanceUID",
            "SeriesInstanceUID",
            "FrameOfReferenceUID",
            "PixelSpacing",
            "Rows",
            "Columns",
        ):
            assert len({str(ds[keyword].value) for ds in slices}) == 1
        assert all(64 <= size <= 128 for size in (slices[0].Rows, slices[0].Columns))
        axes, _ = axes_and_origins(slices)
        np.testing.assert_allclose(axes @ axes.T, np.eye(3), atol=1e-12)
        uids |= {slices[0].SeriesInstanceUID, *(ds.SOPInstanceUID for ds in slices)}
    assert len(uids) == sum(1 for path in cohort.rglob("CT/*.dcm")) + 5


def test_rtstruct_refers_to_the_series_and_lies_in_its_planes(cohort):
    for row in read_rows(cohort / "m.csv"):
        slices = {ds.SOPInstanceUID: ds for ds in read_ct(cohort / row["image"])}
        first = next(iter(slices.values()))
        ds = pydicom.dcmread(cohort / row["mask"])
        (frame,) = ds.ReferencedFrameOfReferenceSequence
        (series,) = frame.RTReferencedStudySequence[0].RTReferencedSeriesSequence
        assert frame.FrameOfReferenceUID == first.FrameOfReferenceUID
        assert {item.ReferencedFrameOfReferenceUID for item in ds.StructureSetROISequence} == {
            first.FrameOfReferenceUID
        }
        assert series.SeriesInstanceUID == first.SeriesInstanceUID
        assert {item.ReferencedSOPInstanceUID for item in series.ContourImageSequence} <= set(slices)
        contours = read_contours(cohort / row["mask"], row["roi"])
        assert len(contours) >= 2
        for uid, points in contours.items():
            r, c = np.array(slices[uid].ImageOrientationPatient, float).reshape(2, 3)
            assert abs((points - np.array(slices[uid].ImagePositionPatient, float)) @ np.cross(r, c)).max() < 1e-9


@pytest.mark.parametrize("geometry", ["axial", "oblique"])
def test_simpleitk_reads_the_same_volume(cohort, geometry):
    folder = cohort / PATIENT[geometry] / "CT"
    slices = read_ct(folder)
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    image = reader.Execute()
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image), read_hu(slices))
    axes, origins = axes_and_origins(slices)
    np.testing.assert_allclose(np.array(image.GetDirection()).reshape(3, 3), axes.T, atol=1e-6)
    np.testing.assert_allclose(image.GetOrigin(), origins[0], atol=1e-9)
    row_mm, column_mm = slices[0].PixelSpacing
    step = (origins[1] - origins[0]) @ axes[2]
    np.testing.assert_allclose(image.GetSpacing(), (column_mm, row_mm, step), atol=1e-6)


# --------------------------------------------------------------------------------------------- geometry


def test_slices_lie_as_asked(cohort):
    steps, normals = {}, {}
    for geometry, patient in PATIENT.items():
        axes, origins = axes_and_origins(read_ct(cohort / patient / "CT"))
        steps[geometry], normals[geometry] = np.diff(origins, axis=0), axes[2]
    for geometry in ("axial", "uneven"):
        np.testing.assert_allclose(normals[geometry], (0, 0, 1), atol=1e-12)
    for geometry in ("axial", "oblique", "tilt"):
        np.testing.assert_allclose(steps[geometry] - steps[geometry][0], 0, atol=1e-9)
    for geometry in ("axial", "oblique", "uneven"):
        np.testing.assert_allclose(np.cross(steps[geometry], normals[geometry]), 0, atol=1e-9)
    assert (abs(normals["oblique"]) > 0.02).all()
    np.testing.assert_allclose(steps["tilt"][:, :2], 0, atol=1e-9)
    assert 10 <= np.degrees(np.arccos(normals["tilt"][2])) <= 20
    uneven = np.round(steps["uneven"][:, 2], 9)
    assert set(uneven) == {2.0, 4.0}
    assert (np.diff(uneven) != 0).sum() == 1


def test_pixel_spacings_differ_between_rows_and_columns_in_some_series():
    spacings = [make_scan("axial", np.random.default_rng(seed)).stack.spacing for seed in range(20)]
    assert 4 <= sum(row != column for row, column in spacings) <= 16


def test_contours_enclose_exactly_the_lesion(plain):
    """From the files alone: the half-way HU between lesion and tissue is the outline, in every geometry."""
    compared = 0
    for patient in ("007", "8", "9", "10", "11 b"):
        rows = [row for row in read_rows(plain / "m.csv") if row["patient_id"] == patient]
        slices = read_ct(plain / patient / "CT")
        (r, c, _), _ = axes_and_origins(slices)
        drawn = [read_contours(plain / row["mask"], row["roi"]) for row in rows]
        for ds, hu in zip(slices, read_hu(slices), strict=True):
            row_mm, column_mm = map(float, ds.PixelSpacing)
            y, x = (np.indices(hu.shape).T * (row_mm, column_mm)).T
            lesion = np.zeros(hu.shape, bool)
            for contours in drawn:
                if (points := contours.get(ds.SOPInstanceUID)) is None:
                    continue
                at = points - np.array(ds.ImagePositionPatient, float)
                outline = shapely.Polygon(np.stack([at @ r, at @ c], axis=-1))
                assert outline.is_valid
                inside = shapely.contains_xy(outline, x, y)
                sure = shapely.distance(outline.exterior, shapely.points(x, y)) > 0.05
                near = shapely.contains_xy(outline.buffer(3), x, y)
                middle = (anatomy.TISSUE_HU + hu[inside].max()) / 2
                np.testing.assert_array_equal(hu[near & sure] > middle, inside[near & sure])
                compared += np.count_nonzero(near & sure)
                assert np.count_nonzero(near & ~sure) < 0.1 * np.count_nonzero(near)
                lesion |= near
            assert hu[~lesion].max() == anatomy.TISSUE_HU
    assert compared > 5000


def test_noise_and_tissues(cohort):
    hu = read_hu(read_ct(cohort / "007" / "CT"))
    assert hu[:, 0, 0].mean() == pytest.approx(anatomy.AIR_HU, abs=10)
    middle = hu[0, 40:60, 40:60]
    assert middle.mean() == pytest.approx(anatomy.TISSUE_HU, abs=3)
    assert middle.std() == pytest.approx(anatomy.NOISE_HU, abs=2)
    assert ((hu > -150) & (hu < -50)).mean() > 0.02


# ---------------------------------------------------------------------------------------------- lesions

LEVEL = st.floats(0, 1)
LEVELS = st.fixed_dictionaries(dict.fromkeys(("label", *anatomy.TRAITS), LEVEL))


def make(levels, seeds, middle=(0.0, 0.0, 0.0)):
    streams = [np.random.default_rng(seed) for seed in seeds]
    return anatomy.make_lesions(np.array(middle), levels, streams)


def polygon(lesion, dz: float) -> shapely.Polygon | None:
    radii, angles = lesion.radii(dz), lesion.angles(dz)
    if radii is None:
        return None
    return shapely.Polygon(lesion.centre[:2] + radii[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=-1))


@settings(deadline=None, max_examples=50)
@given(LEVELS, st.integers(0, 2**32 - 1), st.floats(-12, 12))
def test_depth_is_positive_exactly_inside_the_polygon(levels, seed, dz):
    (lesion,) = make([levels], [seed])
    points = np.random.default_rng(seed).uniform(-16, 16, (500, 2))
    depth = lesion.depth(*points.T, dz)
    outline = polygon(lesion, dz)
    if outline is None:
        assert (depth == -np.inf).all()
        return
    x, y = (points + lesion.centre[:2]).T
    sure = shapely.distance(outline.exterior, shapely.points(x, y)) > 1e-9
    np.testing.assert_array_equal(depth[sure] > 0, shapely.contains_xy(outline, x, y)[sure])


@settings(deadline=None, max_examples=25)
@given(st.lists(LEVELS, min_size=2, max_size=anatomy.MAX_LESIONS), st.integers(0, 2**31))
def test_lesions_of_a_patient_do_not_touch(levels, seed):
    lesions = make(levels, range(seed, seed + len(levels)))
    for dz in (-5.0, 0.0, 5.0):
        outlines = [polygon(lesion, dz) for lesion in lesions]
        apart = [a.distance(b) for i, a in enumerate(outlines) for b in outlines[:i]]
        assert min(apart) > anatomy.EDGE_MM


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_lesions_lie_inside_the_image(geometry):
    for seed in range(10):
        scan = make_scan(geometry, np.random.default_rng(seed))
        levels = [dict.fromkeys(("label", *anatomy.TRAITS), 1.0)] * anatomy.MAX_LESIONS
        for lesion in make(levels, range(seed, seed + len(levels)), scan.stack.to_stack(scan.centre)):
            contours = lesion.contours(scan.stack)
            assert len(contours) >= 2
            assert min(contours) > 0
            assert max(contours) < len(scan.stack) - 1
            for k, points in contours.items():
                column, row = scan.stack.to_pixels(scan.stack.to_stack(points), k).T
                assert column.min() > 0
                assert column.max() < scan.stack.shape[1] - 1
                assert row.min() > 0
                assert row.max() < scan.stack.shape[0] - 1


def test_an_even_outline_is_an_ellipsoid():
    lesion = anatomy.SimulatedLesion(np.array([3.3, -2.2, 1.1]), 9.0, 11.0, np.ones(anatomy.VERTICES), 80, 0, 0)
    x, y = np.random.default_rng(0).uniform(-10, 10, (2, 4000))
    for dz in (-10.6, -10.4, -3.0, 0.0, 7.0):
        quadric = (x**2 + y**2) / 9.0**2 + (dz / 11.0) ** 2 - 1
        sure = abs(quadric) > 1e-3  # a chord lies up to 1.5e-4 of the radius inside its arc
        expected = quadric < 0 if abs(dz) <= 0.95 * 11 else np.zeros(x.shape, bool)
        np.testing.assert_array_equal(lesion.depth(x, y, dz)[sure] > 0, expected[sure])


def test_labels_and_characteristics_shape_the_lesion():
    low = dict.fromkeys(("label", *anatomy.TRAITS), 0.0)

    def lesion(**levels):
        return make([low | levels], [5])[0]

    assert lesion(label=1.0).hu - lesion().hu == pytest.approx(anatomy.LABEL_HU)
    assert lesion(label=1.0).radius - lesion().radius == pytest.approx(anatomy.LABEL_MM)
    lobes = lesion(lobulation=1.0).outline - lesion().outline
    assert lobes.max() == pytest.approx(anatomy.LOBES, rel=0.02)
    assert np.count_nonzero(np.diff(np.sign(np.append(lobes, lobes[0])))) in (8, 10, 12)
    spikes = lesion(spiculation=1.0).outline - lesion().outline
    assert spikes.min() >= 0
    assert spikes.max() == pytest.approx(anatomy.SPIKES, rel=0.05)
    assert lesion(rim=1.0).rim_hu == anatomy.RIM_HU
    assert lesion(texture=1.0).texture_hu > lesion(texture=0.5).texture_hu > lesion().texture_hu


def test_rim_and_texture_show_in_the_hu(monkeypatch):
    monkeypatch.setattr(anatomy, "NOISE_HU", 0.0)
    scan = make_scan("axial", np.random.default_rng(0))
    body = anatomy.make_body(scan.centre, np.random.default_rng(0))

    def core_and_shell(**fields):
        middle = scan.stack.to_stack(scan.centre)
        lesion = anatomy.SimulatedLesion(
            middle, 10.0, 10.0, np.ones(anatomy.VERTICES), **({"hu": 80, "rim_hu": 0, "texture_hu": 0} | fields)
        )
        rng = np.random.default_rng(1)
        hu = anatomy.simulate_hu(scan.stack, body, [lesion], rng, [rng])
        k = int(np.argmin(abs(scan.stack.positions - middle[2])))
        x, y, _ = np.moveaxis(anatomy.pixel_centres(scan.stack, k) - middle, -1, 0)
        rho = np.hypot(x, y)
        return hu[k][rho < 5], hu[k][(rho > 8) & (rho < 9)]

    core, shell = core_and_shell()
    assert set(core) == set(shell) == {80}
    core, shell = core_and_shell(rim_hu=60)
    assert core.mean() < 90
    assert 105 < shell.mean() < 135
    core, _ = core_and_shell(texture_hu=20)
    assert core.mean() == pytest.approx(80, abs=8)
    assert core.std() == pytest.approx(20, rel=0.3)


def test_levels_are_ranks():
    assert rank_levels(["10", "9", "", "9", "NA", "11"]) == {"9": 0.0, "10": 0.5, "11": 1.0}
    assert rank_levels(["yes", "no"]) == {"no": 0.0, "yes": 1.0}
    assert rank_levels(["2", "2"]) == {"2": 0.0}
    assert rank_levels([""]) == {}


# ------------------------------------------------------------------------------------------ same bytes


def test_same_bytes_in_any_row_order_and_with_more_patients(cohort, tmp_path):
    more = [*reversed(ROWS), {"patient_id": "12", "label": "T3", "aux_lobulation": "3", "aux_rim": "no"}]
    write_phantom(write_manifest(tmp_path / "n.csv", more), tmp_path / "out")
    again, before = contents(tmp_path / "out"), contents(cohort)
    before.pop("m.csv")
    assert len(before) > 100
    assert {name: again[name] for name in before} == before


def test_a_patient_whose_worker_died_is_written_anew(tmp_path, monkeypatch):
    def killed_once(runner, function, calls):
        for call in calls:
            (call[0] / "CT").mkdir(parents=True)
            (call[0] / "CT" / "9999.dcm").touch()
            yield function(*call)

    monkeypatch.setattr(LocalRunner, "run", killed_once)
    write_phantom(write_manifest(tmp_path / "m.csv", ROWS[:1]), tmp_path / "out")
    assert not (tmp_path / "out" / "007" / "CT" / "9999.dcm").exists()
    assert len(read_ct(tmp_path / "out" / "007" / "CT")) > 20


def test_a_worker_that_dies_twice_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(LocalRunner, "run", lambda *_: (death for death in [WorkerDied("killed by signal 9")]))
    with pytest.raises(CtpatchError, match="killed by signal 9; out of memory"):
        write_phantom(write_manifest(tmp_path / "m.csv", ROWS[:1]), tmp_path / "out")
    assert not (tmp_path / "out" / "m.csv").exists()


def test_another_seed_gives_another_cohort(cohort, tmp_path):
    write_phantom(write_manifest(tmp_path / "m.csv", ROWS[:1]), tmp_path / "a", seed=1)
    write_phantom(write_manifest(tmp_path / "m.csv", ROWS[:1]), tmp_path / "b", seed=2)
    a, b = (read_ct(tmp_path / name / "007" / "CT") for name in "ab")
    assert not np.array_equal(read_hu(a)[:20, :70, :70], read_hu(b)[:20, :70, :70])
    assert a[0].SeriesInstanceUID != b[0].SeriesInstanceUID


def test_progress_counts_patients(tmp_path):
    seen = []
    write_phantom(
        write_manifest(tmp_path / "m.csv", ROWS[3:]), tmp_path / "out", progress=lambda *numbers: seen.append(numbers)
    )
    assert seen == [(1, 2), (2, 2)]


# ----------------------------------------------------------------------------------------- wrong input

GOOD = "patient_id,label\n1,a\n2,b\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("patient,class\n1,a\n", "no column patient_id and label among patient, class"),
        ("patient_id,label\n", "1 lines"),
        ("", "0 lines"),
        ("patient_id,label,Label\n1,a,b\n", "column label stands twice"),
        ("patient_id,label\n1,a\n2\n", "row=3.*1 cells under 2 columns"),
        (
            "patient_id,label,geometry\n1,a,\n2,b,helical\n",
            "patient=2 row=3.*unknown geometry 'helical'.*axial, oblique",
        ),
        ("patient_id,label,anatomy\n1,a,\n2,b,liver\n", "row=3.*unknown anatomy 'liver'.*body, stomach, lung"),
        ("patient_id,label,anatomy,geometry\n1,a,lung,tilt\n", "geometry tilt in a lung"),
        ("patient_id,label,anatomy,severity\n1,a,lung,1.5\n", "severity '1.5'.*from 0 to 1"),
        ("patient_id,label,anatomy,severity\n1,a,lung,nan\n", "severity 'nan'"),
        ("patient_id,label,anatomy,lesion_id\n1,a,lung,1\n1,a,body,2\n", "several lesions, not all in a body"),
        ("patient_id,label\n../x,a\n", "'../x' cannot name a folder"),
        ("patient_id,label\n,a\n", "row=2.*'' cannot name a folder"),
        ("patient_id,label\n/tmp/x,a\n", "'/tmp/x' cannot name a folder"),
        ("patient_id,label\nx.,a\n", "'x.' cannot name a folder"),
        ("patient_id,label,roi\n1,a,a\\b\n", "cannot name a DICOM ROI"),
        ("patient_id,label\na,a\nA,b\n", "folder is also that of patient a"),
        ("patient_id,label\n1,a\n1,a\n", "lesion_id 1, 1: not distinct"),
        ("patient_id,label,lesion_id,roi\n1,a,1,G\n1,a,2,G\n", "roi G, G: not distinct"),
        ("patient_id,label,lesion_id\n1,a,1\n1,a,2\n1,a,3\n1,a,4\n", "patient=1 row=5.*4 lesions.*up to 3"),
        (
            "patient_id,label,lesion_id,geometry\n1,a,1,tilt\n1,a,2,axial\n",
            "geometries axial, tilt of one patient",
        ),
        ('patient_id,label\n1,"a\n', "not a CSV file"),
        ("patient_id,label\nm.csv,a\n", "patient_id 'm.csv' is this file's name, too"),
    ],
)
def test_wrong_manifests_are_refused_before_anything_is_written(tmp_path, text, message):
    manifest = tmp_path / "m.csv"
    manifest.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=message):
        write_phantom(manifest, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_all_wrong_rows_are_told_at_once(tmp_path):
    manifest = tmp_path / "m.csv"
    manifest.write_text("patient_id,label,geometry\n1,a,helical\n2,b,spiral\n", encoding="utf-8")
    with pytest.raises(InputError) as caught:
        write_phantom(manifest, tmp_path / "out")
    assert len(str(caught.value).splitlines()) == 2


@pytest.mark.parametrize("data", [b"patient_id,label\n1,\xff\n", b"\x00\x01" * 40])
def test_not_a_text_file(tmp_path, data):
    (tmp_path / "m.csv").write_bytes(data)
    with pytest.raises(InputError):
        write_phantom(tmp_path / "m.csv", tmp_path / "out")


def test_no_manifest(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        write_phantom(tmp_path / "m.csv", tmp_path / "out")


def test_output_folder_must_be_new_or_empty(tmp_path):
    manifest = tmp_path / "m.csv"
    manifest.write_text(GOOD, encoding="utf-8")
    with pytest.raises(InputError, match="not empty"):
        write_phantom(manifest, tmp_path)
    with pytest.raises(InputError, match="is a file"):
        write_phantom(manifest, manifest)
    (tmp_path / "out").mkdir()
    assert write_phantom(manifest, tmp_path / "out").is_file()


def test_spreadsheet_csv(tmp_path):
    manifest = tmp_path / "m.csv"
    manifest.write_text("Patient_ID;LABEL;Image\n01;a;\n", encoding="utf-8-sig")
    (row,) = read_rows(write_phantom(manifest, tmp_path / "out"))
    assert row == {
        "Patient_ID": "01",
        "LABEL": "a",
        "Image": "01/CT",
        "mask": "01/RTSTRUCT.dcm",
        "roi": "Lesion 1",
    }


# ------------------------------------------------------------------------------------------------ demo


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """The demo's cohort, split as a build splits it by default."""
    manifest = read_manifest(write_phantom(DEMO, tmp_path_factory.mktemp("demo")))
    return manifest, assign_splits(manifest.rows, seed=0)


def test_demo_has_every_kind_of_patient(demo):
    rows = read_rows(DEMO)
    patients = [row["patient_id"] for row in rows]
    assert 30 <= len(set(patients)) <= 40 < len(patients) + 5
    assert len(set(patients)) < len(patients)
    assert {row["geometry"] for row in rows} == set(GEOMETRIES)
    assert all("" in {row[column] for row in rows} for column in rows[0] if column.startswith("aux_"))
    _, split = demo
    for name in ("train", "val", "test"):
        assert {row.label for row in split if row.split == name} == {"benign", "malignant"}


def test_demo_characteristics_correlate_with_the_label_but_for_one(demo):
    manifest, split = demo
    train = [row for row in split if row.split == "train"]
    label = np.array([manifest.label_classes.index(row.label) for row in train])
    p = {}
    for name in manifest.aux_levels:
        level = np.array([dict(row.aux)[name] for row in train])
        known = ~np.isnan(level)
        p[name] = spearmanr(level[known], label[known]).pvalue
    assert {name for name, value in p.items() if value < 0.05} == {"lobulation", "spiculation", "rim"}
    assert p["texture"] > 0.05
