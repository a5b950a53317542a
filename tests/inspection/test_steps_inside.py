"""Boxes, masks, activations: steps 2, 3 and 4 show what the network computed."""

from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf

from maskrcnn.errors import ConfigError
from maskrcnn.inspection.box_refinement import final_refinement, refinement_numbers, refinement_scene
from maskrcnn.inspection.final_steps import find_candidates
from maskrcnn.inspection.mask_generation import mask_strip, strip_facts
from maskrcnn.intermediates.activations import Activation, layer_activations, mosaic, stage_activations
from maskrcnn.intermediates.color_map import color_map
from maskrcnn.training.evaluator import Evaluator


def test_refinement_numbers_by_hand(run):
    candidates = find_candidates(run)
    numbers = refinement_numbers(run, candidates)
    probs = run.tensors["class_probs"]
    names = run.config.model.class_names
    best = [names[row.argmax()] for row in probs if row.argmax()]
    assert numbers["candidates"] == len(best)
    assert numbers["per_class"] == {name: best.count(name) for name in set(best)}
    side = run.image.shape[0] - 1
    before, after = (boxes.astype(float) * side for boxes in (candidates.rois, candidates.boxes))
    shifts = [
        np.hypot((a[0] + a[2] - b[0] - b[2]) / 2, (a[1] + a[3] - b[1] - b[3]) / 2)
        for a, b in zip(after, before, strict=True)
    ]
    assert numbers["median_shift"] == pytest.approx(np.median(shifts), rel=1e-4)


def test_refinement_scene_pairs_dotted_with_solid(run, sample):
    candidates = find_candidates(run)
    scene = refinement_scene(run, candidates, sample.boxes, per_class=3)
    dotted = [shape for shape in scene.shapes if shape.dotted]
    assert len(scene.shapes) == 2 * len(dotted) == 2 * 9  # three classes
    assert {shape.group for shape in dotted} == {"square", "circle", "triangle"}
    assert all({"score", "class", "level", "IoU"} <= set(shape.facts) for shape in scene.shapes)


def test_the_refinement_of_the_detections_alone(run, sample):
    """One pair of boxes per detection; the solid one is where the detection is, the dotted one a proposal."""
    scene = final_refinement(run, find_candidates(run), sample.boxes)
    detections = run.detections
    dotted, solid = scene.shapes[::2], scene.shapes[1::2]
    assert [shape.dotted for shape in scene.shapes] == [True, False] * len(detections)
    assert len({shape.color for shape in scene.shapes}) == len(detections) == 7
    proposals, boxes = (
        (run.tensors[name] * (run.image.shape[0] - 1) + [0, 0, 1, 1])[:, [1, 0, 3, 2]]
        for name in ("proposals", "detected_boxes")
    )
    moved = []
    for row, (before, after) in enumerate(zip(dotted, solid, strict=True)):
        assert before.color == after.color
        assert after.label.startswith(f"{row + 1} {detections.names[row]} {detections.scores[row]:.2f}")
        np.testing.assert_allclose(after.box, boxes[row], atol=1e-2)
        assert np.abs(proposals - before.box).max(axis=1).min() < 1e-3
        y, x = ((after.box[i] + after.box[i + 2] - before.box[i] - before.box[i + 2]) / 2 for i in (1, 0))
        moved.append(np.hypot(y, x))
        assert after.facts["moved"] == f"{moved[-1]:.1f} pixels"
    numbers = refinement_numbers(run, find_candidates(run))
    assert numbers["kept"] == 7
    assert numbers["kept_median_shift"] == pytest.approx(np.median(moved), rel=1e-4)


def test_no_detections_no_refinement(run_at, sample):
    nothing = run_at(1.0)
    candidates = find_candidates(nothing)
    assert final_refinement(nothing, candidates, sample.boxes).shapes == []
    numbers = refinement_numbers(nothing, candidates)
    assert (numbers["kept"], numbers["kept_median_shift"]) == (0, None)
    assert numbers["candidates"] > 0


def test_a_mask_strip_has_the_probabilities_in_its_middle(run):
    detections = run.detections
    strip = np.asarray(mask_strip(run, detections, 2))
    assert strip.shape == (112, 3 * 112 + 8, 3)
    middle = strip[2::4, 116 + 2 : 116 + 112 : 4]  # one pixel of each of the 28 x 28 cells
    np.testing.assert_array_equal(middle, color_map(detections.mask_probabilities[2]))
    facts = strip_facts(detections, 2)
    assert facts["area"] == f"{detections.masks[2].sum()} px"
    unsure = np.mean((detections.mask_probabilities[2] > 0.1) & (detections.mask_probabilities[2] < 0.9))
    assert facts["unsure"] == f"{unsure:.0%}"


