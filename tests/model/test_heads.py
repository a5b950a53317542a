"""Box and mask head against NumPy in float64."""

from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf

from benchmarks.seeded_weights import seeded_weight
from maskrcnn.box_head import build_box_head
from maskrcnn.configuration.model import ModelConfig
from maskrcnn.mask_head import build_mask_head, masks_of_class

CONFIG = ModelConfig(
    class_names=("BG", "a", "b"),
    fpn_channels=5,
    box_head_channels=6,
    mask_head_channels=4,
    box_pool_size=3,
    mask_pool_size=4,
)
CROPS = 3


def seeded(head):
    for layer in head.layers:
        for variable in layer.variables:
            key = f"{layer.name}/{layer.name}/{variable.name}:0"
            variable.assign(seeded_weight(key, tuple(variable.shape), 3))
    return head


def weights_of(head, layer):
    return [variable.numpy().astype(np.float64) for variable in head.get_layer(layer).variables]


def batch_norm(head, layer, x):
    gamma, beta, mean, variance = weights_of(head, layer)
    return (x - mean) / np.sqrt(variance + 1e-3) * gamma + beta


def crops(side):
    return np.random.default_rng(1).normal(size=(CROPS, side, side, CONFIG.fpn_channels)).astype(np.float32)


def test_box_head_is_two_fully_connected_layers_over_the_whole_crop():
    head, x = seeded(build_box_head(CONFIG)), crops(3)
    kernel, bias = weights_of(head, "mrcnn_class_conv1")
    y = np.tensordot(x.astype(np.float64), kernel, axes=3) + bias  # rows, columns, channels, in this order
    y = np.maximum(batch_norm(head, "mrcnn_class_bn1", y), 0)
    kernel, bias = weights_of(head, "mrcnn_class_conv2")
    y = np.maximum(batch_norm(head, "mrcnn_class_bn2", y @ kernel[0, 0] + bias), 0)
    kernel, bias = weights_of(head, "mrcnn_class_logits")
    expected_logits = y @ kernel + bias
    kernel, bias = weights_of(head, "mrcnn_bbox_fc")
    expected_deltas = (y @ kernel + bias).reshape(CROPS, 3, 4)  # class by class
    logits, deltas = head(tf.constant(x))
    np.testing.assert_allclose(logits, expected_logits, rtol=0, atol=1e-5)
    np.testing.assert_allclose(deltas, expected_deltas, rtol=0, atol=1e-5)
    assert np.abs(expected_logits).max() > 0.5


def convolve_3x3(x, kernel, bias):
    padded = np.pad(x, [(0, 0), (1, 1), (1, 1), (0, 0)])
    height, width = x.shape[1:3]
    return bias + sum(
        padded[:, dy : dy + height, dx : dx + width] @ kernel[dy, dx] for dy in range(3) for dx in range(3)
    )


@pytest.mark.parametrize("deconvolutions", [("mrcnn_mask_deconv",), ("mrcnn_mask_deconv", "mrcnn_mask_deconv2")])
def test_mask_head_is_four_convolutions_doublings_and_a_sigmoid(deconvolutions):
    config = replace(CONFIG, mask_head_deconvolutions=len(deconvolutions))
    head, x = seeded(build_mask_head(config)), crops(4)
    y = x.astype(np.float64)
    for index in range(1, 5):
        y = convolve_3x3(y, *weights_of(head, f"mrcnn_mask_conv{index}"))
        y = np.maximum(batch_norm(head, f"mrcnn_mask_bn{index}", y), 0)
    for layer in deconvolutions:
        kernel, bias = weights_of(head, layer)  # [2, 2, out, in]
        doubled = np.empty((CROPS, 2 * y.shape[1], 2 * y.shape[2], CONFIG.mask_head_channels))
        for dy in range(2):
            for dx in range(2):
                doubled[:, dy::2, dx::2] = np.maximum(y @ kernel[dy, dx].T + bias, 0)
        y = doubled
    assert y.shape[1] == config.mask_size == 4 * 2 ** len(deconvolutions)
    kernel, bias = weights_of(head, "mrcnn_mask")
    expected = 1 / (1 + np.exp(-(y @ kernel[0, 0] + bias)))
    masks = head(tf.constant(x)).numpy()
    np.testing.assert_allclose(masks, expected, rtol=0, atol=1e-5)
    assert np.ptp(expected) > 0.1
    class_ids = [2, 0, 1]
    chosen = masks_of_class(head, tf.constant(x), tf.constant(class_ids))
    for row, class_id in enumerate(class_ids):
        assert np.array_equal(chosen[row], masks[row, :, :, class_id])


@pytest.mark.parametrize(
    ("train_batch_norm", "training", "on_batch"),
    [(False, True, False), (False, False, False), (None, True, True), (None, False, False), (True, False, True)],
)
def test_batch_norm_follows_the_training_setting(train_batch_norm, training, on_batch):
    # With statistics of the batch a constant offset of the input is normalized away.
    head = seeded(build_box_head(CONFIG, train_batch_norm))
    x = crops(3)
    logits, _ = head(tf.constant(x), training=training)
    kernel, bias = weights_of(head, "mrcnn_class_conv1")
    head.get_layer("mrcnn_class_conv1").set_weights([kernel, bias + 1])
    shifted, _ = head(tf.constant(x), training=training)
    assert np.allclose(logits, shifted, atol=1e-3) == on_batch
