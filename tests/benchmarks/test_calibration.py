"""Random classifiers are moved until a fixed number of probabilities is above the threshold."""

import numpy as np
import pytest

from benchmarks import calibration


@pytest.fixture
def logits():
    """200 proposals, 91 classes, with another mean in each class."""
    generator = np.random.default_rng(3)
    return (0.01 * generator.normal(size=(200, 91)) + generator.normal(size=91)).astype(np.float32)


def test_candidates_above_the_score(logits):
    change = calibration.class_layer(logits)
    moved = change.factor * logits.astype(np.float64) + change.bias
    above = 0
    for row in moved:  # softmax, proposal by proposal
        powers = np.exp(row)
        above += sum(power / powers.sum() > calibration.SCORE for power in powers[1:])
    assert abs(above - calibration.CANDIDATES) <= 1
    assert (moved[:, 1:].mean(axis=0)).round(3).tolist() == [0.0] * 90
    assert moved[:, 1:].std() == pytest.approx(calibration.CLASS_STD, rel=0.02)


def test_spread():
    outputs = np.array([1.0, 3.0])  # a standard deviation of 1
    assert calibration.spread(outputs, 2.5) == 2.5
