"""The choice of the engine."""

import re
from pathlib import Path

from runtime.artifact import Metadata
from runtime.engines.constant_thresholds import ConstantThresholds
from runtime.engines.fixed_batch import FixedBatch
from runtime.engines.forked import refuse_lost
from runtime.engines.options import EngineOptions
from runtime.engines.protocol import Backend
from runtime.errors import DeviceError


def parse_device(device: str) -> tuple[str, int]:
    """Split "auto", "cpu", "cuda", "cuda:N", "tensorrt" or "tensorrt:N" into kind and index; refuse anything else."""
    match = re.fullmatch("(auto|cpu|cuda|tensorrt)|(cuda|tensorrt):([0-9]{1,4})", str(device))
    if match is None:
        expected = (
            "'auto', 'cpu', 'cuda', 'cuda:N', 'tensorrt', 'tensorrt:N', 'openvino', 'openvino:GPU' or 'openvino:NPU'"
        )
        raise DeviceError(f"unknown device {device!r}: expected {expected}")
    return match[1] or match[2], int(match[3] or 0)


def openvino_device(device: str) -> str | None:
    """Return OpenVINO's name of "openvino", "openvino:GPU", "openvino:NPU" or, with several, "openvino:GPU.1".

    None for all other devices.
    """
    match = re.fullmatch("openvino(?::(CPU|(?:GPU|NPU)(?:[.][0-9]{1,4})?))?", str(device))
    return match and (match[1] or "CPU")


def check_device(metadata: Metadata, device: str, options: EngineOptions) -> None:
    """Raise DeviceError unless the device runs artifacts of this format, and computes them in `options.precision`."""
    kind = "openvino" if openvino_device(device) else parse_device(device)[0]
    if metadata.format == "savedmodel" and kind in ("tensorrt", "openvino"):
        raise DeviceError(f"device {kind!r} runs ONNX artifacts only: export the model with 'maskrcnn export onnx'")
    if options.precision is None:
        return
    if openvino_device(device) != "CPU":
        options.refuse(("precision",), f"which device {str(device)!r} cannot honor: leave it out, or use 'openvino'")
    if metadata.precision != "fp32":
        options.refuse(("precision",), f"but the artifact is in {metadata.precision}: leave it out, or export in fp32")
    from runtime.engines.openvino.devices import require_bfloat16  # noqa: PLC0415

    require_bfloat16()


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
    backend = _open(path, metadata, device, options or EngineOptions(), verified)
    batch = metadata.input_shape[0]
    backend = backend if batch is None else FixedBatch(backend, batch)
    return ConstantThresholds(backend, metadata) if metadata.thresholds == "constants" else backend


def _open(path: Path, metadata: Metadata, device: str, options: EngineOptions, verified: bool) -> Backend:
    """Load an artifact into its engine; only the engine in use is imported."""
    unit = openvino_device(device)
    kind, index = ("openvino", 0) if unit else parse_device(device)
    check_device(metadata, device, options)
    if metadata.format == "savedmodel":
        refuse_lost(path, "tensorflow")
        from runtime.engines.saved_model import SavedModelBackend  # noqa: PLC0415

        return SavedModelBackend(path, metadata, kind, index, options)
    if unit:
        refuse_lost(path, "openvino")
        from runtime.engines.openvino.backend import OpenvinoBackend  # noqa: PLC0415

        return OpenvinoBackend(path, metadata, unit, options, verified=verified)
    from runtime.engines.ort.backend import OrtBackend  # noqa: PLC0415

    return OrtBackend(path, metadata, kind, index, options, verified=verified)
