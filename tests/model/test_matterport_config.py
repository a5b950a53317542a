"""Matterport's configuration: every field is read, and values survive a round trip."""

import dataclasses
import json
import subprocess
import sys
from dataclasses import replace

import golden
import pytest
from to_matterport import to_matterport

from maskrcnn.configuration.files import read_config
from maskrcnn.configuration.matterport import (
    ABSENT,
    from_matterport,
    is_matterport,
    known_fields,
)
from maskrcnn.configuration.model import Config
from maskrcnn.configuration.samples import COCO, DEMO, NUCLEUS, SAMPLES
from maskrcnn.configuration.training import LOSS_NAMES, AugmentationConfig, TrainingConfig
from maskrcnn.errors import ConfigError
from runtime.pictures.letterbox import ResizePolicy

# mrcnn/config.py, in its order; the last three are computed by its constructor.
FIELDS = [
    "NAME", "GPU_COUNT", "IMAGES_PER_GPU", "STEPS_PER_EPOCH", "VALIDATION_STEPS", "BACKBONE",
    "COMPUTE_BACKBONE_SHAPE", "BACKBONE_STRIDES", "FPN_CLASSIF_FC_LAYERS_SIZE", "TOP_DOWN_PYRAMID_SIZE",
    "NUM_CLASSES", "RPN_ANCHOR_SCALES", "RPN_ANCHOR_RATIOS", "RPN_ANCHOR_STRIDE", "RPN_NMS_THRESHOLD",
    "RPN_TRAIN_ANCHORS_PER_IMAGE", "PRE_NMS_LIMIT", "POST_NMS_ROIS_TRAINING", "POST_NMS_ROIS_INFERENCE",
    "USE_MINI_MASK", "MINI_MASK_SHAPE", "IMAGE_RESIZE_MODE", "IMAGE_MIN_DIM", "IMAGE_MAX_DIM",
    "IMAGE_MIN_SCALE", "IMAGE_CHANNEL_COUNT", "MEAN_PIXEL", "TRAIN_ROIS_PER_IMAGE", "ROI_POSITIVE_RATIO",
    "POOL_SIZE", "MASK_POOL_SIZE", "MASK_SHAPE", "MAX_GT_INSTANCES", "RPN_BBOX_STD_DEV", "BBOX_STD_DEV",
    "DETECTION_MAX_INSTANCES", "DETECTION_MIN_CONFIDENCE", "DETECTION_NMS_THRESHOLD", "LEARNING_RATE",
    "LEARNING_MOMENTUM", "WEIGHT_DECAY", "LOSS_WEIGHTS", "USE_RPN_ROIS", "TRAIN_BN", "GRADIENT_CLIP_NORM",
    "BATCH_SIZE", "IMAGE_SHAPE", "IMAGE_META_SIZE",
]  # fmt: skip

DEFAULTS = {
    "BACKBONE": "resnet101",
    "BACKBONE_STRIDES": [4, 8, 16, 32, 64],
    "BBOX_STD_DEV": [0.1, 0.1, 0.2, 0.2],
    "DETECTION_MAX_INSTANCES": 100,
    "DETECTION_MIN_CONFIDENCE": 0.7,
    "DETECTION_NMS_THRESHOLD": 0.3,
    "FPN_CLASSIF_FC_LAYERS_SIZE": 1024,
    "GRADIENT_CLIP_NORM": 5.0,
    "IMAGES_PER_GPU": 2,
    "IMAGE_CHANNEL_COUNT": 3,
    "IMAGE_MAX_DIM": 1024,
    "IMAGE_MIN_DIM": 800,
    "IMAGE_MIN_SCALE": 0,
    "IMAGE_RESIZE_MODE": "square",
    "LEARNING_MOMENTUM": 0.9,
    "LEARNING_RATE": 0.001,
    "LOSS_WEIGHTS": dict.fromkeys(LOSS_NAMES, 1.0),
    "MASK_POOL_SIZE": 14,
    "MASK_SHAPE": [28, 28],
    "MAX_GT_INSTANCES": 100,
    "MEAN_PIXEL": [123.7, 116.8, 103.9],
    "MINI_MASK_SHAPE": [56, 56],
    "NUM_CLASSES": 1,
    "POOL_SIZE": 7,
    "POST_NMS_ROIS_INFERENCE": 1000,
    "POST_NMS_ROIS_TRAINING": 2000,
    "PRE_NMS_LIMIT": 6000,
    "ROI_POSITIVE_RATIO": 0.33,
    "RPN_ANCHOR_RATIOS": [0.5, 1, 2],
    "RPN_ANCHOR_SCALES": [32, 64, 128, 256, 512],
    "RPN_ANCHOR_STRIDE": 1,
    "RPN_BBOX_STD_DEV": [0.1, 0.1, 0.2, 0.2],
    "RPN_NMS_THRESHOLD": 0.7,
    "RPN_TRAIN_ANCHORS_PER_IMAGE": 256,
    "STEPS_PER_EPOCH": 1000,
    "TOP_DOWN_PYRAMID_SIZE": 256,
    "TRAIN_BN": False,
    "TRAIN_ROIS_PER_IMAGE": 200,
    "USE_MINI_MASK": True,
    "USE_RPN_ROIS": True,
    "VALIDATION_STEPS": 50,
    "WEIGHT_DECAY": 0.0001,
}

