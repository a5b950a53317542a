"""Checkpoints of others: names that Keras numbered, numbers that are no weights, and what shapes say of a network."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace

import golden
import h5py
import keras_h5
import numpy as np
import pytest
from typer.testing import CliRunner

from maskrcnn.checkpoints.architecture import config_of, config_to_complete, matched, shown_settings
from maskrcnn.checkpoints.matterport_h5 import read_arrays, read_shapes, write_arrays
from maskrcnn.cli import app
from maskrcnn.configuration.files import read_config
from maskrcnn.configuration.matterport import from_matterport
from maskrcnn.configuration.model import Config
from maskrcnn.configuration.samples import SAMPLES
from maskrcnn.errors import CheckpointError, CheckpointFormatError, CheckpointMismatchError

ROOT = golden.REPOSITORY
DEMO = ROOT / "maskrcnn" / "demo.weights.h5"


def resnet(blocks=(3, 4, 6, 3), classes=81, rpn=512, width=64, channels=3, anchors=3, head=1024):
    """The shapes of matterport's weights that say something of the network."""
    shapes = {"conv1/kernel": (7, 7, channels, width), "fpn_c5p5/kernel": (1, 1, 32 * width, 256)}
    for stage, count in enumerate(blocks, 2):
        for block in range(count):
            for branch in "abc":
                shapes[f"res{stage}{chr(97 + block)}_branch2{branch}/kernel"] = (1, 1, 8, 8)
    shapes |= {"rpn_conv_shared/kernel": (3, 3, 256, rpn), "rpn_class_raw/kernel": (1, 1, rpn, 2 * anchors)}
    shapes |= {"mrcnn_class_conv1/kernel": (7, 7, 256, head), "mrcnn_class_logits/kernel": (head, classes)}
    return shapes | {"mrcnn_mask_conv1/kernel": (3, 3, 256, 256)}


def write(path, shapes, attributes=None):
    write_arrays(path, {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}, attributes)
    return path


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, {"backbone": "resnet50", "classes": 81, "rpn_channels": 512}),
        ({"blocks": (3, 4, 23, 3), "classes": 2}, {"backbone": "resnet101", "classes": 2}),
        ({"blocks": (3, 8, 36, 3)}, {"backbone": "custom"}),
        ({"channels": 1}, {"image_channels": 1, "backbone_width": 64}),
        ({"width": 32, "rpn": 256, "head": 512}, {"backbone_width": 32, "rpn_channels": 256, "box_head_channels": 512}),
        ({"anchors": 5}, {"anchor_ratios": (1.0, 2.0, 3.0, 4.0, 5.0)}),
    ],
)
def test_shapes_show_the_network(options, expected):
    found = shown_settings(resnet(**options))
    found["classes"] = len(found["class_names"])
    assert expected.items() <= found.items()
    assert found["mask_head_channels"] == 256
    assert found["box_pool_size"] == 7


def test_the_demos_file_shows_its_own_configuration():
    shapes, _ = read_shapes(DEMO)
    shown, own = shown_settings(shapes), config_of(DEMO).model
    assert len(shown.pop("class_names")) == len(own.class_names)
    assert shown == {name: getattr(own, name) for name in shown}
    assert len(shown) == 9


def test_the_original_small_model_shows_its_own_configuration(tmp_path):
    arrays = keras_h5.numbered_arrays()
    keras_h5.write(tmp_path / "small.h5", arrays, keras_h5.MANIFEST["layer_names"])
    shown = shown_settings(read_shapes(tmp_path / "small.h5")[0])
    own = from_matterport(golden.config_values(golden.load("infer_small_seed0"))).model
    assert shown["backbone"] == own.backbone
    assert len(shown["class_names"]) == own.num_classes


