"""LIDC-IDRI XML: outlines as voxels, clustering, ratings, placement; judged by shapely, scikit-image and plain sets."""

from __future__ import annotations

import ast
import contextlib
import csv
import itertools
import random
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from readings import LEVELS, SPACING, Nodule, Roi, document, doubts, sop_uid, square, write
from skimage.draw import polygon2mask

from ctpatch.contours.lidc import LidcLesion, LidcRead, read_lidc
from ctpatch.contours.lidc_xml import LidcNodule, is_lidc, parse_lidc
from ctpatch.contours.roi import VoxelROI
from ctpatch.errors import InputError
from ctpatch.geometry import SliceStack, make_stack, orthonormal_axes

DATA = Path(__file__).parents[3] / "shared" / "data" / "lidc"
real = pytest.mark.skipif(not DATA.is_dir(), reason="the shared LIDC-IDRI files are not here")


# ------------------------------------------------------------------------------------------- images


@dataclass(frozen=True)
class Image:
    stack: SliceStack
    uid: str = "1.2.3"
    frame_of_reference: str = ""
    sop_uids: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def image(
    slices: list[int],
    shape: tuple[int, int] = (64, 64),
    uid: str = "1.2.3",
    sops: bool = True,
    iop: tuple[float, ...] = (1, 0, 0, 0, 1, 0),
) -> Image:
    origins = [(-100.0, -80.0, k * SPACING) for k in slices]
    stack, order = make_stack(orthonormal_axes(iop), origins, (0.7, 0.7), shape)
    return Image(stack, uid, sop_uids=tuple(sop_uid(slices[i]) for i in order) if sops else ())


FRAME = frozenset({"frame"})


def read_lidc_roi(path: Path, roi: str, on: Image, **options: Any) -> VoxelROI:
    read = read_lidc(path)
    return read.place(read.find(roi), on, **options)


def placed(path: Path, roi: str, shape: tuple[int, int, int], on: Image, **options: float) -> np.ndarray:
    """The lesion's mask over the whole image."""
    result = read_lidc_roi(path, roi, on, **options)
    full = np.zeros(shape, bool)
    full[tuple(slice(c, c + n) for c, n in zip(result.corner, result.voxels.shape, strict=True))] = result.voxels
    assert full.sum() == result.voxels.sum()
    return full


def voxels_of(path: Path) -> list[set[tuple[float, int, int]]]:
    """Each lesion's half-consensus voxels as (z, row, column)."""
    read = read_lidc(path)
    return [{(read.planes[p].z, r, c) for p, r, c in lesion.agreed(0.5).tolist()} for lesion in read.lesions]


# -------------------------------------------------------------------------------------- voxels of a path


@st.composite
def star(draw: st.DrawFn) -> list[tuple[int, int]]:
    """A star-shaped polygon with integer corners in 0 … 40."""
    count = draw(st.integers(3, 12))
    radii = draw(st.lists(st.floats(1, 20), min_size=count, max_size=count))
    angle = 2 * np.pi * np.arange(count) / count + draw(st.floats(0, 6))
    return [(round(20 + r * np.cos(a)), round(20 + r * np.sin(a))) for r, a in zip(radii, angle, strict=True)]


def strictly_inside(*polygons: shapely.Polygon) -> set[tuple[int, int]]:
    """(row, column) of the points inside the first polygon, off its path, and not in or on any other."""
    grid = list(itertools.product(range(-2, 43), repeat=2))
    points = shapely.points([(x, y) for y, x in grid])
    inside = shapely.contains_properly(polygons[0], points)
    for hole in polygons[1:]:
        inside &= ~shapely.intersects(hole, points)
    return {pixel for pixel, yes in zip(grid, inside, strict=True) if yes}


@settings(max_examples=150, deadline=None)
@given(points=star(), seed=st.integers(0, 99))
def test_a_voxel_on_the_path_is_out_and_one_inside_is_in(
    tmp_path_factory: pytest.TempPathFactory, points: list[tuple[int, int]], seed: int
) -> None:
    shape = shapely.Polygon(points)
    if not shape.is_valid:
        return
    start = seed % len(points)
    turned = points[start:] + points[:start]
    turned = (turned[::-1] if seed % 2 else turned) + (turned[:1] if seed % 3 and not seed % 2 else [])
    path = write(tmp_path_factory.mktemp("x"), [[Nodule([Roi(0, turned)])]])
    expected = strictly_inside(shape)
    (found,) = voxels_of(path)
    assert {(r, c) for _, r, c in found} == expected
    assert bool(doubts(read_lidc(path).lesions[0])) == (not expected)


@settings(max_examples=100, deadline=None)
@given(outer=star(), hole=star())
def test_an_exclusion_takes_out_its_inside_and_its_edge(
    tmp_path_factory: pytest.TempPathFactory, outer: list[tuple[int, int]], hole: list[tuple[int, int]]
) -> None:
    """Also where it reaches outside of the inclusion: then it adds nothing."""
    shapes = shapely.Polygon(outer), shapely.Polygon(hole)
    if not all(shape.is_valid for shape in shapes):
        return
    path = write(tmp_path_factory.mktemp("x"), [[Nodule([Roi(0, hole, "FALSE"), Roi(0, outer)])]])
    (found,) = voxels_of(path)
    assert {(r, c) for _, r, c in found} == strictly_inside(*shapes)


