"""The learning rate of every step."""

import math

import keras
import numpy as np
import pytest

from maskrcnn.training.schedule import LearningRate


def rates(schedule, count):
    return [float(schedule(np.int64(step))) for step in range(count)]


def test_constant():
    assert rates(LearningRate(0.3, 5), 7) == [np.float32(0.3)] * 7


def test_warmup_grows_from_a_thousandth_and_ends_on_the_rate():
    found = rates(LearningRate(0.2, 10, warmup=4), 10)
    expected = [0.2 * (0.001 + 0.999 * step / 4) for step in range(4)]
    np.testing.assert_allclose(found[:4], expected, rtol=1e-6)
    assert found[4:] == [np.float32(0.2)] * 6


@pytest.mark.parametrize("warmup", [0, 3])
def test_cosine_falls_to_nothing_at_the_end_of_the_stage(warmup):
    found = rates(LearningRate(0.2, 11, "cosine", warmup=warmup), 13)
    length = 11 - warmup
    expected = [0.1 * (1 + math.cos(math.pi * min(1, step / length))) for step in range(13 - warmup)]
    np.testing.assert_allclose(found[warmup:], expected, rtol=1e-5, atol=1e-8)
    assert found[warmup] == np.float32(0.2)
    assert found[11] == 0


@pytest.mark.parametrize(
    ("steps", "shares", "starts"),
    [(10, (0.6, 0.9), (6, 9)), (7, (0.5,), (4,)), (3, (1 / 3, 2 / 3), (1, 2)), (1000, (0.1, 0.7), (100, 700))],
)
def test_steps_begin_exactly(steps, shares, starts):
    found = rates(LearningRate(0.5, steps, "step", shares), steps + 2)
    expected = [np.float32(0.5 * 0.1 ** sum(step >= start for start in starts)) for step in range(steps + 2)]
    assert found == expected


def test_a_group_of_batches_has_one_rate():
    grouped = LearningRate(0.2, 12, "cosine", warmup=3, group=3)
    single = LearningRate(0.2, 4, "cosine", warmup=1)
    assert rates(grouped, 12) == pytest.approx(np.repeat(rates(single, 4), 3), rel=1e-6)


def test_survives_serialization():
    schedule = LearningRate(0.2, 12, "step", (0.25, 0.5), 2, 2)
    copy = keras.optimizers.schedules.deserialize(keras.optimizers.schedules.serialize(schedule))
    assert rates(copy, 14) == rates(schedule, 14)
