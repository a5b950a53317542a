"""The devices that a run uses: one, several of this machine, or several machines."""

import os
from collections.abc import Callable

import tensorflow as tf

from maskrcnn.data.batches import ALONE, Share
from maskrcnn.errors import WorkerLostError
from maskrcnn.training.cluster import TF_CONFIG, check_cluster


def find_strategy() -> tf.distribute.Strategy:
    """Return the strategy for this machine: several machines if `TF_CONFIG` is set, else all GPUs together.

    With `TF_CONFIG`, it must be called before TensorFlow has computed anything, and waits for the other machines.

    Raises:
        ConfigError: `TF_CONFIG` does not describe a cluster and the task of this machine.
        WorkerLostError: Another machine cannot be reached.
    """
    if os.environ.get(TF_CONFIG):
        check_cluster(os.environ[TF_CONFIG])
        try:
            return tf.distribute.MultiWorkerMirroredStrategy()
        except tf.errors.OpError as error:
            raise WorkerLostError(
                f"the machines of {TF_CONFIG} cannot be connected ({error.message}): check that each runs and that "
                "they reach each other"
            ) from error
    if len(tf.config.list_logical_devices("GPU")) > 1:
        return tf.distribute.MirroredStrategy()
    return tf.distribute.get_strategy()


def spread(strategy: tf.distribute.Strategy, batches: Callable[[Share], tf.data.Dataset]) -> tf.data.Dataset:
    """Distribute the batches of a run; each process makes only those of its own devices."""
    devices = strategy.num_replicas_in_sync
    if devices == 1:
        return batches(ALONE)

    def of_process(context: tf.distribute.InputContext) -> tf.data.Dataset:
        count = devices // context.num_input_pipelines
        return batches(Share(context.input_pipeline_id * count, count, devices))

    return strategy.distribute_datasets_from_function(of_process)
