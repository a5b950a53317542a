"""OpenVINO without its telemetry, or an error that says what to install: the only file that imports it."""

import sys
from functools import cache
from typing import Any

from runtime.engines.forked import keep_in_children
from runtime.errors import MissingPackageError

_TELEMETRY = "openvino_telemetry"
_needs_stub = "openvino" not in sys.modules and _TELEMETRY not in sys.modules
if _needs_stub:
    # Importing openvino sends an event to an analytics service and writes an id into the home folder, unless this
    # package is missing; then OpenVINO uses its own stub of it.
    sys.modules[_TELEMETRY] = None  # type: ignore[assignment]
try:
    import openvino
except ImportError as error:
    raise MissingPackageError("openvino", "openvino", "device 'openvino'") from error
finally:
    if _needs_stub:
        del sys.modules[_TELEMETRY]

__all__ = ["MINIMUM", "VERSION", "core", "openvino"]

MINIMUM = "2026.0"  # as in pyproject.toml
VERSION = openvino.__version__.partition("-")[0]  # without build and branch


@cache
def core() -> Any:
    """Return the object that reads and compiles graphs, one for this process."""
    made = openvino.Core()
    keep_in_children(made)
    return made
