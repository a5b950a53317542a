"""The cache of pretrained weights: files are downloaded once, resumed after a cut, and checked at every use."""

import hashlib
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from ssl import SSLEOFError
from typing import Any, BinaryIO

from maskrcnn.callbacks import Counted, Say, say_nothing
from maskrcnn.checkpoints.pretrained import PRETRAINED, Pretrained
from maskrcnn.errors import DownloadError
from runtime.errors import MissingPackageError, OutputError

CACHE, MIRROR = "MASKRCNN_CACHE", "MASKRCNN_MIRROR"
_PURPOSE = "fetching pretrained weights"
_MB, _CHUNK, _TIMEOUT = 10**6, 2**16, 30  # the last in seconds, for each answer and each chunk
_TRIES, _WAIT = 5, 1.0  # tries that bring nothing further, and seconds after the first, twice that after the second
_TRY_AGAIN = (408, 416, 429)  # statuses below 500 that can pass; 416: more had arrived than there is
_CUT = "the connection ended early"
_PAGES = ("text/html", "application/xhtml+xml")
_NUMBER = "[0-9]{1,18}"
_RANGE = re.compile(rf"bytes ({_NUMBER})-{_NUMBER}/({_NUMBER}|\*)", re.IGNORECASE)
_HDF5, _HDF5_HEAD = b"\x89HDF\r\n\x1a\n", 64
_HDF5_END = {0: 40, 1: 44, 2: 28, 3: 28}  # where the superblock of a version states the end of the file


def cache_folder() -> Path:
    """Return the folder of the cache: `MASKRCNN_CACHE`, or `maskrcnn` among the user's caches.

    Raises:
        OutputError: There is no home folder to find it in, or no working folder.
        MissingPackageError: `MASKRCNN_CACHE` is not set, and pooch is not installed.
    """
    chosen, folder = os.environ.get(CACHE), Path("~")
    with suppress(RuntimeError, OSError):
        folder = Path(chosen).expanduser().absolute() if chosen else Path(_pooch().os_cache("maskrcnn"))
    if folder.is_absolute():
        return folder
    lost = f"{CACHE}={chosen} leads to no folder" if chosen else "this user has no home folder"
    raise OutputError(f"no place for pretrained weights: {lost}. Set {CACHE} to a folder, such as /data/maskrcnn")


def pretrained_list() -> list[dict[str, Any]]:
    """Return a row for each name: what it is, the number of its classes, size, license, page, and path in the cache."""
    rows, folder = [], cache_folder()
    for entry in PRETRAINED.values():
        path = folder / entry.file
        rows.append(
            {
                "name": entry.name,
                "network": entry.network,
                "classes": sum(not name.startswith("N/A ") for name in entry.class_names[1:]),
                "bytes": entry.size,
                "megabytes": entry.about if entry.size is None else round(entry.size / _MB),
                "license": entry.license,
                "url": entry.url,
                "source": entry.source,
                "path": str(path),
                "cached": os.path.isfile(path),  # noqa: PTH113  (as in `fetch_pretrained`)
            }
        )
    return rows


def fetch_pretrained(entry: Pretrained, say: Say = say_nothing, count: Counted | None = None) -> Path:
    """Return the file of pretrained weights in the cache, after downloading it if it is not there.

    A file that is there is checked and used without a connection. Other processes may fetch the same file: one
    downloads it, the others wait.

    Args:
        entry: The weights.
        say: Called with a sentence where something takes time or is tried again.
        count: Called with the megabytes that have arrived.

    Raises:
        DownloadError: The file cannot be downloaded, or what arrived or lies in the cache is another file.
        OutputError: The cache cannot be written.
        MissingPackageError: pooch or filelock is not installed.
    """
    path = cache_folder() / entry.file
    if not os.path.isfile(path):  # noqa: PTH113  (False, not an error, in a folder that may not be entered)
        if os.path.isdir(path):  # noqa: PTH112
            raise OutputError(f"cannot write {path}: it is a folder. Remove it, or name another folder in {CACHE}")
        with _writing(path, entry), _locked(path, say):
            if not path.is_file():
                _download(entry, path, say, count or (lambda *_: None))
                return path
    try:
        flaw = _flaw(path, entry)
    except OSError as error:
        raise DownloadError(f"cannot read {path}: {error.strerror}") from error
    if flaw:
        raise DownloadError(
            f"{path} is not the file that {entry.name!r} stands for: {flaw}. Delete it to fetch it again"
        )
    return path


