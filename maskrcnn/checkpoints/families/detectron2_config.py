"""A YAML configuration of Detectron2, already read: what it says about a Mask R-CNN, in our settings."""

from collections.abc import Mapping
from typing import Any

from maskrcnn.checkpoints.families.config_values import FamilyConfig, Values, in_our_order, inverses
from maskrcnn.checkpoints.families.presets import MEAN
from maskrcnn.checkpoints.families.recognize import Recognized
from maskrcnn.errors import ConfigError

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
}


def detectron2_settings(values: Mapping[str, Any], source: str, found: Recognized) -> FamilyConfig:
    """Return what a configuration of Detectron2 says.

    Args:
        values: The nested values of the file and of the files that it is based on.
        source: Name of the file, for messages.
        found: The network of the weights, which the configuration must fit.

    Raises:
        ConfigError: It is for a network that is not supported, or for other weights.
    """
    given = Values(values, source)
    if not any(given.get(name) is not None for name in ("MODEL", "INPUT", "TEST", "DATASETS", "_BASE_")):
        raise ConfigError(f"{source} is no configuration of Detectron2: it has no MODEL")
    for name, allowed in _EXPECTED.items():
        given.expect(name, *allowed)
    given.expect_nothing("MODEL.RESNETS.DEFORM_ON_PER_STAGE")
    _require_fit(given, found)
    settings: dict[str, Any] = {ours: given.number(name) for name, ours in _NUMBERS.items()}
    stride = given.get("MODEL.RESNETS.STRIDE_IN_1X1")
    if stride is not None:
        settings["model.stride_in_1x1"] = stride
    for name, ours in _WEIGHTS.items():
        weights = given.numbers(name)
        if weights is not None:
            settings[ours] = in_our_order(inverses(_four(weights, source, name), f"{source}: {name}"))
    settings |= _roi_align(given) | _anchors(given)
    colors = given.get("INPUT.FORMAT")
    settings |= _pixels(given, rgb=colors == "RGB")
    trained_on = given.get("DATASETS.TRAIN") or ()
    trained_on = (trained_on,) if isinstance(trained_on, str) else trained_on
    return FamilyConfig(
        {name: value for name, value in settings.items() if value is not None},
        None if colors is None else colors == "BGR",
        coco=bool(trained_on) and all(str(name).startswith("coco_20") for name in trained_on),
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
    settings = {}
    for ours, key in (("model.roi_aligned", "POOLER_TYPE"), ("model.roi_sampling_ratio", "POOLER_SAMPLING_RATIO")):
        box, mask = (given.get(f"MODEL.ROI_{head}_HEAD.{key}") for head in ("BOX", "MASK"))
        default: Any = "ROIAlignV2" if key == "POOLER_TYPE" else 0
        if box is None and mask is None:
            continue
        box, mask = (default if one is None else one for one in (box, mask))
        if box != mask:
            given.refuse(f"MODEL.ROI_MASK_HEAD.{key}", f"and {box} in the box head: expected the same")
        settings[ours] = box == "ROIAlignV2" if key == "POOLER_TYPE" else box
    return settings


def _anchors(given: Values) -> dict[str, Any]:
    settings: dict[str, Any] = {}
    sizes = given.get("MODEL.ANCHOR_GENERATOR.SIZES")
    if sizes is not None:
        if not _nested(sizes) or len(sizes) != 5 or any(len(level) != 1 for level in sizes):
            given.refuse("MODEL.ANCHOR_GENERATOR.SIZES", "expected one size for each of five levels")
        settings["model.anchor_scales"] = tuple(level[0] for level in sizes)
    ratios = given.get("MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS")
    if ratios is not None:
        if not _nested(ratios) or any(level != ratios[0] for level in ratios):
            given.refuse("MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS", "expected the same for all levels")
        settings["model.anchor_ratios"] = inverses(ratios[0], f"{given.source}: ASPECT_RATIOS")
    return settings


def _nested(value: Any) -> bool:
    """Return whether a value is a list of lists of numbers, none of them empty."""
    lists = isinstance(value, list | tuple) and value and all(isinstance(one, list | tuple) and one for one in value)
    return bool(lists) and all(
        isinstance(one, int | float) and not isinstance(one, bool) for level in value for one in level
    )


def _pixels(given: Values, rgb: bool) -> dict[str, Any]:
    """Return mean and deviation by red, green, blue; in the file they are in the order of the network's channels."""
    settings: dict[str, Any] = {}
    for name, ours in (("MODEL.PIXEL_MEAN", "model.mean_pixel"), ("MODEL.PIXEL_STD", "model.pixel_std")):
        values = given.numbers(name)
        if values is None and rgb and ours == "model.mean_pixel":
            values = MEAN[::-1]  # Detectron2's default is for blue first, also where red comes first
        if values is None:
            continue
        ordered = values if rgb else values[::-1]
        settings[ours] = () if ours == "model.pixel_std" and set(ordered) == {1} else ordered
    return settings
