"""An artifact with a fixed batch size, for any number of images."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from runtime.artifact import IMAGES
from runtime.engines.protocol import Arrays, Backend, StageCutter
from runtime.placement import Placement


class FixedBatch:
    """Runs full batches of `size` images; the last one is filled up with its last image."""

    def __init__(self, backend: Backend, size: int) -> None:
        self._backend, self._size = backend, size
        self.device = backend.device

    def __call__(self, inputs: Mapping[str, npt.NDArray[Any]]) -> Arrays:
        """Run the graph; the results of added images are dropped."""
        return _join([_first(self._backend(feeds), used, self._size) for feeds, used in _batches(inputs, self._size)])

    def explain(self, inputs: Mapping[str, npt.NDArray[Any]]) -> Placement:
        """Run one batch and report where each node was executed."""
        return self._backend.explain(next(_batches(inputs, self._size))[0])

    def borders(self, inputs: Mapping[str, npt.NDArray[Any]], places: Mapping[str, Any]) -> Arrays:
        """Return the tensors between the stages of the graph."""
        batches = _batches(inputs, self._size)
        return _join([_first(self._backend.borders(feeds, places), used, self._size) for feeds, used in batches])


class FixedBatchStages:
    """A `StageCutter` for any number of images, of one that takes `size` images."""

    def __init__(self, stages: StageCutter, size: int) -> None:
        self._stages, self._size = stages, size
        self.names = stages.names

    def run(self, feeds: Mapping[str, npt.NDArray[Any]], names: Sequence[str]) -> Arrays:
        """Compute stage boundary tensors; `feeds` must have the images."""
        batches = _batches(feeds, self._size)
        return _join([_first(self._stages.run(batch, names), used, self._size) for batch, used in batches])


def _batches(inputs: Mapping[str, npt.NDArray[Any]], size: int) -> Iterator[tuple[Arrays, int]]:
    """Yield the inputs of each batch and the number of its images that are not added; scalars are for all images."""
    count = len(inputs[IMAGES])
    for begin in range(0, count, size):
        images = np.minimum(np.arange(begin, begin + size), count - 1)
        yield {name: _of(images, array, count) for name, array in inputs.items()}, min(size, count - begin)


def _of(images: npt.NDArray[Any], array: npt.NDArray[Any], count: int) -> npt.NDArray[Any]:
    """Return the rows of some images of `count`; tensors of crops have several for each image, in order."""
    if np.ndim(array) == 0:
        return array
    of_image = array.reshape(count, len(array) // count, *array.shape[1:])
    return of_image[images].reshape(-1, *array.shape[1:])


def _first(outputs: Arrays, used: int, size: int) -> Arrays:
    """Return the part of the first images; tensors of crops have several rows for each image, in order."""
    return {name: array[: len(array) // size * used] for name, array in outputs.items()}


def _join(parts: list[Arrays]) -> Arrays:
    return parts[0] if len(parts) == 1 else {n: np.concatenate([part[n] for part in parts]) for n in parts[0]}
