"""What a configuration of Detectron2 or MMDetection, already read, says in our settings; what it may not say."""

import contextlib
import copy
import json

import pytest
from pytorch_models import state_dicts
from pytorch_models.detectron2_yaml import R50, changed

from maskrcnn.checkpoints.families.detectron2_config import detectron2_settings
from maskrcnn.checkpoints.families.mmdetection_config import mmdetection_settings
from maskrcnn.checkpoints.families.presets import preset
from maskrcnn.checkpoints.families.recognize import recognize
from maskrcnn.errors import ConfigError

D2 = recognize(state_dicts.detectron2(), "x.pkl")
X101 = recognize(state_dicts.detectron2(101, groups=32, group_width=8), "x.pkl")
MM = recognize(state_dicts.mmdetection(), "x.pth")


# Detectron2


def detectron2(values, found=D2):
    return detectron2_settings(values, "x.yaml", found)


def test_the_configuration_of_the_zoo_agrees_with_the_preset():
    read = detectron2(R50)
    expected = preset(D2, "")
    assert read.settings
    assert {name: expected[name] for name in read.settings} == read.settings
    assert (read.bgr, read.coco) == (True, True)


def test_the_resnext_of_the_zoo_agrees_with_its_preset():
    values = changed(
        R50, "MODEL.RESNETS", {"STRIDE_IN_1X1": False, "NUM_GROUPS": 32, "WIDTH_PER_GROUP": 8, "DEPTH": 101}
    )
    values = changed(values, "MODEL.PIXEL_STD", [57.375, 57.120, 58.395])
    read, expected = detectron2(values, X101).settings, preset(X101, "")
    assert {name: expected[name] for name in read} == read
    assert read["model.pixel_std"] == (58.395, 57.12, 57.375)
    assert read["model.stride_in_1x1"] is False


@pytest.mark.parametrize(
    ("name", "value", "setting", "ours"),
    [
        ("MODEL.RESNETS.STRIDE_IN_1X1", False, "model.stride_in_1x1", False),
        ("MODEL.RPN.NMS_THRESH", 0.6, "proposals.nms_threshold", 0.6),
        ("MODEL.RPN.BBOX_REG_WEIGHTS", (1.0, 2.0, 4.0, 8.0), "model.rpn_box_std", (0.5, 1.0, 0.125, 0.25)),
        ("MODEL.ROI_BOX_HEAD.BBOX_REG_WEIGHTS", (10, 20, 5, 4), "model.box_std", (0.05, 0.1, 0.25, 0.2)),
        ("MODEL.ROI_HEADS.SCORE_THRESH_TEST", 0.3, "detection.min_score", 0.3),
        ("MODEL.ROI_HEADS.NMS_THRESH_TEST", 0.4, "detection.nms_threshold", 0.4),
        ("TEST.DETECTIONS_PER_IMAGE", 300, "detection.max_detections", 300),
        ("INPUT.MIN_SIZE_TEST", 600, "resize.short_side", 600),
        ("INPUT.MAX_SIZE_TEST", 1000, "resize.long_side", 1000),
        ("MODEL.ANCHOR_GENERATOR.SIZES", [[8], [16], [32], [64], [128]], "model.anchor_scales", (8, 16, 32, 64, 128)),
        ("MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS", [[0.25, 1, 4]], "model.anchor_ratios", (4.0, 1.0, 0.25)),
        ("MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS", [[0.25, 1, 4]] * 5, "model.anchor_ratios", (4.0, 1.0, 0.25)),
        ("MODEL.ROI_MASK_HEAD.POOLER_RESOLUTION", 10, "model.mask_pool_size", 10),
        ("MODEL.PIXEL_MEAN", [1.0, 2.0, 3.0], "model.mean_pixel", (3.0, 2.0, 1.0)),
        ("MODEL.PIXEL_STD", [1.0, 2.0, 3.0], "model.pixel_std", (3.0, 2.0, 1.0)),
    ],
)
def test_values_of_detectron2_become_settings(name, value, setting, ours):
    assert detectron2(changed(R50, name, value)).settings[setting] == ours


def test_channels_of_a_network_that_takes_red_first():
    values = changed(changed(R50, "INPUT.FORMAT", "RGB"), "MODEL.PIXEL_MEAN", [123.675, 116.28, 103.53])
    read = detectron2(values)
    assert read.bgr is False
    assert read.settings["model.mean_pixel"] == (123.675, 116.28, 103.53)
    # Detectron2's default does not change with the order.
    assert detectron2(changed(R50, "INPUT.FORMAT", "RGB")).settings["model.mean_pixel"] == (103.53, 116.28, 123.675)


