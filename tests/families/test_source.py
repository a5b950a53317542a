"""The comparison with the genuine model of a PyTorch checkpoint: rows, near decisions, and its process."""

import json
import os
import re
import stat
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pytorch_models import state_dicts

import maskrcnn
from export import console
from export.errors import SourceError
from export.publish import write_onnx
from export.verify import source
from export.verify.source import PYTHON, SourceRows, compare_image, compare_with_source
from export.verify.source_worker import packed
from export.verify.verdict import CaseResult, Verdict
from maskrcnn.checkpoints.families.choices import Choices
from maskrcnn.checkpoints.families.family_file import read_family
from maskrcnn.checkpoints.pytorch.torch_write import write_state
from runtime.artifact_files.read import read_metadata
from runtime.detections import Detections

SIZE = (60, 80)


def detections(boxes, scores, class_ids):
    """Detections whose masks fill their boxes."""
    count = len(boxes)
    masks = np.ones((count, 28, 28), np.float32)
    arrays = np.float32(boxes).reshape(count, 4), np.float32(scores), np.int32(class_ids), masks
    return Detections(*arrays, SIZE, ("BG", "a", "b"), "detectron2")


def rows(found):
    return SourceRows(found.boxes.copy(), found.scores.copy(), found.class_ids.copy(), found.masks.copy())


# Three objects that do not overlap; with three rows of two sides, two may be without counterpart.
OURS = detections([[5, 5, 25, 25], [30, 5, 50, 25], [5, 30, 25, 50]], [0.9, 0.8, 0.3], [1, 2, 1])


def compared(theirs, ours=OURS, most=100):
    return compare_image("x.jpg", theirs, ours, 0.05, 0.5, most)


def test_equal_detections_pass():
    case = compared(rows(OURS))
    assert case.passed
    assert (case.expected, case.found, case.matched, case.boxes, case.scores, case.masks) == (3, 3, 3, 0, 0, 0)


def test_the_order_of_rows_does_not_count():
    assert compared(rows(OURS[[2, 0, 1]])).passed


@pytest.mark.parametrize(("shift", "passed"), [(0.05, True), (0.5, False)])
def test_boxes_agree_to_a_tenth_of_a_pixel(shift, passed):
    theirs = rows(OURS)
    theirs.boxes[...] += shift
    assert compared(theirs).passed == passed


@pytest.mark.parametrize(("shift", "passed"), [(0.0005, True), (0.002, False)])
def test_scores_agree_to_a_thousandth(shift, passed):
    theirs = rows(OURS)
    theirs.scores[...] -= shift
    assert compared(theirs).passed == passed


@pytest.mark.parametrize(("pixels", "passed"), [(2, True), (3, False)])
def test_masks_agree_but_for_two_pixels(pixels, passed):
    theirs = rows(OURS)
    theirs.masks[1, 55, :pixels] = True
    case = compared(theirs)
    assert case.passed == passed
    assert case.masks == pytest.approx(pixels / (400 + pixels))


@pytest.mark.parametrize(("ours", "theirs"), [(0.5005, 0.4), (0.4995, 0.6), (0.502, 0.4), (0.498, 0.6)])
def test_pixels_near_the_threshold_may_differ(ours, theirs):
    masks = np.repeat(OURS.mask_probabilities[None], 2, axis=0)
    masks[:, 1, 10:15, 10:15] = np.float32([[[ours]], [[theirs]]])  # about 13 of 400 pixels
    ours_found, theirs_found = (replace(OURS, mask_probabilities=array) for array in masks)
    assert compared(rows(theirs_found), ours_found).passed == (abs(ours - 0.5) < 0.001)


@pytest.mark.parametrize(("columns", "passed"), [(1, True), (2, False), (20, False)])  # 20 of 400 pixels each
def test_only_few_pixels_near_the_threshold_may_differ(columns, passed):
    ours = replace(OURS, mask_probabilities=np.full((3, 28, 28), 0.5005, np.float32))
    theirs = rows(ours)
    theirs.masks[1, :, 30 : 30 + columns] = False
    case = compared(theirs, ours)
    assert case.masks == pytest.approx(columns / 20)
    assert (case.masks_within, case.passed) == (passed, passed)


def test_a_sure_detection_must_be_found():
    for first, second in ((rows(OURS[[1, 2]]), OURS), (rows(OURS), OURS[[1, 2]])):
        case = compared(first, second)
        assert not case.passed
        assert (case.sure, case.near) == (1, 0)


def test_another_class_is_another_detection():
    theirs = rows(OURS)
    theirs.class_ids[0] = 2
    assert not compared(theirs).passed


