"""The application without a network: limits, times, failures of the engine, what is left of a request, metrics."""

import asyncio
import inspect
import io
import json
import os
import threading
import time
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import get_args

import pytest
from PIL import Image

from maskrcnn.commands.serve import serve
from maskrcnn.errors import ArgumentError
from maskrcnn.serving.app import RANGES, ServeOptions, build_app
from runtime.errors import EngineError, OutOfMemoryError
from runtime.predictor import Predictor

from .conftest import DEMO, infer_body


class Engine:
    """In the place of `Predictor.run`: waits until it may go on, and can fail."""

    def __init__(self, service, monkeypatch):
        self._run, self.batches, self.error = service.predictor.run, [], None
        self.go = threading.Event()
        monkeypatch.setattr(service.predictor, "run", self)

    def __call__(self, images, windows):
        self.batches.append(len(images))
        assert self.go.wait(20)
        if self.error is not None:
            raise self.error
        return self._run(images, windows)


@asynccontextmanager
async def held(client, monkeypatch):
    """The engine waits during a block."""
    engine = Engine(client.service, monkeypatch)
    try:
        yield engine
    finally:
        engine.go.set()


async def until(condition):
    for _ in range(2000):
        if condition():
            return
        await asyncio.sleep(0.005)
    raise AssertionError("it never happened")


async def stream(*parts, sent=None):
    for part in parts:
        yield part
        await asyncio.sleep(0)


def test_an_image_as_the_body_gives_the_json_of_the_detections(application, images, found):
    async def test(client):
        for image, one in zip(images, found, strict=True):
            reply = await client.ask("/predict", image)
            assert (reply.status, reply.body.decode()) == (200, one.to_json())
            assert reply.headers["content-type"] == "application/json"
            assert reply.headers["x-content-type-options"] == "nosniff"
            times = dict(part.split(";dur=") for part in reply.headers["server-timing"].split(", "))
            assert list(times) == ["queue", "decode", "engine", "finish"]
            assert all(float(value) > 0 for name, value in times.items() if name != "queue")
        reply = await client.ask("/predict?score_threshold=0.999", images[0])
        assert reply.body.decode() == found[0].filter(0.999).to_json()

    application(test)


@pytest.mark.parametrize(
    "value",
    [
        "0.4",
        "1.5",
        "nan",
        "inf",
        "",
        "much",
        "-1",
        "<b>",
        "0_1",
        "0.9_9",
        "%200.9",
        "0.9%20",
        "+.9",
        "1e999",
        "infinity",
    ],
)
def test_other_thresholds_are_refused(application, images, value):
    async def test(client):
        reply = await client.ask(f"/predict?score_threshold={value}", images[0])
        assert reply.status == 400
        assert reply.json["error"].startswith("score_threshold: expected a number")
        assert "<b>" not in reply.json["error"]

    application(test)


@pytest.mark.parametrize("text", ["0.9", ".9", "9e-1", "0.90", "1", "1.", "1.0"])
def test_numbers_in_the_query(application, images, found, text):
    async def test(client):
        reply = await client.ask(f"/predict?score_threshold={text}", images[0])
        assert (reply.status, reply.body.decode()) == (200, found[0].filter(float(text)).to_json())

    application(test)


@pytest.mark.parametrize(
    "query",
    ["score_treshold=0.9", "score_threshold=0.9&s3cret=1", "score_threshold=0.9&score%5Fthreshold=0.9", "s3cret", "=1"],
)
def test_a_query_that_the_server_does_not_know_is_refused(application, images, query):
    async def test(client):
        reply = await client.ask(f"/predict?{query}", images[0])
        said = "the query: expected nothing but score_threshold, and that once"
        assert (reply.status, reply.json) == (400, {"error": said})
        body, headers = infer_body(images[:1])
        reply = await client.ask(f"/v2/models/demo/infer?{query}", body, headers)
        assert (reply.status, reply.json) == (400, {"error": "the query: expected none"})

    application(test)


