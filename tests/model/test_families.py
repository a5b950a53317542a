"""Boxes of the networks of torchvision and Detectron2: anchors, proposals, crops and detections.

They are compared with the results of those packages, stage by stage on their own tensors, and with loops in NumPy.
"""

from dataclasses import replace

import families
import numpy as np
import pytest
import tensorflow as tf

from maskrcnn.anchors import half_sides, model_anchors
from maskrcnn.configuration.model import Config, DetectionConfig, ModelConfig, ProposalConfig
from maskrcnn.rpn import propose

MODELS = {
    "torchvision": ModelConfig(
        anchor_ratios=(2.0, 1.0, 0.5),
        rpn_box_std=(1.0, 1.0, 1.0, 1.0),
        box_frame="continuous",
        max_log_size=float(np.log(1000 / 16)),
        anchor_rounding=True,
        anchor_step="fitted",
        roi_sampling="roi_align",
        roi_padding="zeros",
        roi_aligned=False,
        roi_level="floor",
    )
}
MODELS["detectron2"] = replace(
    MODELS["torchvision"], anchor_rounding=False, anchor_step="stride", roi_aligned=True, roi_sampling_ratio=0
)
CASES = {
    "v1-landscape": "torchvision",
    "v1-portrait": "torchvision",
    "v1-coco": "torchvision",
    "v2-landscape": "torchvision",
    "d2-r50": "detectron2",
}


CONFIGS = {
    "torchvision": Config(
        model=MODELS["torchvision"],
        proposals=ProposalConfig(1000, per_level=True, min_side=1e-3, clip="window"),
        detection=DetectionConfig(100, 0.05, 0.5, candidates="every_class", min_side=1e-2),
    ),
    "detectron2": Config(
        model=MODELS["detectron2"],
        proposals=ProposalConfig(1000, per_level=True, min_side=0.0, clip="window"),
        detection=DetectionConfig(100, 0.05, 0.5, candidates="every_class"),
    ),
}
PIXELS = 1e-3  # as promised: a thousandth of a pixel


def window(case):
    """The image in the input, float32 [1, 4]."""
    return tf.constant([[0, 0, *case["resized_size"]]], tf.float32)


def input_size(case):
    return case.shape("input")[2:]


@families.needs_goldens
@pytest.mark.parametrize("name", CASES)
def test_anchors_are_the_familys_to_the_bit(name):
    case = families.Case(name)
    anchors = model_anchors(tf.constant(input_size(case)), MODELS[CASES[name]])
    if "anchors_per_level" in case.arrays:
        assert [len(level) for level in anchors] == case["anchors_per_level"].tolist()
    assert np.array_equal(case.sampled("anchors", families.yx(np.concatenate(anchors))), case["anchors"])


@families.needs_goldens
@pytest.mark.parametrize("size", [(800, 1088), (288, 384)])
def test_steps_of_torchvision_follow_the_size(size):
    with np.load(families.FOLDER / "open" / "ops.npz") as arrays:
        expected = arrays[f"anchors/torchvision/{size[0]}x{size[1]}/p6"]
    assert np.array_equal(families.yx(model_anchors(tf.constant(size), MODELS["torchvision"])[4]), expected)


@families.needs_goldens
@pytest.mark.parametrize("family", MODELS)
def test_sides_of_anchors_are_the_familys(family):
    with np.load(families.FOLDER / "open" / "ops.npz") as arrays:
        cells = arrays[f"anchors/{family}/cells"]  # [5, 3, 4] x1, y1, x2, y2 around 0
    model = MODELS[family]
    for scale, expected in zip(model.anchor_scales, cells, strict=True):
        heights, widths = half_sides(scale, model.anchor_ratios, model.anchor_rounding, model.box_frame)
        assert np.array_equal(np.stack([widths, heights], axis=1).astype(np.float32), expected[:, 2:])
        assert np.array_equal(expected[:, :2], -expected[:, 2:])


def test_half_sides_are_rounded_half_to_even():
    # 2.5 and 3.5 pixels; 25 by 9 with ratio 25 / 9 has sides of 15 / (5 / 3) = 9 and 25.
    assert half_sides(5, (1.0,), rounding=True) == ([2.0], [2.0])
    assert half_sides(7, (1.0,), rounding=True) == ([4.0], [4.0])
    assert half_sides(6, (0.25, 4.0), rounding=True) == ([6.0, 2.0], [2.0, 6.0])


@pytest.mark.parametrize("anchor_stride", [1, 2])
@pytest.mark.parametrize("step", ["stride", "fitted"])
def test_anchors_in_pixels_are_those_of_loops(step, anchor_stride):
    model = replace(MODELS["detectron2"], anchor_step=step, anchor_stride=anchor_stride)
    height, width = 96, 160
    found = model_anchors(tf.constant([height, width]), model)
    for level, stride, scale in zip(found, model.backbone_strides, model.anchor_scales, strict=True):
        rows, columns = -(-height // stride), -(-width // stride)
        down, right = (height // rows, width // columns) if step == "fitted" else (stride, stride)
        expected = []
        for row in range(0, rows, anchor_stride):
            for column in range(0, columns, anchor_stride):
                for ratio in model.anchor_ratios:
                    y, x = row * down, column * right
                    high, wide = np.float32(scale / ratio**0.5 / 2), np.float32(scale * ratio**0.5 / 2)
                    expected.append([y - high, x - wide, y + high, x + wide])
        assert np.array_equal(level, np.array(expected, np.float32))


@families.needs_goldens
@pytest.mark.parametrize("name", CASES)
def test_proposals_are_the_familys(name):
    case, config = families.Case(name), CONFIGS[CASES[name]]
    anchors = model_anchors(tf.constant(input_size(case)), config.model)
    logits, deltas = case["rpn_logits"][None], families.yx(case["rpn_deltas"])[None]
    found = propose(tf.constant(logits), tf.constant(deltas), anchors, config, window(case)[:, None])
    expected = families.yx(case["proposals"])
    assert found.shape == (1, 1000, 4)
    distance = np.abs(found.numpy()[0][:, None] - expected[None]).max(axis=2)
    rows = distance.argmin(axis=1)
    assert distance.min(axis=1).max() < PIXELS
    assert sorted(rows) == list(range(1000))
    # torchvision ranks by the sigmoid of the logit, which is equal for many logits.
    scores = case["proposal_scores" if "proposal_scores" in case.arrays else "proposal_logits"]
    assert np.array_equal(scores[rows], scores)
