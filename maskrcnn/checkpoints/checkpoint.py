"""Saving checkpoints, ours and matterport's, and loading those and PyTorch's into a model.

Our files use matterport's layout plus two root attributes: the configuration as JSON, and a SHA-256 digest of
configuration and weights, because HDF5 does not notice corrupted bytes.
"""

from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

import keras

from maskrcnn.checkpoints.architecture import CONFIG
from maskrcnn.checkpoints.families.choices import Choices
from maskrcnn.checkpoints.families.detectron2 import table as detectron2_table
from maskrcnn.checkpoints.families.family_file import FamilyFile
from maskrcnn.checkpoints.families.mapping import load_state
from maskrcnn.checkpoints.families.mmdetection import table as mmdetection_table
from maskrcnn.checkpoints.families.recognize import Family
from maskrcnn.checkpoints.families.torchvision import table as torchvision_table
from maskrcnn.checkpoints.matterport_h5 import read_arrays, write_arrays
from maskrcnn.checkpoints.named_weights import LoadReport, get_arrays, set_arrays
from maskrcnn.checkpoints.open_weights import Weights, open_weights
from maskrcnn.configuration.model import Config
from maskrcnn.model import MaskRCNN

_TABLES = {"torchvision": torchvision_table, "detectron2": detectron2_table, "mmdetection": mmdetection_table}


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
    config: Config | str | Path | None = None,
    exclude_heads: bool = False,
    backbone: keras.Model | None = None,
    *,
    family: Family | None = None,
    classes: str | Sequence[str] | None = None,
    settings: Sequence[str] = (),
) -> tuple[MaskRCNN, LoadReport]:
    """Build a model and load its weights.

    Args:
        path: Our `.weights.h5`, a matterport `.h5`, a PyTorch checkpoint of torchvision, Detectron2 or MMDetection, or
            the name of pretrained weights, such as "coco", which are fetched unless they are in the cache.
        config: Configuration of the model, its file, or the name of a sample. Our own files store it, and a PyTorch
            checkpoint has the preset of its family; for it, this may also be a YAML of Detectron2 or a Python file of
            MMDetection.
        exclude_heads: Skip the layers that depend on the number of classes; they keep their initial weights.
        backbone: The backbone, if the configuration says "custom".
        family: Whose PyTorch checkpoint it is; None: recognized.
        classes: Class names of a PyTorch checkpoint, without the background: the names, names with commas between
            them, a file with a name per line, or "coco".
        settings: "NAME=VALUE", such as "detection.min_score=0.2", which override the rest.

    Returns:
        The model, and a report of what was loaded and, of a PyTorch checkpoint, where each setting came from.

    Raises:
        CheckpointError: The file cannot be read, is for a network that is not supported, or does not fit the
            configuration.
        ConfigError: No model can be built from the configuration (given or stored).
    """
    return load_weights(open_weights(path, Choices(config, family, classes, tuple(settings))), exclude_heads, backbone)


def load_weights(
    opened: Weights, exclude_heads: bool = False, backbone: keras.Model | None = None
) -> tuple[MaskRCNN, LoadReport]:
    """Build the model of an opened checkpoint and load its weights; see `load_checkpoint`."""
    if opened.family is None:
        arrays, _ = read_arrays(opened.path)
        model = MaskRCNN(opened.config, backbone)
        return model, set_arrays(model, arrays, str(opened.path), exclude_heads)
    model = MaskRCNN(opened.config, backbone)
    return model, replace(load_family(model, opened.family, exclude_heads), origins=opened.report)


def load_family(
    model: MaskRCNN, file: FamilyFile, exclude_heads: bool = False, exclude: Collection[str] = ()
) -> LoadReport:
    """Load the weights of a PyTorch checkpoint into a model of any configuration that they fit.

    Layers in `exclude`, which the family does not have, keep their weights.

    Raises:
        CheckpointMismatchError: An array is missing, unexpected, of another shape, or not finite.
    """
    table = _TABLES[file.found.family](model.config.model, file.bgr)
    return load_state(model, file.tensors, table, str(file.path), exclude_heads, exclude)
