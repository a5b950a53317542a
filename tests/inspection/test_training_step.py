"""What a training step samples, and the deltas of both stages, against NumPy."""

from dataclasses import replace

import numpy as np
import pytest

from maskrcnn.inspection.anchor_matches import match_anchors
from maskrcnn.inspection.box_refinement import BoxDeltas, head_deltas, rpn_deltas
from maskrcnn.inspection.scene import NEGATIVE
from maskrcnn.inspection.step_blocks import delta_blocks, roi_blocks
from maskrcnn.inspection.training_step import roi_scenes, target_strip, training_step


@pytest.fixture(scope="module")
def step(demo, sample):
    return training_step(demo, sample)


@pytest.fixture(scope="module")
def matches(run, sample):
    return match_anchors(run, sample)


def overlaps_of(box, others):
    """IoU of a box x1, y1, x2, y2 with others [N, 4]."""
    low, high = np.maximum(others[:, :2], box[:2]), np.minimum(others[:, 2:], box[2:])
    shared = np.clip(high - low, 0, None).prod(axis=1)
    return shared / ((others[:, 2:] - others[:, :2]).prod(axis=1) + (box[2:] - box[:2]).prod() - shared)


def deltas_of(box, target, std):
    """The deltas dy, dx, dh, dw from one box x1, y1, x2, y2 to another, in units of `std`."""
    width, height = box[2] - box[0], box[3] - box[1]
    to_width, to_height = target[2] - target[0], target[3] - target[1]
    dy = ((target[1] + target[3]) - (box[1] + box[3])) / 2 / height
    dx = ((target[0] + target[2]) - (box[0] + box[2])) / 2 / width
    return np.array([dy, dx, np.log(to_height / height), np.log(to_width / width)]) / std


def corners_of(sample):
    return sample.boxes[:, [1, 0, 3, 2]].astype(float)


def test_what_is_sampled_is_what_the_overlaps_say(step, sample, demo):
    training, numbers = demo.config.training, step.numbers
    objects, count = corners_of(sample), len(step.deltas)
    # The network's boxes end at the last pixel, not behind it.
    best = np.array([overlaps_of(roi - [0, 0, 1, 1], objects - [0, 0, 1, 1]).max() for roi in step.rois])
    np.testing.assert_allclose(step.overlaps, best, atol=1e-4)
    assert (best[:count] >= 0.5 - 1e-4).all()
    assert (best[count:] < 0.5 + 1e-4).all()
    classes = [int(sample.class_ids[overlaps_of(roi, objects).argmax()]) for roi in step.rois[:count]]
    assert step.class_ids.tolist() == classes + [0] * (len(step.rois) - count)
    names = demo.config.model.class_names
    assert numbers["sampled"] == len(step.rois) == training.rois_per_image
    assert numbers["positive"] == count > 0
    assert numbers["negative"] == training.rois_per_image - count
    assert numbers["positive_ratio"] == pytest.approx(count / training.rois_per_image)
    assert numbers["positive_ratio"] <= training.roi_positive_ratio
    expected = {name: classes.count(class_id) for class_id, name in enumerate(names)}
    assert numbers["per_class"] == expected | {"BG": training.rois_per_image - count}


def test_targets_of_the_heads(step, sample, demo, run):
    """Deltas and moves by the formula; predictions as the network gives them where it has the same proposals."""
    std, objects = np.array(demo.config.model.box_std), corners_of(sample)
    for row, delta in enumerate(step.deltas):
        target = objects[overlaps_of(step.rois[row], objects).argmax()]
        shrink = np.array([0, 0, 1, 1])
        expected = deltas_of(step.rois[row] - shrink, target - shrink, std)
        np.testing.assert_allclose(delta, expected, atol=1e-3)
        np.testing.assert_allclose(step.moved[row], target, atol=1e-2)
    proposals = run.to_input(run.tensors["proposals"])
    shared = 0
    for roi, class_id, predicted in zip(step.rois, step.class_ids, step.predicted, strict=False):
        distances = np.abs(proposals - roi).max(axis=1)
        if distances.min() < 1e-3:
            shared += 1
            np.testing.assert_allclose(predicted, run.tensors["box_deltas"][distances.argmin(), class_id], atol=1e-2)
    assert shared > 5


