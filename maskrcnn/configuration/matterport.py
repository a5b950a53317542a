"""Reading matterport's `Config` fields: NAME, NUM_CLASSES, IMAGE_MAX_DIM, ..."""

from collections.abc import Callable, Mapping
from reprlib import repr as brief
from typing import Any

from maskrcnn.configuration.model import Config
from maskrcnn.configuration.training import LOSS_NAMES
from maskrcnn.errors import ConfigError

_MOST_CLASSES = 100_000  # unnamed classes get names; a bad number must not exhaust the memory

# matterport field -> our field with the same meaning
SAME: dict[str, str] = {
    "NAME": "name",
    "BACKBONE": "model.backbone",
    "BACKBONE_STRIDES": "model.backbone_strides",
    "TOP_DOWN_PYRAMID_SIZE": "model.fpn_channels",
    "FPN_CLASSIF_FC_LAYERS_SIZE": "model.box_head_channels",
    "IMAGE_CHANNEL_COUNT": "model.image_channels",
    "MEAN_PIXEL": "model.mean_pixel",
    "RPN_ANCHOR_SCALES": "model.anchor_scales",
    "RPN_ANCHOR_RATIOS": "model.anchor_ratios",
    "RPN_ANCHOR_STRIDE": "model.anchor_stride",
    "RPN_BBOX_STD_DEV": "model.rpn_box_std",
    "BBOX_STD_DEV": "model.box_std",
    "POOL_SIZE": "model.box_pool_size",
    "MASK_POOL_SIZE": "model.mask_pool_size",
    "PRE_NMS_LIMIT": "proposals.pre_nms_limit",
    "POST_NMS_ROIS_TRAINING": "proposals.post_nms_training",
    "POST_NMS_ROIS_INFERENCE": "proposals.post_nms_inference",
    "RPN_NMS_THRESHOLD": "proposals.nms_threshold",
    "DETECTION_MAX_INSTANCES": "detection.max_detections",
    "DETECTION_NMS_THRESHOLD": "detection.nms_threshold",
    "IMAGE_MIN_DIM": "resize.min_dim",
    "IMAGE_MAX_DIM": "resize.max_dim",
    "IMAGE_MIN_SCALE": "resize.min_scale",
    "IMAGES_PER_GPU": "training.batch_size",
    "STEPS_PER_EPOCH": "training.steps_per_epoch",
    "VALIDATION_STEPS": "training.validation_steps",
    "LEARNING_RATE": "training.learning_rate",
    "LEARNING_MOMENTUM": "training.momentum",
    "WEIGHT_DECAY": "training.weight_decay",
    "GRADIENT_CLIP_NORM": "training.gradient_clip_norm",
    "RPN_TRAIN_ANCHORS_PER_IMAGE": "training.anchors_per_image",
    "TRAIN_ROIS_PER_IMAGE": "training.rois_per_image",
    "ROI_POSITIVE_RATIO": "training.roi_positive_ratio",
    "MAX_GT_INSTANCES": "training.max_instances",
    "USE_RPN_ROIS": "training.use_rpn_proposals",
    "TRAIN_BN": "training.train_batch_norm",
}

# matterport fields that are ignored, and why
ABSENT: dict[str, str] = {
    "GPU_COUNT": "devices are detected when training starts; a model does not depend on their number",
    "BATCH_SIZE": "computed from IMAGES_PER_GPU and GPU_COUNT",
    "IMAGE_SHAPE": "computed from IMAGE_MAX_DIM; the network accepts every multiple of 64",
    "IMAGE_META_SIZE": "there is no meta input",
    "COMPUTE_BACKBONE_SHAPE": "a function, not a value; feature sizes follow from backbone_strides",
}


def _class_names(ours: dict[str, Any], theirs: Mapping[str, Any]) -> None:
    count = theirs["NUM_CLASSES"]
    if not isinstance(count, int) or isinstance(count, bool) or not 1 <= count <= _MOST_CLASSES:
        raise ConfigError(f"NUM_CLASSES is {brief(count)}: expected a positive integer, at most {_MOST_CLASSES}")
    # The original keeps class names in its dataset, not in its configuration.
    names = theirs.get("CLASS_NAMES") or ["BG", *(f"class {i}" for i in range(1, count))]
    if len(names) != count:
        raise ConfigError(f"CLASS_NAMES has {len(names)} names, NUM_CLASSES is {count}: give one name per class")
    ours["model"]["class_names"] = list(names)


def _min_score(ours: dict[str, Any], theirs: Mapping[str, Any]) -> None:
    ours["detection"]["min_score"] = theirs["DETECTION_MIN_CONFIDENCE"] or 0.0  # None and 0 turn the threshold off


