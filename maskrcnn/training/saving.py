"""The callbacks that count steps, finish epochs and save the state of a run."""

import json
import math
from collections.abc import Callable, Mapping
from typing import Any

import keras

from maskrcnn.checkpoints.checkpoint import save_checkpoint
from maskrcnn.errors import NonFiniteLossError
from maskrcnn.runs.interruption import Interruption, RunInterruptedError
from maskrcnn.training.run import Logs, Run
from maskrcnn.training.snapshot import capture
from maskrcnn.training.state import save_state
from maskrcnn.training.validation import score_of
from maskrcnn.training.workers import first_signal
from runtime.atomic import atomic_write


class StepCounter(keras.callbacks.Callback):
    """Checks the losses, counts the step and updates the mean weights. Must come first: the others use its counts."""

    def __init__(self, run: Run) -> None:
        super().__init__()
        self._run = run

    def on_train_batch_end(self, batch: int, logs: Mapping[str, float] | None = None) -> None:  # noqa: ARG002
        """Check, count and average.

        Raises:
            NonFiniteLossError: A loss or the gradient is NaN or infinite. The saved state is that of an earlier step.
        """
        run = self._run
        self._check(logs or {})
        run.counters.step += 1
        group = run.config.training.gradient_accumulation
        if run.average is not None and run.counters.step % group == 0:
            run.average.update(run.counters.step // group - 1)

    def _check(self, logs: Mapping[str, float]) -> None:
        run, step = self._run, self._run.counters.step
        # The float16 loss scale finds its size through occasional infinite gradients, whose steps Keras skips.
        scaled = run.config.training.precision == "mixed_float16"
        bad = [n for n, v in logs.items() if not math.isfinite(v) and not (scaled and n == "gradient_norm")]
        if not bad:
            return
        ids = ", ".join(str(image_id) for image_id in run.plan.image_ids(step))
        raise NonFiniteLossError(
            f"step {step + 1}: {', '.join(f'{name} is {logs[name]}' for name in bad)}; the images were {ids}. "
            "Check their annotations or lower learning_rate. The run folder keeps the state of an earlier step"
        )


class EpochFinisher(keras.callbacks.Callback):
    """Scores an epoch, adds it to the history and writes the checkpoints.

    Args:
        run: Its counters and its folder are changed.
        measure: The entry of the logs that rates an epoch; with None, every epoch counts as the best so far.
        patience: Scored epochs without a better score after which the run ends; None never ends it.
        keep: Number of single-epoch checkpoints to keep besides the last and the best.
    """

    def __init__(self, run: Run, measure: str | None, patience: int | None, keep: int) -> None:
        super().__init__()
        self._run, self._measure, self._patience, self._keep = run, measure, patience, keep

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        """Score the epoch and write."""
        run, counters, logs = self._run, self._run.counters, dict(logs or {})
        if self._measure is None:
            best, counters.best_epoch = True, epoch
        else:
            best = counters.add_score(score_of(logs, self._measure), self._patience)
        counters.history.append(logs)
        self.model.stop_training = counters.stopped
        if run.writes:
            self._write(best)

    def _write(self, best: bool) -> None:
        run, folder = self._run, self._run.folder
        with run.final_weights():
            save_checkpoint(run.network, folder.last, overwrite=True)
            if best:
                save_checkpoint(run.network, folder.best, overwrite=True)
            if self._keep:
                save_checkpoint(run.network, folder.epoch(run.counters.epochs), overwrite=True)
        if self._keep:
            for path in sorted(folder.path.glob("epoch-*.weights.h5"))[: -self._keep]:
                path.unlink(missing_ok=True)
        with atomic_write(folder.history, overwrite=True) as temporary:
            temporary.write_text(json.dumps(run.counters.history, indent=2) + "\n", encoding="utf-8")


class StateSaver(keras.callbacks.Callback):
    """Saves the state and ends an interrupted run. Must come last, so that the state includes all other callbacks.

    Args:
        every: Steps between two saves; 0 saves after epochs only.
    """

    def __init__(self, run: Run, interruption: Interruption, every: int) -> None:
        super().__init__()
        self._run, self._interruption, self._every = run, interruption, every
        self._resumed: Callable[[], None] | None = None

    def resume_with(self, action: Callable[[], None]) -> None:
        """Call `action` once, after the next epoch has begun (and Keras has reset its metrics)."""
        self._resumed = action

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:  # noqa: ARG002
        """Restore the metrics of an epoch that was interrupted."""
        if self._resumed is not None:
            self._resumed()
            self._resumed = None

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:  # noqa: ARG002
        """Save if a save is due or the run is to end."""
        step = self._run.counters.step
        # The state after an epoch's last step is saved by `on_epoch_end`.
        due = self._every and step % self._every == 0 and step % self._run.config.training.steps_per_epoch
        self._save_and_end(bool(due))

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:  # noqa: ARG002
        """Save."""
        self._save_and_end(True)

    def _save_and_end(self, due: bool) -> None:
        signal = first_signal(self.model.distribute_strategy, self._interruption.signal)
        ends = signal is not None
        if ends:
            self._interruption.signal = signal
        if (due or ends) and self._run.writes:
            save_state(self._run.folder.state, capture(self._run))
        if ends:
            raise RunInterruptedError