def test_few_unsure_rows_may_be_alone():
    case = compared(rows(OURS[[0, 1]]))
    assert case.passed
    assert (case.unexplained, case.sure) == (1, 0)
    many = detections(
        [[5, 5, 25, 25], [30, 5, 50, 25], [5, 30, 25, 50], [30, 30, 50, 50]], [0.9, 0.4, 0.4, 0.4], [1] * 4
    )
    assert not compared(rows(many[[0]]), many).passed


def test_near_decisions_explain_sure_rows_too():
    threshold = compare_image("x.jpg", rows(OURS[[0, 2]]), OURS, 0.7995, 0.5, 100)  # the score is 0.8
    assert (threshold.near, threshold.sure, threshold.passed) == (1, 0, True)
    full = detections([[5, 5, 25, 25], [30, 5, 50, 25]], [0.9, 0.8], [1, 1])
    other = detections([[5, 5, 25, 25], [5, 30, 25, 50]], [0.9, 0.8002], [1, 1])
    assert compare_image("x.jpg", rows(full), other, 0.05, 0.5, 2).near == 2  # either is the last of two
    assert compare_image("x.jpg", rows(full), other, 0.05, 0.5, 100).near == 0
    half = detections([[0, 0, 20, 20], [0, 0, 20, 10]], [0.9, 0.8], [1, 1])  # they overlap by half
    assert compare_image("x.jpg", rows(half[[0]]), half, 0.05, 0.5, 100).near == 1
    assert compare_image("x.jpg", rows(half[[0]]), half, 0.05, 0.3, 100).near == 0
    either = detections([[0, 0, 20, 20]], [0.8], [1]), detections([[1, 0, 21, 20]], [0.8003], [1])
    assert compare_image("x.jpg", rows(either[0]), either[1], 0.05, 0.5, 100).near == 2
    assert (
        compare_image("x.jpg", rows(either[0]), replace(either[1], scores=np.float32([0.7])), 0.05, 0.5, 100).near == 0
    )


@pytest.mark.parametrize("count", [0, 1, 3])
def test_masks_go_from_process_to_process(tmp_path, count):
    masks = np.random.default_rng(0).random((count, *SIZE)) < 0.5
    saved = {"boxes0": np.zeros((count, 4)), "scores0": np.zeros(count), "class_ids0": np.ones(count, np.int64)}
    np.savez(tmp_path / "found.npz", masks0=packed(masks), **saved)
    (tmp_path / "facts.json").write_text('{"package": "p 1", "weights": "a copy"}')
    _, (found,) = source._read(tmp_path, [("x.jpg", np.zeros((*SIZE, 3), np.uint8))])
    assert np.array_equal(found.masks, masks)
    assert found.boxes.shape == (count, 4)


def test_no_detections_are_the_same_as_none():
    assert compared(rows(OURS[:0]), OURS[:0]).passed


# The process

IMAGE = np.zeros((*SIZE, 3), np.uint8)
WORKER = """#!{python}
import json, sys
from pathlib import Path
import numpy as np
folder = Path(sys.argv[2])
{body}
"""
GOOD = """
request = json.loads((folder / "request.json").read_text())
assert request["family"] == "torchvision" and request["classes"] == 2 and request["short_side"] == 128
assert len(np.load(folder / "images.npz").files) == 1 and (folder / "state.pth").exists()
masks = np.zeros((3, 60, 80), bool)
for row, (x1, y1, x2, y2) in enumerate([[5, 5, 25, 25], [30, 5, 50, 25], [5, 30, 25, 50]]):
    masks[row, y1:y2, x1:x2] = True
np.savez(folder / "found.npz", boxes0=np.float32([[5, 5, 25, 25], [30, 5, 50, 25], [5, 30, 25, 50]]),
    scores0=np.float32([0.9, 0.8, 0.3]), class_ids0=np.int64([1, 2, 1]),
    masks0=np.packbits(masks.reshape(3, -1), axis=1))
(folder / "facts.json").write_text(json.dumps({"package": "torchvision 9", "weights": "torch.load"}))
"""


NOTHING = """
images = len(np.load(folder / "images.npz").files)
empty = {"boxes": np.zeros((0, 4)), "scores": np.zeros(0), "class_ids": np.zeros(0)}
empty["masks"] = np.zeros((0, 1), np.uint8)
np.savez(folder / "found.npz", **{f"{name}{n}": array for n in range(images) for name, array in empty.items()})
(folder / "facts.json").write_text(json.dumps({"package": "torchvision 9", "weights": "a copy"}))
"""


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """A checkpoint that torchvision could build: only its names and sizes are looked at here."""
    path = tmp_path_factory.mktemp("source") / "x.pth"
    write_state(path, state_dicts.values(state_dicts.torchvision(18, classes=2, **state_dicts.TINY)))
    opened = read_family(path, Choices(classes="a,b", settings=("resize.short_side=128", "resize.long_side=192")))
    genuine = {f"model.{name}": size for name, size in (("backbone_width", 64), ("fpn_channels", 256))}
    genuine |= {"model.rpn_channels": 256, "model.box_head_channels": 1024, "model.mask_head_channels": 256}
    return replace(opened, found=replace(opened.found, settings=opened.found.settings | genuine))