def test_mask_targets_are_the_objects_in_their_proposals(step):
    assert len(step.masks) == len(step.deltas)
    assert set(np.unique(step.masks)) <= {0.0, 1.0}
    assert step.masks.any(axis=(1, 2)).all()
    assert np.asarray(target_strip(step, 0)).shape == (112, 2 * 112 + 4, 3)


def test_scenes_of_the_sampled_proposals(step, sample):
    positive, negative = roi_scenes(step)
    count, objects = len(step.deltas), len(sample.boxes)
    assert len(positive.shapes) == objects + count
    for shape, roi, moved in zip(positive.shapes[objects:], step.rois, step.moved, strict=False):
        assert (shape.box, shape.target) == (tuple(roi), tuple(moved))
    drawn = [shape for shape in negative.shapes if shape.color == NEGATIVE]
    assert len(drawn) == min(60, step.numbers["negative"])
    assert {shape.box for shape in drawn} <= set(map(tuple, step.rois[count:]))
    assert all(float(shape.facts["IoU"]) <= 0.5 for shape in drawn)
    assert f"{step.numbers['negative']} of {len(step.rois)} sampled proposals are background" in negative.caption


def test_deltas_of_the_rpn(run, sample, matches, demo):
    """Targets by the formula, from anchors of the network; statistics by NumPy."""
    deltas = rpn_deltas(run, matches)
    positive, std = np.flatnonzero(matches.match == 1), np.array(demo.config.model.rpn_box_std)
    anchors, objects = run.to_input(run.anchors[positive]), corners_of(sample)
    for anchor, delta in zip(anchors, deltas.targets, strict=True):
        errors = [np.abs(deltas_of(anchor, each, std) - delta).max() for each in objects]
        assert min(errors) < 1e-2
        assert overlaps_of(anchor, objects)[int(np.argmin(errors))] > 0
    numbers, predicted = deltas.numbers, run.tensors["rpn_deltas"].astype(float)
    assert numbers["predictions"]["count"] == len(run.anchors)
    for name, values in (("predictions", predicted), ("answers", predicted[positive]), ("targets", deltas.targets)):
        np.testing.assert_allclose(numbers[name]["mean"], [values[:, i].mean() for i in range(4)], atol=1e-6)
        np.testing.assert_allclose(numbers[name]["std"], [values[:, i].std() for i in range(4)], atol=1e-6)
    errors = np.abs(predicted[positive] - deltas.targets).mean(axis=0)
    np.testing.assert_allclose(numbers["error"], errors, atol=1e-6)
    rows = delta_blocks(deltas, "the RPN", "positive anchors", "all anchors")[1].rows
    assert [row[1] for row in rows] == [str(len(each)) for each in (positive, positive, predicted, positive)]
    shown = np.array([row[2:] for row in rows[:3]], float)
    for row, values in zip(shown, (deltas.targets, predicted[positive], predicted), strict=True):
        np.testing.assert_allclose(row[::2], values.mean(axis=0), atol=5.1e-4)
        np.testing.assert_allclose(row[1::2], values.std(axis=0), atol=5.1e-4)
    np.testing.assert_allclose(np.array(rows[3][2::2], float), errors, atol=5.1e-4)


def test_deltas_of_the_box_head(run, step):
    deltas = head_deltas(run, step)
    probs = run.tensors["class_probs"]
    expected = [run.tensors["box_deltas"][row, each.argmax()] for row, each in enumerate(probs) if each.argmax()]
    np.testing.assert_array_equal(deltas.predictions, expected)
    numbers = deltas.numbers
    assert numbers["targets"]["count"] == numbers["answers"]["count"] == step.numbers["positive"]
    np.testing.assert_allclose(numbers["targets"]["mean"], step.deltas.astype(float).mean(axis=0), atol=1e-6)


def test_without_annotations_there_are_only_predictions(run):
    for deltas in (rpn_deltas(run), head_deltas(run)):
        assert list(deltas.groups) == ["predictions"]
        charts, table = delta_blocks(deltas, "the RPN", "positive anchors", "all anchors")
        assert len(charts.charts) == len(table.rows) == 1
        assert "error" not in deltas.numbers


