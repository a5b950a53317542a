"""Detections against a float64 loop and the genuine `refine_detections_graph` and `DetectionLayer`."""

import json

import golden
import numpy as np
import oracles
import pytest
import tensorflow as tf

from maskrcnn import boxes as box_ops
from maskrcnn.configuration.model import Config, DetectionConfig
from maskrcnn.detection import detect

GOLDEN = golden.load("proposal_detection_seed0")
STD = (0.1, 0.1, 0.2, 0.2)
ROUNDING = 5e-7


def run(
    proposals,
    probs,
    deltas,
    windows,
    count,
    min_score=0.0,
    threshold=0.3,
    drop_empty=False,
):
    """Detections [B, count, 6] (box, class, score) and how many rows are used."""
    config = Config(detection=DetectionConfig(max_detections=count, drop_empty_boxes=drop_empty))
    arrays = (tf.constant(np.asarray(a, np.float32)) for a in (proposals, probs, deltas, windows))
    boxes, scores, class_ids, used = detect(*arrays, config, min_score, threshold)
    assert class_ids.dtype == tf.int32
    assert used.dtype == tf.int32
    rows = np.concatenate([boxes, class_ids.numpy()[..., None], scores.numpy()[..., None]], axis=-1)
    return rows, used.numpy()


def one_hot(class_id, score, classes=4):
    """Probabilities whose best class is `class_id`."""
    probs = np.full(classes, (1 - score) / (classes - 1))
    probs[class_id] = score
    return probs


def golden_case(name):
    arguments = json.loads(str(GOLDEN[f"det_{name}_args_json"]))
    return GOLDEN[f"det_{name}_window"], {
        "count": arguments["DETECTION_MAX_INSTANCES"],
        "min_score": arguments["DETECTION_MIN_CONFIDENCE"],
        "threshold": arguments["DETECTION_NMS_THRESHOLD"],
    }


@pytest.mark.parametrize(("name", "found"), [("a", 30), ("b", 20), ("c", 30), ("d", 74)])
def test_detections_are_matterports(name, found):
    window, limits = golden_case(name)
    inputs = [GOLDEN[f"det_{part}"][None] for part in ("rois", "probs", "deltas")]
    rows, used = run(*inputs, window[None], **limits)
    assert used.tolist() == [found]
    assert (GOLDEN[f"det_{name}_out"][:, 4] > 0).sum() == found
    np.testing.assert_allclose(rows[0], GOLDEN[f"det_{name}_out"], rtol=0, atol=ROUNDING)


def test_the_genuine_layer_on_a_batch_with_two_windows():
    windows = box_ops.normalize(tf.constant(GOLDEN["detlayer_meta"][:, 7:11]), tf.constant([256, 256]))
    both = [np.stack([GOLDEN[f"det_{p}"], GOLDEN[f"det_{p}"][::-1]]) for p in ("rois", "probs", "deltas")]
    rows, _ = run(*both, windows, count=40, min_score=0.5)
    np.testing.assert_allclose(rows, GOLDEN["detlayer_out"], rtol=0, atol=ROUNDING)


def test_nothing_found_is_all_zero():
    inputs = [GOLDEN[name][None] for name in ("det_rois", "det_none_probs", "det_deltas")]
    rows, used = run(*inputs, [[0, 0, 1, 1]], count=10, min_score=0.7)
    assert used.tolist() == [0]
    assert np.array_equal(rows[0], GOLDEN["det_none_out"])


@pytest.mark.parametrize("drop_empty", [False, True])
@pytest.mark.parametrize("count", [1, 12, 80])
def test_detections_are_the_oracles(count, drop_empty):
    generator = np.random.default_rng(11)
    low = generator.random((2, 60, 2)) * 0.7
    proposals = np.concatenate([low, low + 0.3 * generator.random((2, 60, 2))], axis=-1).astype(np.float32)
    proposals[:, 50:] = 0  # as the proposal layer leaves unused rows
    logits = generator.normal(size=(2, 60, 4)) * 2
    probs = (np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)).astype(np.float32)
    deltas = generator.normal(size=(2, 60, 4, 4)).astype(np.float32)
    windows = np.array([[0, 0, 1, 1], [0.2, 0.1, 0.8, 0.6]], np.float32)
    limits = {"min_score": 0.4, "threshold": 0.3, "count": count, "drop_empty": drop_empty}
    rows, used = run(proposals, probs, deltas, windows, **limits)
    for image in range(2):
        expected = oracles.detect(proposals[image], probs[image], deltas[image], windows[image], STD, **limits)
        assert used[image] == len(expected) > 0
        np.testing.assert_allclose(rows[image, : used[image]], expected, rtol=0, atol=1e-6)
        assert not rows[image, used[image] :].any()


