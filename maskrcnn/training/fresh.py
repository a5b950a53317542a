"""Random initial weights; each array depends on its name and the seed alone.

Kernels are normal with standard deviation sqrt(2 / fan in) before a ReLU (He et al., arXiv 1502.01852) and
sqrt(1 / fan in) elsewhere. The last layers of the heads start near zero (0.01 and 0.001, as in Detectron), so the
first boxes are the anchors and the first losses are those of guessing. The class bias starts at the shares in which
proposals are sampled, mostly background: otherwise the first steps would learn nothing else. The second transposed
convolution of a mask head starts by repeating each cell, so that masks are at first those of a head with one.
"""

import math
import zlib

import numpy as np
from numpy.typing import NDArray

from maskrcnn.backbone import BASIC_BACKBONES
from maskrcnn.checkpoints.named_weights import named_variables
from maskrcnn.configuration.model import MASK_DECONVOLUTIONS, Config
from maskrcnn.model import MaskRCNN

_SMALL = {
    "rpn_class_raw": 0.01,
    "rpn_bbox_pred": 0.01,
    "mrcnn_class_logits": 0.01,
    "mrcnn_bbox_fc": 0.001,
    "mrcnn_mask": 0.001,
}
# Approximate standard deviation of the inputs, which are pixel values minus their mean.
_INPUT_STD = 64.0
_CONSTANTS = {"bias": 0.0, "beta": 0.0, "moving_mean": 0.0, "gamma": 1.0, "moving_variance": 1.0}


def fresh_weights(network: MaskRCNN, seed: int) -> None:
    """Fill a network with random weights in place; equal names, shapes and seeds give equal weights on every machine.

    A custom backbone keeps the weights that it came with.

    If batch normalization does not adapt its statistics in training (`train_batch_norm` False), the scale would grow
    from block to block. Then the last scale of each residual block starts at zero, so that the block starts as its
    shortcut (arXiv 1706.02677, section 5.1).
    """
    own = set()
    if network.config.model.backbone == "custom":
        own = {id(variable) for variable in network.backbone.variables}
    for key, variable in named_variables(network).items():
        if id(variable) not in own:
            variable.assign(_fresh_weight(key, tuple(variable.shape), seed, network.config))


def _fresh_weight(key: str, shape: tuple[int, ...], seed: int, config: Config) -> NDArray[np.float32]:
    layer, variable = key.split("/")
    if key == f"{MASK_DECONVOLUTIONS[1]}/kernel":
        return np.broadcast_to(np.eye(*shape[2:], dtype=np.float32), shape)
    if variable == "kernel":
        generator = np.random.Generator(np.random.PCG64([seed, zlib.crc32(key.encode())]))
        return (generator.standard_normal(shape) * _deviation(layer, shape)).astype(np.float32)
    value = np.full(shape, _CONSTANTS[variable], np.float32)
    if key == "mrcnn_class_logits/bias":
        value[0] = _background_bias(config)
    if key == "bn_conv1/moving_variance":
        value[:] = 2 * (_INPUT_STD / np.mean(config.model.pixel_std or 1.0)) ** 2
    if variable == "gamma" and config.training.train_batch_norm is False and _ends_block(layer, config):
        value[:] = 0
    return value


def _deviation(layer: str, shape: tuple[int, ...]) -> float:
    if layer in _SMALL:
        return _SMALL[layer]
    # The transposed convolution's kernel is [height, width, out, in]; each output sees one input cell.
    fan_in = shape[-1] if layer == "mrcnn_mask_deconv" else math.prod(shape[:-1])
    return math.sqrt((1.0 if layer.startswith("fpn_") else 2.0) / fan_in)


def _background_bias(config: Config) -> float:
    """Return the logit of the background against each other class, at the sampled shares."""
    positive = config.training.roi_positive_ratio
    classes = config.model.num_classes - 1
    return math.log(max(1 - positive, 0.01) * max(classes, 1) / positive)


def _ends_block(layer: str, config: Config) -> bool:
    last = "_branch2b" if config.model.backbone in BASIC_BACKBONES else "_branch2c"
    return layer.startswith("bn") and layer.endswith(last)
