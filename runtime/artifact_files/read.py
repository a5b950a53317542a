"""Metadata and digest of an artifact in either format, read without an engine."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from runtime.artifact import GRAPH_SHA256, Metadata
from runtime.artifact_files.onnx_file import file_graph_digest, read_sealed, recorded_file_digest
from runtime.artifact_files.savedmodel_folder import folder_graph_digest, read_sealed_folder, recorded_folder_digest
from runtime.errors import (
    ArtifactCorruptError,
    ArtifactError,
    ArtifactNotFoundError,
    ArtifactVerdictError,
    ForeignArtifactError,
)
from runtime.json_file import read_json_file


def read_metadata(path: str | Path, verify_digest: bool = True) -> Metadata:
    """Read and check the metadata of an artifact; no engine is loaded.

    Args:
        path: An `.onnx` file or a SavedModel folder.
        verify_digest: Whether to compare the artifact's bytes with the recorded SHA-256.

    Raises:
        ArtifactError: There is no artifact, or it is foreign, damaged or too new.
    """
    path = Path(path)
    with _reading(path):
        if not path.exists():
            known = "; only commands know demo by name: write demo.onnx with 'maskrcnn export onnx demo'"
            raise ArtifactNotFoundError(f"there is no artifact at {path}{known if str(path) == 'demo' else ''}")
        if not path.is_file() and not path.is_dir():  # reading a pipe could block forever
            raise ForeignArtifactError(f"{path} is a pipe or a device; expected an .onnx file or a SavedModel folder")
        text = read_sealed_folder(path, verify_digest) if path.is_dir() else read_sealed(path, verify_digest)
    metadata = Metadata.from_json(text, str(path))
    if (metadata.format == "savedmodel") != path.is_dir():
        found = "a folder" if path.is_dir() else "a file"
        raise ArtifactCorruptError(
            f"{path}: its metadata has the format {metadata.format!r}, but it is {found}: export it again"
        )
    return metadata


def graph_digest(path: Path) -> str:
    """Return the SHA-256 of what computes in an artifact accepted by `read_metadata`: not of its metadata."""
    with _reading(path):
        return folder_graph_digest(path) if path.is_dir() else file_graph_digest(path)


def require_proven(path: Path, metadata: Metadata, verify_digest: bool = True) -> None:
    """Refuse an artifact whose verdict does not prove that its graph equals its model.

    Args:
        path: An artifact accepted by `read_metadata`.
        metadata: What that returned.
        verify_digest: Whether to compare the graph with the SHA-256 in the verdict.

    Raises:
        ArtifactVerdictError: The verdict failed, belongs to another graph, or does not say to which it belongs.
    """
    flaw = metadata.verdict_flaw(graph_digest(path) if verify_digest else None)
    if flaw:
        raise ArtifactVerdictError(
            f"{path} is not proven to equal its model: {flaw}. Repeat the parity check with 'maskrcnn verify "
            "ARTIFACT --against CHECKPOINT -o NEW', export the checkpoint again, or, if you vouch for it yourself, use "
            "Predictor(..., require_verdict=False)"
        )


def judgement_path(path: Path, precision: str) -> Path:
    """Return where 'maskrcnn verify --precision' records that an artifact's accuracy in it was accepted."""
    path = path.absolute()  # "." has no name
    return path.parent / f"{path.name}.{precision}.verdict.json"


def judgement_flaw(path: Path, precision: str, unchecked: Metadata | None = None) -> str:
    """Return why nothing proves that an artifact is accurate in a precision; empty if it was judged and accepted.

    Args:
        path: An artifact accepted by `require_proven`.
        precision: That of `EngineOptions`.
        unchecked: Metadata, if the artifact's bytes are not to be read: then the SHA-256 of its graph is what its own
            verdict says; without one there, the judgement may be about any graph.
    """
    beside = judgement_path(path, precision)
    try:
        found = read_json_file(beside)
        accepted = found["passed"] is True and found["precision"] == precision
        if accepted:
            graph = graph_digest(path) if unchecked is None else unchecked.verdict.get(GRAPH_SHA256)
            if graph is None or found[GRAPH_SHA256] == graph:
                return ""
    except FileNotFoundError:
        return f"there is no {beside.name} beside it"
    except (OSError, ValueError, LookupError, TypeError) as error:
        return f"{beside.name} cannot be read ({type(error).__name__})"
    return f"{beside.name} is about another graph" if accepted else f"{beside.name} does not say that it passed"


def require_judged(path: Path, precision: str, unchecked: Metadata | None = None) -> None:
    """Raise ArtifactVerdictError if an artifact has a `judgement_flaw`."""
    flaw = judgement_flaw(path, precision, unchecked)
    if not flaw:
        return
    raise ArtifactVerdictError(
        f"{path} is not proven to be accurate in {precision}: {flaw}. Judge it with 'maskrcnn verify ARTIFACT "
        f"--device openvino --precision {precision} --truth ANNOTATIONS', or, if you vouch for it yourself, use "
        "Predictor(..., require_verdict=False)"
    )


def recorded_digest(path: Path) -> str:
    """Return the SHA-256 that an artifact accepted by `read_metadata` records of itself: its identity."""
    return recorded_folder_digest(path) if path.is_dir() else recorded_file_digest(path)


def require_same(path: Path, digest: str) -> None:
    """Raise ArtifactError unless the artifact at a path still records a digest: an export may have replaced it."""
    with _reading(path):
        if path.is_dir():
            read_sealed_folder(path, verify_digest=False)
        else:
            read_sealed(path, verify_digest=False)
        found = recorded_digest(path)
    if found != digest:
        raise ArtifactError(
            f"{path} is no longer the artifact that was opened (SHA-256 {found[:12]}, it was {digest[:12]}): open a "
            "new Predictor"
        )


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Translate the system's errors."""
    try:
        yield
    except OSError as error:
        if isinstance(error, ArtifactError):
            raise
        raise ArtifactError(f"cannot read the artifact at {path}: {error.strerror}") from error
