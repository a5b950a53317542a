"""Conversion of outlines to masks: known areas, and outlines that are refused before C code gets them."""

import numpy as np
import pytest

from maskrcnn.data.readers.findings import RowError
from maskrcnn.data.readers.outlines import check_polygon, ellipse, mask_box, rasterize, rectangle
from runtime.masks.rle import area, decode


def mask_of(outline, size=(40, 60)):
    return decode(rasterize([outline], size)[0])


def test_a_rectangle_of_whole_numbers_is_exactly_its_pixels():
    mask = mask_of(rectangle(3, 5, 17, 9))
    assert mask[5:9, 3:17].all()
    assert mask.sum() == 4 * 14
    assert mask_box(rasterize([rectangle(3, 5, 17, 9)], (40, 60))[0]) == (3, 5, 17, 9)


@pytest.mark.parametrize(("radius", "side"), [(2.5, 20), (9, 40), (150, 400), (900, 2000)])
def test_a_circle_has_its_area(radius, side):
    mask = mask_of(ellipse(side / 2, side / 2, radius, radius), (side, side))
    assert mask.sum() == pytest.approx(np.pi * radius**2, rel=0.01, abs=4)


def test_an_ellipse_is_turned_from_x_to_y():
    mask = mask_of(ellipse(30, 20, 18, 3, np.pi / 4))
    ys, xs = np.nonzero(mask)
    assert mask.sum() == pytest.approx(np.pi * 18 * 3, rel=0.03)
    assert np.corrcoef(xs, ys)[0, 1] > 0.9  # rows and angles increase downward
    flat = np.argwhere(mask_of(ellipse(30, 20, 18, 3)))
    assert np.ptp(flat, axis=0).tolist() == [5, 35]


def test_overlapping_parts_are_counted_once():
    mask, overshoot = rasterize([rectangle(0, 0, 10, 10), rectangle(5, 5, 15, 15)], (40, 60))
    assert area(mask) == 175
    assert overshoot == 0


@pytest.mark.parametrize(
    ("outline", "overshoot", "pixels"),
    [
        (rectangle(-7, 0, 10, 10), 7, 100), (rectangle(55, 30, 64, 41), 4, 50), (rectangle(0, -2.5, 4, 50), 10, 160),
        (rectangle(-1, -1, 61, 41), 1, 2400), (rectangle(0, 0, 60, 40), 0, 2400), (rectangle(70, 0, 80, 10), 20, 0),
    ],
)  # fmt: skip
def test_outlines_are_cut_at_the_edges(outline, overshoot, pixels):
    mask, reached = rasterize([outline], (40, 60))
    assert reached == overshoot
    assert area(mask) == pixels


def test_a_picture_of_one_pixel():
    assert area(rasterize([rectangle(0, 0, 1, 1)], (1, 1))[0]) == 1


def test_points_may_be_one_side_away_and_no_more():
    check_polygon([-60, 0, 120, 0, 10, 10], (40, 60))
    for value in (-61, 121, 1e18):
        with pytest.raises(RowError, match=r"in an image of 60 x 40 pixels"):
            check_polygon([value, 0, 5, 0, 10, 10], (40, 60))


def test_no_polygon():
    with pytest.raises(RowError, match="no polygons"):
        rasterize([], (40, 60))
