"""Connections of clients that send or read slowly, come in masses, end one side, or were led here by a false name."""

import contextlib
import http.client
import os
import re
import signal
import socket
import subprocess
import sys
import time

import pytest

from .conftest import ROOT

TIMEOUT = 1.0
# Few files, and a short time to read a refusal.
SHORT = """
import resource
import maskrcnn.serving.server as server
server._LINGER = 0.5
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
"""
HEAD = b" HTTP/1.1\r\nHost: localhost\r\n"
GET = b"GET /v2/health/live" + HEAD + b"\r\n"


@pytest.fixture(scope="module")
def strict(serve):
    """A server with tight limits, which ends at once and has nothing to say in the end, whatever clients did."""
    server = serve("--timeout", str(TIMEOUT), "--max-body", "1000000", before=SHORT)
    yield server
    begun = time.monotonic()
    assert server.end() == (0, "")
    assert time.monotonic() - begun < 5


def connect(server):
    return contextlib.closing(socket.create_connection(("127.0.0.1", server.port), timeout=20))


def all_of(connection):
    """What comes until the server closes."""
    content = b""
    with contextlib.suppress(ConnectionResetError):
        while part := connection.recv(65536):
            content += part
    return content


PARTS = [b"GET / HT", b"GET /" + HEAD, b"GET /" + HEAD + b"X: "]


@pytest.mark.parametrize(
    ("answered", "content"), [(b"", b""), *((done, part) for done in (b"", GET) for part in PARTS)]
)
def test_a_head_that_does_not_arrive(strict, answered, content):
    begun = time.monotonic()
    with connect(strict) as connection:
        connection.sendall(answered + content)
        if answered:
            assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")
            connection.sendall(b"X")
        all_of(connection)
    assert time.monotonic() - begun < TIMEOUT + 3


def sent_until_closed(connection, part, seconds, pause=0.0):
    """How many bytes could be sent; more than can be, if the server does not close."""
    begun, sent = time.monotonic(), 0
    with contextlib.suppress(ConnectionResetError, BrokenPipeError):
        while time.monotonic() - begun < seconds:
            connection.sendall(part)
            sent += len(part)
            time.sleep(pause)
        return float("inf")
    return sent


def test_a_head_that_arrives_byte_by_byte(strict):
    with connect(strict) as connection:
        connection.sendall(b"GET /" + HEAD + b"X: ")
        assert sent_until_closed(connection, b"x", TIMEOUT + 3, pause=0.05) < 1000


def test_more_connections_than_files(strict):
    """What is too much is refused; those in hand are answered, and so is everybody once there is room."""
    with contextlib.ExitStack() as opened:
        first = opened.enter_context(connect(strict))
        rest = [opened.enter_context(connect(strict)) for _ in range(80)]
        assert b"HTTP/1.1 503 " in all_of(rest[-1])
        first.sendall(GET)
        assert first.recv(65536).startswith(b"HTTP/1.1 200 ")
    end = time.monotonic() + 10
    while (status := ask(strict)) != 200 and time.monotonic() < end:
        time.sleep(0.05)
    assert status == 200


def ask(server):
    try:
        return server.ask("/v2/health/live")[0]
    except (OSError, http.client.HTTPException) as error:
        return error


@pytest.mark.parametrize(
    ("target", "status"),
    [("POST /predict", 413), ("POST /nothing", 404), ("POST /v2", 405), ("POST /v2/models/x/infer", 404)],
)
@pytest.mark.parametrize("stops", [False, True])
def test_a_body_that_is_refused_is_not_read_to_its_end(strict, target, status, stops):
    part = b"10000\r\n" + bytes(65536) + b"\r\n"
    begun, sent = time.monotonic(), 0
    with connect(strict) as connection:
        connection.sendall(target.encode() + HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
        for _ in range(16):
            connection.sendall(part)
        answer = connection.recv(65536)
        if stops:
            all_of(connection)
        else:
            sent = sent_until_closed(connection, part, 10)
    assert answer.startswith(b"HTTP/1.1 %d " % status)
    assert answer.lower().count(b"\r\nconnection: close\r\n") == 1
    assert sent < 20_000_000  # what is read, and what the system holds
    assert time.monotonic() - begun < 5


def test_a_client_that_does_not_read(strict):
    """Nor does it hold up the end of the server, and nothing is logged, as the fixture checks."""
    with connect(strict) as connection:
        connection.sendall(b"GET /metrics" + HEAD + b"\r\n" + (b"GET /" + HEAD + b"\r\n") * 400)
        time.sleep(TIMEOUT)
        assert sent_until_closed(connection, b"x", 3, pause=0.05) < 1000


def status_for(port, host):
    with contextlib.closing(socket.create_connection(("127.0.0.1", port), timeout=20)) as connection:
        line = b"" if host is None else b"Host: " + host.encode() + b"\r\n"
        version = b"1.0" if host is None else b"1.1"
        connection.sendall(b"GET /v2/health/live HTTP/" + version + b"\r\n" + line + b"Connection: close\r\n\r\n")
        answer = all_of(connection)
    return int(answer.split(b" ", 2)[1]), answer


OWN = ["localhost", "LocalHost:1", "localhost.", "127.0.0.1", "127.9.9.9:80", "[::1]", "[::1]:8000", None]
FOREIGN = ["site.example", "site.example:8000", "127.0.0.1.site.example", "10.0.0.1", "[2001:db8::1]:80", "", "x"]


@pytest.mark.parametrize("host", OWN)
def test_names_of_this_machine_for_itself(server, host):
    assert status_for(server.port, host)[0] == 200


@pytest.mark.parametrize("host", FOREIGN)
def test_other_names_could_be_those_of_a_web_site_that_was_led_here(server, host):
    status, answer = status_for(server.port, host)
    assert (status, b'{"error":"Host: expected localhost' in answer) == (421, True)
    assert b"site" not in answer


def process(before, *arguments):
    code = f"import os, signal, sys\n{before}\nfrom maskrcnn.__main__ import main; main()"
    command = [sys.executable, "-c", code, "serve", "demo", "--port", "0", "--device", "cpu", *arguments]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_any_name_is_welcome_where_other_machines_are():
    with process("", "--host", "0.0.0.0") as started:
        port = int(re.search(r":(\d+) ", started.stdout.readline())[1])
        statuses = {status_for(port, host)[0] for host in OWN + FOREIGN}
        started.send_signal(signal.SIGTERM)
        assert (started.communicate(timeout=60)[1], started.returncode) == ("", 0)
    assert statuses == {200}


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
@pytest.mark.parametrize("module", ["typer", "uvicorn", "onnxruntime"])
def test_sigterm_before_the_server_is_open(module):
    """It ends like one after that, also as the first process of a container, which gets what it handles only."""
    before = f"""
class Finder:
    def find_spec(self, name, *_):
        if name == {module!r}:
            os.kill(os.getpid(), signal.SIGTERM)
sys.meta_path.insert(0, Finder())
"""
    with process(before) as started:
        out, errors = started.communicate(timeout=60)
    assert (started.returncode, out, errors) == (0, "", "")