def test_roi_align_of_both_heads():
    values = R50
    for head in ("BOX", "MASK"):
        values = changed(values, f"MODEL.ROI_{head}_HEAD.POOLER_TYPE", "ROIAlign")
        values = changed(values, f"MODEL.ROI_{head}_HEAD.POOLER_SAMPLING_RATIO", 2)
    read = detectron2(values).settings
    assert (read["model.roi_aligned"], read["model.roi_sampling_ratio"]) == (False, 2)
    with pytest.raises(ConfigError, match=r"ROI_MASK_HEAD.POOLER_SAMPLING_RATIO .* expected the same"):
        detectron2(changed(values, "MODEL.ROI_MASK_HEAD.POOLER_SAMPLING_RATIO", 0))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MODEL.META_ARCHITECTURE", "RetinaNet"),
        ("MODEL.META_ARCHITECTURE", "PanopticFPN"),
        ("MODEL.BACKBONE.NAME", "build_resnet_backbone"),
        ("MODEL.ROI_HEADS.NAME", "CascadeROIHeads"),
        ("MODEL.ROI_HEADS.NAME", "Res5ROIHeads"),
        ("MODEL.ROI_MASK_HEAD.NAME", "PointRendMaskHead"),
        ("MODEL.KEYPOINT_ON", True),
        ("MODEL.MASK_ON", False),
        ("MODEL.RESNETS.DEFORM_ON_PER_STAGE", [False, True, True, True]),
        ("MODEL.RESNETS.NORM", "GN"),
        ("MODEL.FPN.NORM", "GN"),
        ("MODEL.FPN.FUSE_TYPE", "avg"),
        ("MODEL.RESNETS.RES5_DILATION", 2),
        ("MODEL.ANCHOR_GENERATOR.NAME", "RotatedAnchorGenerator"),
        ("MODEL.ANCHOR_GENERATOR.OFFSET", 0.5),
        ("MODEL.ANCHOR_GENERATOR.SIZES", [[32, 64, 128, 256, 512]]),
        ("MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS", [[1.0], [2.0], [1.0], [1.0], [1.0]]),
        *(("MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS", [[0.5, 1.0, 2.0]] * levels) for levels in (2, 3, 4, 6)),
        ("MODEL.ROI_BOX_HEAD.POOLER_TYPE", "ROIPool"),
        ("MODEL.ROI_BOX_HEAD.USE_SIGMOID_CE", True),
        ("MODEL.RPN.IN_FEATURES", ["p2", "p3", "p4", "p5"]),
        ("INPUT.FORMAT", "YUV-BT.601"),
        ("TEST.AUG.ENABLED", True),
        ("VERSION", 1),
        ("MODEL.WEIGHT", "x.pkl"),
        ("MODEL.RPN_HEAD.NAME", "StandardRPNHead"),
        ("MODEL.ROI_HEADS.SCORE_THRESH", 0.5),
        ("MODEL.ROI_HEADS.NMS", 0.5),
        ("TEST.DETECTIONS_PER_IMG", 50),
        ("TEST.AUG_ON", False),
    ],
)
def test_other_networks_of_detectron2_are_refused(name, value):
    with pytest.raises(ConfigError, match=rf"x\.yaml: {name.replace('.', '.')} is .*expected .*supported are"):
        detectron2(changed(R50, name, value))


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("MODEL.RESNETS.DEPTH", 101, "not the configuration of these weights: .*DEPTH is 101, .* a depth of 50"),
        ("MODEL.ROI_HEADS.NUM_CLASSES", 5, "NUM_CLASSES is 5, .* classes: 80"),
        ("MODEL.RESNETS.NUM_GROUPS", 32, "NUM_GROUPS is 32, .* groups: 1"),
        ("MODEL.RPN.NMS_THRESH", "high", "NMS_THRESH is high: expected a number"),
        ("MODEL.PIXEL_MEAN", 100, "PIXEL_MEAN is 100: expected a list of numbers"),
        ("MODEL.RPN.BBOX_REG_WEIGHTS", [1, 1, 1], "has 3 values: expected 4"),
        ("MODEL.RPN.BBOX_REG_WEIGHTS", [1, 1, 1, 0], "expected positive numbers"),
    ],
)
def test_what_does_not_fit_the_weights_is_refused(name, value, problem):
    with pytest.raises(ConfigError, match=problem):
        detectron2(changed(R50, name, value))


def without(values, name):
    """A copy of nested values without one, by its dotted name."""
    values = copy.deepcopy(values)
    *sections, last = name.split(".")
    part = values
    for key in sections:
        part = part[key]
    del part[last]
    return values


