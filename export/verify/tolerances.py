"""How far an artifact may differ from the Keras model, and why.

Two float32 engines add the same products in different orders. After a hundred layers, that leaves about 1e-6 of a
tensor's scale. Each bound is a few times what correct exports show, and far below what a wrong operator causes.
"""

from typing import NamedTuple

from maskrcnn.configuration.model import ModelConfig


class Tolerance(NamedTuple):
    """Largest allowed difference; `relative` to the largest magnitude in the reference tensor."""

    bound: float
    relative: bool = False


# Whole runs, as promised to users.
BOXES = Tolerance(0.01)  # input pixels
SCORES = Tolerance(1e-5)
MASKS = Tolerance(1e-4)

# A discrete decision may go either way when it depends on less than this.
DECISION_MARGIN = 1e-5

# Whole runs against the genuine model of a PyTorch checkpoint, at the size of the image. There, thousands of boxes are
# ranked and suppressed with other roundings, and no stage can be fed alone.
SOURCE_BOX = 0.1  # image pixels
SOURCE_MARGIN = 1e-3  # of scores, and of what a decision depends on
SOURCE_MASK = 1e-3  # of the mask's area
SOURCE_MASK_PIXELS = 2  # of any mask
SOURCE_MASK_NEAR = 0.05  # of its area, where probabilities are near 0.5; correct masks differed by up to 0.01
SOURCE_NEAR = (
    0.02  # of the rows of both may be without counterpart, if their scores are below 0.5 or a decision is near
)

_FEATURES = Tolerance(1e-4, relative=True)  # convolutions: the order of summation
_SAMPLED = Tolerance(1e-4, relative=True)  # sample positions are rounded to 3e-5 cells
# Worst of a hundred thousand probabilities: a dot product over 12544 inputs leaves 1e-5 in a steep softmax.
_PROBABILITY = Tolerance(3e-5)
_SAME_ARITHMETIC = Tolerance(1e-6)  # a dozen float32 operations on values of similar magnitude
_EQUAL = Tolerance(0.0)

# Stage boundary tensors, when each stage is fed the reference's inputs.
STAGES: dict[str, Tolerance] = {
    "p2": _FEATURES,
    "p3": _FEATURES,
    "p4": _FEATURES,
    "p5": _FEATURES,
    "p6": _FEATURES,
    "rpn_probs": _PROBABILITY,
    "rpn_deltas": _FEATURES,
    "proposals": _SAME_ARITHMETIC,
    "box_rois": _SAMPLED,
    "class_probs": _PROBABILITY,
    "box_deltas": _FEATURES,
    "detected_boxes": _SAME_ARITHMETIC,
    "scores": _SAME_ARITHMETIC,
    "class_ids": _EQUAL,
    "num_detections": _EQUAL,
    "mask_rois": _SAMPLED,
    "masks": MASKS,
}


def of_stage(name: str, model: ModelConfig) -> Tolerance:
    """Return the tolerance of a stage boundary tensor in the units of a model.

    Boxes in pixels round relative to the size of the input, and logits are as large as features.
    """
    if model.box_frame == "continuous" and name in ("proposals", "detected_boxes"):
        return STAGES[name]._replace(relative=True)
    return _FEATURES if model.objectness == "sigmoid" and name == "rpn_probs" else STAGES[name]
