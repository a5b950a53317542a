"""`maskrcnn` as a user meets it: a whole run, and one line with an exit code for every failure."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from training_runs import tiny
from typer.testing import CliRunner

from export.describe import describe
from maskrcnn.checkpoints.checkpoint import load_checkpoint
from maskrcnn.checkpoints.matterport_h5 import read_arrays
from maskrcnn.cli import app
from maskrcnn.configuration.training import StageConfig
from maskrcnn.data.readers.open import open_dataset
from maskrcnn.data.synthetic.shapes import write_shapes

FINDINGS, USAGE, UNUSABLE, OUTPUT = 1, 2, 4, 6


def call(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def succeeded(*arguments):
    """Return stdout of a command that must succeed."""
    result = call(*arguments)
    assert result.exit_code == 0, result.output
    return result.stdout


def failed(code, *arguments):
    """Return the error message of a command that must fail with this exit code: one line, no traceback."""
    result = call(*arguments)
    assert isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code == code, result.output
    lines = [line for line in result.stderr.splitlines() if not line.startswith(("... ", "warning: "))]
    assert len(lines) == 1, result.stderr
    return lines[0]


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cli")
    write_shapes(folder / "shapes", count=4, seed=0, size=(64, 64))
    config = tiny(steps_per_epoch=2, validation_steps=0, stages=(StageConfig("heads", 1), StageConfig("all", 1)))
    (folder / "config.json").write_text(config.to_json(), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def run(shapes):
    """A finished run, and what its command printed."""
    printed = succeeded(
        "train", shapes / "shapes", "--val", shapes / "shapes", "--config", shapes / "config.json",
        "-o", shapes / "run", "--set", "run.tensorboard=false", "--set", "training.learning_rate=0.002",
    )  # fmt: skip
    return shapes / "run", printed


def test_value_range_and_bands_travel_with_the_checkpoint(shapes):
    succeeded(
        "train", shapes / "shapes", "--config", shapes / "config.json", "-o", shapes / "deep", "--layers", "heads",
        "--value-range", "0", "4095", "--bands", "3,2,1", "--set", "run.tensorboard=false",
    )  # fmt: skip
    config = load_checkpoint(shapes / "deep" / "last.weights.h5")[0].config
    assert (config.pixels.value_range, config.pixels.bands) == ((0, 4095), (3, 2, 1))
    assert describe(load_checkpoint(shapes / "deep" / "last.weights.h5")[0], "onnx", {}).pixels == config.pixels
    folders = ("train", shapes / "shapes", "-o", shapes / "no", "--config", shapes / "config.json")
    assert "bands is (1, 2); expected 3" in failed(USAGE, *folders, "--bands", "1,2")
    for wrong in (("--bands", "0,1,2"), ("--bands", "red"), ("--value-range", "9", "1"), ("--value-range", "0", "nan")):
        result = call(*folders, *wrong)
        assert result.exit_code == USAGE
        assert "expected" in result.stderr
    assert not (shapes / "no").exists()


def test_own_augmentation_of_a_run(shapes, tmp_path):
    """A run trains with a function of the user's and resumes with it alone; its errors name the image."""
    mine = tmp_path / "mine.py"
    mine.write_text(
        "def dark(image, boxes, masks, rng):\n    return image // 2, boxes, masks\n\n\n"
        "def bad(image, boxes, masks):\n    raise KeyError('strength')\n",
        encoding="utf-8",
    )
    train = (
        "train", shapes / "shapes", "--config", shapes / "config.json", "--layers", "heads",
        "--set", "run.tensorboard=false", "-o",
    )  # fmt: skip
    message = failed(UNUSABLE, *train, tmp_path / "bad", "--augment-with", f"{mine}:bad")
    assert "mine:bad" in message
    assert "raised KeyError: 'strength'" in message
    assert message.startswith("error: image ")
    succeeded(*train, tmp_path / "run", "--augment-with", f"{mine}:dark")
    succeeded(*train, tmp_path / "run", "--augment-with", f"{mine}:dark", "--resume")
    assert "with augmentation 'mine:dark (SHA-256 " in failed(UNUSABLE, *train, tmp_path / "run", "--resume")


def test_a_run_says_what_it_did(run):
    folder, printed = run
    assert "training finished after 2 epochs" in printed
    assert str(folder / "last.weights.h5") in printed
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    assert config["training"]["learning_rate"] == 0.002
    assert [len(epoch) > 8 for epoch in json.loads((folder / "history.json").read_text(encoding="utf-8"))] == [True] * 2


