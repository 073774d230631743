"""Awkward contours through the real commands: exact voxels, or refused in one line (numbers as in the test names)."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import awkward
import numpy as np
import pydicom
import pytest
import synthetic
from awkward import COLUMNS, ROWS, SLICES, lesion_voxels, refused
from pydicom.dataset import Dataset

from ctpatch.store import open_store

Voxels = set[tuple[int, int, int]]
LONG_VALUES = pytest.mark.filterwarnings("ignore:(.|\\n)*value:UserWarning:pydicom")  # pydicom's, while the test writes


def drawn(folder: Path, rois: Any, **changes: Any) -> synthetic.Series:
    """The phantom with these ROIs: name to paths in pixels, (slice, [(column, row), …]) each."""
    ct = awkward.series(folder)
    paths = {name: [ct.to_lps(k, np.array(path, float)) for k, path in items] for name, items in rois.items()}
    awkward.contours(folder, ct, paths, **changes)
    return ct


def computed(folder: Path, ct: synthetic.Series, voxels: Voxels | None = None, **cells: str) -> awkward.Built:
    """Build, check and compare patches and voxels with the truth."""
    store = awkward.built(folder, **cells)
    awkward.assert_linear(store, ct)
    if voxels is not None:
        assert awkward.voxels(awkward.plan(folder, **cells).mask) == voxels
    return store


def square(low: tuple[float, float], high: tuple[float, float]) -> list[tuple[float, float]]:
    (c0, r0), (c1, r1) = low, high
    return [(c0, r0), (c1, r0), (c1, r1), (c0, r1)]


def rectangle(slices: Sequence[int], low: tuple[int, int], high: tuple[int, int]) -> Voxels:
    """Voxels of columns and rows `low` to `high`, both included."""
    return lesion_voxels(slices, range(low[1], high[1] + 1), range(low[0], high[0] + 1))


OUTER = square((14.5, 12.5), (28.5, 26.5))
INNER = square((18.5, 17.5), (24.5, 22.5))
SOLID = lesion_voxels()
HOLLOW = SOLID - rectangle(SLICES, (19, 18), (24, 22))


def both(slices: Sequence[int], *paths: Sequence[tuple[float, float]]) -> list[tuple[int, Any]]:
    return [(k, path) for k in slices for path in paths]


# -- Which voxels are in ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("low", "high", "columns", "rows"),
    [
        ((14.5, 12.5), (28.5, 26.5), (15, 28), (13, 26)),
        ((15, 13), (28, 26), (15, 28), (13, 26)),  # through voxel centres: those on the path are in
        ((14.9, 12.9), (28.1, 26.1), (15, 28), (13, 26)),
        ((15.1, 13.1), (27.9, 25.9), (16, 27), (14, 25)),
    ],
)
def test_45_a_voxel_is_in_when_its_centre_is(
    tmp_path: Path, low: Any, high: Any, columns: tuple[int, int], rows: tuple[int, int]
) -> None:
    ct = drawn(tmp_path, {"GTV": both(SLICES, square(low, high))})
    computed(tmp_path, ct, rectangle(SLICES, (columns[0], rows[0]), (columns[1], rows[1])))


@pytest.mark.parametrize("paths", [(OUTER, INNER), (INNER, OUTER), (OUTER, INNER[::-1])])
def test_47_a_nested_contour_is_a_hole(tmp_path: Path, paths: Any) -> None:
    computed(tmp_path, drawn(tmp_path, {"GTV": both(SLICES, *paths)}), HOLLOW)


def test_47_an_island_in_a_hole_is_in(tmp_path: Path) -> None:
    ct = drawn(tmp_path, {"GTV": both(SLICES, INNER, square((20.5, 19.5), (22.5, 20.5)), OUTER)})
    computed(tmp_path, ct, HOLLOW | rectangle(SLICES, (21, 20), (22, 20)))


@pytest.mark.parametrize("row", [20.0, 20.25])
@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize("same_way", [False, True])
def test_48_a_keyhole_leaves_no_line(tmp_path: Path, row: float, backwards: bool, same_way: bool) -> None:
    """The channel, also along voxel centres, from the left edge to the hole and back; the hole walked either way."""
    hole = [(18.5, 17.5), (24.5, 17.5), (24.5, 22.5), (18.5, 22.5)]
    around = hole if same_way else hole[::-1]
    path = [*OUTER, (14.5, row), (18.5, row), *around, (18.5, row), (14.5, row)]
    ct = drawn(tmp_path, {"GTV": both(SLICES, path[::-1] if backwards else path)})
    computed(tmp_path, ct, HOLLOW)


@LONG_VALUES
@pytest.mark.parametrize("kind", ["CLOSEDPLANAR_XOR", "CLOSED_PLANAR_XOR", "closedplanar_xor "])
def test_49_xor_as_declared(tmp_path: Path, kind: str) -> None:
    other = square((22.5, 20.5), (32.5, 30.5))
    ct = drawn(tmp_path, {"GTV": both(SLICES, OUTER, other)}, geometric_type=kind)
    computed(tmp_path, ct, SOLID ^ rectangle(SLICES, (23, 21), (32, 30)))


OVERLAPPING = both(SLICES, OUTER, square((22.5, 20.5), (32.5, 30.5)))


def test_50_partly_overlapping_contours_are_refused(tmp_path: Path) -> None:
    drawn(tmp_path, {"GTV": OVERLAPPING})
    refused(tmp_path, r"1 pairs of contours on one slice partly overlap", "overlap=union or overlap=xor", "rt.dcm")


@pytest.mark.parametrize("rule", ["union", "xor"])
def test_50_an_accepted_rule_decides_and_is_in_the_recipe(tmp_path: Path, rule: str) -> None:
    second = rectangle(SLICES, (23, 21), (32, 30))
    ct = drawn(tmp_path, {"GTV": OVERLAPPING})
    store = computed(tmp_path, ct, SOLID | second if rule == "union" else SOLID ^ second, accept=f"overlap={rule}")
    with open_store(store.path) as opened:
        assert opened.recipe["rows"][0]["accept"] == [f"overlap={rule}"]


def test_50_a_hole_in_a_union_of_overlapping_contours(tmp_path: Path) -> None:
    paths = both(SLICES, OUTER, square((22.5, 20.5), (32.5, 30.5)), square((16.5, 14.5), (18.5, 16.5)))
    voxels = SOLID | rectangle(SLICES, (23, 21), (32, 30))
    ct = drawn(tmp_path, {"GTV": paths})
    computed(tmp_path, ct, voxels - rectangle(SLICES, (17, 15), (18, 16)), accept="overlap=union")


@pytest.mark.parametrize("other", [square((28.5, 12.5), (33.5, 26.5)), square((28.5, 26.5), (30.5, 28.5))])
def test_50_contours_that_only_touch_do_not_overlap(tmp_path: Path, other: list[tuple[float, float]]) -> None:
    (c0, r0), (c1, r1) = other[0], other[2]
    extra = rectangle(SLICES, (int(c0 + 0.5), int(r0 + 0.5)), (int(c1 - 0.5), int(r1 - 0.5)))
    computed(tmp_path, drawn(tmp_path, {"GTV": both(SLICES, OUTER, other)}), SOLID | extra)


def test_50_the_same_contour_twice_counts_once_and_is_told(tmp_path: Path) -> None:
    turned = [*OUTER[2:], *OUTER[:2]][::-1]
    store = computed(tmp_path, drawn(tmp_path, {"GTV": both(SLICES, OUTER, turned)}), SOLID)
    assert "1 contours are drawn twice" in store.notes
    assert "1 contours are drawn twice" in store.check_notes


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_51_disjoint_pieces_on_a_slice_and_along_z(tmp_path: Path, seed: int) -> None:
    """The contours in any order."""
    left, right = square((9.5, 12.5), (13.5, 16.5)), square((30.5, 20.5), (34.5, 25.5))
    items = [*both(range(4, 7), left), *both(range(5, 7), right), *both(range(9, 11), right)]
    items = [items[i] for i in np.random.default_rng(seed).permutation(len(items))]
    voxels = rectangle(range(4, 7), (10, 13), (13, 16)) | rectangle((5, 6, 9, 10), (31, 21), (34, 25))
    computed(tmp_path, drawn(tmp_path, {"GTV": items}), voxels)


@pytest.mark.parametrize(
    "path",
    [
        OUTER,
        [(14.5, 12.5), (28.5, 13.5), (30.1, 20.2), (22.2, 26.7), (13.3, 24.4)],
        [(14.5, 12.5), (28.5, 12.5), (28.5, 26.5), (21.5, 18.2), (14.5, 26.5)],  # not convex
    ],
)
def test_52_winding_and_start_change_no_byte(tmp_path: Path, path: list[tuple[float, float]]) -> None:
    ways = [path, path[::-1], path[2:] + path[:2], [*path, path[0]]]
    stores = []
    for i, way in enumerate(ways):
        (folder := tmp_path / str(i)).mkdir()
        stores.append(computed(folder, drawn(folder, {"GTV": both(SLICES, way)})).path.read_bytes())
    assert len(set(stores)) == 1


def test_53_a_small_crossing_follows_even_odd_and_is_told(tmp_path: Path) -> None:
    path = [
        (10.5, 8.5),
        (34.5, 8.5),
        (34.5, 30.5),
        (31.5, 30.5),
        (31.5, 28.2),
        (33.6, 28.2),
        (33.6, 29.6),
        (10.5, 29.6),
    ]
    store = computed(tmp_path, drawn(tmp_path, {"GTV": both(SLICES, path)}))
    assert "crosses or touches itself; the even-odd rule decides" in store.notes


def test_53_a_contour_whose_rule_matters_is_refused(tmp_path: Path) -> None:
    angle = 2 * np.pi * np.arange(5) * 2 / 5
    star = np.stack([22 + 10 * np.cos(angle), 20 + 10 * np.sin(angle)], axis=-1)
    drawn(tmp_path, {"GTV": both(SLICES, star)})
    refused(
        tmp_path, r"slice 6 crosses itself: \d+ pixels by the even-odd rule, \d+ by the non-zero", "redraw", "rt.dcm"
    )


def test_53_a_bow_tie_is_computed_and_told(tmp_path: Path) -> None:
    bow = [(14.5, 12.5), (28.5, 26.5), (28.5, 12.5), (14.5, 26.5)]
    store = computed(tmp_path, drawn(tmp_path, {"GTV": both(SLICES, bow)}))
    assert "crosses or touches itself" in store.notes


@pytest.mark.parametrize("again", [OUTER, [(15.0, 13.0), (28, 13), (28, 26), (15, 26), (14.9, 12.9)]])
def test_53_a_contour_drawn_round_twice_is_refused(tmp_path: Path, again: list[tuple[float, float]]) -> None:
    drawn(tmp_path, {"GTV": both(SLICES, [*OUTER, *again])})
    refused(tmp_path, "even-odd", path="rt.dcm")


@pytest.mark.parametrize("spur", [False, True])
def test_53_round_half_again_is_refused_with_a_spur_too(tmp_path: Path, spur: bool) -> None:
    """An edge walked to and fro is a keyhole's channel only where it leads to another loop."""
    angle = np.linspace(0, 3 * np.pi, 241)
    path = np.stack([22 + 7 * np.cos(angle), 20 + 7 * np.sin(angle)], axis=-1)
    if spur:
        path = np.concatenate([path[:30], [path[29] + 1.3, path[29]], path[30:]])
    drawn(tmp_path, {"GTV": both(SLICES, path)})
    refused(tmp_path, r"crosses itself: \d+ pixels by the even-odd rule", path="rt.dcm")


