"""What the page says is so: noise, outlines, sizes, outliers, groups that differ, each judged by other means."""

from __future__ import annotations

import pickle
import re
import sys
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import cohort
import numpy as np
import pandas as pd
import pydicom
import pytest
import shapely
from scipy.ndimage import gaussian_filter
from scipy.stats import norm
from sklearn.metrics import roc_auc_score

from ctpatch import StoreWriter, open_store
from ctpatch.build.engine import LocalRunner
from ctpatch.build.one_lesion import plan_lesion
from ctpatch.cli import main
from ctpatch.contours import OTHER_PATIENT
from ctpatch.contours.roi import VoxelROI
from ctpatch.geometry import make_stack
from ctpatch.lesion.lattice import lesion_lattice
from ctpatch.manifest import read_manifest
from ctpatch.recipe import WINDOWS, Recipe
from ctpatch.report import from_manifest, from_store, looking, outliers, pictures, plots, views, write_report
from ctpatch.report.cohort import ACQUISITION, Looked, acquisition_table, site_column
from ctpatch.report.noise import noise
from ctpatch.report.shape import Part

AXIAL = np.eye(3)


@dataclass(frozen=True, eq=False)
class Phantom:
    """An image whose HU are given, or are a bright ball at an LPS point in a body."""

    stack: object
    hu: np.ndarray | None = None
    ball: tuple[float, float, float] = (0, 0, 0)

    def read_hu(self, box):
        ranges = (slice(*box.slices), slice(*box.rows), slice(*box.columns))
        if self.hu is not None:
            return self.hu[ranges]
        k, row, column = np.meshgrid(*(np.arange(part.start, part.stop) for part in ranges), indexing="ij")
        rows, columns = self.stack.spacing
        points = self.stack.origins[k] + column[..., None] * columns * self.stack.axes[0]
        points = points + row[..., None] * rows * self.stack.axes[1]
        return np.where(np.linalg.norm(points - self.ball, axis=-1) < 8, 1000, 0).astype(np.float32)


def stack(axes=AXIAL, shape=(40, 60, 60), spacing=(1.0, 1.0, 2.0)):
    axes = np.asarray(axes, float)
    middle = (shape[2] - 1) / 2 * spacing[1] * axes[0] + (shape[1] - 1) / 2 * spacing[0] * axes[1]
    middle = middle + (shape[0] - 1) / 2 * spacing[2] * axes[2]
    origins = np.arange(shape[0])[:, None] * spacing[2] * axes[2] - middle
    return make_stack(axes, origins, spacing[:2], shape[1:])[0]


def mask(*boxes, shape=(40, 60, 60)):
    """Voxels of boxes ((slices), (rows), (columns)), each as (start, stop)."""
    voxels = np.zeros(shape, bool)
    for box in boxes:
        voxels[tuple(slice(*ends) for ends in box)] = True
    found = np.argwhere(voxels)
    low, high = found.min(axis=0), found.max(axis=0) + 1
    inside = voxels[tuple(slice(*ends) for ends in zip(low, high, strict=True))]
    return VoxelROI("1", tuple(low.tolist()), inside)


# -- Noise --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sigma", [5.0, 20.0, 60.0])
@pytest.mark.parametrize("grain", [0.0, 1.0])
def test_noise_is_that_of_the_tissue_whatever_its_grain(sigma, grain):
    rng = np.random.default_rng(1)
    hu = rng.normal(size=(1, 256, 256))
    hu = gaussian_filter(hu, (0, grain, grain)) if grain else hu
    hu *= sigma / hu.std()
    hu[:, :, :128] -= 850  # lung, which does not count
    hu[:, :, 128:] += 50
    hu[:, 100:140, 160:200] += 300  # bone
    assert noise(hu.astype(np.float32), (0.8, 0.8)) == pytest.approx(sigma, rel=0.15, abs=0.3)
    if grain:  # what a difference of neighbours says of the same
        assert np.diff(hu[0, 150:, 150:]).std() / np.sqrt(2) < 0.7 * sigma


def test_noise_of_a_picture_without_tissue_is_unknown():
    assert np.isnan(noise(np.full((1, 64, 64), -850, np.float32), (1, 1)))
    assert np.isnan(noise(np.full((1, 4, 64), 50, np.float32), (1, 1)))


