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

CONTENT = b"\x89HDF\r\n\x1a\n" + np.random.default_rng(0).bytes(900_000)
NAME = "standin.weights.h5"


class Server(ThreadingHTTPServer):
    """Sends `content`. `script` has an action for each request, and the last one for all further ones.

    Actions: "ok"; a status; ("cut", bytes) ends the body early; "whole" ignores `Range`; "shifted" sends another range;
    "redirect" leads to /moved, where the next action counts; "slow" waits before the body; "gone" answers nothing.
    """

    daemon_threads = True

    def __init__(self, content=CONTENT, script=("ok",)):
        super().__init__(("127.0.0.1", 0), Handler)
        self.content, self.script = content, list(script)
        self.asked, self.sent = [], []  # (path, Range), bytes of the body
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
        self.close_connection = True
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

    def start(self, status, body, length=None, **headers):
        self.send_response(status)
        self.send_header("Connection", "close")
        self.send_header("Content-Length", str(len(body) if length is None else length))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)


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
    return message


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
    given = {"size": None, "digest": None}
    server, said = serve(script=(("cut", 400_000), "ok")), []
    assert fetch_pretrained(entry(server.url, **given), said.append).read_bytes() == CONTENT
    assert f"the SHA-256 of what arrived is {hashlib.sha256(CONTENT).hexdigest()}" in said[-1]
    (cache / NAME).unlink()
    page = serve(content=b"<html>Please log in</html>")
    assert "it is no HDF5 file" in refused(entry(page.url, **given))
    assert leftovers(cache) == []


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
    assert "no pretrained weights 'cocoa': names are coco, balloon, " in wrong.stderr


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
    assert "1 images, 7 detections" in done.stdout

    from export.arguments import load
    from maskrcnn import demo_model
    from maskrcnn.training.initialize import initialize

    assert not initialize(demo_model(), "standin").missing
    model, origin = load(Path("standin"), NO_CHOICES, exclude_heads=False)
    digest = PRETRAINED["standin"].digest.removeprefix("sha256:")
    assert (model.config.name, origin["checkpoint"]) == ("stand-in", {"name": NAME, "sha256": digest})
