"""Stage boundary tensors of an ONNX graph, computed by ONNX Runtime."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

import numpy.typing as npt

from runtime.engines.cut_stages import CutStages
from runtime.engines.ort.library import CPU
from runtime.engines.ort.session import SessionOpener
from runtime.engines.processors import usable_cores


class OnnxStages(CutStages):
    """`CutStages` of which each part runs in its own session, opened by `open_session` from a serialized model."""

    def __init__(
        self, model: bytes, borders: Mapping[str, Mapping[str, Any]], open_session: Callable[[bytes], Any]
    ) -> None:
        super().__init__(model, borders, lambda content: _SessionPart(open_session(content)))

    @classmethod
    def on_cpu(cls, path: Path, model: bytes, borders: Mapping[str, Mapping[str, Any]]) -> Self:
        """Cut a model that runs on the CPU; the path is for error messages."""
        opener = SessionOpener(path, usable_cores())
        return cls(model, borders, lambda content: opener.open([(CPU, {})], content=content))


class _SessionPart:
    """A part of a graph in a session of ONNX Runtime."""

    def __init__(self, session: Any) -> None:
        self._session = session
        self.inputs = {value.name for value in (*session.get_inputs(), *session.get_overridable_initializers())}

    def __call__(self, feeds: Mapping[str, npt.NDArray[Any]]) -> list[npt.NDArray[Any]]:
        """Run the session."""
        found: list[npt.NDArray[Any]] = self._session.run(None, dict(feeds))
        return found
