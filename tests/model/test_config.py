"""Configuration: conversion to JSON and back, validation, and helpful messages."""

import dataclasses
import hashlib
import json
import math
import re
from dataclasses import replace

import pytest
from to_matterport import to_matterport

from maskrcnn.configuration.dataclass_json import to_dict
from maskrcnn.configuration.files import read_config
from maskrcnn.configuration.model import Config, DetectionConfig, ModelConfig, ProposalConfig, TrainingConfig
from maskrcnn.configuration.overrides import override
from maskrcnn.configuration.samples import SAMPLES
from maskrcnn.configuration.training import AugmentationConfig, StageConfig
from maskrcnn.errors import ConfigError
from runtime.pictures.letterbox import ResizePolicy
from runtime.pictures.pixels import PixelPolicy

OTHER = Config(
    name="every field differs from its default",
    model=ModelConfig(
        class_names=("BG", 'naïve "quoted"', "日本"),
        image_channels=2,
        mean_pixel=(1.5, 0.1),
        backbone="custom",
        backbone_width=8,
        fpn_channels=16,
        anchor_scales=(1, 2.5, 3, 4, 5),
        anchor_ratios=(0.25,),
        anchor_stride=2,
        rpn_channels=24,
        rpn_box_std=(1, 2, 3, 4),
        box_std=(4, 3, 2, 1),
        box_head_channels=12,
        mask_head_channels=20,
        box_pool_size=5,
        mask_pool_size=6,
        roi_sampling="roi_align",
        pixel_std=(57.5, 0.25),
        padding="mean",
        stride_in_1x1=False,
        backbone_padding="symmetric",
        backbone_shortcut="identity",
        backbone_groups=32,
        backbone_group_width=8,
        batch_norm_epsilon=0.0,
        bias_before_batch_norm=False,
        head_batch_norm=False,
        fpn_batch_norm=True,
        rpn_convolutions=2,
        objectness="sigmoid",
        box_head_convolutions=4,
        box_head_layers=1,
        roi_padding="zeros",
        roi_aligned=False,
        roi_sampling_ratio=0,
        roi_level="floor",
        box_frame="continuous",
        min_log_size=-0.5,
        max_log_size=4.25,
        anchor_rounding=True,
        anchor_step="fitted",
        mask_head_deconvolutions=2,
    ),
    proposals=ProposalConfig(7, 8, 9, 0.125, 10, True, 0.001, "window"),
    detection=DetectionConfig(3, 0.0, 1.0, True, "aligned", "every_class", 0.01),
    resize=ResizePolicy("pad64", 128, None, 1.5),
    pixels=PixelPolicy((0.5, 4095), (2, 1)),
    training=TrainingConfig(
        batch_size=3,
        steps_per_epoch=4,
        validation_steps=5,
        learning_rate=0.25,
        momentum=0.5,
        weight_decay=0.0,
        gradient_clip_norm=1.0,
        loss_weights=(1, 2, 3, 4, 5),
        class_weights={"a": 0.5, "BG": 2.0},
        repeat_threshold=0.25,
        anchors_per_image=6,
        rois_per_image=7,
        roi_positive_ratio=0.75,
        max_instances=8,
        truth_as_proposals=True,
        smooth_l1_beta=0.0,
        box_loss_average="sampled",
        mini_mask_size=None,
        use_rpn_proposals=False,
        train_batch_norm=None,
        resize=ResizePolicy("crop", 64, None, 2.0),
        original_bugs=True,
        optimizer="adamw",
        weight_decay_mode="decoupled",
        schedule="step",
        schedule_steps=(0.5,),
        warmup_steps=2,
        gradient_accumulation=2,
        ema_momentum=0.5,
        precision="mixed_bfloat16",
        stages=(StageConfig("heads", 2, 0.5), StageConfig("all", 1)),
        seed=9,
        augmentation=AugmentationConfig(0.25, 0.5, 0.75, (0.5, 2.0), 0.1, 0.2, 0.3, 1.5, 2.5),
    ),
)


def test_the_other_configuration_differs_in_every_field():
    for section in dataclasses.fields(Config):
        ours, default = getattr(OTHER, section.name), getattr(Config(), section.name)
        assert ours != default
        if dataclasses.is_dataclass(ours) and section.name != "resize":
            same = [f.name for f in dataclasses.fields(ours) if getattr(ours, f.name) == getattr(default, f.name)]
            assert same == (["backbone_strides"] if section.name == "model" else [])  # it has one value only


