"""Parts and holes of a lesion: those that were drawn, not those that voxels make; sizes by counting."""

import numpy as np
import pytest
import shapely

from ctpatch.contours.roi import DrawnROI
from ctpatch.geometry import make_stack
from ctpatch.lesion.mask import lesion_mask
from ctpatch.report.shape import NEAR_MM, Part, holes, pieces, volume_mm3


def stack(spacing=(0.5, 0.5), step=2.0, slices=12, axes=None):
    axes = np.eye(3) if axes is None else np.asarray(axes, float)
    return make_stack(axes, np.arange(slices)[:, None] * step * axes[2], spacing, (120, 120))[0]


def drawn(of, *contours):
    """Contours as (slice, points as (column, row))."""
    rows, columns = of.spacing
    points = [
        of.origins[k] + np.asarray(path, float) @ (np.array([columns, rows])[:, None] * of.axes[:2])
        for k, path in contours
    ]
    return DrawnROI("1", tuple(points))


def box(left, top, right, bottom):
    return [(left, top), (right, top), (right, bottom), (left, bottom)]


def disk(column, row, radius):
    return np.asarray(shapely.Point(column, row).buffer(radius).exterior.coords)[:-1]


def shape(of, *contours):
    roi = drawn(of, *contours)
    mask = lesion_mask(roi, of)
    return pieces(mask, of), holes(mask, roi, of), mask


def test_a_neck_narrower_than_a_pixel_parts_nothing():
    of = stack()
    neck = [(10.5, 10.5), (30.5, 10.5), (30.5, 20.2), (36.5, 20.2), (36.5, 10.5), (56.5, 10.5), (56.5, 30.5)]
    neck += [(36.5, 30.5), (36.5, 20.4), (30.5, 20.4), (30.5, 30.5), (10.5, 30.5)]
    parts, _, mask = shape(of, (3, neck), (4, neck))
    assert not mask.voxels[:, :, 21:25].any()  # its voxels are two boxes 3 mm apart
    assert parts == ()


def test_a_tip_that_leans_by_45_degrees_is_no_part():
    of = stack(step=5.0)
    assert shape(of, (2, box(10, 10, 40, 40)), (3, box(49, 10, 60, 20)))[0] == ()  # 5 mm up and 5 aside
    (part,) = shape(of, (2, box(10, 10, 40, 40)), (3, box(54, 10, 65, 20)))[0]
    assert part.slices == (4, 4)


@pytest.mark.parametrize("gap", [4.0, 6.0])
def test_parts_are_apart_from_five_millimetres_on(gap):
    of = stack()
    far = 40.5 + gap / 0.5
    parts, _, _ = shape(of, (5, box(10.5, 10.5, 40.5, 40.5)), (5, box(far, 10.5, far + 8, 20.5)))
    assert [part.voxels for part in parts] == ([] if gap < NEAR_MM else [80])


def test_parts_near_what_is_near_are_one():
    of = stack()
    row = [(5, box(left, 10.5, left + 8, 30.5)) for left in (10.5, 26.5, 42.5, 58.5)]
    assert shape(of, *row)[0] == ()
    assert len(shape(of, row[0], *row[2:])[0]) == 1


SIDES = {"left": (1, 0, 0), "right": (-1, 0, 0), "back": (0, 1, 0), "front": (0, -1, 0)}


@pytest.mark.parametrize("side", SIDES)
def test_a_part_says_where_it_lies(side):
    of = stack(axes=[SIDES[side], np.cross((0, 0, 1), SIDES[side]), (0, 0, 1)])
    ((part,), _, _) = shape(of, *((k, box(10.5, 10.5, 30.5, 30.5)) for k in (4, 5)), (5, box(80.5, 10.5, 88.5, 18.5)))
    assert part == Part(64, 64 * 0.5, (6, 6), side)
    ((part,), _, _) = shape(of, *((k, box(10.5, 10.5, 30.5, 30.5)) for k in (1, 2)), (9, box(14.5, 10.5, 22.5, 18.5)))
    assert part.towards == "head"


def test_a_speck_is_no_part_of_a_large_lesion_but_of_a_small_one():
    of, speck = stack(), (5, box(80.5, 10.5, 83.5, 13.5))  # 9 voxels, 4.5 mm³
    assert shape(of, *((k, box(10.5, 10.5, 50.5, 50.5)) for k in (4, 5)), speck)[0] == ()
    assert len(shape(of, (5, box(10.5, 10.5, 25.5, 25.5)), speck)[0]) == 1


def test_a_cleft_narrower_than_a_pixel_is_no_hole_and_a_contour_in_another_is():
    of = stack()
    angle = np.linspace(0.01, 2 * np.pi - 0.01, 200)
    circle = lambda radius: 40 + radius * np.column_stack([np.cos(angle), np.sin(angle)])
    cleft = np.concatenate([circle(20), circle(10)[::-1]])  # all but closed: 0.3 pixels wide
    _, found, mask = shape(of, (3, cleft), (4, cleft))
    assert found == ()
    assert not mask.voxels[:, 19:21, 19:21].any()
    _, found, mask = shape(of, (3, disk(40, 40, 20)), (3, disk(40, 40, 10)), (4, disk(40, 40, 20)))
    (hole,) = found
    assert hole.slices == (4, 4)
    assert hole.voxels == pytest.approx(np.pi * 10**2, abs=20)
    assert hole.mm3 == pytest.approx(hole.voxels * 0.5)


def test_volume_counts_how_far_each_slice_reaches():
    uneven = make_stack(np.eye(3), [[0, 0, z] for z in (0, 2, 6, 8)], (0.5, 0.8), (60, 60))[0]
    mask = lesion_mask(drawn(uneven, *((k, box(9.5, 9.5, 11.5, 10.5)) for k in (1, 2, 3))), uneven)
    assert volume_mm3(mask, uneven) == pytest.approx(2 * 0.4 * (2 + 2 + 2))  # 4 mm is a gap
