"""The filters in NumPy against the network's own last step, at many thresholds."""

import numpy as np
import pytest

from maskrcnn.evaluation.predict import CheckpointPredictor
from maskrcnn.inspection.final_steps import compose, find_candidates
from maskrcnn.inspection.stage_run import ModelStages


@pytest.fixture(scope="module")
def candidates(run):
    return find_candidates(run)


@pytest.mark.parametrize("score", [0.0, 0.3, 0.5, 0.9, 0.999, 1.0])
@pytest.mark.parametrize("nms", [0.0, 0.1, 0.5, 0.9, 1.0])
def test_the_network_finds_the_same(demo, picture, candidates, score, nms):
    tensors = ModelStages(demo, score, nms).run(picture).tensors
    found = compose(candidates, score, nms)
    count = int(tensors["num_detections"])
    assert len(found.final) == count
    np.testing.assert_array_equal(candidates.class_ids[found.final], tensors["class_ids"][:count])
    np.testing.assert_array_equal(candidates.scores[found.final], tensors["scores"][:count])
    np.testing.assert_allclose(candidates.boxes[found.final], tensors["detected_boxes"][:count], atol=1e-6)


def test_numbers_at_the_models_thresholds(run, candidates, demo, picture):
    found = compose(candidates, run.score_threshold, run.nms_threshold)
    probs = run.tensors["class_probs"]
    objects = [row for row in range(len(probs)) if probs[row].argmax() != 0]
    confident = [row for row in objects if probs[row].max() >= np.float32(run.score_threshold)]
    predictor = CheckpointPredictor(demo, run.score_threshold, run.nms_threshold)
    assert found.numbers == {
        "proposals": 200,
        "not_background": len(objects),
        "confident": len(confident),
        "after_nms": len(predictor(picture)),
        "final": len(predictor(picture)),
    }
    assert sum(before for before, _ in found.per_class.values()) == len(confident)
    assert sum(after for _, after in found.per_class.values()) == len(found.kept)


def test_no_more_than_the_limit(candidates):
    from dataclasses import replace

    everything = compose(candidates, 0.0, 1.0)
    limited = compose(replace(candidates, max_detections=3), 0.0, 1.0)
    assert len(everything.kept) > 3
    np.testing.assert_array_equal(limited.final, everything.kept[:3])


def test_boxes_without_area_go_only_when_told(candidates):
    from dataclasses import replace

    flat = candidates.boxes.copy()
    flat[0, 2] = flat[0, 0]
    dropped = compose(replace(candidates, boxes=flat, drop_empty=True), 0.0, 1.0)
    kept = compose(replace(candidates, boxes=flat, drop_empty=False), 0.0, 0.0)
    assert 0 not in dropped.confident
    assert 0 in kept.final  # it neither suppresses nor is suppressed


def test_nothing_is_a_result_too(candidates):
    found = compose(candidates, 1.1, 0.5)
    assert (len(found.final), found.per_class) == (0, {})
