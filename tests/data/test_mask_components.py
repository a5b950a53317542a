"""Connected regions and thick parts of bitmaps, against slow loops."""

import numpy as np
import pytest

from maskrcnn.data.readers.mask_components import components, thick_part


def test_components_by_a_slow_flood():
    rng = np.random.default_rng(8)
    for density in (0.3, 0.55, 0.7):
        mask = rng.random((17, 23)) < density
        left, parts = mask.copy(), []
        while left.any():
            stack, part = [tuple(np.argwhere(left)[0])], np.zeros_like(mask)
            while stack:
                y, x = stack.pop()
                if 0 <= y < 17 and 0 <= x < 23 and left[y, x]:
                    left[y, x], part[y, x] = False, True
                    stack += [(y + 1, x), (y - 1, x), (y, x + 1), (y, x - 1)]
            parts.append(part)
        np.testing.assert_array_equal(components(mask), parts)
    assert components(np.zeros((3, 3), np.bool_)) == []


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