# -- Contours that are none ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("split", ["val", "test"])
def test_54_a_single_point_is_the_centre_of_a_val_or_test_row(tmp_path: Path, split: str) -> None:
    ct = drawn(tmp_path, {"GTV": [(8, [(21.25, 19.5)])]}, geometric_type="POINT")
    store = computed(tmp_path, ct, split=split)
    assert np.allclose(store.center, ct.to_lps(8, (21.25, 19.5)), atol=1e-9)
    assert "marked centre" in store.notes


def test_54_a_single_point_is_no_train_lesion(tmp_path: Path) -> None:
    drawn(tmp_path, {"GTV": [(8, [(21.25, 19.5)])]}, geometric_type="POINT")
    refused(tmp_path, "enclose nothing: 1 POINT", "centre of a val or test row", "rt.dcm")


@pytest.mark.parametrize("split", ["train", "val", "test"])
@pytest.mark.parametrize("n", [1, 2])
def test_54_fewer_than_three_points_are_refused(tmp_path: Path, split: str, n: int) -> None:
    drawn(tmp_path, {"GTV": [*both(SLICES, OUTER), (12, OUTER[:n])]})
    refused(tmp_path, r"1 contours of ROI 'GTV' have fewer than 3 points", path="rt.dcm", split=split)


@LONG_VALUES
@pytest.mark.parametrize("kind", ["POINT", "OPEN_PLANAR", "OPEN_NONPLANAR", "INTERPOLATED_PLANAR", ""])
@pytest.mark.parametrize("split", ["train", "test"])
def test_54_55_contours_that_enclose_nothing_are_counted_and_refused(tmp_path: Path, kind: str, split: str) -> None:
    drawn(tmp_path, {"GTV": both(SLICES, OUTER)}, geometric_type=kind)
    refused(tmp_path, f"enclose nothing: 6 {kind or 'without type'}", path="rt.dcm", split=split)


