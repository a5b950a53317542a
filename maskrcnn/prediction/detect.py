"""Pictures through a predictor: prepared ahead, in batches, each failing for itself."""

from collections import defaultdict
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from typing import NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from maskrcnn.prediction.read_ahead import read_ahead
from runtime.detections import Detections
from runtime.errors import RuntimeLibraryError
from runtime.pictures.letterbox import Letterbox
from runtime.pictures.read import ImageSource
from runtime.steps import PredictorSteps

K = TypeVar("K")


class _Prepared(NamedTuple):
    letterbox: Letterbox
    pixels: npt.NDArray[np.uint8]


def detect(
    predictor: PredictorSteps,
    items: Iterable[tuple[K, ImageSource]],
    batch_size: int,
    stopped: Callable[[], bool],
) -> Generator[tuple[K, Detections | Exception]]:
    """Predict pictures.

    Those whose letterboxes have one size run together. With pictures of one size, or a batch size of 1, results come in
    the order of the items.

    Args:
        predictor: `runtime.Predictor` or `CheckpointPredictor`.
        items: A key and a picture each; they are made ahead, in another thread.
        batch_size: Most pictures of a run of the network.
        stopped: Asked before each batch; True ends it all.

    Yields:
        The key, and what was found in the picture or why it could not be predicted.

    Raises:
        Exception: Whatever `items` raises.
    """
    waiting: dict[tuple[int, int], list[tuple[K, _Prepared]]] = defaultdict(list)
    with closing(read_ahead(_prepare(predictor, items), 2 * batch_size)) as ready:
        for key, prepared in ready:
            if stopped():
                return
            if isinstance(prepared, Exception):
                yield key, prepared
                continue
            size = prepared.letterbox.input_size
            waiting[size].append((key, prepared))
            if len(waiting[size]) == batch_size:
                yield from _run(predictor, waiting.pop(size))
            elif sum(map(len, waiting.values())) >= 4 * batch_size:  # pictures of many sizes: memory has an end
                yield from _run(predictor, waiting.pop(max(waiting, key=lambda each: len(waiting[each]))))
    for group in waiting.values():
        if stopped():
            return
        yield from _run(predictor, group)


def _prepare(
    predictor: PredictorSteps, items: Iterable[tuple[K, ImageSource]]
) -> Iterator[tuple[K, _Prepared | Exception]]:
    for key, image in items:
        try:
            prepared: _Prepared | Exception = _Prepared(*predictor.prepare(image))
        except (RuntimeLibraryError, OSError, MemoryError) as error:
            prepared = error
        yield key, prepared


def _run(predictor: PredictorSteps, group: list[tuple[K, _Prepared]]) -> Iterator[tuple[K, Detections | Exception]]:
    images = np.stack([prepared.pixels for _, prepared in group])
    windows = np.array([prepared.letterbox.window for _, prepared in group], np.float32)
    try:
        outputs = predictor.run(images, windows)
    except Exception as error:  # noqa: BLE001  (engines raise types of their own, such as one for memory)
        if len(group) == 1:
            yield group[0][0], error
            return
        for each in group:  # which of them it was
            yield from _run(predictor, [each])
        return
    for row, (key, prepared) in enumerate(group):
        try:
            found: Detections | Exception = predictor.finish(
                {name: array[row] for name, array in outputs.items()}, prepared.letterbox
            )
        except RuntimeLibraryError as error:
            found = error
        yield key, found
