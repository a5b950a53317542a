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


def engine_of(artifact_format: ArtifactFormat) -> tuple[str, str]:
    """Return the package that runs a format, and its version."""
    package = "onnxruntime" if artifact_format == "onnx" else "tensorflow"
    # Not `importlib.metadata.version`: the GPU build of ONNX Runtime has another distribution name.
    return package, str(import_module(package).__version__)