def test_dead_and_saturated_channels():
    values = np.random.default_rng(0).random((10, 10, 5)).astype(np.float32)
    values[..., 1] = 0.0
    values[..., 2] = 7.5
    values[..., 3] = 4.0
    values[0, 0, 3] = 0.0  # 99 of 100 values at the upper end
    values[..., 4] = 4.0
    values[0, :2, 4] = 0.0  # 98 of 100
    found = Activation("x", values)
    assert found.dead == [1, 2]
    assert found.saturated == [3]
    assert found.numbers["shape"] == [10, 10, 5]
    framed = np.asarray(mosaic(found))
    assert ((framed == (255, 60, 60)).all(axis=-1)).any()
    assert ((framed == (255, 170, 30)).all(axis=-1)).any()
    sound = np.asarray(mosaic(Activation("x", values[..., :1])))
    assert not ((sound == (255, 60, 60)).all(axis=-1)).any()


def test_layers_answer_as_in_the_network(demo, run):
    found = {each.name: each.values for each in layer_activations(demo, run, ["mrcnn_mask_deconv", "fpn_p3"])}
    stages = demo.backbone(demo.mold(tf.constant(run.image[None])))
    for level, stage in enumerate(stages, 2):
        np.testing.assert_allclose(found[f"C{level}"], stage.numpy()[0], atol=1e-4)
    np.testing.assert_allclose(found["fpn_p3"], run.tensors["p3"], atol=2e-4)
    assert found["mrcnn_mask_deconv"].shape == (4 * 28, 28, demo.config.model.mask_head_channels)
    assert (found["rpn_conv_shared on P4"] >= 0).all()
    names = [each.name for each in stage_activations(run)]
    assert names == ["P2", "P3", "P4", "P5", "P6", "box head crops", "mask head crops"]
    np.testing.assert_array_equal(stage_activations(run)[1].values, run.tensors["p3"])


def test_an_unknown_layer_is_named(demo, run):
    with pytest.raises(ConfigError, match="no layer 'res9z'"):
        layer_activations(demo, run, ["res9z"])


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 40, 70), (200, 3, 2)])
def test_mosaics_of_any_shape(shape):
    image = mosaic(Activation("x", np.zeros(shape, np.float32)))
    assert min(image.size) > 3


def test_colors_grow_brighter_evenly():
    colors = color_map(np.linspace(0, 1, 101)).astype(float)
    brightness = colors @ [0.2126, 0.7152, 0.0722]
    assert (np.diff(brightness) > 0).all()
    assert np.diff(brightness).max() < 4 * np.diff(brightness).min()
    np.testing.assert_array_equal(color_map(np.array([-1.0, 2.0])), colors[[0, -1]])


def test_training_shows_the_activations_of_the_network_as_it_is(demo, record, run):
    found = {each.name: each.values for each in Evaluator(demo).activations(record)}
    assert {"C2", "C5", "P2", "P6", "rpn_conv_shared on P4", "mask head crops"} <= set(found)
    np.testing.assert_allclose(found["P3"], run.tensors["p3"], atol=2e-4)


def test_the_ratio_of_areas_is_after_by_before(run):
    candidates = find_candidates(run)
    grown = replace(candidates, boxes=candidates.rois * np.array([0.5, 0.5, 1.0, 1.0], np.float32))
    assert refinement_numbers(run, grown)["median_growth"] > 1


def test_one_value_is_no_dead_channel():
    assert Activation("x", np.zeros((1, 1, 3), np.float32)).dead == []
    assert Activation("x", np.zeros((1, 2, 3), np.float32)).dead == [0, 1, 2]


def test_every_layer_can_be_shown(demo, run):
    names = [layer.name for part in demo.parts for layer in part.layers if "input" not in layer.name]
    shown = [name for name in names if name not in ("rpn_features", "box_crops", "mask_crops")]
    for each in layer_activations(demo, run, [*shown[::5], "mrcnn_bbox", "mrcnn_class_logits", "pool_squeeze"]):
        assert each.values.ndim == 3
        assert min(mosaic(each).size) > 3


def test_the_mask_head_has_nothing_to_show_without_detections(demo, run_at):
    nothing = run_at(1.0)
    names = [each.name for each in layer_activations(demo, nothing, ["mrcnn_mask_deconv", "fpn_p3"])]
    assert names[-1] == "fpn_p3"
    assert "mrcnn_mask_deconv" not in names
    assert "mask head crops" not in [each.name for each in stage_activations(nothing)]
