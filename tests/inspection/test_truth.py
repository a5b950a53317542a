"""Detections against annotated objects, on a case small enough to check by hand."""

import numpy as np
import pytest

from maskrcnn.data.mask_crops import boxes_of
from maskrcnn.data.records import Instance, Record
from maskrcnn.errors import DatasetError
from maskrcnn.inspection.data_pictures import truth_scene
from maskrcnn.inspection.final_result import detection_levels, difference_scene
from maskrcnn.inspection.truth import compare, truth_of
from runtime.detections import Detections
from runtime.masks.paste import crop_of
from runtime.masks.rle import encode_crop

SIZE = (40, 60)


def filled(*boxes):
    """Make masks [H, W, N] of boxes y1, x1, y2, x2."""
    masks = np.zeros((*SIZE, len(boxes)), np.bool_)
    for row, (y1, x1, y2, x2) in enumerate(boxes):
        masks[y1:y2, x1:x2, row] = True
    return masks


def made_truth(class_ids, masks, crowds=None):
    from maskrcnn.inspection.truth import Truth

    crowds = np.zeros((*SIZE, 0), np.bool_) if crowds is None else crowds
    crowd_ids = np.ones(crowds.shape[-1], np.int32)
    boxes = boxes_of([crop_of(mask) for mask in np.moveaxis(masks, -1, 0)])
    return Truth(np.array(class_ids, np.int32), masks, boxes, crowds, crowd_ids)


def detected(rows):
    """Make detections of (x1, y1, x2, y2, score, class id) whose masks fill their boxes."""
    count = len(rows)
    values = np.array(rows, np.float32).reshape(count, 6)
    return Detections(
        values[:, :4],
        values[:, 4],
        values[:, 5].astype(np.int32),
        np.ones((count, 28, 28), np.float32),
        SIZE,
        ("BG", "cat", "dog"),
        "aligned",
    )


@pytest.fixture(scope="module")
def comparison():
    truth = made_truth([1, 1, 2], filled((0, 0, 10, 10), (20, 0, 30, 10), (0, 20, 10, 30)), filled((20, 30, 40, 60)))
    detections = detected(
        [
            (0, 0, 10, 10, 0.9, 1),  # the first object
            (0, 0, 10, 9, 0.8, 1),  # the first object again
            (20, 0, 30, 10, 0.7, 1),  # a dog classified as a cat
            (45, 0, 55, 10, 0.6, 1),  # nothing
            (35, 25, 45, 35, 0.5, 1),  # in the crowd
            (20, 0, 30, 5, 0.4, 2),  # exactly half of the dog
        ]
    )
    return compare(detections, truth)


def test_outcomes(comparison):
    assert comparison.outcomes == ("match", "duplicate", "wrong class", "false", "crowd", "match")
    assert comparison.partners == (0, -1, -1, -1, -1, 2)
    assert comparison.found.tolist() == [True, False, True]
    assert comparison.overlaps[0].tolist() == [1.0, 0.0, 0.0]
    assert comparison.overlaps[1, 0] == pytest.approx(0.9)
    assert comparison.overlaps[5, 2] == pytest.approx(0.5)


def test_numbers(comparison):
    numbers = comparison.numbers
    assert {
        key: numbers[key] for key in ("objects", "matches", "misses", "duplicates", "wrong_class", "false", "in_crowd")
    } == {
        "objects": 3,
        "matches": 2,
        "misses": 1,
        "duplicates": 1,
        "wrong_class": 1,
        "false": 1,
        "in_crowd": 1,
    }
    # Without the detection in the crowd: hits at ranks 1 and 5 of 5, of three objects: 1/3 * 1 + 1/3 * 2/5.
    assert numbers["ap50"] == pytest.approx(1 / 3 + 2 / 15)
    # At IoU 0.55 and above, only the first counts.
    assert numbers["ap"] == pytest.approx((1 / 3 + 2 / 15 + 9 * (1 / 3)) / 10)