def test_single_point_exclusion_takes_out_one_voxel(tmp_path: Path) -> None:
    path = write(tmp_path, [[Nodule([square(0, 10), Roi(0, [(5, 4)], "FALSE")])]])
    (found,) = voxels_of(path)
    assert {(r, c) for _, r, c in found} == set(itertools.product(range(1, 10), repeat=2)) - {(4, 5)}


def test_island_within_an_exclusion_is_in(tmp_path: Path) -> None:
    rois = [square(0, 30), square(5, 25, inclusion="FALSE"), square(10, 20)]
    (found,) = voxels_of(write(tmp_path, [[Nodule(rois)]]))
    ring = {p for p in itertools.product(range(1, 30), repeat=2) if not all(5 <= v <= 25 for v in p)}
    assert {(r, c) for _, r, c in found} == ring | set(itertools.product(range(11, 20), repeat=2))


def test_a_repeated_path_counts_once(tmp_path: Path) -> None:
    once = square(0, 10)
    again = Roi(0, once.points[2:] + once.points[:2] + once.points[2:3])
    backwards = Roi(0, once.points[::-1])
    single = voxels_of(write(tmp_path, [[Nodule([once])]]))
    assert voxels_of(write(tmp_path, [[Nodule([once, again, backwards])]])) == single
    assert len(single[0]) == 81


def test_two_pieces_on_a_slice_are_one_outline(tmp_path: Path) -> None:
    path = write(tmp_path, [[Nodule([square(0, 5), square(5, 10)])]])
    assert [len(found) for found in voxels_of(path)] == [16 + 16]


def test_a_path_within_another_takes_out_what_it_passes_through(tmp_path: Path) -> None:
    """A stray line of inclusion encloses nothing and is still a path."""
    (found,) = voxels_of(write(tmp_path, [[Nodule([square(0, 10), Roi(0, [(4, 5), (6, 5)])])]]))
    assert {(r, c) for _, r, c in found} == set(itertools.product(range(1, 10), repeat=2)) - {(5, 4), (5, 5), (5, 6)}


def test_overlapping_inclusions_are_a_problem(tmp_path: Path) -> None:
    path = write(tmp_path, [[Nodule([square(0, 10), square(5, 15)], "A7")]])
    with pytest.raises(InputError, match=r"two paths of nodule 'A7' of reader 1 overlap at z = 0 mm \(16 px\)"):
        read_lidc_roi(path, "1", image([0, 1]))


def test_an_outline_that_encloses_nothing_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, [[Nodule([Roi(0, [(3, 3), (4, 3), (4, 4), (3, 4)])])]])
    with pytest.raises(InputError, match="lesion 1: contour encloses no voxel"):
        read_lidc_roi(path, "1", image([0, 1]))


# ---------------------------------------------------------------------------------- lesions over readers


def test_consensus_is_at_least_the_given_fraction_of_the_outlining_readers(tmp_path: Path) -> None:
    """Squares of 9, 19, 29 px about one corner: voxels with 3, 2, 1 votes; the fourth reader saw nothing."""
    path = write(tmp_path, [[Nodule([square(0, high)])] for high in (10, 20, 30)] + [[]])
    sizes = {}
    for consensus in (0.1, 1 / 3, 0.34, 0.5, 2 / 3, 0.67, 1.0):
        result = read_lidc_roi(path, "1", image([0, 1]), consensus=consensus)
        assert result.n_readers == 3
        sizes[consensus] = int(result.voxels.sum())
    assert list(sizes.values()) == [29**2, 29**2, 19**2, 19**2, 19**2, 9**2, 9**2]


@pytest.mark.parametrize("consensus", [0.0, -1.0, 1.01, float("nan")])
def test_a_consensus_that_is_no_fraction_is_refused(tmp_path: Path, consensus: float) -> None:
    path = write(tmp_path, [[Nodule([square(0, 10)])]])
    with pytest.raises(InputError, match="is no fraction"):
        read_lidc_roi(path, "1", image([0, 1]), consensus=consensus)


def test_chained_outlines_form_one_lesion_and_may_have_no_common_voxel(tmp_path: Path) -> None:
    path = write(tmp_path, [[Nodule([square(low, low + 10)])] for low in (0, 8, 16)])
    assert len(read_lidc(path).lesions) == 1
    with pytest.raises(InputError, match="no voxel is in 100% of the 3 readers' outlines"):
        read_lidc_roi(path, "1", image([0, 1]), consensus=1.0)


def test_touching_outlines_are_two_lesions(tmp_path: Path) -> None:
    path = write(tmp_path, [[Nodule([square(0, 10)])], [Nodule([square(10, 20)])], [Nodule([square(0, 9, k=1)])]])
    assert len(read_lidc(path).lesions) == 3


