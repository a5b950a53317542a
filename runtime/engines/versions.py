"""Versions of engines."""

import re
from importlib import import_module
from pathlib import Path

from runtime.artifact import ArtifactFormat
from runtime.errors import ArtifactError

TENSORRT_MAJOR = 10  # of the libraries that ONNX Runtime's TensorRT provider is linked with


def check_engine(path: Path, package: str, installed: str, minimum: str | None) -> None:
    """Raise ArtifactError if the installed engine is older than the artifact at `path` needs."""
    if minimum and version_numbers(installed) < version_numbers(minimum):
        raise ArtifactError(
            f"{path} needs {package} {minimum} or later, but {installed} is installed: pip install -U {package}"
        )


def version_numbers(text: str) -> tuple[int, ...]:
    """Return the first three numbers of a version, for comparison."""
    numbers = re.findall("[0-9]+", text.split("+", maxsplit=1)[0])
    return tuple(int(number) for number in [*numbers, 0, 0, 0][:3])


def engine_package(artifact_format: ArtifactFormat, device: str) -> str:
    """Return the package that runs a format on a device, named as `Predictor.device` names it."""
    if artifact_format == "savedmodel":
        return "tensorflow"
    return "openvino" if device.startswith("openvino") else "onnxruntime"


def engine_of(artifact_format: ArtifactFormat, device: str) -> tuple[str, str]:
    """Return the package that runs a format on a device, which is loaded, and its version."""
    package = engine_package(artifact_format, device)
    # Not `importlib.metadata.version`: the GPU build of ONNX Runtime has another distribution name.
    version = str(import_module(package).__version__)
    return package, re.sub("-[0-9]{4,}-.*", "", version)  # OpenVINO's has build, commit and branch
