"""The application: routes, limits, and answers. `build_app` makes it; any ASGI server can run it."""

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from maskrcnn.errors import ArgumentError
from maskrcnn.serving.batcher import STAGES, Answer, Batcher
from maskrcnn.serving.errors import BusyError, RequestError, message_of, status_of
from maskrcnn.serving.page import page_route
from runtime.detections import Detections
from runtime.engines.options import EngineOptions
from runtime.predictor import Predictor

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class ServeOptions:
    """How an artifact is served.

    Attributes:
        device: Device for the artifact, as in `runtime.Predictor`.
        threads: Threads that compute one operator, as in `runtime.EngineOptions`.
        max_body: Most bytes of the body of a request.
        max_waiting: Most images in hand; further ones are refused with status 503.
        timeout: Seconds from the first byte of a request after which it is answered with status 504.
        batch_size: Most images of one input size that run together; None: 1 on processors, 4 elsewhere.
        max_delay: Milliseconds that an image waits for others of its input size; None: 0 on processors, 5 elsewhere.
        partial: Answer requests with images that cannot be used, with an output `error`, instead of refusing them.
    """

    device: str = "auto"
    threads: int | None = None
    max_body: int = 20_000_000
    max_waiting: int = 64
    timeout: float = 30.0
    batch_size: int | None = None
    max_delay: float | None = None
    partial: bool = False

    def __post_init__(self) -> None:
        for name, least in (
            ("max_body", 1),
            ("max_waiting", 1),
            ("timeout", 0.001),
            ("batch_size", 1),
            ("max_delay", 0),
        ):
            value = getattr(self, name)
            if value is not None and not least <= value < float("inf"):
                raise ArgumentError(f"{name} is {value!r}: expected a number of at least {least}")


_DEFAULTS = ServeOptions()


class Service:
    """What the routes share: the predictor, its queue, and the limits. It is `app.state.service`."""

    def __init__(self, model: str | Path, options: ServeOptions) -> None:
        self.options = options
        self.predictor = Predictor(model, options.device, engine=EngineOptions(threads=options.threads))
        self.name = Path(model).stem
        processor = self.predictor.device in ("cpu", "openvino")
        batch_size = options.batch_size or (1 if processor else 4)
        delay = (0.0 if processor else 5.0) if options.max_delay is None else options.max_delay
        self.batcher = Batcher(self.predictor, batch_size, delay / 1000, options.max_waiting)
        # Sides that an artifact takes, too, that does not resize.
        self.batcher.warm_up(np.zeros((512, 640, self.predictor.metadata.image_channels), np.uint8))

    def facts(self) -> dict[str, Any]:
        """Return what the page shows about the model, and the limits that it keeps."""
        return {
            "model": self.name,
            "device": self.predictor.device,
            "classes": self.predictor.class_names[1:],
            "score_threshold": self.predictor.score_threshold,
            "max_body": self.options.max_body,
        }

    async def close(self) -> None:
        """End the threads and free the engine."""
        await self.batcher.close()
        self.predictor.close()

    def threshold(self, value: float | None) -> float | None:
        """Return the lowest score that a request asks for.

        Raises:
            RequestError: It is no number of the range, or lower than the artifact's.
        """
        lowest = self.predictor.score_threshold
        if value is None or lowest <= value <= 1:
            return value
        raise RequestError(f"score_threshold: expected a number from {lowest:g}, that of the model, to 1")

    async def body(self, request: Request) -> bytearray:
        """Return the body of a request; refuse it before it is read if there is no room, and once it is too large.

        Raises:
            RequestError: It is too large.
            BusyError: There are too many images already.
        """
        self.batcher.require_room()
        most, content = self.options.max_body, bytearray()
        too_large = RequestError(f"the body has more than {most} bytes", 413)
        length = request.headers.get("content-length", "")
        if length.isdecimal() and int(length) > most:
            raise too_large
        if request.headers.get("content-encoding", "identity") != "identity":
            raise RequestError("Content-Encoding: expected a body that is not compressed")
        async for chunk in request.stream():
            if len(content) + len(chunk) > most:
                raise too_large
            content += chunk
        return content