def test_boxes_without_area_take_rows_unless_they_are_dropped():
    window, limits = golden_case("c")
    inputs = [GOLDEN[f"det_{part}"] for part in ("rois", "probs", "deltas")]
    kept, _ = run(*(array[None] for array in inputs), window[None], **limits)
    dropped, used = run(*(array[None] for array in inputs), window[None], **limits, drop_empty=True)
    assert (box_ops.areas(tf.constant(kept[0, :, :4])).numpy() == 0).sum() == 3
    assert (box_ops.areas(tf.constant(dropped[0, :, :4])).numpy() > 0).all()
    assert used.tolist() == [30]  # the three rows went to the next best
    expected = oracles.detect(*inputs, window, STD, **limits, drop_empty=True)
    np.testing.assert_allclose(dropped[0], expected, rtol=0, atol=ROUNDING)


def test_a_score_equal_to_the_threshold_is_kept():
    probs = [[one_hot(1, 0.5), one_hot(2, 0.75), one_hot(3, 0.25, 4)]]
    proposals = [[[0, 0, 0.5, 0.5], [0, 0.5, 0.5, 1], [0.5, 0.5, 1, 1]]]
    deltas = np.zeros((1, 3, 4, 4))
    assert run(proposals, probs, deltas, [[0, 0, 1, 1]], 3, min_score=0.5)[1].tolist() == [2]
    above = np.nextafter(np.float32(0.5), np.float32(1))
    assert run(proposals, probs, deltas, [[0, 0, 1, 1]], 3, min_score=above)[1].tolist() == [1]


def test_background_is_never_a_detection():
    proposals = [[[0, 0, 0.5, 0.5], [0.5, 0.5, 1, 1]]]
    probs = [[[0.5, 0.3, 0.1, 0.1], one_hot(3, 0.4)]]
    rows, used = run(proposals, probs, np.zeros((1, 2, 4, 4)), [[0, 0, 1, 1]], 2, min_score=0.0)
    assert used.tolist() == [1]
    assert rows[0, 0] == pytest.approx([0.5, 0.5, 1, 1, 3, 0.4])


def test_of_equally_probable_classes_the_first_wins():
    rows, _ = run([[[0, 0, 1, 1]]], [[[0.1, 0.1, 0.4, 0.4]]], np.zeros((1, 1, 4, 4)), [[0, 0, 1, 1]], 1)
    assert rows[0, 0, 4] == 2


def test_equal_scores_keep_the_order_of_the_proposals():
    proposals = [[[0, 0.1 * k, 0.05, 0.1 * k + 0.05] for k in range(6)]]
    classes = [3, 1, 2, 1, 3, 2]
    probs = [[one_hot(class_id, 0.5) for class_id in classes]]
    rows, used = run(proposals, probs, np.zeros((1, 6, 4, 4)), [[0, 0, 1, 1]], 6)
    assert used.tolist() == [6]
    assert rows[0, :, 4].tolist() == classes
    np.testing.assert_allclose(rows[0, :, :4], proposals[0], rtol=0, atol=ROUNDING)


def test_the_deltas_of_the_best_class_are_used():
    deltas = np.zeros((1, 1, 4, 4))
    deltas[0, 0, 2] = [10, 0, 0, 0]  # a whole height down
    rows, _ = run([[[0, 0, 0.25, 1]]], [[one_hot(2, 0.9)]], deltas, [[0, 0, 1, 1]], 1)
    assert rows[0, 0, :4] == pytest.approx([0.25, 0, 0.5, 1])


def test_boxes_end_at_the_window():
    rows, _ = run([[[0, 0, 1, 1]]], [[one_hot(1, 0.9)]], np.zeros((1, 1, 4, 4)), [[0.125, 0.25, 0.5, 0.75]], 1)
    assert rows[0, 0, :4].tolist() == [0.125, 0.25, 0.5, 0.75]


def test_classes_suppress_within_themselves_only():
    proposals = [[[0, 0, 1, 1]] * 4]
    probs = [[one_hot(1, 0.9), one_hot(2, 0.8), one_hot(1, 0.7), one_hot(2, 0.6)]]
    rows, used = run(proposals, probs, np.zeros((1, 4, 4, 4)), [[0, 0, 1, 1]], 4)
    assert used.tolist() == [2]
    assert rows[0, :2, 4].tolist() == [1, 2]
    assert rows[0, :2, 5] == pytest.approx([0.9, 0.8])
