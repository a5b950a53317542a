"""The only place that chooses between the engines."""

import re
from pathlib import Path

from runtime.artifact import Metadata
from runtime.engines.forked import refuse_tensorflow
from runtime.engines.options import EngineOptions
from runtime.engines.protocol import Backend
from runtime.errors import DeviceError


def parse_device(device: str) -> tuple[str, int]:
    """Split "auto", "cpu", "cuda", "cuda:N", "tensorrt" or "tensorrt:N" into kind and index.

    Raises:
        DeviceError: Anything else.
    """
    match = re.fullmatch("(auto|cpu|cuda|tensorrt)|(cuda|tensorrt):([0-9]{1,4})", str(device))
    if match is None:
        expected = "'auto', 'cpu', 'cuda', 'cuda:N', 'tensorrt' or 'tensorrt:N'"
        raise DeviceError(f"unknown device {device!r}: expected {expected}")
    return match[1] or match[2], int(match[3] or 0)


def open_backend(
    path: Path, metadata: Metadata, device: str, options: EngineOptions | None = None, *, verified: bool = True
) -> Backend:
    """Load an artifact into its engine.

    Args:
        path: The artifact.
        metadata: Of the artifact.
        device: As for `Predictor`.
        options: Of the engine; None: the defaults.
        verified: Whether the artifact's bytes are known to have the digest they record.

    Raises:
        DeviceError: The device does not exist, cannot be used, or cannot do what the options ask.
        MissingPackageError: The engine is not installed.
        ArtifactError: The engine is too old, or refuses the file.
        EngineError: The engine cannot be used in this process, because it was forked.
        OutputError: The cache cannot be written.
    """
    kind, index = parse_device(device)
    options = options or EngineOptions()
    if metadata.format == "onnx":
        from runtime.engines.fixed_batch import FixedBatch  # noqa: PLC0415
        from runtime.engines.ort.backend import OrtBackend  # noqa: PLC0415  (only the engine that is used is imported)

        backend = OrtBackend(path, metadata, kind, index, options, verified=verified)
        batch = metadata.input_shape[0]
        return backend if batch is None else FixedBatch(backend, batch)
    refuse_tensorflow(path)
    from runtime.engines.saved_model import SavedModelBackend  # noqa: PLC0415

    return SavedModelBackend(path, kind, index, options, metadata.engine_minimum.get("tensorflow"))