def test_55_one_open_contour_among_closed_ones_is_refused(tmp_path: Path) -> None:
    def edit(dataset: Dataset) -> None:
        dataset.ROIContourSequence[0].ContourSequence[2].ContourGeometricType = "OPEN_PLANAR"

    drawn(tmp_path, {"GTV": both(SLICES, OUTER)}, edit=edit)
    refused(tmp_path, "enclose nothing: 1 OPEN_PLANAR", path="rt.dcm")


def test_55_kinds_are_not_mixed(tmp_path: Path) -> None:
    def edit(dataset: Dataset) -> None:
        dataset.ROIContourSequence[0].ContourSequence[2].ContourGeometricType = "CLOSEDPLANAR_XOR"

    drawn(tmp_path, {"GTV": both(SLICES, OUTER)}, edit=edit)
    refused(tmp_path, "mixes CLOSEDPLANAR_XOR and CLOSED_PLANAR", path="rt.dcm")


@pytest.mark.parametrize("at", [(20.3, 18.4), (20.49, 18.49)])
def test_56_109_a_contour_smaller_than_a_voxel_marks_the_nearest(tmp_path: Path, at: tuple[float, float]) -> None:
    small = square((at[0] - 0.1, at[1] - 0.1), (at[0] + 0.1, at[1] + 0.1))
    store = computed(tmp_path, drawn(tmp_path, {"GTV": [(8, small)]}), {(8, 18, 20)} if at[0] < 20.4 else None)
    assert "encloses no voxel centre" in store.notes
    assert "encloses no voxel centre" in store.check_notes
    assert len(store.hu) == 6