@pytest.mark.parametrize("bridge", [True, False])
def test_two_outlines_of_one_reader_in_one_lesion_are_ambiguous(tmp_path: Path, bridge: bool) -> None:
    """Joined by another reader's outline, or sharing voxels themselves."""
    low = 12 if bridge else 8
    mine = [Nodule([square(0, 10)], "a"), Nodule([square(low, 22)], "b")]
    other = [[Nodule([square(5, 17)], "c")]] if bridge else []
    path = write(tmp_path, [mine, *other, [Nodule([square(40, 50)], "d")]])
    first, second = read_lidc(path).lesions
    assert doubts(first) == first.twice == ("reader 1 has 2 outlines in one lesion, nodules 'a', 'b'",)
    assert doubts(second) == ()
    with pytest.raises(InputError, match=r"lesion 1: reader 1 has 2 outlines .* 'a', 'b'.*leave this lesion out"):
        read_lidc_roi(path, "1", image([0, 1]))
    assert read_lidc_roi(path, "2", image([0, 1])).voxels.sum() == 81


def test_numbers_go_by_z_then_row_then_column(tmp_path: Path) -> None:
    places = [(0, 30, 2), (0, 2, 20), (0, 2, 40), (3, 0, 0)]  # slice, row, column
    nodules = [Nodule([Roi(k, [(c, r), (c + 9, r), (c + 9, r + 9), (c, r + 9)])], f"{k} {r} {c}") for k, r, c in places]
    order = ["0 2 20", "0 2 40", "0 30 2", "3 0 0"]
    for seed in range(4):
        shuffled = random.Random(seed).sample(nodules, 4)
        lesions = read_lidc(write(tmp_path, [shuffled[:2], shuffled[2:]])).lesions
        assert [lesion.nodules[0][1] for lesion in lesions] == order
        assert [lesion.number for lesion in lesions] == [1, 2, 3, 4]
    assert lesions[0].centroid == (0.0, 6.5, 24.5)


def test_numbers_do_not_depend_on_the_consensus_used(tmp_path: Path) -> None:
    """The union's centroid would turn the two round: three readers agree on a low place, one adds far more rows."""
    first = [Nodule([square(0, 10)], "a")] * 1
    sessions = [first, [Nodule([square(0, 10)], "a")], [Nodule([square(0, 60)], "a")]]
    sessions[0] = [*first, Nodule([Roi(0, [(61, 8), (63, 8), (63, 14), (61, 14)])], "b")]
    path = write(tmp_path, sessions)
    assert [lesion.nodules[0][1] for lesion in read_lidc(path).lesions] == ["a", "b"]
    assert read_lidc_roi(path, "1", image([0, 1]), consensus=0.1).voxels.sum() == 59**2


rectangles = st.builds(
    lambda c, r, w, h, k: Roi(k, [(c, r), (c + w, r), (c + w, r + h), (c, r + h)]),
    *(st.integers(0, 20), st.integers(0, 20), st.integers(1, 9), st.integers(1, 9), st.integers(0, 2)),
)
readings = st.lists(st.lists(st.lists(rectangles, min_size=1, max_size=3), max_size=4), min_size=1, max_size=4)


def sets_of(rois: list[Roi]) -> set[tuple[int, int, int]]:
    return {
        (roi.k, row, column)
        for roi in rois
        for row in range(roi.points[0][1] + 1, roi.points[2][1])
        for column in range(roi.points[0][0] + 1, roi.points[2][0])
    }


def merge(outlines: list[tuple[int, str, set]]) -> list[list[tuple[int, str, set]]]:
    """Groups of outlines that share a voxel, directly or through others, by plain set arithmetic."""
    groups: list[list[tuple[int, str, set]]] = []
    for outline in outlines:
        joined = [g for g in groups if any(outline[2] & other[2] for other in g)]
        groups = [g for g in groups if g not in joined] + [[outline, *itertools.chain(*joined)]]
    return groups


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(sessions=readings, rng=st.randoms(use_true_random=False))
def test_clustering_and_votes_by_plain_sets_in_any_order(
    tmp_path_factory: pytest.TempPathFactory, sessions: list[list[list[Roi]]], rng: random.Random
) -> None:
    """A reader's rectangles on one slice may overlap here; that is told as a problem and changes nothing else."""
    named = [[Nodule(rois, f"{i}-{j}") for j, rois in enumerate(s)] for i, s in enumerate(sessions)]
    named = [[n for n in s if not overlapping(n.rois)] for s in named]
    groups = merge([(i, n.name, sets_of(n.rois)) for i, s in enumerate(named) for n in s])
    expected = set()
    for group in groups:
        by_reader = {i: set().union(*(v for j, _, v in group if j == i)) for i, _, _ in group}
        votes = Counter(voxel for mask in by_reader.values() for voxel in mask)
        twice = len(by_reader) < len(group)
        expected.add((frozenset(name for _, name, _ in group), frozenset(votes.items()), twice))
    shuffled = [rng.sample([Nodule(rng.sample(n.rois, len(n.rois)), n.name) for n in s], len(s)) for s in named]
    rng.shuffle(shuffled)
    folder = tmp_path_factory.mktemp("x")
    first, second = (read_lidc(write(folder, s)) for s in (named, shuffled))
    assert [ids(lesion) for lesion in first.lesions] == [ids(lesion) for lesion in second.lesions]
    for read in (first, second):
        assert {summary(read, lesion) for lesion in read.lesions} == expected