@pytest.mark.parametrize(
    ("name", "setting", "default"),
    [
        ("MODEL.RPN.PRE_NMS_TOPK_TEST", "proposals.pre_nms_limit", 6000),
        ("MODEL.RPN.PRE_NMS_TOPK_TRAIN", "proposals.pre_nms_training", 12000),
        ("MODEL.RPN.POST_NMS_TOPK_TRAIN", "proposals.post_nms_training", 2000),
        ("MODEL.RESNETS.DEPTH", "model.stride_in_1x1", True),
    ],
)
def test_what_a_yaml_leaves_out_is_the_default_of_detectron2(name, setting, default):
    assert detectron2(without(R50, name)).settings[setting] == default


@pytest.mark.parametrize(
    ("name", "default"),
    [
        ("MODEL.MASK_ON", "False"),
        ("MODEL.BACKBONE.NAME", "build_resnet_backbone"),
        ("MODEL.ANCHOR_GENERATOR.SIZES", r"\[\[32, 64, 128, 256, 512\]\]"),
        ("MODEL.RPN.IN_FEATURES", r"\['res4'\]"),
        ("MODEL.ROI_HEADS.NAME", "Res5ROIHeads"),
        ("MODEL.ROI_BOX_HEAD.NAME", ""),
        ("MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION", "14"),
    ],
)
def test_defaults_of_detectron2_that_are_no_model_with_an_fpn_are_refused(name, default):
    with pytest.raises(ConfigError, match=f"{name} is {default} by default, "):
        detectron2(without(R50, name))


def test_the_resnext_has_no_default_of_its_own():
    values = changed(R50, "MODEL.RESNETS", {"NUM_GROUPS": 32, "WIDTH_PER_GROUP": 8, "DEPTH": 101})
    assert detectron2(values, X101).settings["model.stride_in_1x1"] is True
    assert detectron2(values, X101).settings["model.pixel_std"] == ()


def test_another_yaml_is_no_configuration():
    with pytest.raises(ConfigError, match="no configuration of Detectron2"):
        detectron2({"names": ["a"]})


# MMDetection

CODER = {"type": "DeltaXYWHBBoxCoder", "target_means": [0.0, 0.0, 0.0, 0.0]}
EXTRACTOR = {"type": "SingleRoIExtractor", "out_channels": 256, "featmap_strides": [4, 8, 16, 32]}
VERSION_3 = {
    "dataset_type": "CocoDataset",
    "model": {
        "type": "MaskRCNN",
        "data_preprocessor": {
            "type": "DetDataPreprocessor",
            "mean": [123.675, 116.28, 103.53],
            "std": [58.395, 57.12, 57.375],
            "bgr_to_rgb": True,
            "pad_size_divisor": 32,
        },
        "backbone": {"type": "ResNet", "depth": 50, "norm_cfg": {"type": "BN"}, "style": "pytorch"},
        "neck": {"type": "FPN", "out_channels": 256, "num_outs": 5},
        "rpn_head": {
            "type": "RPNHead",
            "anchor_generator": {
                "type": "AnchorGenerator",
                "scales": [8],
                "ratios": [0.5, 1.0, 2.0],
                "strides": [4, 8, 16, 32, 64],
            },
            "bbox_coder": {**CODER, "target_stds": [1.0, 1.0, 1.0, 1.0]},
            "loss_cls": {"type": "CrossEntropyLoss", "use_sigmoid": True},
        },
        "roi_head": {
            "type": "StandardRoIHead",
            "bbox_roi_extractor": {
                **EXTRACTOR,
                "roi_layer": {"type": "RoIAlign", "output_size": 7, "sampling_ratio": 0},
            },
            "bbox_head": {
                "type": "Shared2FCBBoxHead",
                "num_classes": 80,
                "bbox_coder": {**CODER, "target_stds": [0.1, 0.1, 0.2, 0.2]},
                "loss_cls": {"use_sigmoid": False},
            },
            "mask_roi_extractor": {
                **EXTRACTOR,
                "roi_layer": {"type": "RoIAlign", "output_size": 14, "sampling_ratio": 0},
            },
            "mask_head": {"type": "FCNMaskHead", "num_convs": 4, "num_classes": 80},
        },
        "train_cfg": {
            "rpn": {"sampler": {"num": 256}},
            "rpn_proposal": {"nms_pre": 2000, "max_per_img": 1000},
            "rcnn": {"sampler": {"num": 512, "pos_fraction": 0.25}},
        },
        "test_cfg": {
            "rpn": {
                "nms_pre": 1000,
                "max_per_img": 1000,
                "nms": {"type": "nms", "iou_threshold": 0.7},
                "min_bbox_size": 0,
            },
            "rcnn": {
                "score_thr": 0.05,
                "nms": {"type": "nms", "iou_threshold": 0.5},
                "max_per_img": 100,
                "mask_thr_binary": 0.5,
            },
        },
    },
    "test_pipeline": [
        {"type": "LoadImageFromFile"},
        {"type": "Resize", "scale": (1333, 800), "keep_ratio": True},
        {"type": "PackDetInputs"},
    ],
}
CAFFE = {"mean": [103.53, 116.28, 123.675], "std": [1.0, 1.0, 1.0], "bgr_to_rgb": False, "pad_size_divisor": 32}


