"""Items through the predictor of a run: batches, order, stops, and failures that stay with their item."""

import threading
import time
from contextlib import closing

import numpy as np
import pytest
from PIL import Image

from maskrcnn.prediction.job import MILLISECONDS
from runtime.errors import ImageError

CAT, NOTHING, REFUSED = (50, 0, 0), (0, 9, 0), (0, 0, 255)
PATIENCE = 20  # seconds that a thread waits for another before the test fails


def pictures(*colors, sizes=((20, 30),)):
    return [(n, np.full((*sizes[n % len(sizes)], 3), color, np.uint8)) for n, color in enumerate(colors)]


@pytest.fixture
def predict(job):
    """Predict pairs of a key and an image; gives pairs of a key and a result."""

    def start(items, batch_size=1, stopped=lambda: False, **changes):
        work = job(batch_size=batch_size, stopped=stopped, **changes)
        with closing(work.predict(items, lambda item: item[1])) as results:
            for (key, _), found in results:
                yield key, found

    return start


def running():
    return [thread for thread in threading.enumerate() if thread.name.startswith("predict-")]


def names(found):
    return [row["name"] for row in found["detections"]]


@pytest.mark.parametrize(("batch_size", "batches"), [(1, [1] * 7), (3, [3, 3, 1]), (7, [7]), (100, [7])])
def test_batches(predict, fake, batch_size, batches):
    found = list(predict(pictures(CAT, NOTHING, CAT, (200, 0, 0), CAT, CAT, NOTHING), batch_size))
    assert [key for key, _ in found] == list(range(7))
    assert [len(names(each)) for _, each in found] == [1, 0, 1, 1, 1, 1, 0]
    assert names(found[3][1]) == ['=HYPERLINK("x")']
    assert fake.batches == batches


def test_sizes_are_not_mixed_and_do_not_pile_up(predict, fake):
    sizes = [(64 * n, 64) for n in range(1, 8)]
    waiting, most = 0, 0

    def counted():
        nonlocal waiting, most
        for item in pictures(*[CAT] * 70, sizes=sizes):
            waiting += 1
            most = max(most, waiting)
            yield item

    seen = {}
    for key, found in predict(counted(), 4):
        waiting -= 1
        seen[key] = tuple(found["image_size"])
    assert list(seen.items()) == [(n, sizes[n % 7]) for n in range(70)]
    assert max(fake.batches) <= 4
    assert 2 <= most <= 4 * 4 + 1  # taken ahead, and the one in our hand


def test_a_bad_picture_does_not_spoil_its_batch(predict, fake, tmp_path):
    items = pictures(CAT, CAT, CAT, CAT)
    items[2] = (2, tmp_path / "nowhere.png")
    found = dict(predict(items, 4))
    assert isinstance(found[2], ImageError)
    assert all(names(found[key]) == ["cat"] for key in (0, 1, 3))
    assert fake.batches == [3]


def test_a_picture_that_the_network_refuses_is_found_in_its_batch(predict, fake):
    found = list(predict(pictures(CAT, CAT, REFUSED, CAT, CAT), 4))
    assert [key for key, _ in found] == [0, 1, 2, 3, 4]
    assert isinstance(found[2][1], ArithmeticError)
    assert all(names(found[key][1]) == ["cat"] for key in (0, 1, 3, 4))
    assert fake.batches == [4, 1, 1, 1, 1, 1]


@pytest.mark.parametrize("error", [ImageError("odd"), OSError("gone"), MemoryError()])
@pytest.mark.parametrize("step", ["prepare", "finish"])
def test_an_error_of_a_step_belongs_to_its_picture(predict, fake, monkeypatch, step, error):
    real, calls = getattr(fake, step), []

    def fail_once(*values):
        calls.append(1)
        if len(calls) == 2:
            raise error
        return real(*values)

    monkeypatch.setattr(fake, step, fail_once)
    found = dict(predict(pictures(CAT, CAT, CAT), 3))
    assert found[1] is error
    assert [names(found[key]) for key in (0, 2)] == [["cat"], ["cat"]]