def test_56_beside_others_a_contour_smaller_than_a_voxel_marks_nothing(tmp_path: Path) -> None:
    small = square((20.3, 18.3), (20.5, 18.5))
    ct = drawn(tmp_path, {"GTV": [*both(SLICES, OUTER), (11, small)]})
    computed(tmp_path, ct, SOLID)


def test_56_several_contours_without_a_voxel_are_refused(tmp_path: Path) -> None:
    drawn(tmp_path, {"GTV": both((8, 9), square((20.3, 18.3), (20.5, 18.5)))})
    refused(tmp_path, "enclose no voxel", path="rt.dcm")


# -- Where contours lie -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.4, -0.4, 0.499, -0.499])
def test_57_a_plane_between_slices_goes_to_the_nearest(tmp_path: Path, share: float) -> None:
    ct = awkward.series(tmp_path)
    awkward.contours(tmp_path, ct, {"GTV": awkward.box(ct, dz=share * 3)})
    computed(tmp_path, ct, SOLID)


def test_57_a_plane_nearer_than_half_a_spacing_to_an_end_slice(tmp_path: Path) -> None:
    ct = awkward.series(tmp_path)
    awkward.contours(tmp_path, ct, {"GTV": awkward.box(ct, (0,), dz=-1.4)})
    computed(tmp_path, ct, lesion_voxels((0,)))


@pytest.mark.parametrize(("k", "dz", "away"), [(0, -1.6, "1.6"), (0, -3.0, "3"), (15, 1.6, "1.6"), (15, 300.0, "300")])
def test_57_58_59_a_plane_beyond_the_volume_is_refused_with_its_distance(
    tmp_path: Path, k: int, dz: float, away: str
) -> None:
    ct = awkward.series(tmp_path)
    awkward.contours(tmp_path, ct, {"GTV": [*awkward.box(ct), *awkward.box(ct, (k,), dz=dz)]})
    refused(tmp_path, f"a contour lies {away} mm from the nearest slice, half a spacing is 1.5 mm", path="rt.dcm")


@pytest.mark.parametrize("change", [lambda points: points / 10, lambda points: points * [1, 1, -1]], ids=["cm", "z"])
def test_58_contours_all_far_from_the_slices_lack_no_slice(tmp_path: Path, change: Any) -> None:
    """Another body part, unit or sign of z: to complete the series would not help."""
    ct = awkward.series(tmp_path)
    awkward.contours(tmp_path, ct, {"GTV": [change(path) for path in awkward.box(ct)]})
    refused(tmp_path, r"the nearest of the contours lies (321|735)\.. mm from all slices", "drawn on", path="rt.dcm")


def test_57_two_planes_for_one_slice_the_nearer_counts_and_the_other_is_told(tmp_path: Path) -> None:
    ct = awkward.series(tmp_path)
    far = awkward.box(ct, (7,), low=(2.5, 2.5), high=(8.5, 8.5), dz=1.2)
    awkward.contours(tmp_path, ct, {"GTV": [*awkward.box(ct), *far]})
    store = computed(tmp_path, ct, SOLID)
    assert "is ignored: its slice has a nearer one" in store.notes


@pytest.mark.parametrize("dz", [0.05, -0.29])
def test_57_pieces_on_one_slice_are_one_plane_though_not_quite(tmp_path: Path, dz: float) -> None:
    ct = awkward.series(tmp_path)
    left, right = {"high": (20.5, 26.5)}, {"low": (22.5, 12.5), "dz": dz}
    awkward.contours(tmp_path, ct, {"GTV": [*awkward.box(ct, **left), *awkward.box(ct, **right)]})
    computed(tmp_path, ct, SOLID - rectangle(SLICES, (21, 13), (22, 26)))


@pytest.mark.parametrize(("low", "high"), [((60, 12), (70, 20)), ((-30, -30), (-20, -20)), ((12, 45), (20, 60))])
def test_59_contours_outside_in_plane_are_refused(tmp_path: Path, low: Any, high: Any) -> None:
    drawn(tmp_path, {"GTV": both(SLICES, square(low, high))})
    refused(tmp_path, "outside the image in-plane", path="rt.dcm")


