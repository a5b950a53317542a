"""Why a batch could not be made, past `tf.data`, which passes on no more than a text with a traceback in it."""

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

import tensorflow as tf

_KEPT = 16  # errors; several batches are made at a time, and more than one may miss the same picture


class BatchErrors:
    """What was raised where batches are made, to be raised again where they are taken."""

    def __init__(self) -> None:
        self._raised: deque[Exception] = deque(maxlen=_KEPT)

    @contextmanager
    def noted(self) -> Iterator[None]:
        """Around the making of a batch, in a thread of `tf.data`."""
        try:
            yield
        except Exception as error:
            self._raised.append(error)
            raise

    @contextmanager
    def raised(self) -> Iterator[None]:
        """Around the taking of batches.

        Raises:
            Exception: What a batch failed with, in place of TensorFlow's error.
        """
        try:
            yield
        except tf.errors.OpError as error:
            origin = next((each for each in self._raised if str(each) in error.message), None)
            if origin is None:
                raise
            raise origin from error