@pytest.mark.parametrize(
    ("fields", "image", "known"),
    [
        *(
            ({"parameters": {name: value}}, {}, "binary_data_output, timeout")
            for name, value in [
                ("priority", 1), ("sequence_id", 7), ("sequence_start", False), ("s3cret", None),
                ("sequence_end", True), ("score_threshold", 0.9), ("shared_memory_region", "s3cret"),
            ]
        ),
        *(
            ({"outputs": [{"name": "boxes", "parameters": {name: 1}}]}, {}, "outputs[0], parameters: expected")
            for name in ("classification", "shared_memory_region", "binary_data_output", "s3cret")
        ),
        *(
            ({}, {"parameters": {name: 1}}, "inputs[0], parameters: expected nothing but binary_data_size")
            for name in ("shared_memory_region", "content_type", "s3cret")
        ),
        ({"score_threshold": 0.9}, {}, "the request: expected nothing but id, inputs, outputs, parameters"),
        ({"s3cret": None}, {}, "the request: expected nothing but id, inputs, outputs, parameters"),
        ({"outputs": [{"name": "boxes", "shape": [1]}]}, {}, "outputs[0]: expected nothing but name, parameters"),
        ({"outputs": {}}, {}, "outputs: expected a list"),
        ({"outputs": 0}, {}, "outputs: expected a list"),
        ({}, {"s3cret": 1}, "inputs[0]: expected nothing but name, datatype, shape, data, parameters"),
        ({}, {"data": ["s3cret"]}, "inputs[0], images: expected data or binary_data_size, not both"),
        *(
            ({"parameters": {"timeout": value}}, {}, "the request, timeout: expected microseconds")
            for value in (-1, 1.5, "s3cret", True, None, [1])
        ),
    ],
)  # fmt: skip
def test_what_a_request_asks_for_and_the_server_does_not_know_is_refused(application, images, fields, image, known):
    async def test(client):
        body, headers = infer_body(images[:1], **fields)
        length = int(headers["Inference-Header-Content-Length"])
        head = json.loads(body[:length])
        given = dict(image)
        parameters = head["inputs"][0]["parameters"] | given.pop("parameters", {})
        parameters["binary_data_size"] = len(body) - length
        head["inputs"][0] |= given | {"parameters": parameters}
        text = json.dumps(head).encode()
        headers = {"Inference-Header-Content-Length": len(text)}
        reply = await client.ask("/v2/models/demo/infer", text + body[length:], headers)
        assert reply.status == 400
        assert known in reply.json["error"]
        assert "s3cret" not in reply.json["error"]

    application(test)


def test_a_name_that_occurs_twice_in_a_request_is_refused(application, images):
    async def test(client):
        body, headers = infer_body(images[:1], id="a")
        text = body[: int(headers["Inference-Header-Content-Length"])]
        for old, new in ((b'"id":', b'"id": "b", "id":'), (b'"shape":', b'"shape": [2], "shape":')):
            twice = text.replace(old, new)
            assert twice != text
            headers = {"Inference-Header-Content-Length": len(twice)}
            reply = await client.ask("/v2/models/demo/infer", twice + body[len(text) :], headers)
            assert (reply.status, reply.json["error"].partition(": ")[2]) == (400, "a name occurs twice in an object")

    application(test)


def test_a_request_may_wait_less_long_than_the_server_lets_it(application, images, monkeypatch):
    async def test(client):
        async with held(client, monkeypatch) as engine:
            body, headers = infer_body(images[:1], parameters={"timeout": 100_000})
            reply = await asyncio.wait_for(client.ask("/v2/models/demo/infer", body, headers), 10)
            assert (reply.status, reply.json) == (
                504,
                {"error": "there was no result within the timeout of the request"},
            )
            await until(lambda: client.service.batcher.waiting == 0)
            engine.go.set()
            for longer in (0, 60_000_000, 10**300):
                body, headers = infer_body(images[:1], parameters={"timeout": longer})
                assert (await client.ask("/v2/models/demo/infer", body, headers)).status == 200

    application(test)


@pytest.mark.parametrize(
    ("body", "headers", "said"),
    [
        (b"", {}, "the image of 0 bytes is empty or not an image"),
        (b"<b>no image</b>", {}, "the image of 15 bytes is empty or not an image"),
        (b"--x", {"Content-Type": "multipart/form-data; boundary=x"}, "curl --data-binary"),
        (b"--x", {"Content-Type": "Multipart/Form-Data; boundary=x"}, "curl --data-binary"),
        (b"x", {"Content-Encoding": "gzip"}, "expected a body that is not compressed"),
        (b"x", {"Content-Encoding": "Identity"}, "the image of 1 bytes"),
    ],
)
def test_what_is_no_image_is_refused(application, body, headers, said):
    async def test(client):
        reply = await client.ask("/predict", body, headers)
        assert reply.status == 400
        assert said in reply.json["error"]
        assert "<b>" not in reply.json["error"]

    application(test)


