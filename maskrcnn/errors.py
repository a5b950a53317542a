"""Every error the trainable side raises on purpose.

    MaskRCNNError
    ├── ConfigError (ValueError)          a setting of the wrong type, out of range, or unknown
    ├── CheckpointError (ValueError)      a weight file cannot be used
    │   ├── CheckpointNotFoundError (FileNotFoundError)
    │   ├── CheckpointFormatError         empty, truncated, not HDF5, or not a layout we read
    │   └── CheckpointMismatchError       its layers or shapes are those of another model
    ├── DatasetError (ValueError)         annotations cannot be used
    │   ├── DatasetNotFoundError (FileNotFoundError)
    │   └── DatasetFormatError            not a layout we read, or damaged
    └── TrainingError (RuntimeError)      a run cannot start, go on, or be resumed
        └── NonFiniteLossError (ArithmeticError)   the loss became NaN or infinite

Each message is one printable line: what was wrong, where, what was expected, what to do.
"""

from runtime.errors import ToolkitError


class MaskRCNNError(ToolkitError):
    """Base of all errors raised by `maskrcnn`; catch it to catch them all."""


class ConfigError(MaskRCNNError, ValueError):
    """A setting has the wrong type, is out of range, or is unknown."""


class CheckpointError(MaskRCNNError, ValueError):
    """A weight file cannot be used."""


class CheckpointNotFoundError(CheckpointError, FileNotFoundError):
    """There is no checkpoint at the given path."""


class CheckpointFormatError(CheckpointError):
    """The file is empty, truncated, not HDF5, or not in a layout we read."""


class CheckpointMismatchError(CheckpointError):
    """The file's layers or shapes are those of another model."""


class DatasetError(MaskRCNNError, ValueError):
    """Annotations cannot be used."""


class DatasetNotFoundError(DatasetError, FileNotFoundError):
    """There is no dataset, or no picture of it, at the given path."""


class DatasetFormatError(DatasetError):
    """The annotations are in no layout we read, or are damaged."""


class TrainingError(MaskRCNNError, RuntimeError):
    """A run cannot start, go on, or be resumed."""


class NonFiniteLossError(TrainingError, ArithmeticError):
    """The loss became NaN or infinite; the message names the pictures of the batch."""