def test_one_stage_from_a_checkpoint(run, tmp_path):
    """`--init` with a checkpoint that stores its configuration needs no `--config`; other layers stay as they were."""
    folder, _ = run
    succeeded(
        "train", folder.parent / "shapes", "--init", folder / "last.weights.h5", "--layers", "rpn_.*",
        "--epochs", 1, "-o", tmp_path / "tuned", "--set", "run.tensorboard=false",
    )  # fmt: skip
    before, after = (read_arrays(path / "last.weights.h5")[0] for path in (folder, tmp_path / "tuned"))
    moved = {key.split("/")[0] for key in before if not np.array_equal(before[key], after[key])}
    assert moved == {"rpn_conv_shared", "rpn_class_raw", "rpn_bbox_pred"}


def test_evaluation_prints_and_writes_the_same_figures(run, tmp_path):
    folder, _ = run
    shapes = folder.parent / "shapes"
    printed = succeeded("evaluate", folder / "last.weights.h5", shapes, "-o", tmp_path / "scores", "--limit", 3)
    assert "3 images" in printed
    summary = json.loads((tmp_path / "scores" / "summary.json").read_text(encoding="utf-8"))
    row = next(line.split() for line in printed.splitlines() if line.split()[:1] == ["AP50"])
    written = [summary[kind]["numbers"]["AP50"] for kind in ("bbox", "segm")]
    assert row[1:] == [f"{value:.3f}" for value in written]
    with Image.open(tmp_path / "scores" / "worst.png") as image:
        assert image.size > (64, 64)
    failed(OUTPUT, "evaluate", folder / "last.weights.h5", shapes, "-o", tmp_path / "scores")


def test_check_counts_findings(shapes, tmp_path):
    assert ": can be trained on" in succeeded("data", "check", shapes / "shapes")
    content = json.loads((shapes / "shapes" / "annotations.json").read_text(encoding="utf-8"))
    content["images"][1]["file_name"] = "gone.png"
    (tmp_path / "broken.json").write_text(json.dumps(content), encoding="utf-8")
    result = call("data", "check", tmp_path / "broken.json", "--images", shapes / "shapes" / "images")
    assert result.exit_code == FINDINGS
    assert "gone.png" in result.stdout


def test_via_with_classes(tmp_path):
    """The region attribute that holds the class is named on the command line."""
    Image.new("RGB", (32, 24)).save(tmp_path / "a.png")
    square = {"name": "rect", "x": 2, "y": 3, "width": 9, "height": 8}
    regions = [{"shape_attributes": square, "region_attributes": {"kind": kind}} for kind in ("cat", "dog")]
    via = {"a.png1": {"filename": "a.png", "size": 1, "regions": regions, "file_attributes": {}}}
    (tmp_path / "via.json").write_text(json.dumps(via), encoding="utf-8")
    printed = succeeded("data", "check", tmp_path / "via.json", "--class-attribute", "kind", "--all")
    assert "class 'cat': 1 object in 1 image" in printed
    assert "class 'dog': 1 object in 1 image" in printed
    assert call("data", "check", tmp_path / "via.json", "--format", "csv").exit_code == USAGE


@pytest.mark.parametrize(
    ("code", "arguments", "expected"),
    [
        (UNUSABLE, ("--config", "nowhere.json"), "nowhere.json"),
        (USAGE, (), "--config"),
        (USAGE, ("--config", "demo", "--set", "training.nonsense=1"), "nonsense"),
        (USAGE, ("--config", "demo", "--set", "run.nonsense=1"), "run.nonsense"),
        (USAGE, ("--config", "demo", "--set", "training.batch_size=0"), "batch_size"),
        (UNUSABLE, ("--config", "demo", "--layers", "mrcnn_nothing"), "mrcnn_nothing"),
        (UNUSABLE, ("--config", "demo", "--init", "nowhere.h5"), "nowhere.h5"),
        (USAGE, ("--config", "demo", "--augment-with", "nowhere.py:mine"), "there is no file nowhere.py"),
    ],
)
def test_what_cannot_be_trained_is_said(shapes, tmp_path, code, arguments, expected):
    error = failed(code, "train", shapes / "shapes", "-o", tmp_path / "run", *arguments)
    assert expected in error
    assert not (tmp_path / "run" / "state.h5").exists()


@pytest.fixture
def crowds(shapes, tmp_path):
    """The shapes, all of them crowds."""
    content = json.loads((shapes / "shapes" / "annotations.json").read_text(encoding="utf-8"))
    for row in content["annotations"]:
        row["iscrowd"] = 1
    path = tmp_path / "crowds.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


