"""Reading matterport's `Config` fields: NAME, NUM_CLASSES, IMAGE_MAX_DIM, ..."""

import difflib
import logging
import math
import sys
from collections.abc import Callable, Mapping
from reprlib import repr as brief
from typing import Any, TypeGuard

from maskrcnn.configuration.model import Config
from maskrcnn.configuration.training import LOSS_NAMES
from maskrcnn.errors import ConfigError

_logger = logging.getLogger(__name__)

_MOST_CHANNELS = 1000
_SHOWN = 1000  # characters of a list of names in the log
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


# Lists for which the original's arithmetic takes a number as well, and their length; that of MEAN_PIXEL is the number
# of channels.
_LENGTHS = {"MEAN_PIXEL": None, "RPN_BBOX_STD_DEV": 4, "BBOX_STD_DEV": 4, "MINI_MASK_SHAPE": 2, "MASK_SHAPE": 2}
# Counts of a loop that runs as long as fewer steps are done, so that 12.5 means 13.
_STEPS = ("STEPS_PER_EPOCH", "VALIDATION_STEPS")
_NAMES = "CLASS_NAMES"  # our addition


def _class_names(ours: dict[str, Any], theirs: Mapping[str, Any]) -> None:
    count = theirs["NUM_CLASSES"]
    if not _is_number(count) or not 1 <= count <= _MOST_CLASSES or count != int(count):
        raise ConfigError(f"NUM_CLASSES is {brief(count)}: expected a positive integer, at most {_MOST_CLASSES}")
    count = int(count)
    # The original keeps class names in its dataset, not in its configuration.
    names = theirs.get("CLASS_NAMES") or ["BG", *(f"class {i}" for i in range(1, count))]
    if len(names) != count:
        raise ConfigError(f"CLASS_NAMES has {len(names)} names, NUM_CLASSES is {count}: give one name per class")
    ours["model"]["class_names"] = list(names)


def _min_score(ours: dict[str, Any], theirs: Mapping[str, Any]) -> None:
    ours["detection"]["min_score"] = theirs["DETECTION_MIN_CONFIDENCE"] or 0.0  # None and 0 turn the threshold off


def _mask_shape(ours: dict[str, Any], theirs: Mapping[str, Any]) -> None:
    pool = theirs.get("MASK_POOL_SIZE", 14)
    for deconvolutions in (1, 2):
        side = pool * 2**deconvolutions
        if list(theirs["MASK_SHAPE"]) == [side, side]:
            ours["model"]["mask_head_deconvolutions"] = deconvolutions
            return
    raise ConfigError(
        f"MASK_SHAPE is {brief(theirs['MASK_SHAPE'])}: the mask head outputs {2 * pool} x {2 * pool}, twice "
        f"MASK_POOL_SIZE, or {4 * pool} x {4 * pool} with a second transposed convolution"
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
    return not known_fields().isdisjoint(values)


def known_fields() -> frozenset[str]:
    """Return every matterport field that is read or deliberately ignored."""
    return frozenset(SAME) | frozenset(_CONVERTED) | frozenset(ABSENT)


def from_matterport(values: Mapping[str, Any]) -> Config:
    """Convert a matterport configuration; missing fields get matterport's defaults.

    An additional field `CLASS_NAMES` (a list, background first) names the classes; without it they are numbered. Other
    fields are the user's own: they are left out, and the log names them. So it does with steps that are not whole.

    Raises:
        ConfigError: A value cannot be used.
    """
    values = _plain(values)
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


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the known fields, with a list for a number where the original takes both."""
    known = known_fields() | {_NAMES}
    other = sorted(set(values) - known)
    if other:
        near = [(name, difflib.get_close_matches(name, known, n=1, cutoff=0.9)) for name in other]
        hints = [f"{name!r}" + (f" (did you mean {found[0]}?)" if found else "") for name, found in near]
        _logger.warning("settings that matterport's Config does not have are left out: %s", ", ".join(hints)[:_SHOWN])
    found = {name: value for name, value in values.items() if name in known}
    for name, length in _LENGTHS.items():
        if _is_number(found.get(name)):
            channels = found.get("IMAGE_CHANNEL_COUNT", 3)
            count = length or (int(channels) if _is_number(channels) and 0 < channels <= _MOST_CHANNELS else 1)
            found[name] = [found[name]] * count
    for name in _STEPS:
        value = found.get(name)
        if _is_number(value) and value != math.ceil(value):
            found[name] = math.ceil(value)
            _logger.warning("%s is %s and means %d steps, as in the original's loop", name, brief(value), found[name])
    return found


def _is_number(value: Any) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def _set(values: dict[str, Any], path: str, value: Any) -> None:
    section, _, name = path.rpartition(".")
    (values[section] if section else values)[name] = value