def overlapping(rois: list[Roi]) -> bool:
    """Two of the paths share a voxel, or one runs through the other's inside: problems of their own."""

    def cover(roi: Roi, reach: int) -> set:
        (c, r), (c1, r1) = roi.points[0], roi.points[2]
        return set(itertools.product([roi.k], range(r + 1 - reach, r1 + reach), range(c + 1 - reach, c1 + reach)))

    return any(cover(a, 1) & cover(b, 0) for a, b in itertools.permutations(rois, 2))


def ids(lesion: LidcLesion) -> tuple:
    return sorted(name for _, name in lesion.nodules), lesion.centroid, lesion.voxels.tolist(), lesion.votes.tolist()


def summary(read: LidcRead, lesion: LidcLesion) -> tuple:
    votes = {
        (round(read.planes[p].z / SPACING), r, c): n
        for (p, r, c), n in zip(lesion.voxels.tolist(), lesion.votes.tolist(), strict=True)
    }
    twice = any("outlines in one lesion" in problem for problem in lesion.twice)
    return frozenset(name for _, name in lesion.nodules), frozenset(votes.items()), twice


# ---------------------------------------------------------------------------------------------- ratings


@pytest.mark.parametrize(
    ("given_levels", "median"),
    [((1,), 1), ((1, 2), 2), ((1, 4), 3), ((1, 2, 5), 2), ((1, 2, 3, 5), 3), ((2, 2, 3, 3), 3), ((5, 5, 4, 4), 5)],
)
def test_ratings_are_medians_with_halves_rounded_up(tmp_path: Path, given_levels: tuple[int, ...], median: int) -> None:
    sessions = [[Nodule([square(0, 10)], ratings=LEVELS | {"lobulation": level})] for level in given_levels]
    (lesion,) = read_lidc(write(tmp_path, sessions)).lesions
    assert lesion.ratings == LEVELS | {"lobulation": median}
    assert lesion.notes == ()


def test_a_missing_rating_is_unknown_and_a_reader_without_it_is_left_out(tmp_path: Path) -> None:
    partial = {"lobulation": "", "texture": " 2 "}
    (lesion,) = read_lidc(
        write(tmp_path, [[Nodule([square(0, 10)])], [Nodule([square(0, 10)], ratings=partial)]])
    ).lesions
    assert lesion.ratings == dict.fromkeys(LEVELS) | {"texture": 2}


@pytest.mark.parametrize(
    ("name", "level"),
    [
        ("internalStructure", 5),
        ("calcification", 7),
        ("malignancy", 6),
        ("margin", 0),
        ("texture", "4.5"),
        ("texture", "²"),
    ],
)
def test_a_rating_out_of_range_is_unknown(tmp_path: Path, name: str, level: object) -> None:
    bad = Nodule([square(0, 10)], "A", LEVELS | {name: level})
    path = write(tmp_path, [[bad], [Nodule([square(20, 30)], "B", LEVELS)]])
    (note,) = read_lidc_roi(path, "1", image([0, 1])).notes
    assert note.startswith(f"{name} of nodule 'A' of reader 1 is '{level}', not 1 to")
    assert read_lidc(path).lesions[0].ratings == LEVELS | {name: None}
    assert read_lidc_roi(path, "2", image([0, 1])).n_readers == 1


def test_the_highest_documented_levels_are_accepted(tmp_path: Path) -> None:
    highest = {name: 4 if name == "internalStructure" else 6 if name == "calcification" else 5 for name in LEVELS}
    (lesion,) = read_lidc(write(tmp_path, [[Nodule([square(0, 10)], ratings=highest)]])).lesions
    assert lesion.ratings == highest
    assert not lesion.notes


# ------------------------------------------------------------------------------------------ small nodules


def test_single_points_are_listed_and_never_a_lesion(tmp_path: Path) -> None:
    point = Nodule([Roi(4, [(7, 9)])], "tiny")
    read = read_lidc(write(tmp_path, [[point], [point, Nodule([square(0, 10)])]]))
    assert read.small == ((4 * SPACING, 9.0, 7.0),) * 2
    assert [lesion.nodules for lesion in read.lesions] == [((1, "N"),)]
    with pytest.raises(InputError, match=r"no nodule is outlined \(1 marks of nodules < 3 mm, which have no mask\)"):
        read_lidc_roi(write(tmp_path, [[point]]), "1", image([4, 5]))


def test_a_lone_point_within_an_outlined_nodule_adds_nothing(tmp_path: Path) -> None:
    path = write(tmp_path, [[Nodule([square(0, 10), Roi(1, [(5, 5)])])]])
    assert read_lidc_roi(path, "1", image([0, 1])).voxels.shape == (1, 9, 9)


# --------------------------------------------------------------------------------------- which lesion


