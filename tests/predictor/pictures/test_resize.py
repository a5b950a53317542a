"""Bilinear resizing against a loop in float64, scipy, and what scikit-image 0.16.2 computed."""

import math

import numpy as np
import pytest

from runtime.errors import InputError
from runtime.pictures.resize import resize_bilinear

SIZES = [
    ((5, 7), (9, 4)),
    ((1, 1), (4, 3)),
    ((1, 6), (5, 1)),
    ((8, 8), (1, 1)),
    ((13, 2), (2, 13)),
    ((28, 28), (31, 57)),
    ((30, 50), (30, 50)),
    ((64, 48), (32, 96)),
]


def loop_resize(image, size):
    """Two-dimensional bilinear sampling at pixel centres, zeros outside, one pixel at a time."""
    height, width = image.shape
    result = np.zeros(size)
    for i in range(size[0]):
        for j in range(size[1]):
            y = (i + 0.5) * height / size[0] - 0.5
            x = (j + 0.5) * width / size[1] - 0.5
            for row in (math.floor(y), math.floor(y) + 1):
                for column in (math.floor(x), math.floor(x) + 1):
                    if 0 <= row < height and 0 <= column < width:
                        weight = (1 - abs(y - row)) * (1 - abs(x - column))
                        result[i, j] += weight * float(image[row, column])
    return np.clip(result, image.min(), image.max())


@pytest.mark.parametrize(("source", "target"), SIZES)
def test_equals_the_loop(source, target):
    image = np.random.default_rng(0).normal(size=source)
    np.testing.assert_allclose(resize_bilinear(image, target), loop_resize(image, target), atol=1e-13)


@pytest.mark.parametrize(("source", "target"), SIZES)
def test_equals_scipy(source, target):
    ndimage = pytest.importorskip("scipy.ndimage")
    image = np.random.default_rng(1).integers(0, 256, source).astype(np.float64)
    image.flat[0] = 0.0  # zero in range, so that clipping to the input's range does nothing
    zoom = [t / s for s, t in zip(source, target, strict=True)]
    expected = ndimage.zoom(image, zoom, order=1, mode="grid-constant", grid_mode=True)
    assert expected.shape == target
    np.testing.assert_allclose(resize_bilinear(image, target), expected, atol=1e-10)


def test_hand_computed_row():
    # Centres at -0.25, 0.25, 0.75, 1.25: the outer two mix with the zero outside.
    row = np.array([[0.0, 100.0]])
    np.testing.assert_array_equal(resize_bilinear(row, (1, 4)), [[0.0, 25.0, 75.0, 75.0]])


def test_values_are_clipped_to_the_range_of_the_picture():
    assert (resize_bilinear(np.full((3, 5), 200, np.uint8), (7, 11)) == 200).all()
    assert (resize_bilinear(np.full((3, 5), -4.0), (7, 11)) == -4).all()


def test_channels_are_independent_and_strips_do_not_show():
    image = np.random.default_rng(2).integers(0, 256, (300, 700, 4), dtype=np.uint8)
    image[0, 0] = 0
    image[0, 1] = 255
    resized = resize_bilinear(image, (451, 333))
    assert resized.shape == (451, 333, 4)
    assert resized.dtype == np.float64
    for channel in range(4):
        np.testing.assert_array_equal(resized[:, :, channel], resize_bilinear(image[:, :, channel], (451, 333)))
    ndimage = pytest.importorskip("scipy.ndimage")
    expected = ndimage.zoom(
        image[:, :, 2].astype(float), (451 / 300, 333 / 700), order=1, mode="grid-constant", grid_mode=True
    )
    np.testing.assert_allclose(resized[:, :, 2], expected, atol=1e-9)


def test_same_size_changes_nothing():
    image = np.random.default_rng(3).integers(0, 256, (17, 23, 3), dtype=np.uint8)
    np.testing.assert_array_equal(resize_bilinear(image, (17, 23)), image)


@pytest.mark.parametrize(
    ("shape", "size"), [((4,), (2, 2)), ((0, 4), (2, 2)), ((4, 4), (0, 2)), ((4, 4, 3, 1), (2, 2))]
)
def test_impossible_requests_are_refused(shape, size):
    with pytest.raises(InputError):
        resize_bilinear(np.zeros(shape), size)