# -- Views --------------------------------------------------------------------------------------------------------


SIDES = {"L": (1, 0, 0), "R": (-1, 0, 0), "P": (0, 1, 0), "A": (0, -1, 0), "H": (0, 0, 1), "F": (0, 0, -1)}


@pytest.mark.parametrize(
    ("r", "c"), [("L", "P"), ("R", "P"), ("L", "A"), ("L", "F"), ("P", "F"), ("A", "H"), ("P", "R")]
)
def test_letters_at_the_edges_are_where_they_say(r, c):
    """A ball towards a side of the patient is seen at that side's letter, however the slices lie."""
    axes = np.array([SIDES[r], SIDES[c], np.cross(SIDES[r], SIDES[c])], float)
    for plane in range(3):
        for side, direction in SIDES.items():
            image = Phantom(stack(axes), ball=tuple(18 * np.array(direction)))
            centre = image.stack.to_stack((0, 0, 0))
            cut = views._cut(image, None, centre, plane, 0.5)
            rows, columns = np.nonzero(cut.hu > 500)
            if side not in cut.edges:
                assert len(rows) == 0  # the ball is beside the plane
                continue
            aside = (columns.mean() - 96, rows.mean() - 96)
            expected = {0: (-36, 0), 1: (36, 0), 2: (0, -36), 3: (0, 36)}[cut.edges.index(side)]
            assert aside == pytest.approx(expected, abs=1.5)
            assert cut.edges[0] in "RAFH"
            assert cut.edges[2] not in "FP"


def test_a_view_is_the_patch_that_a_build_cuts_there_and_more(manifest, tmp_path):
    out = tmp_path / "s.h5"
    assert main(["build", "--manifest", str(manifest), "--out", str(out), "--patches", "1", "--no-rgb"]) == 0
    with open_store(out) as store:
        row = next(row for row in read_manifest(manifest).rows if row.split == "test")
        plan = plan_lesion(row, Recipe())
        lattice = lesion_lattice(plan.mask, plan.image.stack, 0.5)
        cut = views._cut(plan.image, lattice, lattice.middle(), 0, 0.5)
        assert np.array_equal(cut.hu[64:128, 64:128], store.split("test").hu[0])
        assert cut.inside[96, 96]


def test_what_is_in_the_lesion_is_what_its_lattice_says():
    lattice = lesion_lattice(mask(((3, 6), (10, 20), (30, 33)), ((4, 5), (20, 24), (30, 40))), stack(), 0.5)
    index = np.argwhere(np.ones(np.add(lattice.inside.shape, 4), bool)) - 2
    points = (index + lattice.corner)[:, ::-1] * 0.5
    wanted = np.pad(lattice.inside, 2)[tuple((index + 2).T)]
    assert wanted.any()
    assert np.array_equal(views.in_lesion(lattice, points), wanted)
    assert np.array_equal(views.in_lesion(lattice, points + 0.2), wanted)


def test_a_large_lesion_fits_into_its_view():
    image = Phantom(stack(shape=(40, 250, 250)), ball=(0, 0, 0))
    lattice = lesion_lattice(mask(((5, 30), (20, 230), (20, 230)), shape=(40, 250, 250)), image.stack, 0.5)
    drawn = views.draw_views(image, lattice, lattice.middle(), 0.5, WINDOWS)
    numbers = np.array(re.findall(r"[\d.]+", drawn.planes[0].path), float)
    assert numbers.min() > 10
    assert numbers.max() < 182
    assert np.ptp(numbers) * drawn.planes[0].millimetres / 192 == pytest.approx(210, abs=3)


def test_an_outline_goes_round_the_voxels_and_their_holes():
    inside = np.zeros((40, 40), bool)
    inside[5:25, 8:30] = True
    inside[10:18, 12:20] = False
    rings = pictures.outline(inside).split("Z")[:-1]
    rings = [np.array(re.findall(r"[\d.]+", ring), float).reshape(-1, 2) for ring in rings]
    outer, inner = sorted((shapely.Polygon(ring) for ring in rings), key=lambda p: -p.area)
    assert outer.contains(inner)
    assert outer.area - inner.area == pytest.approx(inside.sum(), rel=0.02)
    assert outer.bounds == (8, 5, 30, 25)


