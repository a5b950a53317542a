"""What `Predictor.run` costs on top of the session it runs: checks of its arguments, names, bindings.

The difference is far below the noise of a run. So both run in turns, on one picture and one thread, by the clock of
that thread, which others do not move; the median of the differences of neighbours is kept beside the times.
"""

from time import thread_time

import numpy as np
import pytest

from runtime import EngineOptions, Predictor
from runtime.artifact import OUTPUT_NAMES

pytestmark = pytest.mark.benchmark(group="overhead of Predictor.run, demo model, 1 picture, 1 thread")

PAIRS = 300


@pytest.fixture(scope="module")
def predictor(onnx_path):
    return Predictor(onnx_path, "cpu", engine=EngineOptions(threads=1))


@pytest.fixture(scope="module")
def raw(predictor, feeds):
    """The session itself, on the same tensors."""
    session = predictor._engine._backend._session
    inputs = {name: np.asarray(array) for name, array in predictor._inputs(feeds["images"], feeds["windows"]).items()}
    return lambda: session.run(list(OUTPUT_NAMES), inputs)


def test_session_run(benchmark, raw):
    benchmark(raw)


def test_predictor_run(benchmark, predictor, raw, feeds):
    images, windows = feeds["images"], feeds["windows"]
    both = [raw, lambda: predictor.run(images, windows)]
    times = []
    for number in range(PAIRS):  # each is first as often as second
        pair = [seconds(function) for function in (both if number % 2 else both[::-1])]
        times.append(pair if number % 2 else pair[::-1])
    alone, ours = np.array(times).T
    benchmark.extra_info["overhead"] = float(np.median(ours - alone) / np.median(alone))
    benchmark.extra_info["overhead_microseconds"] = float(1e6 * np.median(ours - alone))
    benchmark(predictor.run, images, windows)


def seconds(function):
    begin = thread_time()
    function()
    return thread_time() - begin