def build_app(model: str | Path, options: ServeOptions = _DEFAULTS) -> Starlette:
    """Open an artifact and return the application that serves it.

    The predictor is closed when the application's lifespan ends.

    Args:
        model: An `.onnx` file or SavedModel folder written by maskrcnn-export.
        options: Device, limits and batches.

    Raises:
        ArtifactError: There is no artifact, or it cannot be used.
        DeviceError: The device cannot be used.
        OutOfMemoryError: There is too little memory for the model.
    """
    service = Service(model, options)

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        try:
            yield
        finally:
            await service.close()

    app = Starlette(
        routes=[
            page_route(service.facts()),
            Route("/predict", _predict, methods=["POST"]),
            Route("/v2/health/live", _live),
            Route("/v2/health/ready", _ready),
        ],
        middleware=[Middleware(_Answers)],
        exception_handlers={HTTPException: _http_error},
        lifespan=lifespan,
    )
    app.state.service = service
    return app


def _service(request: Request) -> Service:
    return request.app.state.service


async def _live(_request: Request) -> Response:
    return JSONResponse({"live": True})


async def _ready(request: Request) -> Response:
    ready = _service(request).batcher.is_ready
    return JSONResponse({"ready": ready}, 200 if ready else 503)


async def _predict(request: Request) -> Response:
    """Answer an image with the JSON of `Detections.to_json`."""
    service = _service(request)
    threshold = service.threshold(_number(request.query_params.get("score_threshold")))
    if request.headers.get("content-type", "").startswith("multipart/"):
        raise RequestError("expected the image as the body, as of curl --data-binary @photo.jpg, and no form")
    image = await service.body(request)

    def make(found: Detections) -> bytes:
        return found.filter(threshold).to_json().encode("utf-8", "backslashreplace")

    (answer,) = await service.batcher.predict([image], make)
    if isinstance(answer.result, Exception):
        raise answer.result
    return Response(answer.result, headers=_timing([answer]), media_type="application/json")


def _number(text: str | None) -> float | None:
    try:
        return None if text is None else float(text)
    except ValueError:
        raise RequestError("score_threshold: expected a number") from None


def _timing(answers: Sequence[Answer[Any]]) -> dict[str, str]:
    """Return a header with the milliseconds of each stage: of several images, the longest."""
    longest = {stage: max(answer.seconds[stage] for answer in answers) for stage in STAGES}
    return {"Server-Timing": ", ".join(f"{stage};dur={1000 * value:.1f}" for stage, value in longest.items())}


class _Answers:
    """Gives every request an answer in time: what an endpoint raises becomes JSON with a status."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun = False

        async def checked(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                headers = MutableHeaders(scope=message)
                headers.setdefault("X-Content-Type-Options", "nosniff")
                if headers.get("content-type", "").startswith("text/html"):
                    headers.setdefault("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
            await send(message)

        timeout = scope["app"].state.service.options.timeout
        try:
            async with asyncio.timeout(timeout):
                await self._app(scope, receive, checked)
        except ClientDisconnect:
            return
        except Exception as error:
            if begun:
                raise
            if isinstance(error, TimeoutError):
                error = RequestError(f"there was no result within {timeout:g} s", 504)
            await _error_response(error)(scope, receive, checked)


def _error_response(error: Exception) -> Response:
    status = status_of(error)
    if status == 500:
        _logger.error("a request failed", exc_info=error)
    headers = {"Retry-After": str(error.seconds)} if isinstance(error, BusyError) else None
    return JSONResponse({"error": message_of(error)}, status, headers)


async def _http_error(_request: Request, error: HTTPException) -> Response:
    return JSONResponse({"error": error.detail.lower()}, error.status_code, error.headers)
