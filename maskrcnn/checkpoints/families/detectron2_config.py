"""A YAML configuration of Detectron2, already read: what it says about a Mask R-CNN, in our settings."""

from collections.abc import Mapping
from typing import Any

from maskrcnn.checkpoints.families.config_values import FamilyConfig, Values, in_our_order, inverses
from maskrcnn.checkpoints.families.presets import MEAN
from maskrcnn.checkpoints.families.recognize import Recognized
from maskrcnn.errors import ConfigError

# What Detectron2 takes where neither a file nor those that it builds on have a value. This is no model with an FPN, so
# only a complete configuration passes.
_DEFAULTS: dict[str, Any] = {
    "MODEL.META_ARCHITECTURE": "GeneralizedRCNN",
    "MODEL.MASK_ON": False,
    "MODEL.BACKBONE.NAME": "build_resnet_backbone",
    "MODEL.PIXEL_MEAN": MEAN[::-1],  # for blue first, also where red comes first
    "MODEL.PIXEL_STD": (1.0, 1.0, 1.0),
    "MODEL.RESNETS.DEPTH": 50,
    "MODEL.RESNETS.NUM_GROUPS": 1,
    "MODEL.RESNETS.STRIDE_IN_1X1": True,
    "MODEL.FPN.OUT_CHANNELS": 256,
    "MODEL.PROPOSAL_GENERATOR.MIN_SIZE": 0,
    "MODEL.ANCHOR_GENERATOR.SIZES": [[32, 64, 128, 256, 512]],
    "MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS": [[0.5, 1.0, 2.0]],
    "MODEL.RPN.IN_FEATURES": ["res4"],
    "MODEL.RPN.PRE_NMS_TOPK_TEST": 6000,
    "MODEL.RPN.PRE_NMS_TOPK_TRAIN": 12000,
    "MODEL.RPN.POST_NMS_TOPK_TEST": 1000,
    "MODEL.RPN.POST_NMS_TOPK_TRAIN": 2000,
    "MODEL.RPN.NMS_THRESH": 0.7,
    "MODEL.RPN.BATCH_SIZE_PER_IMAGE": 256,
    "MODEL.RPN.BBOX_REG_WEIGHTS": (1.0, 1.0, 1.0, 1.0),
    "MODEL.ROI_HEADS.NAME": "Res5ROIHeads",
    "MODEL.ROI_HEADS.IN_FEATURES": ["res4"],
    "MODEL.ROI_HEADS.NUM_CLASSES": 80,
    "MODEL.ROI_HEADS.SCORE_THRESH_TEST": 0.05,
    "MODEL.ROI_HEADS.NMS_THRESH_TEST": 0.5,
    "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE": 512,
    "MODEL.ROI_HEADS.POSITIVE_FRACTION": 0.25,
    "MODEL.ROI_BOX_HEAD.NAME": "",
    "MODEL.ROI_BOX_HEAD.BBOX_REG_WEIGHTS": (10.0, 10.0, 5.0, 5.0),
    "MODEL.ROI_BOX_HEAD.SMOOTH_L1_BETA": 0.0,
    "MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION": 14,
    "MODEL.ROI_BOX_HEAD.POOLER_SAMPLING_RATIO": 0,
    "MODEL.ROI_BOX_HEAD.POOLER_TYPE": "ROIAlignV2",
    "MODEL.ROI_MASK_HEAD.POOLER_RESOLUTION": 14,
    "MODEL.ROI_MASK_HEAD.POOLER_SAMPLING_RATIO": 0,
    "MODEL.ROI_MASK_HEAD.POOLER_TYPE": "ROIAlignV2",
    "INPUT.FORMAT": "BGR",
    "INPUT.MIN_SIZE_TEST": 800,
    "INPUT.MAX_SIZE_TEST": 1333,
    "TEST.DETECTIONS_PER_IMAGE": 100,
}
# The value itself is the setting.
_NUMBERS = {
    "MODEL.RPN.PRE_NMS_TOPK_TEST": "proposals.pre_nms_limit",
    "MODEL.RPN.PRE_NMS_TOPK_TRAIN": "proposals.pre_nms_training",
    "MODEL.RPN.POST_NMS_TOPK_TEST": "proposals.post_nms_inference",
    "MODEL.RPN.POST_NMS_TOPK_TRAIN": "proposals.post_nms_training",
    "MODEL.RPN.NMS_THRESH": "proposals.nms_threshold",
    "MODEL.RPN.BATCH_SIZE_PER_IMAGE": "training.anchors_per_image",
    "MODEL.PROPOSAL_GENERATOR.MIN_SIZE": "proposals.min_side",
    "MODEL.ROI_HEADS.SCORE_THRESH_TEST": "detection.min_score",
    "MODEL.ROI_HEADS.NMS_THRESH_TEST": "detection.nms_threshold",
    "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE": "training.rois_per_image",
    "MODEL.ROI_HEADS.POSITIVE_FRACTION": "training.roi_positive_ratio",
    "MODEL.ROI_BOX_HEAD.SMOOTH_L1_BETA": "training.smooth_l1_beta",
    "MODEL.ROI_MASK_HEAD.POOLER_RESOLUTION": "model.mask_pool_size",
    "TEST.DETECTIONS_PER_IMAGE": "detection.max_detections",
    "INPUT.MIN_SIZE_TEST": "resize.short_side",
    "INPUT.MAX_SIZE_TEST": "resize.long_side",
}
_WEIGHTS = {"MODEL.RPN.BBOX_REG_WEIGHTS": "model.rpn_box_std", "MODEL.ROI_BOX_HEAD.BBOX_REG_WEIGHTS": "model.box_std"}
_EXPECTED: dict[str, tuple[Any, ...]] = {
    "MODEL.META_ARCHITECTURE": ("GeneralizedRCNN",),
    "MODEL.MASK_ON": (True,),
    "MODEL.KEYPOINT_ON": (False,),
    "MODEL.LOAD_PROPOSALS": (False,),
    "MODEL.BACKBONE.NAME": ("build_resnet_fpn_backbone",),
    "MODEL.RESNETS.NORM": ("FrozenBN", "BN", "SyncBN", "nnSyncBN"),
    "MODEL.RESNETS.RES5_DILATION": (1,),
    "MODEL.FPN.FUSE_TYPE": ("sum",),
    "MODEL.FPN.NORM": ("",),
    "MODEL.PROPOSAL_GENERATOR.NAME": ("RPN",),
    "MODEL.ANCHOR_GENERATOR.NAME": ("DefaultAnchorGenerator",),
    "MODEL.ANCHOR_GENERATOR.OFFSET": (0,),
    "MODEL.RPN.HEAD_NAME": ("StandardRPNHead",),
    "MODEL.RPN.IN_FEATURES": (("p2", "p3", "p4", "p5", "p6"),),
    "MODEL.ROI_HEADS.NAME": ("StandardROIHeads",),
    "MODEL.ROI_HEADS.IN_FEATURES": (("p2", "p3", "p4", "p5"),),
    "MODEL.ROI_BOX_HEAD.NAME": ("FastRCNNConvFCHead",),
    "MODEL.ROI_BOX_HEAD.POOLER_TYPE": ("ROIAlignV2", "ROIAlign"),
    "MODEL.ROI_BOX_HEAD.USE_SIGMOID_CE": (False,),
    "MODEL.ROI_MASK_HEAD.NAME": ("MaskRCNNConvUpsampleHead",),
    "MODEL.ROI_MASK_HEAD.POOLER_TYPE": ("ROIAlignV2", "ROIAlign"),
    "INPUT.FORMAT": ("BGR", "RGB"),
    "TEST.AUG.ENABLED": (False,),
}
# By which configurations of version 1 are recognized, whose names Detectron2 translates.
_NAMES_OF_VERSION_1 = (
    *("MODEL.WEIGHT", "MODEL.RPN_HEAD.NAME", "MODEL.ROI_HEADS.SCORE_THRESH", "MODEL.ROI_HEADS.NMS"),
    *("TEST.DETECTIONS_PER_IMG", "TEST.AUG_ON"),
)


