"""The application: routes, limits, and answers. `build_app` makes it; any ASGI server can run it."""

import asyncio
import logging
import re
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from maskrcnn.distribution import NAME, own_version
from maskrcnn.errors import ArgumentError
from maskrcnn.serving.batcher import STAGES, Answer, Batcher
from maskrcnn.serving.errors import BusyError, RequestError, answer_error, message_of, status_of
from maskrcnn.serving.metrics import Metrics
from maskrcnn.serving.page import page_route
from maskrcnn.serving.protocol import (
    ERROR,
    HEADER_LENGTH,
    failed_tensors,
    image_tensors,
    read_request,
    tensors,
    write_response,
)
from runtime.artifact_files.read import recorded_digest
from runtime.detections import Detections
from runtime.engines.options import MOST_THREADS, EngineOptions
from runtime.errors import ImageError
from runtime.pictures.read import ImageSource
from runtime.predictor import Predictor

_VERSION = "1"  # of the model, of which there is one
_READ = "maskrcnn.read"  # in the scope of a request whose body has arrived
_PROBE_SIZE = (512, 640)  # sides that an artifact takes, too, that does not resize
_PATHS = (
    *("/", "/predict", "/metrics", "/v2", "/v2/health/live", "/v2/health/ready"),
    *(f"/v2/models/NAME{rest}" for rest in ("", "/ready", "/infer")),
)
_NUMBER = re.compile(r"-?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)  # Python would also take 0_1 and more
R = TypeVar("R")
RANGES: dict[str, tuple[float, float]] = {
    "threads": (1, MOST_THREADS),
    "max_body": (1, 2**40),
    "max_pixels": (1, 2**31),
    "max_waiting": (1, 100_000),
    "timeout": (0.001, 86_400),
    "batch_size": (1, 64),
    "max_delay": (0, 60_000),
}

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class ServeOptions:
    """How an artifact is served.

    Attributes:
        device: Device for the artifact, as in `runtime.Predictor`.
        threads: Threads that compute one operator, as in `runtime.EngineOptions`.
        max_body: Most bytes of the body of a request.
        max_pixels: Most pixels of an image; larger ones are refused before they are decoded.
        max_waiting: Most images in hand; further ones are refused with status 503.
        timeout: Seconds after which a request is answered with status 504.
        batch_size: Most images of one input size that run together; None: 1 on processors, 4 elsewhere.
        max_delay: Milliseconds that an image waits for others of its input size; None: 0 on processors, 5 elsewhere.
        partial: Answer requests with images that cannot be used, with an output `error`, instead of refusing them.

    Raises:
        ArgumentError: A number is out of range.
    """

    device: str = "auto"
    threads: int | None = None
    max_body: int = 20_000_000
    max_pixels: int = 25_000_000
    max_waiting: int = 64
    timeout: float = 30.0
    batch_size: int | None = None
    max_delay: float | None = None
    partial: bool = False

    def __post_init__(self) -> None:
        for name, (low, high) in RANGES.items():
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                raise ArgumentError(f"{name} is {value!r}: expected a number from {low} to {high}")


_DEFAULTS = ServeOptions()


class Service:
    """What the routes share: the predictor, its queue, metrics and limits. It is `app.state.service`."""

    def __init__(self, model: str | Path, options: ServeOptions) -> None:
        path = Path(model).absolute()
        self.options, self.name = options, path.name if path.is_dir() else path.stem
        try:
            self.name.encode()
        except UnicodeEncodeError as error:
            raise ArgumentError(f"{path.name} is not UTF-8, so it cannot be the name of a model: rename it") from error
        self._reading = 0  # bodies that arrive
        engine = EngineOptions(threads=options.threads)
        self.predictor = Predictor(model, options.device, remember_image=False, engine=engine)
        try:
            self._prepare()
        except BaseException:
            self.predictor.close()
            raise

    def _prepare(self) -> None:
        """Run the engine for the first time."""
        options, device = self.options, self.predictor.device
        self.digest = recorded_digest(self.predictor.path)
        processor = device in ("cpu", "openvino")
        self.metrics = Metrics(STAGES, {"model": self.name, "sha256": self.digest, "device": device})
        batch_size = options.batch_size or (1 if processor else 4)
        self.batcher = Batcher(
            self.predictor,
            batch_size,
            (0.0 if processor else 0.005) if options.max_delay is None else options.max_delay / 1000,
            options.max_waiting,
            self.metrics.ran,
        )
        self.predictor.warm_up([_PROBE_SIZE], batch_size)
        self.batcher.probe_with(np.zeros((*_PROBE_SIZE, self.predictor.metadata.image_channels), np.uint8))
        self.predictor.max_pixels = options.max_pixels  # which may be less than the probe has

    def is_ready(self) -> bool:
        """Return whether requests can be answered; ask a broken engine again for the next time."""
        self.batcher.retry()
        return self.batcher.is_ready

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
            RequestError: It is no number of the range, or lower than the model's.
        """
        lowest = self.predictor.score_threshold
        if value is None or np.float32(lowest) <= value <= 1:  # what arrives as float32 may be a little lower
            return value
        raise RequestError(f"score_threshold: expected a number from {lowest:g}, that of the model, to 1")

    async def body(self, request: Request) -> bytearray:
        """Return the body of a request; refuse it before it is read if there is no room, and once it is too large.

        Raises:
            RequestError: It is too large, or compressed.
            BusyError: There are too many images already.
        """
        self.batcher.require_room()
        if self._reading >= self.options.max_waiting:
            raise BusyError(f"{self._reading} requests are being read: try again later", 1)
        self._reading += 1
        try:
            content = await self._read(request)
        finally:
            self._reading -= 1
        request.scope[_READ] = True
        return content

    async def _read(self, request: Request) -> bytearray:
        most, content = self.options.max_body, bytearray()
        length = request.headers.get("content-length", "")
        if length.isdecimal() and int(length) > most:
            raise RequestError(f"the body has more than {most} bytes", 413)
        if request.headers.get("content-encoding", "identity").strip().lower() != "identity":
            raise RequestError("Content-Encoding: expected a body that is not compressed")
        async for chunk in request.stream():
            if len(content) + len(chunk) > most:
                raise RequestError(f"the body has more than {most} bytes", 413)
            content += chunk
        return content

    async def predict(
        self, request: Request, images: Sequence[ImageSource], make: Callable[[Detections], R]
    ) -> list[Answer[R]]:
        """Predict the images of a request as `Batcher.predict` does, unless its client has gone, and observe it."""
        work = asyncio.ensure_future(self.batcher.predict(images, make))
        gone = asyncio.ensure_future(request.receive())  # after the body, the only message
        try:
            await asyncio.wait((work, gone), return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                raise ClientDisconnect
            answers = work.result()
        finally:
            work.cancel()
            gone.cancel()
        for answer in answers:
            if not isinstance(answer.result, Exception):
                self.metrics.took(answer.seconds)
        return answers


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
            Route("/metrics", _metrics),
            Route("/v2", _server_metadata),
            Route("/v2/", _server_metadata),
            Route("/v2/health/live", _live),
            Route("/v2/health/ready", _ready),
            *(
                Route(f"/v2/models/{{model}}{version}{path}", endpoint, methods=[method])
                for version in ("", "/versions/{version}")
                for path, endpoint, method in (
                    ("", _model_metadata, "GET"),
                    ("/ready", _model_ready, "GET"),
                    ("/infer", _infer, "POST"),
                )
            ),
        ],
        middleware=[Middleware(_Answers)],
        exception_handlers={HTTPException: _http_error},
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False
    app.state.service = service
    return app


def _service(request: Request) -> Service:
    return request.app.state.service


async def _live(_request: Request) -> Response:
    return JSONResponse({"live": True})


async def _ready(request: Request) -> Response:
    ready = _service(request).is_ready()
    return JSONResponse({"ready": ready}, 200 if ready else 503)


async def _metrics(request: Request) -> Response:
    service = _service(request)
    return Response(service.metrics.text(service.batcher.waiting), media_type=CONTENT_TYPE_LATEST)


async def _server_metadata(_request: Request) -> Response:
    return JSONResponse({"name": NAME, "version": own_version(), "extensions": ["binary_tensor_data"]})


def _require_model(request: Request) -> Service:
    """Return the service of the model that the path names.

    Raises:
        RequestError: It names another one.
    """
    service, named = _service(request), request.path_params
    if named["model"] != service.name or named.get("version", _VERSION) != _VERSION:
        raise RequestError(f"there is no such model: expected {service.name}, version {_VERSION}", 404)
    return service


async def _model_ready(request: Request) -> Response:
    ready = _require_model(request).is_ready()
    return JSONResponse({"name": _service(request).name, "ready": ready}, 200 if ready else 503)


async def _model_metadata(request: Request) -> Response:
    service = _require_model(request)
    predictor = service.predictor
    return JSONResponse(
        {
            "name": service.name,
            "versions": [_VERSION],
            "platform": f"maskrcnn_{predictor.metadata.format}",
            **tensors(partial=service.options.partial),
            "parameters": {
                "sha256": service.digest,
                "device": predictor.device,
                "score_threshold": predictor.score_threshold,
                "class_names": list(predictor.class_names),
            },
        }
    )


async def _infer(request: Request) -> Response:
    """Answer a request of the Open Inference Protocol."""
    service = _require_model(request)
    options = service.options
    _query(request)
    asked = read_request(
        await service.body(request),
        request.headers.get(HEADER_LENGTH),
        most_images=options.max_waiting,
        partial=options.partial,
    )
    threshold = service.threshold(asked.score_threshold)
    try:
        async with asyncio.timeout(asked.timeout):
            answers = await service.predict(
                request, asked.images, lambda found: image_tensors(found.filter(threshold), asked.outputs)
            )
    except TimeoutError:
        raise RequestError("there was no result within the timeout of the request", 504) from None
    parts = []
    for place, answer in enumerate(answers):
        result = answer.result
        if isinstance(result, ImageError) and status_of(result) == 400:
            if ERROR not in asked.outputs:
                raise RequestError(f"images[{place}]: {message_of(result)}")
            result = failed_tensors(message_of(result))
        if isinstance(result, Exception):
            raise answer_error(result)
        service.metrics.detected(len(result["scores"]))
        parts.append(result)
    head = {"model_name": service.name, "model_version": _VERSION}
    body, headers = write_response(parts, asked.outputs, head if asked.id is None else head | {"id": asked.id})
    return Response(body, headers=headers | _timing(answers))


async def _predict(request: Request) -> Response:
    """Answer an image with the JSON of `Detections.to_json`."""
    service = _service(request)
    threshold = service.threshold(_number(_query(request, "score_threshold").get("score_threshold")))
    if request.headers.get("content-type", "").lower().startswith("multipart/"):
        raise RequestError("expected the image as the body, as of curl --data-binary @photo.jpg, and no form")

    def make(found: Detections) -> tuple[bytes, int]:
        kept = found.filter(threshold)
        return kept.to_json().encode("utf-8", "backslashreplace"), len(kept)

    (answer,) = await service.predict(request, [await service.body(request)], make)
    if isinstance(answer.result, Exception):
        raise answer_error(answer.result)
    text, count = answer.result
    service.metrics.detected(count)
    return Response(text, headers=_timing([answer]), media_type="application/json")


def _query(request: Request, *names: str) -> dict[str, str]:
    """Return the query of a request, each name at most once.

    Raises:
        RequestError: It has another name, or one twice.
    """
    items = request.query_params.multi_items()
    found = dict(items)
    if len(found) != len(items) or not found.keys() <= set(names):
        known = f"nothing but {', '.join(names)}, and that once" if names else "none"
        raise RequestError(f"the query: expected {known}")
    return found


def _number(text: str | None) -> float | None:
    if text is not None and _NUMBER.fullmatch(text) is None:
        raise RequestError("score_threshold: expected a number such as 0.8")
    return None if text is None else float(text)


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
        service, begun = scope["app"].state.service, False

        async def checked(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                if scope["method"] == "POST":
                    service.metrics.answered(message["status"])
                headers = MutableHeaders(scope=message)
                headers.setdefault("X-Content-Type-Options", "nosniff")
                if headers.get("content-type", "").startswith("text/html"):
                    headers.setdefault("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
            await send(message)

        try:
            async with asyncio.timeout(service.options.timeout):
                await self._app(scope, receive, checked)
        except ClientDisconnect:
            return
        except Exception as error:
            if begun:
                if isinstance(error, TimeoutError):  # the client does not read
                    return
                raise
            await _answer_to(error, scope)(scope, receive, checked)


def _answer_to(error: Exception, scope: Scope) -> Response:
    headers = {}
    if isinstance(error, TimeoutError):
        timeout = scope["app"].state.service.options.timeout
        if scope.get(_READ):
            error = RequestError(f"there was no result within {timeout:g} s", 504)
        else:
            error = RequestError(f"the body did not arrive within {timeout:g} s", 408)
            headers["Connection"] = "close"  # else the server would wait for the rest of it
    if isinstance(error, BusyError):
        headers["Retry-After"] = str(error.seconds)
    status = status_of(error)
    if status == 500:
        _logger.error("a request failed", exc_info=error)
    return JSONResponse({"error": message_of(error)}, status, headers)


async def _http_error(_request: Request, error: HTTPException) -> Response:
    """Answer where there is no route."""
    if error.status_code == 405:
        allowed = sorted((error.headers or {}).get("Allow", "").split(", "))
        said = f"there is no such method for this path: expected {', '.join(allowed)}"
    else:
        said = f"there is no such path: expected one of {', '.join(_PATHS)}"
    return JSONResponse({"error": said}, error.status_code, error.headers)