@pytest.mark.parametrize("far", [(1e7, 0.0), (0.0, -1e7), (1e4, 1e4), (1e6, 1e6), (1e300, 0.0), (1e300, 1e300)])
def test_59_a_point_far_outside_is_refused_not_filled(tmp_path: Path, far: tuple[float, float]) -> None:
    ct = awkward.series(tmp_path)
    paths = awkward.box(ct)
    paths[2][2, :2] += far
    awkward.contours(tmp_path, ct, {"GTV": paths})
    refused(tmp_path, r"contours on slice 8 span \S+ × \S+ px", "redraw", "rt.dcm")


def test_59_partly_outside_is_clipped_and_told(tmp_path: Path) -> None:
    ct = drawn(tmp_path, {"GTV": both(SLICES, square((-5.5, 12.5), (4.5, 26.5)))})
    store = computed(tmp_path, ct, rectangle(SLICES, (0, 13), (4, 26)))
    assert "50.00% of the lesion lies outside the image" in store.notes
    assert "50.00% of the lesion lies outside the image" in store.check_notes


@pytest.mark.parametrize("shape", [(16, 30, 60), (16, 60, 30), (16, 41, 35)])
def test_60_images_that_are_not_square(tmp_path: Path, shape: tuple[int, int, int]) -> None:
    ct = awkward.series(tmp_path, shape=shape)
    high = (shape[2] - 8.5, shape[1] - 9.5)
    awkward.contours(tmp_path, ct, {"GTV": awkward.box(ct, low=(9.5, 8.5), high=high)})
    computed(tmp_path, ct, rectangle(SLICES, (10, 9), (shape[2] - 9, shape[1] - 10)))


# -- What contours refer to ---------------------------------------------------------------------------------------


def test_61_another_frame_of_reference_is_refused(tmp_path: Path) -> None:
    ct = awkward.series(tmp_path)
    other = synthetic.uid("another frame")
    awkward.contours(tmp_path, ct, frame_uid=other)
    refused(tmp_path, rf"…{other[-12:]}, of the image …{ct.frame_uid[-12:]}", "frame into the column accept", "rt.dcm")


@pytest.mark.parametrize("references", [True, False])
def test_61_an_accepted_frame_of_reference_is_told(tmp_path: Path, references: bool) -> None:
    ct = awkward.series(tmp_path)
    awkward.contours(tmp_path, ct, frame_uid=synthetic.uid("another frame"), references=references)
    store = computed(tmp_path, ct, SOLID, accept="frame")
    assert re.search("frame of reference.* accepted", store.notes)


def other_uids(n: int = 16) -> list[str]:
    return [synthetic.uid("other image", k) for k in range(n)]


def test_62_a_re_exported_series_is_used_by_geometry_and_told(tmp_path: Path) -> None:
    ct = awkward.series(tmp_path)
    awkward.contours(tmp_path, ct, series_uid=synthetic.uid("before"), sop_uids=other_uids())
    store = computed(tmp_path, ct, SOLID)
    assert "used by geometry" in store.notes
    assert "used by geometry" in store.check_notes


@pytest.mark.parametrize("dz", [0.2, -1.0])
def test_62_another_series_with_contours_off_its_slices_is_refused(tmp_path: Path, dz: float) -> None:
    ct = awkward.series(tmp_path)
    other = synthetic.uid("before")
    paths = {"GTV": awkward.box(ct, dz=dz)}
    awkward.contours(tmp_path, ct, paths, series_uid=other, sop_uids=other_uids())
    found = rf"series …{other[-12:]}, the image is …{ct.series_uid[-12:]}.* {abs(dz):g} mm off every slice"
    refused(tmp_path, found, "drawn on this image", "rt.dcm")


@pytest.mark.parametrize("part", [slice(6, 8), slice(1), slice(15, None)])
def test_63_references_to_a_part_of_the_series_are_enough(tmp_path: Path, part: slice) -> None:
    def edit(dataset: Dataset) -> None:
        study = dataset.ReferencedFrameOfReferenceSequence[0].RTReferencedStudySequence[0]
        images = study.RTReferencedSeriesSequence[0]
        images.ContourImageSequence = images.ContourImageSequence[part]

    ct = awkward.series(tmp_path)
    awkward.contours(tmp_path, ct, edit=edit)
    computed(tmp_path, ct, SOLID)


@pytest.mark.parametrize("transfer_syntax", ["explicit", "implicit"])
def test_64_no_references_at_all(tmp_path: Path, transfer_syntax: str) -> None:
    ct = awkward.series(tmp_path)
    awkward.contours(tmp_path, ct, references=False, transfer_syntax=transfer_syntax)
    computed(tmp_path, ct, SOLID)


