"""Every error the trainable side raises on purpose.

    MaskRCNNError
    ├── ConfigError (ValueError)          a setting of the wrong type, out of range, or unknown
    └── CheckpointError (ValueError)      a weight file cannot be used
        ├── CheckpointNotFoundError (FileNotFoundError)
        ├── CheckpointFormatError         empty, truncated, not HDF5, or not a layout we read
        └── CheckpointMismatchError       its layers or shapes are those of another model

Each message is one line: what was wrong, where, what was expected, what to do.
"""


class MaskRCNNError(Exception):
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
