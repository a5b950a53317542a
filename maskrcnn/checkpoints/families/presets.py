"""What the weights of a family need and do not say: its preset, by the dotted names of `Config`."""

import math
from typing import Any

from maskrcnn.checkpoints.families.recognize import Family, Recognized

# The first digits of the SHA-256 of maskrcnn_resnet50_fpn_coco-bf2d0c1e.pth. torchvision sets the epsilon of batch
# normalization to 0 after it has loaded this file.
_WITHOUT_EPSILON = "bf2d0c1e"
PUBLISHED = {
    "bf2d0c1e": "torchvision's COCO_V1 weights",
    "73cbd019": "torchvision's COCO_V1 weights of version 2",
}

# Red, green, blue, of ImageNet.
MEAN, _STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
_LARGEST_STEP = math.log(1000 / 16)

_COMMON: dict[str, Any] = {
    "model.backbone_padding": "symmetric",
    "model.bias_before_batch_norm": False,
    "model.batch_norm_epsilon": 1e-5,
    "model.objectness": "sigmoid",
    "model.mean_pixel": MEAN,
    "model.padding": "mean",
    "model.box_frame": "continuous",
    "model.max_log_size": _LARGEST_STEP,
    "model.anchor_scales": (32, 64, 128, 256, 512),
    "model.anchor_ratios": (2.0, 1.0, 0.5),  # width / height; theirs are height / width
    "model.rpn_box_std": (1.0, 1.0, 1.0, 1.0),
    "model.box_std": (0.1, 0.1, 0.2, 0.2),
    "model.mask_pool_size": 14,
    "model.roi_sampling": "roi_align",
    "model.roi_padding": "zeros",
    "model.roi_level": "floor",
    "proposals.pre_nms_limit": 1000,
    "proposals.pre_nms_training": 2000,
    "proposals.post_nms_inference": 1000,
    "proposals.nms_threshold": 0.7,
    "proposals.per_level": True,
    "proposals.clip": "window",
    "detection.candidates": "every_class",
    "detection.max_detections": 100,
    "detection.min_score": 0.05,
    "detection.nms_threshold": 0.5,
    "resize.mode": "short_side",
    "resize.min_dim": None,
    "resize.max_dim": None,
    "resize.min_scale": None,
    "resize.short_side": 800,
    "resize.long_side": 1333,
    "training.anchors_per_image": 256,
    "training.rois_per_image": 512,
    "training.roi_positive_ratio": 0.25,
    "training.truth_as_proposals": True,
    "training.box_loss_average": "sampled",
    "training.mini_mask_size": None,
    "training.augmentation.flip_horizontal": 0.5,
}
_TORCHVISION: dict[str, Any] = {
    "model.stride_in_1x1": False,
    "model.pixel_std": _STD,
    "model.anchor_rounding": True,
    "model.anchor_step": "fitted",
    "model.roi_aligned": False,
    "model.roi_sampling_ratio": 2,
    "proposals.min_side": 1e-3,
    "proposals.post_nms_training": 2000,
    "detection.min_side": 1e-2,
    "detection.mask_paste": "torchvision",
    "resize.resampling": "float",
    "training.smooth_l1_beta": 1 / 9,
}
_FACEBOOK_AND_OPENMMLAB: dict[str, Any] = {
    "model.anchor_step": "stride",
    "model.roi_aligned": True,
    "model.roi_sampling_ratio": 0,
    "proposals.min_side": 0.0,
    "proposals.post_nms_training": 1000,
    "detection.mask_paste": "detectron2",
    "training.smooth_l1_beta": 0.0,
}
_PRESETS: dict[Family, dict[str, Any]] = {
    "torchvision": _COMMON | _TORCHVISION,
    "detectron2": _COMMON | _FACEBOOK_AND_OPENMMLAB | {"resize.resampling": "pillow"},
    "mmdetection": _COMMON
    | _FACEBOOK_AND_OPENMMLAB
    | {"resize.resampling": "opencv", "model.min_log_size": -_LARGEST_STEP},
}


def preset(found: Recognized, sha256: str) -> dict[str, Any]:
    """Return the settings of a family that its weights do not show.

    MMDetection's leaves out what its configuration must say: stride, deviation, and order of the channels.
    """
    settings = dict(_PRESETS[found.family])
    if sha256.startswith(_WITHOUT_EPSILON):
        settings["model.batch_norm_epsilon"] = 0.0
    if found.family == "detectron2":
        # The ResNeXt of its model zoo was converted from Caffe2 and has other conventions than its ResNets.
        converted = found.settings["model.backbone_groups"] > 1
        settings["model.stride_in_1x1"] = not converted
        settings["model.pixel_std"] = _STD if converted else ()
    return settings


def takes_bgr(family: Family) -> bool:
    """Return whether a network of the family expects blue first, unless its configuration says otherwise."""
    return family == "detectron2"


# Settings of torchvision's preset that are arguments of its models, or that their layers show.
_ARGUMENTS = (
    "mean_pixel",
    "pixel_std",
    "batch_norm_epsilon",
    "anchor_scales",
    "anchor_ratios",
    "box_std",
    "mask_pool_size",
)


def torchvision_semantics() -> dict[str, Any]:
    """Return the settings that every model of torchvision has, and that neither weights nor arguments change."""
    return {
        name: value
        for name, value in _PRESETS["torchvision"].items()
        if name.startswith("model.") and name.removeprefix("model.") not in _ARGUMENTS
    } | {
        name: _PRESETS["torchvision"][name]
        for name in ("proposals.per_level", "proposals.clip", "detection.candidates", "resize.mode")
    }
