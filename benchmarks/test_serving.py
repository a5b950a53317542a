"""`maskrcnn serve` with four clients against a plain loop over `Predictor`: JPEG bytes to the JSON of the detections.

The server is a process of its own, and its clients are threads of this one. Both take turns, so that whatever else the
machine does hits both alike. Images per second of each are in `extra_info`, and the server's share of the loop's.
"""

import http.client
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from statistics import median
from time import perf_counter

import pytest
from PIL import Image

from benchmarks.turns import THREADS
from maskrcnn import demo_picture
from runtime import EngineOptions, Predictor

CLIENTS, TURNS = 4, 15
DEMO = Path(__file__).parents[1] / "maskrcnn" / "demo.onnx"


@contextmanager
def serving(threads):
    """A server during a block; its port."""
    command = [sys.executable, "-m", "maskrcnn", "serve", "demo", "--device", "cpu", "--port", "0"]
    with subprocess.Popen([*command, "--threads", str(threads)], stdout=subprocess.PIPE, text=True) as process:
        try:
            yield int(process.stdout.readline().rpartition(":")[2].split()[0])
        finally:
            process.terminate()


class Clients:
    """Four connections that stay open; each thread asks for its share of the images."""

    def __init__(self, port):
        self._pool = ThreadPoolExecutor(CLIENTS)
        self._connections = [http.client.HTTPConnection("127.0.0.1", port) for _ in range(CLIENTS)]

    def __call__(self, images):
        parts = [images[client::CLIENTS] for client in range(CLIENTS)]
        return [text for texts in self._pool.map(self._ask, self._connections, parts) for text in texts]

    def _ask(self, connection, images):
        texts = []
        for image in images:
            connection.request("POST", "/predict", image)
            answer = connection.getresponse()
            texts.append(answer.read().decode())
            assert answer.status == 200, texts[-1]
        return texts

    def close(self):
        self._pool.shutdown()
        for connection in self._connections:
            connection.close()


@pytest.mark.benchmark(group="maskrcnn serve with 4 clients, demo model, JPEG to JSON")
@pytest.mark.parametrize(("size", "count"), [((640, 480), 40), ((4000, 3000), 16)], ids=["640x480", "4000x3000"])
def test_serve(benchmark, size, count):
    stream = BytesIO()
    Image.fromarray(demo_picture()).resize(size).save(stream, "JPEG", quality=90)
    images = [stream.getvalue()] * count
    loop = []
    with Predictor(DEMO, "cpu", engine=EngineOptions(threads=THREADS)) as predictor, serving(THREADS) as port:
        clients = Clients(port)
        wanted = [predictor(image).to_json() for image in images]
        assert clients(images) == wanted

        def turn():
            begin = perf_counter()
            assert [predictor(image).to_json() for image in images] == wanted
            loop.append(perf_counter() - begin)

        served = []

        def serve():
            begin = perf_counter()
            clients(images)
            served.append(perf_counter() - begin)

        benchmark.pedantic(serve, setup=turn, rounds=TURNS)
        clients.close()
    benchmark.extra_info["images_per_second"] = {"loop": count / median(loop), "serve": count / median(served)}
    share = median(one / other for one, other in zip(loop, served, strict=True))
    benchmark.extra_info["serve_to_loop"] = share
    assert share >= 0.9