# Sizes that are constants in the original, and training settings that its scripts pass as arguments.
NOT_MATTERPORTS = {
    "model": {"backbone_width", "rpn_channels", "mask_head_channels", "roi_sampling"},
    "detection": {"drop_empty_boxes", "mask_paste"},
    "training": {
        "optimizer",
        "weight_decay_mode",
        "schedule",
        "warmup_steps",
        "stages",
        "augmentation",
    },
}


def test_every_field_has_a_home_or_a_reasoned_absence():
    assert len(FIELDS) == 48
    assert known_fields() == set(FIELDS)
    assert set(ABSENT) == set(FIELDS) - set(DEFAULTS) - {"NAME"}
    assert all(reason for reason in ABSENT.values())


def test_defaults_are_matterports():
    written = to_matterport(from_matterport({"NUM_CLASSES": 1}))
    assert {name: written[name] for name in DEFAULTS} == DEFAULTS


@pytest.mark.parametrize("name", [name for name in SAMPLES if name not in ("demo", "small")])
def test_samples_survive_both_ways(name):
    written = json.loads(json.dumps(to_matterport(SAMPLES[name])))
    assert set(written) == set(DEFAULTS) | {"NAME", "CLASS_NAMES"}
    config = SAMPLES[name]
    plain = replace(config.training, stages=TrainingConfig().stages, augmentation=AugmentationConfig())
    assert from_matterport(written) == replace(config, training=plain)


def test_what_matterport_has_no_field_for_is_lost():
    ours, back = DEMO.to_dict(), from_matterport(to_matterport(DEMO)).to_dict()
    for section, lost in NOT_MATTERPORTS.items():
        assert {name for name, value in ours[section].items() if back[section][name] != value} == lost
    assert all(back[name] == ours[name] for name in ours if name not in NOT_MATTERPORTS)


@pytest.mark.parametrize(
    "name", sorted(DEFAULTS.keys() - {"NUM_CLASSES", "MASK_SHAPE", "MASK_POOL_SIZE", "BACKBONE_STRIDES"})
)
def test_every_field_is_read_and_written(name):
    """A value other than the default changes the configuration and comes back."""
    other = {
        "BACKBONE": "resnet50",
        "IMAGE_CHANNEL_COUNT": 1,
        "IMAGE_RESIZE_MODE": "pad64",
        "LOSS_WEIGHTS": dict.fromkeys(LOSS_NAMES, 1.0) | {"mrcnn_mask_loss": 2.0},
        "RPN_ANCHOR_SCALES": [1.0, 2.0, 3.0, 4.0, 5.0],
        "IMAGE_MAX_DIM": 512,
        "DETECTION_MIN_CONFIDENCE": 0.25,
    }
    default = DEFAULTS[name]
    if name in other:
        value = other[name]
    elif isinstance(default, bool):
        value = not default
    elif isinstance(default, list):
        value = [item * 0.5 if isinstance(item, float) else item + 1 for item in default]
    else:
        value = default + 1 if isinstance(default, int) else default / 2
    given = {name: value}
    if name == "IMAGE_CHANNEL_COUNT":
        given["MEAN_PIXEL"] = [7.0]
    if name == "IMAGE_RESIZE_MODE":
        given["IMAGE_MIN_DIM"] = 512
    config = from_matterport(given)
    assert config != from_matterport({})
    assert to_matterport(config)[name] == value


def test_pool_and_mask_size_belong_together():
    config = from_matterport({"MASK_POOL_SIZE": 7, "MASK_SHAPE": [14, 14]})
    assert config.model.mask_size == 14
    config = from_matterport({"MASK_SHAPE": [56, 56]})
    assert (config.model.mask_head_deconvolutions, config.model.mask_size) == (2, 56)
    message = r"MASK_SHAPE is \[56, 56\]: the mask head outputs 14 x 14, twice MASK_POOL_SIZE, or 28 x 28 with a second"
    with pytest.raises(ConfigError, match=message):
        from_matterport({"MASK_POOL_SIZE": 7, "MASK_SHAPE": [56, 56]})


