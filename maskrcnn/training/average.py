"""The running mean of all weights.

Keras' optimizers have one too, but theirs starts again with each training phase, also moves on batches whose gradients
are only accumulated, leaves out moving statistics, and replaces the weights whenever `fit` returns.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import tensorflow as tf

from maskrcnn.checkpoints.matterport_h5 import Arrays
from maskrcnn.checkpoints.named_weights import get_arrays, named_variables, set_arrays
from maskrcnn.model import MaskRCNN


class WeightAverage:
    """Exponential moving mean of a network's weights. Make it under the strategy that made the network.

    Args:
        network: Its present weights are the first mean.
        momentum: Weight of the past in each update.
    """

    def __init__(self, network: MaskRCNN, momentum: float) -> None:
        self.network, self.momentum = network, momentum
        self._strategy = tf.distribute.get_strategy()
        self._weights = {key: variable.value for key, variable in named_variables(network).items()}
        self._means = {
            key: tf.Variable(weight.numpy(), trainable=False, dtype=weight.dtype)
            for key, weight in self._weights.items()
        }
        self._update = tf.function(self._update_all)

    def update(self, count: int) -> None:
        """Add the present weights to the mean.

        Args:
            count: Number of earlier updates. The first updates weigh the past less, because the initial weights are
                not a result of training: momentum is at most (1 + count) / (10 + count).
        """
        momentum = min(self.momentum, (1 + count) / (10 + count))
        self._update(tf.constant(momentum, tf.float32))

    def _update_all(self, momentum: tf.Tensor) -> None:
        def blend(mean: tf.Variable, weight: tf.Tensor) -> None:
            mean.assign(momentum * mean + (1.0 - momentum) * weight)

        for key, mean in self._means.items():
            self._strategy.extended.update(mean, blend, args=(self._weights[key],), group=False)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Give the network the mean weights inside a `with` block."""
        kept = get_arrays(self.network)
        self.overwrite()
        try:
            yield
        finally:
            set_arrays(self.network, kept, "the weights")

    def overwrite(self) -> None:
        """Give the network the mean weights for good."""
        set_arrays(self.network, self.get(), "the mean of the weights")

    def get(self) -> Arrays:
        """Return the mean weights as float32 arrays by "<layer>/<variable>"."""
        return {key: np.asarray(mean.numpy(), np.float32) for key, mean in self._means.items()}

    def set(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Restore what `get` returned."""
        for key, mean in self._means.items():
            mean.assign(arrays[key])
