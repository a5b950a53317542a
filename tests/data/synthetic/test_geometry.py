"""Outlines of the synthetic shapes: areas, radii, corners, coverage."""

import numpy as np
import pytest

from maskrcnn.data.synthetic.geometry import CIRCLE, SQUARE, TRIANGLE, Shape, draw_shape

SIDE = 60.0


def turned(class_id, seed):
    """A shape of 60 pixels, and the positions (y, x) of pixels inside and outside, relative to its center of mass."""
    center = np.array([50.3, 41.8])
    shape = draw_shape(class_id, SIDE, center, np.random.default_rng(seed))
    inside, outside = (np.argwhere(part) + shape.origin + 0.5 - center for part in (shape.inside, ~shape.inside))
    return shape, inside, outside


@pytest.mark.parametrize("seed", range(6))
def test_a_square_has_its_area_inner_and_outer_radius(seed):
    shape, inside, outside = turned(SQUARE, seed)
    assert shape.inside.sum() == pytest.approx(SIDE**2, rel=0.02)
    assert np.hypot(*inside.T).max() == pytest.approx(SIDE / 2**0.5, abs=1)
    assert np.hypot(*outside.T).min() == pytest.approx(SIDE / 2, abs=1)


def test_a_circle_is_all_pixels_within_its_radius():
    shape, inside, outside = turned(CIRCLE, 0)
    assert shape.inside.sum() == pytest.approx(np.pi * SIDE**2 / 4, rel=0.02)
    assert (np.hypot(*inside.T) < SIDE / 2 + 1e-5).all()
    assert (np.hypot(*outside.T) > SIDE / 2 - 1e-5).all()


@pytest.mark.parametrize("seed", range(6))
def test_a_triangle_has_three_corners_around_its_center_of_mass(seed):
    shape, inside, outside = turned(TRIANGLE, seed)
    height = 2 * shape.inside.sum() / SIDE
    assert 0.74 * SIDE < height < 1.12 * SIDE
    np.testing.assert_allclose(inside.mean(axis=0), 0, atol=0.3)
    # Distances of the nearest edge and of the farthest corner from there.
    nearest = min(height / 3, height * SIDE / 3 / np.hypot(height, SIDE / 2))
    assert np.hypot(*outside.T).min() == pytest.approx(nearest, abs=1)
    assert np.hypot(*inside.T).max() == pytest.approx(max(2 * height / 3, np.hypot(height / 3, SIDE / 2)), abs=2.5)


def test_half_of_the_shapes_are_upright():
    upright = 0
    for seed in range(300):
        inside = turned(SQUARE, seed)[0].inside
        upright += np.count_nonzero(inside) == np.prod([np.ptp(axis) + 1 for axis in np.nonzero(inside)])
    assert 120 < upright < 180


@pytest.mark.parametrize("class_id", [SQUARE, CIRCLE, TRIANGLE])
def test_coverage_is_the_share_of_the_pixel(class_id):
    shape, _, _ = turned(class_id, 3)
    assert shape.coverage.dtype == np.float32
    assert shape.coverage.sum() == pytest.approx(shape.inside.sum(), rel=0.02)
    assert np.array_equal(shape.coverage > 0.5, shape.inside)
    assert not shape.coverage[[0, -1]].any()
    assert not shape.coverage[:, [0, -1]].any()


@pytest.mark.parametrize("origin", [(-3, 2), (4, -2), (5, 6), (-1, -1), (-20, 3), (3, 40)])
def test_clipping_keeps_what_is_in_the_picture(origin):
    rng = np.random.default_rng(0)
    inside = rng.random((6, 5)) < 0.5
    shape = Shape(inside.astype(np.float32), inside, origin).clip((9, 8))
    found = np.zeros((9, 8), bool)
    found[shape.window] = shape.inside
    canvas = np.zeros((100, 100), bool)
    canvas[30 + origin[0] :, 30 + origin[1] :][:6, :5] = inside
    assert np.array_equal(found, canvas[30:39, 30:38])
    assert shape.coverage.shape == shape.inside.shape