def test_a_blank_roi_means_the_only_lesion(tmp_path: Path) -> None:
    one = read_lidc(write(tmp_path, [[Nodule([square(0, 10)])]]))
    two = read_lidc(write(tmp_path, [[Nodule([square(0, 10)]), Nodule([square(20, 30)])]]))
    assert one.find(" ").number == 1
    assert two.find(" 2 ").number == 2
    for roi in ("", "0", "3", "-1", "1.0", "N", "²", "9" * 5000):
        with pytest.raises(InputError, match=r"the file has 2\. Do: give roi a number from 1 to 2"):
            two.find(roi)


# -------------------------------------------------------------------------------------------- placement


def test_slices_are_found_by_sop_uid_in_the_frames_own_order(tmp_path: Path) -> None:
    path = write(tmp_path, [[Nodule([square(0, 10, k=1), square(0, 6, k=2)])]])
    upwards = placed(path, "1", (4, 64, 64), image([0, 1, 2, 3]))
    assert upwards.sum(axis=(1, 2)).tolist() == [0, 81, 25, 0]
    assert upwards[1, 1:10, 1:10].all()
    head_first = image([3, 1, 0, 2], iop=(1, 0, 0, 0, -1, 0))  # n points down: slices run from the top
    assert placed(path, "1", (4, 64, 64), head_first).sum(axis=(1, 2)).tolist() == [0, 25, 81, 0]


def test_without_sop_uids_z_decides_and_it_is_told(tmp_path: Path) -> None:
    path = write(tmp_path, [[Nodule([square(0, 10, k=1, sop=None), square(0, 10, k=2, sop=None)])]])
    result = read_lidc_roi(path, "1", image([0, 1, 2]))
    assert result.corner == (1, 1, 1)
    assert result.notes == ("2 of 2 contour planes matched to slices by z, not by SOPInstanceUID",)


@pytest.mark.parametrize(("dz", "slice_index"), [(1.2, 1), (-1.2, 1), (1.3, 2), (-1.3, 0)])
def test_z_alone_means_the_nearest_slice(tmp_path: Path, dz: float, slice_index: int) -> None:
    path = write(tmp_path, [[Nodule([square(0, 10, sop=None, z=SPACING + dz)])]])
    assert read_lidc_roi(path, "1", image([0, 1, 2])).corner[0] == slice_index


def test_sop_uid_and_z_may_not_contradict_each_other(tmp_path: Path) -> None:
    for dz, fine in ((1.2, True), (1.3, False), (-1.3, False)):
        path = write(tmp_path, [[Nodule([square(0, 10, sop=sop_uid(1), z=SPACING + dz)])]])
        if fine:
            assert read_lidc_roi(path, "1", image([0, 1, 2])).corner[0] == 1
        else:
            with pytest.raises(InputError, match=r"image 1\.2\.3\.101 lies at z = 2\.5 mm, its contour at"):
                read_lidc_roi(path, "1", image([0, 1, 2]))


@pytest.mark.parametrize("iop", [(1, 0, 0, 0, 1, 0), (1, 0, 0, 0, -1, 0)])
@pytest.mark.parametrize("have", [[0, 1, 2, 4, 5], [1, 2, 4, 5, 6], [0, 1], [5, 6, 7]])
def test_a_missing_slice_is_named_with_its_distance(tmp_path: Path, have: list[int], iop: tuple[int, ...]) -> None:
    """In the middle of the stack (where it is half of the wide spacing away from both neighbours) and beyond it."""
    path = write(tmp_path, [[Nodule([square(0, 10, k=3)])]])
    away = min(abs(k - 3) for k in have) * SPACING
    with pytest.raises(InputError, match=rf"slices missing: at z = 7\.5 mm the nearest is {away:g} mm away"):
        read_lidc_roi(path, "1", image(have, iop=iop))
    nameless = write(tmp_path, [[Nodule([square(0, 10, k=3, sop=None)])]])
    with pytest.raises(InputError, match="slices missing"):
        read_lidc_roi(nameless, "1", image(have, iop=iop))


@pytest.mark.parametrize(("series", "sop"), [("1.9.9", "1.2.3.101"), ("", "9.9.9"), ("", None)])
def test_pixels_of_another_series_have_to_be_accepted(tmp_path: Path, series: str, sop: str | None) -> None:
    """That z agrees says nothing of rows and columns: another field of view, a volume that was cropped."""
    path = write(tmp_path, [[Nodule([square(0, 10, k=1, sop=sop)])]], series=series)
    here = image([0, 1, 2], sops=False)
    with pytest.raises(InputError, match=r"; z agrees, but what the outlines count are pixels") as refused:
        read_lidc_roi(path, "1", here)
    assert (refused.value.kind, "frame into the column accept" in refused.value.do) == ("frame", True)
    assert read_lidc_roi(path, "1", here, accept=FRAME).corner[0] == 1


def test_slices_that_only_a_minority_drew_on_may_be_missing(tmp_path: Path) -> None:
    short = Nodule([square(0, 10, k=1)])
    path = write(tmp_path, [[short], [short], [Nodule([square(0, 10, k=1), square(0, 10, k=2)])]])
    assert read_lidc_roi(path, "1", image([0, 1])).voxels.shape[0] == 1


