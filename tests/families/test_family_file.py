"""A PyTorch checkpoint from file to configuration: layers of settings, their origins, and what commands say of it."""

import hashlib
import json
import pickle
from collections import OrderedDict

import numpy as np
import pytest
from pytorch_models import state_dicts
from pytorch_models.detectron2_yaml import yaml_text
from typer.testing import CliRunner

from maskrcnn.checkpoints.families import family_file
from maskrcnn.checkpoints.families.choices import Choices
from maskrcnn.checkpoints.families.family_file import read_family
from maskrcnn.checkpoints.open_weights import open_weights
from maskrcnn.checkpoints.pytorch.state_dict import StateDict
from maskrcnn.checkpoints.pytorch.torch_write import write_state
from maskrcnn.cli import app
from maskrcnn.configuration.model import Config
from maskrcnn.configuration.samples import COCO_CLASS_NAMES
from maskrcnn.errors import ArgumentError, CheckpointMismatchError, ConfigError

TINY = state_dicts.TINY
SMALL = {"MODEL.RESNETS.DEPTH": 18, "MODEL.FPN.OUT_CHANNELS": 16, "MODEL.ROI_HEADS.NUM_CLASSES": 2}
YAML = yaml_text(
    SMALL
    | {
        "MODEL.PIXEL_STD": [57.375, 57.12, 58.395],
        "MODEL.RESNETS.STRIDE_IN_1X1": False,
        "MODEL.ROI_HEADS.SCORE_THRESH_TEST": 0.3,
        "INPUT.MIN_SIZE_TEST": 600,
    }
)
PYTHON = """
model = dict(
    type='MaskRCNN',
    data_preprocessor=dict(mean=[103.53, 116.28, 123.675], std=[1.0, 1.0, 1.0], bgr_to_rgb=False,
                           pad_size_divisor=32),
    backbone=dict(type='ResNet', depth=18, style='caffe'),
    rpn_head=dict(type='RPNHead'),
    test_cfg=dict(rcnn=dict(score_thr=0.1)))
metainfo = dict(classes=('square', 'circle'))
test_pipeline = [dict(type='Resize', scale=(320, 256), keep_ratio=True)]
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A checkpoint of each family, with two classes on a small ResNet-18, and configurations."""
    path = tmp_path_factory.mktemp("families")
    for family, shapes in state_dicts.FAMILIES.items():
        write_state(path / f"{family}.pth", state_dicts.values(shapes(18, classes=2, **TINY)))
    (path / "d2.yaml").write_text(YAML)
    (path / "mm.py").write_text(PYTHON)
    return path


def opened(path, **choices):
    settings = tuple(choices.pop("settings", ()))
    return read_family(path, Choices(**choices, settings=settings))


def test_the_channels_of_a_gray_checkpoint_are_given_with_set(tmp_path):
    state = state_dicts.values(state_dicts.torchvision(18, classes=2, **TINY))
    state["backbone.body.conv1.weight"] = state["backbone.body.conv1.weight"][:, :1]
    write_state(tmp_path / "gray.pth", state)
    with pytest.raises(ConfigError, match=r"gray\.pth: mean_pixel has 3 values for 1 .* with --set SECTION.NAME=VALUE"):
        opened(tmp_path / "gray.pth")
    with pytest.raises(ArgumentError, match=r"gray\.pth: pixel_std has 3 values for 1 image_channels"):
        opened(tmp_path / "gray.pth", settings=["model.mean_pixel=[127]"])
    config = opened(tmp_path / "gray.pth", settings=["model.mean_pixel=[127]", "model.pixel_std=[50]"]).config
    assert (config.model.image_channels, config.model.mean_pixel, config.model.pixel_std) == (1, (127,), (50,))


def test_torchvision_with_names_and_settings(folder):
    file = opened(folder / "torchvision.pth", classes="a,b", settings=["detection.min_score=0.2"])
    assert (file.found.family, file.config.name, file.bgr) == ("torchvision", "torchvision", False)
    model = file.config.model
    assert (model.class_names, model.backbone, model.backbone_width) == (("BG", "a", "b"), "resnet18", 8)
    assert (model.roi_aligned, model.anchor_step, model.batch_norm_epsilon) == (False, "fitted", 1e-5)
    assert file.config.resize.short_side == 800
    assert file.config.detection.min_score == 0.2
    origins = file.origins
    assert origins["model.backbone"] == "names and shapes"
    assert origins["model.class_names"] == "--classes"
    assert origins["detection.min_score"] == "--set"
    assert origins["model.anchor_step"] == origins["resize.mode"] == "the preset of torchvision"
    assert "model.image_channels" not in origins  # as in our defaults