def detectron2_settings(values: Mapping[str, Any], source: str, found: Recognized) -> FamilyConfig:
    """Return what a configuration of Detectron2 says.

    Args:
        values: The nested values of the file and of the files that it is based on.
        source: Name of the file, for messages.
        found: The network of the weights, which the configuration must fit.

    Raises:
        ConfigError: It is for a network that is not supported, or for other weights.
    """
    if not any(name in values for name in ("MODEL", "INPUT", "TEST", "DATASETS", "_BASE_")):
        raise ConfigError(f"{source} is no configuration of Detectron2: it has no MODEL")
    given = Values(values, source, _DEFAULTS)
    given.expect("VERSION", 2)
    for name in _NAMES_OF_VERSION_1:
        if given.get(name) is not None:
            given.refuse(name, "a name of version 1 of these configurations, expected those of version 2")
    for name, allowed in _EXPECTED.items():
        given.expect(name, *allowed)
    given.expect_nothing("MODEL.RESNETS.DEFORM_ON_PER_STAGE")
    _require_fit(given, found)
    settings: dict[str, Any] = {ours: given.number(name) for name, ours in _NUMBERS.items()}
    settings["model.stride_in_1x1"] = given.get("MODEL.RESNETS.STRIDE_IN_1X1")
    for name, ours in _WEIGHTS.items():
        settings[ours] = in_our_order(inverses(_four(given.numbers(name) or (), source, name), f"{source}: {name}"))
    settings |= _roi_align(given) | _anchors(given)
    bgr = given.get("INPUT.FORMAT") == "BGR"
    trained_on = given.texts("DATASETS.TRAIN")
    return FamilyConfig(
        settings | _pixels(given, bgr),
        bgr,
        coco=bool(trained_on) and all(name.startswith("coco_20") for name in trained_on),
    )