def test_another_series_must_have_the_same_slices(tmp_path: Path) -> None:
    path = write(tmp_path, [[Nodule([square(0, 10, k=1)])]], series="1.9.9")
    same_images = read_lidc_roi(path, "1", image([0, 1, 2]))
    assert same_images.notes == ("drawn on series 1.9.9, whose slices are also this series'",)
    reexported = read_lidc_roi(path, "1", image([0, 1, 2], sops=False), accept=FRAME)
    assert len(reexported.notes) == 2
    moved = write(tmp_path, [[Nodule([square(0, 10, k=1, z=SPACING + 0.1)])]], series="1.9.9")
    with pytest.raises(
        InputError, match=r"drawn on series 1\.9\.9, not on 1\.2\.3; a contour is 0\.1 mm from any slice"
    ):
        read_lidc_roi(moved, "1", image([0, 1, 2], sops=False))


def test_two_planes_on_one_slice_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path, [[Nodule([square(0, 10, k=1), square(0, 10, sop=None, z=SPACING + 0.5)])]])
    with pytest.raises(InputError, match="two contour planes fall on one slice"):
        read_lidc_roi(path, "1", image([0, 1, 2]))


def test_paths_with_and_without_sop_uid_on_one_slice_belong_together(tmp_path: Path) -> None:
    path = write(tmp_path, [[Nodule([square(0, 10)])], [Nodule([square(0, 10, sop=None)])]])
    (lesion,) = read_lidc(path).lesions
    assert lesion.n_readers == 2


def test_two_images_at_one_z_are_two_planes(tmp_path: Path) -> None:
    path = write(tmp_path, [[Nodule([square(0, 10)])], [Nodule([square(0, 10, sop="9.9")])]])
    assert len(read_lidc(path).lesions) == 2


def test_one_image_at_two_z_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, [[Nodule([square(0, 10)])], [Nodule([square(0, 10, z=5)])]])
    lesions = read_lidc(path).lesions
    assert len(lesions) == 2
    for lesion in lesions:
        assert "image 1.2.3.100 is said to lie at z = 0 and at 5 mm" in lesion.problems[0]


def test_what_lies_outside_the_image_is_cut_off_and_told(tmp_path: Path) -> None:
    path = write(tmp_path, [[Nodule([square(-6, 5)])]])  # -5 … 4 each way: 5 of 10 rows and columns remain
    result = read_lidc_roi(path, "1", image([0, 1]))
    assert (result.corner, result.voxels.shape) == ((0, 0, 0), (1, 5, 5))
    assert result.notes == ("75.00% of its voxels lie outside the image",)
    assert read_lidc_roi(path, "1", image([0, 1], shape=(3, 64))).voxels.shape == (1, 3, 5)
    with pytest.raises(InputError, match="all of it lies outside the image of 20 rows and 30 columns"):
        read_lidc_roi(write(tmp_path, [[Nodule([square(30, 40)])]]), "1", image([0, 1], shape=(20, 30)))


def test_rows_are_y_and_columns_are_x(tmp_path: Path) -> None:
    path = write(tmp_path, [[Nodule([Roi(0, [(10, 2), (40, 2), (40, 5), (10, 5)])])]])
    result = read_lidc_roi(path, "1", image([0, 1], shape=(8, 50)))
    assert (result.corner, result.voxels.shape) == ((0, 3, 11), (1, 2, 29))


def test_a_slice_left_out_between_two_is_kept_so_and_told(tmp_path: Path) -> None:
    path = write(tmp_path, [[Nodule([square(0, 10, k=0), square(0, 10, k=2)])]])
    result = read_lidc_roi(path, "1", image([0, 1, 2]))
    assert result.voxels.any(axis=(1, 2)).tolist() == [True, False, True]
    assert result.notes == ("1 slices between its first and last are not in it",)


# ------------------------------------------------------------------------------------------------ files


@pytest.mark.parametrize("xmlns", ["", ' xmlns="http://www.nih.gov"', ' xmlns="urn:whatever"'])
def test_any_namespace_or_none_is_accepted(tmp_path: Path, xmlns: str) -> None:
    path = write(tmp_path, [[Nodule([square(0, 10)], ratings=LEVELS)]], xmlns=xmlns)
    assert read_lidc(path).lesions[0].ratings == LEVELS
    assert read_lidc(path).series_uid == "1.2.3"
    assert is_lidc(path)


def test_prefixed_namespace_and_utf16_are_accepted(tmp_path: Path) -> None:
    text = document([[Nodule([square(0, 10)])]], xmlns="").replace('version="1.0"', 'version="1.0" encoding="UTF-16"')
    prefixed = text.replace("<LidcReadMessage>", '<n:LidcReadMessage xmlns:n="u">').replace("</Lidc", "</n:Lidc")
    path = tmp_path / "utf16.xml"
    path.write_bytes(prefixed.encode("utf-16"))
    assert is_lidc(path)
    assert len(read_lidc(path).lesions) == 1


BOMB = '<!DOCTYPE a [<!ENTITY b "ha"><!ENTITY c "&b;&b;&b;&b;">]>'
EXTERNAL = '<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/hostname">]>'
DTD = '<!DOCTYPE a SYSTEM "http://localhost/lidc.dtd">'


