"""Engines in a process that was forked after they were used: a child has their memory, but none of their threads.

TensorFlow then waits forever for threads that are not there. ONNX Runtime computes in a session that the child opens
itself, but waits likewise where a session of the parent is freed, and in its library's own clean-up at the child's end:
so no such session is freed, and the child ends without that clean-up.
"""

import ctypes
import os
import sys
import threading
from pathlib import Path
from typing import Any
from weakref import WeakSet

from runtime.errors import EngineError


class _Process:
    """What this process knows of the one that it was forked from, if it was."""

    def __init__(self) -> None:
        self.sessions: WeakSet[Any] = WeakSet()
        self.reopening = threading.Lock()
        self.tensorflow_is_lost = False

    def forked(self) -> None:
        """Begin the life of a child; no other thread runs yet."""
        self.reopening = threading.Lock()  # a thread that is not there may hold the old one
        self.tensorflow_is_lost |= "tensorflow" in sys.modules
        sessions = list(self.sessions)
        self.sessions.clear()
        for session in sessions:
            # A reference that nobody gives back: the child's end frees whatever a list of Python holds.
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(session))
        libc = ctypes.CDLL(None)
        if sessions and hasattr(libc, "on_exit"):
            # Of the C library's exit handlers the last one registered runs first, after Python has cleaned up: it ends
            # the process with its exit status, and so before the handlers of ONNX Runtime.
            libc.on_exit(libc._exit, None)


_process = _Process()
if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(after_in_child=_process.forked)


def keep_in_children(session: Any) -> None:
    """Let no child of this process free a session of ONNX Runtime."""
    _process.sessions.add(session)


def reopening() -> threading.Lock:
    """Held while a child opens an artifact anew."""
    return _process.reopening


def refuse_tensorflow(path: Path) -> None:
    """Refuse to run a SavedModel in a child whose parent had loaded TensorFlow.

    Raises:
        EngineError: This is one.
    """
    if _process.tensorflow_is_lost:
        raise _refusal(path, "TensorFlow was loaded")


def refuse_gpu(path: Path, device: str) -> None:
    """Refuse to run an artifact in a child whose parent had opened it on a GPU.

    Raises:
        EngineError: The device is not the CPU.
    """
    if device != "cpu":
        raise _refusal(path, f"device {device!r} was used")


def _refusal(path: Path, what: str) -> EngineError:
    return EngineError(
        f"{path} cannot be run in this process, which was forked after {what}: "
        "start processes by multiprocessing.get_context('spawn')"
    )
