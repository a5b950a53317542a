"""The cache of pretrained weights: files are downloaded once, resumed after a cut, and checked at every use."""

import hashlib
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
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
_HDF5 = b"\x89HDF\r\n\x1a\n"


def cache_folder() -> Path:
    """Return the folder of the cache: `MASKRCNN_CACHE`, or `maskrcnn` among the user's caches."""
    chosen = os.environ.get(CACHE)
    return Path(chosen).expanduser().absolute() if chosen else Path(_pooch().os_cache("maskrcnn"))


def pretrained_list() -> list[dict[str, Any]]:
    """Return a row for each name: what it is, the number of its classes, size, license, page, and path in the cache."""
    rows = []
    for entry in PRETRAINED.values():
        path = cache_folder() / entry.file
        rows.append(
            {
                "name": entry.name,
                "network": entry.network,
                "classes": sum(not name.startswith("N/A ") for name in entry.class_names[1:]),
                "bytes": entry.size,
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
    mirror = os.environ.get(MIRROR)
    url = f"{mirror.rstrip('/')}/{entry.file}" if mirror else entry.url
    part = path.with_name(f".{path.name}.part")
    with part.open("ab") as file:
        arrival = _Arrival(file, entry, url, count)
        say(f"fetching {entry.name!r} from {url}")
        if arrival.done:
            say(f"{arrival.done / _MB:.0f} MB of it have arrived before")
        if entry.size is None or arrival.done != entry.size:
            _receive(arrival, path, say)
        file.flush()
        os.fsync(file.fileno())
    flaw = _flaw(part, entry)
    if flaw:
        part.unlink()
        raise DownloadError(
            f"{url} is not the file that {entry.name!r} stands for: {flaw}. It was deleted: run the command again, or "
            f"put the right file at {path}"
        )
    part.replace(path)
    if entry.digest is None:
        say(f"no digest of {path.name} is published; the SHA-256 of what arrived is {_digest(path, 'sha256')}")


class _Arrival:
    """A file that arrives, in one or more tries. pooch writes into it, and requests shows it every answer."""

    def __init__(self, file: BinaryIO, entry: Pretrained, url: str, count: Counted) -> None:
        self.file, self.entry, self.url, self._count = file, entry, url, count
        self.done = file.seek(0, os.SEEK_END)
        self.total: int | None = None
        self.received = 0  # in this run, also what was given up later
        self._answers: list[Any] = []

    def try_once(self) -> None:
        """Ask for what is missing and receive it, up to a cut."""
        headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={self.done}-"} if self.done else {})
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
        if response.status_code not in (200, 206, 416):  # a redirection, or an error
            return
        if response.status_code != 206:
            self.restart()
        elif not response.headers.get("Content-Range", "").startswith(f"bytes {self.done}-"):
            raise DownloadError(f"{self.url} answers with another part of the file than the one asked for")
        length = response.headers.get("Content-Length", "")
        self.total = self.done + int(length) if length.isdecimal() else None
        expected = self.entry.size
        if response.ok and None not in (expected, self.total) and self.total != expected:
            raise DownloadError(
                f"{self.url} is not the file that {self.entry.name!r} stands for: it has {self.total} bytes, and not "
                f"{expected}"
            )

    def restart(self) -> None:
        """Forget what has arrived."""
        self.file.truncate(0)
        self.done = 0

    def write(self, chunk: bytes) -> None:
        """Keep a chunk."""
        self.file.write(chunk)
        self.done += len(chunk)
        self.received += len(chunk)
        whole = self.entry.size or self.total
        self._count(f"{self.entry.name}, MB", self.done // _MB, None if whole is None else whole // _MB)

    def flush(self) -> None:
        """Pass on to the operating system what was written, so that a later run finds it."""
        self.file.flush()


def _receive(arrival: _Arrival, path: Path, say: Say) -> None:
    """Try until the file is complete, or as often as something new arrives and then `_TRIES` times."""
    from requests import RequestException  # noqa: PLC0415  (comes with pooch)

    failures, furthest = 0, arrival.done
    while True:
        before = arrival.received
        try:
            arrival.try_once()
        except RequestException as error:
            if error.response is None:
                first = _first(error)
                reason = getattr(first, "strerror", None) or str(first) or type(first).__name__
                passing = arrival.received > before or isinstance(first, ConnectionResetError)
            else:
                status = error.response.status_code
                reason = f"the server answers {status} {error.response.reason}"
                passing = status >= 500 or status in _TRY_AGAIN
        else:
            if arrival.total is None or arrival.done == arrival.total:
                return
            reason, passing = "the connection ended", True
        failures = 0 if arrival.done > furthest else failures + 1
        furthest = max(furthest, arrival.done)
        if not passing or failures == _TRIES:
            so_far = f" after {arrival.done} bytes, which are kept" if arrival.done else ""
            raise DownloadError(
                f"{arrival.entry.name!r} cannot be fetched from {arrival.url}: {reason}{so_far}. Try again, name a "
                f"folder with that file in {MIRROR}, such as http://host/folder, or put the file at {path}"
            )
        say(f"{reason}: trying again")
        time.sleep(_WAIT * failures)


def _first(error: BaseException) -> BaseException:
    """Return the error that all others were made of: as a rule, the operating system's."""
    while (deeper := error.__cause__ or error.__context__) is not None:
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
    with path.open("rb") as file:
        return None if not entry.file.endswith(".h5") or file.read(len(_HDF5)) == _HDF5 else "it is no HDF5 file"


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
            f"{entry.url} at {path}"
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
