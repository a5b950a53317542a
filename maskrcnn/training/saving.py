"""Save the state: every so many steps, after each epoch, and when the run is to end early."""

from collections.abc import Callable
from typing import Any

import keras

from maskrcnn.interruption import Interruption, RunInterruptedError
from maskrcnn.training.run import Run
from maskrcnn.training.snapshot import capture
from maskrcnn.training.state import save_state


class StateSaver(keras.callbacks.Callback):
    """The last callback of a run, so that what it saves has been through all others.

    Args:
        run: To be saved.
        interruption: Whether somebody wants it to end.
        every: Steps from one save to the next; 0 saves after epochs only.
    """

    def __init__(self, run: Run, interruption: Interruption, every: int) -> None:
        super().__init__()
        self._run, self._interruption, self._every = run, interruption, every
        self._resumed: Callable[[], None] | None = None

    def resume_with(self, action: Callable[[], None]) -> None:
        """Call `action` once, after the next epoch has begun (and Keras has reset its sums)."""
        self._resumed = action

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:  # noqa: ARG002
        """Put back the sums of an epoch that was cut in two."""
        if self._resumed is not None:
            self._resumed()
            self._resumed = None

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:  # noqa: ARG002
        """Save if it is time to, or if the run is to end."""
        step = self._run.progress.step
        # An epoch's last step is followed by the save of the epoch itself.
        due = self._every and step % self._every == 0 and step % self._run.config.training.steps_per_epoch
        self._save_and_end(bool(due))

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:  # noqa: ARG002
        """Save."""
        self._save_and_end(True)

    def _save_and_end(self, due: bool) -> None:
        ends = self._interruption.signal is not None
        if (due or ends) and self._run.writes:
            save_state(self._run.folder.state, capture(self._run))
        if ends:
            raise RunInterruptedError