def _require_fit(given: Values, found: Recognized) -> None:
    sizes = found.settings
    given.fits("MODEL.RESNETS.DEPTH", int(sizes["model.backbone"].removeprefix("resnet")), "a depth of")
    given.fits("MODEL.RESNETS.NUM_GROUPS", sizes["model.backbone_groups"], "groups:")
    given.fits("MODEL.ROI_HEADS.NUM_CLASSES", found.classes, "classes:")
    given.fits("MODEL.FPN.OUT_CHANNELS", sizes["model.fpn_channels"], "channels:")
    given.fits("MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION", sizes["model.box_pool_size"], "crops with sides of")


def _four(values: tuple[float, ...], source: str, name: str) -> tuple[float, ...]:
    if len(values) != 4:
        raise ConfigError(f"{source}: {name} has {len(values)} values: expected 4")
    return values


def _roi_align(given: Values) -> dict[str, Any]:
    """Return the settings of ROIAlign, which box head and mask head share with us."""
    for key in ("POOLER_TYPE", "POOLER_SAMPLING_RATIO"):
        box = given.get(f"MODEL.ROI_BOX_HEAD.{key}")
        if given.get(f"MODEL.ROI_MASK_HEAD.{key}") != box:
            given.refuse(f"MODEL.ROI_MASK_HEAD.{key}", f"and {box} in the box head: expected the same")
    return {
        "model.roi_aligned": given.get("MODEL.ROI_BOX_HEAD.POOLER_TYPE") == "ROIAlignV2",
        "model.roi_sampling_ratio": given.number("MODEL.ROI_BOX_HEAD.POOLER_SAMPLING_RATIO"),
    }


def _anchors(given: Values) -> dict[str, Any]:
    sizes = given.get("MODEL.ANCHOR_GENERATOR.SIZES")
    if not _nested(sizes) or len(sizes) != 5 or any(len(level) != 1 for level in sizes):
        given.refuse("MODEL.ANCHOR_GENERATOR.SIZES", "expected one size for each of five levels")
    ratios = given.get("MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS")
    if not _nested(ratios) or len(ratios) not in (1, 5) or any(level != ratios[0] for level in ratios):
        given.refuse("MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS", "expected one list, or the same for each of five levels")
    return {
        "model.anchor_scales": tuple(level[0] for level in sizes),
        "model.anchor_ratios": inverses(ratios[0], f"{given.source}: ASPECT_RATIOS"),
    }


def _nested(value: Any) -> bool:
    """Return whether a value is a list of lists of numbers, none of them empty."""
    lists = isinstance(value, list | tuple) and value and all(isinstance(one, list | tuple) and one for one in value)
    return bool(lists) and all(
        isinstance(one, int | float) and not isinstance(one, bool) for level in value for one in level
    )


def _pixels(given: Values, bgr: bool) -> dict[str, Any]:
    """Return mean and deviation by red, green, blue; in the file they are in the order of the network's channels."""
    mean, deviation = (given.numbers(f"MODEL.PIXEL_{name}") or () for name in ("MEAN", "STD"))
    if bgr:
        mean, deviation = mean[::-1], deviation[::-1]
    return {"model.mean_pixel": mean, "model.pixel_std": () if set(deviation) == {1} else deviation}