@pytest.mark.parametrize("missing", ["rpn_conv_shared/kernel", "mrcnn_class_logits/kernel", "fpn_c5p5/kernel"])
def test_other_networks_show_nothing(missing):
    shapes = resnet()
    del shapes[missing]
    assert shown_settings(shapes) is None
    assert shown_settings({}) is None
    assert shown_settings(resnet() | {missing: (3,)}) is None


def test_numbered_names_are_matched_where_there_is_one_candidate():
    network = {"rpn_conv_shared/kernel", "rpn_conv_shared/bias", "conv1/kernel", "res2_1/kernel"}
    names = {"rpn_conv_shared_1/kernel", "rpn_conv_shared_1/bias_2", "conv1/kernel_7", "res2_1/kernel"}
    assert matched(names, network) == {
        "rpn_conv_shared/kernel": "rpn_conv_shared_1/kernel",
        "rpn_conv_shared/bias": "rpn_conv_shared_1/bias_2",
        "conv1/kernel": "conv1/kernel_7",
        "res2_1/kernel": "res2_1/kernel",
    }
    assert matched({"conv1_1/kernel", "conv1_2/kernel"}, network) == {}
    assert matched({"conv1_1/kernel", "conv1/kernel"}, network) == {"conv1/kernel": "conv1/kernel"}


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        ({}, "a Mask R-CNN on ResNet-50 with 81 classes"),
        ({"blocks": (3, 4, 23, 3), "classes": 4}, "a Mask R-CNN on ResNet-101 with 4 classes"),
        ({"blocks": (3, 8, 36, 3)}, "a Mask R-CNN on another backbone with 81 classes"),
    ],
)
def test_a_file_without_a_configuration_says_what_it_is(tmp_path, options, kind):
    path = write(tmp_path / "weights.h5", resnet(**options))
    with pytest.raises(CheckpointMismatchError, match=kind) as refused:
        config_of(path)
    assert f"maskrcnn config from {path} -o FILE.json" in str(refused.value)
    assert "rpn_channels 512" in str(refused.value)
    assert ("--config coco" in str(refused.value)) == (options.get("classes", 81) == 81)


def test_a_configuration_to_complete_is_written(tmp_path):
    path = write(tmp_path / "cells.v2.h5", resnet(classes=3, channels=4, anchors=2))
    result = CliRunner().invoke(app, ["config", "from", str(path), "-o", str(tmp_path / "config.json")])
    assert result.exit_code == 0, result.output
    config = read_config(tmp_path / "config.json")
    assert (config.name, config.model.backbone, config.model.image_channels) == ("cells", "resnet50", 4)
    assert config.model.class_names == ("BG", "class 1", "class 2")
    for part in ("class_names: 2 names", "resize.min_dim", "anchor_scales", "anchor_ratios: 2 values", "mean_pixel"):
        assert part in result.stderr
    assert result.stdout == f"wrote {tmp_path / 'config.json'}\n"
    again = CliRunner().invoke(app, ["config", "from", str(path), "-o", str(tmp_path / "config.json")])
    assert again.exit_code == 6
    printed = CliRunner().invoke(app, ["config", "from", str(path)])
    assert json.loads(printed.stdout) == json.loads((tmp_path / "config.json").read_text())


@pytest.mark.parametrize("name", ["coco", "nucleus", "demo"])
def test_a_stored_configuration_is_complete(tmp_path, name):
    path = write(tmp_path / "own.weights.h5", {"a/kernel": (1,)}, {"maskrcnn_config": SAMPLES[name].to_json()})
    assert config_to_complete(path) == (SAMPLES[name], [])


@pytest.mark.parametrize("shapes", [{"dense/kernel": (3, 4)}, {"conv1_conv/kernel": (7, 7, 3, 64)}])
def test_there_is_no_configuration_for_another_network(tmp_path, shapes):
    path = write(tmp_path / "other.h5", shapes)
    kind = "a ResNet classifier" if "conv1_conv/kernel" in shapes else "not a Mask R-CNN"
    result = CliRunner().invoke(app, ["config", "from", str(path)])
    assert (result.exit_code, result.stdout) == (4, "")
    assert kind in result.stderr


