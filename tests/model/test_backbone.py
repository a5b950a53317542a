"""ResNets: names, shapes and counts of the published weights, and the arithmetic of one block."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from maskrcnn.backbone import batch_norm, build_backbone
from maskrcnn.configuration.model import ModelConfig
from maskrcnn.errors import ConfigError

TINY = ModelConfig(backbone="resnet50", backbone_width=4)


def test_the_first_block_of_resnet50_has_matterports_layers_in_order():
    names = [layer.name for layer in build_backbone(TINY).layers if layer.variables]
    assert names[:10] == [
        "conv1",
        "bn_conv1",
        "res2a_branch2a",
        "bn2a_branch2a",
        "res2a_branch2b",
        "bn2a_branch2b",
        "res2a_branch2c",
        "res2a_branch1",
        "bn2a_branch2c",
        "bn2a_branch1",
    ]


@pytest.mark.parametrize(
    ("backbone", "blocks"),
    [
        ("resnet18", ("ab", "ab", "ab", "ab")),
        ("resnet50", ("abc", "abcd", "abcdef", "abc")),
        ("resnet101", ("abc", "abcd", "abcdefghijklmnopqrstuvw", "abc")),
    ],
)
def test_blocks_are_lettered(backbone, blocks):
    model = build_backbone(ModelConfig(backbone=backbone, backbone_width=4))
    ends = [layer.name for layer in model.layers if layer.name.endswith("_out")]
    assert ends == [f"res{stage}{letter}_out" for stage, row in enumerate(blocks, 2) for letter in row]
    projected = [layer.name for layer in model.layers if layer.name.endswith("_branch1") and "res" in layer.name]
    assert projected == [f"res{stage}a_branch1" for stage in (2, 3, 4, 5)]


@pytest.mark.parametrize(("backbone", "channels"), [("resnet18", (4, 8, 16, 32)), ("resnet50", (16, 32, 64, 128))])
def test_features_have_strides_4_to_32(backbone, channels):
    model = build_backbone(ModelConfig(backbone=backbone, backbone_width=4))
    features = model(tf.zeros((2, 64, 192, 3)))
    expected = [(2, 64 // s, 192 // s, c) for s, c in zip((4, 8, 16, 32), channels, strict=True)]
    assert [tuple(feature.shape) for feature in features] == expected


def test_the_stride_is_in_the_first_convolution_of_a_block():
    model = build_backbone(TINY)
    strides = {
        layer.name: layer.strides for layer in model.layers if hasattr(layer, "kernel") and layer.strides != (1, 1)
    }
    expected = ["conv1", *(f"res{s}a_branch{b}" for s in (3, 4, 5) for b in ("2a", "1"))]
    assert strides == dict.fromkeys(expected, (2, 2))


def test_stem_pads_three_and_pools_towards_the_bottom_right():
    model = build_backbone(TINY)
    kernel = np.zeros((7, 7, 3, 4), np.float32)
    kernel[3, 3, 0] = 1  # the center tap: the stem samples every second pixel
    conv, norm = model.get_layer("conv1"), model.get_layer("bn_conv1")
    conv.set_weights([kernel, np.zeros(4, np.float32)])
    norm.set_weights([np.ones(4), np.zeros(4), np.zeros(4), np.full(4, 1 - 1e-3)])  # epsilon makes it 1
    pool = next(layer for layer in model.layers if "max_pooling" in layer.name)
    stem = keras.Model(model.input, pool.output)
    image = np.zeros((1, 16, 16, 3), np.float32)
    image[..., 0] = np.arange(256).reshape(16, 16)
    sampled = image[0, ::2, ::2, 0]  # [8, 8]
    expected = [[sampled[y : y + 3, x : x + 3].max() for x in range(0, 8, 2)] for y in range(0, 8, 2)]
    np.testing.assert_allclose(stem(image)[0, :, :, 0], expected, rtol=1e-5)


def test_batch_norm_epsilon_is_keras_own():
    norms = [layer for layer in build_backbone(TINY).layers if layer.name.startswith("bn")]
    assert len(norms) == 53
    assert {layer.epsilon for layer in norms} == {1e-3}


@pytest.mark.parametrize("shape", [(2, 16, 12, 32), (3, 7, 5, 5), (64, 1, 1, 16), (1, 1, 1, 4)])
def test_batch_norm_on_statistics_of_the_batch_is_keras_own(shape):
    """Outputs, gradients and moving statistics; the last shape is a single value per channel, without variance."""
    rng = np.random.default_rng(0)
    x, weight = (tf.constant(rng.normal(1, 2, shape), tf.float32) for _ in range(2))
    results = []
    for layer in (batch_norm("ours", None), keras.layers.BatchNormalization(epsilon=1e-3)):
        layer.build(shape)
        layer.gamma.assign(np.linspace(0.5, 2, shape[-1]))
        layer.beta.assign(np.linspace(-1, 1, shape[-1]))
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x, training=True)
            loss = tf.reduce_sum(tf.sin(y) * weight)
        gradients = tape.gradient(loss, [x, layer.gamma.value, layer.beta.value])
        results.append([y, *gradients, layer.moving_mean, layer.moving_variance, layer(x, training=False)])
    for ours, theirs in zip(*results, strict=True):
        np.testing.assert_allclose(np.asarray(ours), np.asarray(theirs), rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize(("train", "mode", "moves"), [(False, True, False), (True, False, True), (None, False, False)])
def test_batch_norm_keeps_its_mode(train, mode, moves):
    layer = batch_norm("any", train)
    layer(tf.ones((1, 2, 2, 3)), training=mode)
    assert (np.asarray(layer.moving_mean) != 0).all() == moves


def test_custom_cannot_be_built_from_the_configuration():
    with pytest.raises(ConfigError, match="backbone="):
        build_backbone(ModelConfig(backbone="custom"))