def test_64_references_of_the_contours_are_missing(tmp_path: Path) -> None:
    def edit(dataset: Dataset) -> None:
        for item in dataset.ROIContourSequence[0].ContourSequence:
            del item.ContourImageSequence

    ct = awkward.series(tmp_path)
    awkward.contours(tmp_path, ct, {"GTV": awkward.box(ct, dz=0.9)}, edit=edit)
    assert "by geometry" not in computed(tmp_path, ct, SOLID).notes


# -- Which ROI ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("roi", ["GTV", ""])
def test_65_an_empty_roi_is_refused(tmp_path: Path, roi: str) -> None:
    drawn(tmp_path, {"GTV": []})
    refused(tmp_path, "ROI 'GTV' has no contours", path="rt.dcm", roi=roi)


def test_65_an_roi_that_is_not_there_is_refused_with_those_that_are(tmp_path: Path) -> None:
    drawn(tmp_path, {"GTV": both(SLICES, OUTER), "Lung": both(SLICES, INNER)})
    refused(tmp_path, "no ROI 'PTV' among 1 'GTV', 2 'Lung'", "roi", "rt.dcm", roi="PTV")


def test_65_several_rois_without_a_choice_are_refused(tmp_path: Path) -> None:
    drawn(tmp_path, {"GTV": both(SLICES, OUTER), "Lung": both(SLICES, INNER)})
    refused(tmp_path, "2 ROIs: 1 'GTV', 2 'Lung'", "roi", "rt.dcm")


def test_65_without_a_choice_an_empty_roi_does_not_count(tmp_path: Path) -> None:
    computed(tmp_path, drawn(tmp_path, {"Empty": [], "GTV": both(SLICES, OUTER)}), SOLID)


def same_names(dataset: Dataset) -> None:
    for item in dataset.StructureSetROISequence:
        item.ROIName = "GTV"


def test_66_two_rois_of_one_name_are_refused_with_their_numbers(tmp_path: Path) -> None:
    drawn(tmp_path, {"a": both(SLICES, OUTER), "b": both(SLICES, INNER)}, edit=same_names)
    refused(tmp_path, "2 ROIs are named like 'GTV': numbers 1, 2", "number", "rt.dcm", roi="GTV")


@pytest.mark.parametrize(("number", "voxels"), [("1", SOLID), ("2", SOLID - HOLLOW)])
def test_66_a_number_chooses(tmp_path: Path, number: str, voxels: Voxels) -> None:
    ct = drawn(tmp_path, {"a": both(SLICES, OUTER), "b": both(SLICES, INNER)}, edit=same_names)
    computed(tmp_path, ct, voxels, roi=number)


@pytest.mark.parametrize("roi", ["gtv ärm", " GTV Ärm ", "ＧＴＶ Ärm", "GTV A\u0308rm"])
def test_67_a_name_in_other_case_width_or_form_when_only_one_is_meant(tmp_path: Path, roi: str) -> None:
    def edit(dataset: Dataset) -> None:
        dataset.SpecificCharacterSet = "ISO_IR 192"

    ct = drawn(tmp_path, {"GTV Ärm": both(SLICES, OUTER), "Lung": both(SLICES, INNER)}, edit=edit)
    computed(tmp_path, ct, SOLID, roi=roi)


def test_67_the_exact_name_wins_and_two_like_it_are_refused(tmp_path: Path) -> None:
    ct = drawn(tmp_path, {"GTV": both(SLICES, OUTER), "gtv": both(SLICES, INNER)})
    computed(tmp_path, ct, SOLID, roi="GTV")
    computed(tmp_path, ct, SOLID - HOLLOW, roi="gtv")
    (tmp_path / "s.h5").unlink()
    refused(tmp_path, "2 ROIs are named like 'Gtv': numbers 1, 2", path="rt.dcm", roi="Gtv")


READERS = {"GTV reader 1": both(SLICES, OUTER), "GTV reader 2": both(SLICES, INNER)}


@pytest.mark.parametrize(("roi", "voxels"), [("GTV reader 1", SOLID), ("GTV reader 2", SOLID - HOLLOW)])
def test_68_observers_in_one_file_are_never_mixed(tmp_path: Path, roi: str, voxels: Voxels) -> None:
    computed(tmp_path, drawn(tmp_path, READERS), voxels, roi=roi)


@pytest.mark.parametrize("roi", ["GTV", "GTV reader"])
def test_68_a_name_that_several_observers_share_is_refused(tmp_path: Path, roi: str) -> None:
    drawn(tmp_path, READERS)
    refused(tmp_path, f"no ROI '{roi}' among 1 'GTV reader 1', 2 'GTV reader 2'", path="rt.dcm", roi=roi)


