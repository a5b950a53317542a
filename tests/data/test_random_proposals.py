"""Proposals that replace those of the RPN, and that they reach the heads."""

import numpy as np
import pytest
import tensorflow as tf
from training_runs import pictures, tiny

from maskrcnn.data.batches import BatchPlan, make_batch, training_batches, validation_batches
from maskrcnn.data.random_proposals import random_proposals
from maskrcnn.model import MaskRCNN
from maskrcnn.training.fresh import fresh_weights
from maskrcnn.training.model import TrainingModel

SIZE = (64, 128)
OBJECTS = np.array([[10, 20, 18, 30], [0, 0, 3, 128], [60, 100, 64, 101]])


def drawn(boxes=OBJECTS, count=3000, seed=0):
    """Proposals in input pixels, far sides exclusive."""
    found = random_proposals(np.asarray(boxes).reshape(-1, 4), SIZE, count, np.random.default_rng(seed))
    assert found.dtype == np.float32
    assert found.min() >= 0
    assert found.max() <= 1
    pixels = found.astype(np.float64) * [63, 127, 63, 127] + [0, 0, 1, 1]
    np.testing.assert_allclose(pixels, np.rint(pixels), atol=1e-4)
    return np.rint(pixels).astype(int)


def test_nine_in_ten_lie_around_the_objects_in_turn():
    found = drawn()
    for number, (y1, x1, y2, x2) in enumerate(OBJECTS):
        own = found[number : 2700 : len(OBJECTS)]
        limits = [max(2 * y1 - y2, 0), max(2 * x1 - x2, 0), min(2 * y2 - y1, 64), min(2 * x2 - x1, 128)]
        np.testing.assert_array_equal([*own[:, :2].min(axis=0), *own[:, 2:].max(axis=0)], limits)  # all of the reach
    rest = found[2700:]
    assert rest[:, :2].min() < 3
    assert rest[:, 2].max() > 60
    assert rest[:, 3].max() > 120


@pytest.mark.parametrize(
    "boxes",
    [[], OBJECTS, np.tile(OBJECTS, (40, 1)), [[9.25, 3.5, 9.75, 3.625], [63.5, 127.5, 64.0, 128.0]]],
    ids=["none", "three", "more than proposals", "parts of a pixel"],
)
def test_all_have_an_area_and_lie_inside(boxes):
    found = drawn(boxes, 100)
    assert found.shape == (100, 4)
    assert (found[:, :2] < found[:, 2:]).all()
    assert (found[:, :2] >= 0).all()
    assert (found[:, 2:] <= SIZE).all()


def test_every_pair_of_edges_is_equally_likely():
    found = random_proposals(np.zeros((0, 4)), (3, 3), 60_000, np.random.default_rng(0))
    _, counts = np.unique(np.rint(found[:, [0, 2]] * 2), axis=0, return_counts=True)
    assert len(counts) == 6  # 0 to 1, 2 or 3; 1 to 2 or 3; 2 to 3
    np.testing.assert_allclose(counts, 10_000, rtol=0.05)


def test_batches_have_them_if_asked():
    usual, config = tiny(), tiny(use_rpn_proposals=False)
    plan = BatchPlan(pictures(), 2)
    assert "proposals" not in make_batch(usual, plan, 0)
    expected = make_batch(config, plan, 1)
    assert expected["proposals"].shape == (2, 50, 4)
    (batch,) = training_batches(config, plan, first_step=1).take(1)
    np.testing.assert_array_equal(batch["proposals"], expected["proposals"])
    (batch,) = validation_batches(config, pictures(), 2).take(1)
    assert batch["proposals"].shape == (2, 50, 4)
    (batch,) = training_batches(usual, plan).take(1)
    assert "proposals" not in batch


def test_the_heads_train_on_them(monkeypatch):
    def refuse(*_):
        raise AssertionError("the proposals of the RPN were asked for")

    config = tiny(use_rpn_proposals=False)
    network = MaskRCNN(config)
    fresh_weights(network, 0)
    monkeypatch.setattr(TrainingModel, "proposals", refuse)
    batch = make_batch(config, BatchPlan(pictures(), 2), 0)
    losses = TrainingModel(network)({name: tf.constant(array) for name, array in batch.items()}, training=True)
    assert all(float(loss.mean()) > 0 for loss in losses)  # objects were found without a trained RPN
