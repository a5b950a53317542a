"""JPEG bytes to run-length encodings, many pictures: one call each, streams, and batches of four.

Contestants take turns in one process, so that whatever else the machine does hits all of them alike. Pictures per
second of each, by the median and by the best of its turns, and its processor time are in `extra_info`; the table of the
run shows one of them.
"""

from collections.abc import Callable
from io import BytesIO
from statistics import median
from time import perf_counter, process_time

import numpy as np
import pytest
from PIL import Image

from maskrcnn import demo_picture
from runtime import Predictor

TURNS, BATCH = 15, 4


class Contestant:
    """A way to predict `count` pictures, with the wall and processor seconds of each turn."""

    def __init__(self, work: Callable[[], object], count: int) -> None:
        self.work, self.count = work, count
        self.wall: list[float] = []
        self.cpu: list[float] = []

    def __call__(self) -> None:
        wall, cpu = perf_counter(), process_time()
        self.work()
        self.wall.append(perf_counter() - wall)
        self.cpu.append(process_time() - cpu)


def compare(benchmark, contestants, count, shown):
    """Run all in turns; the table shows one of them."""
    clocks = {name: Contestant(work, count) for name, work in contestants.items()}
    for clock in clocks.values():
        clock.work()  # warm
    others = [clock for name, clock in clocks.items() if name != shown]
    benchmark.pedantic(clocks[shown], setup=lambda: [clock() for clock in others] and None, rounds=TURNS)
    benchmark.extra_info["pictures_per_second"] = {name: count / median(clock.wall) for name, clock in clocks.items()}
    benchmark.extra_info["pictures_per_second_best"] = {name: count / min(clock.wall) for name, clock in clocks.items()}
    benchmark.extra_info["cpu_ms_per_picture"] = {
        name: 1000 * median(clock.cpu) / count for name, clock in clocks.items()
    }


@pytest.mark.benchmark(group="pictures, demo model, JPEG to run lengths")
@pytest.mark.parametrize(("size", "count"), [((640, 480), 16), ((4000, 3000), 8)], ids=["640x480", "4000x3000"])
def test_pictures(benchmark, onnx_path, size, count):
    predictor = Predictor(onnx_path, "cpu")
    stream = BytesIO()
    Image.fromarray(demo_picture()).resize(size).save(stream, "JPEG", quality=90)
    pictures = [stream.getvalue()] * count
    compare(
        benchmark,
        {
            "one call each": lambda: [predictor(each).rles for each in pictures],
            "stream": lambda: [found.rles for found in predictor.predict_stream(pictures, rles=True)],
            "stream of 4": lambda: [found.rles for found in predictor.predict_stream(pictures, BATCH, rles=True)],
            "batches of 4": lambda: [found.rles for found in predictor.predict_batch(pictures, BATCH)],
        },
        count,
        "stream",
    )


@pytest.mark.benchmark(group="graph, demo model, 1 and 4 pictures together")
def test_graph(benchmark, onnx_path):
    predictor = Predictor(onnx_path, "cpu")
    letterbox, prepared = predictor.prepare(demo_picture())
    images = np.stack([prepared] * BATCH)
    windows = np.array([letterbox.window] * BATCH, np.float32)

    def one_by_one() -> None:
        for row in range(BATCH):
            predictor.run(images[row : row + 1], windows[row : row + 1])

    contestants = {"1 at a time": one_by_one, "4 together": lambda: predictor.run(images, windows)}
    compare(benchmark, contestants, BATCH, "4 together")
