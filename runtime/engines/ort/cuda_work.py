"""What holds while this process works on a CUDA device.

Recordings. While CUDA records a graph, an allocation or a blocking copy in any thread of the process fails and spoils
the recording, and so does freeing memory. So a recording waits until all other work of this package is done, and other
work waits for a recording. Sessions and tensors are freed by whoever drops the last reference, such as the garbage
collector, or a thread whose run ends after the predictor was closed. So they are held by `Held`, which puts that off
until after a recording.

Messages. ONNX Runtime's default logger, which no session option reaches, warns at each opening, and writes an error to
stderr for each algorithm of cuDNN that does not fit a convolution, although another one is found. What really fails is
also an exception. So the logger is silent during our work, unless Python's logger of this module is set to DEBUG.
Afterwards it is at its own default again, because ONNX Runtime does not tell what it was.
"""

import logging
import os
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Generic, TypeVar
from weakref import finalize

from runtime.engines.ort.library import ort

_WARNING, _FATAL = 2, 4  # ONNX Runtime's levels
_logger = logging.getLogger(__name__)
_here = threading.local()
_T = TypeVar("_T")


class _State:
    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Begin, also in a forked child: a thread that does not exist there may hold the lock."""
        self.changed = threading.Condition()
        self.recording = False
        self.workers = 0
        self.put_off: list[list[Any]] = []


_state = _State()
if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(after_in_child=_state.reset)


class Held(Generic[_T]):
    """Holds a value with memory on a device; when it is dropped, the value is freed, but not during a recording."""

    def __init__(self, value: _T) -> None:
        self._values = [value]
        finalize(self, _free, self._values).atexit = False

    @property
    def value(self) -> _T:
        """The value; drop other references to it first."""
        return self._values[0]


def _free(values: list[Any]) -> None:
    """Empty a list without waiting: the garbage collector may call this in any thread, also in one that records."""
    with _state.changed:
        if _state.recording:
            _state.put_off.append(values)
        else:
            values.clear()


def drop_values_of(error: BaseException | None) -> None:
    """Drop the local variables that the traceback of an error keeps: tensors and sessions, for as long as it exists."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__


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
    except BaseException as error:
        drop_values_of(error)
        raise
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
    except BaseException as error:
        drop_values_of(error)
        raise
    finally:
        with _state.changed:
            _state.recording = False
            _leave()
            while _state.put_off:
                _state.put_off.pop().clear()


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