def mmdetection(values, found=MM):
    return mmdetection_settings(values, "x.py", found)


def test_the_configuration_of_version_3_agrees_with_the_preset():
    read = mmdetection(VERSION_3)
    expected = preset(MM, "") | {"model.stride_in_1x1": False, "model.pixel_std": (58.395, 57.12, 57.375)}
    assert {name: expected[name] for name in read.settings} == read.settings
    assert expected.keys() - read.settings.keys() >= {"resize.mode", "model.box_frame"}
    assert (read.bgr, read.coco, read.class_names) == (False, True, ())


def version_2():
    """The same model as version 2 of MMDetection has it, with its pipeline in a step."""
    values = copy.deepcopy(VERSION_3)
    del values["model"]["data_preprocessor"], values["test_pipeline"]
    normalize = {"mean": [123.675, 116.28, 103.53], "std": [58.395, 57.12, 57.375], "to_rgb": True}
    inner = [
        {"type": "Resize", "keep_ratio": True},
        {"type": "RandomFlip"},
        {"type": "Normalize", **normalize},
        {"type": "Pad", "size_divisor": 32},
        {"type": "ImageToTensor", "keys": ["img"]},
        {"type": "Collect", "keys": ["img"]},
    ]
    step = {"type": "MultiScaleFlipAug", "img_scale": (1333, 800), "flip": False, "transforms": inner}
    values["data"] = {"test": {"pipeline": [{"type": "LoadImageFromFile"}, step]}, "train": {"type": "CocoDataset"}}
    return values


def with_step(values, kind, gone=False, **changes):
    """A copy of a configuration in which a step is changed; None removes a value, `gone` the step."""
    values = copy.deepcopy(values)
    outer = values["data"]["test"]["pipeline"] if "data" in values else values["test_pipeline"]
    for steps in (outer, *(step["transforms"] for step in outer if "transforms" in step)):
        place = next((place for place, step in enumerate(steps) if step["type"] == kind), None)
        if place is not None:
            changed_step = {name: value for name, value in {**steps[place], **changes}.items() if value is not None}
            steps[place : place + 1] = [] if gone else [changed_step]
    return values


def test_the_configuration_of_version_2_says_the_same():
    assert mmdetection(version_2()) == mmdetection(VERSION_3)


def test_what_version_2_does_by_default():
    plain = with_step(with_step(version_2(), "Resize", keep_ratio=None), "Normalize", to_rgb=None)
    assert mmdetection(plain) == mmdetection(VERSION_3)
    listed = with_step(version_2(), "MultiScaleFlipAug", img_scale=[(1333, 800)])
    assert mmdetection(listed) == mmdetection(VERSION_3)


