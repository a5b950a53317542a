"""Import TensorFlow without the lines its libraries write before they can be told not to."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def _native_stderr_closed() -> Iterator[None]:
    """Send file descriptor 2 nowhere; an error raised in the block is not affected."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        sys.stderr.flush()
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def import_tensorflow(touch_devices: bool = True) -> None:
    """Import TensorFlow for the first time; its notices about CPU features and CUDA libraries are dropped.

    Args:
        touch_devices: Have it look for devices now. Training on several machines must come to an understanding
            with them before that.

    Raises:
        ModuleNotFoundError: It is not installed.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # read once, at the import
    with _native_stderr_closed():
        import tensorflow as tf  # noqa: PLC0415

        if touch_devices:
            tf.constant(0)  # the first operation looks for devices, and says what it finds
