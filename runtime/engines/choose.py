"""The choice of the engine."""

import re
from pathlib import Path

from runtime.artifact import Metadata
from runtime.engines.constant_thresholds import ConstantThresholds
from runtime.engines.fixed_batch import FixedBatch
from runtime.engines.forked import refuse_tensorflow
from runtime.engines.options import EngineOptions
from runtime.engines.protocol import Backend
from runtime.errors import DeviceError


def parse_device(device: str) -> tuple[str, int]:
    """Split "auto", "cpu", "cuda", "cuda:N", "tensorrt" or "tensorrt:N" into kind and index; refuse anything else."""
    match = re.fullmatch("(auto|cpu|cuda|tensorrt)|(cuda|tensorrt):([0-9]{1,4})", str(device))
    if match is None:
        expected = "'auto', 'cpu', 'cuda', 'cuda:N', 'tensorrt' or 'tensorrt:N'"
        raise DeviceError(f"unknown device {device!r}: expected {expected}")
    return match[1] or match[2], int(match[3] or 0)


def open_backend(
    path: Path, metadata: Metadata, device: str, options: EngineOptions | None = None, *, verified: bool = True
) -> Backend:
    """Load an artifact into its engine; errors are those of `Predictor`.

    Args:
        path: The artifact.
        metadata: Its metadata.
        device: As for `Predictor`.
        options: None for the defaults.
        verified: Whether the artifact's bytes are known to match the recorded digest.
    """
    kind, index = parse_device(device)
    options = options or EngineOptions()
    if metadata.format == "onnx":
        from runtime.engines.ort.backend import OrtBackend  # noqa: PLC0415  (only the engine in use is imported)

        backend: Backend = OrtBackend(path, metadata, kind, index, options, verified=verified)
    else:
        refuse_tensorflow(path)
        from runtime.engines.saved_model import SavedModelBackend  # noqa: PLC0415

        backend = SavedModelBackend(path, metadata, kind, index, options)
    batch = metadata.input_shape[0]
    backend = backend if batch is None else FixedBatch(backend, batch)
    return ConstantThresholds(backend, metadata) if metadata.thresholds == "constants" else backend
