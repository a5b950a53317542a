"""ROIAlign over the pyramid against float64 loops and the genuine `PyramidROIAlign`."""

import golden
import numpy as np
import oracles
import pytest
import tensorflow as tf

from maskrcnn import roi_align
from maskrcnn.configuration.model import ModelConfig

GOLDEN = golden.load("roialign_seed0")
SHAPES = ("1024", "rect")

# Rows of batch 0 that are not compared with the genuine result. 4 and 5 overrun the image, which never
# happens to a clipped box. 12 to 15 end exactly on its far border, where rounding decides whether the genuine code
# interpolates their last sample or takes 0 for it; ours is clamped, and compared with the oracle instead.
OVERRUNNING = (4, 5)
ON_FAR_BORDER = (12, 13, 14, 15)

# A sample's position is rounded in atlas coordinates, which reach about 200 here: some 5e-5 cells, times a slope of
# up to about 5 per cell between neighboring random values. The largest difference seen is 7e-5.
TOLERANCE = 1e-4

IMAGE_SIZE = (192, 320)
SPECIAL_BOXES = {
    "whole image": [0, 0, 1, 1],
    "inside": [0.2, 0.3, 0.7, 0.9],
    "top": [0, 0.3, 0.4, 0.6],
    "left": [0.3, 0, 0.6, 0.4],
    "bottom": [0.35, 0.3, 1, 0.6],
    "right": [0.3, 0.37, 0.6, 1],
    "bottom right": [0.61, 0.7, 1, 1],
    "tiny": [0.5, 0.5, 0.5005, 0.5005],
    "tiny at the far corner": [0.9995, 0.9995, 1, 1],
    "point": [0.3, 0.6, 0.3, 0.6],
    "point at the origin": [0, 0, 0, 0],
    "point at the far corner": [1, 1, 1, 1],
    "line": [0.25, 0.1, 0.25, 0.9],
    "column at the far border": [0.1, 1, 0.9, 1],
    "wide": [0.4, 0, 0.45, 1],
    "tall": [0, 0.9, 1, 0.95],
}


