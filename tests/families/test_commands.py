"""A small torchvision checkpoint through commands: to ONNX, to other checkpoints and back, and into training."""

import hashlib

import numpy as np
import pytest
from pytorch_models import state_dicts
from typer.testing import CliRunner

import maskrcnn
from export.cli import app as export_app
from maskrcnn.checkpoints.named_weights import HEAD_LAYERS, get_arrays
from maskrcnn.checkpoints.pytorch.state_dict import read_state
from maskrcnn.checkpoints.pytorch.torch_write import write_state
from maskrcnn.cli import app
from maskrcnn.demo import demo_picture
from maskrcnn.model import MaskRCNN
from maskrcnn.training.initialize import initialize
from runtime import Predictor
from runtime.artifact_files.read import read_metadata

SETTINGS = ["--set", "resize.short_side=96", "--set", "resize.long_side=128", "--set", "detection.max_detections=20"]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    path = tmp_path_factory.mktemp("torchvision") / "tiny.pth"
    write_state(path, state_dicts.values(state_dicts.torchvision(18, classes=2, **state_dicts.TINY)))
    return path


@pytest.fixture(scope="module")
def model(checkpoint):
    return maskrcnn.load_checkpoint(checkpoint, classes=("a", "b"), settings=["detection.max_detections=20"])[0]


def run(program, *arguments):
    result = CliRunner().invoke(program, list(map(str, arguments)))
    assert result.exit_code == 0, result.output
    return result


def test_from_pytorch_to_onnx_in_one_command(checkpoint, tmp_path):
    from PIL import Image

    (tmp_path / "images").mkdir()
    Image.fromarray(demo_picture()).save(tmp_path / "images" / "demo.png")
    output = tmp_path / "tiny.onnx"
    options = ["--classes", "a,b", *SETTINGS, "--verify-images", tmp_path / "images", "-o", output]
    result = run(export_app, "onnx", checkpoint, *options)
    assert "torchvision Mask R-CNN v1 on ResNet-18-FPN with 2 classes, recognized by its names" in result.stderr
    assert "source: torchvision was not run (it builds no network with backbone_width 8)" in result.stdout
    metadata = read_metadata(output)
    digest = hashlib.sha256(checkpoint.read_bytes()).hexdigest()
    assert metadata.checkpoint == {"name": "tiny.pth", "sha256": digest, "family": "torchvision"}
    assert metadata.class_names == ("BG", "a", "b")
    assert metadata.verdict["source"]["ran"] is False
    with Predictor(output) as predictor:
        found = predictor(demo_picture())
    assert len(found) == 20
    assert found.masks.shape == (20, 360, 480)


def test_a_checkpoint_goes_to_torchvision_as_it_came(checkpoint, tmp_path):
    result = run(app, "weights", "convert", checkpoint, "--to", "torchvision", "-o", tmp_path / "out.pth")
    assert "num_classes=3, min_size=800, max_size=1333" in result.stderr
    before, after = (read_state(path).tensors for path in (checkpoint, tmp_path / "out.pth"))
    assert before.keys() == after.keys()
    assert all(np.array_equal(before[name], after[name]) for name in before)


def test_a_checkpoint_becomes_one_of_ours(checkpoint, model, tmp_path):
    output = tmp_path / "out.weights.h5"
    options = ["--classes", "a,b", "--set", "detection.max_detections=20"]
    run(app, "weights", "convert", checkpoint, "--to", "maskrcnn", *options, "-o", output)
    again, report = maskrcnn.load_checkpoint(output)
    assert (again.config, report.origins) == (model.config, ())
    before, after = get_arrays(model), get_arrays(again)
    assert all(np.array_equal(before[name], after[name]) for name in before)


def test_torchvision_does_not_get_a_model_that_it_cannot_compute(tmp_path):
    output = tmp_path / "out.pth"
    result = CliRunner().invoke(app, ["weights", "convert", "demo", "--to", "torchvision", "-o", str(output)])
    assert result.exit_code == 4
    assert "torchvision computes something else than this model: model.backbone_padding is 'same'" in result.stderr
    assert not output.exists()


@pytest.mark.parametrize("names", [("a", "b"), ("c", "d"), ("a", "b", "c")])
def test_training_starts_from_all_layers_that_fit(checkpoint, model, names):
    config = maskrcnn.open_weights(checkpoint, maskrcnn.Choices(settings=("detection.max_detections=20",))).config
    classes = ("BG", *names)
    network = MaskRCNN(maskrcnn.Config.from_dict(changed(config.to_dict(), classes)))
    opened = maskrcnn.open_weights(checkpoint, maskrcnn.Choices(classes="a,b"))
    report = initialize(network, opened)
    heads = {name for name in get_arrays(network) if name.split("/")[0] in HEAD_LAYERS}
    assert set(report.excluded) == (set() if names == ("a", "b") else heads)
    theirs, ours = get_arrays(model), get_arrays(network)
    assert all(np.array_equal(theirs[name], ours[name]) for name in theirs.keys() - set(report.excluded))


def changed(values, class_names):
    values["model"]["class_names"] = list(class_names)
    return values