@pytest.mark.parametrize(
    "image",
    [
        b"P6 5 s3cret 255 " + b"s3cret" * 50,
        b"\x89PNG\r\n\x1a\n" + b"\0\0\0\x0ds3cret" * 50,
        b"GIF89as3cret" * 50,
        b"BM" + b"s3cret" * 50,
        b"II*\0\x08\0\0\0\x02\0" + b"s3cret" * 50,
        b"\xff\xd8\xff\xe0\0\x10JFIF\0" + b"s3cret" * 50,
        b"RIFF\xff\0\0\0WEBPVP8 " + b"s3cret" * 50,
    ],
    ids=lambda image: image[:4].hex(),
)
def test_what_decoders_say_is_not_repeated(application, image):
    """They quote the file."""

    async def test(client):
        reply = await client.ask("/predict", image)
        assert reply.status == 400
        assert "s3c" not in reply.json["error"]
        assert reply.json["error"].startswith(f"the image of {len(image)} bytes ")
        body, headers = infer_body([image], outputs=[{"name": "error"}])
        reply = await client.ask("/v2/models/demo/infer", body, headers)
        assert (reply.status, b"s3c" in reply.body) == (200, False)

    application(test, partial=True)


def test_too_little_memory_to_decode_an_image(application, images, monkeypatch):
    async def test(client):
        def exhausted(*_arguments):
            raise MemoryError

        monkeypatch.setattr("PIL.Image.Image.load", exhausted)
        monkeypatch.setattr("PIL.ImageFile.ImageFile.load", exhausted)
        for path, (body, headers) in {"/predict": (images[0], {}), "/v2/models/demo/infer": infer_body(images)}.items():
            reply = await client.ask(path, body, headers)
            assert (reply.status, reply.json) == (507, {"error": "there was too little memory for the image"})

    application(test, partial=True)


@pytest.mark.parametrize("path", ["/predict", "/v2/models/demo/infer"])
def test_a_body_that_is_too_large_is_not_read_to_its_end(application, path):
    async def test(client):
        reply = await client.ask(path, b"x" * 1001, {"Content-Length": 1001})
        assert (reply.status, reply.received) == (413, [])
        reply = await client.ask(path, b"", chunks=stream(*[b"x" * 300] * 10))
        assert (reply.status, sum(reply.received)) == (413, 1200)
        assert reply.json == {"error": "the body has more than 1000 bytes"}
        assert (await client.ask(path, b"x" * 1000, {"Content-Length": 1000})).status == 400

    application(test, max_body=1000)


def test_paths_and_methods_that_are_not_there(application):
    async def test(client):
        paths = "expected one of /, /predict, /metrics, /v2, /v2/health/live, /v2/health/ready, /v2/models/NAME, "
        for path, body, status, said in (
            ("/<b>", None, 404, paths),
            ("/predict/", b"", 404, paths),
            ("/v2/models/demo/<b>", None, 404, paths),
            ("/predict", None, 405, "expected POST"),
            ("/v2/models/demo/infer", None, 405, "expected POST"),
            ("/metrics", b"", 405, "expected GET"),
            ("/v2/models/<b>", None, 404, "expected demo, version 1"),
        ):
            reply = await client.ask(path, body)
            assert (reply.status, list(reply.json)) == (status, ["error"])
            assert said in reply.json["error"]
            assert b"<b>" not in reply.body
        assert (await client.ask("/v2/")).body == (await client.ask("/v2")).body
        told = (await client.ask("/nothing")).json["error"].partition("expected one of ")[2].split(", ")
        for path in told:  # all that are named exist
            assert (await client.ask(path.replace("NAME", "demo"))).status in (200, 405)
        routes = {route.path.replace("{model}", "NAME") for route in client.app.routes}
        assert {path for path in routes if "version" not in path} == {*told, "/v2/"}

    application(test)


