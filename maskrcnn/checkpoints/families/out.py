"""A model of ours as a state dict of torchvision."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from maskrcnn.checkpoints.families import torchvision
from maskrcnn.checkpoints.families.mapping import state_of
from maskrcnn.checkpoints.families.presets import torchvision_semantics
from maskrcnn.errors import CheckpointMismatchError
from maskrcnn.model import MaskRCNN


def to_torchvision(model: MaskRCNN) -> tuple[dict[str, NDArray[np.float32]], str]:
    """Return the weights by torchvision's names, and the arguments with which torchvision builds the same model.

    Raises:
        CheckpointMismatchError: torchvision has no such network.
    """
    for name, expected in torchvision_semantics().items():
        section, field = name.split(".")
        value = getattr(getattr(model.config, section), field)
        if value != expected:
            raise CheckpointMismatchError(
                f"torchvision computes something else than this model: {name} is {value!r}, and in "
                f"torchvision it is {expected!r}"
            )
    return state_of(model, torchvision.table(model.config.model)), _arguments(model)


def _arguments(model: MaskRCNN) -> str:
    config = model.config
    network, detection, proposals = config.model, config.detection, config.proposals
    arguments: dict[str, Any] = {
        "num_classes": network.num_classes,
        "min_size": config.resize.short_side,
        "max_size": config.resize.long_side,
        "box_score_thresh": detection.min_score,
        "box_nms_thresh": detection.nms_threshold,
        "box_detections_per_img": detection.max_detections,
        "rpn_pre_nms_top_n_test": proposals.pre_nms_limit,
        "rpn_post_nms_top_n_test": proposals.post_nms_inference,
        "rpn_nms_thresh": proposals.nms_threshold,
        "image_mean": [round(value / 255, 6) for value in network.mean_pixel],
        "image_std": [round(value / 255, 6) for value in network.pixel_std or (1.0,) * len(network.mean_pixel)],
    }
    shown = ", ".join(f"{name}={value}" for name, value in arguments.items())
    return f"{shown}; eps of its batch normalization: {network.batch_norm_epsilon}"
