"""Weights of a model as named arrays; every name and shape is checked."""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from maskrcnn.checkpoints.architecture import described, matched, shown_settings
from maskrcnn.checkpoints.matterport_h5 import VARIABLES, Arrays
from maskrcnn.configuration.model import MASK_DECONVOLUTIONS
from maskrcnn.errors import CheckpointMismatchError
from maskrcnn.model import MaskRCNN

_SUFFIX = re.compile(r"_\d+$")  # with which Keras makes a name unique
# Layers whose shape depends on the number of classes.
HEAD_LAYERS = ("mrcnn_class_logits", "mrcnn_bbox_fc", "mrcnn_mask")


@dataclass(frozen=True)
class LoadReport:
    """What was loaded from a checkpoint; names are "<layer>/<variable>".

    Attributes:
        loaded: Arrays in both the file and the model.
        excluded: Arrays of the model that were skipped on request and keep their initial values.
        missing: Arrays in the model only.
        leftover: Arrays in the file only.
        origins: Sentences on what a PyTorch checkpoint is, and where each of its settings came from.
    """

    loaded: tuple[str, ...]
    excluded: tuple[str, ...]
    missing: tuple[str, ...]
    leftover: tuple[str, ...]
    origins: tuple[str, ...] = ()

    def __str__(self) -> str:
        parts = [f"{len(self.loaded)} arrays loaded"]
        for label in ("excluded", "missing", "leftover"):
            names = getattr(self, label)
            if names:
                parts.append(f"{len(names)} {label} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})")
        return ", ".join(parts)


def named_variables(model: MaskRCNN) -> dict[str, Any]:
    """Return every weight of the model by "<layer>/<variable>", in order of construction.

    Raises:
        CheckpointMismatchError: Two layers share a name, which a custom backbone can cause.
    """
    named: dict[str, Any] = {}
    for part in model.parts:
        for layer in _leaf_layers(part):
            for variable in layer.variables:
                if "seed" in variable.name:  # state of a dropout layer, not a weight
                    continue
                key = f"{layer.name}/{variable.name}"
                if key in named:
                    raise CheckpointMismatchError(
                        f"two layers are called {layer.name!r}: rename one in the backbone, weights go by name"
                    )
                named[key] = variable
    return named


def _leaf_layers(layer: keras.Layer) -> list[keras.Layer]:
    if isinstance(layer, keras.Model):
        return [leaf for child in layer.layers for leaf in _leaf_layers(child)]
    return [layer] if layer.variables else []


def get_arrays(model: MaskRCNN) -> dict[str, NDArray[np.float32]]:
    """Return all weights as float32 arrays."""
    return {key: np.asarray(variable.numpy(), np.float32) for key, variable in named_variables(model).items()}


def by_network_names(arrays: Arrays, network: Collection[str]) -> Arrays:
    """Return arrays of a file with the names of the network where `matched` finds them; others keep theirs."""
    names = matched(arrays, network)
    renamed = {form: arrays[name] for form, name in names.items()}
    return renamed | {name: array for name, array in arrays.items() if name not in names.values()}


def set_arrays(
    model: MaskRCNN,
    arrays: Mapping[str, NDArray[np.float32]],
    source: str,
    exclude_heads: bool = False,
    partial: bool = False,
    exclude: Collection[str] = (),
) -> LoadReport:
    """Assign arrays to the variables of the same name: all of them, or none if anything does not fit.

    Args:
        model: Changed in place.
        arrays: By "<layer>/<variable>".
        source: Where they come from, for messages.
        exclude_heads: Skip the layers that depend on the number of classes.
        partial: Accept missing and leftover arrays (for instance, a backbone alone) and report them.
        exclude: Further layers to skip.

    Raises:
        CheckpointMismatchError: A shape differs, a value is not finite, or (unless `partial`) a name is missing, or
            the file has a layer that the network does not have. Other numbers, such as anchors, are left over.
    """
    variables = named_variables(model)
    arrays = by_network_names(dict(arrays), variables)
    skipped = {*exclude, *(HEAD_LAYERS if exclude_heads else ())}
    excluded = {key for key in variables if key.split("/")[0] in skipped}
    wrong = [
        key for key in variables.keys() & arrays.keys() - excluded if tuple(variables[key].shape) != arrays[key].shape
    ]
    missing = [key for key in variables if key not in arrays and key not in excluded]
    leftover = [key for key in arrays if key not in variables]
    layers = [key for key in leftover if _SUFFIX.sub("", key.split("/")[1]) in VARIABLES]
    if not partial and (missing or layers):
        raise CheckpointMismatchError(_structure_message(source, missing, layers, arrays))
    if wrong:
        raise CheckpointMismatchError(_shape_message(source, sorted(wrong), variables, arrays))
    loaded = [key for key in variables if key in arrays and key not in excluded]
    for key in loaded:
        if not np.isfinite(arrays[key]).all():
            raise CheckpointMismatchError(f"{source}: {key} has values that are not finite: the file cannot be used")
    for key in loaded:
        variables[key].assign(arrays[key])
    return LoadReport(tuple(loaded), tuple(sorted(excluded)), tuple(missing), tuple(leftover))


def _structure_message(
    source: str, missing: list[str], leftover: list[str], arrays: Mapping[str, NDArray[np.float32]]
) -> str:
    parts = []
    if missing:
        parts.append(f"{len(missing)} arrays of the model are missing from it (such as {missing[0]})")
    if leftover:
        parts.append(f"{len(leftover)} of its arrays are not in the model (such as {leftover[0]})")
    shown = shown_settings({key: array.shape for key, array in arrays.items()})
    found = f"; it is {described(shown)}" if shown else ""
    other = {key.split("/")[0] for key in (*missing, *leftover)}
    setting = "mask_head_deconvolutions" if other == {MASK_DECONVOLUTIONS[1]} else "backbone"
    return f"{source} has another architecture: {' and '.join(parts)}{found}; check '{setting}' in the configuration"


def _shape_message(
    source: str, wrong: list[str], variables: Mapping[str, Any], arrays: Mapping[str, NDArray[np.float32]]
) -> str:
    logits = "mrcnn_class_logits/kernel"
    if all(key.split("/")[0] in HEAD_LAYERS for key in wrong) and logits in wrong:
        theirs, ours = arrays[logits].shape[-1], variables[logits].shape[-1]
        return (
            f"{source} was trained for {theirs} classes (with background), the configuration has {ours}: "
            "use a configuration with as many, or skip the heads with --exclude-heads (exclude_heads=True)"
        )
    key = wrong[0]
    return (
        f"{source} does not fit the configuration: {key} is {list(arrays[key].shape)}, the model needs "
        f"{list(variables[key].shape)} ({len(wrong)} arrays differ)"
    )