def test_every_setting_that_is_not_our_default_has_an_origin(folder):
    for family, config in (("torchvision", None), ("detectron2", "d2.yaml"), ("mmdetection", "mm.py")):
        file = opened(folder / f"{family}.pth", config=config and folder / config)
        ours = family_file._leaves(family_file.to_dict(Config()))
        theirs = family_file._leaves(family_file.to_dict(file.config))
        differing = {name for name, value in theirs.items() if value != ours[name]} - {"name"}
        assert differing == set(file.origins)


def test_a_configuration_of_detectron2_overrides_the_preset(folder):
    plain, file = (opened(folder / "detectron2.pth", config=config) for config in (None, folder / "d2.yaml"))
    assert (plain.config.model.stride_in_1x1, plain.config.model.pixel_std) == (True, ())
    assert (plain.config.resize.resampling, plain.bgr) == ("pillow", True)
    assert (file.config.model.stride_in_1x1, file.config.detection.min_score) == (False, 0.3)
    assert file.config.model.pixel_std == (58.395, 57.12, 57.375)
    assert (file.config.resize.short_side, file.config.resize.long_side) == (600, 1333)
    for name in ("model.stride_in_1x1", "model.pixel_std", "detection.min_score", "resize.short_side"):
        assert file.origins[name] == f"{folder / 'd2.yaml'} and Detectron2's defaults"
    file = opened(folder / "detectron2.pth", config=folder / "d2.yaml", settings=["resize.short_side=400"])
    assert (file.config.resize.short_side, file.origins["resize.short_side"]) == (400, "--set")


def test_mmdetection_needs_its_configuration(folder, monkeypatch):
    path = folder / "mmdetection.pth"
    with pytest.raises(ConfigError, match=r"mmdetection\.pth has no configuration of MMDetection.*--config FILE\.py"):
        opened(path)
    file = opened(path, config=folder / "mm.py")
    assert (file.bgr, file.config.model.stride_in_1x1, file.config.detection.min_score) == (True, True, 0.1)
    assert file.config.model.class_names == ("BG", "square", "circle")
    assert (file.config.resize.short_side, file.config.resize.resampling) == (256, "opencv")
    state = family_file.read_state(path)
    metas = [
        {"cfg": PYTHON, "dataset_meta": {"classes": ["box", "disc"]}},  # version 3
        {"config": PYTHON, "CLASSES": ["box", "disc"]},  # version 2
    ]
    for meta in metas:
        monkeypatch.setattr(
            family_file, "read_state", lambda _, meta=meta: StateDict(state.tensors, "", extras={"meta": meta})
        )
        file = opened(path)
        assert (file.bgr, file.config.detection.min_score) == (True, 0.1)
        assert file.config.model.class_names == ("BG", "box", "disc")
        assert file.origins["detection.min_score"] == "the configuration in mmdetection.pth"
        assert file.origins["model.class_names"] == "the meta of mmdetection.pth"


def test_a_file_of_class_names_in_a_configuration_is_not_a_class(folder, tmp_path):
    path = tmp_path / "mm.py"
    path.write_text(PYTHON.replace("classes=('square', 'circle')", "classes='classes.txt'"))
    with pytest.raises(ConfigError, match=r"mm\.py has the class names 'classes\.txt', .* with --classes"):
        opened(folder / "mmdetection.pth", config=path)
    named = opened(folder / "mmdetection.pth", config=path, classes="a,b")
    assert named.config.model.class_names == ("BG", "a", "b")


def test_a_complete_configuration_of_ours_replaces_the_preset(folder, tmp_path):
    config = opened(folder / "torchvision.pth", classes="a,b", settings=["resize.short_side=256"]).config
    (tmp_path / "ours.json").write_text(config.to_json())
    file = opened(folder / "torchvision.pth", config=str(tmp_path / "ours.json"))
    assert file.config == config
    assert set(file.origins.values()) == {f"the configuration {tmp_path / 'ours.json'}"}
    file = opened(folder / "torchvision.pth", config=config, classes="c,d")
    assert file.config.model.class_names == ("BG", "c", "d")