# -- Patches ------------------------------------------------------------------------------------------------------


def test_twelve_patches_show_every_plane_and_a_moved_copy_of_each():
    copy = np.tile(np.arange(3, dtype=np.uint8), 100)
    chosen = from_store.representative(copy)
    assert chosen.tolist() == [0, 3, 6, 9, 12, 15, 1, 4, 7, 10, 13, 16]
    assert from_store.representative(copy[:1]).tolist() == [0]
    assert len(from_store.representative(np.zeros(20, np.uint8))) == 12
    assert len(from_store.representative(np.tile(np.array([0, 1], np.uint8), 2))) == 4


def test_air_and_the_outside_are_told_apart():
    rng = np.random.default_rng(0)
    air = rng.normal(-1000, 20, (64, 64)).astype(np.int16)
    lung = rng.normal(-850, 20, (64, 64)).astype(np.int16)
    edge = np.where(np.arange(64) < 33, -1024, lung).astype(np.int16)
    hu = np.stack([air, lung, edge])
    assert from_store.air_only(hu).tolist() == [True, False, False]
    assert from_store.half_outside(hu).tolist() == [False, False, True]


# -- Contours -----------------------------------------------------------------------------------------------------


def test_facts_of_a_mask_with_a_hole_in_two_pieces_at_the_border():
    roi = mask(((0, 3), (10, 20), (10, 20)), ((2, 4), (40, 60), (40, 50)))
    roi.voxels[1, 3:6, 4:7] = False
    hu = np.random.default_rng(0).normal(40, 15, (40, 60, 60)).astype(np.float32)
    facts = from_manifest.mask_facts(roi, Phantom(stack(), hu))
    assert (facts.voxels, facts.slices) == (300 - 9 + 400, 4)
    assert facts.holes == (Part(9, 18.0, (2, 2)),)
    assert facts.pieces == (Part(291, 582.0, (1, 3), "front"),)
    assert facts.cut == ("first slice", "last row")
    assert facts.volume_ml == pytest.approx(691 * 2 / 1000)
    inside = np.zeros(hu.shape, bool)
    inside[0:4, 10:60, 10:50] = roi.voxels
    assert facts.hu == pytest.approx(np.quantile(hu[inside], (0.05, 0.5, 0.95)))


# -- Outliers -----------------------------------------------------------------------------------------------------


def group_table(values, labels, column="noise"):
    table = pd.DataFrame({name: np.ones(len(values)) for name in ACQUISITION})
    return table.assign(**{column: values, "label": labels, "split": "train", "patient_id": np.arange(len(values))})


def test_a_class_that_was_scanned_differently_is_told():
    rng = np.random.default_rng(3)
    labels = np.repeat(["benign", "malignant"], 20)
    noisy = rng.normal(12, 2, 40) + 3 * (labels == "malignant")
    (found,) = outliers.group_differences(group_table(noisy, labels))
    assert (found.by, found.group, found.column) == ("label", "malignant", "noise")
    assert found.auc == pytest.approx(roc_auc_score(labels == "malignant", noisy))
    assert found.p < 0.01
    assert outliers.group_differences(group_table(rng.normal(12, 2, 40), labels)) == []


def test_lesions_of_one_patient_are_no_patients():
    labels = np.repeat(["benign", "malignant"], 20)
    table = group_table(np.where(labels == "malignant", 20.0, 10.0), labels)
    assert len(outliers.group_differences(table)) == 1
    assert outliers.group_differences(table.assign(patient_id=labels)) == []


def test_far_from_the_cohort_is_what_iglewicz_and_hoaglin_call_so():
    values = norm.ppf(np.linspace(0.02, 0.98, 49)) * 10 + 40
    score = outliers.modified_z(np.append(values, [400, np.nan]))
    assert np.abs(score[:49]).max() < 3.5 < score[49]
    assert score[50] == 0
    assert not outliers.modified_z(values[:5]).any()
    assert not outliers.modified_z(np.array([1.0] * 10 + [9.0])).any()  # no spread to compare with


