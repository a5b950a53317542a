"""Many threads on one predictor: bit for bit what one thread gets."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from maskrcnn.data.shapes import draw_shapes
from runtime import Predictor

THREADS, CALLS = 8, 25


@pytest.fixture
def pictures(picture):
    """Of several sizes, each with objects."""
    drawn = [
        draw_shapes(7, 15 + number, size=size)[0] for number, size in enumerate([(128, 192), (67, 150), (192, 128)])
    ]
    return [picture[:256, :320], *drawn]


def test_eight_threads_get_what_one_gets(doctored, pictures):
    """The network's input has the size of the picture here, so that shapes of runs at the same time differ."""
    path = doctored(resize={"mode": "pad64", "min_dim": 64, "max_dim": None, "min_scale": None})
    predictor = Predictor(path, "cpu")
    assert len({predictor.prepare(each)[1].shape for each in pictures}) >= 3
    expected = [predictor(each) for each in pictures]
    assert all(len(found) > 0 for found in expected)
    together = threading.Barrier(THREADS)

    def work(first):
        together.wait()
        order = [(first + step) % len(pictures) for step in range(CALLS)]
        return [(number, predictor(pictures[number])) for number in order]

    with ThreadPoolExecutor(THREADS) as pool:
        results = [result for done in pool.map(work, range(THREADS)) for result in done]
    assert len(results) == THREADS * CALLS
    for number, found in results:
        for name in ("boxes", "scores", "class_ids", "mask_probabilities"):
            np.testing.assert_array_equal(getattr(found, name), getattr(expected[number], name))
