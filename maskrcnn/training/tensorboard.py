"""What TensorBoard shows: losses, learning rate, gradient norm, scores, weights, predictions, activations."""

from importlib.util import find_spec
from typing import Any

import keras
import tensorflow as tf

from maskrcnn.checkpoints.named_weights import named_variables
from maskrcnn.intermediates.activations import log_activations
from maskrcnn.training.judging import Judge
from maskrcnn.training.progress import Logs
from maskrcnn.training.run import Run
from runtime.errors import MissingPackageError

_SKETCHES = 4


class TensorBoardLog(keras.callbacks.Callback):
    """Writes to the run's `tensorboard` folder; the axis is the number of steps.

    Args:
        run: Where it writes, and how far the run is.
        judge: Draws predictions, on the first pictures of the validation, or else of the training.
        every: Steps from one point of the curves to the next. The losses are means since the epoch began.

    Raises:
        MissingPackageError: The package `tensorboard` is missing.
    """

    def __init__(self, run: Run, judge: Judge, every: int) -> None:
        super().__init__()
        if find_spec("tensorboard") is None:
            raise MissingPackageError("tensorboard", "train", "writing for TensorBoard")
        self._run, self._judge, self._every = run, judge, every
        self._writer: Any = None

    def _open(self) -> Any:
        # One file for the whole run, which calls `fit` several times.
        if self._writer is None:
            self._writer = tf.summary.create_file_writer(str(self._run.folder.tensorboard))
        return self._writer

    def close(self) -> None:
        """Write out what is waiting, also after an error."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def on_train_batch_end(self, batch: int, logs: Logs | None = None) -> None:  # noqa: ARG002
        """A point on each curve."""
        step = self._run.progress.step
        if step % self._every:
            return
        rate = float(self.model.optimizer.learning_rate)
        with self._open().as_default(step=step):
            for name, value in {**(logs or {}), "learning_rate": rate}.items():
                tf.summary.scalar(f"train/{name}", value)

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:  # noqa: ARG002
        """Scores, histograms of the weights, predictions, activations."""
        run = self._run
        with self._open().as_default(step=run.progress.step), run.final_weights():
            for name, value in (logs or {}).items():
                kind = "validation" if name.startswith("val_") else "epoch"
                tf.summary.scalar(f"{kind}/{name.removeprefix('val_')}", value)
            for name, variable in named_variables(run.network).items():
                tf.summary.histogram(name, variable.value)
            records = (run.validation or run.plan.dataset).records[:_SKETCHES]
            for number, picture in enumerate(self._judge.sketches(records)):
                tf.summary.image(f"predictions/{number}", picture[None])
            log_activations(self._judge.activations(records[0]))
        self._writer.flush()