def test_the_golden_runs_configuration():
    values = golden.config_values(golden.load("infer_small_seed0"))
    assert set(values) == set(FIELDS)
    config = from_matterport(values)
    assert config.model.backbone == "resnet50"
    assert config.model.class_names == ("BG", "class 1", "class 2", "class 3")
    assert config.detection.max_detections == 50
    assert config.proposals.post_nms_inference == 200
    assert config.resize.max_dim == 256
    written = to_matterport(config)
    assert {name: written[name] for name in values if name not in ABSENT} == {
        name: value for name, value in values.items() if name not in ABSENT
    }


@pytest.mark.parametrize("name", ["coco", "small_batch2", "small_pad64"])
def test_the_other_golden_runs_configurations(name):
    values = golden.config_values(golden.load(f"infer_{name}_seed0"))
    written = to_matterport(from_matterport(values))
    assert {name: written[name] for name in values if name not in ABSENT} == {
        name: value for name, value in values.items() if name not in ABSENT
    }


def test_crop_is_for_training_only():
    config = from_matterport({"IMAGE_RESIZE_MODE": "crop", "IMAGE_MIN_DIM": 512, "IMAGE_MIN_SCALE": 2.0})
    assert config.resize == ResizePolicy("pad64", 512, 1024, 2.0)
    assert config.training.resize == ResizePolicy("crop", 512, 1024, 2.0)
    assert to_matterport(config)["IMAGE_RESIZE_MODE"] == "crop"
    assert to_matterport(NUCLEUS)["IMAGE_RESIZE_MODE"] == "crop"


@pytest.mark.parametrize("off", [None, 0, 0.0])
def test_no_minimum_confidence(off):
    assert from_matterport({"DETECTION_MIN_CONFIDENCE": off}).detection.min_score == 0


def test_full_size_masks():
    config = from_matterport({"USE_MINI_MASK": False, "MINI_MASK_SHAPE": [28, 30]})
    assert config.training.mini_mask_size is None
    assert to_matterport(config)["USE_MINI_MASK"] is False
    assert from_matterport({"MINI_MASK_SHAPE": [28, 30]}).training.mini_mask_size == (28, 30)


def test_class_names_may_be_added():
    config = from_matterport({"NUM_CLASSES": 3, "CLASS_NAMES": ["BG", "a", "b"]})
    assert config.model.class_names == ("BG", "a", "b")


def test_no_name_is_our_default_name():
    assert from_matterport({"NAME": None}).name == Config().name
    assert from_matterport({"NAME": "x"}).name == "x"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"NUM_CLASSES": 0}, "NUM_CLASSES is 0: expected a positive integer"),
        ({"NUM_CLASSES": True}, "NUM_CLASSES is True"),
        ({"NUM_CLASSES": 2.5}, r"NUM_CLASSES is 2\.5"),
        ({"NUM_CLASSES": "81"}, "NUM_CLASSES is '81'"),
        ({"NUM_CLASSES": 2, "CLASS_NAMES": ["BG"]}, "CLASS_NAMES has 1 names, NUM_CLASSES is 2"),
        ({"NUM_CLASSES": 2, "CLASS_NAMES": 5}, "CLASS_NAMES is 5: expected a list"),
        ({"LOSS_WEIGHTS": {"rpn_loss": 1.0}}, "LOSS_WEIGHTS has 'rpn_loss': expected rpn_class_loss"),
        ({"LOSS_WEIGHTS": 1.0}, r"LOSS_WEIGHTS is 1\.0: wrong type"),
        ({"MASK_SHAPE": 27}, r"MASK_SHAPE is \[27, 27\]: the mask head"),
        ({"MASK_SHAPE": "28"}, "MASK_SHAPE is '28': the mask head"),
        ({"STEPS_PER_EPOCH": "many"}, "steps_per_epoch is 'many'"),
        ({"IMAGE_RESIZE_MODE": "letterbox"}, "mode is 'letterbox'"),
        ({"IMAGE_RESIZE_MODE": "crop"}, "needs a multiple of 64"),
        ({"IMAGE_MAX_DIM": 1000}, "resize to 1000 pixels"),
        ({"BACKBONE": "vgg"}, "backbone is 'vgg'"),
        ({"DETECTION_MIN_CONFIDENCE": "high"}, "min_score is 'high'"),
        ({"MEAN_PIXEL": [1, 2]}, "mean_pixel has 2 values"),
    ],
)
def test_refusals(values, message):
    with pytest.raises(ConfigError, match=message):
        from_matterport(values)


