"""Saving and loading checkpoints: our `.weights.h5` with weights and configuration, and matterport's `.h5`.

Our files use matterport's layout plus two root attributes: the configuration as JSON, and a SHA-256 digest of
configuration and weights, because HDF5 does not notice corrupted bytes.
"""

from pathlib import Path

import keras

from maskrcnn.checkpoints.architecture import CONFIG, config_of
from maskrcnn.checkpoints.matterport_h5 import read_arrays, write_arrays
from maskrcnn.checkpoints.named_weights import LoadReport, get_arrays, set_arrays
from maskrcnn.configuration.model import Config
from maskrcnn.model import MaskRCNN


def save_checkpoint(model: MaskRCNN, path: str | Path, overwrite: bool = False) -> None:
    """Write weights and configuration to one file, atomically.

    Raises:
        OutputError: The file exists and `overwrite` is False, or it cannot be written.
    """
    write_arrays(path, get_arrays(model), {CONFIG: model.config.to_json()}, overwrite)


def save_matterport(model: MaskRCNN, path: str | Path, overwrite: bool = False) -> None:
    """Write only the weights, atomically, in the format of matterport's `keras_model.save_weights`.

    Raises:
        OutputError: The file exists and `overwrite` is False, or it cannot be written.
    """
    write_arrays(path, get_arrays(model), None, overwrite)


def load_checkpoint(
    path: str | Path,
    config: Config | None = None,
    exclude_heads: bool = False,
    backbone: keras.Model | None = None,
) -> tuple[MaskRCNN, LoadReport]:
    """Build a model and load its weights.

    Args:
        path: Our `.weights.h5` or a matterport `.h5`.
        config: Configuration of the model. Not needed for our own files, which store it.
        exclude_heads: Skip the layers that depend on the number of classes; they keep their initial weights.
        backbone: The backbone, if the configuration says "custom".

    Returns:
        The model, and a report of what was loaded.

    Raises:
        CheckpointError: The file cannot be read, or does not fit the configuration.
        ConfigError: No model can be built from the configuration (given or stored).
    """
    arrays, _ = read_arrays(path)
    if config is None:
        config = config_of(path)
    model = MaskRCNN(config, backbone)
    return model, set_arrays(model, arrays, str(path), exclude_heads)
