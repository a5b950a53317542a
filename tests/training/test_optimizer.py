"""The optimizer against the rules written out in float64, and the learning rate of every step."""

import math
from dataclasses import replace

import keras
import numpy as np
import pytest
import tensorflow as tf

from maskrcnn.configuration.overrides import choose_stages
from maskrcnn.configuration.samples import SAMPLES, sample_config
from maskrcnn.configuration.training import StageConfig, TrainingConfig
from maskrcnn.errors import ConfigError
from maskrcnn.training.optimizer import LearningRate, build_optimizer, short_phases, warmup_steps

RNG = np.random.default_rng(3)
START = {"kernel": RNG.normal(size=(3, 4)), "bias": RNG.normal(size=4), "gamma": RNG.normal(size=4)}
GRADIENTS = [
    {name: RNG.normal(size=value.shape) * size for name, value in START.items()} for size in (0.3, 4, 0.1, 9, 1, 1)
]


def variables():
    return {name: keras.Variable(value, dtype="float32", name=name) for name, value in START.items()}


def run(training, gradients, rate=0.1, replicas=1, steps=100):
    """Return the weights after each call of `apply`."""
    optimizer = build_optimizer(training, rate, steps, replicas)
    weights = variables()
    path = []
    for step in gradients:
        values = [tf.constant(step[name] / replicas, tf.float32) for name in weights]
        optimizer.apply(values, list(weights.values()))
        path.append({name: weight.numpy() for name, weight in weights.items()})
    return path


def clipped(gradient, bound):
    norm = math.sqrt(sum(float(np.sum(value**2)) for value in gradient.values()))
    return {name: value * min(1, bound / norm) for name, value in gradient.items()}


def assert_same(found, expected):
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        for name in START:
            np.testing.assert_allclose(one[name], other[name], rtol=2e-5, atol=1e-5)


def sgd(gradients, rate, momentum, bound, decay=0.0):
    weights, speed, path = dict(START), dict.fromkeys(START, 0.0), []
    for step, gradient in enumerate(gradients):
        now = rate(step)
        for name, value in clipped(gradient, bound).items():
            if name == "kernel":
                weights[name] = weights[name] * (1 - now * decay)
            speed[name] = momentum * speed[name] - now * value
            weights[name] = weights[name] + speed[name]
        path.append(dict(weights))
    return path


def test_momentum_with_a_bound_on_the_norm_of_all_gradients():
    found = run(TrainingConfig(momentum=0.8, gradient_clip_norm=2.0), GRADIENTS)
    assert_same(found, sgd(GRADIENTS, lambda _: 0.1, 0.8, 2.0))


def test_the_bound_is_not_one_per_variable():
    found = run(TrainingConfig(momentum=0.0, gradient_clip_norm=2.0), GRADIENTS[1:2])[0]
    moved = math.sqrt(sum(float(np.sum((found[name] - START[name]) ** 2)) for name in START))
    assert moved == pytest.approx(0.1 * 2.0, rel=1e-5)


def test_decay_takes_from_kernels_only():
    training = TrainingConfig(weight_decay_mode="decoupled", weight_decay=0.5, momentum=0.9)
    assert_same(run(training, GRADIENTS), sgd(GRADIENTS, lambda _: 0.1, 0.9, 5.0, decay=0.5))


def test_penalty_in_the_loss_is_no_matter_of_the_optimizer():
    training = TrainingConfig(weight_decay_mode="l2_mean", weight_decay=0.5, momentum=0.9)
    assert_same(run(training, GRADIENTS), sgd(GRADIENTS, lambda _: 0.1, 0.9, 5.0))


@pytest.mark.parametrize("decay", [0.0, 0.3])
def test_adamw(decay):
    training = TrainingConfig(optimizer="adamw", weight_decay_mode="decoupled", weight_decay=decay)
    weights, mean, square, expected = dict(START), dict.fromkeys(START, 0.0), dict.fromkeys(START, 0.0), []
    for step, gradient in enumerate(GRADIENTS, start=1):
        for name, value in clipped(gradient, 5.0).items():
            if name == "kernel":
                weights[name] = weights[name] * (1 - 0.1 * decay)
            mean[name] = 0.9 * mean[name] + 0.1 * value
            square[name] = 0.999 * square[name] + 0.001 * value**2
            scale = math.sqrt(1 - 0.999**step) / (1 - 0.9**step)
            weights[name] = weights[name] - 0.1 * scale * mean[name] / (np.sqrt(square[name]) + 1e-7)
        expected.append(dict(weights))
    assert_same(run(training, GRADIENTS), expected)


def test_adamw_with_a_penalty_in_the_loss_is_refused():
    with pytest.raises(ConfigError, match=r"'adamw'.*'decoupled'"):
        build_optimizer(TrainingConfig(optimizer="adamw"), 0.1, 10)


