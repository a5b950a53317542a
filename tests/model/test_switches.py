"""The settings for networks of other frameworks, against NumPy in float64 that computes as those frameworks do."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from maskrcnn.backbone import build_backbone, residual_blocks
from maskrcnn.box_head import build_box_head
from maskrcnn.configuration.model import Config, ModelConfig
from maskrcnn.errors import ConfigError
from maskrcnn.fpn import build_fpn
from maskrcnn.mask_head import build_mask_head
from maskrcnn.model import MaskRCNN
from maskrcnn.rpn import apply_rpn, build_rpn

TORCH = {
    "backbone_width": 8,
    "backbone_padding": "symmetric",
    "backbone_shortcut": "identity",
    "bias_before_batch_norm": False,
    "batch_norm_epsilon": 1e-5,
}
BACKBONES = {
    "caffe": {"backbone": "resnet50"},
    "torch": {"backbone": "resnet50", "stride_in_1x1": False},
    "resnext": {
        "backbone": "resnet50",
        "stride_in_1x1": False,
        "backbone_groups": 4,
        "backbone_group_width": 16,
        "batch_norm_epsilon": 0.0,
    },
    "resnet18": {"backbone": "resnet18"},
    "resnet34": {"backbone": "resnet34"},
}


def fill(model, seed=0):
    """Random weights that keep the scale of the values; return them by layer and name, in float64."""
    generator, weights = np.random.default_rng(seed), {}
    for layer in model.layers:
        for variable in layer.variables:
            shape = tuple(variable.shape)
            if variable.name == "kernel":
                value = generator.normal(0, np.sqrt(2 / np.prod(shape[:-1])), shape)
            elif variable.name in ("gamma", "moving_variance"):
                value = generator.uniform(0.5, 1.0, shape)
            else:
                value = generator.normal(0, 0.1, shape)
            variable.assign(value)
            weights.setdefault(layer.name, {})[variable.name] = variable.numpy().astype(np.float64)
    return weights


def convolve(x, weights, stride=1, padding=0, groups=1):
    """x [B, H, W, C] with zeros on all sides; groups of output channels see groups of input channels."""
    kernel = weights["kernel"]
    side, _, depth, filters = kernel.shape
    x = np.pad(x, [(0, 0), (padding,) * 2, (padding,) * 2, (0, 0)])
    windows = np.lib.stride_tricks.sliding_window_view(x, (side, side), (1, 2))[:, ::stride, ::stride]
    each = filters // groups
    parts = [
        np.einsum(
            "bhwcyx,yxco->bhwo", windows[..., depth * g : depth * (g + 1), :, :], kernel[..., each * g : each * (g + 1)]
        )
        for g in range(groups)
    ]
    return np.concatenate(parts, axis=-1) + weights.get("bias", 0.0)


def normalize(x, weights, epsilon):
    scale = weights["gamma"] / np.sqrt(weights["moving_variance"] + epsilon)
    return (x - weights["moving_mean"]) * scale + weights["beta"]


def relu(x):
    return np.maximum(x, 0)


def torch_resnet(x, weights, config):
    """C2..C5 as PyTorch computes them: 1 on all sides of each 3 x 3 window."""
    epsilon, groups = config.batch_norm_epsilon, config.backbone_groups
    x = relu(normalize(convolve(x, weights["conv1"], 2, 3), weights["bn_conv1"], epsilon))
    x = np.pad(x, [(0, 0), (1, 1), (1, 1), (0, 0)], constant_values=-np.inf)
    x = np.lib.stride_tricks.sliding_window_view(x, (3, 3), (1, 2))[:, ::2, ::2].max((-1, -2))
    features = {}
    for stage, letters in zip("2345", _letters(config.backbone), strict=True):
        for letter in letters:
            block, y = stage + letter, x
            stride = 2 if stage != "2" and letter == "a" else 1
            basic = f"res{block}_branch2c" not in weights
            steps = (stride, 1) if basic or config.stride_in_1x1 else (1, stride)
            for branch, step in zip("ab" if basic else "abc", (*steps, 1), strict=False):
                layer = weights[f"res{block}_branch2{branch}"]
                grouped = groups if branch == "b" else 1
                y = convolve(y, layer, step, layer["kernel"].shape[0] // 2, grouped)
                y = normalize(y, weights[f"bn{block}_branch2{branch}"], epsilon)
                if branch != ("b" if basic else "c"):
                    y = relu(y)
            if f"res{block}_branch1" in weights:
                x = normalize(
                    convolve(x, weights[f"res{block}_branch1"], stride), weights[f"bn{block}_branch1"], epsilon
                )
            x = relu(x + y)
        features[stage] = x
    return list(features.values())


def _letters(backbone):
    return {"resnet18": ("ab", "ab", "ab", "ab")}.get(backbone, ("abc", "abcd", "abcdef", "abc"))


@pytest.mark.parametrize("kind", BACKBONES)
def test_a_backbone_computes_what_pytorch_computes(kind):
    config = ModelConfig(**TORCH | BACKBONES[kind])
    model = build_backbone(config)
    weights = fill(model)
    assert not any(
        layer.name.startswith(("conv1", "res")) and "bias" in weights[layer.name]
        for layer in model.layers
        if layer.name in weights
    )
    x = np.random.default_rng(1).normal(size=(1, 96, 64, 3)).astype(np.float32)  # an odd number of rows in C5
    for ours, expected in zip(model(x), torch_resnet(x.astype(np.float64), weights, config), strict=True):
        assert np.abs(ours - expected).max() < 1e-5 * np.abs(expected).max()


def test_the_first_stage_of_basic_blocks_has_a_projection_by_default():
    for shortcut, projected in (("projection", ["2a", "3a", "4a", "5a"]), ("identity", ["3a", "4a", "5a"])):
        blocks = residual_blocks(ModelConfig(backbone="resnet18", backbone_shortcut=shortcut))
        assert [block.name for block in blocks if block.projected] == projected
    bottlenecks = residual_blocks(ModelConfig(backbone="resnet50", backbone_shortcut="identity"))
    assert [block.name for block in bottlenecks if block.projected] == ["2a", "3a", "4a", "5a"]


def test_blocks_after_z_have_two_letters():
    names = [block.name for block in residual_blocks(ModelConfig(backbone="resnet152")) if block.stage == 4]
    assert [names[i] for i in (0, 25, 26, 35)] == ["4a", "4z", "4aa", "4aj"]
    assert len(set(names)) == len(names) == 36


def test_groups_have_the_published_sizes():
    """ResNeXt-101 32x8d: 256 channels in 32 groups of 8 in the first stage, 2048 in the last."""
    config = ModelConfig(backbone="resnet50", backbone_groups=32, backbone_group_width=8)
    shapes = {
        layer.name: tuple(layer.kernel.shape)
        for layer in build_backbone(config).layers
        if "res" in layer.name and hasattr(layer, "kernel")
    }
    assert shapes["res2a_branch2a"] == (1, 1, 64, 256)
    assert shapes["res2a_branch2b"] == (3, 3, 8, 256)
    assert shapes["res2a_branch2c"] == (1, 1, 256, 256)
    assert shapes["res5c_branch2b"] == (3, 3, 64, 2048)


@pytest.mark.parametrize("precision", ["float32", "mixed_float16", "mixed_bfloat16"])
def test_grouped_convolutions_train_on_the_cpu(precision):
    config = ModelConfig(**TORCH | BACKBONES["resnext"])
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(precision)
    try:
        model = build_backbone(config)
    finally:
        keras.config.set_dtype_policy(before)
    weights = fill(model)
    layer = model.get_layer("res3a_branch2b")  # strided
    x = np.random.default_rng(1).normal(size=(2, 9, 9, layer.kernel.shape[2] * 4)).astype(np.float32)

    @tf.function
    def gradients(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = tf.reduce_sum(tf.cast(layer(x), tf.float32) ** 2)
        return tape.gradient(loss, [x, layer.kernel.value])

    of_input, of_kernel = gradients(tf.constant(x))
    kernel = weights["res3a_branch2b"]["kernel"]
    tolerance = 1e-5 if precision == "float32" else 0.05
    for array, gradient, index in ((x, of_input, (1, 4, 5, 3)), (kernel, of_kernel, (1, 2, 0, 9))):
        moved = []
        for step in (-1e-3, 1e-3):
            changed = array.astype(np.float64)
            changed[index] += step
            given = {"x": x.astype(np.float64), "kernel": kernel} | {"x" if array is x else "kernel": changed}
            moved.append((convolve(given["x"], {"kernel": given["kernel"]}, 2, 0, 4) ** 2).sum())
        expected = (moved[1] - moved[0]) / 2e-3
        assert np.asarray(gradient, np.float64)[index] == pytest.approx(expected, rel=tolerance, abs=tolerance)


def crops(side, channels):
    return np.random.default_rng(1).normal(size=(3, side, side, channels)).astype(np.float32)


HEADS = {
    "class_names": ("BG", "a", "b"),
    "fpn_channels": 6,
    "box_head_channels": 7,
    "mask_head_channels": 5,
    "box_pool_size": 3,
    "mask_pool_size": 4,
    "rpn_channels": 9,
    "bias_before_batch_norm": False,
    "batch_norm_epsilon": 1e-5,
}


def test_a_box_head_of_convolutions_normalizes_these_alone():
    head = build_box_head(ModelConfig(**HEADS, box_head_convolutions=2, box_head_layers=1))
    weights, x = fill(head), crops(3, 6)
    y = x.astype(np.float64)
    for index in (1, 2):
        assert "bias" not in weights[f"mrcnn_box_conv{index}"]
        y = convolve(y, weights[f"mrcnn_box_conv{index}"], 1, 1)
        y = relu(normalize(y, weights[f"mrcnn_box_bn{index}"], 1e-5))
    y = relu(convolve(y, weights["mrcnn_class_conv1"]))[:, 0, 0]
    assert not {"mrcnn_class_bn1", "mrcnn_class_conv2"} & weights.keys()
    for ours, layer in zip(head(x), ("mrcnn_class_logits", "mrcnn_bbox_fc"), strict=True):
        expected = (y @ weights[layer]["kernel"] + weights[layer]["bias"]).reshape(ours.shape)
        np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-5)


def test_heads_without_batch_normalization_have_biases():
    config = ModelConfig(**HEADS, head_batch_norm=False)
    head = build_box_head(config)
    weights, x = fill(head), crops(3, 6)
    y = relu(convolve(x.astype(np.float64), weights["mrcnn_class_conv1"]))
    y = relu(convolve(y, weights["mrcnn_class_conv2"]))[:, 0, 0]
    logits = y @ weights["mrcnn_class_logits"]["kernel"] + weights["mrcnn_class_logits"]["bias"]
    np.testing.assert_allclose(head(x)[0], logits, rtol=0, atol=1e-5)
    mask_head = build_mask_head(config)
    names = {f"{layer.name}/{variable.name}" for layer in mask_head.layers for variable in layer.variables}
    layers = ("mrcnn_mask_conv1", "mrcnn_mask_conv2", "mrcnn_mask_conv3", "mrcnn_mask_conv4", "mrcnn_mask_deconv")
    assert names == {f"{layer}/{name}" for layer in (*layers, "mrcnn_mask") for name in ("kernel", "bias")}


def test_the_fpn_normalizes_its_convolutions():
    from functools import partial

    from maskrcnn.backbone import batch_norm

    fpn = build_fpn([3, 4, 5, 6], 2, partial(batch_norm, train=False, epsilon=1e-5))
    weights = fill(fpn)
    generator = np.random.default_rng(2)
    stages = [
        generator.normal(size=(1, 8 * s, 8 * s, c)).astype(np.float32)
        for s, c in zip((8, 4, 2, 1), (3, 4, 5, 6), strict=True)
    ]

    def layer(x, name):
        assert weights[name].keys() == {"kernel"}
        return normalize(
            convolve(x, weights[name], 1, weights[name]["kernel"].shape[0] // 2), weights[f"{name}_bn"], 1e-5
        )

    inner = None
    for level, ours in zip((5, 4, 3, 2), fpn(stages)[3::-1], strict=True):
        lateral = layer(stages[level - 2].astype(np.float64), f"fpn_c{level}p{level}")
        inner = lateral if inner is None else lateral + inner.repeat(2, 1).repeat(2, 2)
        np.testing.assert_allclose(ours, layer(inner, f"fpn_p{level}"), rtol=0, atol=1e-5)


def test_an_rpn_of_two_convolutions_with_one_logit_per_anchor():
    config = ModelConfig(**HEADS, rpn_convolutions=2, objectness="sigmoid")
    rpn = build_rpn(config)
    weights, x = fill(rpn), crops(4, 6)
    y = relu(convolve(x.astype(np.float64), weights["rpn_conv_shared"], 1, 1))
    y = relu(convolve(y, weights["rpn_conv_shared2"], 1, 1))
    logits, deltas = apply_rpn(rpn, [tf.constant(x)])
    expected = convolve(y, weights["rpn_class_raw"]).reshape(3, -1, 1)
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-5)
    assert logits.shape == (3, 4 * 4 * 3, 1)
    assert deltas.shape == (3, 4 * 4 * 3, 4)


@pytest.fixture(scope="module")
def tiny():
    """The smallest network with the switches of an input."""
    widths = {
        "backbone_width": 4,
        "fpn_channels": 4,
        "rpn_channels": 4,
        "box_head_channels": 4,
        "mask_head_channels": 4,
    }
    model = ModelConfig(
        backbone="resnet18", mean_pixel=(123.675, 116.28, 103.53), pixel_std=(58.395, 57.12, 57.375), padding="mean",
        objectness="sigmoid", **widths
    )  # fmt: skip
    return MaskRCNN(Config(model=model))


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_mold_divides_and_clears_the_padding(tiny, dtype):
    images = np.random.default_rng(0).integers(0, 256, (2, 9, 8, 3)).astype(dtype)
    windows = np.array([[0, 0, 7, 8], [2, 1, 9, 6]], np.float32)
    molded = tiny.mold(tf.constant(images), tf.constant(windows)).numpy()
    expected = np.zeros(images.shape)
    for row, (y1, x1, y2, x2) in enumerate(windows.astype(int)):
        inside = images[row, y1:y2, x1:x2] - np.array([123.675, 116.28, 103.53])
        expected[row, y1:y2, x1:x2] = inside / [58.395, 57.12, 57.375]
    np.testing.assert_allclose(molded, expected, rtol=0, atol=1e-6)
    assert not molded[expected == 0].any()


def test_padding_that_is_cleared_needs_windows(tiny):
    with pytest.raises(ConfigError, match="padding is 'mean': the positions of the images"):
        tiny.mold(tf.zeros((1, 4, 4, 3), tf.uint8))


def test_sigmoid_objectness_gives_logits(tiny):
    features = [tf.random.stateless_normal((1, side, side, 4), (1, side)) for side in (8, 4, 2, 1, 1)]
    logits, _ = apply_rpn(tiny.rpn, features)
    probs, _ = tiny.region_probs(features)
    assert probs.shape[2] == 1
    assert np.array_equal(probs, logits)