@pytest.mark.parametrize("doctype", [BOMB, EXTERNAL, DTD])
def test_entities_and_dtds_are_refused(tmp_path: Path, doctype: str) -> None:
    text = document([[Nodule([square(0, 10)], "&b;")]]).replace("?>", "?>" + doctype, 1)
    path = tmp_path / "bomb.xml"
    path.write_text(text)
    with pytest.raises(InputError, match="declares a DTD or entities"):
        read_lidc(path)


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"", "not well-formed XML"),
        (b"\x00\x01\x02 not XML", "not well-formed XML"),
        (document([]).encode()[:-5], "not well-formed XML"),
        (b'<?xml version="1.0" encoding="shift-jis-9"?><LidcReadMessage/>', "not well-formed XML"),
        (b"<html><body/></html>", "the XML root is 'html', not LidcReadMessage"),
        (b"<LidcReadMessage/>", "no nodule is outlined"),
        (b"<IdriReadMessage><CXRreadingSession/></IdriReadMessage>", r"chest radiograph \(CXR\), not of CT"),
    ],
)
def test_files_that_are_not_ct_readings_are_refused_with_their_name(tmp_path: Path, content: bytes, found: str) -> None:
    path = tmp_path / "bad.xml"
    path.write_bytes(content)
    with pytest.raises(InputError, match=rf"bad\.xml: .*{found}"):
        read_lidc_roi(path, "1", image([0, 1]))


def test_missing_and_oversized_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no such file"):
        read_lidc(tmp_path / "none.xml")
    path = tmp_path / "large.xml"
    with path.open("wb") as file:
        file.truncate(50 * 2**20 + 1)
    with pytest.raises(InputError, match=r"the XML file has 50\.0 MB, more than 50"):
        read_lidc(path)


@pytest.mark.parametrize(
    ("roi", "found"),
    [
        (Roi(0, []), "an roi without edgeMap"),
        (Roi(0, [(1, 2), ("", 3)]), "xCoord '' is not a number"),  # type: ignore[list-item]
        (Roi(0, [(1, 2), (5, "nan")]), "yCoord 'nan' is not a number"),  # type: ignore[list-item]
        (Roi(0, [(1, 2), (5, 1e300)]), r"coordinate of 1e\+300 is no pixel index"),
        (square(0, 10, inclusion="maybe"), "inclusion 'MAYBE' is neither TRUE nor FALSE"),
        (square(0, 10, z="inf"), "imageZposition 'inf' is not a number"),
    ],
)
def test_garbled_paths_are_refused_naming_nodule_and_reader(tmp_path: Path, roi: Roi, found: str) -> None:
    path = write(tmp_path, [[], [Nodule([roi], "Q")]])
    with pytest.raises(InputError, match=rf"reads\.xml: nodule 'Q' of reader 2: .*{found}"):
        read_lidc(path)


def test_a_nodule_without_paths_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nodule 'N' of reader 1: no roi"):
        read_lidc(write(tmp_path, [[Nodule([])]]))


def test_outlines_that_would_fill_the_memory_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path, [[Nodule([square(0, 60000)])]])
    with pytest.raises(InputError, match="its outlines span 3600000000 px, more than 16777216"):
        read_lidc(path)


def test_deep_nesting_is_refused_before_it_is_built(tmp_path: Path) -> None:
    path = tmp_path / "deep.xml"
    path.write_text("<LidcReadMessage>" + "<a>" * 200_000)
    with pytest.raises(InputError, match=r"deep\.xml: XML elements are nested deeper than 32"):
        read_lidc(path)


def test_non_nodules_are_ignored(tmp_path: Path) -> None:
    mark = "<nonNodule><nonNoduleID>1</nonNoduleID><imageZposition>0</imageZposition></nonNodule>"
    path = write(tmp_path, [[Nodule([square(0, 10)])]])
    path.write_text(path.read_text().replace("<readingSession>", "<readingSession>" + mark))
    assert len(read_lidc(path).lesions) == 1
    assert read_lidc(path).small == ()


@settings(max_examples=300, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_damaged_files_are_read_or_refused_never_worse(tmp_path_factory: pytest.TempPathFactory, seed: int) -> None:
    rng = random.Random(seed)
    roi = square(0, 10)
    text = document([[Nodule([roi, square(2, 6, inclusion="FALSE")], "A", LEVELS)], [Nodule([Roi(1, [(3, 4)])])]])
    pieces = list(text)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(pieces))
        pieces[at : at + rng.choice([1, 5, 60])] = rng.choice(["", "<", "9e9", "é", "-", "</roi>", text[at : at + 99]])
    path = tmp_path_factory.mktemp("x") / "damaged.xml"
    path.write_text("".join(pieces), encoding="utf-8")
    try:
        read = read_lidc(path)
    except InputError:
        return
    for lesion in read.lesions:
        with contextlib.suppress(InputError):
            assert read.place(lesion, image([0, 1])).voxels.any()


# -------------------------------------------------------------------------------------------- real files


