"""Errors raised while a batch is made, carried past `tf.data`, which only passes on the text of an error."""

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

import tensorflow as tf

_KEPT = 16  # several batches are made at a time, so several errors may be pending


class BatchErrors:
    """Records errors where batches are made, and raises them again where batches are used."""

    def __init__(self) -> None:
        self._raised: deque[Exception] = deque(maxlen=_KEPT)

    @contextmanager
    def noted(self) -> Iterator[None]:
        """Record an error of the block, which makes a batch in a thread of `tf.data`."""
        try:
            yield
        except Exception as error:
            self._raised.append(error)
            raise

    @contextmanager
    def raised(self) -> Iterator[None]:
        """Replace TensorFlow's error in the block, which uses batches, by the recorded original."""
        try:
            yield
        except tf.errors.OpError as error:
            origin = next((each for each in self._raised if str(each) in error.message), None)
            if origin is None:
                raise
            raise origin from error