@pytest.mark.parametrize(
    ("asked", "steps", "given"),
    [(99, 100, 99), (100, 100, 10), (1000, 25, 2), (10, 9, 0), (1, 1, 0), (0, 1, 0), (10**9, 15_000, 1500)],
)
def test_a_warmup_that_would_fill_the_phase_takes_a_tenth_of_it(asked, steps, given):
    training = TrainingConfig(warmup_steps=asked)
    assert warmup_steps(training, steps) == given
    schedule = build_optimizer(training, 0.1, steps)._learning_rate
    assert schedule.warmup == given
    assert float(schedule(given)) == np.float32(0.1)  # the rate is reached, and stays


def test_a_shortened_warmup_is_said_for_each_phase():
    stages = (StageConfig("heads", 1), StageConfig("all", 4), StageConfig("all", 2))
    found = list(short_phases(TrainingConfig(warmup_steps=60, steps_per_epoch=25, stages=stages)))
    assert found == [
        "training phase 1 has 25 steps, no more than warmup_steps (60): it warms up for 2 steps",
        "training phase 3 has 50 steps, no more than warmup_steps (60): it warms up for 5 steps",
    ]
    assert list(short_phases(TrainingConfig(stages=stages))) == []


@pytest.mark.parametrize("name", SAMPLES)
def test_every_sample_can_be_tried_for_one_short_epoch(name):
    """A first training, as with `--epochs 1` and a few steps."""
    training = choose_stages(sample_config(name), "all", 1).training
    for steps in (1, 2, 25):
        build_optimizer(replace(training, steps_per_epoch=steps), training.learning_rate, steps)


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_accumulating_is_one_large_batch(optimizer):
    options = {
        "optimizer": optimizer,
        "schedule": "cosine",
        "weight_decay_mode": "decoupled",
        "weight_decay": 0.1,
        "gradient_clip_norm": 1.0,
    }
    small = run(TrainingConfig(gradient_accumulation=3, warmup_steps=3, **options), GRADIENTS, steps=6)
    means = [{n: sum(g[n] for g in GRADIENTS[i : i + 3]) / 3 for n in START} for i in (0, 3)]
    large = run(TrainingConfig(warmup_steps=1, **options), means, steps=2)
    assert_same([small[2], small[5]], large)
    for name, start in START.items():  # nothing moves in between, not even because of weight decay
        np.testing.assert_array_equal(small[1][name], start.astype(np.float32))
        np.testing.assert_array_equal(small[4][name], small[2][name])


def test_the_rate_of_each_step_reaches_the_weights():
    training = TrainingConfig(schedule="step", schedule_steps=(0.5,), warmup_steps=2, momentum=0.5)
    rates = [0.1 * 0.001, 0.1 * (0.001 + 0.999 / 2), 0.1, 0.01, 0.01, 0.01]
    assert_same(run(training, GRADIENTS, steps=6), sgd(GRADIENTS, lambda step: rates[step], 0.5, 5.0))


def test_mixed_float16_scales_the_loss_and_skips_what_overflows():
    optimizer = build_optimizer(TrainingConfig(precision="mixed_float16", momentum=0.0), 0.1, 10)
    assert isinstance(optimizer, keras.optimizers.LossScaleOptimizer)
    weight = keras.Variable([1.0], dtype="float32")
    scale = float(optimizer.scale_loss(tf.constant(1.0)))
    assert scale > 1
    optimizer.apply([tf.constant([2.0 * scale])], [weight])
    np.testing.assert_allclose(weight.numpy(), [0.8], rtol=1e-6)
    optimizer.apply([tf.constant([math.inf])], [weight])
    np.testing.assert_allclose(weight.numpy(), [0.8], rtol=1e-6)
    assert float(optimizer.scale_loss(tf.constant(1.0))) == scale / 2


def rates(schedule, count):
    """Return the learning rates of the first `count` steps."""
    return [float(schedule(np.int64(step))) for step in range(count)]


def test_constant_rate():
    assert rates(LearningRate(0.3, 5), 7) == [np.float32(0.3)] * 7


def test_warmup_grows_from_a_thousandth_and_ends_on_the_rate():
    found = rates(LearningRate(0.2, 10, warmup=4), 10)
    expected = [0.2 * (0.001 + 0.999 * step / 4) for step in range(4)]
    np.testing.assert_allclose(found[:4], expected, rtol=1e-6)
    assert found[4:] == [np.float32(0.2)] * 6


@pytest.mark.parametrize("warmup", [0, 3])
def test_cosine_falls_to_zero_at_the_end_of_the_phase(warmup):
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
