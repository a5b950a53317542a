"""The same run twice: seeds, and operations whose sums do not depend on which thread is first."""

import keras
import tensorflow as tf


def make_repeatable(seed: int) -> None:
    """Set every global seed; on the CPU also ask TensorFlow for repeatable operations, until the process ends.

    Without the latter the gradient of sampled features is summed in an order that now and then differs in the last
    bit. It costs nothing that can be measured there. On a GPU some operations would become slow, or are refused; runs
    on a GPU repeat up to such rounding.
    """
    keras.utils.set_random_seed(seed)
    if not tf.config.list_physical_devices("GPU"):
        tf.config.experimental.enable_op_determinism()
