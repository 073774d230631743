"""Awkward LIDC-IDRI readings through the real commands: exact voxels, or refused in one line (numbers as in the names).

A nodule's edge map is drawn through the outermost pixels that are *not* nodule; the truth is a set of voxels written
down by each test.
"""

from __future__ import annotations

import csv
import itertools
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import awkward
import pytest
import readings
import synthetic
from awkward import COLUMNS, ROWS, SLICES, lesion_voxels
from pydicom.dataset import Dataset
from readings import LEVELS, Nodule, Roi

from ctpatch.errors import short_uid
from ctpatch.store import open_store

Voxels = set[tuple[int, int, int]]
Points = list[tuple[float, float]]
PLACES = {"first": range(3), "middle": SLICES, "last": range(13, 16)}
EVERYWHERE = pytest.mark.parametrize("slices", PLACES.values(), ids=PLACES)


def box(low: tuple[int, int] = (14, 12), high: tuple[int, int] = (29, 27)) -> Points:
    """A path through the corners `low` and `high` (column, row); by default just around the phantom's lesion."""
    return [low, (high[0], low[1]), high, (low[0], high[1])]


def traced(points: Points) -> Points:
    """The same path with every pixel on its sides, as the collection's own are."""
    found = []
    for (x0, y0), (x1, y1) in zip(points, points[1:] + points[:1], strict=True):
        n = int(max(abs(x1 - x0), abs(y1 - y0)))
        found += [(x0 + (x1 - x0) * i // n, y0 + (y1 - y0) * i // n) for i in range(n)]
    return found


def within(slices: Iterable[int], low: tuple[int, int] = (14, 12), high: tuple[int, int] = (29, 27)) -> Voxels:
    """Voxels strictly within a box."""
    return lesion_voxels(list(slices), range(low[1] + 1, high[1]), range(low[0] + 1, high[0]))


def rois(slices: Iterable[int], *paths: Points, **options: object) -> list[Roi]:
    return [Roi(k, path, **options) for k in slices for path in paths]  # type: ignore[arg-type]


def nodule(*paths: Roi, name: str = "N", **ratings: object) -> Nodule:
    return Nodule(list(paths), name, LEVELS | ratings)


def write(folder: Path, ct: synthetic.Series, sessions: Sequence[Sequence[Nodule]], **options: str) -> Path:
    """The readings of a real series as `reads.xml`."""
    placed = [[Nodule([readings.on(ct, roi) for roi in n.rois], n.name, n.ratings) for n in s] for s in sessions]
    return readings.write(folder, placed, **{"series": str(ct.series_uid)} | options)


def computed(folder: Path, ct: synthetic.Series, voxels: Voxels, readers: int = 1, **cells: str) -> awkward.Built:
    """Build and check; the voxels, the number of readers and every patch are as they must be."""
    store = awkward.built(folder, mask="reads.xml", **cells)
    awkward.assert_linear(store, ct)
    assert awkward.voxels(awkward.plan(folder, mask="reads.xml", **cells).mask) == voxels
    with open_store(store.path) as opened:
        assert opened.lesions.n_readers.tolist() == [readers]
    return store


def refused(folder: Path, found: str, do: str = "", **cells: str) -> None:
    awkward.refused(folder, found, do, **{"path": "reads.xml", "mask": "reads.xml"} | cells)


def scan(folder: Path) -> tuple[awkward.Run, list[dict[str, str]]]:
    """`ctpatch scan`, and the rows of the manifest that it wrote."""
    result = awkward.run("scan", folder, "--out", folder / "scanned.csv")
    if not (folder / "scanned.csv").exists():
        return result, []
    with open(folder / "scanned.csv", newline="", encoding="utf-8") as file:
        return result, list(csv.DictReader(file))


# -- 73, 74, 76: what a path encloses -----------------------------------------------------------------------------


@EVERYWHERE
@pytest.mark.parametrize(
    "draw",
    [
        lambda path: path,
        traced,
        lambda path: traced(path)[::-1],
        lambda path: traced(path)[9:] + traced(path)[:9],
        lambda path: [*path, path[0]],
    ],
    ids=["corners", "every pixel", "backwards", "begun elsewhere", "closed"],
)
def test_73_the_edge_map_is_outside(tmp_path: Path, slices: range, draw: Callable[[Points], Points]) -> None:
    ct = awkward.series(tmp_path, shuffle=3)
    write(tmp_path, ct, [[nodule(*rois(slices, draw(box())))]])
    computed(tmp_path, ct, within(slices))


def test_73_a_slanting_edge_is_outside_too(tmp_path: Path) -> None:
    """A diamond: pixels at a distance of 9 steps are on the path and out, those at 8 and fewer are in."""
    ct = awkward.series(tmp_path)
    write(tmp_path, ct, [[nodule(*rois(SLICES, traced([(12, 20), (21, 11), (30, 20), (21, 29)])))]])
    near = {(r, c) for r in range(40) for c in range(44) if abs(r - 20) + abs(c - 21) < 9}
    computed(tmp_path, ct, {(k, r, c) for k in SLICES for r, c in near})


@EVERYWHERE
@pytest.mark.parametrize("first", ["inclusion", "exclusion"])
def test_74_an_exclusion_takes_out_its_inside_and_its_edge(tmp_path: Path, slices: range, first: str) -> None:
    ct = awkward.series(tmp_path)
    outer, hole = rois(slices, box()), rois(slices, traced(box((18, 17), (24, 22))), inclusion="FALSE")
    write(tmp_path, ct, [[nodule(*(outer + hole if first == "inclusion" else hole + outer))]])
    computed(tmp_path, ct, within(slices) - within(slices, (17, 16), (25, 23)))


def test_74_an_exclusion_on_one_slice_leaves_the_others_whole(tmp_path: Path) -> None:
    ct = awkward.series(tmp_path)
    hole = Roi(7, box((18, 17), (24, 22)), "FALSE")
    write(tmp_path, ct, [[nodule(*rois(SLICES, box()), hole)]])
    computed(tmp_path, ct, within(SLICES) - within([7], (17, 16), (25, 23)))


def test_74_an_exclusion_of_one_point_takes_out_one_voxel(tmp_path: Path) -> None:
    ct = awkward.series(tmp_path)
    write(tmp_path, ct, [[nodule(*rois(SLICES, box()), Roi(7, [(20, 19)], "false"))]])
    computed(tmp_path, ct, within(SLICES) - {(7, 19, 20)})


def test_74_an_exclusion_that_reaches_outside_adds_nothing(tmp_path: Path) -> None:
    ct = awkward.series(tmp_path)
    write(tmp_path, ct, [[nodule(*rois(SLICES, box()), *rois(SLICES, box((24, 8), (34, 20)), inclusion="FALSE"))]])
    computed(tmp_path, ct, within(SLICES) - within(SLICES, (23, 7), (35, 21)))


def test_74_an_island_in_a_hole_is_in(tmp_path: Path) -> None:
    ct = awkward.series(tmp_path)
    paths = [*rois(SLICES, box()), *rois(SLICES, box((16, 14), (27, 25)), inclusion="FALSE")]
    write(tmp_path, ct, [[nodule(*paths, *rois(SLICES, box((18, 16), (25, 23))))]])
    hollow = within(SLICES) - within(SLICES, (15, 13), (28, 26))
    computed(tmp_path, ct, hollow | within(SLICES, (18, 16), (25, 23)))


@pytest.mark.parametrize("inclusion", ["maybe", "", "1"])
def test_74_an_inclusion_that_is_neither_is_refused(tmp_path: Path, inclusion: str) -> None:
    ct = awkward.series(tmp_path)
    write(tmp_path, ct, [[nodule(*rois(SLICES, box(), inclusion=inclusion))]])
    refused(tmp_path, rf"nodule 'N' of reader 1: inclusion '{inclusion.upper()}' is neither TRUE nor FALSE")


@EVERYWHERE
@pytest.mark.parametrize(
    "path",
    [
        [(20, 20), (21, 20)],
        [(20, 20), (21, 20), (21, 21), (20, 21)],
        [(15, 20), (28, 20)],
        [(15, 20), (20, 20), (28, 20)],
        [(15, 15), (25, 25)],
    ],
    ids=["two points", "2 × 2 pixels", "a line", "three points in line", "a diagonal"],
)
def test_76_an_edge_with_nothing_inside_is_refused(tmp_path: Path, slices: range, path: Points) -> None:
    ct = awkward.series(tmp_path)
    write(tmp_path, ct, [[nodule(*rois(slices, path))]])
    refused(tmp_path, "lesion 1: contour encloses no voxel", "leave this lesion out")


def test_76_an_exclusion_that_leaves_nothing_is_refused(tmp_path: Path) -> None:
    ct = awkward.series(tmp_path)
    hole = rois(SLICES, box((15, 13), (28, 26)), inclusion="FALSE")
    write(tmp_path, ct, [[nodule(*rois(SLICES, box()), *hole)]])
    refused(tmp_path, "lesion 1: contour encloses no voxel")


def test_76_one_voxel_is_a_lesion(tmp_path: Path) -> None:
    ct = awkward.series(tmp_path)
    write(tmp_path, ct, [[nodule(Roi(8, [(21, 19), (20, 20), (21, 21), (22, 20)]))]])
    computed(tmp_path, ct, {(8, 20, 21)})


def test_76_an_empty_outline_of_another_reader_has_no_vote(tmp_path: Path) -> None:
    ct = awkward.series(tmp_path)
    empty = nodule(*rois(SLICES, [(20, 20), (21, 20), (21, 21)]))
    write(tmp_path, ct, [[nodule(*rois(SLICES, box()))], [empty]])
    refused(tmp_path, "lesion 2: contour encloses no voxel", roi="2")
    computed(tmp_path, ct, within(SLICES), roi="1")


# -- 75: nodules below 3 mm ---------------------------------------------------------------------------------------


@EVERYWHERE
@pytest.mark.parametrize("readers", [1, 4])
def test_75_a_single_point_is_no_lesion(tmp_path: Path, slices: range, readers: int) -> None:
    ct = awkward.series(tmp_path)
    point = Nodule([Roi(slices[1], [(21, 20)])], "tiny")
    write(tmp_path, ct, [[point]] * readers)
    for roi in ("", "1", "tiny"):
        refused(tmp_path, rf"no nodule is outlined \({readers} marks of nodules < 3 mm", "drop the row", roi=roi)
    result, rows = scan(tmp_path)
    assert (result.status, [row["mask"] for row in rows]) == (0, [""])
    z = ct.origins[slices[1], 2]
    assert f"{readers} marks of nodules < 3 mm, which have no outline: (z, row, column) ({z:g}, 20, 21)" in told(result)


def told(result: awkward.Run) -> str:
    return "\n".join((*result.out, *result.err))


def test_75_a_point_beside_a_lesion_is_listed_and_left_out(tmp_path: Path) -> None:
    ct = awkward.series(tmp_path)
    point = Nodule([Roi(8, [(5, 6)])], "tiny")
    write(tmp_path, ct, [[point, nodule(*rois(SLICES, box()))], [nodule(*rois(SLICES, box())), point]])
    result, rows = scan(tmp_path)
    assert result.status == 0
    assert [(row["roi"], row["readers"]) for row in rows] == [("1", "2")]
    assert "2 marks of nodules < 3 mm" in result.notes
    refused(tmp_path, "there is no lesion '2'; the file has 1", "give roi a number from 1 to 1", roi="2")
    refused(tmp_path, "there is no lesion 'tiny'", roi="tiny")
    computed(tmp_path, ct, within(SLICES), 2)


def test_75_a_point_within_an_outlined_nodule_adds_nothing(tmp_path: Path) -> None:
    ct = awkward.series(tmp_path)
    write(tmp_path, ct, [[nodule(*rois(SLICES, box()), Roi(11, [(20, 20)]))]])
    computed(tmp_path, ct, within(SLICES))


# -- 77, 78: readers ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("readers", [1, 2, 3, 4])
@pytest.mark.parametrize("shift", [0, 2, 5])
def test_77_half_of_the_readers_decide(tmp_path: Path, readers: int, shift: int) -> None:
    ct = awkward.series(tmp_path)
    corners = [((12 + shift * i, 10), (24 + shift * i, 25 + i)) for i in range(readers)]
    write(tmp_path, ct, [[nodule(*rois(SLICES, box(*corner)))] for corner in corners] + [[]] * (4 - readers))
    votes = Counter(itertools.chain(*(within(SLICES, *corner) for corner in corners)))
    computed(tmp_path, ct, {voxel for voxel, n in votes.items() if 2 * n >= readers}, readers)


@pytest.mark.parametrize(("consensus", "least"), [("0.1", 1), ("0.25", 1), ("0.26", 2), ("0.75", 3), ("1", 4)])
def test_77_another_consensus_is_an_option_and_in_the_recipe(tmp_path: Path, consensus: str, least: int) -> None:
    ct = awkward.series(tmp_path)
    corners = [((12, 10), (20 + 3 * i, 25)) for i in range(4)]
    write(tmp_path, ct, [[nodule(*rois(SLICES, box(*corner)))] for corner in corners])
    awkward.manifest(tmp_path, mask="reads.xml", split="test")
    result = awkward.build(tmp_path, "--lidc-consensus", consensus)
    assert (result.status, result.err) == (0, ())
    votes = Counter(itertools.chain(*(within(SLICES, *corner) for corner in corners)))
    voxels = [voxel for voxel, n in votes.items() if n >= least]
    with open_store(tmp_path / "s.h5") as store:
        assert store.recipe["lidc_consensus"] == float(consensus)
        center = store.split("test").center[0] - ct.origins[0]
    middle = [sum(values) / len(voxels) for values in zip(*voxels, strict=True)]
    assert abs(center - (1.5 * middle[2], 2 * middle[1], 3 * middle[0])).max() <= 0.25  # on the 0.5 mm lattice


@pytest.mark.parametrize("pieces", [2, 3])
@pytest.mark.parametrize("whole", [1, 2, 3])
def test_77_one_lesion_or_pieces_is_ambiguous(tmp_path: Path, pieces: int, whole: int) -> None:
    """One reader drew pieces of what others drew as one: nobody can tell; a lesion elsewhere is not touched."""
    ct = awkward.series(tmp_path)
    mine = [nodule(*rois(SLICES, box((10 + 8 * i, 14), (17 + 8 * i, 26))), name=f"part {i}") for i in range(pieces)]
    others = [[nodule(*rois(SLICES, box((9, 13), (35, 27))), name="whole")] for _ in range(whole)]
    apart = nodule(*rois(SLICES, box((20, 3), (30, 9))), name="apart")
    write(tmp_path, ct, [*others, [*mine, apart]])
    found = rf"lesion 2: reader {whole + 1} has {pieces} outlines in one lesion, nodules 'part 0', 'part 1'"
    refused(tmp_path, found, "put readers into the column accept", roi="2")
    result, rows = scan(tmp_path)
    assert [row["roi"] for row in rows] == ["1", "2"]
    assert f"lesion 2: reader {whole + 1} has {pieces} outlines in one lesion" in result.notes
    computed(tmp_path, ct, within(SLICES, (20, 3), (30, 9)), roi="1")


def test_77_outlines_that_only_touch_are_two_lesions(tmp_path: Path) -> None:
    ct = awkward.series(tmp_path)
    halves = [((9, 12), (21, 27)), ((21, 12), (33, 27))]
    write(tmp_path, ct, [[nodule(*rois(SLICES, box(*half)))] for half in halves])
    for roi, half in zip(("1", "2"), halves, strict=True):
        computed(tmp_path, ct, within(SLICES, *half), roi=roi)
        (tmp_path / "s.h5").unlink()
    refused(tmp_path, "roi names no lesion; the file has 2", "give roi a number from 1 to 2")


@pytest.mark.parametrize("order", [(3, 2, 1, 0), (1, 3, 0, 2), (2, 0, 3, 1)], ids=str)
def test_78_the_order_of_the_readers_changes_nothing(tmp_path: Path, order: tuple[int, ...]) -> None:
    ct = awkward.series(tmp_path)
    sessions = [[nodule(*rois(SLICES, box((12 + i, 10), (24 + 2 * i, 25))), lobulation=1 + i)] for i in range(4)]
    sessions[2].append(nodule(*rois(SLICES, box((34, 3), (41, 9)))))
    stores = []
    for place in (range(4), order):
        write(tmp_path, ct, [sessions[i] for i in place])
        awkward.manifest(tmp_path, {"roi": "1", "lesion_id": "1"}, {"roi": "2", "lesion_id": "2"}, mask="reads.xml")
        assert awkward.build(tmp_path).status == 0
        stores.append((tmp_path / "s.h5").read_bytes())
    assert stores[0] == stores[1]
    result, rows = scan(tmp_path)
    assert [(row["readers"], row["aux_lobulation"]) for row in rows] == [("1", "2"), ("4", "3")]
    assert result.status == 0
    assert not any("reader" in name and name != "readers" for name in rows[0])


# -- 79, 80: which slice ------------------------------------------------------------------------------------------


@EVERYWHERE
@pytest.mark.parametrize("sop", [None, " ", "9.9.9"], ids=["absent", "blank", "of another study"])
def test_79_without_a_known_image_the_slice_is_found_by_z_and_told(
    tmp_path: Path, slices: range, sop: str | None
) -> None:
    ct = awkward.series(tmp_path, shuffle=4)
    write(tmp_path, ct, [[nodule(*rois(slices, box(), sop=sop))]] if sop != "9.9.9" else [[foreign(slices)]])
    store = computed(tmp_path, ct, within(slices))
    assert f"{len(slices)} of {len(slices)} contour planes matched to slices by z, not by SOPInstanceUID" in store.notes


def foreign(slices: range) -> Nodule:
    return nodule(*(Roi(k, box(), sop=f"9.9.{k}") for k in slices))


@pytest.mark.parametrize("lacking", [5, 7, 10])
def test_79_one_slice_without_its_image(tmp_path: Path, lacking: int) -> None:
    ct = awkward.series(tmp_path)
    paths = rois(SLICES, box())
    paths[SLICES.index(lacking)].sop = None
    write(tmp_path, ct, [[nodule(*paths)]])
    assert "1 of 6 contour planes matched to slices by z" in computed(tmp_path, ct, within(SLICES)).notes


@pytest.mark.parametrize("dz", [1.4, -1.4])
@pytest.mark.parametrize("named", [True, False])
def test_79_the_image_comes_first_and_z_second(tmp_path: Path, dz: float, named: bool) -> None:
    """z is off by a little less than half the spacing of 3 mm: the image named, or the nearest, is the slice."""
    ct = awkward.series(tmp_path)
    paths = [Roi(k, box(), sop="" if named else None, z=float(ct.origins[k, 2] + dz)) for k in SLICES]
    write(tmp_path, ct, [[nodule(*paths)]])
    computed(tmp_path, ct, within(SLICES))


@pytest.mark.parametrize("k", [0, 7, 15])
@pytest.mark.parametrize("dz", [1.6, -1.6, 3.0, 500.0])
def test_79_an_image_and_a_z_that_disagree_are_refused(tmp_path: Path, k: int, dz: float) -> None:
    ct = awkward.series(tmp_path)
    z = float(ct.origins[k, 2])
    write(tmp_path, ct, [[nodule(Roi(k, box(), z=z + dz))]])
    refused(
        tmp_path, rf"image {short_uid(ct.sop_uids[k])} lies at z = {z:g} mm, its contour at {z + dz:g} mm", "images"
    )


@pytest.mark.parametrize("dz", [-1.6, -9.0, 46.6, 60.0])
def test_79_a_z_beyond_every_slice_is_refused(tmp_path: Path, dz: float) -> None:
    ct = awkward.series(tmp_path)
    write(tmp_path, ct, [[nodule(Roi(0, box(), sop=None, z=float(ct.origins[0, 2] + dz)))]])
    away = min(abs(dz), abs(dz - 45))
    refused(tmp_path, rf"1 of its slices missing: .* the nearest is {away:.4g} mm away", "add the missing slices")


@pytest.mark.parametrize("k", [5, 8, 10])
def test_79_a_slice_that_was_drawn_on_and_is_missing_is_refused(tmp_path: Path, k: int) -> None:
    ct = awkward.series(tmp_path)
    write(tmp_path, ct, [[nodule(*rois(SLICES, box()))]])
    ct.paths[k].unlink()
    refused(tmp_path, r"1 of its slices missing: .* the nearest is 3 mm away", "missing slices")


def test_79_one_image_at_two_heights_is_refused(tmp_path: Path) -> None:
    ct = awkward.series(tmp_path)
    paths = [Roi(7, box()), Roi(7, box(), z=float(ct.origins[8, 2]))]
    write(tmp_path, ct, [[nodule(paths[0])], [nodule(paths[1])]])
    refused(
        tmp_path,
        rf"lesion 1: image {short_uid(ct.sop_uids[7])} is said to lie at z = -384.25 and at -381.25 mm",
        roi="1",
    )


def test_79_readings_of_another_series_are_refused(tmp_path: Path) -> None:
    """Its images are not here, and its slices lie 0.5 mm beside these."""
    ct = awkward.series(tmp_path)
    paths = [Roi(k, box(), sop=f"9.9.{k}", z=float(ct.origins[k, 2] + 0.5)) for k in SLICES]
    write(tmp_path, ct, [[nodule(*paths)]], series="1.2.99")
    refused(tmp_path, r"drawn on series 1\.2\.99, not on .*; a contour is 0\.5 mm from any slice", "series")


@pytest.mark.parametrize("k", [0, 8, 15])
@pytest.mark.parametrize("kept", [0, 1])
def test_80_two_images_at_one_z_are_refused_whichever_was_drawn_on(tmp_path: Path, k: int, kept: int) -> None:
    ct = awkward.series(tmp_path)
    other = awkward.series(
        tmp_path, name="other", hu=awkward.hu() + 100, seed=5, series_uid=ct.series_uid, frame_uid=ct.frame_uid
    )
    sops = (ct.sop_uids[k], synthetic.uid("again", k))

    def again(dataset: Dataset) -> None:
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = sops[1]

    awkward.edited(other.paths[k], again)
    (tmp_path / "ct" / "again.dcm").write_bytes(other.paths[k].read_bytes())
    write(tmp_path, ct, [[nodule(Roi(k, box(), sop=str(sops[kept]), z=float(ct.origins[k, 2])))]])
    found = awkward.refused(tmp_path, "two images at one position", path="ct", mask="reads.xml")["found"]
    assert all(str(sop)[-12:] in found for sop in sops)


# -- 81: characteristics ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reader", [0, 3])
@pytest.mark.parametrize(
    ("name", "level"),
    [
        ("internalStructure", 5),
        ("calcification", 7),
        ("malignancy", 6),
        ("margin", 0),
        ("spiculation", -1),
        ("texture", "4.5"),
        ("subtlety", "high"),
    ],
)
def test_81_180_a_rating_out_of_range_is_unknown(tmp_path: Path, reader: int, name: str, level: object) -> None:
    ct = awkward.series(tmp_path)
    ratings = [{name: level} if i == reader else {} for i in range(4)]
    write(tmp_path, ct, [[nodule(*rois(SLICES, box()), **one)] for one in ratings])
    store = computed(tmp_path, ct, within(SLICES), readers=4)
    assert re.search(rf"{name} of nodule .* of reader {reader + 1} is .*, not 1 to [456]: unknown", store.notes)
    result, rows = scan(tmp_path)
    column = "malignancy" if name == "malignancy" else f"aux_{name.lower()}"
    assert [row[column] for row in rows] == [str(LEVELS[name])]  # the other three agree
    assert "left out" not in result.notes


SCALES = "about 100 of the first 399 cases"


def test_81_scan_says_that_some_cases_are_rated_on_other_scales(tmp_path: Path) -> None:
    """The collection does not say which ones: one line for a whole tree, where the two characteristics are written."""
    for i in range(2):
        ct = awkward.series(tmp_path / f"p{i}", seed=i, patient_id=f"P{i}")
        write(tmp_path / f"p{i}", ct, [[nodule(*rois(SLICES, box()))]])
    result, rows = scan(tmp_path)
    assert [(row["aux_lobulation"], row["aux_spiculation"]) for row in rows] == [("2", "1")] * 2
    (note,) = (line for line in result.out if SCALES in line)
    for words in ("aux_lobulation", "aux_spiculation", "cancerimagingarchive.net", "which"):
        assert words in note


def test_81_without_these_characteristics_there_is_nothing_to_say(tmp_path: Path) -> None:
    ct = awkward.series(tmp_path)
    write(tmp_path, ct, [[Nodule(rois(SLICES, box()), "N", {"malignancy": 3, "texture": 5})]])
    result, rows = scan(tmp_path)
    assert len(rows) == 1
    assert SCALES not in told(result)


# -- 82: two scans of one patient ---------------------------------------------------------------------------------


def two_scans(folder: Path, ids: Sequence[str] = ("P1", "P1")) -> None:
    for name, seed, patient in zip(("a", "b"), (1, 2), ids, strict=True):
        ct = awkward.series(folder / name, seed=seed, patient_id=patient)
        write(folder / name, ct, [[nodule(*rois(SLICES, box()))]])


def test_82_two_scans_are_one_patient(tmp_path: Path) -> None:
    two_scans(tmp_path)
    _, rows = scan(tmp_path)
    assert [(row["patient_id"], row["lesion_id"], row["image"], row["mask"]) for row in rows] == [
        ("P1", "1", "a/ct", "a/reads.xml"),
        ("P1", "2", "b/ct", "b/reads.xml"),
    ]


def test_82_two_scans_of_a_patient_in_two_splits_are_refused(tmp_path: Path) -> None:
    two_scans(tmp_path)
    rows = [{"image": f"{name}/ct", "mask": f"{name}/reads.xml", "lesion_id": name, "split": split} for name, split in
            (("a", "train"), ("b", "test"))]  # fmt: skip
    awkward.manifest(tmp_path, *rows)
    result, checked = awkward.build(tmp_path), awkward.check(tmp_path)
    assert result.status == checked.status == 2
    assert not (tmp_path / "s.h5").exists()
    assert len(result.err) == len(checked.err) == 1
    assert "patient=P1" in result.err[0]
    assert "train" in result.err[0]
    assert "test" in result.err[0]


@pytest.mark.parametrize("seed", ["0", "1", "2", "3"])
def test_82_the_automatic_split_keeps_two_scans_together(tmp_path: Path, seed: str) -> None:
    for i in range(4):
        for name in ("a", "b"):  # other pixels for each patient: the same ones would be refused
            ct = awkward.series(
                tmp_path / f"q{i}" / name, seed=f"{i}{name}", patient_id=f"P{i}", hu=awkward.hu() + 9 * i
            )
            write(tmp_path / f"q{i}" / name, ct, [[nodule(*rois(SLICES, box()))]])
    rows = [
        {"patient_id": f"P{i}", "image": f"q{i}/{name}/ct", "mask": f"q{i}/{name}/reads.xml", "lesion_id": name}
        for i in range(4)
        for name in ("a", "b")
    ]
    synthetic.write_manifest(tmp_path / "m.csv", [{**row, "label": "T3"} for row in rows])
    result = awkward.build(tmp_path, "--seed", seed)
    assert result.status == 0, result
    with open_store(tmp_path / "s.h5") as store:
        splits = store.lesions.groupby("patient_id").split.nunique()
        assert len(store.lesions) == 8
    assert (splits == 1).all()


def test_82_one_scan_under_two_patients_is_refused(tmp_path: Path) -> None:
    ct = awkward.series(tmp_path)
    write(tmp_path, ct, [[nodule(*rois(SLICES, box()))]])
    awkward.manifest(tmp_path, {}, {"patient_id": "P2", "split": "test", "roi": "1"}, mask="reads.xml")
    result = awkward.build(tmp_path)
    assert result.status == 2
    assert len(result.err) == 1
    assert "the same series as patient=P1 row=2" in result.err[0]


# -- 83: XML ------------------------------------------------------------------------------------------------------

BOMB = '<!DOCTYPE a [<!ENTITY b "ha"><!ENTITY c "&b;&b;&b;&b;&b;&b;&b;&b;"><!ENTITY d "&c;&c;&c;&c;&c;&c;&c;&c;">]>'
EXTERNAL = '<!DOCTYPE a [<!ENTITY d SYSTEM "secret.txt">]>'
PARAMETER = '<!DOCTYPE a [<!ENTITY % d SYSTEM "secret.txt"> %d;]>'
REMOTE = '<!DOCTYPE a SYSTEM "http://localhost:9/lidc.dtd">'


@pytest.mark.parametrize("doctype", [BOMB, EXTERNAL, PARAMETER, REMOTE])
@pytest.mark.parametrize("place", ["noduleID", "xCoord"])
def test_83_entities_and_dtds_are_refused_unexpanded(tmp_path: Path, doctype: str, place: str) -> None:
    ct = awkward.series(tmp_path)
    (tmp_path / "secret.txt").write_text("SECRETWORD")
    path = write(tmp_path, ct, [[nodule(*rois(SLICES, box()))]])
    text = path.read_text().replace("?>", f"?>{doctype}", 1)
    path.write_text(text.replace(f"<{place}>", f"<{place}>&d;", 1))
    refused(tmp_path, "the XML file declares a DTD or entities", "take the file again from the collection")
    assert "SECRETWORD" not in told(awkward.build(tmp_path))


NAMESPACES = {
    "none": "",
    "the collection's": ' xmlns="http://www.nih.gov"',
    "another": ' xmlns="urn:lidc:2"',
    "two": ' xmlns="http://www.nih.gov" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" '
    'xsi:schemaLocation="http://www.nih.gov nowhere.xsd"',
}


@pytest.mark.parametrize("xmlns", NAMESPACES.values(), ids=NAMESPACES)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-8-sig"])
def test_83_any_namespace_and_encoding_is_read(tmp_path: Path, xmlns: str, encoding: str) -> None:
    ct = awkward.series(tmp_path)
    path = write(tmp_path, ct, [[nodule(*rois(SLICES, box()))]], xmlns=xmlns)
    text = path.read_text().replace('version="1.0"', f'version="1.0" encoding="{encoding.removesuffix("-sig")}"')
    path.write_bytes(text.encode(encoding))
    computed(tmp_path, ct, within(SLICES))


def test_83_a_prefixed_namespace_is_read(tmp_path: Path) -> None:
    ct = awkward.series(tmp_path)
    path = write(tmp_path, ct, [[nodule(*rois(SLICES, box()))]], xmlns=' xmlns:n="http://www.nih.gov"')
    head, body = path.read_text().split("?>", 1)
    path.write_text(f"{head}?>" + body.replace("</", "<\0/").replace("<", "<n:").replace("<n:\0/", "</n:"))
    computed(tmp_path, ct, within(SLICES))


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"\n", "not well-formed XML"),
        (b"\x00\x01\x02 not XML", "not well-formed XML"),
        (b"PK\x03\x04 a zip", "not well-formed XML"),
        (b"<html><body/></html>", "the XML root is 'html', not LidcReadMessage"),
        (b"<LidcReadMessage/>", r"no nodule is outlined \(0 marks"),
        (b"<IdriReadMessage><CXRreadingSession/></IdriReadMessage>", "chest radiograph"),
        (b"<LidcReadMessage>" + b"<a>" * 100_000, "nested deeper than 32"),
        (b'<?xml version="1.0" encoding="ebcdic-9"?><LidcReadMessage/>', "not well-formed XML"),
    ],
    ids=["empty", "bytes", "zip", "html", "no reading", "radiograph", "deep", "encoding"],
)
def test_83_what_is_no_reading_of_a_ct_is_refused(tmp_path: Path, content: bytes, found: str) -> None:
    awkward.series(tmp_path)
    (tmp_path / "reads.xml").write_bytes(content)
    refused(tmp_path, found)


def test_83_a_file_of_more_than_50_mb_is_refused_unread(tmp_path: Path) -> None:
    ct = awkward.series(tmp_path)
    path = write(tmp_path, ct, [[nodule(*rois(SLICES, box()))]])
    with open(path, "r+b") as file:
        file.truncate(50 * 2**20 + 1)
    refused(tmp_path, r"the XML file has 50\.0 MB, more than 50")


def test_83_a_cut_off_file_is_refused(tmp_path: Path) -> None:
    ct = awkward.series(tmp_path)
    path = write(tmp_path, ct, [[nodule(*rois(SLICES, box()))]])
    path.write_bytes(path.read_bytes()[:-30])
    refused(tmp_path, "not well-formed XML")


def test_83_the_lesion_is_the_phantoms() -> None:
    """What the other tests lean on: the default path encloses just the phantom's lesion."""
    assert within(SLICES) == lesion_voxels() == {(k, r, c) for k in SLICES for r in ROWS for c in COLUMNS}
