"""The optimizer of a stage: rule, clipping, weight decay, accumulation and loss scale, as Keras objects.

What Keras does with the settings (version 3.15): gradients of a group are averaged, then clipped, then the decay is
taken off the weights, then the rule is applied. The running mean of the weights is not Keras' own, see `ema`.
"""

from typing import Any

import keras

from maskrcnn.configuration.require import require
from maskrcnn.configuration.training import TrainingConfig
from maskrcnn.training.schedule import LearningRate

# A regular expression of variable names: scales, offsets and biases are not drawn towards zero.
_NOT_DECAYED = r"(^|/)(gamma|beta|bias)(:\d+)?$"


def build_optimizer(
    training: TrainingConfig, learning_rate: float, steps: int, replicas: int = 1
) -> keras.optimizers.Optimizer:
    """Make the optimizer of one stage.

    Args:
        training: The settings.
        learning_rate: Of the stage, after warm-up.
        steps: Length of the stage in batches; the schedule ends there.
        replicas: Devices that train together. Keras clips on each device before it adds their gradients up, so each
            device must hand over the mean gradient of all divided by `replicas`; the bound is divided likewise.

    Returns:
        A Keras optimizer, not yet built; with precision "mixed_float16" inside a `LossScaleOptimizer`.

    Raises:
        ConfigError: Settings that contradict each other.
    """
    decoupled = training.weight_decay_mode == "decoupled"
    require(
        training.optimizer != "adamw" or decoupled,
        "optimizer 'adamw' decays weights itself, and weight_decay_mode is 'l2_mean': set it to 'decoupled', or "
        "optimizer to 'adam'",
    )
    require(
        training.warmup_steps < steps,
        f"warmup_steps is {training.warmup_steps}, the stage has {steps} steps: the rate would never be reached",
    )
    group = training.gradient_accumulation
    schedule = LearningRate(
        learning_rate, steps, training.schedule, training.schedule_steps, training.warmup_steps, group
    )
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
