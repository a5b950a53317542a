"""Evaluation of a predictor: numbers, speed, files, and errors before the first prediction."""

import json
import sys
from dataclasses import replace

import models
import numpy as np
import pytest
from PIL import Image

from maskrcnn.checkpoint_predictor import CheckpointPredictor
from maskrcnn.data.records import Dataset, Instance, Record
from maskrcnn.errors import ConfigError, DatasetError
from maskrcnn.evaluation.coco_ap import coco_average_precision
from maskrcnn.evaluation.evaluate import evaluate
from maskrcnn.evaluation.speed import Speed, predict_timed
from runtime import Predictor
from runtime.detections import Detections
from runtime.errors import MissingPackageError, OutputError
from runtime.masks.rle import encode_crop

SIZE = (60, 80)


class Oracle:
    """Finds every object of a dataset of rectangles, with the class ids of another model."""

    class_names = ("BG", "cat", "square", "dog")

    def __init__(self, boxes):
        self.boxes = boxes  # by the first value of the image
        self.seen = []

    def __call__(self, image):
        self.seen.append(image)
        boxes = np.array(self.boxes[image[0, 0, 0]], np.float32).reshape(-1, 4)
        count = len(boxes)
        return Detections(
            boxes,
            np.linspace(0.9, 0.6, count).astype(np.float32),
            np.full(count, 2, np.int32),
            np.ones((count, 28, 28), np.float32),
            SIZE,
            self.class_names,
            "aligned",
        )


BOXES = {0: [(5, 10, 25, 30), (40, 20, 70, 50)], 1: [], 2: [(0, 0, 80, 60)]}


def squares():
    records = []
    for number, boxes in BOXES.items():
        masks = [encode_crop(np.ones((y2 - y1, x2 - x1), bool), (y1, x1), SIZE) for x1, y1, x2, y2 in boxes]
        image = np.full((*SIZE, 3), number, np.uint8)
        instances = tuple(Instance(1, mask) for mask in masks)
        records.append(Record(f"p{number}", lambda image=image: image, instances))
    return Dataset("squares", ("BG", "square"), tuple(records), {1: 5})


def test_a_perfect_predictor():
    calls = []
    evaluation = evaluate(Oracle(BOXES), squares(), progress=lambda *each: calls.append(each))
    assert evaluation.bbox["AP"] == evaluation.segm["AP"] == pytest.approx(1)
    assert [score.score for score in evaluation.scores] == [1, 1, 1]
    assert [(each["image_id"], each["category_id"]) for each in evaluation.results] == [("p0", 5), ("p0", 5), ("p2", 5)]
    assert calls == [(1, 3), (2, 3), (3, 3)]
    assert evaluation.score_threshold is None


def test_results_alone_give_the_same_figures():
    shifted = {number: [(x1 + 2, y1, x2 + 2, y2) for x1, y1, x2, y2 in boxes] for number, boxes in BOXES.items()}
    evaluation = evaluate(Oracle(shifted), squares())
    assert 0.5 < evaluation.segm["AP"] < 0.99
    again = coco_average_precision(squares(), json.loads(json.dumps(evaluation.results)))
    assert (again["bbox"], again["segm"]) == (evaluation.bbox, evaluation.segm)


def test_the_worst_pictures_come_first():
    evaluation = evaluate(Oracle(BOXES | {1: [(0, 0, 9, 9)], 2: []}), squares())
    assert [score.score for score in evaluation.scores] == [1, 0, 0]
    assert evaluation.worst(2) == [1, 2]
    assert [each["image_id"] for each in evaluation.to_dict()["worst"]] == ["p1", "p2", "p0"]
    # Low scores do not count in the list of worst images, but they do for COCO.
    strict = evaluate(Oracle(BOXES), squares(), min_score=0.95)
    assert [score.found for score in strict.scores] == [0, 0, 0]
    assert strict.segm["AP"] == pytest.approx(1)


def test_limit():
    evaluation = evaluate(Oracle(BOXES), squares(), limit=1)
    assert (len(evaluation.dataset), len(evaluation.results), len(evaluation.scores)) == (1, 2, 1)
    assert evaluation.segm.classes["square"]["objects"] == 2
    assert len(evaluate(Oracle(BOXES), squares(), limit=99).scores) == 3


