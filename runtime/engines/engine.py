"""The engine of a predictor: freed when it is closed, opened anew in a forked child, its errors translated."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from runtime.artifact import Metadata
from runtime.engines.errors import engine_errors
from runtime.engines.forked import refuse_gpu, reopening
from runtime.engines.opening import Opening
from runtime.engines.protocol import Backend
from runtime.errors import ClosedError


class Engine:
    """An artifact in its engine.

    Args:
        opening: The artifact, and what is asked of the engine.
        metadata: Of the artifact.

    Attributes:
        opening: As given.
        device: Where the graph runs: "cpu", "cuda:N" or "tensorrt:N".

    Raises:
        RuntimeLibraryError: As for a `Predictor`.
    """

    def __init__(self, opening: Opening, metadata: Metadata) -> None:
        self.opening = opening
        self._metadata = metadata
        self._backend: Backend | None = opening.open(metadata)
        self.device = self._backend.device
        self._process = os.getpid()

    def close(self) -> None:
        """Let go of the backend; the last run under way frees it."""
        self._backend = None

    def require_open(self) -> Backend:
        """The backend, as it is.

        Raises:
            ClosedError: It was let go of.
        """
        backend = self._backend
        if backend is None:
            raise ClosedError(f"the predictor of {self.opening.path} is closed: open another one")
        return backend

    @contextmanager
    def running(self) -> Iterator[Backend]:
        """The backend for a run; a process that was forked since it was opened gets one of its own.

        Raises:
            ClosedError: It was let go of.
            EngineError: It failed in the run, or cannot be used in this process; OutOfMemoryError if for memory.
        """
        backend = self._of_this_process()
        engine = "onnxruntime" if self._metadata.format == "onnx" else "tensorflow"
        with engine_errors(engine, self.opening.path):
            yield backend

    def _of_this_process(self) -> Backend:
        backend = self.require_open()
        if self._process == os.getpid():
            return backend
        refuse_gpu(self.opening.path, self.device)
        with reopening():
            if self._process != os.getpid():
                self._backend = self.opening.reopen(self._metadata, self.device)
                self._process = os.getpid()
        return self.require_open()
