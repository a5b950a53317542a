"""`maskrcnn serve` as a process: how it starts, what it does with ten times the load, how it ends, what it keeps."""

import contextlib
import http.client
import json
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from maskrcnn.errors import ArgumentError
from maskrcnn.serving.server import bind

from .conftest import ROOT


def ask_for(server, image, threads, seconds, period=0.0):
    """Threads that ask again and again, at most once per period; return when each asked, what came, and how fast."""
    answers, start = [], time.monotonic()

    def ask(thread):
        turn = start + thread * period / threads
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)) as connection:
            while (begin := time.monotonic()) < start + seconds:
                if turn > begin:
                    time.sleep(turn - begin)
                begin, turn = time.monotonic(), max(turn, begin) + period
                try:
                    connection.request("POST", "/predict", image)
                    answer = connection.getresponse()
                    content = answer.read()
                except (OSError, http.client.HTTPException) as error:
                    answers.append((begin, error, 0.0))
                    return
                answers.append((begin, answer.status, time.monotonic() - begin))
                if answer.status == 200:
                    assert content.endswith(b"]}")

    workers = [threading.Thread(target=ask, args=[thread]) for thread in range(threads)]
    for worker in workers:
        worker.start()
    return answers, workers


# An engine that takes 60 ms and no processor, so that other work on this machine changes nothing.
STEADY = """
import time
from runtime.predictor import Predictor
run, kept = Predictor.run, {}
def steady(self, images, windows):
    if images.tobytes() not in kept:
        kept[images.tobytes()] = run(self, images, windows)
    time.sleep(0.06)
    return kept[images.tobytes()]
Predictor.run = steady
"""


def test_ten_times_the_load_is_refused_and_the_rest_answered_in_time(serve, images):
    waiting, seconds, rate = 8, 4, 1 / 0.065
    server = serve("--max-waiting", str(waiting), before=STEADY)
    threads = 5 * waiting
    answers, workers = ask_for(server, images[0], threads, seconds, period=threads / (10 * rate))
    for worker in workers:
        worker.join()
    times = [took for _, status, took in answers if status == 200]
    refused = [status for _, status, _ in answers if status != 200]
    assert set(refused) == {503}
    assert len(refused) > 5 * len(times) > 200
    # Of some 60 answers, the slowest few measure the pauses of a busy machine.
    assert np.quantile(times, 0.95) <= 1.5 * waiting / (len(times) / seconds)
    assert server.end() == (0, "")


# Says in the end how many images were let in.
COUNTED = """
import atexit, sys
from runtime.predictor import Predictor
prepare, prepared = Predictor.prepare, []
Predictor.prepare = lambda self, image: (prepared.append(type(image)), prepare(self, image))[1]
atexit.register(lambda: print(prepared.count(bytearray), file=sys.stderr))  # others are arrays, to warm up
"""


def test_sigterm_under_load_answers_what_is_in_hand(serve, images):
    server = serve(before=COUNTED)
    answers, workers = ask_for(server, images[0], 6, 60)
    while sum(status == 200 for _, status, _ in list(answers)) < 6:
        time.sleep(0.01)
    code, errors = server.end()
    for worker in workers:
        worker.join()
    found = [status for _, status, _ in answers]
    assert (code, int(errors)) == (0, found.count(200))
    # The others were refused: with status 503, or because an idle connection was closed at the moment of the request.
    closed = [status for status in found if status not in (200, 503)]
    assert len(closed) <= 6
    assert all(isinstance(error, http.client.HTTPException | OSError) for error in closed)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", server.port))


def test_ctrl_c_answers_what_is_in_hand_too(serve, images):
    server = serve()
    statuses = []
    worker = threading.Thread(target=lambda: statuses.append(server.ask("/predict", images[0])[0]))
    worker.start()
    while b"maskrcnn_waiting 1.0" not in server.ask("/metrics")[2] and not statuses:
        time.sleep(0.002)
    code, errors = server.end(signal.SIGINT)
    worker.join()
    assert (code, errors, statuses) == (130, "interrupted\n", [200])


def start(*arguments):
    command = [sys.executable, "-m", "maskrcnn", "serve", *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
    return done.returncode, done.stdout, done.stderr


def test_a_port_that_is_taken(server):
    code, out, errors = start("demo", "--port", server.port)
    assert (code, out) == (2, "")
    assert (
        errors
        == f"error: cannot listen on 127.0.0.1, port {server.port}: Address already in use; choose another --port\n"
    )


def test_answers_are_not_held_back():
    """Accepted sockets inherit the protocol, by which asyncio knows that there is an algorithm to turn off."""
    with bind("127.0.0.1", 0) as bound:
        assert bound.proto == socket.IPPROTO_TCP


@pytest.mark.parametrize("host", ["999.0.0.1", "203.0.113.7", "", "a..b", ".x", "x" * 64, "\udce4.example"])
def test_an_address_that_is_not_of_this_machine(host):
    with pytest.raises(ArgumentError, match=r"--host") as caught:
        bind(host, 0)
    assert "--port" not in str(caught.value)


def test_a_port_is_taken_before_the_model_is_opened():
    """Else two servers that start together would both bind it, and one would end with a traceback."""
    with bind("127.0.0.1", 0) as bound:
        port = bound.getsockname()[1]
        with pytest.raises(ArgumentError, match="Address already in use; choose another --port"):
            bind("127.0.0.1", port)
        socket.create_connection(("127.0.0.1", port)).close()


def test_a_weights_file_is_no_artifact():
    code, out, errors = start(ROOT / "maskrcnn" / "demo.weights.h5", "--port", "0")
    assert (code, out, errors.count("\n")) == (4, "", 1)
    assert "demo.weights.h5 is a checkpoint, not an artifact: export it first: maskrcnn export onnx" in errors


def test_nothing_of_tensorflow_is_needed(serve, images, found):
    names = ("tensorflow", "keras", "h5py", "onnx", "tf2onnx", "pycocotools", "yaml", "ray", "pandas", "httptools")
    server = serve(before=f"import sys; sys.modules |= dict.fromkeys({names})")
    assert server.ask("/predict", images[0])[2].decode() == found[0].to_json()
    assert server.end() == (0, "")


@pytest.mark.slow
def test_a_savedmodel_is_served_under_the_name_of_its_folder(serve, images, savedmodel_artifact, tmp_path):
    shutil.copytree(savedmodel_artifact, tmp_path / "mine.v2")
    server = serve(model=tmp_path / "mine.v2")
    status, _, body = server.ask("/predict", images[0])
    assert (status, len(json.loads(body)["detections"])) == (200, 7)
    assert json.loads(server.ask("/v2/models/mine.v2")[2])["platform"] == "maskrcnn_savedmodel"
    assert server.end()[0] == 0


@pytest.mark.slow
def test_five_thousand_requests_leave_no_memory_behind(serve, images):
    server = serve()
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)) as connection:

        def ask(count):
            for number in range(count):
                connection.request("POST", "/predict", images[number % len(images)])
                answer = connection.getresponse()
                answer.read()
                assert answer.status == 200

        ask(100)  # what is allocated once
        before = server.memory()
        ask(5000)
        assert server.memory() - before <= 30
    assert server.end() == (0, "")
