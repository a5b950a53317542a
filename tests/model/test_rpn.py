"""The RPN's head against a direct reading of its convolutions; proposals against loops and the genuine layer."""

import golden
import numpy as np
import oracles
import pytest
import tensorflow as tf

from maskrcnn.boxes import UNIT_WINDOW
from maskrcnn.configuration.model import Config, ModelConfig, ProposalConfig
from maskrcnn.rpn import apply_rpn, build_rpn, propose

GOLDEN = golden.load("proposal_detection_seed0")
STD = (0.1, 0.1, 0.2, 0.2)
ROUNDING = 5e-7


def run(scores, deltas, anchors, count, limit=300, threshold=0.7):
    """Proposals of a batch with the given foreground scores [B, A]."""
    scores = np.asarray(scores, np.float32)
    probs = np.stack([1 - scores, scores], axis=-1)
    config = Config(proposals=ProposalConfig(limit, post_nms_inference=count, nms_threshold=threshold))
    probs, deltas, anchors = (tf.constant(np.asarray(array, np.float32)) for array in (probs, deltas, anchors))
    arguments = probs[..., 1], deltas, [anchors], config, tf.constant(UNIT_WINDOW)
    found = propose(*arguments).numpy()
    np.testing.assert_array_equal(propose(*arguments, image_by_image=True), found)
    return found


@pytest.mark.parametrize(("count", "found"), [(50, [50, 50]), (290, [273, 279])])
def test_proposals_are_matterports(count, found):
    proposals = run(GOLDEN["prop_probs"][..., 1], GOLDEN["prop_deltas"], GOLDEN["prop_anchors"][0], count, limit=300)
    expected = GOLDEN[f"prop_rois_count{count}"]
    assert proposals.any(axis=-1).sum(axis=1).tolist() == found
    np.testing.assert_allclose(proposals, expected, rtol=0, atol=ROUNDING)


def test_every_box_without_area_of_the_golden_case_is_kept():
    # Five anchors of each image are moved out of it and clipped to one and the same point.
    proposals = run(GOLDEN["prop_probs"][..., 1], GOLDEN["prop_deltas"], GOLDEN["prop_anchors"][0], 50)
    points = (proposals == 1).all(axis=-1)
    assert [np.flatnonzero(row).tolist() for row in points] == [[1, 2, 3, 4, 5], [0, 1, 2, 3, 4]]


@pytest.mark.parametrize("limit", [17, 60, 1000])
@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.7])
def test_proposals_are_the_oracles(limit, threshold):
    generator = np.random.default_rng(7)
    low = generator.random((90, 2)) * 0.7
    anchors = np.concatenate([low, low + 0.05 + 0.4 * generator.random((90, 2))], axis=-1).astype(np.float32)
    deltas = generator.normal(size=(2, 90, 4)).astype(np.float32) * 2
    scores = generator.random((2, 90)).astype(np.float32)
    proposals = run(scores, deltas, anchors, 40, limit, threshold)
    for image in range(2):
        expected = oracles.propose(scores[image], deltas[image], anchors, STD, limit, threshold, 40)
        np.testing.assert_allclose(proposals[image], expected, rtol=0, atol=1e-6)


def test_equal_scores_keep_the_order_of_the_anchors():
    anchors = [[0, 0.1 * k, 0.05, 0.1 * k + 0.05] for k in range(9)]
    scores = [0.5, 0.75, 0.5, 0.75, 0.75, 0.5, 0.5, 0.75, 0.5]
    proposals = run([scores], np.zeros((1, 9, 4)), anchors, 9)
    order = [1, 3, 4, 7, 0, 2, 5, 6, 8]
    np.testing.assert_allclose(proposals[0], np.array(anchors)[order], rtol=0, atol=ROUNDING)


def test_the_limit_cuts_before_suppression():
    # The three best coincide; within a limit of three nothing else is left.
    anchors = [[0, 0, 0.5, 0.5]] * 3 + [[0.5, 0.5, 1, 1]]
    proposals = run([[0.9, 0.8, 0.7, 0.6]], np.zeros((1, 4, 4)), anchors, 4, limit=3)
    assert proposals[0].tolist() == [[0, 0, 0.5, 0.5], [0] * 4, [0] * 4, [0] * 4]
    proposals = run([[0.9, 0.8, 0.7, 0.6]], np.zeros((1, 4, 4)), anchors, 4, limit=4)
    assert proposals[0].tolist() == [[0, 0, 0.5, 0.5], [0.5, 0.5, 1, 1], [0] * 4, [0] * 4]


def test_deltas_are_scaled_and_boxes_clipped():
    anchors = [[0.4, 0.4, 0.6, 0.8]]
    deltas = [[[5.0, -10.0, 0.0, np.log(2) / 0.2]]]  # half a height down, a width to the left, twice as wide
    assert run([[0.5]], deltas, anchors, 1)[0, 0] == pytest.approx([0.5, 0.0, 0.7, 0.6], abs=1e-6)


def test_an_overflowing_delta_is_the_whole_image_and_not_nan():
    proposals = run([[0.5, 0.4]], [[[0, 0, 1e4, 1e4], [0, 0, -1e4, -1e4]]], [[0.2, 0.2, 0.4, 0.4]] * 2, 2)
    assert proposals[0, 0].tolist() == [0, 0, 1, 1]
    assert proposals[0, 1] == pytest.approx([0.3, 0.3, 0.3, 0.3])


@pytest.mark.parametrize("anchor_stride", [1, 2])
def test_rows_of_the_head_are_in_the_order_of_the_anchors(anchor_stride):
    config = ModelConfig(fpn_channels=3, rpn_channels=8, anchor_ratios=(0.5, 1.0), anchor_stride=anchor_stride)
    rpn = build_rpn(config)
    generator = np.random.default_rng(0)
    features = [tf.constant(generator.normal(size=(2, h, w, 3)), tf.float32) for h, w in ((4, 6), (2, 3))]
    logits, deltas = apply_rpn(rpn, features)
    row = 0
    for feature in features:
        raw_logits, raw_deltas = rpn(feature)
        for y in range(raw_logits.shape[1]):
            for x in range(raw_logits.shape[2]):
                for anchor in range(2):
                    channels = slice(2 * anchor, 2 * anchor + 2)
                    assert np.array_equal(logits[:, row], raw_logits[:, y, x, channels])
                    channels = slice(4 * anchor, 4 * anchor + 4)
                    assert np.array_equal(deltas[:, row], raw_deltas[:, y, x, channels])
                    row += 1
    cells = {1: 4 * 6 + 2 * 3, 2: 2 * 3 + 1 * 2}[anchor_stride]
    assert logits.shape == (2, 2 * cells, 2)
    assert deltas.shape == (2, 2 * cells, 4)
    assert row == 2 * cells
