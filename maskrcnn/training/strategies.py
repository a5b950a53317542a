"""The devices that a run uses: one, several of this machine, or several machines."""

import os
from collections.abc import Callable

import tensorflow as tf

from maskrcnn.data.batches import ALONE, Share

_CLUSTER = "TF_CONFIG"  # TensorFlow's own variable: all machines of the cluster, and which one this is


def find_strategy() -> tf.distribute.Strategy:
    """Return the strategy for this machine: several machines if `TF_CONFIG` is set, else all GPUs together.

    With `TF_CONFIG`, it must be called before TensorFlow has computed anything.
    """
    if os.environ.get(_CLUSTER):
        return tf.distribute.MultiWorkerMirroredStrategy()
    if len(tf.config.list_logical_devices("GPU")) > 1:
        return tf.distribute.MirroredStrategy()
    return tf.distribute.get_strategy()


def writes_files(strategy: tf.distribute.Strategy) -> bool:
    """Return whether this process is the one that writes the files."""
    resolver = strategy.cluster_resolver
    if resolver is None or not resolver.cluster_spec().as_dict():
        return True
    return resolver.task_id in (None, 0) and resolver.task_type in (None, "chief", "worker")


def spread(strategy: tf.distribute.Strategy, batches: Callable[[Share], tf.data.Dataset]) -> tf.data.Dataset:
    """Distribute the batches of a run; each process makes only those of its own devices."""
    devices = strategy.num_replicas_in_sync
    if devices == 1:
        return batches(ALONE)

    def of_process(context: tf.distribute.InputContext) -> tf.data.Dataset:
        count = devices // context.num_input_pipelines
        return batches(Share(context.input_pipeline_id * count, count, devices))

    return strategy.distribute_datasets_from_function(of_process)
