"""Runs that keep the stage boundary tensors of a checkpoint and of artifacts."""

import numpy as np
import pytest

from maskrcnn.intermediates.artifact_run import ArtifactStages, placement_rows
from maskrcnn.intermediates.prepared import shown
from maskrcnn.intermediates.stage_run import ModelStages
from maskrcnn.model import Stages
from runtime import Predictor
from runtime.errors import ArtifactError


def assert_equal_detections(found, expected, tolerance):
    assert len(found) == len(expected) > 0
    np.testing.assert_array_equal(found.class_ids, expected.class_ids)
    np.testing.assert_allclose(found.scores, expected.scores, atol=tolerance)
    np.testing.assert_allclose(found.boxes, expected.boxes, atol=1e-2)
    np.testing.assert_allclose(found.mask_probabilities, expected.mask_probabilities, atol=10 * tolerance)


def test_the_result_is_that_of_the_predictor(run, detect_at):
    assert_equal_detections(run.detections, detect_at(), 1e-5)
    assert set(run.tensors) == set(Stages._fields)


@pytest.mark.parametrize("kind", ["onnx_artifact", "savedmodel_artifact"])
def test_an_artifact_shows_the_same_tensors(kind, run, picture, request):
    predictor = Predictor(request.getfixturevalue(kind), "cpu")
    stages = ArtifactStages(predictor)
    found = stages.run(picture)
    assert found.config == run.config
    assert set(found.tensors) == set(run.tensors)
    for name in ("p2", "p6", "rpn_probs", "proposals", "class_probs", "masks"):
        np.testing.assert_allclose(found.tensors[name], run.tensors[name], atol=2e-4, err_msg=name)
    assert_equal_detections(found.detections, predictor(picture), 1e-5)
    assert stages.masks(found, found.tensors["detected_boxes"], found.tensors["class_ids"]) is None


@pytest.mark.parametrize("kind", ["onnx_artifact", "savedmodel_artifact"])
def test_time_by_operator_on_a_picture(kind, picture, request):
    placement = Predictor(request.getfixturevalue(kind), "cpu").explain(picture)
    rows = placement_rows(placement)
    times = [milliseconds for *_, milliseconds in rows]
    assert times == sorted(times, reverse=True)
    assert times[0] > 1.0
    assert any("Conv" in operator for _, operator, *_ in rows[:3])  # on a busy machine, another may take longer
    assert sum(count for _, _, count, _ in rows) == sum(placement.counts.values())


def test_an_artifact_without_configuration_is_refused(onnx_artifact):
    from dataclasses import replace

    predictor = Predictor(onnx_artifact, "cpu")
    predictor.metadata = replace(predictor.metadata, config={})
    with pytest.raises(ArtifactError, match="export it again"):
        ArtifactStages(predictor)


def test_anchor_levels_by_counting_cells(run, demo):
    height, width = run.image.shape[:2]
    expected = [
        level
        for level, stride in zip(range(2, 7), demo.config.model.backbone_strides, strict=True)
        for _ in range((height // stride) * (width // stride) * 3)
    ]
    assert run.anchor_levels.tolist() == expected
    assert len(run.anchors) == len(expected)


def test_frames(run):
    whole = np.array([[0, 0, 1, 1]], np.float32)
    height, width = run.image.shape[:2]
    np.testing.assert_allclose(run.to_input(whole), [[0, 0, width, height]])
    y1, x1, y2, x2 = run.letterbox.window
    window = np.array([[y1, x1, y2 - 1, x2 - 1]], np.float32) / np.array([height - 1, width - 1] * 2, np.float32)
    np.testing.assert_allclose(run.to_picture(window), [[0, 0, 480, 360]], atol=1e-3)


def test_masks_of_a_run_are_those_of_its_detections(runner, run):
    count = int(run.tensors["num_detections"])
    found = runner.masks(run, run.tensors["detected_boxes"][:count], run.tensors["class_ids"][:count])
    np.testing.assert_allclose(found, run.tensors["masks"][:count], atol=1e-5)


def test_thresholds_can_be_given(demo, picture):
    strict = ModelStages(demo, score_threshold=1.0).run(picture)
    assert len(strict.detections) == 0
    assert (strict.score_threshold, strict.nms_threshold) == (1.0, demo.config.detection.nms_threshold)


@pytest.mark.parametrize("channels", [1, 3, 4, 6])
def test_pictures_of_any_channels_can_be_shown(channels):
    picture = np.full((4, 5, channels), 7, np.uint8)
    assert shown(picture).shape == (4, 5, 3)