def _mask_shape(_ours: dict[str, Any], theirs: Mapping[str, Any]) -> None:
    expected = 2 * theirs.get("MASK_POOL_SIZE", 14)
    if list(theirs["MASK_SHAPE"]) != [expected, expected]:
        raise ConfigError(
            f"MASK_SHAPE is {brief(theirs['MASK_SHAPE'])}: the mask head outputs {expected} x {expected}, "
            "twice MASK_POOL_SIZE"
        )


def _resize_mode(ours: dict[str, Any], theirs: Mapping[str, Any]) -> None:
    mode = theirs["IMAGE_RESIZE_MODE"]
    if mode == "crop":  # for training only; the nucleus sample uses pad64 for inference
        ours["training"]["resize"] = ours["resize"] | {"mode": "crop"}
        mode = "pad64"
    ours["resize"]["mode"] = mode


def _loss_weights(ours: dict[str, Any], theirs: Mapping[str, Any]) -> None:
    weights = theirs["LOSS_WEIGHTS"]
    unknown = sorted(set(weights) - set(LOSS_NAMES))
    if unknown:
        raise ConfigError(f"LOSS_WEIGHTS has {unknown[0]!r}: expected {', '.join(LOSS_NAMES)}")
    ours["training"]["loss_weights"] = [weights.get(name, 1.0) for name in LOSS_NAMES]


def _mini_mask(ours: dict[str, Any], theirs: Mapping[str, Any]) -> None:
    used = theirs.get("USE_MINI_MASK", True)
    ours["training"]["mini_mask_size"] = list(theirs.get("MINI_MASK_SHAPE", (56, 56))) if used else None


# matterport field -> the function that reads it into our (nested) values
_CONVERTED: dict[str, Callable[[dict[str, Any], Mapping[str, Any]], None]] = {
    "NUM_CLASSES": _class_names,
    "DETECTION_MIN_CONFIDENCE": _min_score,
    "MASK_SHAPE": _mask_shape,
    "IMAGE_RESIZE_MODE": _resize_mode,
    "LOSS_WEIGHTS": _loss_weights,
    "USE_MINI_MASK": _mini_mask,
    "MINI_MASK_SHAPE": _mini_mask,
}


def is_matterport(values: Mapping[str, Any]) -> bool:
    """Return whether a JSON object uses matterport's field names."""
    return any(name in values for name in ("NUM_CLASSES", "BACKBONE", "IMAGE_MAX_DIM", "IMAGE_RESIZE_MODE"))


def known_fields() -> frozenset[str]:
    """Return every matterport field that is read or deliberately ignored."""
    return frozenset(SAME) | frozenset(_CONVERTED) | frozenset(ABSENT)


def from_matterport(values: Mapping[str, Any]) -> Config:
    """Convert a matterport configuration; missing fields get matterport's defaults.

    An additional field `CLASS_NAMES` (a list, background first) names the classes; without it they are numbered.

    Raises:
        ConfigError: A field is unknown or its value cannot be used.
    """
    unknown = sorted(set(values) - known_fields() - {"CLASS_NAMES"})
    if unknown:
        raise ConfigError(
            f"unknown matterport setting {unknown[0]!r}: see docs/configuration.md for the settings that are read"
        )
    if not isinstance(values.get("CLASS_NAMES", []), list | tuple):
        raise ConfigError(f"CLASS_NAMES is {brief(values['CLASS_NAMES'])}: expected a list")
    if "CLASS_NAMES" in values and "NUM_CLASSES" not in values:
        values = {**values, "NUM_CLASSES": len(values["CLASS_NAMES"])}
    ours: dict[str, Any] = {
        # Matterport's defaults where they differ from ours.
        "model": {"class_names": ["BG"]},
        "resize": {"mode": "square", "min_dim": 800, "max_dim": 1024, "min_scale": 0},
        "proposals": {},
        "detection": {},
        "training": {},
    }
    for theirs_name, path in SAME.items():
        if theirs_name in values and not (theirs_name == "NAME" and values["NAME"] is None):
            _set(ours, path, values[theirs_name])
    for theirs_name, convert in _CONVERTED.items():
        if theirs_name in values:
            try:
                convert(ours, values)
            except (TypeError, AttributeError) as error:
                raise ConfigError(f"{theirs_name} is {brief(values[theirs_name])}: wrong type ({error})") from error
    return Config.from_dict(ours)


def _set(values: dict[str, Any], path: str, value: Any) -> None:
    section, _, name = path.rpartition(".")
    (values[section] if section else values)[name] = value
