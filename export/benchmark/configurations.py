"""The engines, precisions and numbers of threads in which the artifacts of a model can run."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from runtime.artifact import ArtifactFormat, Metadata
from runtime.artifact_files.read import judgement_flaw, read_metadata, require_proven
from runtime.engines.processors import usable_cores
from runtime.errors import ArtifactError


@dataclass(frozen=True)
class Way:
    """A way to run artifacts of one format.

    Attributes:
        engine: Its name in the table.
        format: Of the artifacts that it runs.
        device: As for `Predictor`.
        options: Of `EngineOptions`, besides `threads`.
        precision: What it computes in; None: the artifact's own precision. Others are for float32 artifacts only.
    """

    engine: str
    format: ArtifactFormat
    device: str
    options: Mapping[str, Any] = field(default_factory=dict)
    precision: str | None = None

    @property
    def on_processor(self) -> bool:
        """Whether the number of threads matters."""
        return self.device in ("cpu", "openvino")


WAYS = (
    Way("ONNX Runtime", "onnx", "cpu"),
    Way("ONNX Runtime", "onnx", "cuda"),
    Way("ONNX Runtime, recorded", "onnx", "cuda", {"cuda_graph": True}),
    Way("TensorRT", "onnx", "tensorrt", {"tf32": True}),
    Way("OpenVINO", "onnx", "openvino"),
    Way("OpenVINO", "onnx", "openvino", {"precision": "bf16"}, "bf16"),
    Way("OpenVINO", "onnx", "openvino:GPU"),
    Way("TensorFlow", "savedmodel", "cpu"),
    Way("TensorFlow", "savedmodel", "cuda"),
)


@dataclass(frozen=True)
class Configuration:
    """An artifact, a way to run it, and a number of threads; None where the device has its own.

    `judged` is False if the way has a precision that the artifact was not judged in: it is opened all the same, because
    its accuracy is about to be measured.
    """

    artifact: Path
    precision: str
    way: Way
    threads: int | None
    judged: bool = True

    @property
    def options(self) -> dict[str, Any]:
        """The arguments of `EngineOptions`."""
        return dict(self.way.options) | ({} if self.threads is None else {"threads": self.threads})

    @property
    def python(self) -> str:
        """One line of Python that opens it."""
        names = ("EngineOptions, " if self.options else "") + "Predictor"
        options = ", ".join(f"{name}={value!r}" for name, value in self.options.items())
        engine = f", engine=EngineOptions({options})" if options else ""
        verdict = "" if self.judged else ", require_verdict=False"
        arguments = f"{str(self.artifact)!r}, {self.way.device!r}{verdict}{engine}"
        return f"from runtime import {names}; predictor = Predictor({arguments})"

    def __str__(self) -> str:
        threads = {None: "", 1: ", 1 thread"}.get(self.threads, f", {self.threads} threads")
        return f"{self.artifact.name} in {self.way.engine} on {self.way.device}, {self.precision}{threads}"


def read_artifacts(paths: Iterable[Path]) -> dict[Path, Metadata]:
    """Return the metadata of artifacts by path.

    Raises:
        ArtifactError: An artifact cannot be used, is not proven, is given twice, or comes from another checkpoint
            than the first.
    """
    found: dict[Path, Metadata] = {}
    for path in paths:
        if path in found:
            raise ArtifactError(f"{path} is given twice: name each artifact once")
        found[path] = read_metadata(path)
        require_proven(path, found[path])
        first = next(iter(found))
        _require_same_model(path, found[path], first, found[first])
    return found


def configurations(artifacts: Mapping[Path, Metadata]) -> list[list[Configuration]]:
    """Return every way to run each artifact, as a group with its numbers of threads, the largest first."""
    return [
        [
            Configuration(path, way.precision or metadata.precision, way, threads, _is_judged(path, way))
            for threads in thread_counts(way)
        ]
        for path, metadata in artifacts.items()
        for way in WAYS
        if way.format == metadata.format and (way.precision is None or metadata.precision == "fp32")
    ]


def _is_judged(path: Path, way: Way) -> bool:
    return way.precision is None or not judgement_flaw(path, way.precision)


def thread_counts(way: Way) -> Sequence[int | None]:
    """Return the numbers of threads to try: all that the process may use, half of more than 4, and 1."""
    if not way.on_processor:
        return (None,)
    cores = usable_cores()
    return sorted({1, cores, *([cores // 2] if cores > 4 else [])}, reverse=True)


def _require_same_model(path: Path, one: Metadata, first: Path, other: Metadata) -> None:
    """Raise ArtifactError unless two artifacts come from one checkpoint: by its digest or, where none is, its name."""
    ours, theirs = one.checkpoint, other.checkpoint
    key = "sha256" if "sha256" in ours and "sha256" in theirs else "name"
    if ours.get(key) != theirs.get(key):
        names = [f"{each.get('name')}, SHA-256 {each.get('sha256', 'unknown')[:12]}" for each in (ours, theirs)]
        raise ArtifactError(
            f"{path} comes from another checkpoint ({names[0]}) than {first} ({names[1]}): compare those of one model"
        )
    if one.class_names != other.class_names:
        raise ArtifactError(f"{path} has other class names than {first}: compare artifacts with the same classes")
