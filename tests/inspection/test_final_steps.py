"""The filters in NumPy against the network's own detection stage, at many thresholds."""

from dataclasses import replace

import numpy as np
import pytest

from maskrcnn.inspection.final_steps import Candidates, compose, find_candidates, rows_of_detections


@pytest.fixture(scope="module")
def candidates(run):
    return find_candidates(run)


@pytest.mark.parametrize("score", [0.0, 0.3, 0.5, 0.9, 0.999, 1.0])
@pytest.mark.parametrize("nms", [0.0, 0.1, 0.5, 0.9, 1.0])
def test_the_network_finds_the_same(run_at, candidates, score, nms):
    tensors = run_at(score, nms).tensors
    found = compose(candidates, score, nms)
    count = int(tensors["num_detections"])
    assert len(found.final) == count
    np.testing.assert_array_equal(candidates.class_ids[found.final], tensors["class_ids"][:count])
    np.testing.assert_array_equal(candidates.scores[found.final], tensors["scores"][:count])
    np.testing.assert_allclose(candidates.boxes[found.final], tensors["detected_boxes"][:count], atol=1e-6)


def test_numbers_at_the_models_thresholds(run, candidates, detect_at):
    found = compose(candidates, run.score_threshold, run.nms_threshold)
    probs = run.tensors["class_probs"]
    objects = [row for row in range(len(probs)) if probs[row].argmax() != 0]
    confident = [row for row in objects if probs[row].max() >= np.float32(run.score_threshold)]
    found_by_the_network = len(detect_at(run.score_threshold, run.nms_threshold))
    assert found.numbers == {
        "proposals": 200,
        "not_background": len(objects),
        "confident": len(confident),
        "after_nms": found_by_the_network,
        "final": found_by_the_network,
    }
    assert sum(before for before, _ in found.per_class.values()) == len(confident)
    assert sum(after for _, after in found.per_class.values()) == len(found.kept)


def test_no_more_than_the_limit(candidates):
    everything = compose(candidates, 0.0, 1.0)
    limited = compose(replace(candidates, max_detections=3), 0.0, 1.0)
    assert len(everything.kept) > 3
    np.testing.assert_array_equal(limited.final, everything.kept[:3])


def test_boxes_without_area_are_dropped_only_on_request(candidates):
    flat = candidates.boxes.copy()
    flat[0, 2] = flat[0, 0]
    dropped = compose(replace(candidates, boxes=flat, drop_empty=True), 0.0, 1.0)
    kept = compose(replace(candidates, boxes=flat, drop_empty=False), 0.0, 0.0)
    assert 0 not in dropped.confident
    assert 0 in kept.final  # it neither suppresses nor is suppressed


def test_a_result_may_be_empty(candidates):
    found = compose(candidates, 1.1, 0.5)
    assert (len(found.final), found.per_class) == (0, {})


def by_hand(boxes, scores, class_ids=None, **options):
    """Make candidates from plain lists."""
    count = len(scores)
    settings = {"drop_empty": False, "max_detections": 100, "above": False} | options
    boxes = np.array(boxes, np.float32)
    classes = np.ones(count, np.int32) if class_ids is None else np.array(class_ids, np.int32)
    return Candidates(count, boxes, boxes, classes, np.array(scores, np.float32), **settings)


def test_a_score_that_equals_the_threshold_counts():
    # 0.7 as float32 is below 0.7: the threshold is rounded as in the network.
    assert compose(by_hand([[0, 0, 0.1, 0.1]], [0.7]), 0.7, 0.5).numbers["confident"] == 1
    assert compose(by_hand([[0, 0, 0.1, 0.1]], [0.7], above=True), 0.7, 0.5).numbers["confident"] == 0


def test_an_overlap_that_equals_the_threshold_does_not_suppress():
    pair = by_hand([[0, 0, 1, 1], [0, 0, 0.5, 1]], [0.9, 0.8])
    assert len(compose(pair, 0, 0.5).final) == 2
    assert len(compose(pair, 0, 0.49).final) == 1


def test_only_boxes_of_one_class_suppress_each_other():
    pair = [[0, 0, 1, 1], [0, 0, 1, 1]]
    assert len(compose(by_hand(pair, [0.9, 0.8], [1, 2]), 0, 0.5).final) == 2
    assert compose(by_hand(pair, [0.9, 0.8], [2, 2]), 0, 0.5).per_class == {2: (2, 1)}


def test_equal_scores_keep_the_order_of_the_proposals(run):
    probs = np.zeros_like(run.tensors["class_probs"])
    probs[:, 1] = 0.75
    equal = find_candidates(replace(run, tensors={**run.tensors, "class_probs": probs}))
    np.testing.assert_array_equal(equal.rois, run.tensors["proposals"])


def test_each_detection_is_one_candidate(run, candidates):
    rows = rows_of_detections(run, candidates)
    assert len(set(rows.tolist())) == len(rows) == int(run.tensors["num_detections"])
    np.testing.assert_array_equal(rows, compose(candidates, run.score_threshold, run.nms_threshold).final)
