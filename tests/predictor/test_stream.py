"""Streams of pictures: order, batches, how far ahead, what fails where, and that nothing stays behind."""

import os
import signal
import subprocess
import sys
import threading
import time
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from itertools import count, islice
from types import SimpleNamespace

import numpy as np
import pytest

from maskrcnn.data.synthetic.shapes import draw_shapes
from runtime import Predictor
from runtime.detections import Detections
from runtime.errors import ImageError, InputError
from runtime.pictures.letterbox import ResizePolicy, plan_letterbox
from runtime.stream import Work, stream, stream_each

PATIENCE = 20  # seconds that a thread waits for another before the test fails


class FakeStages:
    """Finds in each picture one box whose score is the first pixel / 256; takes arrays as they are, so that what was
    prepared shares their memory. Subclasses wait for each other in the steps."""

    def __init__(self):
        self.batches, self.prepared, self.ran = [], 0, 0
        self.most_prepared = 0

    def prepare(self, image):
        if isinstance(image, str):
            raise ImageError(f"{image} is no picture")
        self.prepared += 1
        self.most_prepared = max(self.most_prepared, self.prepared - self.ran)
        return plan_letterbox(image.shape[:2], ResizePolicy("none")), image

    def run(self, images, windows):
        numbers = images[:, 0, 0, 0].tolist()
        self.batches.append(numbers)
        self.ran += len(numbers)
        assert windows.tolist() == [[0, 0, *images.shape[1:3]]] * len(images)
        return {"number": images[:, 0, 0, 0].astype(np.float32)}

    def finish(self, outputs, letterbox):
        return Detections(
            boxes=np.array([[0, 0, *letterbox.image_size[::-1]]], np.float32),
            scores=outputs["number"][None] / 256,
            class_ids=np.array([1], np.int32),
            mask_probabilities=np.ones((1, 2, 2), np.float32),
            image_size=letterbox.image_size,
            class_names=("BG", "thing"),
        )


def frame(number, side=64):
    return np.full((side, 64, 3), number, np.uint8)


def frames(sides):
    """Pictures 0, 1, 2, ... of the given heights."""
    return [frame(number, side) for number, side in enumerate(sides)]


def numbers(results):
    return [error if isinstance(error, str) else int(256 * error.scores[0]) for error in map(text_of, results)]


def text_of(result):
    return str(result) if isinstance(result, Exception) else result


def start(stages, images, batch_size=1, ahead=None, on_error="raise", rles=False):
    return stream(stages, images, batch_size, ahead, on_error=on_error, rles=rles)


def running():
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("predict-")]


@pytest.fixture(autouse=True)
def nothing_stays_behind():
    yield
    deadline = time.monotonic() + 10
    while running() and time.monotonic() < deadline:
        time.sleep(0.01)  # a thread that was told to end needs a processor to do so
    assert running() == []


class Camera:
    """Endless pictures in one array that is written to again; knows who asked for them, and whether it was closed."""

    def __init__(self, sides=(64,)):
        self.taken, self.closed, self.threads, self.sides = 0, 0, set(), sides

    def __iter__(self):
        buffers = [frame(0, side) for side in self.sides]
        try:
            for number in count():
                self.threads.add(threading.get_ident())
                self.taken += 1
                buffer = buffers[number % len(buffers)]
                buffer[:] = number % 256
                yield buffer
        finally:
            self.threads.add(threading.get_ident())
            self.closed += 1


@pytest.mark.parametrize(
    ("ahead", "batches"),
    [
        (None, [[0, 2], [1, 4], [3, 5], [6, 7], [8]]),  # may wait for 4 pictures
        (5, [[0, 2], [1], [3, 5], [4, 6], [7], [8]]),  # for 3
        (4, [[0], [1], [2, 3], [4], [5], [6, 7], [8]]),  # for 2
        (2, [[0], [1], [2, 3], [4], [5], [6, 7], [8]]),
        (100, [[0, 2], [1, 4], [3, 5], [6, 7], [8]]),
    ],
)
def test_batches_of_two_sizes_within_what_is_taken_ahead(ahead, batches):
    stages = FakeStages()
    found = start(stages, frames([64, 128, 64, 64, 128, 64, 128, 128, 64]), 2, ahead)
    results = list(found)
    assert numbers(results) == list(range(9))
    assert [result.image_size[0] for result in results] == [64, 128, 64, 64, 128, 64, 128, 128, 64]
    assert stages.batches == batches