# Commands

COMMANDS = {
    "maskrcnn": [
        "predict {} picture.png -o out",
        "evaluate {} dataset.json -o out",
        "inspect {} -o out",
        "train dataset.json --init {} -o out",
        "config from {}",
    ],
    "export": ["onnx {} -o x.onnx", "savedmodel {} -o x", "verify demo.onnx --against {}"],
}
LINES = [(package, line) for package, lines in COMMANDS.items() for line in lines]
START = (
    "import sys; sys.modules['tensorflow'] = sys.modules['keras'] = None; "
    "from {}.__main__ import main; sys.argv[0] = 'program'; main()"
)


def start(package, line, path, cwd):
    """Run a command in an interpreter without TensorFlow, beside an artifact."""
    shutil.copy(ROOT / "maskrcnn" / "demo.onnx", cwd)
    command = [sys.executable, "-c", START.format(package), *(word.format(path) for word in line.split())]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd, env=environment)


@pytest.mark.parametrize(("package", "line"), [case for case in LINES if "config" not in case[1]])
def test_a_command_refuses_weights_without_a_configuration_before_tensorflow(tmp_path, package, line):
    (tmp_path / "dataset.json").write_text('{"images": [], "annotations": [], "categories": []}')
    (tmp_path / "picture.png").write_bytes(b"")
    path = write(tmp_path / "weights.h5", resnet(blocks=(3, 4, 23, 3)))
    done = start(package, line, path, tmp_path)
    assert done.returncode == 4, done.stderr
    assert "ResNet-101 with 81 classes" in done.stderr
    assert "maskrcnn config from" in done.stderr