def test_images_of_too_many_pixels_are_refused_by_their_header(application, images, monkeypatch):
    """Whatever their bytes are; the body itself is small."""
    file = io.BytesIO()
    Image.new("RGBA", (500, 601)).save(file, "PNG")

    async def test(client):
        body, headers = infer_body([file.getvalue()])
        with monkeypatch.context() as patch:
            patch.setattr("PIL.ImageFile.ImageFile.load", lambda _image: pytest.fail("it is decoded"))
            for reply in (
                await client.ask("/predict", file.getvalue()),
                await client.ask("/v2/models/demo/infer", body, headers),
            ):
                assert reply.status == 400
                assert "500 x 601 pixels; at most 300000 are allowed" in reply.json["error"]
        assert (await client.ask("/predict", images[0])).status == 200

    application(test, max_pixels=300_000)


def test_a_server_without_the_option_refuses_large_images_too(application):
    file = io.BytesIO()
    Image.new("1", (5000, 5001)).save(file, "PNG")

    async def test(client):
        reply = await client.ask("/predict", file.getvalue())
        assert (reply.status, "at most 25000000 are allowed" in reply.json["error"]) == (400, True)

    application(test)


@pytest.mark.parametrize("step", ["warm_up", "prepare", "run"])
def test_what_fails_at_the_start_leaves_no_engine_behind(monkeypatch, step):
    closed = []

    class Failing(Predictor):
        def close(self):
            closed.append(self)
            super().close()

        def fail(self, *_):
            raise OutOfMemoryError("there was too little memory")

    setattr(Failing, step, Failing.fail)
    monkeypatch.setattr("maskrcnn.serving.app.Predictor", Failing)
    with pytest.raises(OutOfMemoryError):
        build_app(DEMO, ServeOptions(device="cpu"))
    assert len(closed) == 1


@pytest.mark.parametrize("name", [b"bad\xff.onnx", b"\xc3.onnx", b"\xed\xa0\x80.onnx"])
def test_a_name_that_is_not_utf_8_is_refused_before_the_engine_starts(monkeypatch, tmp_path, name):
    path = tmp_path / os.fsdecode(name)
    monkeypatch.setattr("maskrcnn.serving.app.Predictor", lambda *_, **__: pytest.fail("it is opened"))
    with pytest.raises(ArgumentError, match="is not UTF-8, so it cannot be the name of a model: rename it") as refused:
        build_app(path)
    assert str(refused.value).isprintable()


def test_more_images_than_may_wait_are_refused(application, images, monkeypatch):
    async def test(client):
        async with held(client, monkeypatch):
            first = [asyncio.create_task(client.ask("/predict", images[0])) for _ in range(2)]
            await until(lambda: client.service.batcher.waiting == 2)
            body, headers = infer_body(images[:2])
            reply = await client.ask("/v2/models/demo/infer", body, headers)  # none of the two
            assert (reply.status, reply.headers["retry-after"]) == (503, "1")
            third = asyncio.create_task(client.ask("/predict", images[0]))
            await until(lambda: client.service.batcher.waiting == 3)
            reply = await client.ask("/predict", images[0])
            assert (reply.status, reply.received) == (503, [])  # it is not even read
            assert reply.json == {"error": "3 images wait, and 3 may: try again later"}
            assert (await client.ask("/v2/health/ready")).status == 200
        assert [reply.status for reply in await asyncio.gather(*first, third)] == [200] * 3
        body, headers = infer_body(images)
        reply = await client.ask("/v2/models/demo/infer", body, headers)
        assert (reply.status, reply.json) == (400, {"error": "images: expected the shape [B], B from 1 to 3"})

    application(test, max_waiting=3)


def test_as_many_bodies_as_images_may_arrive_at_a_time(application, images):
    async def test(client):
        async def slow():
            yield images[0][:10]
            await arrived.wait()
            yield images[0][10:]

        arrived = asyncio.Event()
        first = [asyncio.create_task(client.ask("/predict", b"", chunks=slow())) for _ in range(2)]
        await asyncio.sleep(0.05)
        assert (await client.ask("/predict", images[0])).status == 503
        arrived.set()
        assert [reply.status for reply in await asyncio.gather(*first)] == [200] * 2
        assert (await client.ask("/predict", images[0])).status == 200

    application(test, max_waiting=2)


