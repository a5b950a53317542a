"""Whole-number resizing against `resize_bilinear`, and Pillow's memory against arrays."""

import numpy as np
import pytest
from PIL import Image

from runtime.errors import InputError
from runtime.pictures.resize import resize_bilinear
from runtime.pictures.resize_uint8 import resize_truncated

SIZES = [
    ((60, 80), (15, 20)),
    ((61, 83), (17, 29)),
    ((61, 83), (128, 97)),
    ((300, 400), (77, 102)),
    ((31, 17), (31, 40)),
    ((40, 90), (97, 13)),
    ((1, 1), (5, 3)),
    ((7, 5), (1, 1)),
    ((509, 1021), (211, 499)),
]


def truncated(image, size):
    """Exact values are multiples of 1 / (4 * height * width), far coarser than what is added here."""
    return (resize_bilinear(image, size) + 1e-9).astype(np.uint8)


@pytest.mark.parametrize(("source", "target"), SIZES)
@pytest.mark.parametrize("lowest", [0, 37])
def test_is_the_bilinear_resizer_truncated(source, target, lowest):
    image = np.random.default_rng(0).integers(lowest, 256, (*source, 3), dtype=np.uint8)
    result = resize_truncated(image, target)
    assert result.dtype == np.uint8
    np.testing.assert_array_equal(result, truncated(image, target))
    np.testing.assert_array_equal(resize_truncated(Image.fromarray(image), target), result)


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_any_number_of_channels(depth, monkeypatch):
    image = np.random.default_rng(1).integers(0, 256, (30, 41, depth), dtype=np.uint8)
    expected = truncated(image, (22, 57))
    np.testing.assert_array_equal(resize_truncated(image, (22, 57)), expected)
    monkeypatch.setattr("runtime.pictures.resize_uint8._STRIP_VALUES", 300)
    np.testing.assert_array_equal(resize_truncated(image, (22, 57)), expected)
    if depth == 1:
        np.testing.assert_array_equal(resize_truncated(Image.fromarray(image[:, :, 0]), (22, 57)), expected)


@pytest.mark.parametrize(
    ("source", "target"), [((1, 2_000_000), (1, 700_001)), ((3, 32_768), (2, 32_768)), ((2, 99), (2, 33_000))]
)
def test_long_axes(source, target):
    """Where Pillow's positions would drift, and just before."""
    image = np.random.default_rng(2).integers(0, 256, (*source, 3), dtype=np.uint8)
    np.testing.assert_array_equal(resize_truncated(Image.fromarray(image), target), truncated(image, target))


def test_a_flat_picture_stays_flat_when_enlarged():
    assert (resize_truncated(np.full((3, 5, 3), 200, np.uint8), (7, 11)) == 200).all()
    assert (resize_truncated(Image.new("L", (5, 3), 200), (7, 11)) == 200).all()


@pytest.mark.parametrize(
    ("image", "size"),
    [
        (np.zeros((4, 4), np.uint8), (2, 2)),
        (np.zeros((4, 4, 3)), (2, 2)),
        (np.zeros((0, 4, 3), np.uint8), (2, 2)),
        (np.zeros((4, 4, 3), np.uint8), (0, 2)),
    ],
)
def test_impossible_requests_are_refused(image, size):
    with pytest.raises(InputError):
        resize_truncated(image, size)
