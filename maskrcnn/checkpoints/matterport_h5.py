"""Matterport's `.h5` layout (Keras 2 `save_weights`), read and written by name, never by position.

The root has the attributes `layer_names`, `backend` and `keras_version`, and a group per layer with the attribute
`weight_names` and the arrays at `<layer>/<layer>/<variable>:0`. The RPN is a nested model: its layers are in the group
`rpn_model`. Full-model files have the same structure below `model_weights`.

Weights files are not trusted: no reference to anything outside the file is followed, and nothing larger than the file
is read.
"""

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from maskrcnn.checkpoints.h5_walk import check_structure
from maskrcnn.checkpoints.h5_write import writing_h5
from maskrcnn.errors import CheckpointFormatError, CheckpointNotFoundError

Arrays = dict[str, NDArray[np.float32]]

RPN_GROUP = "rpn_model"
_KERAS_VERSION = "2.2.5"  # the layout's version; Keras 3 reads it as a legacy file
_HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_DIGEST = "maskrcnn_sha256"
# Errors that h5py and NumPy raise for files with a broken structure.
_DAMAGE = (OSError, RuntimeError, LookupError, TypeError, ValueError, AttributeError)


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
    with _open(path) as file:
        check_structure(file, path)
        root = file.get("model_weights", file)
        arrays: Arrays = {}
        for group_name in root:
            group = root[group_name]
            if not isinstance(group, h5py.Group) or "weight_names" not in group.attrs:
                continue
            for raw in group.attrs["weight_names"]:
                name = raw.decode() if isinstance(raw, bytes) else str(raw)
                layer, variable = _split(group_name, name)
                arrays[f"{layer}/{variable}"] = _read_dataset(path, group, name)
        attributes = {key: _text(value) for key, value in file.attrs.items() if isinstance(value, str | bytes)}
    if not arrays:
        raise CheckpointFormatError(
            f"{path} is an HDF5 file without Keras layer weights: expected a matterport .h5 or a checkpoint "
            "saved by maskrcnn"
        )
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


@contextmanager
def _open(path: Path) -> Iterator[h5py.File]:
    if not path.exists():
        raise CheckpointNotFoundError(f"there is no checkpoint at {path}")
    if path.is_dir():
        raise CheckpointFormatError(f"{path} is a folder: expected a .h5 file")
    if not path.is_file():  # reading a pipe could block forever
        raise CheckpointFormatError(f"{path} is a pipe or a device: expected a .h5 file")
    try:
        with path.open("rb") as stream:
            head = stream.read(len(_HDF5_SIGNATURE))
    except OSError as error:
        raise CheckpointFormatError(f"cannot read the checkpoint {path}: {error.strerror}") from error
    if not head:
        raise CheckpointFormatError(f"{path} is empty: copy or download it again")
    if head != _HDF5_SIGNATURE:
        raise CheckpointFormatError(f"{path} is not an HDF5 file: expected a matterport .h5 or a .weights.h5")
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise CheckpointFormatError(f"{path} is truncated or damaged: copy or download it again") from error
    with file:
        try:
            yield file
        except CheckpointFormatError:
            raise
        except _DAMAGE as error:
            raise CheckpointFormatError(f"{path} is truncated or damaged: {error}".split("\n")[0]) from error


def _split(group_name: str, weight_name: str) -> tuple[str, str]:
    """Return layer and variable of a weight; of a wrapper, its own name and not that of the wrapped layer."""
    parts = weight_name.split("/")
    layer = parts[-2] if group_name == RPN_GROUP and len(parts) > 1 else group_name
    return layer, parts[-1].split(":")[0]


def _read_dataset(path: Path, group: h5py.Group, name: str) -> NDArray[np.float32]:
    node: Any = group
    for part in name.split("/"):
        node = node.get(part) if isinstance(node, h5py.Group) else None
    if not isinstance(node, h5py.Dataset):
        raise CheckpointFormatError(f"{path} has no array {group.name}/{name}: copy or download it again")
    if node.dtype.kind != "f" or node.nbytes > path.stat().st_size:
        raise CheckpointFormatError(
            f"{path} declares {group.name}/{name} as {node.dtype} {node.shape}: "
            "expected floating-point numbers, not more than fit into the file"
        )
    return np.asarray(node[()], np.float32)


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