def _download(entry: Pretrained, path: Path, say: Say, count: Counted) -> None:
    url = _address(entry)
    part = path.with_name(f".{path.name}.part")
    resumable = entry.digest is not None  # otherwise nothing tells whether the rest is of the same file
    try:
        with part.open("ab") as file:
            if not resumable:
                file.truncate(0)
            arrival = _Arrival(file, entry, url, path, count)
            say(f"fetching {entry.name!r} from {_shown(url)}")
            if arrival.done:
                say(f"{arrival.done / _MB:.0f} MB of it have arrived before")
            if entry.size is None or arrival.done != entry.size:
                _receive(arrival, say)
            file.flush()
            os.fsync(file.fileno())
        flaw = _flaw(part, entry)
        if flaw:
            part.unlink()
            raise DownloadError(
                f"{_shown(url)} is not the file that {entry.name!r} stands for: {flaw}. It was deleted: run the "
                f"command again, or put the right file at {path}"
            )
        part.replace(path)
    finally:
        if not resumable:
            part.unlink(missing_ok=True)
    if entry.digest is None:
        say(f"no digest of {path.name} is published; the SHA-256 of what arrived is {_digest(path, 'sha256')}")


def _address(entry: Pretrained) -> str:
    """Return where the file is fetched from: its address, or its name in the folder of the mirror."""
    mirror = os.environ.get(MIRROR)
    if not mirror:
        return entry.url
    folder, mark, query = mirror.partition("?")  # a query with a key belongs to every file
    return f"{folder.rstrip('/')}/{entry.file}{mark}{query}"


def _shown(url: str) -> str:
    """Return an address without user name, password and query, which may be secrets; it need not be a valid one."""
    start = re.match(r"([a-z][a-z0-9+.-]*://)?", url, re.IGNORECASE)
    scheme = start[0] if start else ""
    body, query = re.split(r"(?=[?#])|$", url[len(scheme) :], maxsplit=1)
    before, user, after = body.rpartition("@")
    host = body.partition("/")[0]
    if "@" in query and (user or not re.fullmatch(r"(\[.*\]|[^:]*)(:\d*)?", host)):
        after = "..."  # a password with "?" or "#" in it
    elif "/" in before:
        after = f"...@{after}"  # a password with "/" in it, or a folder with "@"
    return scheme + after


class _ChangedError(Exception):
    """The file on the server is not the one of which a part has arrived."""


