"""After each step: refuse a loss that is no number, count, and move the mean of the weights."""

import math
from collections.abc import Mapping

import keras

from maskrcnn.errors import NonFiniteLossError
from maskrcnn.training.run import Run


class StepCallback(keras.callbacks.Callback):
    """The first callback of a run: those after it see the counters of the finished step.

    Args:
        run: What is counted.
    """

    def __init__(self, run: Run) -> None:
        super().__init__()
        self._run = run

    def on_train_batch_end(self, batch: int, logs: Mapping[str, float] | None = None) -> None:  # noqa: ARG002
        """Check, count, average.

        Raises:
            NonFiniteLossError: A loss or the gradient is NaN or infinite. The saved state is that of an earlier step.
        """
        run = self._run
        self._check(logs or {})
        run.progress.step += 1
        group = run.config.training.gradient_accumulation
        if run.average is not None and run.progress.step % group == 0:
            run.average.update(run.progress.step // group - 1)

    def _check(self, logs: Mapping[str, float]) -> None:
        run, step = self._run, self._run.progress.step
        # With float16 an infinite gradient now and then is how the loss scale finds its size; Keras skips the step.
        scaled = run.config.training.precision == "mixed_float16"
        bad = [n for n, v in logs.items() if not math.isfinite(v) and not (scaled and n == "gradient_norm")]
        if not bad:
            return
        ids = ", ".join(str(image_id) for image_id in run.plan.image_ids(step))
        raise NonFiniteLossError(
            f"step {step + 1}: {', '.join(f'{name} is {logs[name]}' for name in bad)}; the pictures were {ids}. "
            "Look at their annotations, or lower learning_rate; the state of an earlier step stays in the run's folder"
        )