@pytest.mark.parametrize("ahead", [4, 5, 8, 12, 50])
@pytest.mark.parametrize("sides", [(64,), (64, 128), tuple(range(64, 64 * 12, 64))])
def test_endless_pictures_are_never_further_ahead(ahead, sides):
    stages, camera = FakeStages(), Camera(sides)
    with closing(start(stages, iter(camera), 4, ahead)) as found:
        for number, result in enumerate(islice(found, 60)):
            assert numbers([result]) == [number]
            assert camera.taken <= number + ahead
    assert max(map(len, stages.batches)) <= 4
    assert camera.closed == 1
    assert len(camera.threads) == 1
    assert threading.get_ident() not in camera.threads


def test_with_none_ahead_a_picture_is_taken_when_its_result_is_asked_for():
    camera = Camera()
    with closing(start(FakeStages(), iter(camera), 1, 1)) as found:
        for number in range(5):
            assert camera.taken == number
            next(found)
            time.sleep(0.01)
            assert camera.taken == number + 1


def test_the_next_picture_is_read_while_the_engine_works():
    read = threading.Event()

    class Stages(FakeStages):
        def prepare(self, image):
            if image[0, 0, 0] == 1:
                read.set()
            return super().prepare(image)

        def run(self, images, windows):
            assert read.wait(PATIENCE)
            return super().run(images, windows)

    assert numbers(start(Stages(), frames([64] * 3))) == [0, 1, 2]


def test_a_picture_is_finished_while_the_engine_works_on_the_next():
    both = threading.Barrier(2, timeout=PATIENCE)

    class Stages(FakeStages):
        def run(self, images, windows):
            if images[0, 0, 0, 0] == 1:
                both.wait()
            return super().run(images, windows)

        def finish(self, outputs, letterbox):
            if outputs["number"] == 0:
                both.wait()
            return super().finish(outputs, letterbox)

    assert numbers(start(Stages(), frames([64] * 3))) == [0, 1, 2]


def test_the_engine_works_while_the_caller_does_something_else():
    ran = threading.Event()

    class Stages(FakeStages):
        def run(self, images, windows):
            if images[0, 0, 0, 0] == 1:
                ran.set()
            return super().run(images, windows)

    with closing(start(Stages(), frames([64] * 3))) as found:
        next(found)
        assert ran.wait(PATIENCE)


@pytest.mark.parametrize(("batch_size", "sides"), [(1, [64]), (2, [64, 128]), (2, [64, 64]), (3, [64, 128, 192])])
def test_a_source_that_waits_for_the_result_does_not_wait_forever(batch_size, sides):
    """With twice the batch size ahead, a result needs as many pictures as a batch and no more."""
    taken = threading.Event()

    def source():
        yield from frames(sides)
        assert taken.wait(PATIENCE)
        yield from frames(sides)

    found = start(FakeStages(), source(), batch_size, 2 * batch_size)
    assert numbers([next(found)]) == [0]
    taken.set()
    assert numbers(found) == [*range(1, len(sides)), *range(len(sides))]


def test_bad_pictures_do_not_keep_a_good_one_waiting():
    taken = threading.Event()

    def source():
        yield frame(0)
        yield from ["bad"] * 3
        assert taken.wait(PATIENCE)

    found = start(FakeStages(), source(), 4, 8, "yield")
    assert numbers([next(found)]) == [0]
    taken.set()
    assert numbers(found) == ["bad is no picture"] * 3


@pytest.mark.parametrize("batch_size", [1, 2, 4])
def test_a_bad_picture_raises_in_its_place_and_ends_the_stream(batch_size):
    images = frames([64, 128, 64, 64, 64, 64])
    images[3] = "bad"
    found, seen = start(FakeStages(), iter(images), batch_size), []
    with pytest.raises(ImageError, match="bad is no picture"):
        seen.extend(found)
    assert numbers(seen) == [0, 1, 2]
    assert running() == []
    assert list(found) == []