def test_the_other_name_of_exchanged_channels():
    values = changed(changed(VERSION_3, "model.data_preprocessor.bgr_to_rgb", False), "model.data_preprocessor", {
        "mean": [123.675, 116.28, 103.53], "std": [58.395, 57.12, 57.375], "rgb_to_bgr": True, "pad_size_divisor": 32,
    })  # fmt: skip
    assert mmdetection(values) == mmdetection(VERSION_3)


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        (with_step(VERSION_3, "Resize", keep_ratio=None), "Resize: keep_ratio is False by default"),
        (with_step(VERSION_3, "Resize", keep_ratio=False), "Resize: keep_ratio is False, expected True"),
        (with_step(VERSION_3, "Resize", backend="pillow"), "Resize: backend is pillow"),
        (with_step(VERSION_3, "Resize", interpolation="area"), "Resize: interpolation is area"),
        (with_step(VERSION_3, "Resize", gone=True), "test_pipeline has no step that resizes"),
        (with_step(VERSION_3, "Resize", type="FixScaleResize"), "has the step FixScaleResize: expected only"),
        (with_step(VERSION_3, "PackDetInputs", type="Pad"), "test_pipeline has the step Pad: expected only"),
        *(
            (with_step(values, "LoadImageFromFile", type=kind, **{name: value}), f"{kind}: {name} is {value}, expected")
            for values in (VERSION_3, version_2())
            for kind in ("LoadImageFromFile", "LoadImageFromNDArray", "LoadImageFromWebcam")
            for name, value in (("to_float32", True), ("color_type", "grayscale"), ("channel_order", "rgb"))
        ),
        (with_step(version_2(), "Resize", ratio_range=(0.0, 0.0)), r"ratio_range is \(0.0, 0.0\), expected None"),
        (with_step(VERSION_3, "Resize", ratio_range=(0.5, 2.0)), r"ratio_range is \(0.5, 2.0\), expected None"),
        (with_step(VERSION_3, "Resize", scale=(-1, 800)), "Resize has the scale .*: expected two sides"),
        (with_step(version_2(), "Resize", img_scale=(640, 640)), r"\(640, 640\), and the step around it \(1333, 800"),
        (with_step(version_2(), "MultiScaleFlipAug", scale_factor=2.0), "MultiScaleFlipAug: scale_factor is 2.0"),
        (changed(VERSION_3, "model.data_preprocessor.type", "BatchResize"), "type is BatchResize, expected 'DetData"),
        (changed(VERSION_3, "model.data_preprocessor.bgr_to_rgb", "False"), "bgr_to_rgb is False, expected True or"),
        (changed(VERSION_3, "model.data_preprocessor.rgb_to_bgr", 0), "rgb_to_bgr is 0, expected True or False"),
        (changed(VERSION_3, "model.data_preprocessor.rgb_to_bgr", True), "and rgb_to_bgr too, expected one of them"),
        (with_step(version_2(), "Normalize", to_rgb="False"), "to_rgb is False, expected True or False"),
        (with_step(version_2(), "Normalize", mean=None), "does not say how images are normalized: .* a step Normalize"),
        (
            changed(with_step(version_2(), "Normalize", gone=True), "img_norm_cfg", {"mean": [1, 2], "std": [1, 1]}),
            "pipeline has no step that normalizes",
        ),
        (without(VERSION_3, "model.data_preprocessor.pad_size_divisor"), "pad_size_divisor is 1 by default"),
        (changed(VERSION_3, "model.data_preprocessor.pad_value", 114), "pad_value is 114, expected 0"),
        (
            with_step(
                changed(VERSION_3, "test_dataloader.dataset.pipeline", VERSION_3["test_pipeline"]), "Resize", scale=640
            ),
            "test_pipeline and test_dataloader.dataset.pipeline differ",
        ),
        (with_step(version_2(), "MultiScaleFlipAug", flip=True), "MultiScaleFlipAug: flip is True"),
        (with_step(version_2(), "MultiScaleFlipAug", img_scale=[(1333, 800), (600, 400)]), "Resize has the img_scale"),
        (with_step(version_2(), "Pad", size_divisor=None), "Pad: size_divisor is nothing by default"),
        (with_step(version_2(), "Pad", pad_val={"img": 114}), "Pad: pad_val.img is 114"),
        (with_step(version_2(), "Pad", gone=True), "has no step that pads"),
        (with_step(version_2(), "Pad", size=(1344, 1344)), "Pad: size is"),
        (with_step(version_2(), "Pad", pad_to_square=True), "Pad: pad_to_square is True"),
    ],
)  # fmt: skip
def test_images_that_are_prepared_otherwise_are_refused(values, problem):
    with pytest.raises(ConfigError, match=problem):
        mmdetection(values)


def flat():
    """The steps of version 2 without one around others."""
    load, outer = version_2()["data"]["test"]["pipeline"]
    steps = [load, *outer["transforms"]]
    return {step["type"]: step | ({"img_scale": (1333, 800)} if step["type"] == "Resize" else {}) for step in steps}


def with_pipeline(values, place, pipeline):
    """A copy of a configuration with only this pipeline for inference."""
    values = copy.deepcopy(values)
    for name in ("test_pipeline", "data"):
        values.pop(name, None)
    return changed(values, place, pipeline)


