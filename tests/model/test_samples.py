"""The samples of the original have its settings; what differs has its reason in docs/configuration.md."""

import ast
import dataclasses
from typing import get_args, get_type_hints

import pytest

from maskrcnn.configuration.model import Config
from maskrcnn.configuration.samples import SAMPLES
from maskrcnn.configuration.training import AugmentationConfig, StageConfig

# What the original's samples set, and what its schedules are; everything else is the default of its `Config`.
DEFAULTS = {
    "model.backbone": "resnet101",
    "model.anchor_scales": (32, 64, 128, 256, 512),
    "model.anchor_ratios": (0.5, 1, 2),
    "model.mean_pixel": (123.7, 116.8, 103.9),
    "proposals.pre_nms_limit": 6000,
    "proposals.post_nms_training": 2000,
    "proposals.post_nms_inference": 1000,
    "proposals.nms_threshold": 0.7,
    "detection.max_detections": 100,
    "detection.min_score": 0.7,
    "detection.nms_threshold": 0.3,
    "resize.mode": "square",
    "resize.min_dim": 800,
    "resize.max_dim": 1024,
    "resize.min_scale": 0,
    "training.batch_size": 2,
    "training.steps_per_epoch": 1000,
    "training.validation_steps": 50,
    "training.learning_rate": 0.001,
    "training.momentum": 0.9,
    "training.weight_decay": 0.0001,
    "training.gradient_clip_norm": 5.0,
    "training.loss_weights": (1, 1, 1, 1, 1),
    "training.anchors_per_image": 256,
    "training.rois_per_image": 200,
    "training.roi_positive_ratio": 0.33,
    "training.max_instances": 100,
    "training.mini_mask_size": (56, 56),
    "training.use_rpn_proposals": True,
    "training.train_batch_norm": False,
    "training.resize": None,
    "training.optimizer": "sgd",
    "training.weight_decay_mode": "l2_mean",
    "training.schedule": "constant",
    "training.warmup_steps": 0,
    "training.augmentation": AugmentationConfig(),
}
ORIGINAL = {
    "coco": {
        "classes": 81,
        "phases": [("heads", 40, 0.001), ("4+", 80, 0.001), ("all", 40, 0.0001)],
        "training.augmentation": AugmentationConfig(flip_horizontal=0.5),
    },
    "balloon": {
        "classes": 2,
        "phases": [("heads", 30, 0.001)],
        "detection.min_score": 0.9,
        "training.steps_per_epoch": 100,
    },
    "shapes": {
        "classes": 4,
        "phases": [("heads", 1, 0.001), ("all", 1, 0.0001)],
        "model.anchor_scales": (8, 16, 32, 64, 128),
        "resize.min_dim": 128,
        "resize.max_dim": 128,
        "training.batch_size": 8,
        "training.steps_per_epoch": 100,
        "training.validation_steps": 5,
        "training.rois_per_image": 32,
    },
    "nucleus": {
        "classes": 2,
        "phases": [("heads", 20, 0.001), ("all", 20, 0.001)],
        "model.backbone": "resnet50",
        "model.anchor_scales": (8, 16, 32, 64, 128),
        "model.mean_pixel": (43.53, 39.56, 48.22),
        "proposals.post_nms_training": 1000,
        "proposals.post_nms_inference": 2000,
        "proposals.nms_threshold": 0.9,  # 0.7 in inference
        "detection.max_detections": 400,
        "detection.min_score": 0.0,
        "resize.mode": "pad64",
        "resize.min_dim": 512,
        "resize.max_dim": 512,
        "resize.min_scale": 2.0,
        "training.resize.mode": "crop",
        "training.resize.min_dim": 512,
        "training.resize.max_dim": 512,
        "training.resize.min_scale": 2.0,
        "training.batch_size": 6,
        "training.steps_per_epoch": (657 - 25) // 6,
        "training.validation_steps": 25 // 6,
        "training.anchors_per_image": 64,
        "training.rois_per_image": 128,
        "training.max_instances": 200,
        # up to two of: mirroring (half of the time) in either direction, a turn, x 0.8 to 1.5, blur of 0 to 5 pixels
        "training.augmentation": "up to two of five",
    },
}
# Sample and setting -> our value. Each has its reason in the section "Samples" of docs/configuration.md.
DIFFERENT = {
    ("nucleus", "proposals.nms_threshold"): 0.7,
    ("nucleus", "training.augmentation"): AugmentationConfig(
        flip_horizontal=0.5, flip_vertical=0.5, rotate_90=0.5, brightness=0.5, blur=2.5
    ),
}
OURS = ("demo", "small")  # made for this project


def setting(config, path):
    for name in path.split("."):
        config = getattr(config, name)
    return config


def test_every_sample_is_compared():
    assert {*ORIGINAL, *OURS} == set(SAMPLES)


@pytest.mark.parametrize("name", ORIGINAL)
def test_sample_is_the_originals(name):
    config, original = SAMPLES[name], DEFAULTS | ORIGINAL[name]
    if "training.resize.mode" in original:
        del original["training.resize"]
    assert config.model.num_classes == original.pop("classes")
    rate = config.training.learning_rate
    phases = [(each.layers, each.epochs, each.learning_rate or rate) for each in config.training.stages]
    assert phases == original.pop("phases")
    expected = {path: DIFFERENT.get((name, path), value) for path, value in original.items()}
    assert {path: setting(config, path) for path in expected} == expected


def test_differences_are_different_and_have_reasons(pytestconfig):
    page = (pytestconfig.rootpath / "docs" / "configuration.md").read_text(encoding="utf-8")
    reasons = page.split("\n## Samples\n")[1].split("\n## ")[0]
    for (name, path), value in DIFFERENT.items():
        assert (DEFAULTS | ORIGINAL[name])[path] != value
        row = next(line for line in reasons.splitlines() if line.startswith(f"| `{name}` | `{path}` |"))
        assert len(row.split("|")[4].split()) > 5


def fields(kind, section=""):
    """Every setting of a configuration: its section, which is the name that holds it, and its name."""
    for name, hint in get_type_hints(kind).items():
        yield section, name
        for each in (hint, *get_args(hint)):
            if dataclasses.is_dataclass(each):
                yield from fields(each, "phase" if each is StageConfig else name)


# What variables and attributes with a section are called where its settings are read.
HOLDERS = {
    "": {"config", "_config"},
    "model": {"model", "config"},
    "proposals": {"proposals", "limits", "rules", "config"},
    "resize": {"resize", "policy"},
    "training": {"training"},
    "augmentation": {"config"},
}
# Two sizes together, and weights in the order of the classes.
READ_AS = {"min_log_size": "log_sizes", "max_log_size": "log_sizes", "class_weights": "weights_of"}


def test_every_setting_is_read_outside_the_configuration(pytestconfig):
    """Other than to show it."""
    reads = set()
    for package in ("maskrcnn", "export", "runtime"):
        for path in (pytestconfig.rootpath / package).rglob("*.py"):
            if path.parent.name not in ("configuration", "inspection"):
                nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
                found = (node for node in nodes if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load))
                reads |= {(ast.unparse(node.value).split(".")[-1], node.attr) for node in found}
    unread = [
        (section, name)
        for section, name in fields(Config)
        if not any((holder, READ_AS.get(name, name)) in reads for holder in HOLDERS.get(section, {section}))
    ]
    assert unread == []