def looked_at(**mask):
    facts = from_store.PatchFacts(3, 0, 0, 0, (0.0, 0.0, 0.0), 10.0, np.zeros(64, int))
    of = {"voxels": 900, "slices": 9, "volume_ml": 1.8, "hu": (0, 1, 2), "holes": (), "pieces": (), "cut": ()} | mask
    row = from_manifest.RowLook(mask=from_manifest.MaskFacts(**of), twins=("Dice 1.00 with lesion 1 of the patient",))
    return Looked(from_store.PatchesLook(facts, (), (), ""), row)


def test_a_part_and_a_hole_are_told_by_size_and_place():
    parts = tuple(Part(n, 1500.4 - n, (n, n + n % 2), "left") for n in range(1, 6))
    one = looked_at(pieces=parts, holes=(Part(4, 20.0, (7, 7)),))
    texts = {f.kind: f.text for f in outliers.lesion_findings(one, 20.0, [OTHER_PATIENT, "other"])}
    assert texts["pieces"] == (
        "1 voxels (1,499 mm³) on slices 1 to 2 towards the left; 2 voxels (1,498 mm³) on slice 2 towards the left; "
        "3 voxels (1,497 mm³) on slices 3 to 4 towards the left; and 2 smaller, apart from the rest"
    )
    assert texts["holes"] == "4 voxels (20 mm³) on slice 7"
    assert texts["same lesion"] == "Dice 1.00 with lesion 1 of the patient"
    assert texts["other patient"] == OTHER_PATIENT
    assert texts["note"] == "other"


def test_what_is_most_likely_a_fault_comes_before_shape():
    order = list(outliers.KINDS)
    worse = ("other patient", "same lesion", "unusual HU", "unusual size", "air only", "half outside", "cut off")
    assert max(map(order.index, worse)) < min(map(order.index, ("pieces", "holes", "note")))


@pytest.mark.parametrize(("off", "told"), [(1024, "missing?"), (1000, "missing?"), (-1000, "twice?"), (400, "")])
def test_a_thousand_hu_off_is_a_missing_intercept(off, told):
    table = pd.DataFrame({name: np.full(12, np.nan) for name in ("hu", "diameter_mm", *ACQUISITION)})
    table["hu"] = [*np.arange(-5, 6.0), off]
    ((k, finding),) = outliers.unusual(table)
    assert (k, finding.kind) == (11, "unusual HU")
    assert finding.text.endswith(told)
    assert ("RescaleIntercept" in finding.text) == bool(told)
    assert f": {off:,}; half of the cohort -" in finding.text


def test_a_diameter_of_nothing_is_no_outlier():
    table = pd.DataFrame({name: np.full(12, np.nan) for name in ("hu", "diameter_mm", *ACQUISITION)})
    table["diameter_mm"] = [0.0, *np.linspace(10, 12, 10), 900.0]
    ((k, finding),) = outliers.unusual(table)
    assert (k, finding.kind) == (11, "unusual size")


# -- The page -----------------------------------------------------------------------------------------------------


def report(store, out, *more):
    return main(["report", str(store), "--out", str(out), *map(str, more)])


@pytest.fixture
def built(manifest, plain, tmp_path):
    path = tmp_path / "s.h5"
    path.write_bytes(plain)
    return path


class FarAway(LocalRunner):
    """A runner whose calls and answers go through what processes send each other."""

    def run(self, function, calls):
        assert self.jobs == 2
        for call in calls:
            there, what = pickle.loads(pickle.dumps((function, call)))
            yield pickle.loads(pickle.dumps(there(*what)))


def test_the_page_is_the_same_each_time_whoever_works(manifest, built, tmp_path, capfd, monkeypatch):
    pages = [tmp_path / f"{k}.html" for k in range(2)]
    assert report(built, pages[0], "--manifest", manifest) == 0
    monkeypatch.setattr(looking, "LocalRunner", FarAway)
    assert report(built, pages[1], "--manifest", manifest, "--jobs", "2") == 0
    assert pages[0].read_bytes() == pages[1].read_bytes()
    text = pages[0].read_text()
    assert not re.search(r"https?:|url\(|@import|<link", text.replace("http://www.w3.org/", ""))
    assert text.count('<li class="lesion"') == 10
    assert text.count(' through the centre, in the three windows"') == 30
    assert "ctpatch build --manifest MANIFEST.csv --out STORE.h5 --seed 0 --patches 3 --augment 1" in text
    assert str(tmp_path) not in text
    assert capfd.readouterr().out.splitlines()[-1].startswith(f"{pages[1]}: ")


