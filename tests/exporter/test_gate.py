"""What the parity check asks of a model and its artifact, and what it concludes; no network runs here."""

from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf

from export.convert.trace import STAGES
from export.verify.pictures import LetterboxedPicture
from export.verify.verify import MOST_DECISIONS, NO_DETECTIONS, NOTHING_NEAR, compare_run, make_feeds, verify
from maskrcnn.configuration.model import ModelConfig
from runtime.artifact import INPUT_NAMES

ROWS = 6
MIN_SCORE, NMS = 0.5, 0.3
BORDERS = [name for stage in STAGES for name in stage.outputs]


def picture(name, rows, best=0.9, shape=(4, 4)):
    """An image in which the fake model detects `rows` objects; the first scores `best`, each next one 0.05 less."""
    image = np.zeros((*shape, 3), np.uint8)
    image[0, 0] = rows, round(best * 100), 7
    return LetterboxedPicture(name, image, (0, 1, shape[0], shape[1]))


def outputs_of(feeds):
    count = len(feeds["images"])
    outputs = {
        "num_detections": np.zeros(count, np.int32),
        "boxes": np.zeros((count, ROWS, 4), np.float32),
        "scores": np.zeros((count, ROWS), np.float32),
        "class_ids": np.zeros((count, ROWS), np.int32),
        "masks": np.zeros((count, ROWS, 2, 2), np.float32),
    }
    for row, image in enumerate(feeds["images"]):
        seen, best, _ = (int(value) for value in image[0, 0])
        scores = [best / 100 - 0.05 * index for index in range(seen)]
        kept = [score for score in scores if score >= feeds["score_threshold"]]
        for index, score in enumerate(kept):
            outputs["boxes"][row, index] = np.array([1, 2, 11, 22]) + 30 * index
            outputs["scores"][row, index] = score
            outputs["class_ids"][row, index] = 1 + index % 2
            outputs["masks"][row, index] = 0.1 * index
        outputs["num_detections"][row] = len(kept)
    return outputs


def borders_of(feeds):
    mean = feeds["images"].mean(axis=(1, 2, 3), dtype=np.float32)
    borders = {name: np.outer(mean, [1, 2]) + index for index, name in enumerate(BORDERS)}
    return borders | {"num_detections": outputs_of(feeds)["num_detections"]}


class FakeReference:
    """Answers from the images and records the requests."""

    def __init__(self):
        detection = SimpleNamespace(min_score=MIN_SCORE, nms_threshold=NMS)
        self.model = SimpleNamespace(config=SimpleNamespace(detection=detection, model=ModelConfig()))
        self.asked = []

    def run(self, feeds):
        self.asked.append(feeds)
        return outputs_of(feeds), borders_of(feeds)


class FakeStages:
    """Stages that compute the right tensors, except for one."""

    def __init__(self, wrong=None):
        self.wrong, self.fed = wrong, []

    def run(self, feeds, names):
        self.fed.append((feeds, names))
        expected = borders_of(feeds)
        return {name: expected[name] + (name == self.wrong) for name in names}


@pytest.fixture
def world():
    return SimpleNamespace(reference=FakeReference(), stages=FakeStages(), said=[])


def verdict_of(world, pictures, artifact=outputs_of, kind="inputs"):
    return verify(world.reference, artifact, world.stages, pictures, "an engine", world.said.append, kind)


# What is compared


def test_feeds_of_two_pictures():
    feeds = make_feeds([picture("a", 1), picture("b", 2)], (0.25, 0.75))
    assert {name: (array.dtype, array.shape) for name, array in feeds.items()} == {
        "images": (np.uint8, (2, 4, 4, 3)),
        "windows": (np.float32, (2, 4)),
        "score_threshold": (np.float32, ()),
        "nms_threshold": (np.float32, ()),
    }
    assert (feeds["score_threshold"], feeds["nms_threshold"]) == (0.25, 0.75)
    assert feeds["images"][:, 0, 0, 0].tolist() == [1, 2]
    assert feeds["windows"].tolist() == [[0, 1, 4, 4]] * 2


