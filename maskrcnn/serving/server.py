"""uvicorn around the application: one socket, one line when it is open, and an end that answers what is in hand.

uvicorn waits without end for clients that send or read slowly. Here, a connection waits for nothing without a limit.
"""

import asyncio
import errno
import signal
import socket
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from ipaddress import ip_address
from types import FrameType
from typing import Any, cast

import uvicorn
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import Message, Receive, Scope, Send
from uvicorn.protocols.http.flow_control import CLOSE_HEADER
from uvicorn.protocols.http.h11_impl import H11Protocol, h11

from maskrcnn.errors import ArgumentError

_BACKLOG = 2048  # connections that wait to be accepted, as of uvicorn
_MOST_CONNECTIONS = 1000
_AT_ONCE = 4  # connections that asyncio accepts in one step; it counts them some steps later
_LINGER = 5.0  # seconds for a client that is still sending to read why it was refused
_FULL = b"""HTTP/1.1 503 Service Unavailable\r
Retry-After: 1\r
Content-Type: application/json\r
Connection: close\r
\r
{"error":"there are too many connections: try again later"}"""


def bind(host: str, port: int) -> socket.socket:
    """Bind a socket and listen; port 0 takes a free one.

    Clients wait from now on, and no other server can take the port while the model is opened.

    Raises:
        ArgumentError: The address cannot be used.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = found[0]
        # Without the protocol, asyncio would let Nagle's algorithm hold back answers for 40 ms.
        bound = socket.socket(family, kind, protocol)
    except OSError as error:
        raise ArgumentError(f"--host {host}: {error.strerror}") from error
    except ValueError as error:  # of the codec for international names
        raise ArgumentError(f"--host {host}: expected an address or name of this machine") from error
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
        bound.listen(_BACKLOG)
    except OSError as error:
        bound.close()
        port_only = error.errno in (errno.EADDRINUSE, errno.EACCES, errno.EPERM)
        advice = "choose another --port" if port_only else "choose a --host of this machine"
        raise ArgumentError(f"cannot listen on {host}, port {port}: {error.strerror}; {advice}") from error
    return bound


def serve(app: Starlette, bound: socket.socket, opened: Callable[[str], None], host: str = "localhost") -> None:
    """Serve the application until SIGTERM or Ctrl-C; return when all requests in hand are answered.

    Args:
        app: Of `build_app`.
        bound: A socket of `bind`, which is closed in the end.
        opened: Is told the URL when requests are answered.
        host: Name that clients may use, besides those of every machine for itself, if the address is a loopback one.
    """
    options = app.state.service.options
    local = _is_local(bound.getsockname()[0])
    limits = _Limits(options.timeout, options.max_body, _most_connections(), host.lower() if local else None)
    config = uvicorn.Config(
        app,
        http=cast("type[asyncio.Protocol]", partial(_Protocol, limits)),
        loop="asyncio",
        ws="none",
        lifespan="on",
        log_config=None,
        log_level="error",  # malformed requests are the client's fault
        access_log=False,
        server_header=False,
        backlog=_AT_ONCE,
        timeout_keep_alive=75,  # longer than proxies keep idle connections, which otherwise use one that is just closed
        timeout_graceful_shutdown=int(options.timeout) + 5,
    )
    server = _Server(config, bound, opened)
    # uvicorn raises the signal again when it has ended: then it asks for an end that there has been already.
    before = signal.signal(signal.SIGTERM, server.handle_exit)
    try:
        server.run([bound])
    finally:
        signal.signal(signal.SIGTERM, before)


@dataclass(frozen=True)
class _Limits:
    timeout: float  # seconds
    discarded: int  # most bytes that are read of a request that was refused
    connections: int
    host: str | None  # None: any


def _most_connections() -> int:
    """Return how many connections leave enough files to the server itself."""
    try:
        import resource  # noqa: PLC0415  (not on Windows)
    except ModuleNotFoundError:
        return _MOST_CONNECTIONS
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return _MOST_CONNECTIONS if files == resource.RLIM_INFINITY else min(_MOST_CONNECTIONS, max(1, files // 2))


def _is_local(name: str) -> bool:
    """Tell whether a machine calls itself so."""
    try:
        address = ip_address(name)
    except ValueError:
        return name.removesuffix(".") == "localhost"
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback


class _Transport:
    """A connection that the protocol closes in its own way."""

    def __init__(self, transport: asyncio.Transport, close: Callable[[], None]) -> None:
        self._transport, self.close = transport, close

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class _Protocol(H11Protocol):
    """HTTP on one connection that waits for nothing without a limit."""

    def __init__(self, limits: _Limits, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._limits, self.app = limits, self._answer
        self._timer: asyncio.TimerHandle | None = None  # until the head has come, or until it is closed
        self._ending, self._discarded = False, 0

    def connection_made(self, transport: asyncio.Transport) -> None:
        self._raw = transport
        super().connection_made(cast("asyncio.Transport", _Transport(transport, self._end)))
        if len(self.connections) > self._limits.connections:
            transport.write(_FULL)
            self._end()
        else:
            self._after(self._limits.timeout, self._end)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._ending = True
        self._after()

    def data_received(self, data: bytes) -> None:
        if self._ending:
            self._discarded += len(data)
            if self._discarded > self._limits.discarded:
                self._raw.abort()
            return
        super().data_received(data)
        if not self._ending and self.conn.their_state is h11.IDLE and self._timer is None:
            self._after(self._limits.timeout, self._end)

    def handle_events(self) -> None:
        super().handle_events()
        if not self._ending and self.conn.their_state is not h11.IDLE:
            self._after()  # the head has come

    def on_response_complete(self) -> None:
        if not self._ending:
            super().on_response_complete()

    def eof_received(self) -> None:
        """Answer a body that is cut off; a client that has sent all of a request and ends its side has gone."""
        waits = not self._ending and self.cycle is not None and not self.cycle.response_complete
        if waits and self.conn.their_state is h11.SEND_BODY and self.conn.our_state is h11.SEND_RESPONSE:
            self.data_received(b"")  # the end, as h11 is told of it: it answers with status 400
        self._end()

    def shutdown(self) -> None:
        if self._ending:
            self._end()
        else:
            super().shutdown()

    def _after(self, seconds: float = 0.0, action: Callable[[], None] | None = None) -> None:
        """Do something later, in place of what was to be done, or nothing."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self.loop.call_later(seconds, action) if action else None

    def _end(self) -> None:
        """Close when all is sent. Who still sends a request may read the answer first: a reset would discard it."""
        self._ending = True
        sends = self.conn.their_state in (h11.SEND_BODY, h11.ERROR)
        hurry = sends or self.config.app.state.service.batcher.draining
        self._after(_LINGER if hurry else self._limits.timeout, self._raw.abort)
        if sends and not self._raw.is_closing():
            self._raw.write_eof()
            self._raw.resume_reading()
        else:
            self._raw.close()

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request; close the connection if the body was not read, or the answer is not."""
        cycle = self.cycle

        async def limited(message: Message) -> None:
            if message["type"] == "http.response.start" and self.conn.their_state is h11.SEND_BODY:
                headers = [each for each in message["headers"] if each != CLOSE_HEADER]
                message = message | {"headers": [*headers, CLOSE_HEADER]}
            try:
                async with asyncio.timeout(self._limits.timeout):
                    await send(message)
            except TimeoutError:
                give_up()

        def give_up() -> None:
            cycle.disconnected = True
            self._raw.abort()

        name = Headers(scope=scope).get("host")
        if name is None or self._is_welcome(name.lower()):
            await self.config.loaded_app(scope, receive, limited)
        else:
            refusal = JSONResponse({"error": "Host: expected localhost, or an address of this machine for itself"}, 421)
            await refusal(scope, receive, limited)
        if not cycle.response_complete and not cycle.disconnected:
            give_up()

    def _is_welcome(self, name: str) -> bool:
        """Tell whether a request is for this server, and not for a web site whose name was made to lead to it."""
        name = name[1:].partition("]")[0] if name.startswith("[") else name.partition(":")[0]
        return self._limits.host is None or name == self._limits.host or _is_local(name)


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, bound: socket.socket, opened: Callable[[str], None]) -> None:
        super().__init__(config)
        self._bound, self._opened = bound, opened

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        asyncio.get_running_loop().set_exception_handler(_note)
        await super().startup(sockets)
        self._bound.listen(_BACKLOG)  # asyncio has taken the number that it accepts at once for this one
        host, port = self._bound.getsockname()[:2]
        self._opened(f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}")

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self.config.app.state.service.batcher.draining = True
        super().handle_exit(sig, frame)


def _note(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Log an error of the event loop, but for a lack of files: asyncio tries again, and would fill the log."""
    if context["message"] != "socket.accept() out of system resource":
        loop.default_exception_handler(context)
