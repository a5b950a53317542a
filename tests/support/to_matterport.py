"""A configuration written with matterport's field names, to check that `from_matterport` reads every field."""

from maskrcnn.configuration.matterport import SAME
from maskrcnn.configuration.training import LOSS_NAMES


def to_matterport(config):
    """JSON-ready values; settings without a matterport field are left out."""
    ours = config.to_dict()
    mini_mask = config.training.mini_mask_size
    side = config.model.mask_size
    return {name: _get(ours, path) for name, path in SAME.items()} | {
        "NUM_CLASSES": config.model.num_classes,
        "CLASS_NAMES": list(config.model.class_names),
        "DETECTION_MIN_CONFIDENCE": config.detection.min_score,
        "MASK_SHAPE": [side, side],
        "IMAGE_RESIZE_MODE": (config.training.resize or config.resize).mode,
        "LOSS_WEIGHTS": dict(zip(LOSS_NAMES, config.training.loss_weights, strict=True)),
        "USE_MINI_MASK": mini_mask is not None,
        "MINI_MASK_SHAPE": list(mini_mask or (56, 56)),
    }


def _get(values, path):
    section, _, name = path.rpartition(".")
    return (values[section] if section else values)[name]