@pytest.mark.parametrize("batch_size", [1, 2, 4])
def test_a_bad_picture_is_given_in_its_place(batch_size):
    images = frames([64, 128, 64, 64, 64, 64])
    images[0] = images[3] = images[5] = "bad"
    results = list(start(FakeStages(), images, batch_size, None, "yield"))
    assert numbers(results) == ["bad is no picture", 1, 2, "bad is no picture", 4, "bad is no picture"]
    assert all(isinstance(result, ImageError) for result in results[::3])


@pytest.mark.parametrize("on_error", ["raise", "yield"])
@pytest.mark.parametrize("error", [ImageError("cut off"), ValueError("odd"), KeyboardInterrupt(), SystemExit(3)])
def test_what_the_source_raises_comes_after_what_it_gave(error, on_error):
    def source():
        yield from frames([64] * 3)
        raise error

    seen = []
    with pytest.raises(type(error)) as caught:
        seen.extend(numbers([result])[0] for result in start(FakeStages(), source(), 2, None, on_error))
    assert caught.value is error
    assert seen == [0, 1, 2]


@pytest.mark.parametrize("on_error", ["raise", "yield"])
@pytest.mark.parametrize("step", ["prepare", "run", "finish"])
@pytest.mark.parametrize("error", [MemoryError("no more"), StopIteration()])
def test_other_errors_end_the_stream_in_their_place(step, on_error, error):
    class Stages(FakeStages):
        def fail(self, name, number):
            if step == name and number == 4:
                raise error

        def prepare(self, image):
            self.fail("prepare", image[0, 0, 0])
            return super().prepare(image)

        def run(self, images, windows):
            self.fail("run", images[0, 0, 0, 0])
            return super().run(images, windows)

        def finish(self, outputs, letterbox):
            self.fail("finish", outputs["number"])
            return super().finish(outputs, letterbox)

    camera, seen = Camera(), []
    # A generator cannot raise StopIteration; Python makes a RuntimeError of it, and never a quiet end.
    with pytest.raises((MemoryError, RuntimeError)):
        seen.extend(start(Stages(), iter(camera), 2, None, on_error))
    assert numbers(seen) == [0, 1, 2, 3]
    assert camera.closed == 1


def test_leaving_early_ends_threads_and_source():
    camera = Camera()
    found = start(FakeStages(), iter(camera), 2)
    for _ in found:
        break
    assert len(running()) == 3
    found.close()
    assert running() == []
    assert camera.closed == 1
    assert len(camera.threads) == 1


def test_a_stream_that_is_dropped_ends_too():
    camera = Camera()
    found = start(FakeStages(), iter(camera))
    next(found)
    del found
    assert running() == []
    assert camera.closed == 1


def test_no_thread_before_the_first_result():
    camera = Camera()
    start(FakeStages(), iter(camera)).close()
    found = start(FakeStages(), iter(camera))
    assert running() == []
    assert camera.taken == 0
    found.close()


def test_an_error_of_the_caller_comes_through():
    camera = Camera()

    def work():
        with closing(start(FakeStages(), iter(camera), 2)) as found:
            for _ in found:
                raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        work()
    assert camera.closed == 1


@pytest.mark.usefixtures("interruptible")
def test_an_interrupt_comes_through():
    class Stages(FakeStages):
        def run(self, images, windows):
            if images[0, 0, 0, 0] == 3:
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(0.2)
            return super().run(images, windows)

    stages, camera, seen = Stages(), Camera(), []
    with pytest.raises(KeyboardInterrupt), closing(start(stages, iter(camera), 1, 9)) as found:
        seen.extend(found)
    assert numbers(seen) == list(range(len(seen)))
    assert len(stages.batches) == 4  # the one in hand, and none of those that were ready
    assert camera.closed == 1