@pytest.mark.parametrize("validation", [False, True])
def test_data_without_an_object_does_not_train(shapes, crowds, tmp_path, validation):
    sound, images = shapes / "shapes", shapes / "shapes" / "images"
    data = (sound, "--val", crowds, "--val-images", images) if validation else (crowds, "--images", images)
    error = failed(UNUSABLE, "train", *data, "--config", shapes / "config.json", "-o", tmp_path / "run")
    assert "none of its images has an object" in error
    assert not (tmp_path / "run").exists()


def test_data_without_an_object_is_not_evaluated(shapes, crowds, tmp_path):
    images = shapes / "shapes" / "images"
    error = failed(UNUSABLE, "evaluate", "demo", crowds, "--images", images, "-o", tmp_path / "scores")
    assert "none of its images has an object" in error


def test_a_run_says_what_is_in_the_data_and_what_was_left_out(shapes, tmp_path):
    """On stderr, before anything is trained; here the classes of the validation data are others, which ends the run."""
    content = json.loads((shapes / "shapes" / "annotations.json").read_text(encoding="utf-8"))
    names = {row["id"]: row["name"] for row in content["categories"]}
    lost = [row for row in content["annotations"] if names[row["category_id"]] == "square"]
    for row in lost:
        row["segmentation"] = [[1, 2, 3, 4, 5]]
    path = tmp_path / "broken.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    (tmp_path / "other.json").write_text(json.dumps(content | {"categories": [], "annotations": []}), encoding="utf-8")
    images = ("--images", shapes / "shapes" / "images", "--val-images", shapes / "shapes" / "images")
    result = call(
        "train",
        path,
        "--val",
        tmp_path / "other.json",
        *images,
        "--config",
        "demo",
        "--skip-bad",
        "-o",
        tmp_path / "run",
    )
    assert result.exit_code == UNUSABLE
    assert f"error polygon-odd ({len(lost)} left out): " in result.stderr
    message = f"class 'square': the class has no objects; {len(lost)} are left out, most of the class"
    assert any(line.startswith(f"warning: {path}: ") and message in line for line in result.stderr.splitlines())
    for name in ("circle", "triangle"):
        count = sum(names[row["category_id"]] == name for row in content["annotations"])
        assert not count or f"class '{name}': {count} objects in " in result.stderr


def test_missing_data_is_said(tmp_path):
    error = failed(UNUSABLE, "train", tmp_path / "nothing.json", "--config", "demo", "-o", tmp_path / "run")
    assert "nothing.json" in error
    result = call("data", "check", tmp_path / "nothing.json")  # the check reports it as a finding
    assert result.exit_code == FINDINGS
    assert "nothing.json does not exist" in result.stdout


def test_a_run_is_not_overwritten(run):
    folder, _ = run
    error = failed(UNUSABLE, "train", folder.parent / "shapes", "--config", "demo", "-o", folder)
    assert "--resume" in error


def test_shapes_are_written_once(tmp_path):
    folder = tmp_path / "shapes"
    succeeded("data", "shapes", folder, "--count", 2, "--seed", 3)
    kept = (folder / "annotations.json").read_bytes()
    failed(OUTPUT, "data", "shapes", folder, "--count", 1)
    assert (folder / "annotations.json").read_bytes() == kept
    succeeded("data", "shapes", folder, "--count", 1, "--force")
    assert len(list(Path(folder / "images").iterdir())) == 1


def test_validation_data_are_set_apart_and_recorded(shapes):
    line = ("train", shapes / "shapes", "--config", shapes / "config.json", "--layers", "heads", "--epochs", "1")
    line = (*line, "-o", shapes / "apart", "--set", "run.tensorboard=false", "--val", "0.25")
    result = call(*line)
    assert result.exit_code == 0, result.output
    kept = shapes / "apart" / "val"
    assert f"next: maskrcnn evaluate {shapes / 'apart' / 'best.weights.h5'} {kept}\n" in result.stderr
    records = open_dataset(kept).records
    assert f"... val: {len(records)} of 4 images, " in result.stderr
    source = {each.image_id: each for each in open_dataset(shapes / "shapes").records}
    for record in records:
        assert record.image.samefile(source[record.image_id].image)
        assert [each.mask for each in record.instances] == [each.mask for each in source[record.image_id].instances]

    before = "the run was started with split 'val 0.25, test 0, seed 0, by image', but now it is "
    for changed, now in (
        ((*line[:-1], "0.3"), "val 0.3, test 0, seed 0"),
        ((*line, "--val-seed", 1), "val 0.25, test 0, seed 1"),
    ):
        assert f"{before}'{now}, by image'" in failed(UNUSABLE, *changed, "--resume")
