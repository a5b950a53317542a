"""Learning rate of every step: linear warm-up, then constant, in steps, or along a cosine."""

import math
from typing import Any

import keras
import tensorflow as tf

WARMUP_START = 0.001
_STEP_FACTOR = 0.1


@keras.saving.register_keras_serializable("maskrcnn")
class LearningRate(keras.optimizers.schedules.LearningRateSchedule):
    """Rate as a function of the step inside a stage.

    Keras counts every batch as an iteration, also those whose gradients are only accumulated. The rate is that of the
    first batch of its group, so that groups of n batches see what single batches of n times the size would see in a
    stage (and a warm-up) of an n-th of the steps.

    Args:
        peak: Rate after the warm-up.
        steps: Length of the stage in batches.
        schedule: "constant", "step" or "cosine".
        boundaries: Shares of the stage, growing, from each of which on the "step" schedule is ten times lower.
        warmup: Batches of linear growth from `WARMUP_START * peak`; batch `warmup` is the first at `peak`.
        group: Batches whose gradients are averaged before the weights change.
    """

    def __init__(
        self,
        peak: float,
        steps: int,
        schedule: str = "constant",
        boundaries: tuple[float, ...] = (),
        warmup: int = 0,
        group: int = 1,
    ) -> None:
        super().__init__()
        self.peak, self.steps, self.schedule = peak, steps, schedule
        self.boundaries, self.warmup, self.group = tuple(boundaries), warmup, group

    def __call__(self, step: Any) -> tf.Tensor:
        """Rate float32 [] of the batch `step`, counted from 0 in the stage."""
        step = tf.cast(tf.convert_to_tensor(step), tf.int64)
        step = step // self.group * self.group
        rate = self._after_warmup(step)
        if not self.warmup:
            return rate
        # A float32 counts exactly to 2^24, and a growth of exactly 1 leaves the peak untouched.
        share = tf.minimum(tf.cast(step, tf.float32) / float(self.warmup), 1.0)
        return rate * tf.where(share < 1, WARMUP_START + (1 - WARMUP_START) * share, 1.0)

    def _after_warmup(self, step: tf.Tensor) -> tf.Tensor:
        if self.schedule == "cosine":
            length = max(1, self.steps - self.warmup)
            share = tf.clip_by_value(tf.cast(step - self.warmup, tf.float32) / float(length), 0.0, 1.0)
            return self.peak * 0.5 * (1.0 + tf.cos(math.pi * share))
        if self.schedule == "step" and self.boundaries:
            # Whole numbers, so that no rounding moves a boundary by a step.
            starts = tf.constant([math.ceil(share * self.steps - 1e-9) for share in self.boundaries], tf.int64)
            rates = tf.constant([self.peak * _STEP_FACTOR**i for i in range(len(self.boundaries) + 1)], tf.float32)
            return tf.gather(rates, tf.reduce_sum(tf.cast(step >= starts, tf.int32)))
        return tf.constant(self.peak, tf.float32)

    def get_config(self) -> dict[str, Any]:
        """Arguments of the constructor."""
        return {
            "peak": self.peak,
            "steps": self.steps,
            "schedule": self.schedule,
            "boundaries": list(self.boundaries),
            "warmup": self.warmup,
            "group": self.group,
        }
