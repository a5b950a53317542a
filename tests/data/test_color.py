"""Color augmentation against the formulas in float64, with given random strengths."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from maskrcnn.configuration.training import AugmentationConfig
from maskrcnn.data.color import change_colors, mean_color


class Drawn:
    """A generator whose uniform numbers are at a given fraction between low and high."""

    def __init__(self, share):
        self.share = share

    def uniform(self, low, high):
        return low + (high - low) * self.share

    def standard_normal(self, shape, dtype):
        return np.random.default_rng(0).standard_normal(shape, dtype)


def picture(channels=3, size=(33, 47), low=0, high=256):
    return np.random.default_rng(1).integers(low, high, (*size, channels), np.uint8)


def expected(values):
    return np.clip(np.rint(values), 0, 255)


def check(found, values, image):
    """Equal to the formula, except for values that float32 rounds across a half."""
    assert found.dtype == np.uint8
    assert found.shape == image.shape
    difference = np.abs(found - expected(values))
    assert difference.max() <= 1
    assert difference.mean() < 0.001


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5, 6])
@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_brightness_multiplies(channels, share):
    image = picture(channels)
    found = change_colors(image, AugmentationConfig(brightness=0.4), Drawn(share))
    check(found, image * (0.6 + 0.8 * share), image)


@pytest.mark.parametrize("channels", [1, 3, 6])
@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_contrast_scales_the_distance_to_the_mean(channels, share):
    image = picture(channels)
    image[:, :, 0] //= 3  # every channel has a mean of its own
    mean = image.reshape(-1, channels).astype(np.float64).mean(axis=0)
    found = change_colors(image, AugmentationConfig(contrast=0.5), Drawn(share))
    check(found, mean + (image - mean) * (0.5 + share), image)


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_saturation_scales_the_distance_to_gray(share):
    image = picture()
    gray = 0.299 * image[:, :, :1] + 0.587 * image[:, :, 1:2] + 0.114 * image[:, :, 2:]
    found = change_colors(image, AugmentationConfig(saturation=0.5), Drawn(share))
    check(found, gray + (image - gray) * (0.5 + share), image)


@pytest.mark.parametrize("channels", [1, 2, 4, 6])
def test_saturation_is_for_three_channels_only(channels):
    image = picture(channels)
    assert change_colors(image, AugmentationConfig(saturation=0.9), Drawn(0.0)) is image


def test_the_changes_follow_each_other_without_rounding_or_clipping():
    image = picture()
    found = change_colors(image, AugmentationConfig(brightness=0.4, contrast=0.5, saturation=0.5), Drawn(0.9))
    values = image * 1.32
    values = values.mean(axis=(0, 1)) + (values - values.mean(axis=(0, 1))) * 1.4
    gray = values @ [0.299, 0.587, 0.114]
    check(found, gray[:, :, None] + (values - gray[:, :, None]) * 1.4, image)


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 6])
@pytest.mark.parametrize("share", [0.25, 1.0])
def test_blur_is_gaussian(channels, share):
    image = picture(channels, (40, 53))
    found = change_colors(image, AugmentationConfig(blur=2.0), Drawn(share))
    oracle = gaussian_filter(image.astype(np.float64), (2 * share, 2 * share, 0), mode="nearest")
    # Pillow adds boxes up instead of a bell; unblurred noise is 73 gray levels away from its blur on average.
    assert np.abs(found - oracle).mean() < (2 if share == 1 else 8)
    assert found.dtype == np.uint8


def test_blur_of_a_flat_picture_does_nothing():
    image = np.full((20, 30, 3), 77, np.uint8)
    assert (change_colors(image, AugmentationConfig(blur=5.0), Drawn(1.0)) == 77).all()


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_noise_has_the_drawn_deviation(share):
    image = np.full((200, 150, 3), 120, np.uint8)
    found = change_colors(image, AugmentationConfig(noise=12.0), Drawn(share)).astype(np.float64)
    # Rounding to whole levels adds a variance of 1 / 12.
    assert found.std() == pytest.approx(np.sqrt((12 * share) ** 2 + (share > 0) / 12), abs=0.1)
    assert found.mean() == pytest.approx(120, abs=0.1)
    if share:
        assert np.abs(np.corrcoef(found.reshape(-1, 3).T) - np.eye(3)).max() < 0.03


def test_values_stay_within_bytes():
    image = picture()
    config = AugmentationConfig(brightness=0.9, contrast=0.9, saturation=0.9, noise=80.0)
    for share in (0.0, 1.0):
        found = change_colors(image, config, Drawn(share))
        assert found.dtype == np.uint8
    # Brighter white stays white and does not wrap around to black.
    white = np.full((5, 5, 3), 255, np.uint8)
    assert (change_colors(white, AugmentationConfig(brightness=0.9), Drawn(1.0)) == 255).all()


def test_strengths_are_drawn_evenly():
    image = np.full((1, 1, 1), 100, np.uint8)
    rng = np.random.default_rng(0)
    found = [int(change_colors(image, AugmentationConfig(brightness=0.2), rng)[0, 0, 0]) for _ in range(2000)]
    assert (min(found), max(found)) == (80, 120)
    assert np.mean(found) == pytest.approx(100, abs=1)
    assert np.std(found) == pytest.approx(40 / np.sqrt(12), abs=0.5)


def test_the_picture_is_not_changed():
    image = picture()
    before = image.copy()
    change_colors(image, AugmentationConfig(0, 0, 0, (1, 1), 0.3, 0.3, 0.3, 2.0, 9.0), Drawn(0.9))
    assert np.array_equal(image, before)


def test_views_are_taken():
    image = picture()[::-1, ::-1].swapaxes(0, 1)
    config = AugmentationConfig(0, 0, 0, (1, 1), 0.3, 0.3, 0.3, 2.0, 9.0)
    assert np.array_equal(
        change_colors(image, config, Drawn(0.9)), change_colors(np.ascontiguousarray(image), config, Drawn(0.9))
    )


@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 70001, 2), (517, 233, 3)])
def test_mean_color(shape):
    image = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    exact = image.reshape(-1, shape[2]).astype(np.float64).mean(axis=0)
    np.testing.assert_allclose(mean_color(image), exact, rtol=1e-6)
    np.testing.assert_allclose(mean_color(image.astype(np.float32)), exact, rtol=1e-6)
