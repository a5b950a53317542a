"""Stage boundary tensors of an ONNX graph: each part between them runs in its own session."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from runtime.artifact_files.onnx_cut import ELEMENT_TYPES, CutModel
from runtime.engines.ort.library import CPU
from runtime.engines.ort.session import SessionOpener
from runtime.engines.processors import usable_cores
from runtime.engines.protocol import Arrays

_FLOAT_TYPES = {"float32": "float"}  # other element types have the same name in ONNX and NumPy


class OnnxStages:
    """A `StageCutter` for an ONNX graph.

    Args:
        model: The serialized model.
        borders: Where its stage boundary tensors are, as in `Metadata.borders`.
        open_session: Opens a session of ONNX Runtime with a serialized model.
    """

    def __init__(
        self, model: bytes, borders: Mapping[str, Mapping[str, Any]], open_session: Callable[[bytes], Any]
    ) -> None:
        self._model, self._borders, self._open = CutModel(model), borders, open_session
        self._sessions: dict[tuple[tuple[str, ...], tuple[str, ...]], Any] = {}
        self.names = tuple(borders)

    @classmethod
    def on_cpu(cls, path: Path, model: bytes, borders: Mapping[str, Mapping[str, Any]]) -> Self:
        """Cut a model that runs on the CPU; the path is for error messages."""
        opener = SessionOpener(path, usable_cores())
        return cls(model, borders, lambda content: opener.open([(CPU, {})], content=content))

    def run(self, feeds: Mapping[str, npt.NDArray[Any]], names: Sequence[str]) -> Arrays:
        """Compute stage boundary tensors; float16 becomes float32."""
        given = {self._tensor(name): self._lay_out(name, array) for name, array in feeds.items()}
        wanted = [self._tensor(name) for name in names]
        key = tuple(name for name in feeds if name in self._borders), tuple(names)
        if key not in self._sessions:
            inputs = {self._tensor(name): (_element_type(feeds[name]), None) for name in key[0]}
            self._sessions[key] = self._open(self._model.part(inputs, wanted))
        session = self._sessions[key]
        known = {value.name for value in (*session.get_inputs(), *session.get_overridable_initializers())}
        found = session.run(wanted, {name: array for name, array in given.items() if name in known})
        return {name: self._restore(name, array) for name, array in zip(names, found, strict=True)}

    def _tensor(self, name: str) -> str:
        """Return the name of a boundary tensor or an input in the graph."""
        return str(self._borders[name]["tensor"]) if name in self._borders else name

    def _lay_out(self, name: str, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Permute the axes to the graph's order, which is [B, C, H, W] for feature maps."""
        order = self._borders[name]["permutation"] if name in self._borders else None
        return np.asarray(array) if order is None else np.ascontiguousarray(array.transpose(order))

    def _restore(self, name: str, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Undo `_lay_out`."""
        order = self._borders[name]["permutation"] if name in self._borders else None
        array = array.astype(np.float32) if array.dtype == np.float16 else array
        return array if order is None else array.transpose(np.argsort(order))


def _element_type(array: npt.NDArray[Any]) -> int:
    return ELEMENT_TYPES[f"tensor({_FLOAT_TYPES.get(str(array.dtype), array.dtype)})"]
