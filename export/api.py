"""The exporter's functions, together; importing them imports TensorFlow."""

from export.reverify import verify_artifact
from export.to_int8 import Calibration, export_int8
from export.to_onnx import export_onnx
from export.to_savedmodel import export_savedmodel

__all__ = ["Calibration", "export_int8", "export_onnx", "export_savedmodel", "verify_artifact"]
