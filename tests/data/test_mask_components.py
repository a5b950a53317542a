"""Connected regions and thick parts of bitmaps, against SciPy and slow loops."""

import numpy as np
import pytest
from scipy import ndimage

from maskrcnn.data.readers.mask_components import components, crops_by_value, label_regions, thick_part
from runtime.masks.paste import crop_of, place_crops


def scipy_regions(values):
    """The regions of `scipy.ndimage.label`, value by value, numbered by their first pixels."""
    found, count = np.zeros(values.shape, int), 0
    for value in np.unique(values[values != 0]):
        labels, more = ndimage.label(values == value)  # 4-connected
        found[labels > 0] = labels[labels > 0] + count
        count += more
    numbers = {}
    return np.array([number and numbers.setdefault(number, len(numbers) + 1) for number in found.ravel().tolist()])


@pytest.mark.parametrize("seed", range(8))
def test_regions_are_those_of_scipy(seed):
    rng = np.random.default_rng(seed)
    for _ in range(40):
        size = tuple(rng.integers(1, 30, 2))
        values = rng.integers(0, rng.integers(2, 6), size) * (rng.random(size) < rng.random())
        values = (values * rng.choice([1, 255, 70_001])).astype(np.int32)
        np.testing.assert_array_equal(label_regions(values).ravel(), scipy_regions(values))
        mask = values != 0
        labels, count = ndimage.label(mask)
        expected = np.reshape([labels == number for number in range(1, count + 1)], (count, *size))
        np.testing.assert_array_equal(place_crops(components(mask), size), expected)
        crops = crops_by_value(values)
        np.testing.assert_array_equal(list(crops), np.unique(values[mask]))
        for value, (pixels, origin) in crops.items():
            tight = crop_of(values == value)
            np.testing.assert_array_equal(pixels, tight[0])
            assert origin == tight[1]


SNAKE = np.zeros((201, 200), bool)
SNAKE[::2], SNAKE[1::4, -1], SNAKE[3::4, 0] = True, True, True
COMB = np.zeros((200, 201), bool)
COMB[:, ::2], COMB[-1] = True, True


@pytest.mark.parametrize(
    ("mask", "count"),
    [
        (SNAKE, 1),
        (SNAKE[::-1, ::-1], 1),
        (SNAKE.T, 1),
        (COMB, 1),
        (COMB[::-1], 1),
        (np.eye(9, dtype=bool), 9),  # pixels that touch at a corner only
        (np.indices((40, 40)).sum(0) % 2 == 0, 800),
        (np.ones((1, 1), bool), 1),
        (np.ones((5, 1), bool), 1),
        (np.zeros((3, 3), bool), 0),
        (np.zeros((0, 3), bool), 0),
    ],
)
def test_regions_of_awkward_masks(mask, count):
    assert len(components(mask)) == count
    assert label_regions(mask.astype(np.int32)).max(initial=0) == count


@pytest.mark.parametrize("side", [1, 2, 5])
def test_thick_parts_by_slow_squares(side):
    mask = np.random.default_rng(side).random((12, 9)) < 0.9
    expected = np.zeros_like(mask)
    for y in range(12 - side + 1):
        for x in range(9 - side + 1):
            if mask[y : y + side, x : x + side].all():
                expected[y : y + side, x : x + side] = True
    np.testing.assert_array_equal(thick_part(mask, side), expected)
    assert not thick_part(np.ones((4, 4), np.bool_), 5).any()
