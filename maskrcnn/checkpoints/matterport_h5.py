"""Matterport's `.h5` layout (Keras 2 `save_weights`), read and written by name, never by position.

The root has the attributes `layer_names`, `backend` and `keras_version`, and a group per layer with the attribute
`weight_names` and the arrays at `<layer>/<layer>/<variable>:0`. The RPN is a nested model: its layers are in the group
`rpn_model`. Full-model files have the same structure below `model_weights`.

Weights files are not trusted: no reference to anything outside the file is followed, and nothing larger than the file
is read.
"""

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from maskrcnn.checkpoints.h5_content import H5Array, H5Content, RefusedError
from maskrcnn.checkpoints.h5_open import keras3_hint, open_h5
from maskrcnn.checkpoints.h5_write import writing_h5
from maskrcnn.errors import CheckpointFormatError

Arrays = dict[str, NDArray[np.float32]]
Shapes = dict[str, tuple[int, ...]]

RPN_GROUP = "rpn_model"
# What the layers of networks call their weights, in contrast to other numbers that a program may keep with them.
VARIABLES = ("kernel", "bias", "gamma", "beta", "moving_mean", "moving_variance", "depthwise_kernel")
_KERAS_VERSION = "2.2.5"  # the layout's version; Keras 3 reads it as a legacy file
_DIGEST = "maskrcnn_sha256"


def group_of(layer: str) -> str:
    """Return the name of the group that holds a layer's arrays."""
    return RPN_GROUP if layer.startswith("rpn_") else layer


def read_arrays(path: str | Path) -> tuple[Arrays, dict[str, str]]:
    """Read all weights, by "<layer>/<variable>", and the text attributes of the root.

    Raises:
        CheckpointNotFoundError: There is no such file.
        CheckpointFormatError: The file is empty, truncated, damaged, unsafe, not HDF5, or has another layout.
    """
    path = Path(path)
    arrays: Arrays = {}
    with open_h5(path) as content:
        for name, array in _weights(content).items():
            arrays[name] = np.asarray(array.read(), np.float32)
        attributes = {key: value for key, value in content.groups[""].items() if isinstance(value, str)}
    expected = attributes.pop(_DIGEST, None)
    if expected is not None and expected != _digest(arrays, attributes):
        raise CheckpointFormatError(f"{path} is damaged: its weights differ from the digest stored with them")
    return arrays, attributes


def write_arrays(
    path: str | Path,
    arrays: Mapping[str, NDArray[np.float32]],
    attributes: Mapping[str, str] | None = None,
    overwrite: bool = False,
) -> None:
    """Write weights, by "<layer>/<variable>", in matterport's layout, atomically; layers keep their order.

    With `attributes` (text, stored at the root), a digest of text and weights is stored, which `read_arrays` checks.
    """
    groups: dict[str, list[tuple[str, NDArray[np.float32]]]] = {}
    for key, array in arrays.items():
        layer = key.split("/")[0]
        groups.setdefault(group_of(layer), []).append((f"{key}:0", array))
    with writing_h5(path, overwrite=overwrite) as file:
        # Fixed-length bytes, as in the original: h5py would store a list as variable-length text.
        file.attrs["layer_names"] = np.array([name.encode() for name in groups])
        file.attrs["backend"] = b"tensorflow"
        file.attrs["keras_version"] = _KERAS_VERSION.encode()
        for group_name, weights in groups.items():
            group = file.create_group(group_name)
            group.attrs["weight_names"] = np.array([name.encode() for name, _ in weights])
            for name, array in weights:
                group.create_dataset(name, data=array)
        if attributes is not None:
            file.attrs.update(attributes)
            stored = {key: _text(v) for key, v in file.attrs.items() if isinstance(v, str | bytes)}
            file.attrs[_DIGEST] = _digest(arrays, stored)


def read_shapes(path: str | Path) -> tuple[Shapes, dict[str, str]]:
    """Read what `read_arrays` reads, but only the shapes of the weights; their digest is not compared.

    Raises:
        CheckpointError: As `read_arrays`.
    """
    path = Path(path)
    with open_h5(path) as content:
        shapes = {name: array.shape for name, array in _weights(content).items()}
        return shapes, {key: value for key, value in content.groups[""].items() if isinstance(value, str)}


def _weights(content: H5Content) -> dict[str, H5Array]:
    """Return the arrays that Keras lists as weights, by "<layer>/<variable>"."""
    root = "model_weights/" if "model_weights" in content.groups else ""
    if "model_weights" in content.arrays:
        raise RefusedError("is damaged: /model_weights is an array instead of a group")
    found: dict[str, H5Array] = {}
    for group, attributes in content.groups.items():
        name = group.removeprefix(root)
        if not group.startswith(root) or not name or "/" in name:
            continue
        for weight in _weight_names(attributes, group):
            layer, variable = _split(name, weight)
            array = content.arrays.get(f"{group}/{weight}")
            if array is None:
                raise RefusedError(f"has no array /{group}/{weight}: copy or download it again")
            if variable in VARIABLES and (array.dtype is None or array.dtype.kind != "f"):
                raise RefusedError(
                    f"declares /{group}/{weight} as {array.dtype or 'other values'} {array.shape}: expected "
                    "floating-point numbers"
                )
            found[f"{layer}/{variable}"] = array
    if not found:
        raise RefusedError(
            keras3_hint(content)
            or "is an HDF5 file without Keras layer weights: expected a matterport .h5 or a "
            "checkpoint saved by maskrcnn"
        )
    return found


def _weight_names(attributes: Mapping[str, str | list[str] | None], group: str) -> list[str]:
    """Return the names of a layer's weights; Keras puts a list that is too long into several attributes."""
    names: list[str] = []
    for key in ("weight_names", *(f"weight_names{number}" for number in range(len(attributes)))):
        if key not in attributes:
            continue
        part = attributes[key]
        if not isinstance(part, list):
            raise RefusedError(f"is damaged: {key} of /{group} is not a list of names")
        names += part
    return names


def _split(group_name: str, weight_name: str) -> tuple[str, str]:
    """Return layer and variable of a weight; of a wrapper, its own name and not that of the wrapped layer."""
    parts = weight_name.split("/")
    nested = re.fullmatch(rf"{RPN_GROUP}(_\d+)?", group_name)
    layer = parts[-2] if nested and len(parts) > 1 else group_name
    return layer, parts[-1].split(":")[0]


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value


def _digest(arrays: Mapping[str, NDArray[np.float32]], attributes: Mapping[str, str]) -> str:
    digest = hashlib.sha256()
    for key in sorted(attributes):
        digest.update(f"{key}={attributes[key]}\n".encode())
    for key in sorted(arrays):
        digest.update(f"{key}{arrays[key].shape}\n".encode())
        digest.update(np.ascontiguousarray(arrays[key], "<f4").data)
    return digest.hexdigest()