@pytest.mark.parametrize("out", [(7, 8), (6, 9), (8, 9)])
def test_69_a_slice_left_out_is_kept_as_drawn_and_told(tmp_path: Path, out: tuple[int, ...]) -> None:
    slices = [k for k in SLICES if k not in out]
    ct = drawn(tmp_path, {"GTV": both(slices, OUTER)})
    store = computed(tmp_path, ct, lesion_voxels(slices))
    assert "2 slices between the lesion's first and last have no contour" in store.notes
    assert "2 slices between the lesion's first and last have no contour" in store.check_notes


def leaning(ct: synthetic.Series, reach: float) -> list[np.ndarray]:
    """The lesion's contours, their right side up by `reach` mm and their left side down."""
    paths = awkward.box(ct)
    return [path + np.outer([-reach, reach, reach, -reach], ct.axes[2]) for path in paths]


@pytest.mark.parametrize("reach", [0.01, 1.4])
def test_70_a_contour_leaning_by_less_than_half_a_spacing(tmp_path: Path, reach: float) -> None:
    ct = awkward.series(tmp_path)
    awkward.contours(tmp_path, ct, {"GTV": leaning(ct, reach)})
    computed(tmp_path, ct, SOLID)


@pytest.mark.parametrize("reach", [1.6, 20.0])
def test_70_a_contour_that_leaves_its_plane_is_refused(tmp_path: Path, reach: float) -> None:
    ct = awkward.series(tmp_path)
    awkward.contours(tmp_path, ct, {"GTV": leaning(ct, reach)})
    refused(tmp_path, rf"leaves its plane by {reach:g} mm, half a slice spacing is 1\.5 mm", path="rt.dcm")


def test_70_contours_on_an_oblique_series_are_planar_in_it(tmp_path: Path) -> None:
    ct = awkward.series(tmp_path, iop=synthetic.rotation_iop((30.0, 20.0, -10.0)))
    awkward.contours(tmp_path, ct)
    computed(tmp_path, ct, SOLID)


@LONG_VALUES
@pytest.mark.parametrize("transfer_syntax", ["explicit", "implicit"])
def test_71_a_contour_of_more_than_64_kib(tmp_path: Path, transfer_syntax: str) -> None:
    """In explicit VR it does not fit a DS and is written as UN."""
    ct = awkward.series(tmp_path)
    edges = [np.linspace(a, b, 900, endpoint=False) for a, b in zip(OUTER, [*OUTER[1:], OUTER[0]], strict=True)]
    paths = {"GTV": [ct.to_lps(k, np.concatenate(edges)) for k in SLICES]}
    path = awkward.contours(tmp_path, ct, paths, transfer_syntax=transfer_syntax)
    if transfer_syntax == "explicit":
        raw = pydicom.dcmread(path).ROIContourSequence[0].ContourSequence[0].get_item(0x30060050)
        assert raw.VR == "UN"
        assert len(raw.value) > 65535
    computed(tmp_path, ct, SOLID)


@pytest.mark.parametrize(
    ("numbers", "found"),
    [
        (b"1\\2\\3\\4", "has 4 numbers"),
        (b"1\\2", "has 2 numbers"),
        (b"", "has 0 numbers"),
        (b"1\\2\\nan ", "is not numbers"),
        (b"1\\2\\3\\x\\5\\6", "is not numbers"),
        (b"\\\\", "is not numbers"),
    ],
)
def test_71_points_that_are_no_triplets_are_refused(tmp_path: Path, numbers: bytes, found: str) -> None:
    def edit(dataset: Dataset) -> None:
        item = dataset.ROIContourSequence[0].ContourSequence[3]
        tag = pydicom.tag.Tag("ContourData")
        item[tag] = pydicom.dataelem.RawDataElement(tag, "DS", len(numbers), numbers, 0, False, True)

    drawn(tmp_path, {"GTV": both(SLICES, OUTER)}, edit=edit)
    refused(tmp_path, f"ContourData of ROI 'GTV' .*{found}|ContourData of ROI 'GTV' {found}", path="rt.dcm")


@pytest.mark.parametrize("mask", ["", "structures"])
def test_72_structure_sets_are_named_never_searched(tmp_path: Path, mask: str) -> None:
    """Two versions in a folder: the manifest has to name one; a folder is refused, by the manifest reader."""
    ct = awkward.series(tmp_path)
    for name, path in (("v1.dcm", OUTER), ("v2.dcm", INNER)):
        awkward.contours(tmp_path / "structures", ct, {"GTV": [ct.to_lps(k, path) for k in SLICES]}, name)
    awkward.manifest(tmp_path, mask=mask)
    result = awkward.build(tmp_path)
    assert result.status == 2
    assert "mask is blank" in result.err[0] if not mask else "is a folder" in result.err[0]
    computed(tmp_path, ct, SOLID, mask="structures/v1.dcm")
    computed(tmp_path, ct, SOLID - HOLLOW, mask="structures/v2.dcm")


