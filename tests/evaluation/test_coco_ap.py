"""COCO's numbers equal those of pycocotools, called directly on hand-written files."""

import contextlib
import io
import json
import sys
from dataclasses import replace

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from maskrcnn.data.records import Dataset, Instance, Record
from maskrcnn.errors import ConfigError, DatasetFormatError
from maskrcnn.evaluation.coco_ap import coco_average_precision
from runtime.errors import MissingPackageError
from runtime.masks.rle import encode_crop

TWELVE = (
    "AP",
    "AP50",
    "AP75",
    "AP_small",
    "AP_medium",
    "AP_large",
    "AR1",
    "AR10",
    "AR100",
    "AR_small",
    "AR_medium",
    "AR_large",
)


def by_hand(file, results, kind, folder, categories=None):
    """Evaluate as in the tutorial of pycocotools."""
    (folder / "truth.json").write_text(json.dumps(file))
    keys = {"bbox": "segmentation", "segm": "bbox"}  # left out: a box next to a mask would give the mask its area
    (folder / "results.json").write_text(
        json.dumps([{key: value for key, value in each.items() if key != keys[kind]} for each in results])
    )
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(folder / "truth.json"))
        evaluation = COCOeval(truth, truth.loadRes(str(folder / "results.json")), kind)
        if categories is not None:
            evaluation.params.catIds = categories
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return [None if value == -1 else float(value) for value in evaluation.stats]


def close(ours, expected):
    assert [value is None for value in ours] == [value is None for value in expected]
    plain = [[np.nan if value is None else value for value in values] for values in (ours, expected)]
    np.testing.assert_allclose(*plain, rtol=0, atol=1e-9)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("kind", ["bbox", "segm"])
def test_the_twelve_numbers_are_those_of_pycocotools(make_world, kind, seed, tmp_path):
    world = make_world(seed)
    summary = coco_average_precision(world.dataset, world.results)[kind]
    assert tuple(summary.numbers) == TWELVE
    assert 0.1 < summary["AP"] < 0.9
    close(list(summary.numbers.values()), by_hand(world.file, world.results, kind, tmp_path))


@pytest.mark.parametrize("kind", ["bbox", "segm"])
def test_each_class_is_what_pycocotools_gives_for_it_alone(world, kind, tmp_path):
    summary = coco_average_precision(world.dataset, world.results)[kind]
    assert list(summary.classes) == ["disc", "square", "rare"]
    for name, category in (("disc", 18), ("square", 3), ("rare", 77)):
        row = summary.classes[name]
        expected = by_hand(world.file, world.results, kind, tmp_path, [category])
        close([row["AP"], row["AP50"], row["AP75"], row["AR"]], [*expected[:3], expected[8]])
        annotations = world.file["annotations"]
        assert row["objects"] == sum(each["category_id"] == category and not each["iscrowd"] for each in annotations)
    assert summary.classes["rare"] == {"AP": None, "AP50": None, "AP75": None, "AR": None, "objects": 0}


def test_crowds_matter(make_world, tmp_path):
    world = make_world(1)
    assert any(each["iscrowd"] for each in world.file["annotations"])
    plain = replace(
        world.dataset,
        records=tuple(
            replace(record, instances=tuple(replace(each, crowd=False) for each in record.instances))
            for record in world.dataset.records
        ),
    )
    with_crowds, without = (
        coco_average_precision(each, world.results)["segm"]["AP"] for each in (world.dataset, plain)
    )
    assert abs(with_crowds - without) > 0.01


@pytest.mark.parametrize("rename", [str, lambda i: f"pictures/{i}.png"])
def test_image_ids_may_be_texts(make_world, rename):
    world = make_world(2)
    ranked = {i: f"{rank:03d}" for rank, i in enumerate(sorted(r.image_id for r in world.dataset.records))}
    records = sorted(world.dataset.records, key=lambda record: record.image_id)
    texts = replace(
        world.dataset, records=tuple(replace(each, image_id=rename(ranked[each.image_id])) for each in records)
    )
    results = [each | {"image_id": rename(ranked[each["image_id"]])} for each in world.results]
    ours, expected = coco_average_precision(texts, results), coco_average_precision(world.dataset, world.results)
    for kind in ("bbox", "segm"):
        close(list(ours[kind].numbers.values()), list(expected[kind].numbers.values()))


def square(image_id, number=1, size=(50, 60)):
    """A record with a row of squares of 10 pixels, 12 pixels apart."""
    masks = [encode_crop(np.ones((10, 10), bool), (20, 12 * i), size) for i in range(number)]
    image = np.zeros((*size, 3), np.uint8)
    return Record(image_id, lambda: image, tuple(Instance(1, mask) for mask in masks))


