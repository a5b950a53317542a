"""Mask R-CNN in TensorFlow and Keras 3: the trainable model, its data, training, evaluation and checkpoints.

Names are loaded when they are used, so that `maskrcnn --help` does not wait for TensorFlow.
"""

from typing import TYPE_CHECKING

from runtime.lazy_names import lazy_names

if TYPE_CHECKING:
    from maskrcnn.checkpoint_predictor import CheckpointPredictor as CheckpointPredictor
    from maskrcnn.checkpoints.checkpoint import (
        load_checkpoint as load_checkpoint,
        save_checkpoint as save_checkpoint,
        save_matterport as save_matterport,
    )
    from maskrcnn.checkpoints.families.choices import Choices as Choices
    from maskrcnn.checkpoints.named_weights import LoadReport as LoadReport
    from maskrcnn.checkpoints.open_weights import Weights as Weights, open_weights as open_weights
    from maskrcnn.configuration.files import read_config as read_config
    from maskrcnn.configuration.model import (
        Config as Config,
        DetectionConfig as DetectionConfig,
        ModelConfig as ModelConfig,
        ProposalConfig as ProposalConfig,
    )
    from maskrcnn.configuration.samples import find_config as find_config, sample_config as sample_config
    from maskrcnn.configuration.training import (
        AugmentationConfig as AugmentationConfig,
        StageConfig as StageConfig,
        TrainingConfig as TrainingConfig,
    )
    from maskrcnn.data.from_python import from_python as from_python
    from maskrcnn.data.python_dataset import PythonDataset as PythonDataset
    from maskrcnn.data.readers.check import check_dataset as check_dataset
    from maskrcnn.data.readers.open import open_dataset as open_dataset, open_datasets as open_datasets
    from maskrcnn.data.readers.options import ReadOptions as ReadOptions
    from maskrcnn.data.records import Dataset as Dataset, Instance as Instance, Record as Record, combine as combine
    from maskrcnn.data.synthetic.shapes import shapes_dataset as shapes_dataset
    from maskrcnn.demo import demo_model as demo_model, demo_picture as demo_picture
    from maskrcnn.errors import (
        ArgumentError as ArgumentError,
        CheckpointError as CheckpointError,
        CheckpointFormatError as CheckpointFormatError,
        CheckpointMismatchError as CheckpointMismatchError,
        CheckpointNotFoundError as CheckpointNotFoundError,
        ClusterError as ClusterError,
        ConfigError as ConfigError,
        DatasetError as DatasetError,
        DatasetFormatError as DatasetFormatError,
        DatasetNotFoundError as DatasetNotFoundError,
        DownloadError as DownloadError,
        MaskRCNNError as MaskRCNNError,
        NonFiniteLossError as NonFiniteLossError,
        TrainingError as TrainingError,
        WorkerLostError as WorkerLostError,
    )
    from maskrcnn.evaluation.evaluate import Evaluation as Evaluation, evaluate as evaluate
    from maskrcnn.model import MaskRCNN as MaskRCNN
    from maskrcnn.training.options import TrainOptions as TrainOptions
    from maskrcnn.training.train import TrainingResult as TrainingResult, train as train
    from runtime.pictures.letterbox import ResizePolicy as ResizePolicy

__all__, __dir__, __getattr__ = lazy_names(
    __name__,
    {
        "maskrcnn.errors": "ArgumentError CheckpointError CheckpointFormatError CheckpointMismatchError "
        "CheckpointNotFoundError ClusterError ConfigError DatasetError DatasetFormatError DatasetNotFoundError "
        "DownloadError MaskRCNNError NonFiniteLossError TrainingError WorkerLostError",
        "maskrcnn.checkpoint_predictor": "CheckpointPredictor",
        "maskrcnn.checkpoints.checkpoint": "load_checkpoint save_checkpoint save_matterport",
        "maskrcnn.checkpoints.families.choices": "Choices",
        "maskrcnn.checkpoints.named_weights": "LoadReport",
        "maskrcnn.checkpoints.open_weights": "Weights open_weights",
        "maskrcnn.configuration.files": "read_config",
        "maskrcnn.configuration.model": "Config DetectionConfig ModelConfig ProposalConfig",
        "maskrcnn.configuration.samples": "find_config sample_config",
        "maskrcnn.configuration.training": "AugmentationConfig StageConfig TrainingConfig",
        "maskrcnn.data.from_python": "from_python",
        "maskrcnn.data.python_dataset": "PythonDataset",
        "maskrcnn.data.readers.check": "check_dataset",
        "maskrcnn.data.readers.open": "open_dataset open_datasets",
        "maskrcnn.data.readers.options": "ReadOptions",
        "maskrcnn.data.records": "Dataset Instance Record combine",
        "maskrcnn.data.synthetic.shapes": "shapes_dataset",
        "maskrcnn.demo": "demo_model demo_picture",
        "maskrcnn.evaluation.evaluate": "Evaluation evaluate",
        "maskrcnn.model": "MaskRCNN",
        "maskrcnn.training.options": "TrainOptions",
        "maskrcnn.training.train": "TrainingResult train",
        "runtime.pictures.letterbox": "ResizePolicy",
    },
)
