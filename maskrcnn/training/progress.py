"""How far a run is, with short names of its losses."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import keras

from maskrcnn.configuration.training import TrainingConfig
from maskrcnn.training.short_names import short_facts


class Shown(Protocol):
    """Shows how far something is; see `maskrcnn.commands.progress_bar.Progress`."""

    def __call__(
        self, label: str, done: int, total: int | None, facts: Sequence[str], whole: tuple[int, int] | None
    ) -> None:
        """Show it."""

    def item(self, name: str, facts: Sequence[str]) -> None:
        """Show a line for what is done."""


class TrainingProgress(keras.callbacks.Callback):
    """Shows each step, and a line for each epoch. The time left is that of the run."""

    def __init__(self, training: TrainingConfig, shown: Shown) -> None:
        super().__init__()
        self._shown, self._steps = shown, training.steps_per_epoch
        self._epochs = sum(phase.epochs for phase in training.stages)
        self._epoch = 0

    @property
    def _label(self) -> str:
        return f"epoch {self._epoch + 1}/{self._epochs}"

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:  # noqa: ARG002
        """Show the epoch, of which an interrupted run may have done a part."""
        self._epoch = epoch
        self._show(self._steps - self.params["steps"], {})

    def on_train_batch_end(self, batch: int, logs: Mapping[str, float] | None = None) -> None:
        """Show the step."""
        self._show(self._steps - self.params["steps"] + batch + 1, logs or {})

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        """Print the means of the epoch, with its scores."""
        self._epoch = epoch
        self._shown.item(self._label, short_facts(logs or {}))

    def _show(self, done: int, logs: Mapping[str, float]) -> None:
        whole = (self._epoch * self._steps + done, self._epochs * self._steps)
        self._shown(self._label, done, self._steps, short_facts(logs), whole)
