"""Engines behind one protocol; the only place that chooses between them."""

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy.typing as npt

from runtime.artifact import Metadata
from runtime.backends.forked import refuse_tensorflow
from runtime.engine_options import EngineOptions
from runtime.errors import ArtifactError, ArtifactNotFoundError, DeviceError, ForeignArtifactError
from runtime.onnx_file import read_sealed, recorded_file_digest
from runtime.savedmodel_folder import read_sealed_folder, recorded_folder_digest

Arrays = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class Placement:
    """On which device (TensorFlow) or provider (ONNX Runtime) the nodes of a run landed, and how long they took.

    Attributes:
        device: Where the predictor was asked to run.
        counts: Nodes by (provider or device, operator type).
        milliseconds: Time in the kernels of these nodes, by the same keys; nodes that run at once are added up.
    """

    device: str
    counts: Mapping[tuple[str, str], int]
    milliseconds: Mapping[tuple[str, str], float]

    def nodes_on(self, place: str) -> int:
        """Nodes whose provider or device name contains `place`, for instance "CUDA"."""
        return sum(n for (where, _), n in self.counts.items() if place in where)

    def __str__(self) -> str:
        places: Counter[str] = Counter()
        for (where, _), n in self.counts.items():
            places[where] += n
        lines = [f"device {self.device}"]
        for where, total in places.most_common():
            operators = sorted(((n, op) for (w, op), n in self.counts.items() if w == where), reverse=True)
            lines.append(f"{where}: {total} nodes: " + ", ".join(f"{op} {n}" for n, op in operators))
        return "\n".join(lines)


class Backend(Protocol):
    """An engine with an artifact loaded."""

    device: str

    def __call__(self, inputs: Mapping[str, npt.NDArray[Any]]) -> Arrays:
        """Run the graph; names and shapes are those of `runtime.artifact`."""

    def explain(self, inputs: Mapping[str, npt.NDArray[Any]]) -> Placement:
        """Run and report where each node was executed, and how long it took once the engine is warm."""

    def borders(self, inputs: Mapping[str, npt.NDArray[Any]], places: Mapping[str, Any]) -> Arrays:
        """Run once and return the tensors between the stages of the graph.

        Args:
            inputs: As for a run.
            places: Where they are, from the artifact's metadata (`borders`).
        """


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


def check_engine(path: Path, package: str, installed: str, minimum: str | None) -> None:
    """Refuse an engine that is older than the artifact at `path` needs.

    Raises:
        ArtifactError: It is.
    """
    if minimum and version_numbers(installed) < version_numbers(minimum):
        raise ArtifactError(f"{path} needs {package} {minimum}, installed is {installed}: pip install -U {package}")


def version_numbers(text: str) -> tuple[int, ...]:
    """The first three numbers of a version, for comparing."""
    numbers = re.findall("[0-9]+", text.split("+", maxsplit=1)[0])
    return tuple(int(number) for number in [*numbers, 0, 0, 0][:3])


def read_metadata(path: str | Path, verify_digest: bool = True) -> Metadata:
    """Read and check an artifact's metadata; no engine is loaded.

    Raises:
        ArtifactError: No artifact, a foreign, damaged or too new one.
    """
    path = Path(path)
    try:
        if not path.exists():
            raise ArtifactNotFoundError(f"there is no artifact at {path}")
        if not path.is_file() and not path.is_dir():  # a pipe would be waited for, without end
            raise ForeignArtifactError(f"{path} is a pipe or a device; expected an .onnx file or a SavedModel folder")
        text = read_sealed_folder(path, verify_digest) if path.is_dir() else read_sealed(path, verify_digest)
    except OSError as error:
        if isinstance(error, ArtifactError):
            raise
        raise ArtifactError(f"cannot read the artifact at {path}: {error.strerror}") from error
    return Metadata.from_json(text, str(path))


def recorded_digest(path: Path) -> str:
    """The SHA-256 that an artifact records of itself, which tells it from every other one.

    Args:
        path: An artifact that `read_metadata` accepts.
    """
    return recorded_folder_digest(path) if path.is_dir() else recorded_file_digest(path)


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
        from runtime.backends.fixed_batch import FixedBatch  # noqa: PLC0415
        from runtime.backends.ort import OrtBackend  # noqa: PLC0415  (only the engine that is used is imported)

        backend = OrtBackend(path, metadata, kind, index, options, verified=verified)
        batch = metadata.input_shape[0]
        return backend if batch is None else FixedBatch(backend, batch)
    refuse_tensorflow(path)
    from runtime.backends.saved_model import SavedModelBackend  # noqa: PLC0415

    return SavedModelBackend(path, kind, index, options, metadata.engine_minimum.get("tensorflow"))
