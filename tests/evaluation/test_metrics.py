"""Matterport's metrics: equal to the original, and defined where the original divides by zero."""

import golden
import numpy as np
import oracles
import pytest

from maskrcnn.evaluation.metrics import (
    average_precision,
    average_precision_range,
    box_iou,
    mask_iou,
    match_detections,
    recall,
)
from maskrcnn.evaluation.picture_ap import mean_picture_ap
from runtime.masks.rle import decode


@pytest.fixture(scope="module")
def genuine():
    return golden.load("metrics_seed0")


def inputs(arrays):
    names = ("gt_boxes", "gt_class_ids", "gt_masks", "pred_boxes", "pred_class_ids", "pred_scores", "pred_masks")
    return [arrays[name] for name in names]


def test_mask_iou(genuine):
    ours = mask_iou(genuine["pred_masks"][..., :-1], genuine["gt_masks"][..., :-1])
    assert ours.dtype == np.float32
    np.testing.assert_array_equal(ours, genuine["overlaps_masks"])


@pytest.mark.parametrize("threshold", [0.5, 0.75])
def test_matches_and_average_precision(genuine, threshold):
    prefix = f"{100 * threshold:.0f}"
    matches = match_detections(*inputs(genuine), threshold)
    np.testing.assert_array_equal(matches.gt_match, genuine[f"match{prefix}_gt"])
    np.testing.assert_array_equal(matches.pred_match, genuine[f"match{prefix}_pred"])
    result = average_precision(*inputs(genuine), threshold)
    assert result.ap == genuine[f"ap{prefix}"]
    np.testing.assert_array_equal(result.precisions, genuine[f"ap{prefix}_precisions"])
    np.testing.assert_array_equal(result.recalls, genuine[f"ap{prefix}_recalls"])
    np.testing.assert_array_equal(result.overlaps, matches.overlaps)


def test_average_precision_range(genuine):
    assert average_precision_range(*inputs(genuine)) == genuine["ap_range_default"]
    assert average_precision_range(*inputs(genuine), [0.3, 0.6]) == genuine["ap_range_custom"]


@pytest.mark.parametrize("iou", [0.3, 0.5, 0.7])
def test_recall(genuine, iou):
    value, rows = recall(genuine["pred_boxes"][:-1], genuine["gt_boxes"][:-1], iou)
    name = f"recall{10 * iou:.0f}"
    assert value == genuine[name]
    np.testing.assert_array_equal(rows, genuine[f"{name}_ids"])


def test_box_iou_is_matterports():
    boxes = golden.load("boxes_seed0")
    assert (boxes["ov_iou_graph"] > 0).mean() > 0.3
    np.testing.assert_allclose(
        box_iou(boxes["ov_boxes1"], boxes["ov_boxes2"]), boxes["ov_iou_graph"], rtol=0, atol=5e-7
    )


def test_box_iou_of_no_boxes():
    assert box_iou(np.zeros((0, 4)), np.ones((3, 4))).shape == (0, 3)


def test_box_iou_of_random_boxes():
    rng = np.random.default_rng(0)
    corners = np.sort(rng.integers(0, 20, (30, 2, 2)), axis=1)  # some are empty
    boxes, others = corners.reshape(-1, 4)[:18], corners.reshape(-1, 4)[18:]
    expected = [[oracles.iou(a, b) for b in others] for a in boxes]
    assert np.count_nonzero(expected) > 20
    np.testing.assert_allclose(box_iou(boxes, others), expected, rtol=1e-15, atol=0)


def case(objects, predictions):
    """Masks of one row of pixels: objects are (class, first, last), predictions have a score too."""

    def masks(spans):
        result = np.zeros((1, 100, len(spans)), bool)
        for i, (first, last) in enumerate(spans):
            result[0, first:last, i] = True
        return result

    gt = [each[1:3] for each in objects]
    pred = [each[1:3] for each in predictions]
    return (
        np.array([[0, a, 1, b] for a, b in gt]).reshape(-1, 4),
        np.array([each[0] for each in objects], int),
        masks(gt),
        np.array([[0, a, 1, b] for a, b in pred]).reshape(-1, 4),
        np.array([each[0] for each in predictions], int),
        np.array([each[3] for each in predictions], float),
        masks(pred),
    )