def with_state(monkeypatch, shapes, extra=None, sha256=None):
    """Let a file be read as a state dict of these shapes; the values are not looked at."""
    tensors = {name: np.broadcast_to(np.float32(0), shape) for name, shape in shapes.items()} | (extra or {})
    monkeypatch.setattr(family_file, "read_state", lambda _: StateDict(tensors, ""))
    if sha256 is not None:
        fake = type("Digest", (), {"hexdigest": staticmethod(lambda: sha256)})
        monkeypatch.setattr(family_file.hashlib, "file_digest", lambda *_: fake)


def test_the_published_file_has_no_epsilon_and_the_names_of_coco(folder, monkeypatch):
    path = folder / "torchvision.pth"
    with_state(monkeypatch, state_dicts.torchvision(), sha256="bf2d0c1e" + "0" * 56)
    file = opened(path)
    assert file.config.model.batch_norm_epsilon == 0
    assert (file.config.model.class_names[1], file.config.model.class_names[90]) == ("person", "toothbrush")
    assert "torchvision's COCO_V1 weights, by its SHA-256" in next(file.report(False))
    with_state(monkeypatch, state_dicts.torchvision(version=2), sha256="73cbd019" + "0" * 56)
    assert opened(path).config.model.batch_norm_epsilon == 1e-5
    with_state(monkeypatch, state_dicts.torchvision(), sha256="0" * 64)
    file = opened(path)
    assert (file.config.model.batch_norm_epsilon, file.config.model.class_names[1]) == (1e-5, "class 1")
    assert list(file.report(False))[-1].endswith("give the names with --classes")


def test_coco_of_a_configuration_names_the_classes(folder, monkeypatch, tmp_path):
    with_state(monkeypatch, state_dicts.detectron2())
    (tmp_path / "coco.yaml").write_text(yaml_text({}))
    file = opened(folder / "detectron2.pth", config=tmp_path / "coco.yaml")
    assert file.config.model.class_names == COCO_CLASS_NAMES
    assert "trained on COCO" in file.origins["model.class_names"]


def test_the_mean_in_a_file_of_detectron2(folder, monkeypatch, tmp_path):
    shapes, path = state_dicts.detectron2(), folder / "detectron2.pth"
    pixels = {"pixel_mean": np.float32([[[1]], [[2]], [[3]]]), "pixel_std": np.float32([[[4]], [[5]], [[6]]])}
    with_state(monkeypatch, shapes, pixels)
    model = opened(path).config.model
    assert (model.mean_pixel, model.pixel_std) == ((3, 2, 1), (6, 5, 4))
    with_state(monkeypatch, shapes, {"pixel_mean": np.float32([123.675, 116.28, 103.53])})
    with pytest.raises(CheckpointMismatchError, match=r"not in the order BGR: .* INPUT\.FORMAT"):
        opened(path)
    yaml = tmp_path / "format.yaml"
    for order, values in (("RGB", (123.675, 116.28, 103.53)), ("BGR", (103.53, 116.28, 123.675))):
        yaml.write_text(yaml_text({"MODEL.PIXEL_MEAN": [123.675, 116.28, 103.53], "INPUT.FORMAT": order}))
        assert opened(path, config=yaml).config.model.mean_pixel == values
    shapes["backbone.bottom_up.stem.conv1.weight"] = (8, 4, 7, 7)
    with_state(monkeypatch, shapes, {"pixel_mean": np.float32([1, 2, 3, 4])})
    assert opened(path).config.model.mean_pixel == (4, 3, 2, 1)


def test_anchors_beside_the_usual_three(folder, monkeypatch):
    with_state(monkeypatch, state_dicts.torchvision(anchors=2))
    with pytest.raises(CheckpointMismatchError, match=r"has 2 anchors in a cell, the configuration 3: .*anchor_ratios"):
        opened(folder / "torchvision.pth")
    file = opened(folder / "torchvision.pth", settings=["model.anchor_ratios=[1, 2]"])
    assert file.config.model.anchor_ratios == (1, 2)