def stand_in(tmp_path, body):
    python = tmp_path / "python"
    python.write_text(WORKER.format(python=sys.executable, body=body))
    python.chmod(python.stat().st_mode | stat.S_IXUSR)
    return python


def compare(file, tmp_path, monkeypatch, body, detect=lambda: [OURS]):
    """Compare with a stand-in for the interpreter that has the package."""
    monkeypatch.setenv(PYTHON, str(stand_in(tmp_path, body)))
    return compare_with_source(file, [("x.jpg", IMAGE)], detect, lambda _: None)


def verdict(found):
    return Verdict("keras", "onnxruntime", 0.05, 0.5, [], [], source=found)


def test_the_verdict_has_what_the_genuine_model_found(file, tmp_path, monkeypatch, capsys):
    found = compare(file, tmp_path, monkeypatch, GOOD)
    assert (found["ran"], found["passed"], found["package"], found["images"]) == (True, True, "torchvision 9", 1)
    assert found["cases"][0]["matched"] == 3
    assert json.loads(json.dumps(found)) == found
    console.verdict_table(verdict(found))
    assert "torchvision 9 from image to masks (weights read by torch.load)" in capsys.readouterr().out


@pytest.mark.parametrize("found_here", [OURS[:0], OURS[[2]]], ids=["no rows", "no pair"])
def test_nothing_to_compare_is_no_pass(file, tmp_path, monkeypatch, capsys, found_here):
    found = compare(file, tmp_path, monkeypatch, NOTHING, lambda: [found_here])
    assert (found["ran"], found["passed"]) == (True, None)
    assert verdict(found).failures() == verdict({}).failures()
    console.verdict_table(verdict(found))
    assert "nothing was compared" in capsys.readouterr().out
    compared = CaseResult("x.jpg", 3, 3, 0, 0, 0, passed=True)
    assert replace(verdict(found), cases=[compared]).passed  # the Keras model is still a reference


@pytest.mark.parametrize("answer", [GOOD, NOTHING, "sys.exit(3)"], ids=["compared", "nothing compared", "not run"])
def test_inspect_says_what_came_of_the_source(file, tmp_path, monkeypatch, capsys, answer):
    found = compare(file, tmp_path, monkeypatch, answer, lambda: [OURS if answer == GOOD else OURS[:0]])
    packaged = read_metadata(Path(maskrcnn.__file__).with_name("demo.onnx"))
    console.metadata(Path("x.onnx"), replace(packaged, verdict={**packaged.verdict, "source": found}), "")
    rows = re.findall(r"^  source +(.*(?:\n {14}.*)*)", capsys.readouterr().out, re.MULTILINE)
    (row,) = (re.sub(r"\s+", " ", each) for each in rows)
    said = {GOOD: "passed: torchvision 9, 3 detections", NOTHING: "nothing was compared", "sys.exit(3)": "was not run"}
    assert said[answer] in row
    assert ("passed" in row) == (answer == GOOD)


def test_a_mask_that_fails_is_said_to(file, tmp_path, monkeypatch):
    faint = replace(OURS, mask_probabilities=np.full((3, 28, 28), 0.4995, np.float32))
    found = compare(file, tmp_path, monkeypatch, GOOD, lambda: [faint])
    assert (
        "100.00% of a mask (0.1% may differ, or 5% where probabilities are within 0.001 of 0.5)"
        in (verdict(found).failures()[0])
    )


def test_a_difference_fails_the_verdict(file, tmp_path, monkeypatch):
    shifted = replace(OURS, boxes=OURS.boxes + np.float32(0.5))
    found = compare(file, tmp_path, monkeypatch, GOOD, lambda: [shifted])
    assert not found["passed"]
    assert not verdict(found).passed
    assert "torchvision 9 finds other detections in x.jpg: 0 of 3 have a counterpart" in verdict(found).failures()[0]