def random_features(image_size, channels, batch=1, seed=0):
    generator = np.random.default_rng(seed)
    return [
        generator.normal(size=(batch, image_size[0] // s, image_size[1] // s, channels)).astype(np.float32)
        for s in (4, 8, 16, 32)
    ]


def align(features, boxes, image_size, pool_size, sampling):
    """Crops [B, N, P, P, C]."""
    boxes = np.asarray(boxes, np.float32)
    crops = roi_align.pyramid_roi_align(
        roi_align.build_atlas([tf.constant(f) for f in features]),
        tf.constant(boxes),
        tf.constant(image_size),
        pool_size,
        ModelConfig(roi_sampling=sampling),
    ).numpy()
    return crops.reshape(*boxes.shape[:2], *crops.shape[1:])


def oracle_crop(features, image, box, image_size, pool_size, sampling):
    feature = features[oracles.level(box, image_size) - 2][image]
    if sampling == "crop_and_resize":
        return oracles.crop_corners_aligned(feature, box, pool_size)
    return oracles.roi_align(feature, box, image_size, pool_size)


def golden_case(shape):
    features = [GOLDEN[f"roialign_{shape}_P{level}"] for level in (2, 3, 4, 5)]
    image_size = tuple(GOLDEN[f"roialign_{shape}_meta"][0, 4:6].astype(int).tolist())
    return features, GOLDEN[f"roialign_{shape}_boxes"], image_size


@pytest.mark.parametrize("shape", SHAPES)
def test_levels_are_matterports(shape):
    _, boxes, image_size = golden_case(shape)
    levels = roi_align.assign_levels(tf.constant(boxes), tf.constant(image_size)).numpy()
    assert np.array_equal(levels, GOLDEN[f"roialign_{shape}_level"])
    assert set(levels.ravel()) == {2, 3, 4, 5}


@pytest.mark.parametrize(
    ("side", "level"),
    [(1, 2), (79, 2), (80, 3), (158, 3), (159, 4), (224, 4), (316, 4), (317, 5), (1000, 5)],
)
def test_levels_change_where_the_rounded_rule_says(side, level):
    for height, width in ((1024, 1024), (1024, 2048)):
        box = [0, 0, side / height, side / width]
        levels = roi_align.assign_levels(tf.constant(box, tf.float32), tf.constant([height, width]))
        assert levels.numpy() == level == oracles.level(box, (height, width))


def test_boxes_without_area_lie_on_p2():
    boxes = tf.constant([[0.5, 0.5, 0.5, 0.5], [0.0, 0, 0, 0], [0.2, 0.0, 0.2, 1.0], [1.0, 1, 1, 1]])
    assert roi_align.assign_levels(boxes, tf.constant([1024, 1024])).numpy().tolist() == [2, 2, 2, 2]


@pytest.mark.parametrize("pool_size", [7, 14])
@pytest.mark.parametrize("shape", SHAPES)
def test_crop_and_resize_is_matterports(shape, pool_size):
    features, boxes, image_size = golden_case(shape)
    crops = align(features, boxes, image_size, pool_size, "crop_and_resize")
    compared = np.ones(boxes.shape[:2], bool)
    compared[0, [*OVERRUNNING, *ON_FAR_BORDER]] = False
    assert compared.sum() == 42
    expected = GOLDEN[f"roialign_{shape}_pool{pool_size}"]
    np.testing.assert_allclose(crops[compared], expected[compared], rtol=0, atol=TOLERANCE)
    for row in ON_FAR_BORDER:
        clamped = oracle_crop(features, 0, boxes[0, row], image_size, pool_size, "crop_and_resize")
        np.testing.assert_allclose(crops[0, row], clamped, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("sampling", ["crop_and_resize", "roi_align"])
@pytest.mark.parametrize("pool_size", [7, 14])
def test_special_boxes_are_the_oracles(sampling, pool_size):
    features = random_features(IMAGE_SIZE, 2)
    boxes = list(SPECIAL_BOXES.values())
    crops = align(features, [boxes], IMAGE_SIZE, pool_size, sampling)[0]
    for name, box, crop in zip(SPECIAL_BOXES, boxes, crops, strict=True):
        expected = oracle_crop(features, 0, np.float32(box), IMAGE_SIZE, pool_size, sampling)
        np.testing.assert_allclose(crop, expected, rtol=0, atol=TOLERANCE, err_msg=name)


@pytest.mark.parametrize("sampling", ["crop_and_resize", "roi_align"])
@pytest.mark.parametrize("image_size", [(64, 64), (64, 448), (512, 128), (320, 512)])
def test_random_boxes_are_the_oracles(sampling, image_size):
    features = random_features(image_size, 1, batch=2, seed=1)
    generator = np.random.default_rng(2)
    first, second = generator.random((2, 2, 20, 2))
    boxes = np.concatenate([np.minimum(first, second), np.maximum(first, second)], axis=-1).astype(np.float32)
    crops = align(features, boxes, image_size, 3, sampling)
    for image in range(2):
        for box, crop in zip(boxes[image], crops[image], strict=True):
            expected = oracle_crop(features, image, box, image_size, 3, sampling)
            np.testing.assert_allclose(crop, expected, rtol=0, atol=TOLERANCE)


def test_a_worked_example_of_half_pixel_sampling():
    # Pixels 0..16 of both axes on stride 4 are cells 0..4: with one bin of 2 x 2 samples they lie at 1 and 3
    # from the edge, between cell centers: the mean of cells 0 to 3 and of rows 0 to 3.
    feature = np.arange(16 * 16, dtype=np.float32).reshape(1, 16, 16, 1)
    features = [feature, *random_features((64, 64), 1)[1:]]
    box = [0, 0, 15 / 63, 15 / 63]
    crops = align(features, [[box]], (64, 64), 1, "roi_align")
    assert crops.item() == pytest.approx(feature[0, :4, :4].mean(), abs=1e-4)


@pytest.mark.parametrize("sampling", ["crop_and_resize", "roi_align"])
def test_no_sample_leaves_its_level(sampling):
    # Levels are constant, each with its own value: anything else is a neighbor in the atlas, or the 0 outside.
    features = [np.full_like(f, 10.0**i) for i, f in enumerate(random_features((320, 512), 1))]
    generator = np.random.default_rng(3)
    low = generator.random((2000, 2)) ** 2
    high = 1 - generator.random((2000, 2)) ** 2 * (1 - low)
    low[::3, 0], low[::4, 1], high[::2, 0], high[::5, 1] = 0, 0, 1, 1
    boxes = np.concatenate([low, high], axis=-1).astype(np.float32)
    boxes[-3:] = [[0, 0, 1, 1], [1, 1, 1, 1], [0, 0, 0, 0]]
    crops = align(features, boxes[None], (320, 512), 7, sampling)[0]
    levels = np.array([oracles.level(box, (320, 512)) for box in boxes])
    assert set(levels) == {2, 3, 4, 5}
    expected = np.broadcast_to(10.0 ** (levels - 2)[:, None, None, None], crops.shape)
    np.testing.assert_allclose(crops, expected, rtol=1e-6)


@pytest.mark.parametrize(
    "image_size", [(64, 64), (128, 64), (64, 192), (320, 512), (32, 32), (64, 32), (32, 96), (96, 160), (352, 32)]
)
def test_atlas_holds_every_level_and_its_repeated_edge(image_size):
    features = random_features(image_size, 2, seed=4)
    canvas, places = roi_align.build_atlas([tf.constant(f) for f in features], narrow=32 in image_size)
    for feature, (row, column, height, width) in zip(features, places.numpy(), strict=True):
        assert (height, width) == feature.shape[1:3]
        found = canvas.numpy()[:, row - 1 : row + height + 1, column - 1 : column + width + 1]
        assert np.array_equal(found, np.pad(feature, [(0, 0), (1, 1), (1, 1), (0, 0)], mode="edge"))


def test_gradient_reaches_the_features_and_not_the_boxes():
    features = [tf.constant(f) for f in random_features((64, 128), 1)]
    boxes = tf.constant([[[0.1, 0.1, 0.9, 0.9]]])
    with tf.GradientTape() as tape:
        tape.watch([*features, boxes])
        atlas = roi_align.build_atlas(features)
        crops = roi_align.pyramid_roi_align(atlas, boxes, tf.constant([64, 128]), 7, ModelConfig())
        total = tf.reduce_sum(crops)
    gradients = tape.gradient(total, [*features, boxes])
    assert gradients[-1] is None
    # Each of the 49 samples spreads a gradient of one over four cells of the box's level, P2.
    assert float(tf.reduce_sum(gradients[0])) == pytest.approx(49, rel=1e-5)
    assert not np.any(gradients[1])
