"""Which images run together, and when, with an engine that notes its batches."""

import asyncio
import time

import numpy as np
import pytest

from maskrcnn.serving.batcher import Batcher
from runtime.errors import EngineError
from runtime.pictures.letterbox import ResizePolicy
from runtime.steps import letterbox_picture, to_detections

NAMES = ("BG", "thing")


class Engine:
    """Finds nothing; takes some time for a batch."""

    class_names = NAMES

    def __init__(self, seconds=0.0):
        self.seconds, self.batches = seconds, []

    def prepare(self, image):
        return letterbox_picture(image, 3, ResizePolicy("pad64"))

    def run(self, images, windows):
        time.sleep(self.seconds)
        self.batches.append((len(images), images.shape[2]))
        return {
            "num_detections": np.zeros(len(images), np.int32),
            "boxes": np.zeros((len(images), 1, 4), np.float32),
            "scores": np.zeros((len(images), 1), np.float32),
            "class_ids": np.zeros((len(images), 1), np.int32),
            "masks": np.zeros((len(images), 1, 28, 28), np.float32),
        }

    def finish(self, outputs, letterbox):
        return to_detections(outputs, letterbox, NAMES, "aligned")


def images(*widths):
    return [np.zeros((64, width, 3), np.uint8) for width in widths]


def batches_of(*widths, engine=None, size=2, delay=0.0, together=True):
    """The batches, as (images, width), that images of some widths lead to."""
    engine = engine or Engine()

    async def main():
        batcher = Batcher(engine, size, delay, max_waiting=100)
        if together:
            answers = await batcher.predict(images(*widths), lambda found: found.image_size)
        else:
            answers = [
                a for width in widths for a in await batcher.predict(images(width), lambda found: found.image_size)
            ]
        assert batcher.waiting == 0
        await batcher.close()
        return answers

    answers = asyncio.run(main())
    assert [answer.result for answer in answers] == [(64, width) for width in widths]
    return engine.batches


def test_images_of_one_size_run_together():
    assert sorted(batches_of(64, 128, 64, 128, delay=30.0)) == [(2, 64), (2, 128)]


def test_without_a_delay_the_first_image_runs_at_once_and_the_rest_together():
    batches = batches_of(64, 64, 64, 64, engine=Engine(0.2), size=3)
    assert batches[0] == (1, 64)
    assert sum(count for count, _ in batches) == 4
    assert len(batches) == 2


def test_one_image_alone_waits_no_longer_than_the_delay():
    begin = time.monotonic()
    assert batches_of(64, 128, delay=0.3, together=False) == [(1, 64), (1, 128)]
    assert 0.6 <= time.monotonic() - begin < 10


def test_a_full_batch_does_not_wait_for_an_older_image_of_another_size():
    assert batches_of(64, 128, 128, delay=0.5) == [(2, 128), (1, 64)]


def test_an_image_that_waited_long_enough_is_not_overtaken():
    """Full batches of another size never end, and the engine is always busy with one of them."""
    engine = Engine(0.05)

    async def main():
        batcher = Batcher(engine, 2, 0.1, max_waiting=100)

        async def others():
            while (1, 64) not in engine.batches:
                await batcher.predict(images(128, 128, 128, 128), len)

        await asyncio.wait_for(asyncio.gather(others(), others(), batcher.predict(images(64), len)), 20)
        await batcher.close()

    asyncio.run(main())
    assert engine.batches.index((1, 64)) < 12


def test_only_some_images_are_decoded_ahead():
    decoded, most = [], []

    class Counting(Engine):
        def prepare(self, image):
            decoded.append(1)
            return super().prepare(image)

        def run(self, images, windows):
            most.append(len(decoded) - sum(count for count, _ in self.batches))
            return super().run(images, windows)

    batches_of(*[64] * 40, engine=Counting(0.01), size=2)
    assert max(most) <= 2 * 2 + 2


@pytest.mark.parametrize("size", [1, 3])
def test_every_image_is_answered_whatever_fails(size):
    class Picky(Engine):
        def run(self, images, windows):
            if any(image[0, 0, 0] == 9 for image in images):
                raise ArithmeticError("no")
            return super().run(images, windows)

    async def main():
        batcher = Batcher(Picky(), size, 0.05, max_waiting=100)
        batcher.probe_with(images(64)[0])
        given = images(*[64] * 7)
        for place in (2, 5):
            given[place][:] = 9
        answers = await batcher.predict(given, len)
        assert [type(answer.result) for answer in answers] == [
            int, int, ArithmeticError, int, int, ArithmeticError, int
        ]  # fmt: skip
        assert batcher.is_ready
        await batcher.close()

    asyncio.run(main())


def test_a_broken_engine_is_tried_again_when_somebody_asks_but_not_each_time(monkeypatch):
    class Broken(Engine):
        error, tries = ArithmeticError("no"), 0

        def run(self, images, windows):
            self.tries += 1
            if self.error is not None:
                raise self.error
            return super().run(images, windows)

    async def main():
        engine = Broken()
        batcher = Batcher(engine, 1, 0.0, max_waiting=100)
        with pytest.raises(ArithmeticError):
            batcher.probe_with(images(64)[0])
        await batcher.predict(images(64), len)
        assert (batcher.is_ready, engine.tries) == (False, 3)
        for _ in range(20):  # within the interval, and while a try runs
            batcher.retry()
            await asyncio.sleep(0.005)
        assert (batcher.is_ready, engine.tries) == (False, 4)
        engine.error = MemoryError()
        await batcher.predict(images(64), len)  # tells nothing about the engine
        assert not batcher.is_ready
        engine.error = None
        batcher.retry()
        await asyncio.sleep(0.05)
        assert not batcher.is_ready
        monkeypatch.setattr("maskrcnn.serving.batcher._PROBE_EVERY", 0)
        batcher._next_probe = 0.0
        batcher.retry()
        while not batcher.is_ready:
            await asyncio.sleep(0.005)
        tries = engine.tries
        batcher.retry()
        assert [answer.result for answer in await batcher.predict(images(64), len)] == [0]
        assert engine.tries == tries + 1  # none for an engine that works
        await batcher.close()

    asyncio.run(asyncio.wait_for(main(), 20))


@pytest.mark.parametrize(
    ("engine", "ran", "first"),
    [
        (type("Few", (Engine,), {"run": lambda self, *given: {"boxes": np.zeros((0, 1, 4))}}), None, IndexError),
        (Engine, ArithmeticError("metrics"), ArithmeticError),
        (Engine, asyncio.CancelledError(), EngineError),
    ],
)
@pytest.mark.parametrize("size", [1, 3])
def test_whatever_fails_around_the_engine_is_told_and_the_next_image_runs(engine, ran, first, size):
    async def main():
        def told(_size):
            if ran is not None and failing:
                raise ran

        failing = True
        batcher = Batcher(engine(), size, 0.02, max_waiting=100, ran=told)
        answers = await batcher.predict(images(*[64] * 3), len)
        assert [type(answer.result) for answer in answers] == [first] * 3
        failing = False
        batcher._steps = Engine()
        assert [answer.result for answer in await batcher.predict(images(64), len)] == [0]
        assert batcher.waiting == 0
        await batcher.close()

    asyncio.run(asyncio.wait_for(main(), 20))
