"""The images of a batch: folders, patterns, lists of paths, and URLs of the file systems that pyarrow knows."""

import errno
import hashlib
import os
import re
import stat
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote_to_bytes
from urllib.request import url2pathname

from maskrcnn.errors import ArgumentError
from maskrcnn.prediction.rows import require_arrow
from maskrcnn.prediction.sources import VIDEO_SUFFIXES, find_sources
from runtime.errors import ImageError
from runtime.one_line import escaped, printable_path
from runtime.pictures.header import PICTURE_SUFFIXES

LIST_SUFFIXES = (".txt", ".parquet")
_MOST_BYTES = 2**31 - 1  # of an image
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_FILE_URL = re.compile(r"file://(?:localhost)?(/[^?#]*)", re.IGNORECASE)
_PARTS = re.compile(r"([^/]+//[^/?#]*)([^?#]*)(.*)", re.DOTALL)  # of a URL: with its host, the path, the options
_IN_PATHS = "!$&'()*+,/:;=@~"  # of URLs, beside letters, digits and "-._"
_PAUSES = (0.5, 2.0, 5.0)  # seconds before an image is read again
_LASTING = (errno.EINVAL, errno.EFBIG, errno.ENAMETOOLONG, errno.ELOOP)
_REFUSED = re.compile("(access|permission).?denied|not a regular file", re.IGNORECASE)  # stores have no number for it


def is_url(text: str) -> bool:
    """Return whether a text is the URL of a file or folder and not a path."""
    return _URL.match(text) is not None


def plain(text: str) -> str:
    """Return the path for the URL of a local file, and for another URL the one way to write it."""
    if not (parts := _PARTS.fullmatch(text)) or not is_url(text):
        return text
    if local := _FILE_URL.fullmatch(text):
        return url2pathname(local[1]) if os.name == "nt" else os.fsdecode(unquote_to_bytes(os.fsencode(local[1])))
    path = quote(unquote_to_bytes(parts[2].encode(errors="surrogateescape")), _IN_PATHS)
    return f"{parts[1]}{path}{quote(parts[3], f'{_IN_PATHS}#%?', errors='surrogateescape')}"


def file_system(text: str) -> tuple[Any, str]:
    """Return the `pyarrow.fs.FileSystem` of a path or URL, and the path in it.

    Raises:
        ArgumentError: pyarrow does not know that kind of URL, or a library or credentials for it are missing.
    """
    pa = require_arrow()
    from pyarrow import fs  # noqa: PLC0415  (an extra)

    text = plain(text)
    if not is_url(text):
        return fs.LocalFileSystem(), os.path.abspath(text)  # noqa: PTH100  (links stay as they are given)
    if "#" in text or (text.lower().startswith("file:") and "?" in text):  # pyarrow would ignore the rest
        raise ArgumentError(f"{text!r} cannot be used: in the URL of a file, write # as %23 and ? as %3F")
    try:
        system, path = fs.FileSystem.from_uri(text)
    except (ValueError, OSError, NotImplementedError, pa.ArrowException) as error:
        raise ArgumentError(f"{text!r} cannot be used: {error}: expected a URL such as s3://bucket/folder") from error
    return system, path


def find_pictures(sources: Sequence[str], output: str) -> dict[str, str]:
    """Find the images of a batch.

    Args:
        sources: Files, folders, patterns and URLs, see docs/scaling.md; a `.txt` file lists paths or URLs of images,
            one per line, and a `.parquet` file in a column `path`.
        output: Folder or URL of the run; what is found in it is ignored.

    Returns:
        The name of each image in results, by its path or URL; sorted by path.

    Raises:
        ImageError: A path does not exist, a folder or list cannot be read, or there is nothing to predict.
        ArgumentError: An image is named twice, one of them is a video, or a URL cannot be used.
    """
    names: dict[str, str] = {}
    taken: set[str] = set()
    for path, name in _found(sources, output):
        if _ends_in(path, VIDEO_SUFFIXES):
            raise ArgumentError(f"{path!r} is a video, and a batch has one row per image: leave out --ray for videos")
        if path in names:
            raise ArgumentError(f"{path!r} is named twice: each image of a batch is predicted once, name it once")
        names[path] = name if name not in taken else f"{name}~{hashlib.sha256(path.encode()).hexdigest()[:8]}"
        taken.add(names[path])
    if not names:
        raise ImageError(
            f"{', '.join(map(repr, sources)) or 'no path'} contains no image: expected files that end in "
            f"{', '.join(PICTURE_SUFFIXES)}, or a list of paths in a .txt or .parquet file"
        )
    return dict(sorted(names.items()))


def _found(sources: Iterable[str], output: str) -> Iterator[tuple[str, str]]:
    """Yield path and name of each image, as often as it is named."""
    local: list[str] = []
    for text in map(plain, sources):
        if _ends_in(text, LIST_SUFFIXES):
            yield from ((_listed(entry, text), entry) for entry in _read_list(text))
        elif is_url(text):
            yield from _below(text)
        else:
            local.append(text)
    if local:
        found, unreadable = find_sources(local, Path(plain(output)), once=True)
        if unreadable:
            raise ImageError(f"cannot read {unreadable[0].path!r}: {unreadable[0].message}")
        yield from ((_utf8(source.path), source.name) for source in found)


def _ends_in(text: str, suffixes: tuple[str, ...]) -> bool:
    path = text.partition("?")[0] if is_url(text) else text
    return path.lower().endswith(suffixes)


