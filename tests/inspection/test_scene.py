"""Scenes: where boxes, masks and arrows are drawn on the image."""

import numpy as np
import pytest
from PIL import Image

from maskrcnn.inspection.scene import Scene, Shape, box_of, drawing_scale, scale_crop

RED, BLUE = (255, 0, 0), (0, 0, 255)


def scene(shapes, size=(600, 800), margin=0.0):
    return Scene("test", "Title", "Caption.", np.zeros((*size, 3), np.uint8), shapes, margin)


def pixels(each):
    return np.asarray(each.to_image())


def test_a_box_is_drawn_on_its_first_and_last_pixel():
    drawn = pixels(scene([Shape((100, 50, 300, 250), RED)]))
    assert drawn.shape == (600, 800, 3)
    ys, xs = np.nonzero((drawn == RED).all(axis=-1))
    assert (xs.min(), ys.min(), xs.max(), ys.max()) == (100, 50, 299, 249)
    assert not drawn[60:240, 110:290].any()


def test_a_dotted_box_has_gaps_on_every_side():
    drawn = (pixels(scene([Shape((100, 50, 300, 250), RED, dotted=True)])) == RED).all(axis=-1)
    for side in (drawn[50, 100:300], drawn[249, 100:300], drawn[50:250, 100], drawn[50:250, 299]):
        assert 0.3 < side.mean() < 0.75


def test_an_arrow_leads_from_center_to_center():
    drawn = (pixels(scene([Shape((100, 100, 200, 200), RED, target=(400, 100, 500, 200))])) == RED).all(axis=-1)
    assert drawn[150, 150:450].all()
    assert not drawn[150, 470:].any()


def test_no_line_crosses_a_label():
    labeled, crossing = Shape((100, 100, 300, 250), RED, label="person"), Shape((50, 20, 700, 93), BLUE)
    alone, both = pixels(scene([labeled])), pixels(scene([labeled, crossing]))
    ys, xs = np.nonzero((alone[:99] == RED).all(axis=-1))
    tag = slice(ys.min(), ys.max() + 1), slice(xs.min(), xs.max() + 1)
    assert tag[0].start < 92 < tag[0].stop  # where the other box has its lower side
    np.testing.assert_array_equal(both[tag], alone[tag])
    assert (both[92, 400] == BLUE).all()


def test_a_mask_is_tinted_where_it_is():
    mask = np.ones((40, 60), np.bool_), (200, 300)
    drawn = pixels(scene([Shape((300, 200, 360, 240), BLUE, mask=mask)]))
    assert (drawn[205:235, 305:355, 2] > 90).all()
    assert not drawn[:190].any()
    assert not drawn[250:].any()


def test_the_margin_shows_what_leaves_the_picture():
    drawn = pixels(scene([Shape((-30, -30, 60, 60), RED)], size=(600, 600), margin=0.1))
    assert drawn.shape == (720, 720, 3)
    ys, xs = np.nonzero((drawn == RED).all(axis=-1))
    assert (xs.min(), ys.min(), xs.max(), ys.max()) == (30, 30, 119, 119)


@pytest.mark.parametrize(
    ("size", "expected"), [((64, 48), 8.0), ((512, 300), 1.0), ((700, 900), 1.0), ((100, 4096), 0.25)]
)
def test_drawing_scale(size, expected):
    assert drawing_scale(size) == expected


@pytest.mark.parametrize("scale", [0.25, 0.5, 2.0, 3.0])
@pytest.mark.parametrize("origin", [(0, 0), (8, 20), (39, 52)])
def test_scale_crop_is_the_resized_mask(scale, origin):
    rng = np.random.default_rng(3)
    crop = np.kron(rng.random((4, 5)) > 0.4, np.ones((4, 4), np.bool_))  # blocks of 4, so that a quarter is exact
    whole = np.zeros((64, 80), np.bool_)
    y, x = (4 * (value // 4) for value in origin)
    whole[y : y + 16, x : x + 20] = crop
    size = round(64 * scale), round(80 * scale)
    expected = np.asarray(Image.fromarray(whole).resize(size[::-1], Image.Resampling.NEAREST))
    small, (top, left) = scale_crop((crop, (y, x)), scale, size)
    found = np.zeros(size, np.bool_)
    found[top : top + small.shape[0], left : left + small.shape[1]] = small
    np.testing.assert_array_equal(found, expected)


def test_an_empty_mask_stays_empty():
    empty, place = scale_crop((np.zeros((0, 0), np.bool_), (5, 5)), 0.5, (10, 10))
    assert (empty.size, place) == (0, (0, 0))


def test_notebooks_show_a_png():
    assert scene([])._repr_png_().startswith(b"\x89PNG")


def test_box_of():
    assert box_of(np.array([1, 2, 3, 4], np.int32)) == (1.0, 2.0, 3.0, 4.0)


@pytest.mark.parametrize(("scale", "expected"), [(0.5, [[0, 1], [1, 0]]), (2.0, None)])
def test_scale_crop_takes_the_middle_of_each_pixel(scale, expected):
    crop = np.zeros((4, 4), np.bool_)
    crop[1, 3] = crop[3, 1] = True  # what lies at 1.0 and 3.0 once halved
    small, _ = scale_crop((crop, (0, 0)), scale, (round(4 * scale),) * 2)
    np.testing.assert_array_equal(small, np.kron(crop, np.ones((2, 2))) if expected is None else expected)


@pytest.mark.parametrize("shape", [(1, 500), (500, 1), (1, 1)])
@pytest.mark.parametrize("place", [(0, 0), (2999, 2500), (1777, 999)])
def test_a_thin_mask_keeps_a_pixel(shape, place):
    small, (y, x) = scale_crop((np.ones(shape, np.bool_), place), 0.2, (600, 800))
    assert small.all()
    assert min(small.shape) == 1
    assert 0 <= y < y + small.shape[0] <= 600
    assert 0 <= x < x + small.shape[1] <= 800


def test_a_thin_mask_of_a_large_picture_is_drawn():
    from maskrcnn.inspection.html import _drawn

    thin = Shape((0, 5, 3000, 6), RED, mask=(np.ones((1, 3000), np.bool_), (5, 0)))
    each = scene([thin], size=(20, 3000))
    assert _drawn(each)[0].mask.startswith("data:image/png")
    assert each.to_image().width == 1024
