"""Mixed precision: layers compute in half precision; outputs are float32 and nearly the same."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from training_runs import pictures, tiny

from maskrcnn.data.batches import BatchPlan, make_batch
from maskrcnn.model import MaskRCNN
from maskrcnn.training.fresh import fresh_weights
from maskrcnn.training.model import TrainingModel


@pytest.fixture
def policy():
    before = keras.config.dtype_policy()
    yield keras.config.set_dtype_policy
    keras.config.set_dtype_policy(before)


def batch():
    """Two images with fixed proposals near their objects; the network's own would differ between precisions."""
    arrays = make_batch(tiny(), BatchPlan(pictures(), 2, shuffle=False), 0)
    around = np.random.default_rng(0).normal(0, 0.02, (2, 40, 4)).astype(np.float32)
    boxes = arrays["boxes"].astype(np.float32) / [64, 64, 64, 64]
    corners = np.sort(np.clip(np.repeat(boxes, 4, axis=1) + around, 0, 1).reshape(2, 40, 2, 2), axis=2)
    arrays["proposals"] = corners.reshape(2, 40, 4).astype(np.float32)
    return {name: tf.constant(array) for name, array in arrays.items()}


def losses_of(precision, policy):
    policy(precision)
    network = MaskRCNN(tiny())
    fresh_weights(network, 0)
    policy("float32")
    model, given = TrainingModel(network), batch()
    assert {v.dtype for v in model.trainable_variables} == {"float32"}
    outputs = model.regions(given["images"])
    assert {tensor.dtype for tensor in (*outputs.features, outputs.logits, outputs.deltas)} == {tf.float32}
    with tf.GradientTape() as tape:
        losses = [loss.mean() for loss in model(given, training=True)]
        total = tf.add_n(losses)
    norm = tf.linalg.global_norm(tape.gradient(total, [v.value for v in model.trainable_variables]))
    assert network.backbone.get_layer("conv1").compute_dtype == precision.removeprefix("mixed_")
    return np.array([float(value) for value in (*losses, norm)])


@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
def test_losses_and_gradient_are_nearly_those_of_float32(precision, policy):
    expected = losses_of("float32", policy)
    assert (expected > 0.01).all()  # there are objects, so no loss is trivially 0
    found = losses_of(precision, policy)
    np.testing.assert_allclose(found, expected, rtol=0.05)
    assert not np.array_equal(found, expected)