@pytest.mark.parametrize("config", [*SAMPLES.values(), Config(), OTHER], ids=lambda config: config.name)
def test_json_and_back(config):
    assert Config.from_json(config.to_json()) == config
    assert Config.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_switches_are_stored_only_where_they_are_used():
    """So that files of matterport's models stay as they were before there were switches."""
    assert "stride_in_1x1" in to_dict(ModelConfig())
    digest = hashlib.sha256(Config().to_json().encode()).hexdigest()
    assert digest.startswith("28e5e154eafc09b7"), "another version reads a new setting only if it is a switch"
    used = Config(model=ModelConfig(stride_in_1x1=False)).to_dict()["model"]
    assert list(used)[-2:] == ["roi_sampling", "stride_in_1x1"]
    assert override(Config(), ["model.stride_in_1x1=false"]).model.stride_in_1x1 is False


def test_fields_left_out_keep_their_defaults():
    config = Config.from_dict({"model": {"class_names": ["BG", "a"]}, "detection": {"min_score": 0}})
    assert config.model == ModelConfig(class_names=("BG", "a"))
    assert config.detection == DetectionConfig(min_score=0.0)
    assert config.training == TrainingConfig()


def test_whole_floats_are_integers():
    config = Config.from_dict({"training": {"batch_size": 4.0}})
    assert config.training.batch_size == 4
    assert isinstance(config.training.batch_size, int)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"model": {"anchor_scale": [1]}}, r"'anchor_scale' in config\.model: did you mean 'anchor_scales'"),
        ({"detektion": {}}, r"'detektion' in config: did you mean 'detection'"),
        ({"training": {"resize": {"mode": "crop", "mindim": 64}}}, "did you mean 'min_dim'"),
        ({"xyzzy": 1}, "expected one of resize, pixels, name, model, proposals, detection, training"),
    ],
)
def test_an_unknown_setting_is_refused_with_a_suggestion(values, message):
    with pytest.raises(ConfigError, match=message):
        Config.from_dict(values)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"name": 3}, r"config\.name is 3: expected str"),
        ({"model": []}, r"config\.model is \[\]: expected an object"),
        ({"resize": None}, r"config\.resize is None: expected an object"),
        ({"model": {"class_names": "BG"}}, r"config\.model\.class_names is 'BG': expected a list"),
        ({"model": {"class_names": ["BG", 1]}}, r"config\.model\.class_names\[1\] is 1: expected str"),
        ({"model": {"image_channels": True}}, r"image_channels is True: expected int"),
        ({"model": {"image_channels": "3"}}, r"image_channels is '3': expected int"),
        ({"model": {"fpn_channels": 1.5}}, r"fpn_channels is 1\.5: expected int"),
        ({"model": {"backbone": "vgg"}}, r"backbone is 'vgg': expected one of 'resnet18', .*'custom'"),
        ({"model": {"roi_sampling": 7}}, r"roi_sampling is 7: expected one of"),
        ({"model": {"mean_pixel": [1, 2, None]}}, r"mean_pixel\[2\] is None: expected float"),
        ({"detection": {"drop_empty_boxes": 1}}, r"drop_empty_boxes is 1: expected bool"),
        ({"training": {"train_batch_norm": "no"}}, r"train_batch_norm is 'no': expected bool"),
        ({"training": {"batch_size": None}}, r"batch_size is None: expected int"),
        ({"training": {"batch_size": float("inf")}}, r"batch_size is inf: expected int"),
        ({"training": {"batch_size": float("nan")}}, r"batch_size is nan: expected int"),
        ({"training": {"learning_rate": float("nan")}}, r"learning_rate is nan: expected float"),
        ({"resize": {"min_dim": 64}}, r"config\.resize is incomplete"),
    ],
)
def test_a_wrong_type_is_refused_with_its_place(values, message):
    with pytest.raises(ConfigError, match=message):
        Config.from_dict(values)


