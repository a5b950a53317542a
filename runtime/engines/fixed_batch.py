"""An artifact with a fixed batch size, for any number of images."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from runtime.artifact import IMAGES, WINDOWS
from runtime.engines.protocol import Arrays, Backend
from runtime.placement import Placement


class FixedBatch:
    """Runs full batches of `size` images; the last one is filled up with its last image."""

    def __init__(self, backend: Backend, size: int) -> None:
        self._backend, self._size = backend, size
        self.device = backend.device

    def __call__(self, inputs: Mapping[str, npt.NDArray[Any]]) -> Arrays:
        """Run the graph; the results of added images are dropped."""
        return _join([_first(self._backend(feeds), used, self._size) for feeds, used in self._batches(inputs)])

    def explain(self, inputs: Mapping[str, npt.NDArray[Any]]) -> Placement:
        """Run one batch and report where each node was executed."""
        return self._backend.explain(next(self._batches(inputs))[0])

    def borders(self, inputs: Mapping[str, npt.NDArray[Any]], places: Mapping[str, Any]) -> Arrays:
        """Return the tensors between the stages of the graph."""
        return _join(
            [_first(self._backend.borders(feeds, places), used, self._size) for feeds, used in self._batches(inputs)]
        )

    def _batches(self, inputs: Mapping[str, npt.NDArray[Any]]) -> Iterator[tuple[Arrays, int]]:
        """Yield the inputs of each batch and the number of its images that are not added."""
        count = len(inputs[IMAGES])
        for begin in range(0, count, self._size):
            rows = np.minimum(np.arange(begin, begin + self._size), count - 1)
            yield (
                {**inputs, IMAGES: inputs[IMAGES][rows], WINDOWS: inputs[WINDOWS][rows]},
                min(self._size, count - begin),
            )


def _first(outputs: Arrays, used: int, size: int) -> Arrays:
    """Return the part of the first images; tensors of crops have several rows for each image, in order."""
    return {name: array[: len(array) // size * used] for name, array in outputs.items()}


def _join(parts: list[Arrays]) -> Arrays:
    return parts[0] if len(parts) == 1 else {n: np.concatenate([part[n] for part in parts]) for n in parts[0]}
