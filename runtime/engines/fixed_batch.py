"""An artifact whose batch size is fixed, for callers with any number of pictures."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from runtime.artifact import IMAGES, WINDOWS
from runtime.engines.protocol import Arrays, Backend
from runtime.placement import Placement


class FixedBatch:
    """Runs as many full batches as are needed, the last one filled up with its last picture.

    Args:
        backend: Takes exactly `size` pictures.
        size: Of a batch.
    """

    def __init__(self, backend: Backend, size: int) -> None:
        self._backend, self._size = backend, size
        self.device = backend.device

    def __call__(self, inputs: Mapping[str, npt.NDArray[Any]]) -> Arrays:
        """Run the graph; results of filled-up rows are dropped."""
        return _join([_first(self._backend(feeds), used, self._size) for feeds, used in self._batches(inputs)])

    def explain(self, inputs: Mapping[str, npt.NDArray[Any]]) -> Placement:
        """Run one batch and report where each node was executed."""
        return self._backend.explain(next(self._batches(inputs))[0])

    def borders(self, inputs: Mapping[str, npt.NDArray[Any]], places: Mapping[str, Any]) -> Arrays:
        """The tensors between the stages of the graph."""
        return _join(
            [_first(self._backend.borders(feeds, places), used, self._size) for feeds, used in self._batches(inputs)]
        )

    def _batches(self, inputs: Mapping[str, npt.NDArray[Any]]) -> Iterator[tuple[Arrays, int]]:
        """Inputs of each batch, and how many of its pictures are real."""
        count = len(inputs[IMAGES])
        for begin in range(0, count, self._size):
            rows = np.minimum(np.arange(begin, begin + self._size), count - 1)
            yield (
                {**inputs, IMAGES: inputs[IMAGES][rows], WINDOWS: inputs[WINDOWS][rows]},
                min(self._size, count - begin),
            )


def _first(outputs: Arrays, used: int, size: int) -> Arrays:
    """The part of the first pictures; crops have several rows for each picture, one picture after the other."""
    return {name: array[: len(array) // size * used] for name, array in outputs.items()}


def _join(parts: list[Arrays]) -> Arrays:
    return parts[0] if len(parts) == 1 else {n: np.concatenate([part[n] for part in parts]) for n in parts[0]}