def test_the_page_says_which_store_and_where_a_lesion_is(manifest, built, tmp_path):
    assert report(built, tmp_path / "p.html", "--manifest", manifest) == 0
    text = (tmp_path / "p.html").read_text()
    assert "<title>s.h5: ctpatch report</title>" in text
    assert re.search(r"s\.h5: 10 lesions of \d patients, 2 classes \(benign, malignant\), 0 skipped", text)
    told = re.findall(r"<dt>centre, mm \(LPS\)</dt><dd>(.*?)</dd></div>\n<div><dt>its slice</dt><dd>(.*?)</dd>", text)
    row, recipe = read_manifest(manifest).rows[0], Recipe(patches=3, augment=1)
    plan = plan_lesion(row, recipe)
    middle = lesion_lattice(plan.mask, plan.image.stack, recipe.spacing_mm).middle()
    assert len(told) == 10
    assert [float(x) for x in told[0][0].split(", ")] == pytest.approx(plan.image.stack.to_lps(middle), abs=0.05)
    nearest = int(np.abs(plan.image.stack.positions - middle[2]).argmin()) + 1
    assert told[0][1] == f"{nearest} of {len(plan.image.stack)}, counted from F"


def test_splits_and_classes_have_their_names_and_their_order():
    table = pd.DataFrame({"label": ["b", "no label", "a"], "split": ["val", "test", "train"]})
    table[list(ACQUISITION)] = 1.0
    assert acquisition_table(table, "split").index.tolist() == ["train", "val", "test"]
    found = acquisition_table(table, "label")
    assert (found.index.name, found.index.tolist()) == ("class", ["a", "b", "no label"])


def test_names_under_an_axis_are_told_apart_and_do_not_overlap():
    alike = ["adenocarcinoma, well differentiated", "adenocarcinoma, well advanced", "x"]
    assert plots.shortened(alike) == alike
    assert plots.shortened([alike[0], "x$"]) == ["adenocarcinoma, wel…", r"x\$"]
    names = ["adenocarcinoma in situ", "invasive adenocarcinoma", "metastasis", "minimally invasive", "other"]
    table = pd.DataFrame({"label": names, "split": "train", "diameter_mm": np.arange(5.0)})
    for shown in (table, table.assign(label=list("abcde"))):
        figure = plots.strip(shown, "diameter_mm")
        figure.draw_without_rendering()
        boxes = [text.get_window_extent() for text in figure.axes[0].get_xticklabels()]
        slant = figure.axes[0].get_xticklabels()[0].get_rotation()
        assert (slant > 0) == (shown is table)
        assert slant or all(left.x1 < right.x0 for left, right in pairwise(boxes))
        assert min(box.x0 for box in boxes) >= 0
        assert figure._suptitle.get_window_extent().x1 <= figure.bbox.x1


def test_hu_curves_show_the_hu_that_there_are():
    edges = from_store.HU_EDGES
    counts = np.histogram(np.random.default_rng(0).normal(50, 20, 10_000), edges)[0]
    counts[0] = 5  # a few pixels outside the image
    low, high = plots.hu_curves({"a": counts, "b": counts}).axes[0].get_xlim()
    assert -64 <= low <= 0
    assert 96 <= high <= 192
    assert plots.hu_curves({"a": np.full(len(edges) - 1, 10)}).axes[0].get_xlim() == (edges[0], edges[-1])


def test_paths_may_be_text(manifest, built, tmp_path):
    assert report(built, tmp_path / "a.html", "--manifest", manifest) == 0
    write_report(str(built), str(tmp_path / "b.html"), str(manifest))
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()


def test_without_a_manifest_the_patches_speak(built, tmp_path):
    assert report(built, tmp_path / "p.html") == 0
    text = (tmp_path / "p.html").read_text()
    assert 'id="outlines"' not in text
    lists = [part.partition("</ul>")[0] for part in text.split("<h4>Patches as the network sees them</h4>")[1:]]
    assert sorted(part.count("<img") for part in lists) == [1] * 4 + [6] * 6  # 3 patches and a copy of each, or one


