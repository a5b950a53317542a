"""Backgrounds of the synthetic images."""

import numpy as np

from maskrcnn.data.synthetic.clutter import SPREAD, clutter


def test_backgrounds_stay_near_one_color():
    for seed in range(20):
        pixels = clutter(np.random.default_rng(seed), (97, 130))
        assert pixels.shape == (97, 130, 3)
        assert pixels.dtype == np.float32
        assert pixels.min() >= 0
        assert pixels.max() <= 255
        assert np.ptp(pixels, axis=(0, 1)).max() <= 2 * (SPREAD + 12) + 1
        assert pixels.std(axis=(0, 1)).max() > 2
