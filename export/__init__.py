"""Export a Mask R-CNN to a verified artifact.

Names are loaded on first use, so that `maskrcnn-export --help` does not wait for TensorFlow.
"""

from typing import TYPE_CHECKING

from runtime.lazy_names import lazy_names

if TYPE_CHECKING:
    from export.edit import edit_artifact as edit_artifact
    from export.errors import (
        ConversionError as ConversionError,
        EditError as EditError,
        ExportError as ExportError,
        LayoutError as LayoutError,
        ParityError as ParityError,
        PrecisionError as PrecisionError,
        SourceError as SourceError,
    )
    from export.precision.lower import (
        LowerPrecision as LowerPrecision,
        export_lower_precision as export_lower_precision,
    )
    from export.precision.run_time import verify_precision as verify_precision
    from export.reverify import verify_artifact as verify_artifact
    from export.serving.tfserving import write_tfserving_model as write_tfserving_model
    from export.serving.triton import (
        TritonOptions as TritonOptions,
        write_triton_repository as write_triton_repository,
    )
    from export.target import Target as Target
    from export.to_onnx import export_onnx as export_onnx
    from export.to_savedmodel import export_savedmodel as export_savedmodel

__all__, __dir__, __getattr__ = lazy_names(
    __name__,
    {
        "export.edit": "edit_artifact",
        "export.errors": "ConversionError EditError ExportError LayoutError ParityError PrecisionError SourceError",
        "export.precision.lower": "LowerPrecision export_lower_precision",
        "export.precision.run_time": "verify_precision",
        "export.reverify": "verify_artifact",
        "export.serving.tfserving": "write_tfserving_model",
        "export.serving.triton": "TritonOptions write_triton_repository",
        "export.target": "Target",
        "export.to_onnx": "export_onnx",
        "export.to_savedmodel": "export_savedmodel",
    },
)
