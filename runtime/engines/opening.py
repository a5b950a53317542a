"""How an artifact was opened: everything that another process needs to open it in the same way."""

from dataclasses import dataclass, replace
from pathlib import Path

from runtime.artifact import Metadata
from runtime.artifact_files.read import read_metadata, recorded_digest, require_judged, require_same
from runtime.engines.choose import check_device, open_backend
from runtime.engines.options import EngineOptions
from runtime.engines.protocol import Backend


@dataclass(frozen=True)
class Opening:
    """An artifact, identified by its digest, and the arguments of its `Predictor`; can be pickled."""

    path: Path  # absolute, because the other process may have another working folder
    digest: str  # SHA-256 that the artifact records of itself
    device: str  # as requested, so that "auto" chooses again
    engine: EngineOptions
    verify_digest: bool
    require_verdict: bool

    @classmethod
    def of(
        cls, path: Path, device: str, engine: EngineOptions, verify_digest: bool, require_verdict: bool
    ) -> "Opening":
        """Describe the artifact that is at a path now, which `read_metadata` accepts."""
        if engine.cache is not None:
            engine = replace(engine, cache=Path(engine.cache).absolute())
        return cls(path.absolute(), recorded_digest(path), str(device), engine, verify_digest, require_verdict)

    def check(self) -> None:
        """Raise ArtifactError unless the same artifact is still at the path."""
        read_metadata(self.path, verify_digest=False)
        require_same(self.path, self.digest)

    def open(self, metadata: Metadata) -> Backend:
        """Open the engine of an artifact that has just been checked.

        Raises:
            ArtifactVerdictError: Its accuracy in the precision asked for was not judged; other errors are those of
                `Predictor`.
        """
        if self.engine.precision and self.require_verdict:
            check_device(metadata, self.device, self.engine)  # its error is the more useful one
            require_judged(self.path, self.engine.precision, None if self.verify_digest else metadata)
        return open_backend(self.path, metadata, self.device, self.engine, verified=self.verify_digest)

    def reopen(self, metadata: Metadata, device: str) -> Backend:
        """Open the engine again, on the device in use; raise ArtifactError if the artifact has changed."""
        self.check()
        if self.verify_digest:
            read_metadata(self.path)
        return replace(self, device=device).open(metadata)