def xml_files() -> list[Path]:
    return sorted(DATA.glob("xml_variety/*.xml")) + sorted(DATA.glob("LIDC-IDRI-*/*.xml"))


def rasterised(nodule: LidcNodule) -> set[tuple[float, int, int]]:
    """A real outline: inside by scikit-image, without what shapely finds on the path."""
    inside: dict[float, set[tuple[int, int]]] = {}
    for drawn in sorted(nodule.paths, key=lambda drawn: not drawn.inclusion):
        points = drawn.points[:, ::-1]
        ring = shapely.LineString([*points, points[0]])
        low = np.floor(points.min(axis=0)).astype(int) - 1
        near = np.ones(np.ceil(np.ptp(points, axis=0)).astype(int) + 3, bool)
        pixels = np.argwhere(near) + low
        on_path = shapely.distance(ring, shapely.points(pixels)) <= 1e-6
        within = polygon2mask(near.shape, points - low).ravel() if len(points) > 2 else np.zeros(near.size, bool)
        mask = inside.setdefault(drawn.z, set())
        if drawn.inclusion:
            mask |= set(map(tuple, pixels[within & ~on_path].tolist()))
        else:
            mask -= set(map(tuple, pixels[within | on_path].tolist()))
    return {(z, row, column) for z, mask in inside.items() for row, column in mask}


@real
@pytest.mark.parametrize("path", xml_files(), ids=lambda path: path.stem)
def test_real_files_agree_with_scikit_image_and_plain_sets(path: Path) -> None:
    if b"CXRreadingSession" in path.read_bytes():
        with pytest.raises(InputError, match="chest radiograph"):
            read_lidc(path)
        return
    _, nodules = parse_lidc(path)
    groups = merge([(n.reader, n.name, rasterised(n)) for n in nodules if max(len(p.points) for p in n.paths) > 1])
    expected = []
    for group in groups:
        votes = Counter(voxel for _, _, mask in group for voxel in mask)
        mask = {voxel for voxel, n in votes.items() if 2 * n >= len(group)}
        expected.append((np.mean(list(mask), axis=0).tolist(), mask, len(group)))
    expected.sort(key=lambda lesion: lesion[0])
    read = read_lidc(path)
    assert voxels_of(path) == [mask for _, mask, _ in expected]
    assert [lesion.n_readers for lesion in read.lesions] == [n for _, _, n in expected]
    assert not any(doubts(lesion) for lesion in read.lesions)
    np.testing.assert_allclose([lesion.centroid for lesion in read.lesions] or [], [c for c, _, _ in expected])
    assert len(read.small) == sum(max(len(p.points) for p in n.paths) == 1 for n in nodules)


@real
@pytest.mark.parametrize("case", ["LIDC-IDRI-0001", "LIDC-IDRI-0003"])
def test_real_outlines_are_those_of_the_published_polygon_table(case: str) -> None:
    with (DATA / "polygon_csv_labels_dev_patients.csv").open(newline="") as file:
        table = [row for row in csv.DictReader(file) if row["patient_id"] == case]
    (path,) = (DATA / case).glob("*.xml")
    series_uid, nodules = parse_lidc(path)
    drawn = {(n.name, p.z): (p.points, n.ratings.get("malignancy")) for n in nodules if n.outlined for p in n.paths}
    assert table
    for row in table:
        points, malignancy = drawn[row["nodule_id"], float(row["z-slice"])]
        xs, ys = ast.literal_eval(row["xs"]), ast.literal_eval(row["ys"])
        assert points[:, 0].tolist() == (xs[:-1] if xs[0] == xs[-1] and ys[0] == ys[-1] else xs)
        assert points[:, 1].tolist() == (ys[:-1] if xs[0] == xs[-1] and ys[0] == ys[-1] else ys)
        assert (row["instance_uid"], row["malignancy"]) == (series_uid, malignancy)


@real
def test_the_first_case_has_the_one_lesion_that_all_four_readers_outlined() -> None:
    """As published with the collection: LIDC-IDRI-0001 has one nodule >= 3 mm, outlined by four readers."""
    from ctpatch.images.series import read_series

    folder = DATA / "LIDC-IDRI-0001"
    result = read_lidc_roi(folder / "069.xml", "", read_series(folder / "ct"))
    assert (result.n_readers, result.notes) == (4, ())
    (lesion,) = read_lidc(folder / "069.xml").lesions
    assert lesion.ratings["malignancy"] == 5  # 5, 5, 5, 4
    assert result.voxels.sum() == len(lesion.agreed(0.5))


@real
def test_lesions_of_a_partial_series_are_refused_unless_their_slices_are_there() -> None:
    from ctpatch.images.series import read_series

    folder = DATA / "LIDC-IDRI-0003"
    read, series = read_lidc(folder / "072.xml"), read_series(folder / "ct")
    assert [lesion.n_readers for lesion in read.lesions] == [1, 4, 4, 4]
    assert read.place(read.lesions[1], series).n_readers == 4
    for i in (0, 2, 3):
        with pytest.raises(InputError, match="of its slices missing"):
            read.place(read.lesions[i], series)