REFUSED = [
    (ModelConfig, {"class_names": ()}, "class_names is empty"),
    (ModelConfig, {"image_channels": 0, "mean_pixel": ()}, "image_channels is 0: expected 1 to 6"),
    (ModelConfig, {"image_channels": 7, "mean_pixel": (0,) * 7}, "image_channels is 7: expected 1 to 6"),
    (ModelConfig, {"image_channels": 1}, "mean_pixel has 3 values for 1 image_channels"),
    (ModelConfig, {"backbone_strides": (4, 8, 16, 32)}, "backbone_strides is .*only .* is supported"),
    (ModelConfig, {"backbone_strides": (2, 4, 8, 16, 32)}, "backbone_strides is .*only .* is supported"),
    (ModelConfig, {"class_names": ("BG", "a", "a")}, "more than once"),
    (ModelConfig, {"roi_sampling": "crop-and-resize"}, "roi_sampling is 'crop-and-resize': expected one of"),
    (ModelConfig, {"backbone": "resnet200"}, "backbone is 'resnet200': expected one of"),
    (DetectionConfig, {"mask_paste": "skimage"}, "mask_paste is 'skimage': expected one of"),
    (TrainingConfig, {"steps_per_epoch": -1}, "steps_per_epoch is -1"),
    (TrainingConfig, {"mini_mask_size": (0, -1)}, "mini_mask_size is"),
    (ModelConfig, {"anchor_scales": (32, 64)}, "anchor_scales has 2 values: expected 5"),
    (ModelConfig, {"anchor_scales": (32, 64, 0, 1, 2)}, "anchor_scales is .*: expected positive"),
    (ModelConfig, {"anchor_ratios": ()}, "anchor_ratios is empty"),
    (ModelConfig, {"anchor_ratios": (1, -1)}, "anchor_ratios is .*: expected positive"),
    (ModelConfig, {"rpn_box_std": (0.1, 0.1, 0.2)}, "rpn_box_std needs 4 values"),
    (ModelConfig, {"box_std": (0.1,) * 5}, "box_std needs 4 values"),
    (ModelConfig, {"box_std": (0.1, 0.1, 0.2, 0.0)}, "box_std is .*: expected positive"),
    *(
        (ModelConfig, {name: 0}, f"{name} is 0: expected positive")
        for name in (
            "backbone_width",
            "fpn_channels",
            "anchor_stride",
            "rpn_channels",
            "box_head_channels",
            "mask_head_channels",
            "box_pool_size",
            "mask_pool_size",
            "backbone_groups",
            "backbone_group_width",
            "rpn_convolutions",
            "box_head_layers",
        )
    ),
    (ModelConfig, {"pixel_std": (1.0,)}, "pixel_std has 1 values for 3 image_channels: give one per channel, or none"),
    (ModelConfig, {"pixel_std": (1.0, 0.0, 1.0)}, "pixel_std is .*: expected positive"),
    (ModelConfig, {"padding": "zero"}, "padding is 'zero': expected one of 'black', 'mean'"),
    (ModelConfig, {"backbone_padding": "valid"}, "backbone_padding is 'valid': expected one of"),
    (ModelConfig, {"backbone_shortcut": "none"}, "backbone_shortcut is 'none': expected one of"),
    (ModelConfig, {"objectness": "logit"}, "objectness is 'logit': expected one of 'softmax', 'sigmoid'"),
    (ModelConfig, {"batch_norm_epsilon": -1e-9}, "batch_norm_epsilon is -1e-09: expected a number from 0"),
    (ModelConfig, {"batch_norm_epsilon": 1}, "batch_norm_epsilon is 1: expected a number from 0 to below 1"),
    (ModelConfig, {"box_head_convolutions": -1}, "box_head_convolutions is -1: expected 0 or more"),
    (ModelConfig, {"backbone": "resnet18", "backbone_groups": 2}, "resnet18 has no bottlenecks, so expected 1 and 64"),
    (ModelConfig, {"backbone": "resnet34", "backbone_group_width": 8}, "resnet34 has no bottlenecks"),
    (ModelConfig, {"backbone_width": 3, "backbone_group_width": 4}, "is 12: expected a multiple of 64"),
    (ModelConfig, {"roi_padding": "zero"}, "roi_padding is 'zero': expected one of 'edge', 'zeros'"),
    (ModelConfig, {"roi_padding": "zeros"}, "roi_sampling 'crop_and_resize': only 'roi_align' has zeros outside"),
    (ModelConfig, {"roi_aligned": False}, "roi_aligned is False .* need roi_sampling 'roi_align' with roi_padding"),
    (ModelConfig, {"roi_sampling_ratio": 0}, "roi_sampling_ratio 0: other than True and 2"),
    (ModelConfig, {"roi_sampling_ratio": -1}, "roi_sampling_ratio is -1: expected the samples per bin"),
    (ModelConfig, {"roi_level": "ceil"}, "roi_level is 'ceil': expected one of 'nearest', 'floor'"),
    (ModelConfig, {"box_frame": "pixels"}, "box_frame is 'pixels': expected one of 'inclusive', 'continuous'"),
    (ModelConfig, {"max_log_size": 0.0}, "max_log_size are .*: expected a negative number or none, and a positive"),
    (ModelConfig, {"max_log_size": 20.5}, "a positive one of at most 20"),
    (ModelConfig, {"min_log_size": 0.0}, "min_log_size and max_log_size are"),
    (ModelConfig, {"anchor_step": "size"}, "anchor_step is 'size': expected one of 'stride', 'fitted'"),
    (ProposalConfig, {"pre_nms_training": 0}, "pre_nms_training is 0: expected at least 1"),
    (ProposalConfig, {"clip": "image"}, "clip is 'image': expected one of 'input', 'window'"),
    (ProposalConfig, {"min_side": -1.0}, "min_side is -1.0: expected a number of pixels, 0 or more, or none"),
    (DetectionConfig, {"min_side": float("nan")}, "min_side is nan: expected a number of pixels"),
    (DetectionConfig, {"candidates": "all"}, "candidates is 'all': expected one of 'best_class', 'every_class'"),
    (Config, {"proposals": ProposalConfig(min_side=1.0)}, "proposals.min_side is 1.0: .* model.box_frame is 'cont"),
    (Config, {"detection": DetectionConfig(min_side=0.0)}, "detection.min_side is 0.0: .* model.box_frame is 'cont"),
    (ProposalConfig, {"pre_nms_limit": 0}, "pre_nms_limit is 0: expected at least 1"),
    (ProposalConfig, {"post_nms_training": 0}, "post_nms_training is 0: expected at least 1"),
    (ProposalConfig, {"post_nms_inference": -1}, "post_nms_inference is -1: expected at least 1"),
    (ProposalConfig, {"nms_threshold": 1.01}, r"nms_threshold is 1\.01: expected 0 to 1"),
    (DetectionConfig, {"max_detections": 0}, "max_detections is 0: expected at least 1"),
    (DetectionConfig, {"min_score": -0.1}, r"min_score is -0\.1: expected 0 to 1"),
    (DetectionConfig, {"nms_threshold": float("nan")}, "nms_threshold is nan: expected 0 to 1"),
    (TrainingConfig, {"batch_size": 0}, "batch_size is 0: expected at least 1"),
    (TrainingConfig, {"anchors_per_image": 0}, "anchors_per_image is 0"),
    (TrainingConfig, {"rois_per_image": 0}, "rois_per_image is 0"),
    (TrainingConfig, {"max_instances": 0}, "max_instances is 0"),
    (TrainingConfig, {"loss_weights": (1.0,)}, "loss_weights has 1 values: expected 5"),
    (TrainingConfig, {"class_weights": {"a": -1.0}}, r"class_weights\['a'\] is -1.0: expected a number, 0 or more"),
    (TrainingConfig, {"class_weights": {"a": math.nan}}, r"class_weights\['a'\] is nan: expected a number, 0 or more"),
    (TrainingConfig, {"class_weights": {"a": math.inf}}, r"class_weights\['a'\] is inf: expected a number, 0 or more"),
    (TrainingConfig, {"repeat_threshold": -0.1}, "repeat_threshold is -0.1: expected 0 to 1"),
    (TrainingConfig, {"repeat_threshold": 1.01}, "repeat_threshold is 1.01: expected 0 to 1"),
    (TrainingConfig, {"repeat_threshold": math.nan}, "repeat_threshold is nan: expected 0 to 1"),
    (ModelConfig, {"mask_head_deconvolutions": 0}, "mask_head_deconvolutions is 0: expected 1 or 2"),
    (ModelConfig, {"mask_head_deconvolutions": 3}, "mask_head_deconvolutions is 3: expected 1 or 2"),
    (TrainingConfig, {"mini_mask_size": (56,)}, r"mini_mask_size is \(56,\)"),
    (Config, {"resize": ResizePolicy("crop", 64)}, "resize mode 'crop' discards most of an image"),
    (Config, {"resize": ResizePolicy("square", 800, 1000)}, "resize to 1000 pixels .* multiple of 64"),
    (
        Config,
        {"training": TrainingConfig(resize=ResizePolicy("crop", 100))},
        "resize to 100 pixels .* multiple of 64",
    ),
]


