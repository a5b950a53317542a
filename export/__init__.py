"""Export a Mask R-CNN to a verified artifact.

Names are loaded when they are used, so that `maskrcnn-export --help` does not wait for TensorFlow.
"""

from typing import TYPE_CHECKING, Any

from export.errors import ConversionError, ExportError, ParityError, PrecisionError

if TYPE_CHECKING:
    from export.api import (
        LowerPrecision,
        Target,
        export_lower_precision,
        export_onnx,
        export_savedmodel,
        verify_artifact,
    )

__all__ = [
    "ConversionError",
    "ExportError",
    "LowerPrecision",
    "ParityError",
    "PrecisionError",
    "Target",
    "export_lower_precision",
    "export_onnx",
    "export_savedmodel",
    "verify_artifact",
]


def __getattr__(name: str) -> Any:
    if name in __all__:  # the errors are here already
        from export import api  # noqa: PLC0415

        return getattr(api, name)
    raise AttributeError(f"module 'export' has no attribute {name!r}")