class Stalled:
    """A camera that gives some frames and then nothing, until it is let go."""

    def __init__(self, sides):
        self.sides = sides
        self.stalls, self.go_on, self.ended = (threading.Event() for _ in range(3))

    def frames(self):
        try:
            yield from frames(self.sides)
            self.stalls.set()
            self.go_on.wait(PATIENCE)
            yield from frames([64])
        finally:
            self.ended.set()


@pytest.fixture
def stalled():
    made = []
    yield lambda sides: made.append(Stalled(sides)) or made[-1]
    for each in made:
        each.go_on.set()
        assert each.ended.wait(PATIENCE), "the source is closed when it goes on"


class Timeout(Exception):  # noqa: N818
    """Raised by the signal handler of a program."""


@pytest.mark.parametrize("sides", [[], [64], [64, 64, 128]], ids=len)
@pytest.mark.parametrize("kind", [KeyboardInterrupt, Timeout])
def test_a_signal_ends_a_stream_whose_source_stalls(stalled, sides, kind):
    """At once, with what its handler raises."""

    def ring(*_):
        raise kind

    source = stalled(sides)
    before = signal.signal(signal.SIGALRM, ring)
    found = start(FakeStages(), source.frames(), 2, 4)
    try:
        begin = time.monotonic()
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        with pytest.raises(kind):
            list(found)
        assert time.monotonic() - begin < 2
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert not source.ended.is_set()


def test_a_program_that_leaves_a_stalled_source_goes_on(stalled, monkeypatch):
    """It waits for the source, but not forever."""
    monkeypatch.setattr("runtime.stream._PATIENCE", 0.1)
    source = stalled([64, 64])
    with closing(start(FakeStages(), source.frames(), 1, 3)) as found:
        next(found)
        assert source.stalls.wait(PATIENCE)
    assert not source.ended.is_set()


STALLED = """
import sys, threading
sys.path.insert(0, {folder!r})
import numpy as np
from runtime.stream import Work, stream_each

def source():
    print("stalled", flush=True)
    threading.Event().wait()
    yield

for _ in stream_each(Work(None, None, None, 1, 1), source()):
    pass
"""


@pytest.mark.usefixtures("interruptible")
def test_the_first_ctrl_c_ends_a_program_with_a_stalled_source(pytestconfig):
    command = [sys.executable, "-c", STALLED.format(folder=str(pytestconfig.rootpath))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        try:
            assert child.stdout.readline() == "stalled\n"
            child.send_signal(signal.SIGINT)
            assert child.wait(PATIENCE) == -signal.SIGINT
            assert "KeyboardInterrupt" in child.stderr.read()
        finally:
            child.kill()


def test_what_the_source_raises_when_it_is_closed_comes_through():
    def source():
        try:
            while True:
                yield frame(0)
        finally:
            raise OSError("the camera does not answer")

    found = start(FakeStages(), source())
    next(found)
    with pytest.raises(OSError, match="does not answer"):
        found.close()


def test_an_iterator_that_is_no_generator_is_left_open():
    class Names:
        def __init__(self):
            self.left, self.is_closed = ["e", "d", "c", "b", "a"], False

        def __iter__(self):
            return self

        def __next__(self):
            return self.left.pop()

        def close(self):
            self.is_closed = True

    names = Names()
    found = start(FakeStages(), names, on_error="yield", ahead=1)
    next(found)
    found.close()
    assert not names.is_closed
    assert next(names) == "b"


LEFT = """
import sys
sys.path.insert(0, {folder!r})
import numpy as np
from runtime.stream import stream
from runtime.pictures.letterbox import ResizePolicy, plan_letterbox

class Stages:
    def prepare(self, image):
        return plan_letterbox(image.shape[:2], ResizePolicy("none")), image

    def run(self, images, windows):
        return {{"images": images}}

    def finish(self, outputs, letterbox):
        return outputs["images"]

def source():
    try:
        while True:
            yield np.zeros((64, 64, 3), np.uint8)
    finally:
        print("closed")

found = stream(Stages(), source(), 1, None, on_error="raise", rles=False)
print(next(found).shape)
{leave}
"""


@pytest.mark.parametrize("leave", ["", "sys.exit(0)", "import builtins; builtins.kept = found"])
def test_a_program_that_ends_within_a_stream_ends(leave, pytestconfig):
    code = LEFT.format(folder=str(pytestconfig.rootpath), leave=leave)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "(64, 64, 3)\nclosed\n", "")