@pytest.mark.parametrize(
    "order",
    [
        ("Resize", "Pad", "Normalize"),
        ("Normalize", "Resize", "Pad"),
        ("Pad", "Resize", "Normalize"),
        ("Normalize", "Pad", "Resize"),
        ("Pad", "Normalize", "Resize"),
        ("Resize", "LoadImageFromFile", "Normalize", "Pad"),
        ("Resize", "Normalize", "Collect", "Pad"),
        ("LoadImageFromFile", "Resize", "Resize", "Normalize", "Pad"),
        ("LoadImageFromFile", "Resize", "Normalize", "Normalize", "Pad"),
        ("LoadImageFromFile", "Resize", "Normalize", "Pad", "Pad"),
        ("LoadImageFromFile", "Resize", "LoadImageFromFile", "Normalize", "Pad"),
    ],
)
def test_steps_in_another_order_or_twice_are_refused(order):
    steps, outer = flat(), {"type": "MultiScaleFlipAug", "img_scale": (1333, 800), "flip": False}
    plain = mmdetection(with_pipeline(version_2(), "data.test.pipeline", list(steps.values()))).settings
    assert plain == mmdetection(version_2()).settings
    for pipeline in ([steps[kind] for kind in order], [{**outer, "transforms": [steps[kind] for kind in order]}]):
        with pytest.raises(ConfigError, match=r"has the step \w+ twice|has the steps .*, in this order"):
            mmdetection(with_pipeline(version_2(), "data.test.pipeline", pipeline))


@pytest.mark.parametrize(
    "steps",
    [
        [*VERSION_3["test_pipeline"][:2], *VERSION_3["test_pipeline"][1:]],
        [{"type": "PackDetInputs"}, VERSION_3["test_pipeline"][1]],
        [{"type": "LoadImageFromNDArray"}, *VERSION_3["test_pipeline"]],
    ],
)
def test_so_are_those_of_version_3(steps):
    with pytest.raises(ConfigError, match=r"test_pipeline has the (step \w+ twice|steps .*, in this)"):
        mmdetection(changed(VERSION_3, "test_pipeline", steps))


@pytest.mark.parametrize(("name", "value"), [("flip_ratio", 1.0), ("flip_ratio", [0.3, 0.2]), ("prob", 0.5)])
def test_images_that_are_flipped_are_refused(name, value):
    def read(value):
        steps = flat()
        steps["RandomFlip"] = {"type": "RandomFlip", name: value}
        return mmdetection(with_pipeline(version_2(), "data.test.pipeline", list(steps.values())))

    with pytest.raises(ConfigError, match=f"RandomFlip: {name} is .*, expected 0"):
        read(value)
    assert read(0).settings == read(None).settings
    # Where a step around it says that nothing is flipped, it is not.
    assert mmdetection(with_step(version_2(), "RandomFlip", **{name: value})) == mmdetection(version_2())


@pytest.mark.parametrize("inner", [(1333, 800), (800, 1333), [(1333, 800)]])
def test_the_sides_may_be_there_twice_if_they_agree(inner):
    assert mmdetection(with_step(version_2(), "Resize", img_scale=inner)) == mmdetection(version_2())


@pytest.mark.parametrize("place", ["test_dataloader.dataset", "data.test"])
@pytest.mark.parametrize(
    "wrapped",
    [
        lambda pipeline: {"pipeline": pipeline},
        lambda pipeline: {"type": "RepeatDataset", "dataset": {"pipeline": pipeline}},
        lambda pipeline: {"type": "ConcatDataset", "datasets": [{"pipeline": pipeline}, {"pipeline": []}]},
        lambda pipeline: {"dataset": {"datasets": [{"dataset": {"pipeline": pipeline}}]}},
        lambda pipeline: {"pipeline": pipeline, "dataset": {"pipeline": []}},
        lambda pipeline: [{"pipeline": pipeline}, {"dataset": {"pipeline": pipeline}}],
    ],
)
def test_pipelines_inside_lists_and_wrappers_are_found(place, wrapped):
    steps = with_step(VERSION_3, "Resize", scale=(640, 512))["test_pipeline"]
    read = mmdetection(with_pipeline(VERSION_3, place, wrapped(steps))).settings
    assert (read["resize.short_side"], read["resize.long_side"]) == (512, 640)
    with pytest.raises(ConfigError, match=r"test_pipeline and .* differ"):
        mmdetection(changed(VERSION_3, place, wrapped(steps)))
    with pytest.raises(ConfigError, match="Resize: keep_ratio is False by default"):
        mmdetection(with_pipeline(VERSION_3, place, wrapped([{"type": "Resize", "scale": (640, 512)}])))


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("val_dataloader.dataset.pipeline", VERSION_3["test_pipeline"]),
        ("train_pipeline", VERSION_3["test_pipeline"]),
        ("data.val.pipeline", VERSION_3["test_pipeline"]),
        ("test_dataloader.dataset", {"dataset": {"type": "CocoDataset"}}),
        ("test_dataloader.dataset", {"datasets": []}),
        ("data.test", []),
        ("img_norm_cfg", {"mean": [1, 2, 3], "std": [1, 1, 1]}),
    ],
)
@pytest.mark.parametrize("values", [VERSION_3, version_2()], ids=["3", "2"])
def test_a_configuration_without_a_pipeline_for_inference_is_refused(values, place, value):
    with pytest.raises(ConfigError, match=r"x\.py does not say how images are resized: .* with --config FILE\.py"):
        mmdetection(with_pipeline(values, place, value))


