"""Ctrl-C and SIGTERM: the step is finished and the state saved before the run ends."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class RunInterruptedError(Exception):
    """Unwinds `fit` after the state was saved; never leaves `train`."""


class Interruption:
    """Whether somebody wants the run to end.

    Attributes:
        signal: Number of the signal that came, or None.
    """

    def __init__(self) -> None:
        self.signal: int | None = None

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self.signal = number
        # A second one ends the process at once, as it does without us.
        for each, handler in self._before.items():
            signal.signal(each, handler)

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Take note of the signals for the time of a block. In a thread that is not the main one none arrive."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        self._before = {each: signal.signal(each, self._note) for each in _SIGNALS}
        try:
            yield
        finally:
            for each, handler in self._before.items():
                signal.signal(each, handler)
