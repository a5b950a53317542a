"""Anchors against a typed grid, float64 loops and the genuine generator; equal to the bit."""

import json

import golden
import numpy as np
import oracles
import pytest
import tensorflow as tf

from maskrcnn.anchors import level_anchors

GOLDEN = golden.load("boxes_seed0")


def pyramid_anchors(*arguments, **rules):
    return tf.concat(level_anchors(*arguments, **rules), axis=0)


def normalized(pixels, image_size):
    """Pixel anchors as the network sees them: computed in float64, rounded once."""
    height, width = image_size[0] - 1, image_size[1] - 1
    return ((pixels - [0, 0, 1, 1]) / [height, width, height, width]).astype(np.float32)


def test_typed_grid_of_two_by_three_cells():
    anchors = pyramid_anchors(tf.constant([128, 192]), [64], [32], [0.25, 4])
    # Ratio 0.25 is 64 high and 16 wide, ratio 4 is 16 high and 64 wide; centers are the cells' corners.
    pixels = [
        [-32, -8, 32, 8], [-8, -32, 8, 32],
        [-32, 56, 32, 72], [-8, 32, 8, 96],
        [-32, 120, 32, 136], [-8, 96, 8, 160],
        [32, -8, 96, 8], [56, -32, 72, 32],
        [32, 56, 96, 72], [56, 32, 72, 96],
        [32, 120, 96, 136], [56, 96, 72, 160],
    ]  # fmt: skip
    assert np.array_equal(anchors, normalized(np.array(pixels, np.float64), (128, 192)))


@pytest.mark.parametrize("case", [0, 1, 2])
def test_anchors_are_matterports(case):
    arguments = json.loads(str(GOLDEN[f"anchors{case}_args_json"]))
    strides = arguments["feature_strides"]
    image_size = [cells * strides[0] for cells in arguments["feature_shapes"][0]]
    anchors = pyramid_anchors(
        tf.constant(image_size),
        strides,
        arguments["scales"],
        arguments["ratios"],
        arguments["anchor_stride"],
    ).numpy()
    assert list(anchors.shape) == GOLDEN[f"anchors{case}_shape"].tolist()
    step = int(GOLDEN[f"anchors{case}_stride"])
    assert np.array_equal(anchors[::step], normalized(GOLDEN[f"anchors{case}"], image_size))
    height, width = image_size[0] - 1, image_size[1] - 1
    pixels = anchors.astype(np.float64) * [height, width, height, width] + [0, 0, 1, 1]
    mean = GOLDEN[f"anchors{case}_colsum"] / len(anchors)
    np.testing.assert_allclose(pixels.mean(axis=0), mean, rtol=0, atol=1e-5)


@pytest.mark.parametrize("anchor_stride", [1, 2])
@pytest.mark.parametrize("image_size", [(64, 128), (192, 64), (65, 131), (320, 512)])
def test_anchors_are_the_oracles(image_size, anchor_stride):
    strides, scales, ratios = (4, 8, 16, 32, 64), (32, 64, 128, 256, 512), (0.5, 1, 2)
    anchors = pyramid_anchors(tf.constant(image_size), strides, scales, ratios, anchor_stride)
    expected = oracles.pyramid_anchors(image_size, strides, scales, ratios, anchor_stride)
    assert np.array_equal(anchors, normalized(expected, image_size))


def test_counts_of_the_published_sizes():
    for side, count in ((1024, 261_888), (512, 65_472), (128, 4_092)):
        anchors = pyramid_anchors(tf.constant([side, side]), (4, 8, 16, 32, 64), (1, 2, 3, 4, 5), (0.5, 1, 2))
        assert anchors.shape == (count, 4)


def test_every_level_has_one_scale():
    with pytest.raises(ValueError, match="zip"):
        pyramid_anchors(tf.constant([64, 64]), (4, 8), (32,), (1,))