def test_the_pipelines_of_a_complete_file_are_equal():
    values = changed(VERSION_3, "test_dataloader.dataset.pipeline", VERSION_3["test_pipeline"])
    assert mmdetection(values) == mmdetection(VERSION_3)


def test_the_caffe_style():
    values = changed(changed(VERSION_3, "model.data_preprocessor", CAFFE), "model.backbone.style", "caffe")
    read = mmdetection(values)
    assert read.bgr is True
    assert read.settings["model.stride_in_1x1"] is True
    assert read.settings["model.mean_pixel"] == (123.675, 116.28, 103.53)
    assert read.settings["model.pixel_std"] == ()


@pytest.mark.parametrize(
    ("name", "value", "setting", "ours"),
    [
        ("model.test_cfg.rcnn.score_thr", 0.3, "detection.min_score", 0.3),
        ("model.test_cfg.rcnn.max_per_img", 200, "detection.max_detections", 200),
        ("model.test_cfg.rpn.nms_pre", 500, "proposals.pre_nms_limit", 500),
        ("model.backbone.norm_cfg", {"type": "BN", "eps": 1e-3}, "model.batch_norm_epsilon", 1e-3),
        ("model.rpn_head.anchor_generator.scales", [4], "model.anchor_scales", (16, 32, 64, 128, 256)),
        ("model.rpn_head.anchor_generator.ratios", [0.5], "model.anchor_ratios", (2.0,)),
        (
            "model.roi_head.bbox_head.bbox_coder.target_stds",
            [0.1, 0.2, 0.3, 0.4],
            "model.box_std",
            (0.2, 0.1, 0.4, 0.3),
        ),
        ("test_pipeline", [{"type": "Resize", "scale": (320, 256), "keep_ratio": True}], "resize.short_side", 256),
        ("test_pipeline", [{"type": "Resize", "scale": 800, "keep_ratio": True}], "resize.long_side", 800),
    ],
)
def test_values_of_mmdetection_become_settings(name, value, setting, ours):
    assert mmdetection(changed(VERSION_3, name, value)).settings[setting] == ours


