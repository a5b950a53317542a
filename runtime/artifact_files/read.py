"""Metadata and digest of an artifact in either format, read without an engine."""

from pathlib import Path

from runtime.artifact import Metadata
from runtime.artifact_files.onnx_file import read_sealed, recorded_file_digest
from runtime.artifact_files.savedmodel_folder import read_sealed_folder, recorded_folder_digest
from runtime.errors import ArtifactCorruptError, ArtifactError, ArtifactNotFoundError, ForeignArtifactError


def read_metadata(path: str | Path, verify_digest: bool = True) -> Metadata:
    """Read and check the metadata of an artifact; no engine is loaded.

    Args:
        path: An `.onnx` file or a SavedModel folder.
        verify_digest: Whether to compare the artifact's bytes with the recorded SHA-256.

    Raises:
        ArtifactError: There is no artifact, or it is foreign, damaged or too new.
    """
    path = Path(path)
    try:
        if not path.exists():
            raise ArtifactNotFoundError(f"there is no artifact at {path}")
        if not path.is_file() and not path.is_dir():  # reading a pipe could block forever
            raise ForeignArtifactError(f"{path} is a pipe or a device; expected an .onnx file or a SavedModel folder")
        text = read_sealed_folder(path, verify_digest) if path.is_dir() else read_sealed(path, verify_digest)
    except OSError as error:
        if isinstance(error, ArtifactError):
            raise
        raise ArtifactError(f"cannot read the artifact at {path}: {error.strerror}") from error
    metadata = Metadata.from_json(text, str(path))
    if (metadata.format == "savedmodel") != path.is_dir():
        found = "a folder" if path.is_dir() else "a file"
        raise ArtifactCorruptError(
            f"{path}: its metadata has the format {metadata.format!r}, but it is {found}: export it again"
        )
    return metadata


def recorded_digest(path: Path) -> str:
    """Return the SHA-256 that an artifact accepted by `read_metadata` records of itself: its identity."""
    return recorded_folder_digest(path) if path.is_dir() else recorded_file_digest(path)
