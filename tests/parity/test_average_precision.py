"""What parity is for: the demo model scores the same in Keras, as SavedModel and in ONNX."""

import pytest

from maskrcnn.checkpoint_predictor import EVALUATION_SCORE_THRESHOLD, CheckpointPredictor
from maskrcnn.data.synthetic.shapes import shapes_dataset
from maskrcnn.evaluation.evaluate import evaluate
from runtime import Predictor

DIFFERENCE = 0.001


@pytest.fixture(scope="module")
def unseen():
    """The first pictures of the recipe's validation set."""
    return shapes_dataset(25, seed=2)


@pytest.fixture(scope="module")
def expected(demo, unseen):
    evaluation = evaluate(CheckpointPredictor(demo), unseen)
    # What the recipe promises of 200 pictures, with room for the 25: wrong weights would not come near.
    assert evaluation.segm["AP"] > 0.8
    assert evaluation.bbox["AP"] > 0.7
    return evaluation


def test_artifacts_have_the_average_precision_of_the_model(demo_pair, unseen, expected):
    found = evaluate(Predictor(demo_pair.path, "cpu", score_threshold=EVALUATION_SCORE_THRESHOLD), unseen)
    assert abs(len(found.results) - len(expected.results)) <= 2  # a score at the threshold may fall either way
    for kind in ("bbox", "segm"):
        theirs, ours = (getattr(each, kind).numbers for each in (found, expected))
        assert [name for name in ours if theirs[name] is None] == [name for name in ours if ours[name] is None]
        off = {name: abs(theirs[name] - ours[name]) for name in ours if ours[name] is not None}
        assert max(off.values()) < DIFFERENCE, off