@pytest.mark.parametrize(("section", "values", "message"), REFUSED)
def test_a_value_out_of_range_is_refused(section, values, message):
    with pytest.raises(ConfigError, match=message):
        section(**values)


@pytest.mark.parametrize(
    ("section", "values"),
    [
        (ModelConfig, {"image_channels": 6, "mean_pixel": (0.0,) * 6}),
        (ModelConfig, {"anchor_ratios": (1,)}),
        (ProposalConfig, {"nms_threshold": 1.0, "pre_nms_limit": 1}),
        (DetectionConfig, {"min_score": 0.0, "nms_threshold": 0.0, "max_detections": 1}),
        (Config, {"resize": ResizePolicy("none")}),
        (Config, {"resize": ResizePolicy("square", None, 64)}),
    ],
)
def test_the_ends_of_the_ranges_are_accepted(section, values):
    built = section(**values)
    assert all(getattr(built, name) == value for name, value in values.items())


NAMES = ("BG", "square", "circle")


@pytest.mark.parametrize(
    ("weights", "expected"),
    [({}, None), ({"circle": 5}, (1, 1, 5)), ({"BG": 0.5, "square": 0}, (0.5, 0, 1))],
)
def test_class_weights_are_by_name_and_others_are_1(weights, expected):
    assert TrainingConfig(class_weights=weights).weights_of(NAMES) == expected


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"circel": 2.0}, "has the class 'circel', which the data does not have: did you mean 'circle'?"),
        ({"BG": 0.0, "square": 0.0, "circle": 0.0}, "are 0 for all classes: expected one above 0"),
    ],
)
def test_class_weights_that_do_not_fit_the_classes_are_refused(weights, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        TrainingConfig(class_weights=weights).weights_of(NAMES)


@pytest.mark.parametrize(
    ("setting", "found"),
    [("training.class_weights.circle=2", {"circle": 2.0}), ('training.class_weights={"a b": 0.5}', {"a b": 0.5})],
)
def test_class_weights_on_the_command_line(setting, found):
    assert override(Config(), [setting]).training.class_weights == found


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"training": {"class_weights": [1, 2]}}', r"training.class_weights is \[1, 2\]: expected an object"),
        ('{"training": {"class_weights": {"a": "2"}}}', "training.class_weights.a is '2': expected float"),
        ('{"training": {"class_weights": {"a": NaN}}}', "training.class_weights.a is nan: expected float"),
    ],
)
def test_class_weights_of_another_type_are_refused(text, message):
    with pytest.raises(ConfigError, match=message):
        Config.from_json(text)