def test_class_names_of_the_dataset():
    assert mmdetection(changed(VERSION_3, "metainfo", {"classes": ("a", "b")})).class_names == ("a", "b")
    assert mmdetection(changed(VERSION_3, "classes", ["a", "b"])).class_names == ("a", "b")
    for name in ("classes", "metainfo.classes", "metainfo.CLASSES", "data.train.classes"):
        read = mmdetection(changed(VERSION_3, name, "classes.txt"))
        assert (read.class_names, read.class_file) == ((), "classes.txt")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("model.type", "CascadeRCNN"),
        ("model.type", "PointRend"),
        ("model.type", "FasterRCNN"),
        ("model.backbone.type", "SwinTransformer"),
        ("model.backbone.dcn", {"type": "DCNv2"}),
        ("model.backbone.plugins", [{"cfg": {"type": "ContextBlock"}}]),
        ("model.backbone.norm_cfg", {"type": "GN"}),
        ("model.neck.type", "PAFPN"),
        ("model.neck.norm_cfg", {"type": "BN"}),
        ("model.neck.act_cfg", {"type": "ReLU"}),
        ("model.neck.start_level", 1),
        ("model.neck.end_level", 2),
        ("model.neck.upsample_cfg", {"mode": "bilinear"}),
        ("model.neck.upsample_cfg", {"mode": "nearest", "scale_factor": 2}),
        ("model.backbone.out_indices", [1, 2, 3]),
        *(
            (f"model.{part}.conv_cfg", conv)
            for part in ("backbone", "neck", "rpn_head", "roi_head.bbox_head", "roi_head.mask_head")
            for conv in ({"type": "ConvWS"}, {"type": "Conv2d", "padding_mode": "reflect"})
        ),
        ("model.roi_head.bbox_head.cls_predictor_cfg", {"type": "NormedLinear"}),
        ("model.roi_head.bbox_head.reg_predictor_cfg", {"type": "NormedLinear"}),
        ("model.roi_head.mask_head.predictor_cfg", {"type": "NormedConv2d"}),
        ("model.roi_head.mask_head.norm_cfg", {"type": "IN"}),
        ("model.roi_head.mask_head.upsample_cfg", {"type": "carafe", "scale_factor": 2}),
        ("model.rpn_head.anchor_generator.center_offset", 0.5),
        ("model.rpn_head.anchor_generator.scales", [8, 16]),
        ("model.rpn_head.anchor_generator.base_sizes", [8, 16, 32, 64, 128]),
        ("model.rpn_head.anchor_generator.octave_base_scale", 4),
        ("model.rpn_head.anchor_generator.scales_per_octave", 3),
        ("model.rpn_head.loss_cls.use_sigmoid", False),
        ("model.roi_head.type", "DoubleHeadRoIHead"),
        ("model.roi_head.bbox_roi_extractor.roi_layer.type", "RoIPool"),
        ("model.roi_head.mask_roi_extractor.roi_layer.sampling_ratio", 2),
        ("model.test_cfg.rcnn.nms.type", "soft_nms"),
        ("model.test_cfg.rcnn.nms.class_agnostic", True),
        ("model.test_cfg.rpn.nms_across_levels", True),
        ("model.test_cfg.rcnn.mask_thr_binary", 0.4),
        ("model.data_preprocessor.pad_size_divisor", 64),
    ],
)
def test_other_networks_of_mmdetection_are_refused(name, value):
    with pytest.raises(ConfigError, match=r"x\.py: .*expected .*supported are"):
        mmdetection(changed(VERSION_3, name, value))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("model.neck.upsample_cfg", {"mode": "nearest"}),
        ("model.backbone.conv_cfg", {"type": "Conv2d"}),
        ("model.roi_head.mask_head.conv_cfg", {"type": "Conv"}),
        ("model.roi_head.mask_head.upsample_cfg", {"type": "deconv", "scale_factor": 2}),
        ("model.roi_head.mask_head.predictor_cfg", {"type": "Conv"}),
        ("model.backbone.out_indices", [0, 1, 2, 3]),
        ("model.neck.end_level", -1),
    ],
)
def test_defaults_of_mmdetection_may_be_written_out(name, value):
    assert mmdetection(changed(VERSION_3, name, value)) == mmdetection(VERSION_3)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("model.rpn_head.anchor_generator.type", "LegacyAnchorGenerator"),
        ("model.rpn_head.bbox_coder.type", "LegacyDeltaXYWHBBoxCoder"),
        ("model.roi_head.bbox_head.bbox_coder.type", "LegacyDeltaXYWHBBoxCoder"),
    ],
)
def test_anchors_and_boxes_of_version_1_are_refused_by_name(name, kind):
    with pytest.raises(ConfigError, match=f"{kind}, the anchors and boxes of MMDetection 1"):
        mmdetection(changed(VERSION_3, name, kind))


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"optimizer": {}}, "no configuration of MMDetection"),
        (changed(VERSION_3, "model.backbone.depth", 101), "depth is 101, .* a depth of 50"),
        (changed(VERSION_3, "model.roi_head.bbox_head.num_classes", 7), "num_classes is 7, .* classes: 80"),
        (changed(VERSION_3, "model.data_preprocessor", None), "does not say how images are normalized"),
        (with_step(VERSION_3, "Resize", scale=(800, 1.5)), "Resize has the scale"),
        (with_step(VERSION_3, "Resize", scale=None), "Resize has the scale None"),
    ],
)
def test_configurations_of_mmdetection_that_do_not_fit(values, problem):
    with pytest.raises(ConfigError, match=problem):
        mmdetection(values)


# Anything in place of anything

JUNK = (5, -1, 1.5, True, "x", [], {}, [1, 2], [[]], [{}], {"type": 5}, {"a": [1]}, [None], float("nan"))


def places(values, start=()):
    """The keys and indices that lead to each value of nested ones."""
    entries = values.items() if isinstance(values, dict) else enumerate(values) if isinstance(values, list) else ()
    for key, value in entries:
        yield (*start, key)
        yield from places(value, (*start, key))


@pytest.mark.parametrize("junk", JUNK, ids=repr)
@pytest.mark.parametrize(
    ("read", "values"), [(detectron2, R50), (mmdetection, VERSION_3), (mmdetection, version_2())], ids=["d2", "3", "2"]
)
def test_junk_is_refused_or_without_meaning(read, values, junk):
    values = json.loads(json.dumps(values))
    for *sections, last in list(places(values)):
        part = values
        for key in sections:
            part = part[key]
        kept = part[last]
        part[last] = junk
        with contextlib.suppress(ConfigError):
            read(values)
        part[last] = kept