def test_a_request_that_takes_too_long_is_answered_and_its_image_never_run(application, images, monkeypatch):
    async def test(client):
        async with held(client, monkeypatch) as engine:
            begin = time.monotonic()
            first, second = await asyncio.gather(*(client.ask("/predict", images[0]) for _ in range(2)))
            assert 0.4 <= time.monotonic() - begin < 5
            assert [first.status, second.status] == [504, 504]
            assert first.json == {"error": "there was no result within 0.4 s"}
            await until(lambda: client.service.batcher.waiting == 0)
            assert engine.batches == [1]
        await until(lambda: client.service.batcher._running is None)
        assert engine.batches == [1]
        client.service.options = replace(client.service.options, timeout=20)
        assert (await client.ask("/predict", images[0])).status == 200
        assert engine.batches == [1, 1]

    application(test, timeout=0.4)


def test_a_body_that_does_not_arrive_is_answered_too(application):
    async def test(client):
        async def stalled():
            yield b"x"
            await asyncio.sleep(20)

        reply = await client.ask("/predict", b"", chunks=stalled())
        assert (reply.status, reply.headers["connection"]) == (408, "close")

    application(test, timeout=0.1)


def test_the_image_of_a_client_that_has_gone_is_never_run(application, images, monkeypatch):
    async def test(client):
        async with held(client, monkeypatch) as engine:
            first = asyncio.create_task(client.ask("/predict", images[0]))
            await until(lambda: engine.batches)
            gone = asyncio.Event()
            second = asyncio.create_task(client.ask("/predict", images[0], gone=gone))
            await until(lambda: len(client.service.batcher._ready) == 1)
            gone.set()
            assert await second is None
        assert (await first).status == 200
        await until(lambda: client.service.batcher._running is None)
        assert engine.batches == [1]

    application(test)


@pytest.mark.parametrize("error", [OutOfMemoryError("there was too little memory"), MemoryError()])
def test_too_little_memory_for_an_image(application, images, monkeypatch, error):
    async def test(client):
        async with held(client, monkeypatch) as engine:
            engine.error = error
            engine.go.set()
            reply = await client.ask("/predict", images[0])
            assert reply.status == 507
            assert "too little memory" in reply.json["error"]
            assert (await client.ask("/v2/health/ready")).status == 200

    application(test)


def test_a_broken_engine_makes_the_server_unready_until_it_works_again(application, images, monkeypatch, caplog):
    async def test(client):
        async with held(client, monkeypatch) as engine:
            engine.error = EngineError("the engine failed: <driver>")
            engine.go.set()
            reply = await client.ask("/predict", images[0])
            assert (reply.status, reply.json) == (500, {"error": "the engine failed: <driver>"})
            for path in ("/v2/health/ready", "/v2/models/demo/ready"):
                assert (await client.ask(path)).status == 503
            assert (await client.ask("/v2/health/live")).status == 200
            engine.error = None
            assert (await client.ask("/predict", images[0])).status == 200
            assert (await client.ask("/v2/health/ready")).status == 200

    application(test)
    assert "a request failed" in caplog.text


@pytest.mark.parametrize("path", ["/v2/health/ready", "/v2/models/demo/ready"])
def test_a_broken_engine_that_works_again_is_ready_without_a_request(application, images, monkeypatch, path):
    """Kubernetes sends none to a server that is not ready."""

    async def test(client):
        async with held(client, monkeypatch) as engine:
            engine.error = EngineError("the engine failed")
            engine.go.set()
            await client.ask("/predict", images[0])
            assert (await client.ask(path)).status == 503
            engine.error = None
            client.service.batcher._next_probe = 0.0
            for _ in range(400):
                if (await client.ask(path)).status == 200:
                    return
                await asyncio.sleep(0.01)
            raise AssertionError("it is never ready")

    application(test)


def test_an_image_that_the_engine_cannot_run_breaks_nothing(application, images, monkeypatch, caplog):
    """The engine is tried with the image that it was warmed up with."""

    async def test(client):
        run = client.service.predictor.run

        def picky(inputs, windows):
            if inputs.any():
                raise ArithmeticError("secret")
            return run(inputs, windows)

        monkeypatch.setattr(client.service.predictor, "run", picky)
        reply = await client.ask("/predict", images[0])
        assert (reply.status, reply.json) == (500, {"error": "internal error: see the log"})
        assert (await client.ask("/v2/health/ready")).status == 200

    application(test)
    assert "ArithmeticError: secret" in caplog.text


