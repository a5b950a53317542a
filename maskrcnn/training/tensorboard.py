"""TensorBoard logs of a run: losses, learning rate, gradient norm, scores, weights, detections, activations."""

from importlib.util import find_spec
from typing import Any

import keras
import tensorflow as tf

from maskrcnn.checkpoints.named_weights import named_variables
from maskrcnn.intermediates.activations import log_activations
from maskrcnn.training.evaluator import Evaluator
from maskrcnn.training.run import Logs, Run
from runtime.errors import MissingPackageError

_DRAWN_IMAGES = 4


class TensorBoardLog(keras.callbacks.Callback):
    """Writes to the run's `tensorboard` folder, by number of steps.

    Args:
        evaluator: Draws detections on the first validation images, or training images if there are none.
        every: Steps between two points of the curves. The losses are means since the epoch began.

    Raises:
        MissingPackageError: The package `tensorboard` is missing.
    """

    def __init__(self, run: Run, evaluator: Evaluator, every: int) -> None:
        super().__init__()
        if find_spec("tensorboard") is None:
            raise MissingPackageError("tensorboard", "train", "writing for TensorBoard")
        self._run, self._evaluator, self._every = run, evaluator, every
        self._writer: Any = None

    def _open(self) -> Any:
        # One file for the whole run, which calls `fit` several times.
        if self._writer is None:
            self._writer = tf.summary.create_file_writer(str(self._run.folder.tensorboard))
        return self._writer

    def close(self) -> None:
        """Write out what is buffered; call it after an error too."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def on_train_batch_end(self, batch: int, logs: Logs | None = None) -> None:  # noqa: ARG002
        """Add a point to each curve."""
        step = self._run.counters.step
        if step % self._every:
            return
        rate = float(self.model.optimizer.learning_rate)
        with self._open().as_default(step=step):
            for name, value in {**(logs or {}), "learning_rate": rate}.items():
                tf.summary.scalar(f"train/{name}", value)

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:  # noqa: ARG002
        """Add scores, histograms of the weights, drawn detections and activations."""
        run = self._run
        with self._open().as_default(step=run.counters.step), run.final_weights():
            for name, value in (logs or {}).items():
                kind = "validation" if name.startswith("val_") else "epoch"
                tf.summary.scalar(f"{kind}/{name.removeprefix('val_')}", value)
            for name, variable in named_variables(run.network).items():
                tf.summary.histogram(name, variable.value)
            records = (run.validation or run.plan.dataset).records[:_DRAWN_IMAGES]
            for number, image in enumerate(self._evaluator.drawn_detections(records)):
                tf.summary.image(f"predictions/{number}", image[None])
            log_activations(self._evaluator.activations(records[0]))
        self._writer.flush()