def test_run_lengths_are_made_on_wish():
    for wish in (False, True):
        (found,) = start(FakeStages(), [frame(7)], rles=wish)
        assert ("rles" in vars(found)) is wish
        assert found.rles == [{"size": [64, 64], "counts": "0PP4"}]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 0}, "batch_size is 0"),
        ({"batch_size": 2.0}, r"batch_size is 2\.0"),
        ({"batch_size": None}, "batch_size is None"),
        ({"batch_size": 4, "ahead": 3}, "ahead is 3: expected an integer of at least batch_size, 4"),
        ({"ahead": 0}, "ahead is 0"),
        ({"ahead": 1.5}, r"ahead is 1\.5"),
        ({"on_error": "skip"}, "on_error is 'skip': expected one of raise, yield"),
        ({"images": "a.jpg"}, "pass a list of images"),
        ({"images": 7}, "pass a list of images"),
    ],
)
def test_bad_arguments_are_refused_at_once(changes, message):
    with pytest.raises(InputError, match=message):
        start(FakeStages(), **({"images": [frame(0)]} | changes))


def test_nothing_to_predict():
    assert list(start(FakeStages(), [])) == []
    assert list(start(FakeStages(), iter(()), 4)) == []


@pytest.fixture(scope="module")
def pictures(picture):
    scenes = [(67, 501), (64, 64), (360, 480), (501, 67)]
    return [picture, *(draw_shapes(7, 15, size=size)[0] for size in scenes), picture[:200, :150], picture]


@pytest.fixture(scope="module")
def one_by_one(predictor, pictures):
    found = [predictor(each) for each in pictures]
    assert all(len(each) for each in found)
    return found


def assert_equal(found, expected, boxes=0, scores=0, masks=0):
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert one.image_size == other.image_size
        np.testing.assert_array_equal(one.class_ids, other.class_ids)
        np.testing.assert_allclose(one.boxes, other.boxes, rtol=0, atol=boxes)
        np.testing.assert_allclose(one.scores, other.scores, rtol=0, atol=scores)
        np.testing.assert_allclose(one.mask_probabilities, other.mask_probabilities, rtol=0, atol=masks)


def test_one_at_a_time_is_bit_for_bit_the_same(predictor, pictures, one_by_one):
    found = list(predictor.predict_stream(iter(pictures), rles=True))
    assert_equal(found, one_by_one)
    assert [each.rles for each in found] == [each.rles for each in one_by_one]


@pytest.mark.parametrize("batch_size", [2, 4, 7])
def test_batches_are_the_same_within_what_is_promised(predictor, pictures, one_by_one, batch_size):
    found = list(predictor.predict_stream(pictures, batch_size))
    assert_equal(found, one_by_one, 0.01, 1e-5, 1e-4)


def test_four_streams_at_once(predictor, pictures, one_by_one):
    with ThreadPoolExecutor(4) as pool:
        streams = [pool.submit(lambda: list(predictor.predict_stream(pictures))) for _ in range(4)]
    for each in streams:
        assert_equal(each.result(), one_by_one)


def test_a_bad_file_within_good_ones(predictor, pictures, one_by_one, tmp_path):
    images = [pictures[0], tmp_path / "absent.png", pictures[1]]
    found = list(predictor.predict_stream(images, on_error="yield"))
    assert isinstance(found[1], ImageError)
    assert_equal(found[::2], one_by_one[:2])
    with pytest.raises(ImageError, match=r"absent\.png"):
        list(predictor.predict_stream(images))


