"""Import TensorFlow without the notices that its libraries print before logging can be configured."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def _native_stderr_closed() -> Iterator[None]:
    """Discard what native code writes to stderr. Errors raised in the block are not affected."""
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
    """Import TensorFlow and discard its notices about CPU features and CUDA libraries.

    Args:
        touch_devices: Make it look for devices now. Training on several machines must connect them first.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # read once, on import
    with _native_stderr_closed():
        import tensorflow as tf  # noqa: PLC0415

        if touch_devices:
            tf.constant(0)  # the first operation looks for devices, and prints what it finds
