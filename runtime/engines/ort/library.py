"""ONNX Runtime, or an error that says what to install: the only file that imports it."""

from runtime.errors import MissingPackageError

try:
    import onnxruntime as ort
except ImportError as error:
    raise MissingPackageError("onnxruntime", "onnx", "running an ONNX artifact") from error

__all__ = ["CPU", "CUDA", "TENSORRT", "ort"]

CPU, CUDA, TENSORRT = (f"{name}ExecutionProvider" for name in ("CPU", "CUDA", "Tensorrt"))
