"""Mask R-CNN in TensorFlow and Keras 3: the trainable model, its data, training, evaluation and checkpoints.

Names are loaded when they are used, so that `maskrcnn --help` does not wait for TensorFlow.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from maskrcnn.errors import (
    CheckpointError,
    CheckpointFormatError,
    CheckpointMismatchError,
    CheckpointNotFoundError,
    ConfigError,
    DatasetError,
    DatasetFormatError,
    DatasetNotFoundError,
    MaskRCNNError,
    NonFiniteLossError,
    TrainingError,
)

if TYPE_CHECKING:
    from maskrcnn.checkpoint_predictor import CheckpointPredictor
    from maskrcnn.checkpoints.checkpoint import load_checkpoint, save_checkpoint, save_matterport
    from maskrcnn.checkpoints.named_weights import LoadReport
    from maskrcnn.configuration.model import Config, DetectionConfig, ModelConfig, ProposalConfig, read_config
    from maskrcnn.configuration.samples import find_config, sample_config
    from maskrcnn.configuration.training import AugmentationConfig, StageConfig, TrainingConfig
    from maskrcnn.data.from_python import from_python
    from maskrcnn.data.python_dataset import PythonDataset
    from maskrcnn.data.readers.check import check_dataset
    from maskrcnn.data.readers.open import open_dataset, open_datasets
    from maskrcnn.data.records import Dataset, Instance, Record, combine
    from maskrcnn.data.synthetic.shapes import shapes_dataset
    from maskrcnn.demo import demo_model, demo_picture
    from maskrcnn.evaluation.evaluate import Evaluation, evaluate
    from maskrcnn.model import MaskRCNN
    from maskrcnn.training.options import TrainOptions
    from maskrcnn.training.train import TrainingResult, train
    from runtime.pictures.letterbox import ResizePolicy

_HOMES = {
    "maskrcnn.checkpoints.checkpoint": ("load_checkpoint", "save_checkpoint", "save_matterport"),
    "maskrcnn.configuration.model": ("Config", "DetectionConfig", "ModelConfig", "ProposalConfig", "read_config"),
    "maskrcnn.data.readers.check": ("check_dataset",),
    "maskrcnn.data.from_python": ("from_python",),
    "maskrcnn.data.readers.open": ("open_dataset", "open_datasets"),
    "maskrcnn.data.python_dataset": ("PythonDataset",),
    "maskrcnn.data.records": ("Dataset", "Instance", "Record", "combine"),
    "maskrcnn.data.synthetic.shapes": ("shapes_dataset",),
    "maskrcnn.demo": ("demo_model", "demo_picture"),
    "maskrcnn.evaluation.evaluate": ("Evaluation", "evaluate"),
    "maskrcnn.checkpoint_predictor": ("CheckpointPredictor",),
    "maskrcnn.model": ("MaskRCNN",),
    "maskrcnn.configuration.samples": ("find_config", "sample_config"),
    "maskrcnn.training.options": ("TrainOptions",),
    "maskrcnn.training.train": ("TrainingResult", "train"),
    "maskrcnn.configuration.training": ("AugmentationConfig", "StageConfig", "TrainingConfig"),
    "maskrcnn.checkpoints.named_weights": ("LoadReport",),
    "runtime.pictures.letterbox": ("ResizePolicy",),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "AugmentationConfig",
    "CheckpointError",
    "CheckpointFormatError",
    "CheckpointMismatchError",
    "CheckpointNotFoundError",
    "CheckpointPredictor",
    "Config",
    "ConfigError",
    "Dataset",
    "DatasetError",
    "DatasetFormatError",
    "DatasetNotFoundError",
    "DetectionConfig",
    "Evaluation",
    "Instance",
    "LoadReport",
    "MaskRCNN",
    "MaskRCNNError",
    "ModelConfig",
    "NonFiniteLossError",
    "ProposalConfig",
    "PythonDataset",
    "Record",
    "ResizePolicy",
    "StageConfig",
    "TrainOptions",
    "TrainingConfig",
    "TrainingError",
    "TrainingResult",
    "check_dataset",
    "combine",
    "demo_model",
    "demo_picture",
    "evaluate",
    "find_config",
    "from_python",
    "load_checkpoint",
    "open_dataset",
    "open_datasets",
    "read_config",
    "sample_config",
    "save_checkpoint",
    "save_matterport",
    "shapes_dataset",
    "train",
]


def __getattr__(name: str) -> Any:
    if name in _HOME_OF:
        return getattr(import_module(_HOME_OF[name]), name)
    raise AttributeError(f"module 'maskrcnn' has no attribute {name!r}")