@pytest.mark.parametrize(
    ("family", "choices", "error", "problem"),
    [
        ("torchvision", {"family": "detectron2"}, CheckpointMismatchError, "names of torchvision, not of Detectron2"),
        ("torchvision", {"classes": "a,b,c"}, ArgumentError, "has 2 classes besides the background, --classes has 3"),
        ("torchvision", {"classes": "coco"}, ArgumentError, "COCO has 80"),
        ("torchvision", {"classes": "a,a"}, ConfigError, r"torchvision\.pth: .*class names must be unique"),
        ("torchvision", {"config": "d2.yaml"}, ConfigError, "one of Detectron2, and torchvision.pth .* of torchvision"),
        ("detectron2", {"config": "mm.py"}, ConfigError, "one of MMDetection, and detectron2.pth .* of Detectron2"),
        ("detectron2", {"config": "none.yaml"}, ConfigError, r"none\.yaml"),
        ("torchvision", {"config": "none.json"}, ConfigError, r"none\.json"),
        ("torchvision", {"settings": ["detection.min_scor=1"]}, ArgumentError, "did you mean 'min_score'"),
        ("torchvision", {"settings": ["detection.min_score=7"]}, ArgumentError, "expected 0 to 1"),
    ],
)
def test_choices_that_do_not_fit(folder, family, choices, error, problem):
    choices = (
        {**choices, "config": choices["config"] and str(folder / choices["config"])} if "config" in choices else choices
    )
    with pytest.raises(error, match=problem):
        opened(folder / f"{family}.pth", **choices)


def test_family_and_classes_are_for_pytorch_checkpoints(tmp_path):
    (tmp_path / "x.h5").write_bytes(b"\x89HDF\r\n\x1a\n")
    for choices in (Choices(family="torchvision"), Choices(classes="a,b")):
        with pytest.raises(
            ArgumentError, match=r"x\.h5 is no PyTorch checkpoint: --family and --classes are for those"
        ):
            open_weights(tmp_path / "x.h5", choices)


# Commands, without TensorFlow


def run(*arguments):
    return CliRunner().invoke(app, list(map(str, arguments)))


def test_config_from_prints_the_configuration_and_where_it_is_from(folder):
    result = run("config", "from", folder / "torchvision.pth", "--classes", "a,b", "--set", "resize.short_side=288")
    assert result.exit_code == 0, result.stderr
    assert Config.from_json(result.stdout).model.class_names == ("BG", "a", "b")
    assert "torchvision.pth: torchvision Mask R-CNN v1 on ResNet-18-FPN with 2 classes, recognized" in result.stderr
    assert "from the preset of torchvision: " in result.stderr
    assert "from --set: resize.short_side 288" in result.stderr
    said = run("config", "from", folder / "torchvision.pth", "--family", "torchvision")
    assert "recognized" not in said.stderr


COMMANDS = [
    "config from {}",
    "predict {} x.jpg -o {out}",
    "evaluate {} x.json -o {out}",
    "inspect {} -o {out}",
    "train x.json --init {} -o {out}",
]


@pytest.mark.parametrize("line", COMMANDS)
@pytest.mark.parametrize(
    ("options", "code", "problem"),
    [
        ("--family detectron2", 4, "names of torchvision, not of Detectron2"),
        ("--classes a,b,c", 2, "--classes has 3"),
        ("--family tfod", 2, "is not one of 'torchvision', 'detectron2', 'mmdetection'"),
        ("--set detection.min_score=7", 2, "expected 0 to 1"),
        ("--config none.yaml", 4, "one of Detectron2, and torchvision.pth"),
    ],
)
def test_every_command_refuses_choices_that_do_not_fit(folder, tmp_path, monkeypatch, line, options, code, problem):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.json").write_text('{"images": [], "annotations": [], "categories": []}')
    (tmp_path / "x.jpg").write_bytes(b"")
    words = [word.format(folder / "torchvision.pth", out=tmp_path / "out") for word in line.split()]
    result = run(*words, *options.split())
    assert result.exit_code == code, result.output
    assert problem in " ".join(result.output.replace("│", " ").split())


def test_options_of_checkpoints_are_wrong_usage_with_an_artifact(tmp_path):
    result = run("predict", "demo", "x.jpg", "-o", tmp_path / "out", "--set", "detection.min_score=0.2")
    assert result.exit_code == 2
    assert "--family, --classes and --set are for checkpoints" in result.stderr


def test_a_pickle_with_code_is_refused_by_every_command(tmp_path):
    class Payload:
        def __reduce__(self):
            return print, ("never",)

    (tmp_path / "x.pth").write_bytes(pickle.dumps(OrderedDict(weight=Payload())))
    result = run("config", "from", tmp_path / "x.pth")
    assert (result.exit_code, result.stdout) == (4, "")


def test_the_digest_is_that_of_the_file(folder):
    file = opened(folder / "torchvision.pth")
    assert file.sha256 == hashlib.sha256((folder / "torchvision.pth").read_bytes()).hexdigest()
    assert json.loads(file.config.to_json())["model"]["backbone"] == "resnet18"
