"""The soak's check: what it lets pass, and the leak that it catches."""

import pytest
from faults import in_clean_process
from soaked import Finding

from benchmarks import soak
from runtime import Predictor


@pytest.fixture
def no_collection(monkeypatch):
    """Collecting the garbage of a process full of models takes seconds, and nothing here makes any."""
    monkeypatch.setattr(soak.gc, "collect", lambda: 0)


@pytest.mark.usefixtures("no_collection")
@pytest.mark.parametrize(
    ("resident", "growth", "passed"),
    [
        ([100, 190, 191, 209, 200], 19, True),  # what comes before the second hundred is not held against it
        ([100, 190, 191, 211, 200], 21, False),  # memory that was given back was needed all the same
        ([300, 200, 150, 150, 150], -50, True),
    ],
)
def test_growth_counts_from_the_settled_predictions(monkeypatch, picture, resident, growth, passed):
    monkeypatch.setattr(soak, "_resident", iter(resident).__next__)
    outcome = soak.soak(Finding(), picture, soak.Soak(500, 200, 20.0, random_shapes=False))
    assert outcome.predictions == [100, 200, 300, 400, 500]
    assert (outcome.growth, outcome.passed, outcome.detections) == (growth, passed, 500)


@pytest.mark.usefixtures("no_collection")
def test_shapes(picture):
    fixed, random = Finding(), Finding()
    for predictor, shapes in ((fixed, False), (random, True)):
        soak.soak(predictor, picture, soak.Soak(200, 100, 1e6, random_shapes=shapes))
    assert set(fixed.sizes) == {picture.shape[:2]}
    assert len(set(random.sizes)) > 100
    for side in (0, 1):
        assert {size[side] % 16 for size in random.sizes} == {0}
        assert max(size[side] for size in random.sizes) > 0.9 * picture.shape[side]


def test_planted_leak_is_caught_and_no_other():
    """Pages of the leak are written to, so that they count as resident: 200 x 0.5 MB.

    In a process of its own: one that ran other tests has free memory, in which a leak does not show.
    """
    passed, _ = in_clean_process("soaked", "growth", 0)
    assert passed
    passed, growth = in_clean_process("soaked", "growth", 500_000)
    assert not passed
    assert 80 < growth < 130


@pytest.mark.slow
@pytest.mark.parametrize("random_shapes", [False, True])
def test_openvino_does_not_leak(pytestconfig, picture, random_shapes):
    with Predictor(pytestconfig.rootpath / "maskrcnn" / "demo.onnx", "openvino") as predictor:
        outcome = soak.soak(predictor, picture, soak.Soak(3500, 500, 20.0, random_shapes=random_shapes))
    assert outcome.detections > 1000
    assert outcome.passed, outcome.resident


@pytest.mark.slow
def test_predictor_does_not_leak(onnx_artifact, savedmodel_artifact, picture):
    for path in (onnx_artifact, savedmodel_artifact):
        with Predictor(path, "cpu") as predictor:
            outcome = soak.soak(predictor, picture, soak.Soak(1000, 500, 20.0, random_shapes=False))
            assert outcome.detections > 1000
            assert outcome.passed, outcome.resident
            leaky = soak.soak(predictor, picture, soak.Soak(600, 200, 20.0, random_shapes=False), leak=1_000_000)
            assert not leaky.passed, leaky.resident
