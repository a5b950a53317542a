"""What holds while this process works on a CUDA device.

Recordings. While CUDA records a graph, an allocation or a blocking copy in any thread of the process fails and spoils
the recording. So a recording waits until all other work of this package is done, and other work waits for a recording.

Messages. ONNX Runtime's default logger, which no session option reaches, warns at each opening, and writes an error to
stderr for each algorithm of cuDNN that does not fit a convolution, although another one is found. What really fails is
also an exception. So the logger is silent during our work, unless Python's logger of this module is set to DEBUG.
Afterwards it is at its own default again, because ONNX Runtime does not tell what it was.
"""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from runtime.engines.ort.library import ort

_WARNING, _FATAL = 2, 4  # ONNX Runtime's levels
_logger = logging.getLogger(__name__)
_here = threading.local()


class _State:
    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.recording = False
        self.workers = 0


_state = _State()


@contextmanager
def cuda_work() -> Iterator[None]:
    """Work on a device, together with other threads but not with a recording; may be nested."""
    if getattr(_here, "works", False):
        yield
        return
    with _state.changed:
        _state.changed.wait_for(lambda: not _state.recording)
        _enter()
    try:
        yield
    finally:
        with _state.changed:
            _leave()


@contextmanager
def cuda_recording() -> Iterator[None]:
    """Record a graph, alone; not inside of `cuda_work`."""
    with _state.changed:
        _state.changed.wait_for(lambda: not _state.recording)
        _state.recording = True  # from now on, nobody else begins
        _state.changed.wait_for(lambda: not _state.workers)
        _enter()
    try:
        yield
    finally:
        with _state.changed:
            _state.recording = False
            _leave()


def _enter() -> None:
    _here.works = True
    _state.workers += 1
    if _state.workers == 1 and not _logger.isEnabledFor(logging.DEBUG):
        ort.set_default_logger_severity(_FATAL)


def _leave() -> None:
    _here.works = False
    _state.workers -= 1
    if not _state.workers and not _logger.isEnabledFor(logging.DEBUG):
        ort.set_default_logger_severity(_WARNING)
    _state.changed.notify_all()
