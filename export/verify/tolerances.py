"""How far an artifact may be from the Keras model, and why that far.

Two float32 engines add up the same products in different orders. Through a hundred layers that leaves about 1e-6 of a
tensor's scale; every bound is a few times what sound exports show, and far below what a wrong operator causes.
"""

from typing import NamedTuple


class Tolerance(NamedTuple):
    """Largest allowed difference; `relative` to the largest magnitude in the reference tensor."""

    bound: float
    relative: bool = False


# Whole runs, as promised to users.
BOXES = Tolerance(0.01)  # input pixels
SCORES = Tolerance(1e-5)
MASKS = Tolerance(1e-4)

# A discrete decision may fall either way when it hangs on less than this.
DECISION_MARGIN = 1e-5

_FEATURES = Tolerance(1e-4, relative=True)  # convolutions: order of summation
_SAMPLED = Tolerance(1e-4, relative=True)  # the sample's position is rounded to 3e-5 cells
# The largest of a hundred thousand probabilities: a dot product over 12544 inputs leaves 1e-5 in a steep softmax.
_PROBABILITY = Tolerance(3e-5)
_SAME_ARITHMETIC = Tolerance(1e-6)  # a dozen float32 operations on values of one magnitude
_EQUAL = Tolerance(0.0)

# Border tensors, each stage fed with the reference's inputs.
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
