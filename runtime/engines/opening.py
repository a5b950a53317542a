"""How an artifact was opened: all that another process needs to open the same one in the same way."""

from dataclasses import dataclass, replace
from pathlib import Path

from runtime.artifact import Metadata
from runtime.artifact_files.read import read_metadata, recorded_digest
from runtime.engines.choose import open_backend
from runtime.engines.options import EngineOptions
from runtime.engines.protocol import Backend
from runtime.errors import ArtifactError


@dataclass(frozen=True)
class Opening:
    """An artifact, known by its digest, and what was asked of its engine; holds nothing that cannot be pickled.

    Attributes:
        path: Absolute: the other process may have another working folder.
        digest: SHA-256 that the artifact records of itself.
        device: As asked for, so that "auto" chooses anew.
        engine: Likewise.
        verify_digest: Whether the artifact's bytes are compared with the recorded digest.
    """

    path: Path
    digest: str
    device: str
    engine: EngineOptions
    verify_digest: bool

    @classmethod
    def of(cls, path: Path, device: str, engine: EngineOptions, verify_digest: bool) -> "Opening":
        """Of the artifact that is at a path now; it is one that `read_metadata` accepts."""
        if engine.cache is not None:
            engine = replace(engine, cache=Path(engine.cache).absolute())
        return cls(path.absolute(), recorded_digest(path), str(device), engine, verify_digest)

    def check(self) -> None:
        """Refuse another artifact at the same path.

        Raises:
            ArtifactError: There is none, or another one than was opened.
        """
        read_metadata(self.path, verify_digest=False)
        found = recorded_digest(self.path)
        if found != self.digest:
            raise ArtifactError(
                f"{self.path} is no longer the artifact that was opened (SHA-256 {found[:12]}, it was "
                f"{self.digest[:12]}): open a new Predictor"
            )

    def open(self, metadata: Metadata) -> Backend:
        """The engine, of an artifact that has just been checked.

        Args:
            metadata: Of the artifact.

        Raises:
            RuntimeLibraryError: As for a `Predictor`.
        """
        return open_backend(self.path, metadata, self.device, self.engine, verified=self.verify_digest)

    def reopen(self, metadata: Metadata, device: str) -> Backend:
        """The engine once more.

        Args:
            metadata: Of the artifact.
            device: The one in use.

        Raises:
            RuntimeLibraryError: As for a `Predictor`; it is an ArtifactError if the artifact is another one.
        """
        self.check()
        if self.verify_digest:
            read_metadata(self.path)
        return replace(self, device=device).open(metadata)
