"""The exporter's functions, together; importing them imports TensorFlow."""

from export.precision.lower import LowerPrecision, export_lower_precision
from export.reverify import verify_artifact
from export.target import Target
from export.to_onnx import export_onnx
from export.to_savedmodel import export_savedmodel

__all__ = [
    "LowerPrecision",
    "Target",
    "export_lower_precision",
    "export_onnx",
    "export_savedmodel",
    "verify_artifact",
]
