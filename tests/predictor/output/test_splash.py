"""Color splash: the color of masked pixels is the picture's own, everything else is gray."""

import numpy as np
import pytest
from PIL import Image

from runtime.detections import Detections
from runtime.errors import ImageError, InputError
from runtime.output.splash import color_splash, splash_crops

NAMES = ("BG", "thing")


def noise(height, width):
    return np.random.default_rng(5).integers(0, 256, (height, width, 3), np.uint8)


def make(size, boxes):
    count = len(boxes)
    return Detections(
        np.array(boxes, np.float32).reshape(count, 4),
        np.full(count, 0.9, np.float32),
        np.ones(count, np.int32),
        np.ones((count, 28, 28), np.float32),
        size,
        NAMES,
        "aligned",
    )


def gray_of(pixels):
    """ITU-R 601, as a loop in float."""
    return np.array([[0.299 * r + 0.587 * g + 0.114 * b for r, g, b in row] for row in pixels.astype(float)])


def test_color_is_kept_in_masks_alone():
    pixels = noise(37, 53)
    before = pixels.copy()
    found = make((37, 53), [(5, 6, 20, 30), (15, 20, 53, 37), (-4, -4, 3, 3)])
    result = np.asarray(found.splash(pixels))
    inside = np.zeros((37, 53), bool)
    inside[6:30, 5:20] = inside[20:37, 15:53] = inside[:3, :3] = True
    np.testing.assert_array_equal(found.masks.any(axis=0), inside)
    np.testing.assert_array_equal(result[inside], pixels[inside])
    assert np.abs(result[~inside] - gray_of(pixels)[~inside][:, None]).max() <= 1
    assert (result[~inside] == result[~inside][:, :1]).all()
    np.testing.assert_array_equal(pixels, before)


def test_nothing_found_is_all_gray(tmp_path):
    Image.fromarray(noise(9, 7)).save(tmp_path / "a.png")
    result = np.asarray(color_splash(tmp_path / "a.png", make((9, 7), [])))
    assert result.shape == (9, 7, 3)
    assert np.ptp(result, axis=2).max() == 0


def test_a_mask_over_the_whole_picture_changes_nothing():
    pixels = noise(8, 8)
    np.testing.assert_array_equal(np.asarray(splash_crops(pixels, [(np.ones((8, 8), bool), (0, 0))])), pixels)


def test_another_picture_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"8 x 9 pixels.*9 x 8"):
        color_splash(noise(8, 9), make((9, 8), []))
    with pytest.raises(ImageError, match="nowhere"):
        color_splash(tmp_path / "nowhere.png", make((9, 8), []))
