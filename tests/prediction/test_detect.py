"""Pictures through a predictor: batches, order, and failures that stay with their picture."""

import threading
import time

import numpy as np
import pytest
from PIL import Image

from maskrcnn.prediction.detect import detect
from maskrcnn.prediction.read_ahead import read_ahead
from runtime.errors import ImageError

CAT, NOTHING, REFUSED = (50, 0, 0), (0, 9, 0), (0, 0, 255)


def pictures(*colors, sizes=((20, 30),)):
    return [(n, np.full((*sizes[n % len(sizes)], 3), color, np.uint8)) for n, color in enumerate(colors)]


def run(fake, items, batch_size=1, stopped=lambda: False):
    return list(detect(fake, items, batch_size, stopped))


@pytest.mark.parametrize(("batch_size", "batches"), [(1, [1] * 7), (3, [3, 3, 1]), (7, [7]), (100, [7])])
def test_batches(fake, batch_size, batches):
    found = run(fake, pictures(CAT, NOTHING, CAT, (200, 0, 0), CAT, CAT, NOTHING), batch_size)
    assert [key for key, _ in found] == list(range(7))
    assert [len(each) for _, each in found] == [1, 0, 1, 1, 1, 1, 0]
    assert found[3][1].class_ids.tolist() == [3]
    assert fake.batches == batches


def test_sizes_are_not_mixed_and_do_not_pile_up(fake):
    sizes = [(64 * n, 64) for n in range(1, 8)]
    items = pictures(*[CAT] * 70, sizes=sizes)
    waiting, most = 0, 0

    def counted():
        nonlocal waiting, most
        for item in items:
            waiting += 1
            most = max(most, waiting)
            yield item

    seen = {}
    for key, found in detect(fake, counted(), 4, lambda: False):
        waiting -= 1
        seen[key] = found.image_size
    assert seen == {n: sizes[n % 7] for n in range(70)}
    assert max(fake.batches) <= 4
    assert most <= 4 * 4 + 2 * 4 + 2  # grouped, made ahead, and in hand


def test_a_bad_picture_does_not_spoil_its_batch(fake, tmp_path):
    items = pictures(CAT, CAT, CAT, CAT)
    items[2] = (2, tmp_path / "nowhere.png")
    found = dict(run(fake, items, 4))
    assert isinstance(found[2], ImageError)
    assert all(len(found[key]) == 1 for key in (0, 1, 3))


def test_a_picture_that_the_network_refuses_is_found_in_its_batch(fake):
    found = dict(run(fake, pictures(CAT, CAT, REFUSED, CAT), 4))
    assert isinstance(found[2], ArithmeticError)
    assert all(len(found[key]) == 1 for key in (0, 1, 3))
    assert fake.batches == [4, 1, 1, 1, 1]


def test_batches_change_no_result(fake, picture):
    images = [np.ascontiguousarray(picture[n : n + 70, n : n + 90]) for n in range(5)]
    alone, together = ([found for _, found in run(fake, list(enumerate(images)), size)] for size in (1, 5))
    for first, second in zip(alone, together, strict=True):
        np.testing.assert_array_equal(first.boxes, second.boxes)
        assert first.to_json() == second.to_json()


def test_a_stop_ends_after_the_batch_in_hand(fake):
    made = []
    found = detect(fake, pictures(*[CAT] * 10), 2, lambda: len(made) >= 3)
    for key, _ in found:
        made.append(key)
    assert made == [0, 1, 2, 3]


def test_what_the_items_raise_comes_out_after_what_they_gave(fake):
    def items():
        yield from pictures(CAT, CAT)
        raise ImageError("the rest is gone")

    seen = []
    with pytest.raises(ImageError, match="the rest is gone"):
        seen.extend(key for key, _ in detect(fake, items(), 1, lambda: False))
    assert seen == [0, 1]


def test_items_are_made_ahead_and_no_further():
    made, asked = [], threading.Event()

    def items():
        for n in range(100):
            made.append(n)
            if n == 4:
                asked.set()
            yield n

    ahead = read_ahead(items(), 4)
    assert next(ahead) == 0
    assert asked.wait(10)
    time.sleep(0.3)
    assert len(made) <= 6  # one taken, four waiting, one in the thread's hand
    before = threading.active_count()
    ahead.close()
    assert threading.active_count() < before
    assert len(made) <= 7


def test_nothing_to_read():
    assert list(read_ahead([], 1)) == []


def test_gray_files_go_in_as_color(fake, tmp_path):
    Image.new("L", (30, 20), 100).save(tmp_path / "gray.png")
    ((_, found),) = run(fake, [(0, tmp_path / "gray.png")])
    assert found.names == ("dog, big",)
