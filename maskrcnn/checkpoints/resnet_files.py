"""ImageNet classifiers from Keras Applications as backbones: conversion of their array names, old and new, to ours.

There are three naming schemes for the same ResNet (version 1, with the stride in the first 1 x 1 convolution):
    2015-2017   res2a_branch2a/res2a_branch2a_W, bn2a_branch2a/bn2a_branch2a_running_std
    2017-2019   res2a_branch2a/kernel, bn2a_branch2a/moving_variance
    since 2019  conv2_block1_1_conv/kernel, conv2_block1_1_bn/moving_variance

The classifiers were trained on BGR input and our model gets RGB, so the channels of the first kernel are reversed. All
other arrays stay unchanged. One difference remains, as in the original: the classifiers add 1e-5 to variances and our
model adds 1e-3, so channels with a variance near 1e-3 come out weaker.
"""

import re
from collections.abc import Collection

from maskrcnn.checkpoints.matterport_h5 import Arrays

# Layers of the classification head; "notop" files have none.
_TOP = ("fc1000", "predictions", "probs")
_OLD_VARIABLES = {"W": "kernel", "b": "bias", "running_mean": "moving_mean", "running_std": "moving_variance"}
_NEW_LAYER = re.compile(r"conv([2-5])_block(\d+)_([0-3])_(conv|bn)")
_BRANCHES = {"0": "branch1", "1": "branch2a", "2": "branch2b", "3": "branch2c"}
_STEMS = {"conv1_conv": "conv1", "conv1_bn": "bn_conv1"}


def is_classifier(arrays: Collection[str]) -> bool:
    """Return whether weights by "<layer>/<variable>" belong to a ResNet classifier, not to a Mask R-CNN."""
    layers = {key.split("/")[0] for key in arrays}
    if any(layer.startswith(("fpn_", "rpn_", "mrcnn_")) for layer in layers):
        return False
    return "conv1_conv" in layers or {"conv1", "bn_conv1", "res2a_branch2a"} <= layers


def to_backbone(arrays: Arrays) -> Arrays:
    """Return a classifier's arrays under our names, without its head and with the first kernel converted to RGB."""
    renamed: Arrays = {}
    for key, array in arrays.items():
        layer, variable = key.split("/")
        if layer in _TOP:
            continue
        variable = variable.removeprefix(f"{layer}_")
        renamed[f"{_our_layer(layer)}/{_OLD_VARIABLES.get(variable, variable)}"] = array
    if "conv1/kernel" in renamed and renamed["conv1/kernel"].shape[2] == 3:
        renamed["conv1/kernel"] = renamed["conv1/kernel"][:, :, ::-1, :].copy()
    return renamed


def _our_layer(name: str) -> str:
    match = _NEW_LAYER.fullmatch(name)
    if match is None:
        return _STEMS.get(name, name)
    stage, block, branch, kind = match.groups()
    prefix = "res" if kind == "conv" else "bn"
    return f"{prefix}{stage}{chr(ord('a') + int(block) - 1)}_{_BRANCHES[branch]}"
