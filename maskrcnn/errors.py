"""All errors that `maskrcnn` raises deliberately.

    MaskRCNNError
    ├── ConfigError (ValueError)          a setting of the wrong type, out of range, or unknown
    │   └── ArgumentError                 the same of an argument of a command, which is wrong usage
    ├── CheckpointError (ValueError)      a weights file cannot be used
    │   ├── CheckpointNotFoundError (FileNotFoundError)
    │   ├── CheckpointFormatError         empty, truncated, not HDF5, or an unknown layout
    │   ├── CheckpointMismatchError       layers or shapes of another model
    │   └── DownloadError                 pretrained weights cannot be fetched, or are another file
    ├── DatasetError (ValueError)         annotations cannot be used
    │   ├── DatasetNotFoundError (FileNotFoundError)
    │   └── DatasetFormatError            an unknown format, or damaged
    ├── ClusterError (RuntimeError)       a cluster cannot be reached, is too small, or failed
    └── TrainingError (RuntimeError)      a run cannot start, continue, or be resumed
        ├── NonFiniteLossError (ArithmeticError)   the loss became NaN or infinite
        └── WorkerLostError (ConnectionError)      another machine of the run does not answer any more

Each message is one printable line: what is wrong, where, what was expected, and what to do.
"""

from runtime.errors import ToolkitError


class MaskRCNNError(ToolkitError):
    """Base class of all errors that `maskrcnn` raises."""


class ConfigError(MaskRCNNError, ValueError):
    """A setting has the wrong type, is out of range, or is unknown."""


class ArgumentError(ConfigError):
    """An argument of a command has the wrong type, is out of range, or names something that does not exist."""


class CheckpointError(MaskRCNNError, ValueError):
    """A weights file cannot be used."""


class CheckpointNotFoundError(CheckpointError, FileNotFoundError):
    """There is no checkpoint at the given path."""


class CheckpointFormatError(CheckpointError):
    """The file is empty, truncated, not HDF5, or has an unknown layout."""


class CheckpointMismatchError(CheckpointError):
    """The file has the layers or shapes of another model."""


class DownloadError(CheckpointError):
    """Pretrained weights cannot be fetched, or the file that arrived or lies in the cache is another one."""


class DatasetError(MaskRCNNError, ValueError):
    """Annotations cannot be used."""


class DatasetNotFoundError(DatasetError, FileNotFoundError):
    """There is no dataset at the given path, or its images are missing."""


class DatasetFormatError(DatasetError):
    """The annotations are damaged or have an unknown format."""


class ClusterError(MaskRCNNError, RuntimeError):
    """A cluster of machines cannot be reached, is too small for a run, or failed; the run can be resumed."""


class TrainingError(MaskRCNNError, RuntimeError):
    """A run cannot start, continue, or be resumed."""


class NonFiniteLossError(TrainingError, ArithmeticError):
    """The loss became NaN or infinite; the message names the images of the batch."""


class WorkerLostError(TrainingError, ConnectionError):
    """Another machine that trains in the same run ended or cannot be reached; the run can be resumed."""