def test_each_picture_alone_pictures_of_one_size_together_and_none(world):
    pictures = [picture("wide", 1, shape=(4, 8)), picture("b", 2), picture("c", 3)]
    verdict = verdict_of(world, pictures)
    assert verdict.passed
    assert [(case.case, case.expected, case.found) for case in verdict.cases] == [
        ("wide (alone, 1)", 1, 1),
        ("b (alone, 1)", 2, 2),
        ("c (alone, 1)", 3, 3),
        ("b (batch, 2)", 2, 2),
        ("c (batch, 2)", 3, 3),
        ("wide (no detections, 1)", 0, 0),
    ]
    assert (verdict.score_threshold, verdict.nms_threshold, verdict.engine) == (MIN_SCORE, NMS, "an engine")
    assert verdict.reference == f"keras {keras.__version__}, tensorflow {tf.__version__}"
    assert [float(feeds["score_threshold"]) for feeds in world.reference.asked[1:]] == [0.5] * 4 + [NO_DETECTIONS]
    assert {float(feeds["nms_threshold"]) for feeds in world.reference.asked} == {float(np.float32(NMS))}
    assert world.said == [
        "comparing stage by stage",
        "comparing whole runs: alone: wide",
        "comparing whole runs: alone: b",
        "comparing whole runs: alone: c",
        "comparing whole runs: batch: b, c",
        "comparing whole runs: no detections: wide",
    ]


def test_a_graph_with_constant_thresholds_runs_at_no_other(world):
    verdict = verdict_of(world, [picture("a", 2), picture("b", 3)], kind="constants")
    assert verdict.passed
    assert {float(feeds["score_threshold"]) for feeds in world.reference.asked} == {MIN_SCORE}
    assert [(case.case, case.found) for case in verdict.cases][-1] == ("a (blank, 1)", 0)
    assert len(verdict.cases) == 5


def test_constant_thresholds_that_no_score_reaches_are_not_lowered(world):
    verdict = verdict_of(world, [picture("a", 2, best=0.4)], kind="constants")
    assert {float(feeds["score_threshold"]) for feeds in world.reference.asked} == {MIN_SCORE}
    assert not verdict.passed  # nothing was compared


def test_a_single_picture_is_its_own_batch(world):
    verdict = verdict_of(world, [picture("a", 2)])
    assert [case.case for case in verdict.cases] == [
        "a (alone, 1)",
        "a (batch, 2)",
        "a (batch, 2)",
        "a (no detections, 1)",
    ]


def test_no_score_reaches_the_threshold_of_the_run_without_detections():
    assert NO_DETECTIONS > 1


def test_every_stage_is_fed_with_the_first_picture_that_gives_detections(world):
    verdict = verdict_of(world, [picture("nothing", 0), picture("b", 2), picture("c", 3)])
    assert [(stage.stage, stage.tensor) for stage in verdict.stages] == [
        (stage.name, name) for stage in STAGES for name in stage.outputs
    ]
    assert [names for _feeds, names in world.stages.fed] == [stage.outputs for stage in STAGES]
    for stage, (feeds, _names) in zip(STAGES, world.stages.fed, strict=True):
        assert feeds["images"][:, 0, 0, 0].tolist() == [2]
        assert feeds.keys() == {*INPUT_NAMES, *stage.inputs}
        for name in stage.inputs:  # the model's own tensors
            np.testing.assert_array_equal(feeds[name], borders_of(feeds)[name])
    assert verdict.score_threshold == MIN_SCORE


def test_pictures_below_the_models_threshold_are_compared_at_zero(world):
    verdict = verdict_of(world, [picture("a", 2, best=0.4), picture("b", 3, best=0.4)])
    assert verdict.passed
    assert (verdict.score_threshold, verdict.nms_threshold) == (0, NMS)
    assert [case.expected for case in verdict.cases] == [2, 3, 2, 3, 0]
    fed = world.stages.fed[-1][0]
    assert fed["images"][:, 0, 0, 0].tolist() == [2]
    assert (fed["score_threshold"], fed["num_detections"].tolist()) == (0, [2])


def test_a_wrong_stage_fails_the_verdict(world):
    world.stages.wrong = "box_rois"
    verdict = verdict_of(world, [picture("a", 2)])
    assert not verdict.passed
    assert [(stage.stage, stage.tensor) for stage in verdict.stages if not stage.passed] == [
        ("box roi align", "box_rois")
    ]
    assert all(case.passed for case in verdict.cases)