def test_files(tmp_path):
    evaluation = evaluate(Oracle(BOXES), squares())
    folder = tmp_path / "new" / "folder"
    evaluation.write(folder, worst=2)
    assert sorted(path.name for path in folder.iterdir()) == ["results.json", "summary.json", "worst.png"]
    assert json.loads((folder / "results.json").read_text()) == evaluation.results
    summary = json.loads((folder / "summary.json").read_text())
    assert summary == json.loads(json.dumps(evaluation.to_dict()))
    assert summary["segm"]["numbers"]["AP_small"] == pytest.approx(1)
    assert summary["worst"][0] == {"image_id": "p0", "score": 1.0, "found": 2, "missed": 0, "false": 0}
    with Image.open(folder / "worst.png") as image:
        assert image.format == "PNG"
    (folder / "results.json").unlink()
    with pytest.raises(OutputError, match=r"summary.json already exists"):
        evaluation.write(folder)
    assert not (folder / "results.json").exists()
    evaluation.write(folder, overwrite=True)


def test_nothing_found_at_all(tmp_path):
    evaluation = evaluate(Oracle({0: [], 1: [], 2: []}), squares())
    assert evaluation.segm["AP"] == 0
    evaluation.write(tmp_path)
    assert json.loads((tmp_path / "results.json").read_text()) == []


def test_refused_before_the_first_picture(monkeypatch):
    predictor = Oracle(BOXES)
    with pytest.raises(DatasetError, match="squares has no images"):
        evaluate(predictor, replace(squares(), records=()))
    with pytest.raises(DatasetError, match=r"does not have .*triangle"):
        evaluate(predictor, replace(squares(), class_names=("BG", "triangle")))
    for wrong in ({"limit": 0}, {"limit": -1}, {"max_detections": 5}):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            evaluate(predictor, squares(), **wrong)
    for name in ("pycocotools", "pycocotools.coco"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingPackageError):
        evaluate(predictor, squares())
    assert predictor.seen == []


def test_speed_is_split_where_the_predictor_has_steps(picture):
    steps = ["pre", "model", "post", "total"]
    detections, times = predict_timed(CheckpointPredictor(models.demo()), picture)
    assert list(times) == steps
    assert times["total"] == pytest.approx(times["pre"] + times["model"] + times["post"])
    assert min(times.values()) > 0
    assert "mask_crops" in vars(detections)  # pasting is part of the time
    assert list(predict_timed(Oracle(BOXES), np.zeros((*SIZE, 3), np.uint8))[1]) == ["total"]


def test_the_first_picture_warms_up():
    times = [{"pre": 1000.0, "total": 2000.0}, {"pre": 1.0, "total": 4.0}, {"pre": 2.0, "total": 6.0}]
    times.append({"pre": 6.0, "total": 8.0})
    speed = Speed.of(times)
    assert (speed.pictures, speed.mean, speed.median) == (3, {"pre": 3, "total": 6}, {"pre": 2, "total": 6})
    assert speed.to_dict()["milliseconds"]["pre"] == {"mean": 3.0, "median": 2.0}
    assert Speed.of(times[:1]).mean["pre"] == 1000


def test_a_checkpoint_and_its_artifact_get_the_same_figures(onnx_artifact, demo, picture, tmp_path):
    """The dataset contains some of the detections of the model itself in two images."""
    paths = [tmp_path / f"{i}.png" for i in range(2)]
    checkpoint = CheckpointPredictor(demo, score_threshold=0.3)
    records = []
    for path, pixels in zip(paths, (picture, picture[::2, 100:]), strict=True):
        Image.fromarray(pixels).save(path)
        found = checkpoint(path)
        instances = [Instance(int(i), rle) for i, rle in zip(found.class_ids, found.rles, strict=True)]
        records.append(Record(path.name, path, tuple(instances[1::2])))
    dataset = Dataset("itself", checkpoint.class_names, tuple(records))
    ours = evaluate(checkpoint, dataset)
    theirs = evaluate(Predictor(onnx_artifact, "cpu", score_threshold=0.3), dataset)
    assert ours.score_threshold == theirs.score_threshold == 0.3
    assert 0.1 < ours.segm["AP"] < 1
    for kind in ("bbox", "segm"):
        for name, value in getattr(ours, kind).numbers.items():
            assert getattr(theirs, kind)[name] == pytest.approx(value, abs=0.001)
    assert set(theirs.speed.mean) == {"pre", "model", "post", "total"}
    ours.write(tmp_path / "out")
