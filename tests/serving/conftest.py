"""A server in a process of its own, an application without one, and images with what `Predictor` finds in them."""

import asyncio
import contextlib
import http.client
import io
import json
import os
import re
import signal
import struct
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from maskrcnn.serving.app import ServeOptions, build_app
from runtime.predictor import Predictor

ROOT = Path(__file__).parents[2]
DEMO = ROOT / "maskrcnn" / "demo.onnx"


class Served:
    """`maskrcnn serve` in a process of its own, which runs some code before."""

    def __init__(self, *arguments, before="", model="demo"):
        code = f"{before}\nfrom maskrcnn.__main__ import main; main()"
        command = [sys.executable, "-c", code, "serve", str(model), "--port", "0", "--device", "cpu", *arguments]
        self.process = subprocess.Popen(
            command,
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"LC_ALL": "C"},
        )
        self.line = self.process.stdout.readline()
        found = re.fullmatch(r"serving [\w.]+ on http://127\.0\.0\.1:(\d+) \(cpu\)\n", self.line)
        if found is None:
            self.process.kill()
            raise AssertionError(self.line + self.process.communicate()[1])
        self.port = int(found[1])
        self.url = f"127.0.0.1:{self.port}"

    def ask(self, path, body=None, headers=None, method=None):
        """Status, headers and body of one answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        with contextlib.closing(connection):
            connection.request(method or ("GET" if body is None else "POST"), path, body, headers or {})
            answer = connection.getresponse()
            return answer.status, dict(answer.getheaders()), answer.read()

    def memory(self):
        """Resident megabytes."""
        text = Path(f"/proc/{self.process.pid}/status").read_text(encoding="ascii")
        return int(re.search(r"VmRSS:\s+(\d+) kB", text)[1]) / 1024

    def end(self, number=signal.SIGTERM):
        """Exit code and what was printed to stderr."""
        self.process.send_signal(number)
        _, errors = self.process.communicate(timeout=60)
        return self.process.returncode, errors


@pytest.fixture(scope="session")
def serve():
    """Start a server with some options; it ends with the tests."""
    started = []

    def start(*arguments, **how):
        started.append(Served(*arguments, **how))
        return started[-1]

    yield start
    for server in started:
        if server.process.poll() is None:
            server.process.kill()
        server.process.communicate()


@pytest.fixture(scope="session")
def server(serve):
    """One that all tests share."""
    return serve()


@dataclass
class Reply:
    status: int
    headers: dict
    body: bytes

    @property
    def json(self):
        return json.loads(self.body)


class Client:
    """Calls an application without a network; one event loop for all calls."""

    def __init__(self, app):
        self.app, self.service = app, app.state.service

    async def ask(self, path, body=None, headers=(), gone=None, chunks=None):
        """One answer. The client goes when the event `gone` is set; None for no answer.

        The body is one chunk, or those of an async generator.
        """
        name, _, query = path.partition("?")
        sent, received = [], []
        if chunks is None:
            chunks = _once(body or b"")

        async def receive():
            async for chunk in chunks:
                received.append(len(chunk))
                return {"type": "http.request", "body": chunk, "more_body": True}
            if "end" not in received:
                received.append("end")
                return {"type": "http.request", "body": b"", "more_body": False}
            await (gone or asyncio.Event()).wait()
            return {"type": "http.disconnect"}

        async def send(message):
            sent.append(message)

        scope = {
            "type": "http",
            "method": "GET" if body is None else "POST",
            "path": name,
            "query_string": query.encode(),
            "headers": [(key.lower().encode(), str(value).encode()) for key, value in dict(headers).items()],
        }
        await self.app(scope, receive, send)
        if not sent:
            return None
        heads = {key.decode(): value.decode() for key, value in sent[0]["headers"]}
        reply = Reply(sent[0]["status"], heads, b"".join(message.get("body", b"") for message in sent[1:]))
        reply.received = received
        return reply


async def _once(body):
    yield body


@pytest.fixture(scope="session")
def predictor():
    """One for all applications, because opening one takes a while."""
    with Predictor(DEMO, "cpu") as predictor:
        yield predictor


@pytest.fixture
def application(monkeypatch, predictor):
    """Run an async function with the client of a new application."""

    def run(test, **options):
        async def main():
            monkeypatch.setattr(predictor, "close", lambda: None)
            monkeypatch.setattr(predictor, "max_pixels", None)  # what it is set to is undone
            monkeypatch.setattr("maskrcnn.serving.app.Predictor", lambda *_, **__: predictor)
            app = build_app(DEMO, ServeOptions(**options))
            async with app.router.lifespan_context(app):
                return await test(Client(app))

        return asyncio.run(main())

    return run


def infer_body(images, inputs=(), **fields):
    """Body and headers of a request of the protocol with binary images, and further tensors of JSON."""
    data = b"".join(struct.pack("<I", len(image)) + image for image in images)
    first = {"name": "images", "shape": [len(images)], "datatype": "BYTES"}
    head = {"inputs": [first | {"parameters": {"binary_data_size": len(data)}}, *inputs], **fields}
    text = json.dumps(head).encode()
    return text + data, {"Inference-Header-Content-Length": str(len(text))}


@pytest.fixture(scope="session")
def images(picture):
    """Encoded images of several kinds and sizes."""

    def encode(pixels, kind):
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, kind)
        return file.getvalue()

    return (
        encode(picture, "JPEG"),
        encode(np.ascontiguousarray(picture[40:300, 100:420]), "PNG"),
        encode(np.ascontiguousarray(picture[:, ::-1]), "WEBP"),
        encode(np.full((90, 40, 3), 128, np.uint8), "PNG"),  # there is nothing in it
    )


@pytest.fixture(scope="session")
def found(images, predictor):
    """What `Predictor` finds in each image."""
    return [predictor(image) for image in images]