def _listed(entry: str, text: str) -> str:
    """Return the path or URL of an entry of a list."""
    path = plain(entry)
    if is_url(path):
        return path
    path = _utf8(Path(os.path.abspath(path)))  # noqa: PTH100
    if not _ends_in(path, PICTURE_SUFFIXES) and os.path.isdir(path):  # noqa: PTH112  (False where there is a NUL)
        raise ImageError(f"{text!r} lists the folder {entry!r}: expected images; name folders in the command")
    return path


def _utf8(path: Path) -> str:
    text = printable_path(path)
    if text != str(path):
        raise ImageError(f"{text!r} is a file name that is not UTF-8: rename it, or leave out --ray")
    return text


def _read_list(text: str) -> Iterator[str]:
    """Yield the paths in a list: the lines of a `.txt` file, or the column `path` of a `.parquet` file."""
    pa = require_arrow()
    system, path = file_system(text)
    try:
        with system.open_input_file(path) as file:
            if _ends_in(text, (".txt",)):
                lines = file.read().decode("utf-8-sig").split("\n")  # other line ends can be part of a name
                yield from (line.removesuffix("\r") for line in lines if line.strip())
                return
            import pyarrow.parquet as pq  # noqa: PLC0415  (an extra)

            table = pq.ParquetFile(file)
            index = table.schema_arrow.get_field_index("path")
            if index < 0 or not _is_text(pa, table.schema_arrow.field(index).type):
                raise ImageError(f"{text!r} has no column 'path' with texts: expected one with paths or URLs")
            entries = (entry for batch in table.iter_batches(columns=["path"]) for entry in batch["path"].to_pylist())
            for number, entry in enumerate(entries):
                if not entry:
                    raise ImageError(f"{text!r} has no path in row {number} (the first is 0): leave out such rows")
                yield entry
    except FileNotFoundError as error:
        raise ImageError(f"{text!r} does not exist: expected a list of paths") from error
    except (OSError, UnicodeDecodeError, pa.ArrowException) as error:
        raise ImageError(f"{text!r} cannot be read as a list of paths: {error}") from error


def _is_text(pa: Any, kind: Any) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)


def _below(url: str) -> Iterator[tuple[str, str]]:
    """Yield URL and name of a file, or of the images in a folder and below."""
    pa = require_arrow()
    from pyarrow import fs  # noqa: PLC0415  (an extra)

    system, path = file_system(url)
    base, mark, options = url.partition("?")
    try:
        (info,) = system.get_file_info([path])
        if info.type == fs.FileType.File:
            yield url, info.base_name
            return
        if info.type == fs.FileType.NotFound:
            raise ImageError(f"{url!r} does not exist: expected a file or a folder")
        for each in system.get_file_info(fs.FileSelector(path, recursive=True)):
            name = each.path[len(path) :].removeprefix("/")
            shown = each.type == fs.FileType.File and not any(part.startswith(".") for part in name.split("/"))
            if shown and each.path.lower().endswith(PICTURE_SUFFIXES + VIDEO_SUFFIXES):
                yield f"{base.rstrip('/')}/{quote(name, _IN_PATHS)}{mark}{options}", name
    except UnicodeDecodeError as error:
        raise ImageError(f"{url!r} has a file name that is not UTF-8: rename the file") from error
    except (OSError, pa.ArrowException) as error:
        raise ImageError(f"{url!r} cannot be read: {error}") from error


def read_pictures(paths: Sequence[str], pauses: Sequence[float] = _PAUSES) -> Any:
    """Read images: a `pyarrow.Table` of `path`, `bytes` and `error`, which says why there are no bytes.

    Args:
        paths: Paths and URLs.
        pauses: Seconds to wait before each new attempt, after an error that may pass.
    """
    pa = require_arrow()
    contents: list[bytes | None] = []
    errors: list[str | None] = []
    for path in paths:
        try:
            contents.append(_read_patiently(path, pauses))
            errors.append(None)
        except Exception as error:  # noqa: BLE001  (one image must not end the others)
            contents.append(None)
            reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
            errors.append(f"cannot open {path!r}: {escaped(reason)}")
    types = {"path": pa.string(), "bytes": pa.large_binary(), "error": pa.string()}
    return pa.table({"path": list(paths), "bytes": contents, "error": errors}, pa.schema(types))


def _read_patiently(path: str, pauses: Sequence[float]) -> bytes:
    for pause in pauses:
        try:
            return _read(path)
        except (OSError, ArgumentError) as error:
            if not _may_pass(error.__cause__ if isinstance(error, ArgumentError) else error):
                raise
        time.sleep(pause)
    return _read(path)


def _may_pass(error: BaseException | None) -> bool:
    """Return whether an error is one of a network or a busy store, and not of the file."""
    lasting = (FileNotFoundError, IsADirectoryError, NotADirectoryError, PermissionError)
    return (
        isinstance(error, OSError)
        and not isinstance(error, lasting)
        and error.errno not in _LASTING
        and not _REFUSED.search(str(error))
    )


def _read(path: str) -> bytes:
    path = plain(path)
    if not is_url(path):
        found = os.stat(path)  # noqa: PTH116
        if not stat.S_ISREG(found.st_mode):  # reading a pipe could block forever
            raise OSError(errno.EINVAL, "it is not a file")
        if found.st_size > _MOST_BYTES:
            raise OSError(errno.EFBIG, f"it has {found.st_size} bytes, more than {_MOST_BYTES}")
        return Path(path).read_bytes()
    system, inside = file_system(path)
    with system.open_input_file(inside) as file:
        content: bytes = file.read()
    return content