def result(image_id, column, score, width=10, size=(50, 60)):
    mask = encode_crop(np.ones((10, width), bool), (20, column), size)
    return {
        "image_id": image_id,
        "category_id": 1,
        "bbox": [column, 20, width, 10],
        "score": score,
        "segmentation": mask,
    }


def plain(*records):
    return Dataset("squares", ("BG", "square"), records)


def test_hand_made_numbers():
    # Two objects; one found exactly, one with IoU 7 / 10, one false prediction between them in score.
    dataset = plain(square(1, 2))
    results = [result(1, 0, 0.9), result(1, 40, 0.8), result(1, 12, 0.7, width=7)]
    summary = coco_average_precision(dataset, results)["segm"]
    # Recall 0 to 0.5 (51 of 101 points) at precision 1, the rest at 2 / 3 where IoU 0.7 is enough.
    good, poor = (51 + 50 * 2 / 3) / 101, 51 / 101
    assert summary["AP50"] == pytest.approx(good, abs=1e-9)
    assert summary["AP75"] == pytest.approx(poor, abs=1e-9)
    assert summary["AP"] == pytest.approx((5 * good + 5 * poor) / 10, abs=1e-9)
    assert summary["AR100"] == pytest.approx(0.75, abs=1e-9)
    assert summary["AR1"] == pytest.approx(0.5, abs=1e-9)
    assert (summary["AP_medium"], summary["AP_small"]) == (None, summary["AP"])


def test_the_size_of_a_predicted_mask_is_that_of_the_mask():
    # A large box around a thin mask: as a small false prediction it counts against the small objects.
    diagonal = np.eye(120, dtype=bool)
    mask = encode_crop(diagonal, (0, 0), (120, 120))
    false = {"image_id": 1, "category_id": 1, "bbox": [0, 0, 120, 120], "score": 0.9, "segmentation": mask}
    summary = coco_average_precision(plain(square(1, 1, (120, 120))), [false, result(1, 0, 0.8, size=(120, 120))])
    assert summary["segm"]["AP_small"] == pytest.approx(0.5, abs=1e-9)
    assert summary["bbox"]["AP_small"] == pytest.approx(1.0, abs=1e-9)


def test_nothing_predicted():
    for summary in coco_average_precision(plain(square(1, 2), square(2, 0)), []).values():
        assert (summary["AP"], summary["AR100"], summary["AP_large"]) == (0.0, 0.0, None)
        assert summary.classes["square"]["objects"] == 2


def test_nothing_to_find():
    for results in ([], [result(1, 0, 0.9)]):
        for summary in coco_average_precision(plain(square(1, 0)), results).values():
            assert set(summary.numbers.values()) == {None}
            assert json.loads(json.dumps(summary.to_dict()))["numbers"]["AP"] is None


def test_a_false_prediction_in_a_picture_without_objects_counts():
    dataset, right = plain(square(1), square(2, 0)), result(1, 0, 0.5)
    assert coco_average_precision(dataset, [right])["segm"]["AP"] == pytest.approx(1)
    assert coco_average_precision(dataset, [right, result(2, 0, 0.9)])["segm"]["AP"] == pytest.approx(0.5)


def test_max_detections():
    dataset = plain(square(1, 4, (50, 300)))
    noise = [result(1, 100 + i, 0.9, size=(50, 300)) for i in range(10)]
    results = [*noise, result(1, 0, 0.5, size=(50, 300))]
    assert coco_average_precision(dataset, results, 10)["segm"]["AR10"] == 0
    summary = coco_average_precision(dataset, results, 11)["segm"]
    assert list(summary.numbers)[6:9] == ["AR1", "AR10", "AR11"]
    assert (summary["AR10"], summary["AR11"]) == (0, 0.25)
    with pytest.raises(ConfigError, match="max_detections is 9: expected at least 10"):
        coco_average_precision(dataset, results, 9)


def test_nothing_is_printed(world, capfd):
    coco_average_precision(world.dataset, world.results)
    assert capfd.readouterr() == ("", "")


def test_masks_of_another_size_are_refused():
    with pytest.raises(DatasetFormatError, match=r"image 1: .*different sizes \(50 x 60, 60 x 50\)"):
        coco_average_precision(plain(square(1)), [result(1, 0, 0.9, size=(60, 50))])


def test_without_pycocotools(world, monkeypatch):
    for name in ("pycocotools", "pycocotools.coco", "pycocotools.cocoeval", "pycocotools.mask"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingPackageError, match=r"maskrcnn-export\[train\]"):
        coco_average_precision(world.dataset, world.results)
