"""Which images run together, and when, with an engine that notes its batches."""

import asyncio
import time

import numpy as np
import pytest

from maskrcnn.serving.batcher import Batcher
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
