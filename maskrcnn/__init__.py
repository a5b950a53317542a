"""Mask R-CNN in TensorFlow and Keras 3: the trainable model, its configuration and its checkpoints."""

from maskrcnn.checkpoint import load_checkpoint, save_checkpoint, save_matterport
from maskrcnn.config import Config, DetectionConfig, ModelConfig, ProposalConfig, TrainingConfig, read_config
from maskrcnn.demo import demo_model, demo_picture
from maskrcnn.errors import (
    CheckpointError,
    CheckpointFormatError,
    CheckpointMismatchError,
    CheckpointNotFoundError,
    ConfigError,
    MaskRCNNError,
)
from maskrcnn.model import MaskRCNN
from maskrcnn.samples import find_config, sample_config
from maskrcnn.weights import LoadReport
from runtime.letterbox import ResizePolicy

__all__ = [
    "CheckpointError",
    "CheckpointFormatError",
    "CheckpointMismatchError",
    "CheckpointNotFoundError",
    "Config",
    "ConfigError",
    "DetectionConfig",
    "LoadReport",
    "MaskRCNN",
    "MaskRCNNError",
    "ModelConfig",
    "ProposalConfig",
    "ResizePolicy",
    "TrainingConfig",
    "demo_model",
    "demo_picture",
    "find_config",
    "load_checkpoint",
    "read_config",
    "sample_config",
    "save_checkpoint",
    "save_matterport",
]