def test_an_image_without_objects(run, sample, demo):
    """It has no positives: everything is background, and there are no means of nothing."""
    empty = replace(sample, class_ids=sample.class_ids[:0], boxes=sample.boxes[:0], crops=[])
    step, count = training_step(demo, empty), demo.config.training.rois_per_image
    numbers = step.numbers
    assert (numbers["sampled"], numbers["positive"], numbers["negative"]) == (count, 0, count)
    assert numbers["positive_ratio"] == 0
    assert numbers["per_class"] == {"BG": count, "square": 0, "circle": 0, "triangle": 0}
    assert [len(scene.shapes) for scene in roi_scenes(step)] == [0, min(60, count)]
    assert len(roi_blocks(step, 0.33)[0]) == 3
    for deltas in (head_deltas(run, step), rpn_deltas(run, match_anchors(run, empty))):
        assert deltas.numbers["targets"] == {"count": 0, "mean": None, "std": None}
        assert deltas.numbers["error"] is None
        charts, table = delta_blocks(deltas, "it", "positives", "others")
        assert len(charts.charts) == len(table.rows) == 1


def test_proposals_in_a_crowd_are_neither(sample, demo):
    """With all objects but the smallest as one crowd each, no negative proposal touches a crowd."""
    sizes = (corners_of(sample)[:, 2:] - corners_of(sample)[:, :2]).prod(axis=1)
    class_ids = np.where(np.arange(len(sizes)) == sizes.argmin(), sample.class_ids, -sample.class_ids)
    crowded = replace(sample, class_ids=class_ids.astype(np.int32))
    step = training_step(demo, crowded)
    crowds, count = corners_of(sample)[class_ids < 0], len(step.deltas)
    assert len(step.rois) < demo.config.training.rois_per_image
    for roi in step.rois[count:]:
        assert overlaps_of(roi, crowds).max() < 0.01
    assert set(step.class_ids[:count].tolist()) <= {int(sample.class_ids[sizes.argmin()])}


def test_objects_that_training_drops_are_not_there(sample, demo, monkeypatch):
    """Of more objects than `training.max_instances`, some are dropped; overlaps and drawn objects are of the others."""
    training = replace(demo.config.training, max_instances=2, truth_as_proposals=False)
    monkeypatch.setattr(demo, "config", replace(demo.config, training=training))
    step = training_step(demo, sample)
    kept = corners_of(sample)[[(corners_of(sample) == each).all(axis=1).argmax() for each in step.objects]]
    np.testing.assert_array_equal(step.objects, kept)
    assert len(step.objects) == 2 < len(sample.boxes)
    best = [overlaps_of(roi - [0, 0, 1, 1], kept - [0, 0, 1, 1]).max() for roi in step.rois]
    np.testing.assert_allclose(step.overlaps, best, atol=1e-4)
    positive, negative = roi_scenes(step)
    for scene in (positive, negative):
        assert [list(shape.box) for shape in scene.shapes if "object" in shape.facts] == kept.tolist()
    assert all(float(shape.facts["IoU"]) <= 0.5 for shape in negative.shapes if "IoU" in shape.facts)


def test_boxes_of_the_continuous_frame(demo, record):
    """Overlaps and moves are those of pixel boxes whose far sides are exclusive."""
    from benchmarks.seeded_weights import seed_weights
    from maskrcnn import MaskRCNN
    from maskrcnn.data.sample import load_sample

    model = replace(demo.config.model, box_frame="continuous", roi_sampling="roi_align", objectness="sigmoid")
    training = replace(demo.config.training, truth_as_proposals=True)
    network = MaskRCNN(replace(demo.config, model=model, training=training))
    seed_weights(network, 0)
    sample = load_sample(record, network.config, np.random.default_rng(0), training=False)
    step, objects = training_step(network, sample), corners_of(sample)
    best = [overlaps_of(roi, objects).max() for roi in step.rois]
    np.testing.assert_allclose(step.overlaps, best, atol=1e-5)
    assert len(step.deltas) == int(np.sum(np.array(best) >= 0.5)) >= len(objects)
    for row, (roi, delta) in enumerate(zip(step.rois, step.deltas, strict=False)):
        target = objects[overlaps_of(roi, objects).argmax()]
        np.testing.assert_allclose(delta, deltas_of(roi, target, np.array(model.box_std)), atol=1e-4)
        np.testing.assert_allclose(step.moved[row], target, atol=1e-3)


def test_deltas_of_nothing():
    nothing = BoxDeltas((0.1, 0.1, 0.2, 0.2), np.zeros((0, 4), np.float32))
    assert nothing.numbers == {"predictions": {"count": 0, "mean": None, "std": None}}
    charts, table = delta_blocks(nothing, "it", "positives", "others")
    assert (charts.charts, table.rows) == ([], [])
