"""Stage boundary tensors of an ONNX graph: each part between them is opened by itself, by any engine."""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from runtime.artifact_files.onnx_cut import ELEMENT_TYPES, CutModel
from runtime.engines.protocol import Arrays

_FLOAT_TYPES = {"float32": "float"}  # other element types have the same name in ONNX and NumPy


class Part(Protocol):
    """A part of a graph, opened in an engine."""

    @property
    def inputs(self) -> Collection[str]:
        """Names of what it takes."""

    def __call__(self, feeds: Mapping[str, npt.NDArray[Any]]) -> Sequence[npt.NDArray[Any]]:
        """Return the outputs in their order."""


class CutStages:
    """A `StageCutter` for an ONNX graph.

    Args:
        model: The serialized model.
        borders: Where its stage boundary tensors are, as in `Metadata.borders`.
        open_part: Opens a part of it, a serialized model.
    """

    def __init__(
        self, model: bytes, borders: Mapping[str, Mapping[str, Any]], open_part: Callable[[bytes], Part]
    ) -> None:
        self._model, self._borders, self._open = CutModel(model), borders, open_part
        self._parts: dict[tuple[tuple[str, ...], tuple[str, ...]], Part] = {}
        self.names = tuple(borders)

    def run(self, feeds: Mapping[str, npt.NDArray[Any]], names: Sequence[str]) -> Arrays:
        """Compute stage boundary tensors; float16 becomes float32."""
        given = {self._tensor(name): self._lay_out(name, array) for name, array in feeds.items()}
        wanted = [self._tensor(name) for name in names]
        key = tuple(name for name in feeds if name in self._borders), tuple(names)
        if key not in self._parts:
            inputs = {self._tensor(name): (_element_type(feeds[name]), [None] * feeds[name].ndim) for name in key[0]}
            self._parts[key] = self._open(self._model.part(inputs, wanted))
        part = self._parts[key]
        arrays = part({name: array for name, array in given.items() if name in part.inputs})
        found = dict(zip(dict.fromkeys(wanted), arrays, strict=True))  # two names can be of one tensor
        return {name: self._restore(name, found[tensor]) for name, tensor in zip(names, wanted, strict=True)}

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