class _Arrival:
    """A file that arrives, in one or more tries. pooch writes into it, and requests shows it every answer."""

    def __init__(self, file: BinaryIO, entry: Pretrained, url: str, path: Path, count: Counted) -> None:
        self.file, self.entry, self.url, self.path, self._count = file, entry, url, path, count
        self.done = file.seek(0, os.SEEK_END)
        self.total: int | None = None
        self.received = 0  # in this run, also what was given up later
        self._chunked = False  # such a body says itself where it ends
        self._version: dict[str, str] = {}  # what the first answer says about the version of the file
        self._answers: list[Any] = []

    def try_once(self) -> None:
        """Ask for what is missing and receive it, up to a cut."""
        version = self._version.get("ETag", "W/")
        version = self._version.get("Last-Modified", "") if version.startswith("W/") else version
        if not version and self.entry.digest is None:
            self.restart()
        headers = {"Accept-Encoding": "identity"}
        if self.done:
            headers |= {"Range": f"bytes={self.done}-"} | ({"If-Range": version} if version else {})
        hooks = {"response": self._answer}
        load = _pooch().HTTPDownloader(chunk_size=_CHUNK, timeout=_TIMEOUT, headers=headers, hooks=hooks)
        try:
            load(self.url, self, None)
        finally:
            while self._answers:
                self._answers.pop().close()

    def _answer(self, response: Any, **_: Any) -> None:
        """Look at the headers of an answer before its body is read; what is no rest starts the file again."""
        self._answers.append(response)
        status, headers = response.status_code, response.headers
        if response.is_redirect or (status >= 400 and status != 416):
            return
        if status == 416:
            given = re.fullmatch(rf"bytes \*/({_NUMBER})", headers.get("Content-Range", ""))
            self._check_total(int(given[1]) if given else None)
            self.restart()
            return
        if not 200 <= status < 300 or status in (204, 205):
            raise self.failed(f"the server answers {_status(response)}, and sends no file")
        kind = headers.get("Content-Type", "").partition(";")[0].strip().lower()
        if kind in _PAGES:
            raise self.failed(f"the server sends a web page ({kind}), such as one to log in, in place of the file")
        coding = headers.get("Content-Encoding", "").strip().lower()
        if coding not in ("", "identity"):
            raise self.failed(f"the server sends the file encoded as {coding}, which it was asked not to do")
        length = headers.get("Content-Length")
        if length is not None and not re.fullmatch(_NUMBER, length):
            raise self.failed(f"the server states the length {length!r}, which is no number")
        self._chunked = headers.get("Transfer-Encoding", "").strip().lower() == "chunked"
        version = {name: headers[name] for name in ("ETag", "Last-Modified") if name in headers}
        if status == 206:
            self._check_rest(headers.get("Content-Range", ""), version)
            return
        total = None if length is None or self._chunked else int(length)
        self._check_total(total)
        self.restart()
        self.total, self._version = total, version

    def _check_rest(self, place: str, version: dict[str, str]) -> None:
        """Refuse what is not the rest of the file that has arrived."""
        found = _RANGE.fullmatch(place.strip())
        if not found or int(found[1]) != self.done:
            raise self.failed("the server sends another part of the file than the one asked for")
        total = None if found[2] == "*" else int(found[2])
        self._check_total(total)
        name = next((name for name in self._version if name in version), None)
        if None not in (total, self.total) and total != self.total:
            changed = True
        else:
            changed = name is not None and version[name] != self._version[name]
        if changed:
            self.restart()
            raise _ChangedError
        self.total = self.total if total is None else total
        self._version = self._version or version

    def _check_total(self, total: int | None) -> None:
        """Refuse a file of another size, before what has arrived is given up for it."""
        size = self.entry.size
        if size is not None and total is not None and total != size:
            raise self._other_file(f"it has {total} bytes, and not {size}")

    def restart(self) -> None:
        """Forget what has arrived."""
        self.file.truncate(0)
        self.done, self.total, self._version = 0, None, {}

    def write(self, chunk: bytes) -> None:
        """Keep a chunk."""
        whole = self.entry.size or self.total
        if whole is not None and self.done + len(chunk) > whole:
            self.restart()
            raise self._other_file(f"it has more than {whole} bytes")
        self.file.write(chunk)
        self.done += len(chunk)
        self.received += len(chunk)
        self._count(f"{self.entry.name}, MB", self.done // _MB, None if whole is None else whole // _MB)

    def flush(self) -> None:
        """Pass on to the operating system what was written, so that a later run finds it."""
        self.file.flush()

    def is_complete(self) -> bool:
        """Return whether a body that ended was not cut, as far as the server or the file says where it ends."""
        whole = self.entry.size or self.total
        if whole is not None or self._chunked:
            return whole in (None, self.done)
        self.file.flush()
        return self.entry.file.endswith(".h5") and _hdf5_size(Path(self.file.name)) in (None, self.done)

    def failed(self, reason: str) -> DownloadError:
        """Return the error that ends the download."""
        so_far = f" after {self.done} bytes, which are kept" if self.done and self.entry.digest is not None else ""
        return DownloadError(
            f"{self.entry.name!r} cannot be fetched from {_shown(self.url)}: {reason}{so_far}. Try again, name a "
            f"folder with that file in {MIRROR}, such as http://host/folder, or put the file at {self.path}"
        )

    def _other_file(self, flaw: str) -> DownloadError:
        return DownloadError(f"{_shown(self.url)} is not the file that {self.entry.name!r} stands for: {flaw}")


def _receive(arrival: _Arrival, say: Say) -> None:
    """Try until the file is complete, or as often as something new arrives and then `_TRIES` times."""
    from requests import RequestException  # noqa: PLC0415  (comes with pooch)
    from urllib3.exceptions import HTTPError  # noqa: PLC0415  (comes with requests, which lets some through)

    failures, furthest = 0, arrival.done
    while True:
        before = arrival.received
        try:
            arrival.try_once()
        except DownloadError:
            raise
        except _ChangedError:
            reason, passing = "the file has changed on the server", True
        except (RequestException, HTTPError, ValueError) as error:
            reason, passing = _reason(error, arrival.url)
            passing = passing or arrival.received > before
        else:
            if arrival.is_complete():
                return
            reason, passing = _CUT, True
        failures = 0 if arrival.done > furthest else failures + 1
        furthest = max(furthest, arrival.done)
        if not passing or failures == _TRIES:
            raise arrival.failed(reason)
        say(f"{reason}: trying again")
        time.sleep(_WAIT * failures)


def _reason(error: Exception, url: str) -> tuple[str, bool]:
    """Say why a try failed, and whether that can pass. What a library says about an address may have secrets in it."""
    from requests import exceptions  # noqa: PLC0415
    from requests.utils import get_environ_proxies, select_proxy  # noqa: PLC0415

    first, response = _first(error), getattr(error, "response", None)
    why, passing = _of_connection(error, first)
    if isinstance(error, exceptions.TooManyRedirects):
        why = "the server redirects in a loop, or too often"
    elif isinstance(error, exceptions.ProxyError) or (response is not None and response.status_code == 407):
        asked = getattr(getattr(error, "request", None), "url", None) or url
        proxy = f"the proxy {_shown(select_proxy(asked, get_environ_proxies(asked)) or '')}".strip()
        why = f"{proxy} cannot be used: {_status(response) if response is not None else why or first}".rstrip(".")
    elif response is not None:
        status = response.status_code
        why, passing = f"the server answers {_status(response)}", status >= 500 or status in _TRY_AGAIN
    elif not why and isinstance(error, exceptions.ConnectionError | exceptions.InvalidHeader):
        why = "what the server answers is not HTTP as it should be"
    return why or "this address, or that of a redirection or proxy, cannot be used", passing


def _of_connection(error: Exception, first: BaseException) -> tuple[str, bool]:
    """Do what `_reason` does for a connection that failed; "" for what else can happen."""
    from requests.exceptions import ChunkedEncodingError  # noqa: PLC0415

    if isinstance(first, TimeoutError):
        return f"no answer for {_TIMEOUT} seconds", True
    if isinstance(error, ChunkedEncodingError) and not isinstance(first, OSError):
        return _CUT, True
    if isinstance(first, SSLEOFError):
        return _CUT, True
    if isinstance(first, ConnectionError) and not isinstance(first, ConnectionRefusedError):
        return (first.strerror or str(first)).rstrip("."), True
    return (first.strerror or "" if isinstance(first, OSError) else ""), False


def _status(response: Any) -> str:
    return f"{response.status_code} {response.reason or ''}".rstrip(" .")


def _first(error: BaseException) -> BaseException:
    """Return the error that all others were made of: as a rule, the operating system's."""
    while (deeper := error.__cause__ or (None if error.__suppress_context__ else error.__context__)) is not None:
        error = deeper
    return error


def _flaw(path: Path, entry: Pretrained) -> str | None:
    """Say why a file is not that of an entry; None: it is, as far as can be known."""
    found = path.stat().st_size
    if entry.size is not None and found != entry.size:
        return f"it has {found} bytes, and not {entry.size}"
    if entry.digest is not None:
        algorithm, _, expected = entry.digest.partition(":")
        digest = _digest(path, algorithm)
        return None if digest == expected else f"its {algorithm.upper()} is {digest}, and not {expected}"
    if not entry.file.endswith(".h5"):
        return None
    size = _hdf5_size(path)
    if size is None:
        return "it is no HDF5 file"
    return None if size == found else f"it has {found} bytes, and not the {size} that its HDF5 header states"


def _hdf5_size(path: Path) -> int | None:
    """Return the size that the header of an HDF5 file states; None: it is none, or of an unknown version."""
    with path.open("rb") as file:
        head = file.read(_HDF5_HEAD)
    if head[: len(_HDF5)] != _HDF5[: len(head)]:
        return None
    if len(head) < _HDF5_HEAD:
        return _HDF5_HEAD  # at least
    at = _HDF5_END.get(head[len(_HDF5)])
    return None if at is None else int.from_bytes(head[at : at + 8], "little")


def _digest(path: Path, algorithm: str) -> str:
    state = path.stat()
    return _digest_of(path, algorithm, state.st_size, state.st_mtime_ns, state.st_ino)


@lru_cache(maxsize=8)
def _digest_of(path: Path, algorithm: str, *_: int) -> str:
    """Return the digest of a file; a command that asks again about the same file reads it once."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


@contextmanager
def _writing(path: Path, entry: Pretrained) -> Iterator[None]:
    """Make the folder of a file, and say what to do where the folder cannot be written in the block."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        if isinstance(error, OutputError) or error.errno is None:
            raise
        raise OutputError(
            f"cannot write {path}: {os.strerror(error.errno)}. Name another folder in {CACHE}, or put "
            f"{_shown(entry.url)} at {path}"
        ) from error


@contextmanager
def _locked(path: Path, say: Say) -> Iterator[None]:
    """Keep other processes from fetching the same file for the time of a block."""
    try:
        import filelock  # noqa: PLC0415  (comes with the command line)
    except ModuleNotFoundError as error:
        if error.name != "filelock":
            raise
        raise MissingPackageError("filelock", "train", _PURPOSE) from error
    lock = filelock.FileLock(path.with_name(f".{path.name}.lock"))
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        say(f"another process fetches {path.name}: waiting for it")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _pooch() -> Any:
    try:
        import pooch  # noqa: PLC0415  (an optional package)
    except ModuleNotFoundError as error:
        if error.name != "pooch":
            raise
        raise MissingPackageError("pooch", "tf", _PURPOSE) from error
    return pooch