def test_a_manifest_that_shows_something_else_is_found_out_and_names_no_site(built, tmp_path, manifest):
    other = manifest.with_name("other.csv")
    table = pd.read_csv(manifest, dtype=str)
    swapped = table["roi"].map({"lesion 1": "lesion 2", "lesion 2": "lesion 1"})
    labels = table["label"].where(table["patient_id"] != "P04", "malignant")
    sites = np.where(table["patient_id"] < "P02", "Saint Secret", "Other Place")
    roi = swapped.where(table["patient_id"] == "P00", table["roi"])
    table.assign(roi=roi, label=labels, hospital=sites).to_csv(other, index=False)
    assert report(built, tmp_path / "p.html", "--manifest", other, "--site", "hospital") == 0
    text = (tmp_path / "p.html").read_text()
    assert text.count("were not cut from this outline") == 2
    assert text.count("another label than the store") == 2
    assert "says something else than the one that the store was built from" in text
    assert {"site 1", "site 2"} <= set(re.findall("site [0-9]", text))
    assert "Secret" not in text
    assert site_column(other, "hospital")[2] == "Saint Secret"


def test_a_lesion_that_is_there_twice_and_another_patient_s_contours_stand_first(tmp_path):
    manifest = cohort.write_cohort(tmp_path / "in")
    copy = manifest.parent / "P00" / "copy.dcm"
    dataset = pydicom.dcmread(manifest.parent / "P00" / "rtstruct.dcm")
    dataset.PatientID = "Someone"
    dataset.save_as(copy)
    table = pd.read_csv(manifest, dtype=str)
    twice = table[:1].assign(lesion_id="2", mask="P00/copy.dcm")
    pd.concat([table, twice]).to_csv(manifest, index=False)
    assert main(["build", "--manifest", str(manifest), "--out", str(tmp_path / "s.h5"), "--patches", "1"]) == 0
    assert report(tmp_path / "s.h5", tmp_path / "p.html", "--manifest", manifest) == 0
    text = (tmp_path / "p.html").read_text()
    cards = dict(re.findall(r'data-note="([^"]*)">(?s:.*?)<h3>(P00 <small>.)', text)[::-1])
    kinds = {who[-1]: kinds.split("|") for kinds, who in cards.items()}
    assert kinds["2"][:2] == ["other patient", "same lesion"]
    assert "same lesion" not in kinds["1"]
    assert text.count("Dice 1.00 with lesion 1 of the patient") == 1
    assert "Someone" not in text


def test_what_cannot_be_read_any_more_is_said_and_the_rest_is_shown(tmp_path):
    manifest = cohort.write_cohort(tmp_path / "in", labels=("benign", "malignant"))
    out = tmp_path / "s.h5"
    assert main(["build", "--manifest", str(manifest), "--out", str(out), "--patches", "1", "--no-rgb"]) == 0
    for path in (manifest.parent / "P01" / "ct").iterdir():
        path.write_bytes(path.read_bytes()[:200])
    assert report(out, tmp_path / "p.html", "--manifest", manifest) == 0
    text = (tmp_path / "p.html").read_text()
    assert text.count("cannot be read any more") == 1
    assert str(tmp_path) not in text


def test_a_marked_centre_is_a_cross(tmp_path):
    marked = {"mask": "", "roi": "", "center": "10 6 4"}
    manifest = cohort.write_cohort(tmp_path / "in", columns=lambda i: marked if i > 1 else {"center": ""})
    assert main(["build", "--manifest", str(manifest), "--out", str(tmp_path / "s.h5"), "--patches", "1"]) == 0
    assert report(tmp_path / "s.h5", tmp_path / "p.html", "--manifest", manifest) == 0
    text = (tmp_path / "p.html").read_text()
    assert text.count(views.CROSS) == 2 * 9
    assert text.count("cut at the marked centre") == 2 + 1  # said of each, and once of both