@pytest.mark.parametrize("name", ["ct/0000.dcm", "text.dcm", "text"])
def test_72_another_kind_of_file_is_no_mask(tmp_path: Path, name: str) -> None:
    awkward.series(tmp_path)
    for file in ("text", "text.dcm"):
        (tmp_path / file).write_text("hello, this is not a DICOM file\n" * 20)
    found = {"ct/0000.dcm": "DICOM of modality CT", "text": "no DICOM file", "text.dcm": "not readable as DICOM"}[name]
    refused(tmp_path, found, path=name, mask=name)


def test_everything_fits_the_columns_and_rows() -> None:
    assert len(SOLID) == len(SLICES) * len(ROWS) * len(COLUMNS)
    assert len(SOLID - HOLLOW) == len(SLICES) * 6 * 5


# -- Which images contours name -----------------------------------------------------------------------------------


def naming(uids: dict[int, str]) -> Callable[[Dataset], None]:
    """Contours, counted from 0, that name other images than those that they lie on."""

    def edit(dataset: Dataset) -> None:
        items = dataset.ROIContourSequence[0].ContourSequence
        for i, uid in uids.items():
            items[i].ContourImageSequence[0].ReferencedSOPInstanceUID = uid

    return edit


@pytest.mark.parametrize("inner", [square((18.5, 17.5), (24.5, 22.5)), square((32.5, 30.5), (36.5, 34.5))])
def test_62_contours_of_two_series_in_one_roi_are_refused(tmp_path: Path, inner: Any) -> None:
    """The other series' would be a hole, or another piece of the lesion."""
    elsewhere = {i: f"1.2.3.{i}" for i in range(6, 12)}
    ct = drawn(tmp_path, {"GTV": [*both(SLICES, OUTER), *both(SLICES, inner)]}, edit=naming(elsewhere))
    refused(tmp_path, "6 of 12 contours refer to images that are not among this one's slices", "frame", "rt.dcm")
    store = awkward.built(tmp_path, accept="frame")
    awkward.assert_linear(store, ct)
    assert "used by position, accepted by the manifest" in store.notes
    scanned = awkward.run("scan", tmp_path, "--out", tmp_path / "scanned.csv")
    assert "put frame into the column accept" in "".join(scanned.out)
    assert ",rt.dcm,GTV," in (tmp_path / "scanned.csv").read_text(encoding="utf-8")


def test_63_contours_of_slices_that_are_not_here_are_refused(tmp_path: Path) -> None:
    """By their positions they are between slices that are 6 mm apart, as others are, and no gap shows."""
    ct = awkward.case(tmp_path)
    for k in (6, 8):
        ct.paths[k].unlink()
    refused(tmp_path, "2 of 6 contours refer to images that are not among this one's slices", "complete", "rt.dcm")


@pytest.mark.parametrize("off", [-3, 1])
def test_62_contours_that_lie_elsewhere_than_the_image_they_name_are_refused(tmp_path: Path, off: int) -> None:
    uids = awkward.series(tmp_path / "same").sop_uids
    named = {i: uids[k + off] for i, k in enumerate(SLICES)}
    ct = drawn(tmp_path, {"GTV": both(SLICES, OUTER)}, edit=naming(named))
    found = f"a contour lies {abs(off) * 3} mm from slice {SLICES[0] + off + 1}, which it refers to"
    refused(tmp_path, found, "export the contours again", "rt.dcm")
    awkward.assert_linear(awkward.built(tmp_path, accept="frame"), ct)


def test_64_some_contours_that_name_no_image_are_used_by_position(tmp_path: Path) -> None:
    def edit(dataset: Dataset) -> None:
        for item in dataset.ROIContourSequence[0].ContourSequence[2:]:
            del item.ContourImageSequence

    computed(tmp_path, drawn(tmp_path, {"GTV": both(SLICES, OUTER)}, edit=edit), SOLID)


def test_13_62_images_decide_against_the_series_that_a_file_names(tmp_path: Path) -> None:
    """Two series of one frame and the same positions: the file's list names one, each contour an image of the other."""
    one = awkward.series(tmp_path, name="ct/a", hu=awkward.hu() * 0)
    other = awkward.series(tmp_path, name="ct/b", seed=1, frame_uid=one.frame_uid, study_uid=one.study_uid)
    awkward.contours(tmp_path, other, series_uid=one.series_uid)
    refused(tmp_path, "the contours refer to images of .*, their file to", "series_uid")
    awkward.assert_linear(awkward.built(tmp_path, series_uid=other.series_uid), other)
    assert awkward.run("scan", tmp_path, "--out", tmp_path / "scanned.csv").status == 0
    with open(tmp_path / "scanned.csv", encoding="utf-8") as file:
        masks = {Path(row["image"]).name: row["mask"] for row in csv.DictReader(file)}
    assert masks == {"a": "", "b": "rt.dcm"}