def test_predictions_take_objects_in_the_order_of_their_scores():
    given = case([(1, 0, 10), (1, 20, 30)], [(1, 0, 9, 0.5), (1, 0, 10, 0.4), (2, 20, 30, 0.9), (1, 20, 26, 0.3)])
    matches = match_detections(*given)
    assert matches.pred_match.tolist() == [-1, 0, -1, 1]  # sorted by score: the wrong class is first
    assert matches.gt_match.tolist() == [1, 3]
    assert average_precision(*given).ap == pytest.approx(0.5 * 0.5 + 0.5 * 0.5)
    assert match_detections(*given, 0.7).gt_match.tolist() == [1, -1]


def test_an_iou_equal_to_the_threshold_matches():
    assert match_detections(*case([(1, 0, 10)], [(1, 0, 5, 0.9)]), 0.5).gt_match.tolist() == [0]


def test_of_equal_scores_the_later_prediction_comes_first():
    matches = match_detections(*case([(1, 0, 10)], [(1, 0, 8, 0.5), (1, 0, 10, 0.5)]))
    assert matches.overlaps[:, 0].tolist() == [1, np.float32(0.8)]


def test_padding_may_stand_anywhere():
    given = case([(1, 0, 10), (1, 20, 30)], [(1, 0, 10, 0.9), (1, 20, 30, 0.8)])
    gt_boxes, gt_ids, gt_masks, *predicted = given
    padded = (
        np.insert(gt_boxes, 1, 0, axis=0),
        np.insert(gt_ids, 1, 1),
        np.insert(gt_masks, 1, True, axis=2),
        *predicted,
    )
    assert average_precision(*padded).ap == average_precision(*given).ap == 1


def test_no_objects_and_no_predictions():
    nothing, found = [], [(1, 0, 10, 0.9)]
    assert average_precision(*case(nothing, nothing)).ap == 1
    assert average_precision(*case(nothing, found)).ap == 0
    assert average_precision(*case([(1, 0, 10)], nothing)).ap == 0
    assert average_precision_range(*case(nothing, found)) == 0
    boxes = np.array([[0, 0, 5, 5]])
    assert recall(boxes, np.zeros((0, 4)), 0.5)[0] == 1
    assert recall(np.zeros((0, 4)), boxes, 0.5)[0] == 0
    assert mask_iou(np.zeros((4, 5, 2), bool), np.zeros((4, 5, 3), bool)).tolist() == [[0] * 3] * 2


def test_mean_over_the_pictures_of_a_dataset(world):
    categories = {category: class_id for class_id, category in world.dataset.category_ids.items()}
    expected = []
    for record in world.dataset.records:
        objects = [each for each in record.instances if not each.crowd]
        found = [each for each in world.results if each["image_id"] == record.image_id]

        def stack(masks):
            decoded = [decode(mask) for mask in masks]
            return np.stack(decoded, axis=-1) if decoded else np.zeros((1, 1, 0), bool)

        value = average_precision(
            np.ones((len(objects), 4)),
            np.array([each.class_id for each in objects]),
            stack([each.mask for each in objects]),
            np.ones((len(found), 4)),
            np.array([categories[each["category_id"]] for each in found]),
            np.array([each["score"] for each in found]),
            stack([each["segmentation"] for each in found]),
        )
        expected.append(value.ap)
    assert len(set(expected)) > 3
    assert mean_picture_ap(world.dataset, world.results) == pytest.approx(np.mean(expected), abs=1e-12)
    assert mean_picture_ap(world.dataset, []) == pytest.approx(1 / len(expected))  # the picture without objects