def test_a_store_without_lesions_is_refused(tmp_path, capfd):
    StoreWriter(tmp_path / "s.h5", label_classes=["a"], rgb=False).finish()
    assert report(tmp_path / "s.h5", tmp_path / "p.html") == 2
    assert "no lesion" in capfd.readouterr().err


def odd_store(path: Path) -> Path:
    """Ten lesions of which four are odd, in a store of another program that says what it should not."""
    rng = np.random.default_rng(0)
    tissue = lambda: rng.normal(40, 10, (4, 64, 64)).astype(np.int16)
    odd = {
        "air": np.full((4, 64, 64), -1000, np.int16) + rng.integers(0, 9, (4, 64, 64)).astype(np.int16),
        "padded": np.where(abs(np.arange(64) - 32) > 14, -1024, tissue()).astype(np.int16),
        "flat": np.full((4, 64, 64), 40, np.int16),
        "bright": tissue() + np.int16(400),
    }
    note = {"whole 1": ["scanned for '/home/x' on series 1.2.3.4.5.6"], "air 1": "plain"}
    document = {"provenance": {"notes": note, "secret": "/home/y"}, "recipe": {"patches": 4, "secret": "Jane"}}
    with StoreWriter(path, label_classes=["a", "b"], aux_levels={"grade": {}}, rgb=False, **document) as store:
        for k, name in enumerate(sorted([*odd, *(f"p{k}" for k in range(5)), "whole"])):
            hu = odd.get(name, tissue())
            label = ["a", "b"][k % 2]
            store.add(patient_id=name, split="train", label=label, hu=hu, aux={"grade": float(k)}, diameter_mm=9.0)
        store.skip("left", "1", "contours of 'Jane Doe' (1.2.3.4.5)")
    return path


def test_odd_lesions_stand_first_and_nothing_private_gets_out(tmp_path):
    assert report(odd_store(tmp_path / "s.h5"), tmp_path / "p.html") == 0
    text = (tmp_path / "p.html").read_text()
    cards = re.findall(r'data-note="([^"]*)">(?s:.*?)<h3>(\w+)', text)
    found = {name: set(kinds.split("|")) - {""} for kinds, name in cards}
    assert found["air"] == {"air only", "unusual HU", "note"}
    assert found["padded"] == {"half outside"}
    assert found["flat"] == {"constant", "unusual noise"}
    assert found["bright"] == {"unusual HU"}
    assert found["p0"] == set()
    assert text.index('id="first"') < text.index('id="cohort"') < text.index('id="list"')
    assert "contours of …" in text
    for secret in ("/home/", "Jane", "1.2.3.4"):
        assert secret not in text


@pytest.mark.parametrize(
    ("more", "found"),
    [
        (["--out", "p.txt"], "which is no page"),
        (["--out", "none/p.html"], "does not exist"),
        (["--out", "p.html", "--site", "x"], "no --manifest"),
        (["--out", "p.html", "--jobs", "0"], "--jobs is 0"),
    ],
)
def test_a_wrong_call_is_one_line(built, tmp_path, monkeypatch, capfd, more, found):
    monkeypatch.chdir(tmp_path)
    assert main(["report", str(built), *more]) == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert found in line


def test_another_cohort_s_manifest_is_refused(built, tmp_path, capfd):
    other = cohort.write_cohort(tmp_path / "in", columns=lambda i: {"patient_id": f"Q{i}"})
    assert report(built, tmp_path / "p.html", "--manifest", other) == 2
    assert "none of the store's lesions" in capfd.readouterr().err
    assert report(built, tmp_path / "p.html", "--manifest", other.with_name("none.csv")) == 2


@pytest.mark.parametrize("package", ["jinja2", "matplotlib"])
def test_without_its_extra_it_says_how_to_get_it(built, tmp_path, monkeypatch, capfd, package):
    for name in [name for name in sys.modules if name.startswith("ctpatch.report.")]:
        monkeypatch.delitem(sys.modules, name)
        monkeypatch.delattr("ctpatch.report." + name.rpartition(".")[2])
    monkeypatch.setitem(sys.modules, package, None)
    assert report(built, tmp_path / "p.html") == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith(f"ctpatch: the page needs {package}")
    assert line.endswith("Do: pip install 'ctpatch[report]'.")
