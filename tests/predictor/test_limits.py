"""Limits of a predictor: how many detections it returns."""

import pickle

import numpy as np
import pytest

from runtime import Predictor
from runtime.errors import InputError


def test_best_detections_are_returned(artifact, predictor, picture):
    everything = predictor(picture)
    assert len(everything) > 3
    for limit in (1, 3, len(everything), predictor.metadata.max_detections):
        limited = Predictor(artifact, "cpu", max_detections=limit)
        for found in (limited(picture), limited.predict_batch([picture])[0], *limited.predict_stream([picture])):
            assert len(found) == min(limit, len(everything))
            np.testing.assert_array_equal(found.scores, np.sort(everything.scores)[::-1][:limit])
            np.testing.assert_array_equal(found.mask_probabilities, everything.mask_probabilities[:limit])


def test_limit_travels(artifact):
    assert pickle.loads(pickle.dumps(Predictor(artifact, "cpu", max_detections=2))).max_detections == 2


@pytest.mark.parametrize("limit", [0, -1, True, 1.5, "3", "one more"])
def test_impossible_limit(artifact, predictor, limit):
    most = predictor.metadata.max_detections
    with pytest.raises(InputError, match=f"expected an integer from 1 to {most}"):
        Predictor(artifact, "cpu", max_detections=most + 1 if limit == "one more" else limit)