def test_a_configuration_needs_neither_tensorflow_nor_hdf5():
    code = "import sys; sys.modules['h5py'] = None; " + START.format("maskrcnn")
    command = [sys.executable, "-c", code, "config", "from", "demo"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    assert Config.from_json(done.stdout) == SAMPLES["demo"]


def zip_of(name):
    return b"PK\x03\x04" + bytes(22) + len(name).to_bytes(2, "little") + bytes(2) + name.encode()


FOREIGN = {
    "model.keras": (zip_of("metadata.json"), "a Keras 3 archive"),
    "renamed.h5": (zip_of("metadata.json"), "a Keras 3 archive"),
    "torch.h5": (zip_of("archive/data.pkl"), "weights of PyTorch"),
    "model.pth": (zip_of("model/data.pkl"), "weights of PyTorch"),
    "old.pth": (b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.", "weights of PyTorch"),
    "R50.pkl": (b"\x80\x03}q\x00", "weights of PyTorch"),
    "model.safetensors": (b"\x10\0\0\0\0\0\0\0{}", "weights of PyTorch"),
    "pickled.h5": (b"\x80\x04\x95", "weights of PyTorch"),
    "model.tflite": (b"\x1c\0\0\0TFL3", "a TensorFlow Lite file"),
    "tflite.h5": (b"\x1c\0\0\0TFL3", "a TensorFlow Lite file"),
    "frozen.pb": (b"\n\x10", "a TensorFlow graph"),
    "model.ckpt": (b"\0\0", "part of a TensorFlow checkpoint"),
    "model.ckpt.index": (b"\0" * 40, "part of a TensorFlow checkpoint"),
    "model.ckpt.data-00000-of-00001": (b"\0" * 40, "part of a TensorFlow checkpoint"),
    "index.h5": (b"\0" * 40 + bytes.fromhex("57fb808b247547db"), "part of a TensorFlow checkpoint"),
    "lfs.h5": (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
    "page.h5": (b"\n<!DOCTYPE html>", "a web page"),
    "packed.h5": (b"\x1f\x8b\x08", "a gzip archive"),
    "config.h5": (b'{"NAME": 1}', "JSON, not weights"),
    "noise.h5": (b"anything else", "is not an HDF5 file: expected"),
    "graph.onnx": (b"\x08\x07", "an ONNX file"),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_every_other_kind_of_file_has_its_hint(tmp_path, name):
    content, hint = FOREIGN[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CheckpointFormatError, match=hint) as refused:
        read_arrays(tmp_path / name)
    assert "\n" not in str(refused.value)
    assert "  " not in str(refused.value)


def test_folders_and_prefixes_have_their_hints(tmp_path):
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "saved_model.pb").write_bytes(b"")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "last.weights.h5").write_bytes(b"")
    (tmp_path / "model.ckpt.index").write_bytes(b"")
    for name, hint in (("saved", "SavedModel"), ("run", r"run/last\.weights\.h5"), ("model.ckpt", "TensorFlow check")):
        with pytest.raises(CheckpointFormatError, match=hint):
            read_arrays(tmp_path / name)


def test_weights_of_keras_3_have_their_hint(tmp_path):
    """The groups that `save_weights` of Keras 3 writes."""
    path = tmp_path / "model.weights.h5"
    with h5py.File(path, "w") as file:
        for layer in ("conv2d", "conv2d_1"):
            group = file.create_group(f"layers/{layer}/vars")
            group.attrs["name"] = layer
            group["0"] = np.ones(3, np.float32)
    with pytest.raises(CheckpointFormatError, match=r"is a Keras 3 \.weights\.h5.*model\.save"):
        read_arrays(path)


def test_what_the_hint_of_keras_3_advises_can_be_read(tmp_path):
    import keras
    from keras import layers

    features, images = keras.Input((None, None, 4)), keras.Input((None, None, 3))
    rpn = keras.Model(features, layers.Conv2D(5, 3, name="rpn_conv_shared")(features), name="rpn_model")
    model = keras.Model(images, rpn(layers.Conv2D(4, 1, name="conv1")(images)), name="mask_rcnn")
    model.save_weights(tmp_path / "model.weights.h5")
    model.save(tmp_path / "model.keras")
    for name in ("model.weights.h5", "model.keras"):
        with pytest.raises(CheckpointFormatError, match=r"save the model with model\.save\('NAME\.h5'\)"):
            read_arrays(tmp_path / name)
    model.save(tmp_path / "NAME.h5")
    assert read_shapes(tmp_path / "NAME.h5")[0] == {
        "conv1/kernel": (1, 1, 3, 4),
        "conv1/bias": (4,),
        "rpn_conv_shared/kernel": (3, 3, 4, 5),
        "rpn_conv_shared/bias": (5,),
    }


@pytest.mark.parametrize(("package", "line"), LINES)
def test_a_command_says_what_a_file_of_another_program_is(tmp_path, package, line):
    (tmp_path / "dataset.json").write_text('{"images": [], "annotations": [], "categories": []}')
    (tmp_path / "picture.png").write_bytes(b"")
    path = tmp_path / "model.keras"
    path.write_bytes(zip_of("metadata.json"))
    done = start(package, line, path, tmp_path)
    assert done.returncode == 4, done.stderr
    assert "is not an HDF5 file but a Keras 3 archive" in done.stderr


# Loading


@pytest.fixture(scope="module")
def demo_arrays():
    return read_arrays(DEMO)[0]


def same(name):
    return name


def numbered(name):
    return f"{name}_1"


def numbered_rpn(name):
    return numbered(name) if name.startswith("rpn_") else name


def port(path, arrays, rename=same, rename_group=same, extra=None):
    """Write arrays as a port of the original may: other names, and numbers that are no weights."""
    groups = {}
    for key, array in arrays.items():
        layer, variable = key.split("/")
        group = "rpn_model" if layer.startswith("rpn_") else layer
        groups[rename_group(group), f"{rename(layer)}/{variable}:0"] = array
    groups |= extra or {}
    keras_h5.write(path, groups, list(dict.fromkeys(group for group, _ in groups)))
    return path


EXTRAS = {
    "anchors": {("anchors", "Variable:0"): np.zeros((2, 12, 4), np.float32)},
    "anchors with a name": {("anchors", "anchors/anchors:0"): np.zeros((12, 4), np.float32)},
    "numbered": {("anchors_1", "anchors_1/Variable_3:0"): np.zeros((12, 4), np.float32)},
    "state of a dropout": {("dropout", "dropout/seed_generator_state:0"): np.zeros(2, np.uint32)},
    "double": {("tf_op_layer", "x/constant:0"): np.zeros(3)},
}


@pytest.mark.parametrize("name", EXTRAS)
def test_what_is_no_weight_of_the_network_is_left_over_and_named(tmp_path, demo_arrays, name):
    from maskrcnn.checkpoints.checkpoint import load_checkpoint

    path = port(tmp_path / "port.h5", demo_arrays, extra=EXTRAS[name])
    _, report = load_checkpoint(path, SAMPLES["demo"])
    assert len(report.loaded) == len(demo_arrays)
    assert len(report.leftover) == 1
    assert report.leftover[0].split("/")[0] in str(report)


@pytest.mark.parametrize(
    ("rename", "rename_group"), [(numbered_rpn, same), (numbered, same), (numbered, numbered), (same, numbered)]
)
def test_numbered_layers_are_loaded(tmp_path, demo_arrays, rename, rename_group):
    from maskrcnn.checkpoints.checkpoint import load_checkpoint
    from maskrcnn.checkpoints.named_weights import get_arrays

    path = port(tmp_path / "port.h5", demo_arrays, rename, rename_group)
    model, report = load_checkpoint(path, SAMPLES["demo"])
    assert report.leftover == report.missing == ()
    found = get_arrays(model)
    assert all(np.array_equal(found[key], demo_arrays[key]) for key in demo_arrays)


@pytest.mark.parametrize("layer", ["res5c_branch2a", "attention", "mrcnn_mask_conv5", "conv1_7"])
def test_a_layer_that_the_network_does_not_have_is_no_leftover(tmp_path, demo_arrays, layer):
    from maskrcnn.checkpoints.checkpoint import load_checkpoint

    extra = {(layer, f"{layer}/kernel:0"): np.ones((1, 1, 3, 3), np.float32)}
    path = port(tmp_path / "port.h5", demo_arrays, extra=extra)
    with pytest.raises(CheckpointMismatchError, match=f"not in the model .such as {layer}/kernel.*on ResNet-18 with 4"):
        load_checkpoint(path, SAMPLES["demo"])


def test_a_deeper_backbone_than_configured_is_refused(tmp_path):
    from maskrcnn.checkpoints.checkpoint import load_checkpoint

    path = write(tmp_path / "deep.h5", resnet(blocks=(3, 4, 23, 3), classes=2))
    small = replace(SAMPLES["balloon"], model=replace(SAMPLES["balloon"].model, backbone="resnet50"))
    with pytest.raises(CheckpointError, match=r"another architecture.*it is a Mask R-CNN on ResNet-101 with 2 classes"):
        load_checkpoint(path, small)


def test_the_port_of_the_shared_collection_is_read(tmp_path):
    """What `cases/h5/make.py` writes."""
    with h5py.File(DEMO) as source, h5py.File(tmp_path / "anchors_variable.h5", "w") as file:
        for name in source:
            source.copy(name, file)
        group = file.create_group("anchors")
        group.attrs["weight_names"] = np.array([b"Variable:0"])
        group.create_dataset("Variable:0", data=np.zeros((2, 12, 4), np.float32))
    arrays, _ = read_arrays(tmp_path / "anchors_variable.h5")
    assert arrays["anchors/Variable"].shape == (2, 12, 4)
    with pytest.raises(CheckpointError, match="ResNet-18 with 4 classes"):
        config_of(tmp_path / "anchors_variable.h5")
