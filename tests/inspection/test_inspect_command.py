"""`maskrcnn inspect` as a user meets it: models, images, datasets, and what is wrong with them."""

import json
import re
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from maskrcnn import save_checkpoint
from maskrcnn.checkpoints.named_weights import get_arrays
from maskrcnn.cli import app
from maskrcnn.data.synthetic.shapes import write_shapes


def inspect(*arguments):
    return CliRunner().invoke(app, ["inspect", *map(str, arguments)])


@pytest.fixture(scope="module")
def folder(tmp_path_factory, demo, picture):
    path = tmp_path_factory.mktemp("typed")
    save_checkpoint(demo, path / "demo.weights.h5")
    history = [{"loss": 2.0, "mrcnn_mask_loss": 0.5}, {"loss": 1.0, "mrcnn_mask_loss": 0.25, "val_segm_ap": 0.4}]
    (path / "history.json").write_text(json.dumps(history))
    write_shapes(path / "shapes", 3, 1, size=(128, 160))
    Image.fromarray(picture).save(path / "picture.png")
    return path


def test_a_checkpoint_with_a_data_set_another_checkpoint_and_a_layer(folder, tmp_path, demo):
    other = tmp_path / "other.weights.h5"
    arrays = get_arrays(demo)
    kernel = next(v for v in demo.mask_head.variables if "kernel" in v.path and v.shape == (1, 1, 64, 4))
    kernel.assign(kernel + 1.0)
    try:
        save_checkpoint(demo, other)
    finally:
        kernel.assign(kernel - 1.0)
    changed = [name for name, array in get_arrays(demo).items() if not np.array_equal(array, arrays[name])]
    options = ["--dataset", folder / "shapes", "--compare", other, "--limit", 2, "--layer", "fpn_p4"]
    result = inspect(folder / "demo.weights.h5", "-o", tmp_path / "report", *options)
    assert result.exit_code == 0, result.output
    figures = json.loads((tmp_path / "report" / "figures.json").read_text())
    assert len(figures["pictures"]) == 2
    assert figures["data"]["pictures"] == 3
    assert "activations.fpn_p4" in figures["pictures"][0]
    assert "truth.ap50" in figures["pictures"][0]
    differing = [row["name"] for row in figures["weights"] if row["change"]]
    assert differing == ["mrcnn_mask/kernel"]
    assert set(changed) <= {"mrcnn_mask/kernel"}  # adding and subtracting 1 may round
    text = (tmp_path / "report" / "index.html").read_text(encoding="utf-8")
    assert "Training run of this checkpoint" in text
    assert "val_segm_ap" in text
    assert "Choose" not in text
    assert 'id="picture-choice"' in text


def test_a_picture_of_the_data_set_by_its_name(folder, tmp_path, monkeypatch):
    """What is inspected; the page of annotated images is that of the test above."""
    given = []

    def inspect_pictures(_runner, pictures, **_options):
        given.extend(pictures)
        return SimpleNamespace(write=lambda *_arguments, **_options: None)

    monkeypatch.setattr("maskrcnn.inspection.report.inspect_pictures", inspect_pictures)
    options = ["--dataset", folder / "shapes", "-o", tmp_path / "report"]
    result = inspect("demo", folder / "shapes" / "images" / "000001.png", *options)
    assert result.exit_code == 0, result.output
    assert [(each.name, each.annotated) for each in given] == [("000001.png", True)]
    assert given[0].record.load_instances()


@pytest.mark.parametrize("kind", ["onnx_artifact", "savedmodel_artifact"])
def test_an_artifact(kind, folder, tmp_path, request, figures):
    artifact = request.getfixturevalue(kind)
    result = inspect(artifact, folder / "picture.png", "-o", tmp_path / "report", "--device", "cpu")
    assert result.exit_code == 0, result.output
    found = json.loads((tmp_path / "report" / "figures.json").read_text())
    (ours,), (keras,) = found["pictures"], figures["pictures"]
    for key in ("anchors.after_nms", "refinement.candidates", "final.confident", "final.final"):
        assert ours[key] == keras[key]
    assert sum(found["artifact"]["nodes"].values()) > 100
    assert sum(found["artifact"]["milliseconds"].values()) > 1
    text = (tmp_path / "report" / "index.html").read_text(encoding="utf-8")
    for section in ("anchors", "refinement", "masks", "activations", "result", "artifact"):
        assert f'<section id="{section}">' in text
    assert '<section id="weights">' not in text
    assert "truth.ap50" not in text


CASES = {
    "no picture": (["MODEL"], 2, "no images to inspect"),
    "picture that is not there": (["demo", "nowhere.png"], 5, "does not exist"),
    "no such model": (["nowhere.weights.h5", "PICTURE"], 4, "nowhere.weights.h5"),
    "no such artifact": (["nowhere.onnx", "PICTURE"], 4, "nowhere.onnx"),
    "no such data set": (["demo", "--dataset", "nowhere.json"], 4, "nowhere.json"),
    "picture that the data set lacks": (["demo", "PICTURE", "--dataset", "SHAPES"], 4, "no image called picture.png"),
    "layer that is not there": (["demo", "--layer", "res9z"], 2, "no layer 'res9z'"),
    "checkpoint to compare that is not there": (["demo", "--compare", "nowhere.h5"], 4, "nowhere.h5"),
    "weights of an artifact": (["ONNX", "PICTURE", "--compare", "MODEL"], 2, "no weights to compare"),
    "layers of an artifact": (["ONNX", "PICTURE", "--layer", "fpn_p2"], 2, "no layers to show"),
    "threshold": (["demo", "--score-threshold", "1.5"], 2, "score-threshold"),
}


@pytest.mark.parametrize("case", CASES)
def test_what_is_wrong_is_said_in_one_line(case, folder, onnx_artifact, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments, code, message = CASES[case]
    places = {
        "ONNX": onnx_artifact,
        "MODEL": folder / "demo.weights.h5",
        "PICTURE": folder / "picture.png",
        "SHAPES": folder / "shapes",
    }
    result = inspect(*(places.get(each, each) for each in arguments), "-o", tmp_path / "report")
    assert result.exit_code == code
    assert message in re.sub(r"\s+", " ", result.output)
    if case != "threshold":  # which the parser of the command line refuses
        assert [line[:7] for line in result.stderr.splitlines() if not line.startswith("...")] == ["error: "]
    assert not (tmp_path / "report").exists()


def test_an_artifact_called_demo_is_not_the_demo_model(savedmodel_artifact, tmp_path, monkeypatch):
    """The packaged image is for the packaged model only."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(savedmodel_artifact, "demo")
    result = inspect("demo", "-o", "report")
    assert result.exit_code == 2
    assert "no images to inspect" in re.sub(r"\s+", " ", result.output)


def test_a_folder_of_someone_else_is_refused_before_anything_is_loaded(folder, tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    result = inspect("demo", "-o", tmp_path, "--force")
    assert result.exit_code == 6
    assert "image 1" not in result.output


def test_a_class_that_the_model_lacks_is_named(folder, tmp_path):
    content = json.loads((folder / "shapes" / "annotations.json").read_text())
    content["categories"][0]["name"] = "hexagon"
    for image in content["images"]:
        image["file_name"] = str(folder / "shapes" / "images" / image["file_name"])
    (tmp_path / "other.json").write_text(json.dumps(content))
    result = inspect("demo", "--dataset", tmp_path / "other.json", "-o", tmp_path / "report")
    assert result.exit_code == 4
    assert "hexagon" in result.output
    assert "the data alone: `maskrcnn inspect --dataset` without a model" in re.sub(r"\s+", " ", result.output)
