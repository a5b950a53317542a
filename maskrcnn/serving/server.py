"""uvicorn around the application: one socket, one line when it is open, and an end that answers what is in hand."""

import errno
import signal
import socket
from collections.abc import Callable
from types import FrameType

import uvicorn
from starlette.applications import Starlette
from uvicorn.protocols.http.h11_impl import H11Protocol, h11

from maskrcnn.errors import ArgumentError

_BACKLOG = 2048  # connections that wait to be accepted, as of uvicorn


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


def serve(app: Starlette, bound: socket.socket, opened: Callable[[str], None]) -> None:
    """Serve the application until SIGTERM or Ctrl-C; return when all requests in hand are answered.

    Args:
        app: Of `build_app`.
        bound: A socket, which is closed in the end.
        opened: Is told the URL when requests are answered.
    """
    config = uvicorn.Config(
        app,
        http=_Protocol,
        loop="asyncio",
        ws="none",
        lifespan="on",
        log_config=None,
        log_level="error",  # malformed requests are the client's fault
        access_log=False,
        server_header=False,
        timeout_keep_alive=75,  # longer than proxies keep idle connections, which otherwise use one that is just closed
        timeout_graceful_shutdown=int(app.state.service.options.timeout) + 5,
    )
    server = _Server(config, bound, opened)
    # uvicorn raises the signal again when it has ended: then it asks for an end that there has been already.
    before = signal.signal(signal.SIGTERM, server.handle_exit)
    try:
        server.run([bound])
    finally:
        signal.signal(signal.SIGTERM, before)


class _Protocol(H11Protocol):
    """HTTP that answers a body which ends too early, too, with status 400; uvicorn alone would only hang up."""

    def eof_received(self) -> None:
        if self.conn.their_state is h11.SEND_BODY and self.conn.our_state is h11.SEND_RESPONSE:
            self.data_received(b"")  # the end, as h11 is told of it


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, bound: socket.socket, opened: Callable[[str], None]) -> None:
        super().__init__(config)
        self._bound, self._opened = bound, opened

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        host, port = self._bound.getsockname()[:2]
        self._opened(f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}")

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self.config.app.state.service.batcher.draining = True
        super().handle_exit(sig, frame)
