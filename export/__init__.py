"""Export a Mask R-CNN to a verified artifact.

Names are loaded when they are used, so that `maskrcnn-export --help` does not wait for TensorFlow.
"""

from typing import TYPE_CHECKING, Any

from export.errors import ConversionError, ExportError, ParityError, PrecisionError

if TYPE_CHECKING:
    from export.api import Calibration, export_int8, export_onnx, export_savedmodel, verify_artifact

__all__ = [
    "Calibration",
    "ConversionError",
    "ExportError",
    "ParityError",
    "PrecisionError",
    "export_int8",
    "export_onnx",
    "export_savedmodel",
    "verify_artifact",
]


def __getattr__(name: str) -> Any:
    if name in ("Calibration", "export_int8", "export_onnx", "export_savedmodel", "verify_artifact"):
        from export import api  # noqa: PLC0415

        return getattr(api, name)
    raise AttributeError(f"module 'export' has no attribute {name!r}")
