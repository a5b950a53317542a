"""Checkpoints: weights and configuration in one `.weights.h5`, and matterport's `.h5`.

Our file is matterport's layout with two root attributes more: the configuration as JSON, and a SHA-256 of
configuration and weights, because HDF5 itself would load a flipped byte without a word.
"""

from pathlib import Path

import keras

from maskrcnn.checkpoints.matterport_h5 import read_arrays, write_arrays
from maskrcnn.checkpoints.named_weights import LoadReport, get_arrays, set_arrays
from maskrcnn.configuration.model import Config
from maskrcnn.errors import CheckpointMismatchError
from maskrcnn.model import MaskRCNN

_CONFIG = "maskrcnn_config"


def save_checkpoint(model: MaskRCNN, path: str | Path, overwrite: bool = False) -> None:
    """Write weights and configuration to one file, atomically.

    Raises:
        OutputError: The file exists, or cannot be written.
    """
    write_arrays(path, get_arrays(model), {_CONFIG: model.config.to_json()}, overwrite)


def save_matterport(model: MaskRCNN, path: str | Path, overwrite: bool = False) -> None:
    """Write weights alone, as matterport's `keras_model.save_weights` does.

    Raises:
        OutputError: The file exists, or cannot be written.
    """
    write_arrays(path, get_arrays(model), None, overwrite)


def load_checkpoint(
    path: str | Path,
    config: Config | None = None,
    exclude_heads: bool = False,
    backbone: keras.Model | None = None,
) -> tuple[MaskRCNN, LoadReport]:
    """Build a model and fill it from a file.

    Args:
        path: Our `.weights.h5` or a matterport `.h5`.
        config: What to build. May be left out for our own files, which carry theirs.
        exclude_heads: Leave the layers that depend on the number of classes as initialised.
        backbone: For a configuration with backbone "custom".

    Returns:
        The model, and what was loaded.

    Raises:
        CheckpointError: The file cannot be read, or does not fit the configuration.
        ConfigError: The configuration (given or stored) cannot be built.
    """
    arrays, attributes = read_arrays(path)
    if config is None:
        if _CONFIG not in attributes:
            raise CheckpointMismatchError(
                f"{path} does not say what it is a checkpoint of: describe it with --config FILE.json "
                "(config=...), ours or matterport's field names"
            )
        config = Config.from_json(attributes[_CONFIG])
    model = MaskRCNN(config, backbone)
    return model, set_arrays(model, arrays, str(path), exclude_heads)