def test_configurations_have_a_hash():
    assert hash(override(Config(), ["training.class_weights.a=2"])) == hash(Config())


def test_sections_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config().name = "other"


@pytest.mark.parametrize(("text", "message"), [("{", "is not JSON"), ("[]", "not a JSON object")])
def test_text_that_is_no_configuration(text, message):
    with pytest.raises(ConfigError, match=message):
        Config.from_json(text)


def test_read_config_takes_both_dialects(tmp_path):
    config = SAMPLES["nucleus"]
    ours, theirs = tmp_path / "ours.json", tmp_path / "theirs.json"
    ours.write_text(config.to_json(), encoding="utf-8")
    theirs.write_text(json.dumps(to_matterport(config)), encoding="utf-8")
    assert read_config(ours) == config
    # Matterport has no fields for training phases and augmentation; its scripts pass them as arguments.
    plain = replace(config.training, stages=TrainingConfig().stages, augmentation=AugmentationConfig())
    assert read_config(str(theirs)) == replace(config, training=plain)


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "No such file"), (b"{", "not JSON"), (b"3", "not a JSON object"), (b"\xff\xfe", "not UTF-8 text")],
)
def test_read_config_refuses_by_name(tmp_path, content, message):
    path = tmp_path / "config.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=f"config.json.*{message}"):
        read_config(path)
