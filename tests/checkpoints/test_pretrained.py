"""Pretrained weights by name, fetched by the real code from a server on loopback that behaves well or badly."""

import errno
import hashlib
import re
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from maskrcnn.checkpoints import download
from maskrcnn.checkpoints.download import cache_folder, fetch_pretrained, pretrained_list
from maskrcnn.checkpoints.families.choices import NO_CHOICES, Choices
from maskrcnn.checkpoints.pretrained import PRETRAINED, Pretrained, find_pretrained
from maskrcnn.cli import app
from maskrcnn.commands.exit_codes import exit_code
from maskrcnn.configuration.samples import DEMO
from maskrcnn.errors import DownloadError
from runtime.artifact_files.savedmodel_folder import MANIFEST
from runtime.errors import MissingPackageError, OutputError


def hdf5(seed, size=900_000):
    """Return bytes that begin as an HDF5 file of their size does."""
    return b"\x89HDF\r\n\x1a\n" + bytes(32) + size.to_bytes(8, "little") + np.random.default_rng(seed).bytes(size - 48)


CONTENT = hdf5(0)
NAME = "standin.weights.h5"
UNKNOWN = {"size": None, "digest": None}


class Server(ThreadingHTTPServer):
    """Sends `content`. `script` has an action for each request, and the last one for all further ones.

    Actions: "ok"; a status; ("cut", bytes) ends the body early; "whole" ignores `Range`; "shifted" sends another range;
    "redirect" leads to /moved, where the next action counts; "slow" waits before the body; "gone" answers nothing;
    "silent" waits before the answer; bytes are the whole answer, and a function makes them from the request's headers.
    """

    daemon_threads = True

    def __init__(self, content=CONTENT, script=("ok",)):
        super().__init__(("127.0.0.1", 0), Handler)
        self.content, self.script = content, list(script)
        self.asked, self.sent, self.heads = [], [], []  # (path, Range), bytes of the body, headers of the request
        self.url = f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, *_):
        """A client that has seen enough is no error."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        server = self.server
        action = server.script.pop(0) if len(server.script) > 1 else server.script[0]
        given = self.headers.get("Range")
        server.asked.append((self.path, given))
        server.sent.append(0)
        server.heads.append(self.headers)
        self.close_connection = True
        action = action(self.headers) if callable(action) else action
        if isinstance(action, bytes):
            with suppress(OSError):
                self.wfile.write(action)
            return
        if action == "silent":
            time.sleep(0.3)
            return
        if action == "gone":
            return
        if action == "redirect":
            self.start(302, b"", Location="/moved")
            return
        if isinstance(action, int):
            self.start(action, b"no")
            return
        begin = int(re.fullmatch(r"bytes=(\d+)-", given)[1]) if given and action != "whole" else 0
        if begin >= len(server.content):
            self.start(416, b"no", Content_Range=f"bytes */{len(server.content)}")
            return
        body = server.content[begin:]
        first = begin + 1 if action == "shifted" else begin
        place = {"Content_Range": f"bytes {first}-{len(server.content) - 1}/{len(server.content)}"} if begin else {}
        self.start(206 if begin else 200, b"", len(body), **place)
        if action == "slow":
            time.sleep(0.5)
        body = body[: action[1]] if isinstance(action, tuple) else body
        with suppress(OSError):
            self.wfile.write(body)
            server.sent[-1] = len(body)

    do_CONNECT = do_GET  # noqa: N815  (as a proxy)

    def start(self, status, body, length=None, **headers):
        self.send_response(status)
        self.send_header("Connection", "close")
        self.send_header("Content-Length", str(len(body) if length is None else length))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)


def answer(body=CONTENT, status="200 OK", begin=None, total=None, length=False, **headers):
    """Return an answer as it is sent, which ends with the connection; `begin` makes it that part of `body`."""
    sent = body[begin or 0 :]
    if length:
        headers["Content-Length"] = len(sent)
    headers["Connection"] = "close"
    if begin is not None:
        status = "206 Partial Content"
        headers["Content-Range"] = f"bytes {begin}-{len(body) - 1}/{len(body) if total is None else total}"
    lines = [f"HTTP/1.1 {status}", *(f"{name.replace('_', '-')}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + sent


def rest_of(body, **headers):
    """Return an action that sends what is asked for, whatever If-Range says."""

    def act(asked):
        begin = int(asked["Range"][6:-1]) if "Range" in asked else None
        return answer(body, begin=begin, length=True, **headers)

    return act


@pytest.fixture
def serve(monkeypatch):
    """Start servers; each call returns one that runs."""
    started = []

    def start(content=CONTENT, script=("ok",)):
        server = Server(content, script)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        started.append(server)
        return server

    yield start
    for server in started:
        server.shutdown()
        server.server_close()


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """The cache and the working folder of one test."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("MASKRCNN_CACHE", str(folder))
    monkeypatch.delenv("MASKRCNN_MIRROR", raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(download, "_WAIT", 0)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return folder


def entry(url, content=CONTENT, **changes):
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    made = Pretrained(
        "standin", "a stand-in", f"{url}/{NAME}", len(content), digest, Choices(DEMO), ("BG", "a"), "MIT", url
    )
    return replace(made, **changes)


@pytest.fixture
def offline(monkeypatch):
    """Let every connection fail as soon as it is tried."""

    def refuse(*_, **__):
        raise AssertionError("a connection was opened")

    def cut():
        for name in ("connect", "connect_ex", "sendto"):
            monkeypatch.setattr(socket.socket, name, refuse)
        monkeypatch.setattr(socket, "getaddrinfo", refuse)

    return cut


def refused(given, kind=DownloadError):
    with pytest.raises(kind) as caught:
        fetch_pretrained(given)
    message = str(caught.value)
    assert "\n" not in message
    assert not re.search(r"[a-z]\.\.|\.\. |[A-Z][a-z]+[A-Z]\w*\(|: \.|secret", message), message
    return message


def part(cache, content=CONTENT[:1000]):
    """Leave a part of the file in the cache, as a run that was interrupted does."""
    cache.mkdir()
    left = cache / f".{NAME}.part"
    left.write_bytes(content)
    return left


@pytest.fixture
def dead():
    """An address where nobody listens, and nobody will."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{taken.getsockname()[1]}"


def leftovers(cache):
    return sorted(path.name for path in cache.iterdir() if not path.name.endswith(".lock"))


def test_the_right_file_and_then_no_connection(serve, cache, offline):
    server = serve()
    given, seen = entry(server.url), []
    path = fetch_pretrained(given, count=lambda *shown: seen.append(shown))
    assert path == cache / NAME
    assert path.read_bytes() == CONTENT
    assert leftovers(cache) == [NAME]
    assert server.asked == [(f"/{NAME}", None)]
    assert seen[-1] == ("standin, MB", 0, 0)  # 0.9 MB
    server.shutdown()
    offline()
    download._digest_of.cache_clear()
    assert fetch_pretrained(given) == path


def test_md5_is_a_digest_too(serve):
    digest = hashlib.md5(CONTENT).hexdigest()
    server = serve()
    assert fetch_pretrained(entry(server.url, digest=f"md5:{digest}")).read_bytes() == CONTENT
    other = entry(serve(script=(404,)).url, digest=f"md5:{digest[::-1]}")
    assert f"its MD5 is {digest}, and not {digest[::-1]}" in refused(other)


def test_a_wrong_digest(serve, cache):
    server = serve(content=CONTENT[:-1] + b"?")
    message = refused(entry(server.url))
    assert re.search("its SHA256 is [0-9a-f]{64}, and not [0-9a-f]{64}", message)
    assert f"{server.url}/{NAME} is not the file that 'standin' stands for" in message
    assert str(cache / NAME) in message
    assert leftovers(cache) == []
    server.content = CONTENT
    assert fetch_pretrained(entry(server.url)).read_bytes() == CONTENT


@pytest.mark.parametrize("change", [-1, 1])
def test_a_wrong_size_is_refused_before_the_body(change, serve, cache):
    server = serve(content=(CONTENT + b"?")[: len(CONTENT) + change])
    message = refused(entry(server.url))
    assert f"it has {len(CONTENT) + change} bytes, and not {len(CONTENT)}" in message
    assert not (cache / NAME).exists()
    assert all(path.stat().st_size == 0 for path in cache.iterdir())


@pytest.mark.parametrize("moved", [False, True])
def test_a_cut_is_resumed_and_only_the_rest_is_sent(moved, serve):
    script = ("redirect", ("cut", 400_000), "redirect", "ok") if moved else (("cut", 400_000), "ok")
    server = serve(script=script)
    assert fetch_pretrained(entry(server.url)).read_bytes() == CONTENT
    (_, first), (_, second) = [asked for asked in server.asked if not moved or asked[0] == "/moved"]
    kept = int(re.fullmatch(r"bytes=(\d+)-", second)[1])
    assert first is None
    assert 400_000 - 2**16 <= kept <= 400_000
    assert server.sent[-1] == len(CONTENT) - kept


def test_a_later_run_resumes(serve, cache):
    server = serve(script=(("cut", 400_000), ("cut", 0)))
    message = refused(entry(server.url))
    kept = int(re.search(r"after (\d+) bytes, which are kept", message)[1])
    assert (cache / f".{NAME}.part").stat().st_size == kept
    assert not (cache / NAME).exists()
    again, said = serve(), []
    assert fetch_pretrained(entry(again.url), said.append).read_bytes() == CONTENT
    assert again.asked == [(f"/{NAME}", f"bytes={kept}-")]
    assert again.sent == [len(CONTENT) - kept]
    assert "0 MB of it have arrived before" in said
    assert leftovers(cache) == [NAME]


def test_what_had_arrived_of_another_file_is_given_up(serve, cache):
    cache.mkdir()
    (cache / f".{NAME}.part").write_bytes(b"?" * 1000)
    server = serve()
    assert "SHA256" in refused(entry(server.url))
    assert leftovers(cache) == []
    assert fetch_pretrained(entry(server.url)).read_bytes() == CONTENT


def test_a_run_that_was_killed_before_the_last_step(serve, cache):
    cache.mkdir()
    (cache / f".{NAME}.part").write_bytes(CONTENT)
    server = serve()
    assert fetch_pretrained(entry(server.url)).read_bytes() == CONTENT
    assert server.asked == []


def test_more_than_there_is_had_arrived(serve, cache):
    cache.mkdir()
    (cache / f".{NAME}.part").write_bytes(CONTENT + b"?")
    server = serve()
    assert fetch_pretrained(entry(server.url)).read_bytes() == CONTENT
    assert [given for _, given in server.asked] == [f"bytes={len(CONTENT) + 1}-", None]


def test_a_server_that_knows_no_ranges(serve):
    server = serve(script=(("cut", 400_000), "whole"))
    assert fetch_pretrained(entry(server.url)).read_bytes() == CONTENT
    assert server.sent[-1] == len(CONTENT)


def test_a_server_that_always_cuts_at_one_place_is_given_up(serve):
    class Stubborn(Handler):
        def do_GET(self):
            del self.headers["Range"]
            super().do_GET()

    server = serve(script=(("cut", 400_000),))
    server.RequestHandlerClass = Stubborn
    assert "are kept" in refused(entry(server.url))
    assert len(server.asked) == 1 + download._TRIES


def test_a_server_that_sends_another_range(serve, cache):
    cache.mkdir()
    (cache / f".{NAME}.part").write_bytes(CONTENT[:1000])
    assert "another part of the file" in refused(entry(serve(script=("shifted",)).url))
    assert not (cache / NAME).exists()


@pytest.mark.parametrize(("status", "requests"), [(404, 1), (403, 1), (500, download._TRIES), (429, download._TRIES)])
def test_a_server_that_refuses(status, requests, serve, cache):
    server = serve(script=(status,))
    message = refused(entry(server.url))
    assert f"'standin' cannot be fetched from {server.url}/{NAME}: the server answers {status} " in message
    assert f"MASKRCNN_MIRROR, such as http://host/folder, or put the file at {cache / NAME}" in message
    assert len(server.asked) == requests


def test_a_server_that_recovers(serve):
    server, said = serve(script=(503, "gone", 500, "ok")), []
    assert fetch_pretrained(entry(server.url), said.append).read_bytes() == CONTENT
    assert [line for line in said if line.endswith(": trying again")] == [
        "the server answers 503 Service Unavailable: trying again",
        "Remote end closed connection without response: trying again",
        "the server answers 500 Internal Server Error: trying again",
    ]


@pytest.mark.parametrize("address", ["http://127.0.0.1:{port}", "http://no-such-host.invalid", "nonsense", "ftp://x"])
def test_no_network(address, cache, monkeypatch):
    with socket.socket() as taken:  # bound and not listening: nobody else gets it
        taken.bind(("127.0.0.1", 0))
        address = address.format(port=taken.getsockname()[1])
        monkeypatch.setenv("MASKRCNN_MIRROR", address)
        begin = time.monotonic()
        message = refused(entry("http://never.invalid"))
    assert time.monotonic() - begin < 20
    assert f"cannot be fetched from {address}/{NAME}: " in message
    assert f"put the file at {cache / NAME}" in message
    assert "Errno" not in message
    assert "HTTPConnectionPool" not in message


def test_a_mirror(serve, monkeypatch):
    server = serve()
    monkeypatch.setenv("MASKRCNN_MIRROR", f"{server.url}/some/folder/")
    assert fetch_pretrained(entry("http://never.invalid")).read_bytes() == CONTENT
    assert server.asked == [(f"/some/folder/{NAME}", None)]


def test_a_file_put_by_hand_is_checked(cache, offline):
    offline()
    cache.mkdir()
    (cache / NAME).write_bytes(CONTENT)
    given = entry("http://never.invalid")
    assert fetch_pretrained(given) == cache / NAME
    damaged = bytearray(CONTENT)
    damaged[1000] ^= 1
    (cache / NAME).write_bytes(damaged)
    message = refused(given)
    assert message.startswith(f"{cache / NAME} is not the file that 'standin' stands for: its SHA256 is ")
    assert message.endswith("Delete it to fetch it again")
    assert (cache / NAME).read_bytes() == damaged  # the user's file is the user's


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES])
@pytest.mark.parametrize("step", ["mkdir", "open"])
def test_a_cache_that_cannot_be_written(number, step, serve, cache, monkeypatch):
    def fail(*_, **__):
        raise OSError(number, "as the system says it")

    with monkeypatch.context() as context:
        context.setattr(Path, step, fail)
        message = refused(entry(serve().url), OutputError)
    assert message.startswith(f"cannot write {cache / NAME}: ")
    assert f"Name another folder in MASKRCNN_CACHE, or put {serve().url.rpartition(':')[0]}" in message
    assert exit_code(OutputError("")) == 6


def test_a_cache_below_a_file(cache):
    cache.write_text("a file")
    assert "cannot write" in refused(entry("http://never.invalid"), OutputError)


def test_a_full_cache_may_be_read_only(cache, monkeypatch):
    """What is there is used without making a folder, a lock, or a file."""
    cache.mkdir()
    (cache / NAME).write_bytes(CONTENT)

    def fail(*_, **__):
        raise OSError(errno.EROFS, "read-only")

    monkeypatch.setattr(Path, "mkdir", fail)
    monkeypatch.setattr("filelock.FileLock.acquire", fail)
    assert fetch_pretrained(entry("http://never.invalid")) == cache / NAME
    assert leftovers(cache) == [NAME]


def test_a_full_disk(serve, cache, monkeypatch):
    server, write = serve(), download._Arrival.write

    def full(self, chunk):
        if self.done > 300_000:
            raise OSError(errno.ENOSPC, "full")
        write(self, chunk)

    with monkeypatch.context() as context:
        context.setattr(download._Arrival, "write", full)
        assert "No space left on device" in refused(entry(server.url), OutputError)
    assert not (cache / NAME).exists()
    assert fetch_pretrained(entry(server.url)).read_bytes() == CONTENT
    assert server.asked[1][1] is not None  # the rest alone


def test_two_processes_download_once(serve, cache):
    server = serve(script=("slow",))
    code = (
        "import sys; from maskrcnn.checkpoints.download import fetch_pretrained; "
        "from maskrcnn.checkpoints.pretrained import Pretrained; "
        "from maskrcnn.checkpoints.families.choices import NO_CHOICES; "
        f"given = Pretrained('standin', '', {server.url + '/' + NAME!r}, {len(CONTENT)}, "
        f"{entry('').digest!r}, NO_CHOICES, ('BG',), '', ''); print(fetch_pretrained(given, print))"
    )
    root = Path(__file__).parents[2]
    runs = [
        subprocess.Popen([sys.executable, "-c", code], cwd=root, stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]
    ends = [run.communicate(timeout=60)[0] for run in runs]
    assert [run.returncode for run in runs] == [0, 0]
    assert [end.splitlines()[-1] for end in ends] == [str(cache / NAME)] * 2
    assert (cache / NAME).read_bytes() == CONTENT
    assert len(server.asked) == 1


def test_weights_without_a_published_digest(serve, cache):
    given = UNKNOWN
    server, said = serve(script=(("cut", 400_000), "ok")), []
    assert fetch_pretrained(entry(server.url, **given), said.append).read_bytes() == CONTENT
    assert f"the SHA-256 of what arrived is {hashlib.sha256(CONTENT).hexdigest()}" in said[-1]
    (cache / NAME).unlink()
    page = serve(content=b"<html>Please log in</html>")
    assert "it is no HDF5 file" in refused(entry(page.url, **given))
    assert leftovers(cache) == []


@pytest.mark.parametrize(
    "mirror",
    [
        "http://user:secret@{host}/a",
        "http://secret@{host}/a",
        "http://{host}/a?token=secret",
        "http://{host}/a/?token=secret@x",
        "http://user:sec@ret:secret@{host}/a",
    ],
)
@pytest.mark.parametrize("script", [(404,), (("cut", 200_000), ("cut", 0)), ("whole",), (answer(b"other"),)])
def test_no_message_shows_what_may_be_secret(mirror, script, serve, monkeypatch):
    server, said = serve(script=script), []
    host = server.url.removeprefix("http://")
    monkeypatch.setenv("MASKRCNN_MIRROR", mirror.format(host=host))
    given = entry("http://never.invalid")
    with suppress(DownloadError):
        fetch_pretrained(given, said.append)
    (download.cache_folder() / NAME).unlink(missing_ok=True)
    refused(replace(given, digest=f"sha256:{'0' * 64}"))  # which looks for "secret", too
    assert said[0] == f"fetching 'standin' from http://{host}/a/{NAME}"
    assert "secret" not in " ".join(said)
    _, mark, query = mirror.partition("?")
    assert server.asked[0][0] == f"/a/{NAME}{mark}{query}"
    assert ("Authorization" in server.heads[0]) == (":secret@" in mirror)


@pytest.mark.parametrize(
    "mirror",
    [
        "user:secret@host/a",
        "http://user:secret@[::1/a",
        "http://user:x/secret@host/a",
        "http://user:x?secret@host/a",
        "http://user:x#secret@host/a",
        "ftp://user:secret@host/a",
        "http://user:secret@host:x/a",
        "http://user:se cret@h ost/a?secret",
    ],
)
def test_nor_does_that_of_an_address_that_is_none(mirror, monkeypatch):
    monkeypatch.setenv("MASKRCNN_MIRROR", mirror)
    message = refused(entry("http://never.invalid"))
    assert "cannot be used" in message or "not known" in message
    assert "se cret" not in message


def test_nor_that_of_a_redirection(serve, dead):
    server = serve(script=(answer(b"", "302 Found", length=True, Location=f"http://u:secret@{dead}/?key=secret"),))
    assert "Connection refused" in refused(entry(server.url))


def no_length(cut, **headers):
    return answer(CONTENT[:cut], **headers)


def test_a_body_without_a_length_is_complete_if_the_file_says_so(serve, cache):
    """Of weights without a size, the header of HDF5 tells a cut from the end; so do chunks."""
    assert fetch_pretrained(entry(serve(script=(no_length(None),)).url, **UNKNOWN)).read_bytes() == CONTENT
    for cut in (4, 40, 400_000):
        (cache / NAME).unlink()
        server = serve(script=(no_length(cut, ETag='"a"'), "ok"))
        assert fetch_pretrained(entry(server.url, **UNKNOWN)).read_bytes() == CONTENT
        assert [given for _, given in server.asked] == [None, f"bytes={cut}-"]
    (cache / NAME).unlink()
    chunk = f"{len(CONTENT):x}\r\n".encode() + CONTENT + b"\r\n0\r\n\r\n"
    chunks = [answer(body, Transfer_Encoding="chunked") for body in (chunk[:-5], chunk[:1000], chunk)]
    server = serve(script=chunks)
    assert fetch_pretrained(entry(server.url, **UNKNOWN)).read_bytes() == CONTENT
    assert len(server.asked) == 3


def test_a_body_without_a_length_that_is_always_cut(serve, cache):
    server = serve(script=(no_length(400_000),))
    message = refused(entry(server.url, **UNKNOWN))
    assert "the connection ended early. Try again" in message  # and nothing that is kept: it is not used again
    assert leftovers(cache) == []
    assert len(server.asked) == 1 + download._TRIES


@pytest.mark.parametrize("short", [10, 400_000])
def test_a_length_that_is_too_small(short, serve, cache):
    server = serve(script=(answer(CONTENT[:short], length=True),))
    message = refused(entry(server.url, **UNKNOWN))
    stated = len(CONTENT) if short > 64 else 64
    assert f"it has {short} bytes, and not the {stated} that its HDF5 header states" in message
    assert leftovers(cache) == []
    (cache / NAME).write_bytes(CONTENT[:short])  # put there by hand
    assert f"it has {short} bytes" in refused(entry(server.url, **UNKNOWN))


@pytest.mark.parametrize("version", ["earliest", "v108", "latest"])
def test_the_header_of_hdf5_states_the_size(version, tmp_path):
    h5py = pytest.importorskip("h5py")
    path = tmp_path / "x.h5"
    with h5py.File(path, "w", libver=version if version != "v108" else (version, version)) as file:
        file["values"] = np.zeros(1000)
    assert download._hdf5_size(path) == path.stat().st_size


OTHER = hdf5(1)


@pytest.mark.parametrize(
    ("first", "second", "ranges"),
    [
        ({"ETag": '"a"'}, answer(OTHER, ETag='"b"', length=True), 1),  # If-Range is known there
        ({"ETag": '"a"'}, rest_of(OTHER, ETag='"b"'), 1),  # and there not
        ({"ETag": 'W/"a"', "Last_Modified": "Mon"}, rest_of(OTHER, ETag='W/"b"', Last_Modified="Mon"), 1),
        ({"Last_Modified": "Mon"}, rest_of(OTHER, Last_Modified="Tue"), 1),
        ({"ETag": '"a"'}, rest_of(hdf5(1, 900_001)), 1),  # the total alone tells
        ({"ETag": 'W/"a"'}, rest_of(OTHER), 0),  # nothing would tell
        ({}, rest_of(OTHER), 0),
    ],
)
def test_a_file_that_changes_between_two_tries(first, second, ranges, serve):
    cut = answer(CONTENT[:400_000], Content_Length=len(CONTENT), **first)
    server = serve(script=(cut, second))
    found = fetch_pretrained(entry(server.url, **UNKNOWN)).read_bytes()
    assert found in (OTHER, hdf5(1, 900_001))
    assert sum(given is not None for _, given in server.asked) == ranges
    strong = first.get("ETag", "W/")
    expected = first.get("Last_Modified") if strong.startswith("W/") else strong
    assert server.heads[1].get("If-Range") == expected


def test_a_file_that_changes_between_two_runs(serve, cache):
    part(cache, CONTENT[:400_000])
    server = serve(OTHER)
    assert fetch_pretrained(entry(server.url, **UNKNOWN)).read_bytes() == OTHER
    assert server.asked == [(f"/{NAME}", None)]


@pytest.mark.parametrize(
    ("sent", "words"),
    [
        (answer(b"<html>", length=True, Content_Type="text/html; charset=utf-8"), "sends a web page (text/html)"),
        (answer(b"<html>", Content_Type="Text/HTML"), "sends a web page (text/html)"),
        (answer(b"<html>", Content_Type="application/xhtml+xml"), "sends a web page"),
        (answer(b"log in", length=True, Content_Type="text/plain"), f"it has 6 bytes, and not {len(CONTENT)}"),
        (answer(b"", "416 No", Content_Range="bytes */500"), f"it has 500 bytes, and not {len(CONTENT)}"),
        (answer(begin=1000, total=len(CONTENT) + 1), f"it has {len(CONTENT) + 1} bytes, and not {len(CONTENT)}"),
        (answer(b"", "204 No Content"), "the server answers 204 No Content, and sends no file"),
        (answer(b"moved", "302 Found"), "the server answers 302 Found, and sends no file"),
        (answer(b"", "304 Not Modified"), "the server answers 304 Not Modified, and sends no file"),
        (answer(Content_Encoding="gzip"), "the server sends the file encoded as gzip, which it was asked not to do"),
        (answer(Content_Encoding="br"), "encoded as br"),
    ],
)
def test_an_answer_that_is_not_the_file_costs_nothing(sent, words, serve, cache):
    left = part(cache)
    server = serve(script=(sent,))
    assert words in refused(entry(server.url))
    assert left.read_bytes() == CONTENT[:1000]
    assert len(server.asked) == 1


def test_a_cut_without_a_length_is_resumed(serve):
    server = serve(script=(no_length(400_000), "ok"))
    assert fetch_pretrained(entry(server.url)).read_bytes() == CONTENT
    assert [given for _, given in server.asked] == [None, "bytes=400000-"]


def test_a_body_without_an_end(serve, cache):
    server = serve(script=(answer(CONTENT * 3),))
    assert f"it has more than {len(CONTENT)} bytes" in refused(entry(server.url))
    assert all(path.stat().st_size == 0 for path in cache.iterdir())


@pytest.mark.parametrize("length", ["abc", "5, 5", "-1", "9" * 5000, "5, 6", ""])
def test_a_length_that_is_no_number(length, serve):
    message = refused(entry(serve(script=(answer(Content_Length=length),)).url))
    assert "which is no number" in message or "is not HTTP as it should be" in message


@pytest.mark.parametrize("start", [b"SSH-2.0-x\r\n\r\n", b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 200 + b"\r\n"])
def test_what_is_not_http(start, serve):
    assert "what the server answers is not HTTP as it should be" in refused(entry(serve(script=(start,)).url))


NO_ADDRESS = [
    "http://[::1",
    "http://" + "a" * 64 + ".invalid",
    "http://h:999999",
    "file:///etc",
    "http://",
]


@pytest.mark.parametrize("address", NO_ADDRESS)
@pytest.mark.parametrize("redirected", [False, True])
def test_an_address_that_is_none(address, redirected, serve, monkeypatch):
    location = f"{address}/x" if address != "http://" else "http://:/x"
    server = serve(script=(answer(b"", "302 Found", length=True, Location=location),))
    monkeypatch.setenv("MASKRCNN_MIRROR", server.url if redirected else address)
    assert "this address, or that of a redirection or proxy, cannot be used. Try" in refused(entry("http://x.invalid"))


def test_no_home_folder(monkeypatch):
    words = r"no place for pretrained weights: {}\. Set MASKRCNN_CACHE to a folder"
    monkeypatch.setenv("MASKRCNN_CACHE", "~nosuchuser/x")
    with pytest.raises(OutputError, match=words.format("MASKRCNN_CACHE=~nosuchuser/x leads to no folder")):
        cache_folder()
    done = run("weights", "list")
    assert (done.exit_code, done.stderr.count("\n")) == (6, 1)

    def lost(*_):
        raise RuntimeError("could not determine the home directory")

    monkeypatch.delenv("MASKRCNN_CACHE")
    for found in (lost, lambda _: "~/.cache/maskrcnn"):
        monkeypatch.setattr("pooch.os_cache", found)
        with pytest.raises(OutputError, match=words.format("this user has no home folder")):
            cache_folder()


def test_no_working_folder(monkeypatch):
    monkeypatch.setenv("MASKRCNN_CACHE", "relative")
    Path.cwd().rmdir()
    with pytest.raises(OutputError, match="Set MASKRCNN_CACHE to a folder"):
        cache_folder()


@pytest.mark.parametrize(
    "failure", ["silent", "gone", ("cut", 0), ("cut", 1000), answer(b"5\r\n", Transfer_Encoding="chunked")]
)
@pytest.mark.parametrize("given", [{}, UNKNOWN])
def test_a_failure_before_anything_is_kept_is_tried_again(failure, given, serve, monkeypatch):
    monkeypatch.setattr(download, "_TIMEOUT", 0.1)
    server, said = serve(script=(failure, "ok")), []
    assert fetch_pretrained(entry(server.url, **given), said.append).read_bytes() == CONTENT
    words = {"silent": "no answer for 0.1 seconds", "gone": "Remote end closed connection without response"}
    assert f"{words.get(failure, 'the connection ended early')}: trying again" in said


@pytest.mark.parametrize("status", ["200 OK", "201 Created", "203 Non-Authoritative Information", "299 Own"])
@pytest.mark.parametrize("length", [True, False])
def test_a_whole_file_of_any_status_is_no_rest(status, length, serve, cache):
    part(cache)
    server = serve(script=(answer(status=status, length=length),))
    assert fetch_pretrained(entry(server.url)).read_bytes() == CONTENT
    assert server.asked == [(f"/{NAME}", "bytes=1000-")]


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_proxy_that_refuses_is_named(scheme, serve, dead, monkeypatch):
    monkeypatch.delenv("NO_PROXY")
    monkeypatch.delenv("no_proxy", raising=False)
    refusing = answer(b"", "407 Proxy Authentication Required", length=True)
    for proxy, words in ((dead, "Connection refused"), (serve(script=(refusing,)).url[7:], "407 Proxy Authen")):
        for name in (f"{scheme}_proxy", f"{scheme.upper()}_PROXY"):
            monkeypatch.setenv(name, f"http://user:secret@{proxy}")
        message = refused(entry(f"{scheme}://x.invalid"))
        assert re.search(f": the proxy http://{proxy} cannot be used: (Tunnel connection failed: )?{words}", message)


def test_a_loop_of_redirections(serve):
    assert ": the server redirects in a loop, or too often. Try" in refused(entry(serve(script=("redirect",)).url))


def test_a_folder_in_the_place_of_the_file(cache, offline):
    offline()
    (cache / NAME).mkdir(parents=True)
    message = refused(entry("http://never.invalid"), OutputError)
    assert message.startswith(f"cannot write {cache / NAME}: it is a folder. Remove it, or name another folder in ")


def test_the_cache_is_looked_for_once(monkeypatch, cache):
    asked = []
    monkeypatch.setattr(download, "cache_folder", lambda: asked.append(None) or cache)
    assert len(pretrained_list()) == len(PRETRAINED)
    assert len(asked) == 1


@pytest.mark.parametrize(
    "words",
    [
        *("show", "verify", "verify --against demo", "verify --precision bf16 --verify-images .", "edit", "serve"),
        *("benchmark", "benchmark --all", "export triton -o x", "export tfserving -o x", "doctor"),
    ],
)
def test_a_name_where_an_artifact_is_needed(words, offline):
    offline()
    first, *options = words.replace("export ", "export_").split()
    done = run(*first.split("_"), "coco", *options)
    assert (done.exit_code, done.stderr) == (
        4, "error: coco is a checkpoint, not an artifact: export it first: maskrcnn export onnx coco\n"
    )  # fmt: skip


@pytest.mark.parametrize(("module", "extra"), [("pooch", "tf"), ("filelock", "train")])
def test_a_missing_package(module, extra, monkeypatch):
    monkeypatch.delenv("MASKRCNN_CACHE") if module == "pooch" else None
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingPackageError, match=rf"pretrained weights needs the package '{module}'.*{extra}"):
        fetch_pretrained(entry("http://never.invalid"))


def test_the_cache_follows_the_platform(monkeypatch, tmp_path):
    monkeypatch.delenv("MASKRCNN_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    if sys.platform == "linux":
        assert cache_folder() == tmp_path / "user" / "maskrcnn"
    monkeypatch.setenv("MASKRCNN_CACHE", "relative")
    assert cache_folder() == Path.cwd() / "relative"


def test_a_model_of_that_name_comes_first(tmp_path):
    assert find_pretrained("coco") is find_pretrained(Path("coco")) is PRETRAINED["coco"]
    assert find_pretrained("cocoa") is None
    Path("coco").mkdir()  # a folder of images, say
    assert find_pretrained("coco") is PRETRAINED["coco"]
    Path("coco", MANIFEST).parent.mkdir()
    Path("coco", MANIFEST).touch()
    assert find_pretrained("coco") is None
    Path("balloon").touch()
    assert find_pretrained("balloon") is None


@pytest.mark.parametrize("given", PRETRAINED.values(), ids=PRETRAINED)
def test_the_registry(given):
    assert given.url.startswith("https://")
    assert given.source.startswith("https://")
    assert given.class_names[0] == "BG"
    assert (given.size is None) == (given.digest is None)
    if given.digest is not None:
        assert re.fullmatch("sha256:[0-9a-f]{64}|md5:[0-9a-f]{32}", given.digest)
    published = re.search(r"-([0-9a-f]{8})\.pth$", given.file)  # torchvision's own prefix of the SHA-256
    assert published is None or given.digest.startswith(f"sha256:{published[1]}")
    assert sum(each.file == given.file for each in PRETRAINED.values()) == 1


def test_what_a_user_says_comes_before_what_is_known():
    known, said = PRETRAINED["coco"], Choices("mine.json", settings=("detection.min_score=0.5",))
    assert known.with_choices(NO_CHOICES) == known.choices
    assert known.with_choices(said) == said
    family = PRETRAINED["coco-torchvision"]
    assert family.with_choices(Choices(classes="a,b")).classes == "a,b"
    both = family.with_choices(Choices(settings=("detection.min_score=0.1",))).settings
    assert both == ("detection.min_score=0.5", "detection.min_score=0.1")  # the last one counts


@pytest.fixture
def standin(serve, monkeypatch):
    """The demo's weights as pretrained weights, with another configuration than the file's own, on a server."""
    content = (Path(download.__file__).parents[1] / "demo.weights.h5").read_bytes()
    server = serve(content)
    given = entry(server.url, content, choices=Choices(replace(DEMO, name="stand-in")), class_names=("BG", "a", "b"))
    monkeypatch.setitem(PRETRAINED, "standin", given)
    return server


def run(*arguments):
    result = CliRunner().invoke(app, [*map(str, arguments)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def test_weights_list_and_fetch(standin, cache):
    rows = {row["name"]: row for row in pretrained_list()}
    assert rows["coco"]["classes"] == rows["coco-torchvision"]["classes"] == 80
    assert (rows["standin"]["cached"], rows["standin"]["path"]) == (False, str(cache / NAME))
    listed = run("weights", "list").stdout.splitlines()
    assert max(len(line) for line in listed if not line.startswith("  ")) <= 80
    assert f"  would be kept: {cache / NAME}" in listed
    assert run("weights", "fetch", "standin").stdout == f"{cache / NAME}\n"
    assert f"  in the cache: {cache / NAME}" in run("weights", "list").stdout.splitlines()
    assert run("weights", "fetch", "standin").stdout == f"{cache / NAME}\n"
    assert len(standin.asked) == 1
    wrong = run("weights", "fetch", "cocoa")
    assert wrong.exit_code == 2
    assert wrong.stderr == "error: there are no pretrained weights 'cocoa': did you mean coco?\n"
    assert "no pretrained weights 'unicorn': names are coco, balloon, " in run("weights", "fetch", "unicorn").stderr


def test_the_demo_is_among_the_weights(offline):
    """It has a row, and fetching it says that it is there; no size is unknown."""
    listed = run("weights", "list").stdout
    assert "?" not in listed
    assert re.search(r"(?m)^balloon .* ~256 MB  MIT$", listed)
    (path,) = re.search(r"(?m)^demo .* MIT\n  in the package: (.*)$", listed).groups()
    fetched = run("weights", "fetch", "demo")
    assert fetched.stdout == f"{path}\n"
    assert Path(path).is_file()
    assert "demo ships with the package" in fetched.stderr


def test_a_name_where_a_checkpoint_is_opened(standin, cache, offline):
    """`config from` and the initial weights of training, without TensorFlow; the second without a connection."""
    from maskrcnn.checkpoints.open_weights import Weights, open_weights
    from maskrcnn.commands.shared import is_checkpoint, open_start

    assert is_checkpoint(Path("standin"))
    assert standin.asked == []  # a question is no reason to fetch
    assert '"name": "stand-in"' in run("config", "from", "standin").stdout
    offline()
    started = open_start("standin", Choices(settings=("detection.min_score=0.25",)))
    assert isinstance(started, Weights)
    assert (started.path, started.config.name, started.config.detection.min_score) == (cache / NAME, "stand-in", 0.25)
    assert open_weights("standin").config == replace(DEMO, name="stand-in")


@pytest.mark.parametrize(
    "words",
    ["predict cocos demo.jpg -o found", "weights convert cocos --to maskrcnn -o x.weights.h5", "config from cocos"],
)
def test_a_name_with_a_typo(words):
    (Path.cwd() / "demo.jpg").write_bytes((Path(download.__file__).parents[1] / "demo.jpg").read_bytes())
    done = run(*words.split())
    assert (done.exit_code, done.stderr.strip()) == (4, "error: there is no model at cocos: did you mean coco?")


def test_workers_in_other_folders_get_the_name(standin):
    from maskrcnn.commands.train_job import TrainJob

    Path("standin").mkdir()  # a folder of that name is no file
    values = dict.fromkeys(TrainJob.__dataclass_fields__) | {"output": Path("runs"), "init": "standin"}
    lists = ("datasets", "validation", "images", "validation_images", "settings")
    assert TrainJob(**values | dict.fromkeys(lists, ())).absolute().init == "standin"


def test_predict_by_name_from_the_cache(standin, cache, offline):
    """The whole way: fetched once, then from the cache alone, with the configuration that the name stands for."""
    run("weights", "fetch", "standin")
    offline()
    image = Path(download.__file__).parents[1] / "demo.jpg"
    done = run("predict", "standin", image, "-o", "found")
    assert done.exit_code == 0, done.output
    assert "1 image, 7 detections" in done.stdout

    from export.arguments import load
    from maskrcnn import demo_model
    from maskrcnn.training.initialize import initialize

    assert not initialize(demo_model(), "standin").missing
    model, origin = load(Path("standin"), NO_CHOICES, exclude_heads=False)
    digest = PRETRAINED["standin"].digest.removeprefix("sha256:")
    assert (model.config.name, origin["checkpoint"]) == ("stand-in", {"name": NAME, "sha256": digest})