@pytest.mark.parametrize("step", ["prepare", "finish"])
def test_a_bug_ends_the_run_in_its_place(predict, fake, monkeypatch, step):
    real, calls, seen = getattr(fake, step), [], []

    def fail_once(*values):
        calls.append(1)
        if len(calls) == 2:
            raise TypeError("a bug")
        return real(*values)

    monkeypatch.setattr(fake, step, fail_once)
    with pytest.raises(TypeError, match="a bug"):
        seen.extend(key for key, _ in predict(pictures(CAT, CAT, CAT)))
    assert seen == [0]
    assert running() == []


def test_batches_change_no_result(predict, picture):
    images = [np.ascontiguousarray(picture[n : n + 70, n : n + 90]) for n in range(5)]
    alone, together = (list(predict(list(enumerate(images)), size)) for size in (1, 5))
    assert all(found.pop(MILLISECONDS) >= 0 for _, found in alone + together)
    assert alone == together
    assert any(names(found) for _, found in alone)


def test_classes_that_are_not_asked_for_are_left_out(predict):
    found = dict(predict(pictures(CAT, (100, 0, 0)), classes=("dog, big",)))
    assert [names(found[key]) for key in (0, 1)] == [[], ["dog, big"]]


def test_no_batch_begins_after_a_stop(predict, fake):
    """What is in the engine by then is still given; pictures that were taken ahead are not."""
    stop, seen = threading.Event(), []
    real = fake.run

    def run(images, windows):
        if len(fake.batches) == 2:
            stop.set()
        return real(images, windows)

    fake.run = run
    for key, found in predict(pictures(*[CAT] * 40), 2, stop.is_set):
        seen.append(key)
        assert names(found) == ["cat"]
    assert seen == [0, 1, 2, 3, 4, 5]
    assert fake.batches == [2, 2, 2]
    assert running() == []


def test_a_stop_loses_no_result_of_another_size(predict, fake):
    """The first one waits for others of its size when the stop comes; the others have been through the network."""
    real, stop = fake.finish, threading.Event()

    def finish(outputs, letterbox):
        stop.set()
        return real(outputs, letterbox)

    fake.finish = finish
    items = pictures(CAT, CAT, CAT, sizes=((20, 30), (80, 30), (80, 30)))

    def source():
        yield from items
        assert stop.wait(PATIENCE)

    assert [key for key, _ in predict(source(), 2, stop.is_set)] == [1, 2]
    assert fake.batches == [2]


def test_a_run_that_is_stopped_at_once_takes_nothing(predict, fake):
    def source():
        raise AssertionError
        yield

    assert list(predict(source(), stopped=lambda: True)) == []
    assert fake.batches == []


def test_what_the_items_raise_comes_out_after_what_they_gave(predict):
    def items():
        yield from pictures(CAT, CAT)
        raise ImageError("the rest is gone")

    seen = []
    with pytest.raises(ImageError, match="the rest is gone"):
        seen.extend(key for key, _ in predict(items()))
    assert seen == [0, 1]


def test_the_network_works_while_the_last_result_is_used(predict, fake):
    ran, real = threading.Event(), fake.run

    def run(images, windows):
        if len(fake.batches) == 1:
            ran.set()
        return real(images, windows)

    fake.run = run
    with closing(predict(pictures(CAT, CAT, CAT))) as found:
        next(found)
        assert ran.wait(PATIENCE)


def test_leaving_early_ends_the_threads(predict):
    made = []

    def items():
        for n in range(100):
            made.append(n)
            yield n, np.full((20, 30, 3), CAT, np.uint8)

    found = predict(items())
    assert next(found)[0] == 0
    time.sleep(0.1)
    found.close()
    assert running() == []
    assert len(made) <= 5


def test_nothing_to_predict(predict):
    assert list(predict([])) == []


def test_gray_files_go_in_as_color(predict, tmp_path):
    Image.new("L", (30, 20), 100).save(tmp_path / "gray.png")
    ((_, found),) = predict([(0, tmp_path / "gray.png")])
    assert names(found) == ["dog, big"]
