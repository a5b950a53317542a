"""Engines in a process that was forked after they were used: the child has their memory, but not their threads.

TensorFlow and OpenVINO then wait forever for threads that do not exist, or abort. ONNX Runtime works in a session that
the child opens itself, but waits forever when a session of the parent is freed, and in its library's own cleanup when
the child ends; so does OpenVINO. So the child frees none of these objects and ends without that cleanup.
"""

import ctypes
import os
import sys
import threading
from pathlib import Path
from typing import Any
from weakref import WeakSet

from runtime.errors import EngineError

_LOST = {"tensorflow": "TensorFlow", "openvino": "OpenVINO"}  # modules of engines that a child cannot use


class _Process:
    """What this process knows about the process that it was forked from, if any."""

    def __init__(self) -> None:
        self.sessions: WeakSet[Any] = WeakSet()
        self.reopening = threading.Lock()
        self.lost: set[str] = set()

    def forked(self) -> None:
        """Run in a new child, before any other thread."""
        self.reopening = threading.Lock()  # a thread that does not exist here may hold the old one
        self.lost |= _LOST.keys() & sys.modules
        sessions = list(self.sessions)
        self.sessions.clear()
        for session in sessions:
            # A reference that is never released: when the child ends, it would free what a Python list holds.
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(session))
        libc = ctypes.CDLL(None)
        if sessions and hasattr(libc, "on_exit"):
            # Of the C library's exit handlers, the last one registered runs first, after Python's cleanup: it ends the
            # process with its exit status, before the handlers of the engines.
            libc.on_exit(libc._exit, None)


_process = _Process()
if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(after_in_child=_process.forked)


def keep_in_children(session: Any) -> None:
    """Keep a session of ONNX Runtime, or an object of OpenVINO, from being freed in children of this process."""
    _process.sessions.add(session)


def reopening() -> threading.Lock:
    """Return the lock for reopening an artifact in a child."""
    return _process.reopening


def refuse_lost(path: Path, package: str) -> None:
    """Raise EngineError in a child whose parent had loaded the package of an engine that children cannot use."""
    if package in _process.lost:
        raise _refusal(path, f"{_LOST[package]} was loaded")


def refuse_gpu(path: Path, device: str) -> None:
    """Raise EngineError, in a child, if its parent had opened the artifact on a GPU."""
    if device != "cpu":
        raise _refusal(path, f"device {device!r} was used")


def _refusal(path: Path, what: str) -> EngineError:
    return EngineError(
        f"{path} cannot be run in this process, which was forked after {what}: "
        "start processes with multiprocessing.get_context('spawn')"
    )