SCALARS = [
    ({"MEAN_PIXEL": 0}, {"MEAN_PIXEL": [0, 0, 0]}),
    ({"MEAN_PIXEL": 7.5, "IMAGE_CHANNEL_COUNT": 1}, {"MEAN_PIXEL": [7.5], "IMAGE_CHANNEL_COUNT": 1}),
    ({"BBOX_STD_DEV": 0.2, "RPN_BBOX_STD_DEV": 1}, {"BBOX_STD_DEV": [0.2] * 4, "RPN_BBOX_STD_DEV": [1] * 4}),
    ({"MINI_MASK_SHAPE": 28, "MASK_SHAPE": 28.0}, {"MINI_MASK_SHAPE": [28, 28], "MASK_SHAPE": [28, 28]}),
    ({"NUM_CLASSES": 3.0, "IMAGE_MAX_DIM": 512.0}, {"NUM_CLASSES": 3, "IMAGE_MAX_DIM": 512}),
    ({"STEPS_PER_EPOCH": 100.0, "VALIDATION_STEPS": 5.0}, {"STEPS_PER_EPOCH": 100, "VALIDATION_STEPS": 5}),
]


@pytest.mark.parametrize(("given", "meant"), SCALARS)
def test_numbers_for_lists_and_whole_floats(given, meant, caplog):
    assert from_matterport(given) == from_matterport(meant)
    assert not caplog.text


def test_steps_are_rounded_up_as_the_loop_of_the_original_does(caplog):
    config = from_matterport({"STEPS_PER_EPOCH": 12.5, "VALIDATION_STEPS": 0.1})
    assert (config.training.steps_per_epoch, config.training.validation_steps) == (13, 1)
    assert "STEPS_PER_EPOCH is 12.5 and means 13 steps" in caplog.text


def test_settings_of_the_users_own_are_named_and_left_out(caplog):
    config = from_matterport({"NUM_CLASSES": 2, "DATA_DIR": "x", "NUM_CLASES": 3, "MY_\x1b": 1})
    assert config == from_matterport({"NUM_CLASSES": 2})
    assert "are left out: 'DATA_DIR', 'MY_\\x1b', 'NUM_CLASES' (did you mean NUM_CLASSES?)" in caplog.text


def test_a_class_is_not_executed_but_how_to_print_it_is_said(tmp_path):
    """The three lines of the message, run as they are, print what is read."""
    (tmp_path / "mrcnn").mkdir()
    (tmp_path / "mrcnn" / "config.py").write_text(
        "import numpy as np\n\n\nclass Config:\n    MEAN_PIXEL = np.array([1.0, 2.0, 3.0])\n"
        "    COMPUTE_BACKBONE_SHAPE = print\n    NUM_CLASSES = 1\n"
    )
    path = tmp_path / "toy_config.py"
    path.write_text(
        "from mrcnn.config import Config\n\n\nclass ToyConfig(Config):\n    NUM_CLASSES = 1 + 3\n    MINE = 5\n\n\n"
        "open(__file__ + '.ran', 'w').close()\n"
    )
    with pytest.raises(ConfigError, match="is Python code, which is not executed here") as refused:
        read_config(path)
    message = str(refused.value)
    assert message.isprintable()
    assert not (tmp_path / "toy_config.py.ran").exists()
    lines = message.partition("give that file: ")[2].replace("; ", "\n")
    assert len(lines.splitlines()) == 3
    done = subprocess.run([sys.executable, "-c", lines], cwd=tmp_path, capture_output=True, text=True, check=True)
    (tmp_path / "toy.json").write_text(done.stdout)
    config = read_config(tmp_path / "toy.json")
    assert config.model.num_classes == 4
    assert config.model.mean_pixel == (1.0, 2.0, 3.0)


def test_dialects_are_told_apart():
    assert is_matterport(to_matterport(COCO))
    assert is_matterport({"NUM_CLASSES": 2})
    assert not is_matterport(COCO.to_dict())
    assert not is_matterport({})
    assert {f.name for f in dataclasses.fields(Config)}.isdisjoint(FIELDS)


def test_other_strides_are_refused():
    with pytest.raises(ConfigError, match="backbone_strides"):
        from_matterport(DEFAULTS | {"BACKBONE_STRIDES": [2, 4, 8, 16, 32]})


def test_class_names_alone_give_their_number():
    assert from_matterport({"CLASS_NAMES": ["BG", "cell"], "BACKBONE": "resnet50"}).model.class_names == ("BG", "cell")


@pytest.mark.parametrize(
    "values",
    [
        {"NUM_CLASSES": 10**15},  # each class would get a name
        {"NUM_CLASSES": 2, "LOSS_WEIGHTS": []},
        {"BACKBONE": "resnet50", "CLASS_NAMES": 3},
        {"NUM_CLASSES": 2, "MASK_SHAPE": "\x1b[2J\n"},
        {"NUM_CLASSES": 2, "IMAGE_MAX_DIM": 10**400},
    ],
    ids=str,
)
def test_values_of_a_hostile_file_are_refused_in_one_line(values):
    with pytest.raises(ConfigError) as refused:
        from_matterport(values)
    assert str(refused.value).isprintable()