def test_in_a_batch_only_the_image_fails_that_cannot_be_run(application, images, monkeypatch):
    async def test(client):
        run, batches = client.service.predictor.run, []

        def picky(inputs, windows):
            batches.append(len(inputs))
            if any(not image[64:].any() for image in inputs):
                raise OutOfMemoryError("there was too little memory")
            return run(inputs, windows)

        monkeypatch.setattr(client.service.predictor, "run", picky)
        replies = await asyncio.gather(*(client.ask("/predict", image) for image in (images[0], *images[:2])))
        assert [reply.status for reply in replies] == [200] * 3
        assert max(batches) == 3

    application(test, batch_size=3, max_delay=5000)


def test_partial_answers_name_the_images_that_cannot_be_used(application, images, found):
    async def test(client):
        metadata = (await client.ask("/v2/models/demo")).json
        assert metadata["outputs"][-1] == {"name": "error", "datatype": "BYTES", "shape": [-1]}
        body, headers = infer_body([images[0], b"no image", images[1]], id="a")
        reply = await client.ask("/v2/models/demo/infer", body, headers)
        outputs = {output["name"]: output["data"] for output in reply.json["outputs"]}
        assert (reply.status, reply.json["id"]) == (200, "a")
        assert outputs["num_detections"] == [len(found[0]), 0, len(found[1])]
        assert outputs["image_sizes"] == [*found[0].image_size, 0, 0, *found[1].image_size]
        assert outputs["error"][::2] == ["", ""]
        assert outputs["error"][1].startswith("the image of 8 bytes is empty or not an image")
        assert outputs["names"] == [*found[0].names, *found[1].names]
        # Whoever does not ask for errors must not take them for images without detections.
        body, headers = infer_body([images[0], b"no image"], outputs=[{"name": "num_detections"}])
        reply = await client.ask("/v2/models/demo/infer", body, headers)
        assert reply.status == 400
        assert reply.json["error"].startswith("images[1]: the image of 8 bytes is empty")

    application(test, partial=True)


def test_a_server_that_ends_answers_what_is_in_hand(application, images, monkeypatch):
    async def test(client):
        async with held(client, monkeypatch):
            first = asyncio.create_task(client.ask("/predict", images[0]))
            await until(lambda: client.service.batcher.waiting == 1)
            client.service.batcher.draining = True
            assert (await client.ask("/v2/health/ready")).status == 503
            assert (await client.ask("/v2/health/live")).status == 200
            reply = await client.ask("/predict", images[0])
            assert (reply.status, reply.headers["retry-after"]) == (503, "1")
        assert (await first).status == 200

    application(test)


def test_metrics(application, images, found):
    async def test(client):
        await client.ask("/predict", images[0])
        body, headers = infer_body(images[1:3])
        await client.ask("/v2/models/demo/infer", body, headers)
        await client.ask("/predict", b"no image")
        await client.ask("/v2/health/ready")
        reply = await client.ask("/metrics")
        assert reply.headers["content-type"].startswith("text/plain; version=")
        return reply.body.decode().splitlines()

    lines = application(test)
    assert 'maskrcnn_requests_total{status="200"} 2.0' in lines
    assert 'maskrcnn_requests_total{status="400"} 1.0' in lines
    assert f"maskrcnn_detections_total {sum(map(len, found[:3]))}.0" in lines
    assert 'maskrcnn_seconds_count{stage="engine"} 3.0' in lines
    assert 'maskrcnn_batch_size_bucket{le="1.0"} 3.0' in lines
    assert "maskrcnn_waiting 0.0" in lines
    (build,) = (line for line in lines if line.startswith("maskrcnn_build_info{"))
    assert 'device="cpu"' in build
    assert 'model="demo"' in build


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_body", 0),
        ("max_waiting", 0),
        ("timeout", 0),
        ("timeout", float("nan")),
        ("batch_size", 0),
        ("max_delay", -1),
        ("max_pixels", 0),
        ("threads", 100_000),
        ("batch_size", 20_000),
        ("max_waiting", 10**9),
        ("timeout", float("inf")),
    ],
)
def test_options_out_of_range_are_refused(name, value):
    with pytest.raises(ArgumentError, match=f"{name} is "):
        ServeOptions(**{name: value})


def test_the_command_has_the_ranges_and_defaults_of_the_application():
    options = inspect.signature(serve).parameters
    for name, limits in RANGES.items():
        _, option = get_args(options[name].annotation)
        assert (option.min, option.max) == limits
        assert options[name].default == getattr(ServeOptions(), name)
        ServeOptions(**{name: limits[0]})
        ServeOptions(**{name: limits[1]})
