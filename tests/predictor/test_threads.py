"""Many threads on one predictor: bit for bit what one thread gets."""

import json
import threading
from concurrent.futures import ALL_COMPLETED, ThreadPoolExecutor, wait

import numpy as np
import pytest

from maskrcnn.data.synthetic.shapes import draw_shapes
from runtime import Predictor, read_metadata
from runtime.artifact_files.onnx_file import read_model, seal
from runtime.errors import ImageError, InputError

THREADS = 8
BY_PICTURE = {"mode": "pad64", "min_dim": 64, "max_dim": None, "min_scale": None}


@pytest.fixture
def pictures(picture):
    """Of several sizes, each with objects."""
    drawn = [
        draw_shapes(7, 15 + number, size=size)[0] for number, size in enumerate([(128, 192), (67, 150), (192, 128)])
    ]
    return [picture[:256, :320], *drawn]


@pytest.mark.parametrize("calls", [10, pytest.param(200, marks=pytest.mark.slow)])
def test_eight_threads_get_what_one_gets(doctored, pictures, calls):
    """The network's input has the size of the picture here, so that shapes of runs at the same time differ."""
    path = doctored(resize=BY_PICTURE)
    check_eight_threads(Predictor(path, "cpu"), pictures, calls)


@pytest.mark.parametrize("calls", [10, pytest.param(100, marks=pytest.mark.slow)])
def test_eight_threads_of_openvino_get_what_one_gets(pytestconfig, tmp_path, pictures, calls):
    pytest.importorskip("runtime.engines.openvino.library", reason="openvino is not installed", exc_type=ImportError)
    values = json.loads(read_metadata(packaged := pytestconfig.rootpath / "maskrcnn" / "demo.onnx").to_json())
    path = tmp_path / "x.onnx"
    path.write_bytes(seal(read_model(packaged), json.dumps(values | {"resize": BY_PICTURE})))
    check_eight_threads(Predictor(path, "openvino"), pictures, calls)


def check_eight_threads(predictor, pictures, calls):
    assert len({predictor.prepare(each)[1].shape for each in pictures}) >= 3
    expected = [predictor(each) for each in pictures]
    assert all(len(found) > 0 for found in expected)
    together = threading.Barrier(THREADS)

    def work(first):
        together.wait()
        order = [(first + step) % len(pictures) for step in range(calls)]
        return [(number, predictor(pictures[number])) for number in order]

    with ThreadPoolExecutor(THREADS) as pool:
        results = [result for done in pool.map(work, range(THREADS)) for result in done]
    assert len(results) == THREADS * calls
    for number, found in results:
        assert_same(found, expected[number])


def test_a_cancelled_pool_leaves_nothing_broken(predictor, pictures):
    """Calls that were begun are finished, those that were not are not, and the predictor goes on as before."""
    expected = [predictor(each) for each in pictures]
    for begun in (1, 5, 12):
        pool = ThreadPoolExecutor(THREADS)
        calls = [pool.submit(predictor, pictures[number % len(pictures)]) for number in range(60)]
        wait(calls[:begun], return_when=ALL_COMPLETED)
        pool.shutdown(wait=True, cancel_futures=True)
        done = [(number, call.result()) for number, call in enumerate(calls) if not call.cancelled()]
        assert begun <= len(done) < 60
        for number, found in done:
            assert_same(found, expected[number % len(pictures)])
    for each, found in zip(pictures, expected, strict=True):
        assert_same(predictor(each), found)


def test_threads_that_fail_leave_nothing_broken(predictor, pictures):
    """Every other picture cannot be used; the rest are as if those had not been."""
    expected = [predictor(each) for each in pictures]

    def work(number):
        if number % 2:
            with pytest.raises(ImageError):
                predictor(np.zeros((5, 5), np.float32))
            with pytest.raises(InputError):
                predictor.run(np.zeros((1, 64, 64), np.uint8), np.zeros((1, 4), np.float32))
            return None
        return predictor(pictures[number % len(pictures)])

    with ThreadPoolExecutor(THREADS) as pool:
        for number, found in enumerate(pool.map(work, range(40))):
            assert (found is None) == bool(number % 2)
            if found is not None:
                assert_same(found, expected[number % len(pictures)])


def assert_same(found, expected):
    for name in ("boxes", "scores", "class_ids", "mask_probabilities"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
