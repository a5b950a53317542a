"""Random weights that behave like trained ones: how far a layer's outputs must be scaled and moved.

Peers come with weights for another job or none at all, and what they do with none is find nothing. Here their last
layers are set so that scores spread, which fills every stage: 1000 proposals, and more candidates than the 100
detections that are kept. Speed is compared with that, accuracy is not.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating]

OBJECTNESS_STD, RPN_DELTAS_STD, CLASS_STD, BOX_DELTAS_STD = 2.0, 0.1, 2.0, 0.5
RESIDUAL_GAIN = 0.3  # of the last batch norm in every residual block: activations do not grow over many of them
CANDIDATES, SCORE = 500, 0.05  # pairs of proposal and class above the score


class Affine(NamedTuple):
    """What to do with a layer: multiply its kernel, and replace its bias."""

    factor: float
    bias: npt.NDArray[np.float32]


def spread(outputs: Floats, std: float) -> float:
    """Factor that gives outputs a standard deviation."""
    return float(std / outputs.std())


def class_layer(logits: Floats) -> Affine:
    """The change of a classifier after which `CANDIDATES` probabilities of objects are above `SCORE`.

    Args:
        logits: [N, K] of the proposals of a picture, background first, from a layer whose bias is zero.
    """
    mean = logits.mean(axis=0)
    factor = spread(logits - mean, CLASS_STD)
    centred = factor * (logits - mean).astype(np.float64)
    low, high = -50.0, 50.0
    for _ in range(60):  # the more background, the fewer candidates
        middle = (low + high) / 2
        low, high = (middle, high) if _candidates(centred, middle) > CANDIDATES else (low, middle)
    bias = -factor * mean
    bias[0] += high
    return Affine(factor, bias.astype(np.float32))


def _candidates(logits: Floats, background: float) -> int:
    moved = logits + background * (np.arange(logits.shape[1]) == 0)
    powers = np.exp(moved - moved.max(axis=1, keepdims=True))
    return int((powers[:, 1:] / powers.sum(axis=1, keepdims=True) > SCORE).sum())