# What follows from a difference


class FakeDifference:
    """An examination with given results, which records the requests."""

    def __init__(self, decisions=(), objections=()):
        self.found, self.objected, self.asked = list(decisions), list(objections), []

    def __call__(self, *arguments):
        self.asked.append(arguments)
        return self

    def decisions(self, row, rows):
        self.asked.append(("decisions", row, rows.identical))
        return self.found

    def objections_to(self, found, row):
        self.asked.append(("objections", row, found["scores"].shape))
        return list(self.objected)


def second_picture_changed(feeds):
    outputs = outputs_of(feeds)
    outputs["scores"][1, 0] += 0.25
    outputs["boxes"][1, 1, 2] += 0.0078125
    outputs["masks"][1, 1, 0, 1] -= 0.125
    return outputs


def run_twice(world, monkeypatch, examination, artifact=second_picture_changed):
    monkeypatch.setattr("export.verify.verify.Difference", examination)
    pictures = [picture("a", 2), picture("b", 3)]
    feeds = make_feeds(pictures, (0.0, NMS))
    return feeds, list(compare_run(world.reference, artifact, world.stages, feeds, "run", pictures))


def test_an_equal_run_is_not_examined(world, monkeypatch):
    examination = FakeDifference()
    _feeds, cases = run_twice(world, monkeypatch, examination, outputs_of)
    assert examination.asked == []
    assert [(case.passed, case.decisions, case.objections) for case in cases] == [(True, (), ())] * 2


def test_the_picture_that_differs_is_examined_and_measured(world, monkeypatch):
    examination = FakeDifference(["a near decision"])
    feeds, (same, other) = run_twice(world, monkeypatch, examination)
    (made, *questions) = examination.asked
    assert made[:3] == (world.reference, world.stages, feeds)
    assert set(made[3]) == set(BORDERS)
    assert questions == [("decisions", 1, False), ("objections", 1, (ROWS,))]
    assert (same.case, same.passed, same.decisions) == ("a (run, 2)", True, ())
    assert (other.case, other.expected, other.found) == ("b (run, 2)", 3, 3)
    assert (other.boxes, other.masks) == (0.0078125, pytest.approx(0.125, abs=1e-6))
    assert other.scores == pytest.approx(0.25, abs=1e-6)
    assert (other.unmatched, other.swapped) == (0, 0)


@pytest.mark.parametrize(
    ("decisions", "objections", "passed", "told"),
    [
        (["near"], [], True, ()),
        (["near"], ["foreign"], False, ("foreign",)),
        ([], ["foreign"], False, ("foreign",)),
        ([], [], False, (NOTHING_NEAR,)),
    ],
)
def test_a_difference_is_excused_by_a_decision_that_nothing_speaks_against(
    world, monkeypatch, decisions, objections, passed, told
):
    _feeds, cases = run_twice(world, monkeypatch, FakeDifference(decisions, objections))
    assert (cases[1].passed, cases[1].decisions, cases[1].objections) == (passed, tuple(decisions), told)
    assert cases[0].passed


def test_rows_without_a_counterpart_and_exchanged_rows_are_counted(world, monkeypatch):
    def exchanged(feeds):
        outputs = outputs_of(feeds)
        outputs["num_detections"][0] -= 1
        for name in ("boxes", "scores", "class_ids", "masks"):
            outputs[name][1, [0, 2]] = outputs[name][1, [2, 0]]
        return outputs

    _feeds, cases = run_twice(world, monkeypatch, FakeDifference(["near"]), exchanged)
    assert [(case.expected, case.found, case.unmatched, case.swapped) for case in cases] == [
        (2, 1, 1, 0),
        (3, 3, 0, 2),
    ]


@pytest.mark.parametrize(("count", "told"), [(MOST_DECISIONS, None), (MOST_DECISIONS + 3, "and 3 more")])
def test_only_the_first_decisions_are_told(world, monkeypatch, count, told):
    sentences = [f"decision {number}" for number in range(count)]
    _feeds, cases = run_twice(world, monkeypatch, FakeDifference(sentences))
    assert cases[1].decisions == (*sentences[:12], *([told] if told else []))
