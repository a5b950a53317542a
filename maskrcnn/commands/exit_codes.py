"""Exit codes of expected errors, the same for all commands."""

from maskrcnn.errors import ArgumentError, ClusterError, NonFiniteLossError, WorkerLostError
from runtime.errors import DeviceError, ImageError, MissingPackageError, OutputError, ToolkitError

# The first match counts.
_CODES: tuple[tuple[type[Exception], int], ...] = (
    (NonFiniteLossError, 1),
    (WorkerLostError, 7),
    (ArgumentError, 2),
    (MissingPackageError, 3),
    (DeviceError, 3),
    (ClusterError, 3),
    (ImageError, 5),
    (OutputError, 6),
    (ToolkitError, 4),
)


def exit_code(error: Exception) -> int | None:
    """Return the exit code of an error; None for an unexpected one, which keeps its traceback."""
    return next((code for kind, code in _CODES if isinstance(error, kind)), None)
