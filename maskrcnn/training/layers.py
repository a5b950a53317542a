"""Choose the layers to train by matterport's shorthands or regular expressions of layer names."""

import difflib
import re

import keras

from maskrcnn.errors import TrainingError
from maskrcnn.model import MaskRCNN

_HEADS = r"(mrcnn_.*)|(rpn_.*)|(fpn_.*)"
SHORTHANDS = {
    "heads": _HEADS,
    "3+": rf"(res[345].*)|(bn[345].*)|{_HEADS}",
    "4+": rf"(res[45].*)|(bn[45].*)|{_HEADS}",
    "5+": rf"(res5.*)|(bn5.*)|{_HEADS}",
    "all": ".*",
}


def set_trainable(network: MaskRCNN, layers: str) -> list[str]:
    """Make some layers trainable, freeze all others, and return the names of the trainable layers that have weights.

    A frozen batch normalization uses its moving statistics. With `train_batch_norm` False, a trainable one uses them
    too, but still learns its scale and offset, as in the original.

    Args:
        network: Changed in place; a compiled model must be compiled again.
        layers: "heads", "3+", "4+", "5+", "all", or a regular expression that must match a whole layer name.

    Raises:
        TrainingError: Not a regular expression, or no layer with weights has such a name.
    """
    try:
        pattern = re.compile(SHORTHANDS.get(layers, layers))
    except re.error as error:
        raise TrainingError(
            f"layers is {layers!r}, which is not a regular expression ({error}): give one that matches layer names, or "
            f"one of {', '.join(SHORTHANDS)}"
        ) from error
    found = [layer for part in network.parts for layer in _with_weights(part)]
    chosen = [layer.name for layer in found if pattern.fullmatch(layer.name)]
    if not chosen:
        raise TrainingError(_nothing_matches(layers, [layer.name for layer in found]))
    backbone = {layer.name for layer in _with_weights(network.backbone)}
    if layers in ("3+", "4+", "5+") and not backbone & set(chosen):
        raise TrainingError(
            f"layers {layers!r} names ResNet stages, which this backbone does not have: give 'heads', 'all' or a "
            f"regular expression that matches layer names such as {', '.join(sorted(backbone)[:3])}"
        )
    for part in network.parts:
        part.trainable = True  # a model that is not trainable hides the setting of its layers
    for layer in found:
        layer.trainable = layer.name in chosen
    return chosen


def _with_weights(layer: keras.Layer) -> list[keras.Layer]:
    if isinstance(layer, keras.Model):
        return [leaf for child in layer.layers for leaf in _with_weights(child)]
    return [layer] if layer.weights else []


def _nothing_matches(layers: str, names: list[str]) -> str:
    plain = re.sub(r"[^\w+]", "", layers)
    near = difflib.get_close_matches(plain, [*names, *SHORTHANDS], n=3, cutoff=0.4) or names[:3]
    return (
        f"layers {layers!r} matches no layer with weights (it must match a whole name): similar names are "
        f"{', '.join(near)}; or give one of {', '.join(SHORTHANDS)}"
    )
