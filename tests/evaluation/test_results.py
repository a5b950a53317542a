"""COCO results: classes by name, category ids of the annotation file, images by id."""

import numpy as np
import pytest

from maskrcnn.data.records import Dataset, Instance, Record, combine
from maskrcnn.errors import DatasetError, DatasetFormatError
from maskrcnn.evaluation.results import by_picture, category_ids, match_classes, picture_results
from runtime.detections import Detections
from runtime.masks.rle import decode, encode_crop

SIZE = (40, 50)
MODEL = ("BG", "dog", "cat", "bird")


def dataset(*names, records=(), category_ids=None):
    return Dataset("pets", ("BG", *names), tuple(records), category_ids or {})


def detections(class_ids):
    count = len(class_ids)
    boxes = np.array([[1.26 + 5 * i, 2, 11.5 + 5 * i, 20.04] for i in range(count)], np.float32).reshape(count, 4)
    scores = np.linspace(0.9, 0.5, count).astype(np.float32)
    masks = np.ones((count, 28, 28), np.float32)
    return Detections(boxes, scores, np.array(class_ids, np.int32), masks, SIZE, MODEL)


def test_categories_are_those_of_the_file_or_free_numbers():
    assert category_ids(dataset("a", "b")) == {1: 1, 2: 2}
    assert category_ids(dataset("a", "b", category_ids={1: 90, 2: 0})) == {1: 90, 2: 0}
    assert category_ids(dataset("a", "b", "c", category_ids={2: 1})) == {1: 2, 2: 1, 3: 3}


def test_classes_are_matched_by_name():
    assert match_classes(MODEL, dataset("cat", "dog")) == {1: 2, 2: 1}
    assert match_classes(MODEL, dataset("bird")) == {3: 1}


def test_a_class_that_the_model_does_not_know():
    with pytest.raises(DatasetError, match=r"pets has classes that .* not have \(fox, owl; it has dog, cat, bird\)"):
        match_classes(MODEL, dataset("fox", "cat", "owl"))
    with pytest.raises(DatasetError, match="it has none"):
        match_classes(("BG",), dataset("cat"))
    with pytest.raises(DatasetError):  # the background is not a class
        match_classes(MODEL, Dataset("pets", ("nothing", "BG"), ()))
    mask = encode_crop(np.ones((2, 2), bool), (0, 0), SIZE)
    record = Record(5, lambda: None, (Instance(1, mask), Instance(2, mask)))
    remedy = combine([dataset("fox", "cat", records=[record], category_ids={1: 7, 2: 9})], MODEL)
    assert match_classes(MODEL, remedy) == {1: 1, 2: 2, 3: 3}
    assert category_ids(remedy)[2] == 9
    assert [each.class_id for each in remedy.records[0].load_instances()] == [2]


def test_results_of_a_picture():
    found = detections([2, 1, 3])
    cats = dataset("bird", "cat", category_ids={1: 16, 2: 17})
    results = picture_results(found, Record("x", lambda: None, ()), match_classes(MODEL, cats), category_ids(cats))
    assert [each["category_id"] for each in results] == [17, 16]  # no dogs
    assert results[1]["bbox"] == [11.26, 2.0, 10.24, 18.04]
    assert results[1]["score"] == pytest.approx(0.5)
    np.testing.assert_array_equal(decode(results[1]["segmentation"]), found.masks[2])


def test_classes_that_are_not_annotated_in_a_picture_are_left_out():
    both = dataset("dog", "cat")
    record = Record(1, lambda: None, (), active_class_ids=frozenset({2}))
    results = picture_results(detections([2, 1]), record, match_classes(MODEL, both), category_ids(both))
    assert [each["category_id"] for each in results] == [2]
    nothing = Record(1, lambda: None, (), active_class_ids=frozenset())
    assert picture_results(detections([2, 1]), nothing, match_classes(MODEL, both), category_ids(both)) == []


def good(**changes):
    mask = encode_crop(np.ones((2, 2), bool), (0, 0), SIZE)
    return {"image_id": "b", "category_id": 9, "bbox": [0, 0, 2, 2], "score": 0.5, "segmentation": mask} | changes


def test_results_by_picture():
    records = [Record(name, lambda: None, ()) for name in ("a", "b")]
    pets = dataset("dog", "cat", records=records, category_ids={1: 4, 2: 9})
    first, second = by_picture(pets, [good(), good(score=1, category_id=4)])
    assert first == []
    assert [(each.class_id, each.score, each.box) for each in second] == [(2, 0.5, (0, 0, 2, 2)), (1, 1, (0, 0, 2, 2))]


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (good(image_id="c"), "result 1 has image 'c'"),
        (good(category_id=1), "category 1; pets does not have"),
        (good(bbox=[1, 2, 3]), "result 1 is not a COCO result"),
        (good(score=None), "not a COCO result"),
        ({"image_id": "b"}, "not a COCO result"),
    ],
)
def test_results_that_do_not_fit(bad, message):
    pets = dataset("cat", records=[Record("b", lambda: None, ())], category_ids={1: 9})
    with pytest.raises(DatasetFormatError, match=message):
        by_picture(pets, [good(), bad])