def test_without_the_package_the_source_is_not_run(file, tmp_path, monkeypatch, capsys):
    found = compare(file, tmp_path, monkeypatch, "sys.exit(3)", lambda: pytest.fail("needless"))
    assert (found["ran"], found["reference"]) == (False, "the Keras model")
    console.verdict_table(verdict(found))
    assert "torchvision was not run" in capsys.readouterr().out
    monkeypatch.setenv(PYTHON, "none")
    found = compare_with_source(file, [], lambda: pytest.fail("needless"), lambda _: None)
    assert found["reason"] == f"{PYTHON} is none"
    monkeypatch.delenv(PYTHON)
    monkeypatch.setattr(source, "find_spec", lambda _: None)
    found = compare_with_source(file, [], lambda: pytest.fail("needless"), lambda _: None)
    assert found["reason"].startswith("torchvision is not installed here")


def test_a_network_that_the_package_does_not_build_is_not_run(file, monkeypatch):
    monkeypatch.setenv(PYTHON, "/nowhere")
    narrow = replace(file, found=replace(file.found, settings=file.found.settings | {"model.backbone_width": 8}))
    found = compare_with_source(narrow, [], lambda: pytest.fail("needless"), lambda _: None)
    assert (found["ran"], found["reason"]) == (False, "it builds no network with backbone_width 8")


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ("raise RuntimeError('out of memory')", "cannot be run by .*: RuntimeError: out of memory; set MASKRCNN"),
        ("sys.exit(7)", "cannot be run by .*: exit code 7"),
        ("pass", "gave no result that can be read"),
        ("(folder / 'facts.json').write_text('{}')", "gave no result that can be read"),
        ("(folder / 'facts.json').write_text('[')", "gave no result that can be read"),
    ],
)
def test_what_goes_wrong_in_the_process_is_an_error(file, tmp_path, monkeypatch, body, problem):
    with pytest.raises(SourceError, match=problem):
        compare(file, tmp_path, monkeypatch, body)


def test_an_artifact_without_a_verdict_is_compared(file, tmp_path, monkeypatch):
    packaged = Path(maskrcnn.__file__).with_name("demo.onnx")
    metadata = replace(read_metadata(packaged), verdict={})
    write_onnx(packaged.read_bytes(), tmp_path / "x.onnx", metadata)
    monkeypatch.setenv(PYTHON, str(stand_in(tmp_path, NOTHING)))
    found = source.compare_written(tmp_path / "x.onnx", metadata, file, None)
    assert [case["image"] for case in found["cases"]] == ["demo image", "portrait cut", "strip"]
    assert [case["expected"] for case in found["cases"]] == [0, 0, 0]
    assert found["cases"][0]["found"] > 3
    assert not found["passed"]


MMDETECTION = """
model = dict(
    type='MaskRCNN',
    data_preprocessor=dict(mean=[103.53, 116.28, 123.675], std=[1.0, 1.0, 1.0], pad_size_divisor=32),
    backbone=dict(type='ResNet', depth=18, style='pytorch'))
test_pipeline = [dict(type='Resize', scale=(160, 96), keep_ratio=True)]
"""


@pytest.mark.skipif(not os.environ.get(PYTHON), reason=f"{PYTHON} names no Python with a genuine package")
@pytest.mark.parametrize("family", ["torchvision", "detectron2", "mmdetection"])
def test_the_genuine_package_runs(family, tmp_path):
    write_state(tmp_path / "x.pth", state_dicts.values(state_dicts.FAMILIES[family](18, classes=2)))
    (tmp_path / "x.py").write_text(MMDETECTION)
    settings = ("resize.short_side=96", "resize.long_side=160", "detection.min_score=0")
    opened = read_family(
        tmp_path / "x.pth", Choices(tmp_path / "x.py" if family == "mmdetection" else None, settings=settings)
    )
    found = source._run(tmp_path, os.environ[PYTHON], opened, [("x.jpg", IMAGE), ("y.jpg", IMAGE[:, :50])])
    if found is None:
        pytest.skip(f"{os.environ[PYTHON]} has no {source._PACKAGES[family]}")
    facts, (first, second) = found
    assert facts["package"].startswith(source._PACKAGES[family])
    assert (first.masks.shape[1:], second.masks.shape[1:]) == ((60, 80), (60, 50))
    assert len(first.boxes) == len(first.scores) == len(first.masks) <= 100


def test_an_interpreter_that_does_not_exist_is_an_error(file, monkeypatch):
    monkeypatch.setenv(PYTHON, "/nowhere/python")
    with pytest.raises(SourceError, match=r"/nowhere/python, which MASKRCNN_SOURCE_PYTHON names, cannot be started"):
        compare_with_source(file, [("x.jpg", IMAGE)], list, lambda _: None)


def test_a_verdict_without_a_source_has_no_such_section():
    assert "source" not in verdict({}).to_dict()
    assert verdict({"ran": False}).to_dict()["source"] == {"ran": False}
