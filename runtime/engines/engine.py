"""The engine of a predictor: freed on close, reopened in a forked child, with its errors translated."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from runtime.artifact import Metadata
from runtime.engines.errors import engine_errors
from runtime.engines.forked import refuse_gpu, reopening
from runtime.engines.opening import Opening
from runtime.engines.protocol import Backend
from runtime.engines.versions import engine_package
from runtime.errors import ClosedError


class Engine:
    """An artifact opened in its engine; `device` is "cpu", "cuda:N", "tensorrt:N" or "openvino"."""

    def __init__(self, opening: Opening, metadata: Metadata) -> None:
        self.opening = opening
        self._metadata = metadata
        self._backend: Backend | None = opening.open(metadata)
        self.device = self._backend.device
        self._process = os.getpid()

    def close(self) -> None:
        """Release the backend; the last run in progress frees it."""
        self._backend = None

    @property
    def closed(self) -> bool:
        """Whether the backend was released."""
        return self._backend is None

    def require_open(self) -> Backend:
        """Return the backend, or raise ClosedError if it was released."""
        backend = self._backend
        if backend is None:
            raise ClosedError(f"the predictor of {self.opening.path} is closed: open another one")
        return backend

    @contextmanager
    def running(self) -> Iterator[Backend]:
        """Yield the backend for a run; a process that was forked since it was opened gets its own.

        Raises:
            ClosedError: The engine is closed.
            EngineError: The run failed (OutOfMemoryError: for lack of memory), or the engine cannot be used here.
        """
        backend = self._of_this_process()
        with engine_errors(engine_package(self._metadata.format, self.device), self.opening.path):
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
