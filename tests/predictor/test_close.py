"""A closed predictor: refused use, ended streams, freed engines."""

import threading
import weakref
from concurrent.futures import CancelledError, ThreadPoolExecutor

import numpy as np
import pytest

from runtime import Predictor
from runtime.errors import ClosedError

IMAGES, WINDOWS = np.zeros((1, 64, 64, 3), np.uint8), np.array([[0, 0, 64, 64]], np.float32)


@pytest.fixture
def own(artifact):
    """A predictor that a test may close."""
    return Predictor(artifact, "cpu")


@pytest.mark.parametrize(
    "use",
    [
        lambda predictor, picture: predictor(picture),
        lambda predictor, picture: predictor.predict_batch([picture]),
        lambda predictor, picture: predictor.predict_batch([]),
        lambda predictor, picture: predictor.predict_stream([picture]),
        lambda predictor, picture: predictor.warm_up([(64, 64)]),
        lambda predictor, picture: predictor.prepare(picture),
        lambda predictor, picture: predictor.run(IMAGES, WINDOWS),
        lambda predictor, picture: predictor.explain(),
        lambda predictor, picture: predictor.borders(IMAGES, WINDOWS),
        lambda predictor, picture: predictor.__enter__(),
    ],
)
def test_every_use_of_a_closed_predictor_is_refused(own, picture, use):
    own.close()
    with pytest.raises(ClosedError) as refused:
        use(own, picture)
    assert str(own.path) in str(refused.value)
    assert "\n" not in str(refused.value)


def test_closing_twice_and_what_stays(own, picture):
    with own as entered:
        assert entered is own
        letterbox, prepared = own.prepare(picture)
        outputs = own.run(prepared[None], np.array([letterbox.window], np.float32))
    own.close()
    assert (own.device, own.class_names[0]) == ("cpu", "BG")
    # What the engine has given can still be brought back to the picture.
    assert len(own.finish({name: array[0] for name, array in outputs.items()}, letterbox)) > 0


def test_a_with_statement_lets_errors_through(own):
    with pytest.raises(KeyError), own:
        raise KeyError
    assert own._engine._backend is None


def test_engine_is_freed_at_once(collect, own, picture):
    own(picture)
    backend = weakref.ref(own._engine._backend)
    engine = weakref.ref(own._engine._backend._module if own.path.is_dir() else own._engine._backend._session)
    own.close()
    assert backend() is None
    if own.path.is_dir():
        collect()  # TensorFlow's own objects know each other
    assert engine() is None


def test_run_under_way_is_finished(own, picture, monkeypatch):
    expected, backend = own(picture), own._engine._backend
    running, closed = threading.Event(), threading.Event()

    def slow(inputs):
        running.set()
        assert closed.wait(20)
        return backend(inputs)

    monkeypatch.setattr(own._engine, "_backend", slow)
    with ThreadPoolExecutor(1) as pool:
        result = pool.submit(own, picture)
        assert running.wait(20)
        own.close()
        closed.set()
        np.testing.assert_array_equal(result.result(20).boxes, expected.boxes)


@pytest.mark.parametrize("batch_size", [1, 2])
def test_running_stream_ends_with_the_error(own, picture, batch_size):
    def endless():
        while True:
            yield picture

    before = threading.active_count()
    results = own.predict_stream(endless(), batch_size)
    assert len(next(results)) > 0
    own.close()
    taken = []
    with pytest.raises(ClosedError):
        taken.extend(results)
    assert len(taken) <= 3 * batch_size
    assert list(results) == []
    assert threading.active_count() == before


def test_pool_that_is_cancelled_leaves_nothing_broken(predictor, picture):
    """Calls that wait are dropped, those that run are finished; the predictor goes on as before."""
    expected, before = predictor(picture), threading.active_count()
    pool = ThreadPoolExecutor(4)
    futures = [pool.submit(predictor, picture) for _ in range(40)]
    futures[0].result(60)
    pool.shutdown(cancel_futures=True)
    assert threading.active_count() == before
    dropped = 0
    for future in futures:
        try:
            np.testing.assert_array_equal(future.result(0).boxes, expected.boxes)
        except CancelledError:
            dropped += 1
    assert 0 < dropped < 40
    for name in ("boxes", "scores", "mask_probabilities"):
        np.testing.assert_array_equal(getattr(predictor(picture), name), getattr(expected, name))
