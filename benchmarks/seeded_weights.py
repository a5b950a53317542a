"""Deterministic weights: every array a pure function of its name, shape and a seed.

For a model that has not been trained but must show realistic behaviour (spread scores, mixed classes, overlapping
boxes): the demo until it is trained, and the tests, whose golden data was made with these very weights. Only
PCG64's raw stream, integers and correctly rounded float64 operations are used, so the bits are the same everywhere.
"""

import math
import zlib
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from maskrcnn.checkpoints.matterport_h5 import group_of
from maskrcnn.checkpoints.named_weights import named_variables
from maskrcnn.model import MaskRCNN

_ONE = 1 << 24
_SEED_STRIDE = 1000003

# Standard deviation of a kernel in units of 1 / sqrt(fan in). sqrt(2) keeps the variance through a ReLU (He et
# al. 2015); the others were tuned so that scores spread and coarse pyramid levels win proposals too.
_HE = math.sqrt(2.0)
_GAINS = {
    "conv1": _HE / 64.0,  # its input is in grey levels
    "fpn_p2": 0.4,
    "fpn_p3": 0.5,
    "fpn_p4": 0.9,
    "fpn_p5": 1.6,
    "rpn_class_raw": 1.0,
    "rpn_bbox_pred": 0.4,
    "mrcnn_bbox_fc": 0.8,
    "mrcnn_mask": 3.0,
}
_CENTRED_LAYERS = ("rpn_", "mrcnn_", "fpn_")


def seeded_weight(key: str, shape: tuple[int, ...], seed: int) -> NDArray[np.float32]:
    """The weight of one variable.

    Args:
        key: "<h5 group>/<layer>/<variable>:0", as in matterport's files.
        shape: Its shape.
        seed: Any integer; the goldens use 0.

    Returns:
        float32 of `shape`.
    """
    layer, variable = key.split("/")[-2:]
    variable = variable.split(":")[0]
    integers = _symmetric_integers(key, shape, seed)
    if variable == "kernel":
        return _kernel(layer, integers).astype(np.float32)
    uniform = integers / _ONE  # (-1, 1)
    values = {
        "bias": (0.5 if layer == "mrcnn_class_logits" else 0.05) * uniform,
        "gamma": 1.0 + 0.1 * uniform,
        "beta": 0.1 * uniform,
        "moving_mean": 0.1 * uniform,
        "moving_variance": 1.0 + 0.5 * uniform,
    }
    return values[variable].astype(np.float32)


def _symmetric_integers(key: str, shape: tuple[int, ...], seed: int) -> NDArray[np.int64]:
    """Odd integers in (-2^24, 2^24), one per element."""
    stream = np.random.PCG64(zlib.crc32(key.encode()) + _SEED_STRIDE * seed)
    raw = stream.random_raw(math.prod(shape)) >> np.uint64(40)
    return (2 * raw.astype(np.int64) - (_ONE - 1)).reshape(shape)


def _kernel(layer: str, integers: NDArray[np.int64]) -> NDArray[np.float64]:
    if layer == "mrcnn_mask_deconv":  # [height, width, out, in]; each output sees one input cell
        input_axes: tuple[int, ...] = (3,)
    else:
        input_axes = tuple(range(integers.ndim - 1))
    fan_in = math.prod(integers.shape[axis] for axis in input_axes)
    # A uniform draw on (-limit, limit) has the standard deviation limit / sqrt(3).
    limit = math.sqrt(3.0) * _gain(layer, integers.shape[-1]) / math.sqrt(float(fan_in))
    if layer.startswith(_CENTRED_LAYERS):  # no common offset: inputs after a ReLU are all positive
        total = integers.sum(axis=input_axes, keepdims=True)
        return (integers * fan_in - total).astype(np.float64) / (float(fan_in) * _ONE) * limit
    return integers / _ONE * limit


def _gain(layer: str, outputs: int) -> float:
    if layer == "mrcnn_class_logits":
        return 5.0 if outputs > 10 else 4.0
    if layer in _GAINS:
        return _GAINS[layer]
    if layer.startswith("res"):
        if layer.endswith("_branch1"):
            return 1.0
        if layer.endswith("_branch2c"):  # keeps the residual stream from growing over many blocks
            return (0.15 if layer.startswith("res4") else 0.3) * _HE
        return _HE
    return 1.0 if layer.startswith("fpn_") else _HE


def seed_weights(model: MaskRCNN, seed: int = 0, gains: Mapping[str, float] | None = None) -> None:
    """Fill a model with the deterministic weights of `seeded_weights`.

    Args:
        model: To be filled.
        seed: Of the weights.
        gains: Factor on the kernel of a layer, by layer name.
    """
    for key, variable in named_variables(model).items():
        layer, name = key.split("/")
        weight = seeded_weight(f"{group_of(layer)}/{key}:0", tuple(variable.shape), seed)
        variable.assign(weight * (gains or {}).get(layer, 1.0) if name == "kernel" else weight)
