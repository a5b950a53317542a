"""The score of an image: matches, missed objects, false positives, crowds."""

import numpy as np
import pytest

from maskrcnn.data.records import Dataset, Instance, Record
from maskrcnn.evaluation.picture_score import score_picture, score_pictures, shown
from maskrcnn.evaluation.results import ScoredResult
from runtime.masks.rle import encode_crop

SIZE = (30, 100)


def span(first, last, rows=(5, 25)):
    """A mask that covers some columns."""
    return encode_crop(np.ones((rows[1] - rows[0], last - first), bool), (rows[0], first), SIZE)


def object_(first, last, class_id=1, crowd=False):
    return Instance(class_id, span(first, last), crowd)


def guess(first, last, score=0.9, class_id=1):
    return ScoredResult(class_id, score, (first, 5, last - first, 20), span(first, last))


def score(objects, predictions):
    return score_picture("x", objects, predictions)


def test_found_missed_and_false():
    result = score([object_(0, 10), object_(20, 30), object_(40, 50)], [guess(0, 8), guess(60, 70), guess(19, 31)])
    assert result.objects == ("found", "found", "missed")
    assert result.predictions == ("found", "false", "found")
    assert (result.found, result.missed, result.false) == (2, 1, 1)
    assert result.score == pytest.approx((8 / 10 + 10 / 12) / 4)
    assert result.to_dict() == {"image_id": "x", "score": 0.4083, "found": 2, "missed": 1, "false": 1}


def test_each_object_is_found_once_and_by_the_best_score():
    result = score([object_(0, 10)], [guess(0, 8, 0.9), guess(0, 10, 0.8)])
    assert (result.predictions, result.score) == (("found", "false"), pytest.approx(0.8 / 2))


def test_the_largest_iou_wins():
    result = score([object_(0, 10), object_(2, 12)], [guess(1, 12), guess(0, 10)])
    assert result.objects == ("found", "found")
    assert result.score == pytest.approx((10 / 11 + 1) / 2)


def test_an_iou_of_one_half_is_enough():
    assert score([object_(0, 10)], [guess(0, 5)]).found == 1
    assert score([object_(0, 11)], [guess(0, 5)]).found == 0


def test_classes_must_agree():
    assert score([object_(0, 10, 2)], [guess(0, 10)]).score == 0


def test_crowds_are_neither_missed_nor_do_they_hide_objects():
    crowd = object_(0, 40, crowd=True)
    result = score([crowd, object_(10, 20)], [guess(10, 20), guess(30, 50), guess(31, 51), guess(0, 40, class_id=2)])
    assert result.objects == ("ignored", "found")
    assert result.predictions == ("found", "ignored", "false", "false")  # half in the crowd, less than half
    assert result.score == pytest.approx(1 / 3)
    assert score([crowd], []).score == 1


def test_empty_pictures_and_empty_masks():
    assert score([], []).score == 1
    assert score([], [guess(0, 10)]).score == 0
    assert score([object_(0, 10)], []).score == 0
    empty = span(0, 0)
    assert score([Instance(1, empty)], [guess(0, 10)]).score == 0
    assert score([object_(0, 100, crowd=True)], [ScoredResult(1, 0.9, (0, 0, 0, 0), empty)]).predictions == ("false",)


def test_low_scores_are_left_out():
    listed = [guess(0, 1, 0.5), guess(1, 2, 0.49), guess(2, 3, 0.8), guess(3, 4, 0.5)]
    assert [each.box[0] for each in shown(listed, 0.5)] == [2, 0, 3]


def test_pictures_of_a_dataset(world):
    scores = score_pictures(world.dataset, world.results)
    assert [each.image_id for each in scores] == [record.image_id for record in world.dataset.records]
    crowds = sum(each.crowd for record in world.dataset.records for each in record.instances)
    assert sum(each.found + each.missed for each in scores) == len(world.file["annotations"]) - crowds
    kept = sum(each["score"] >= 0.5 for each in world.results)
    assert sum(len(each.predictions) for each in scores) == kept
    assert all(each.objects.count("found") == each.predictions.count("found") for each in scores)


def test_scores_do_not_need_a_picture():
    def fail():
        raise AssertionError

    assert score_pictures(Dataset("x", ("BG", "a"), (Record(1, fail, (object_(0, 10),)),)), [])[0].missed == 1
