"""Short names of losses and scores, for messages."""

from collections.abc import Mapping

_SHORT = {
    "loss": "loss",
    "val_segm_ap": "val-AP",
    "val_loss": "val-loss",
    ("rpn_class_loss", "rpn_bbox_loss"): "rpn",  # class and box
    "mrcnn_class_loss": "class",
    "mrcnn_bbox_loss": "box",
    "mrcnn_mask_loss": "mask",
}


def short_facts(logs: Mapping[str, float], digits: int = 2) -> list[str]:
    """Return the losses and the score of a step or an epoch, with short names, the most important first.

    Args:
        logs: By their long names.
        digits: Significant ones.
    """
    found = []
    for names, short in _SHORT.items():
        keys = (names,) if isinstance(names, str) else names
        values = [f"{logs[key]:.{digits}g}" for key in keys if key in logs]
        if values:
            found.append(f"{short} {'/'.join(values)}")
    return found


def validation_facts(logs: Mapping[str, float], digits: int) -> list[str]:
    """Return the score and the loss of a validation."""
    found = {"AP": "val_segm_ap", "loss": "val_loss"}
    return [f"{short} {logs[name]:.{digits}g}" for short, name in found.items() if name in logs]
