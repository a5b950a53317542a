"""The optimizer of a training phase: rule, schedule, clipping, weight decay, accumulation and loss scale in Keras.

Keras (version 3.15) averages the gradients of a group, clips them, subtracts the decay from the weights, and then
applies the rule. The running mean of the weights is not Keras' own, see `average`.
"""

import math
from collections.abc import Iterator
from typing import Any

import keras
import tensorflow as tf

from maskrcnn.configuration.require import require
from maskrcnn.configuration.training import TrainingConfig
from runtime.one_line import count_of

WARMUP_START = 0.001
_STEP_FACTOR = 0.1
# Regular expression of the variables that do not decay: scales, offsets and biases.
_NOT_DECAYED = r"(^|/)(gamma|beta|bias)(:\d+)?$"


def warmup_steps(training: TrainingConfig, steps: int) -> int:
    """Return the steps of the warm-up in a phase of `steps`: a tenth of it where the setting would fill the phase."""
    return training.warmup_steps if training.warmup_steps < steps else steps // 10


def short_phases(training: TrainingConfig) -> Iterator[str]:
    """Yield a sentence for each training phase whose warm-up is shortened."""
    for number, phase in enumerate(training.stages, start=1):
        steps = phase.epochs * training.steps_per_epoch
        warmup = warmup_steps(training, steps)
        if warmup != training.warmup_steps:
            yield (
                f"training phase {number} has {count_of(steps, 'step')}, no more than warmup_steps "
                f"({training.warmup_steps}): it warms up for {count_of(warmup, 'step') if warmup else 'no step'}"
            )


def build_optimizer(
    training: TrainingConfig, learning_rate: float, steps: int, replicas: int = 1
) -> keras.optimizers.Optimizer:
    """Make the optimizer of one training phase, not yet built; in mixed precision inside a `LossScaleOptimizer`.

    Args:
        learning_rate: Peak rate of the phase, reached after warm-up.
        steps: Length of the phase in batches; the schedule ends there.
        replicas: Devices that train together. Keras clips on each device before it adds their gradients up, so each
            device must pass the mean gradient of all devices divided by `replicas`; the bound is divided likewise.

    Raises:
        ConfigError: Settings that contradict each other.
    """
    decoupled = training.weight_decay_mode == "decoupled"
    require(
        training.optimizer != "adamw" or decoupled,
        "optimizer 'adamw' applies weight decay itself, but weight_decay_mode is 'l2_mean': set weight_decay_mode to "
        "'decoupled' or optimizer to 'adam'",
    )
    group, warmup = training.gradient_accumulation, warmup_steps(training, steps)
    schedule = LearningRate(learning_rate, steps, training.schedule, training.schedule_steps, warmup, group)
    options: dict[str, Any] = {
        "name": "optimizer",  # Keras would number them, and a resumed run would look for other names
        "learning_rate": schedule,
        "global_clipnorm": training.gradient_clip_norm / replicas,
        "weight_decay": training.weight_decay if decoupled and training.weight_decay else None,
        "gradient_accumulation_steps": group if group > 1 else None,
    }
    optimizer: keras.optimizers.Optimizer
    if training.optimizer == "sgd":
        optimizer = keras.optimizers.SGD(momentum=float(training.momentum), **options)
    else:
        # AdamW is Adam with a decay; Keras' class of that name only insists on one.
        optimizer = keras.optimizers.Adam(**options)
    optimizer.exclude_from_weight_decay(var_names=[_NOT_DECAYED])
    if training.precision == "mixed_float16":
        return keras.optimizers.LossScaleOptimizer(optimizer, name="loss_scale")
    return optimizer


@keras.saving.register_keras_serializable("maskrcnn")
class LearningRate(keras.optimizers.schedules.LearningRateSchedule):
    """Learning rate of each step of a phase: linear warm-up, then constant, in steps, or along a cosine.

    Keras counts every batch as an iteration, even if its gradients are only accumulated. All batches of a group get
    the rate of the first, so groups of n batches train like single batches of n times the size, in a phase (and a
    warm-up) of 1/n of the steps.

    Args:
        peak: Rate after the warm-up.
        steps: Length of the phase in batches.
        schedule: "constant", "step" or "cosine".
        boundaries: Increasing shares of the phase; from each on, the "step" schedule is ten times lower.
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
        """Return the rate, float32 [], of the batch `step`, counted from 0 within the phase."""
        step = tf.cast(tf.convert_to_tensor(step), tf.int64)
        step = step // self.group * self.group
        rate = self._after_warmup(step)
        if not self.warmup:
            return rate
        # float32 counts exactly up to 2^24, and a growth of exactly 1 leaves the peak unchanged.
        share = tf.minimum(tf.cast(step, tf.float32) / float(self.warmup), 1.0)
        return rate * tf.where(share < 1, WARMUP_START + (1 - WARMUP_START) * share, 1.0)

    def _after_warmup(self, step: tf.Tensor) -> tf.Tensor:
        if self.schedule == "cosine":
            length = max(1, self.steps - self.warmup)
            share = tf.clip_by_value(tf.cast(step - self.warmup, tf.float32) / float(length), 0.0, 1.0)
            return self.peak * 0.5 * (1.0 + tf.cos(math.pi * share))
        if self.schedule == "step" and self.boundaries:
            # Integers, so that no rounding moves a boundary by a step.
            starts = tf.constant([math.ceil(share * self.steps - 1e-9) for share in self.boundaries], tf.int64)
            rates = tf.constant([self.peak * _STEP_FACTOR**i for i in range(len(self.boundaries) + 1)], tf.float32)
            return tf.gather(rates, tf.reduce_sum(tf.cast(step >= starts, tf.int32)))
        return tf.constant(self.peak, tf.float32)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of the constructor."""
        return {
            "peak": self.peak,
            "steps": self.steps,
            "schedule": self.schedule,
            "boundaries": list(self.boundaries),
            "warmup": self.warmup,
            "group": self.group,
        }