@pytest.mark.parametrize(("objects", "found", "expected"), [(0, 0, None), (0, 1, None), (1, 0, 0.0)])
def test_no_objects_or_no_detections(objects, found, expected):
    truth = made_truth([1] * objects, filled(*[(0, 0, 10, 10)] * objects))
    comparison = compare(detected([(30, 20, 40, 30, 0.9, 1)] * found), truth)
    assert comparison.numbers["ap50"] == expected
    assert comparison.numbers["misses"] == objects
    assert comparison.numbers["false"] == found
    assert comparison.overlaps.shape == (found, objects)


def test_truth_of_a_record(record, run):
    truth = truth_of(record, run)
    assert truth.masks.shape == (360, 480, 7)
    assert sorted(truth.class_ids.tolist()) == [1, 1, 1, 1, 2, 2, 3]
    for row, (y1, x1, y2, x2) in enumerate(truth.boxes.tolist()):
        ys, xs = np.nonzero(truth.masks[..., row])
        assert (y1, x1, y2, x2) == (ys.min(), xs.min(), ys.max() + 1, xs.max() + 1)


def test_crowds_and_empty_masks_are_kept_apart(run):
    size = run.picture.shape[:2]
    solid = encode_crop(np.ones((5, 5), np.bool_), (3, 4), size)
    nothing = encode_crop(np.zeros((5, 5), np.bool_), (3, 4), size)
    record = Record(
        "x", lambda: run.picture, (Instance(1, solid), Instance(2, solid, crowd=True), Instance(3, nothing))
    )
    truth = truth_of(record, run)
    assert (truth.class_ids.tolist(), truth.crowds.shape[-1]) == ([1], 1)


def test_a_mask_of_another_size_is_named(run):
    wrong = Instance(1, encode_crop(np.ones((5, 5), np.bool_), (0, 0), (10, 12)), annotation_id=77)
    with pytest.raises(DatasetError, match=r"480 pixels, the mask of annotation 77 has 10 x 12"):
        truth_of(Record("x", lambda: run.picture, (wrong,)), run)


def test_levels_and_scenes_of_the_demo(run, truth):
    detections = run.detections
    comparison = compare(detections, truth)
    assert comparison.outcomes == ("match",) * 7
    assert all(comparison.best_overlaps > 0.8)
    sides = np.sqrt(np.prod(run.letterbox.scale * (detections.boxes[:, 2:] - detections.boxes[:, :2]), axis=1))
    levels = np.clip(4 + np.round(np.log2(sides / 224)), 2, 5)
    assert detection_levels(run, detections) == [f"P{level:.0f}" for level in levels]
    assert len(truth_scene(run, truth).shapes) == 7
    missing = detections[1:]
    differing = difference_scene(run, missing, truth, compare(missing, truth))
    assert [shape.group for shape in differing.shapes].count("missed") == 1
    assert "7 objects: 6 matched, 1 missed" in differing.caption
    drawn = np.asarray(differing.to_image())
    assert (drawn != np.asarray(truth_scene(run, truth).to_image())).any()


def test_thresholds_are_reached_by_exactly_half():
    truth = made_truth([1], filled((0, 0, 10, 10)), filled((20, 30, 40, 60)))
    rows = [
        (0, 0, 10, 10, 0.9, 1),
        (0, 0, 5, 10, 0.8, 1),  # IoU of exactly one half with the object of the first
        (25, 20, 35, 30, 0.7, 1),  # exactly half of it in the crowd
        (35, 20, 45, 30, 0.6, 2),  # wholly in it, but of another class
    ]
    assert compare(detected(rows), truth).outcomes == ("match", "duplicate", "crowd", "false")


def test_masks_on_scenes_lie_in_their_boxes(run, truth):
    missing = run.detections[2:]
    for scene in (difference_scene(run, missing, truth, compare(missing, truth)), truth_scene(run, truth)):
        for shape in scene.shapes:
            (pixels, (y, x)), (x1, y1, x2, y2) = shape.mask, shape.box
            assert x1 - 1 <= x < x + pixels.shape[1] <= x2 + 1
            assert y1 - 1 <= y < y + pixels.shape[0] <= y2 + 1