def test_a_frame_buffer_that_is_written_to_again(doctored, picture):
    """Of a model that does not resize, whose input would be the buffer itself."""
    predictor = Predictor(doctored(resize={"mode": "none"} | dict.fromkeys(["min_dim", "max_dim", "min_scale"])), "cpu")
    views = [np.ascontiguousarray(picture[y : y + 192, 100:356]) for y in (0, 40, 80, 120, 160)]
    expected = [predictor(view) for view in views]
    assert all(len(each) for each in expected)
    buffer = np.empty_like(views[0])

    def camera():
        for view in views:
            buffer[:] = view
            yield buffer

    assert_equal(list(predictor.predict_stream(camera())), expected)
    assert_equal(list(predictor.predict_stream(camera(), 5)), expected, 0.01, 1e-5, 1e-4)


@pytest.mark.timeout(20)
@pytest.mark.parametrize("moment", [1, 2, 3])
@pytest.mark.parametrize("batch_size", [2, 4])
@pytest.mark.parametrize("sides", [[64, 128, 128, 64, 192, 256, 320, 384, 448, 512] * 2, [64, 128, 128, 64] * 5])
def test_a_stop_ends_a_stream_whose_batches_are_not_full(sides, batch_size, moment):
    """With many sizes, images wait for others that are never read."""
    steps, seen = FakeStages(), []
    stopped = threading.Event()

    def run(images, windows):
        if len(steps.batches) + 1 == moment:
            stopped.set()
        return FakeStages.run(steps, images, windows)

    work = Work(steps.prepare, run, steps.finish, batch_size, 4 * batch_size, stopped.is_set)
    for item, found in stream_each(work, frames(sides)):
        seen.append(item[0, 0, 0])
        assert len(found) == 1
    assert stopped.is_set()
    assert len(seen) == sum(map(len, steps.batches)) < len(sides)


class FakePredictor(FakeStages, Predictor):
    """The methods of a predictor, taken for open, over steps that count."""

    _engine = SimpleNamespace(require_open=lambda: None)


@pytest.mark.parametrize("number", [10**9, sys.maxsize])
@pytest.mark.parametrize("count", [0, 1, 3])
def test_no_number_is_larger_than_that_of_the_pictures(number, count):
    """Neither memory nor time grows with what is asked for."""
    pictures = list(frames([64] * count))
    wanted = list(range(count))
    tracemalloc.start()
    assert numbers(FakePredictor().predict_batch(pictures, number)) == wanted
    assert numbers(start(FakeStages(), pictures, 1, number)) == wanted
    assert numbers(start(FakeStages(), iter(pictures), number)) == wanted
    assert numbers(start(FakeStages(), pictures, number, number)) == wanted
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 10_000_000


def test_a_batch_groups_all_that_is_given():
    predictor = FakePredictor()
    sides = [64, 128, 64, 192, 64, 128, 256, 64]
    found = predictor.predict_batch(frames(sides), 3)
    assert numbers(found) == list(range(8))
    assert sorted(predictor.batches) == [[0, 2, 4], [1, 5], [3], [6], [7]]


def test_a_batch_does_not_read_everything_before_the_engine_begins():
    predictor = FakePredictor()
    predictor.predict_batch(frames([64] * 100), 2)
    assert predictor.batches == [[n, n + 1] for n in range(0, 100, 2)]
    assert predictor.most_prepared <= 8  # waiting, in the reader's hand, ready for the engine, in it


def test_a_batch_ends_with_its_first_bad_picture():
    predictor = FakePredictor()
    with pytest.raises(ImageError, match="first is no picture"):
        predictor.predict_batch([frame(0), "first", "second", *frames([64] * 50)], 2)
    assert predictor.prepared == 1


def test_a_batch_is_bit_for_bit_that_of_the_engine(predictor, pictures):
    """What ran together before the next pictures were read in a thread: the fourth with the first three, and so on."""
    expected = []
    for group in (pictures[:4], pictures[4:]):
        letterboxes, inputs = zip(*map(predictor.prepare, group), strict=True)
        outputs = predictor.run(np.stack(inputs), np.array([each.window for each in letterboxes], np.float32))
        rows = [{name: array[row] for name, array in outputs.items()} for row in range(len(group))]
        expected += map(predictor.finish, rows, letterboxes)
    assert_equal(predictor.predict_batch(pictures, 4), expected)
