"""Ctrl-C and SIGTERM end a run after the current step, with its state saved."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class RunInterruptedError(Exception):
    """Ends `fit` after the state is saved; `train` catches it."""


class Interruption:
    """A request to end the run.

    Attributes:
        signal: Number of the received signal, if any.
    """

    def __init__(self) -> None:
        self.signal: int | None = None

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self.signal = number
        # A second signal ends the process at once, as it would without this handler.
        for each, handler in self._before.items():
            signal.signal(each, handler)

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Note signals during a block. Only the main thread receives any."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        self._before = {each: signal.signal(each, self._note) for each in _SIGNALS}
        try:
            yield
        finally:
            for each, handler in self._before.items():
                signal.signal(each, handler)
