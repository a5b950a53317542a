"""The images of a batch: folders, patterns, lists of paths, and URLs of the file systems that pyarrow knows."""

import errno
import hashlib
import os
import re
import stat
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from maskrcnn.errors import ArgumentError
from maskrcnn.prediction.rows import require_arrow
from maskrcnn.prediction.sources import VIDEO_SUFFIXES, find_sources
from runtime.errors import ImageError
from runtime.one_line import printable_path
from runtime.pictures.header import PICTURE_SUFFIXES

LIST_SUFFIXES = (".txt", ".parquet")
_MOST_BYTES = 2**31 - 1  # of an image
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")


def is_url(text: str) -> bool:
    """Return whether a text is the URL of a file or folder and not a path."""
    return _URL.match(text) is not None


def file_system(text: str) -> tuple[Any, str]:
    """Return the `pyarrow.fs.FileSystem` of a path or URL, and the path in it.

    Raises:
        ArgumentError: pyarrow does not know that kind of URL, or a library or credentials for it are missing.
    """
    require_arrow()
    from pyarrow import fs  # noqa: PLC0415  (an extra)

    if not is_url(text):
        return fs.LocalFileSystem(), os.path.abspath(text)  # noqa: PTH100  (links stay as they are given)
    try:
        system, path = fs.FileSystem.from_uri(text)
    except (ValueError, OSError, NotImplementedError) as error:
        raise ArgumentError(f"{text!r} cannot be used: {error}: expected a URL such as s3://bucket/folder") from error
    return system, path


def find_pictures(sources: Sequence[str], output: str) -> dict[str, str]:
    """Find the images of a batch.

    Args:
        sources: Files, folders, patterns and URLs, see docs/scaling.md; a `.txt` file lists paths or URLs, one per
            line, and a `.parquet` file in a column `path`.
        output: Folder or URL of the run; what is found in it is ignored.

    Returns:
        The name of each image in results, by its path or URL; sorted by path.

    Raises:
        ImageError: A path does not exist, a folder cannot be read, or there is nothing to predict.
        ArgumentError: An image is named twice, or one of them is a video.
    """
    names: dict[str, str] = {}
    taken: set[str] = set()
    for path, name in _found(sources, output):
        if path.lower().endswith(VIDEO_SUFFIXES):
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
    for text in sources:
        if text.lower().endswith(LIST_SUFFIXES):
            yield from ((_absolute(entry), entry) for entry in _read_list(text))
        elif is_url(text):
            yield from _below(text)
        else:
            local.append(text)
    if local:
        found, unreadable = find_sources(local, Path(output), once=True)
        if unreadable:
            raise ImageError(f"cannot read {unreadable[0].path!r}: {unreadable[0].message}")
        yield from ((_utf8(source.path), source.name) for source in found)


def _absolute(entry: str) -> str:
    return entry if is_url(entry) else _utf8(Path(os.path.abspath(entry)))  # noqa: PTH100


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
            if text.lower().endswith(".txt"):
                yield from filter(None, map(str.strip, file.read().decode().splitlines()))
                return
            import pyarrow.parquet as pq  # noqa: PLC0415  (an extra)

            for batch in pq.ParquetFile(file).iter_batches(columns=["path"]):
                if batch.num_columns != 1 or not pa.types.is_string(batch.schema.field(0).type):
                    raise ImageError(f"{text!r} has no column 'path' with texts: expected one with paths or URLs")
                yield from filter(None, batch["path"].to_pylist())
    except FileNotFoundError as error:
        raise ImageError(f"{text!r} does not exist: expected a list of paths") from error
    except (OSError, UnicodeDecodeError, pa.ArrowException) as error:
        raise ImageError(f"{text!r} cannot be read as a list of paths: {error}") from error


def _below(url: str) -> Iterator[tuple[str, str]]:
    """Yield URL and name of a file, or of the images in a folder and below."""
    from pyarrow import fs  # noqa: PLC0415  (an extra)

    system, path = file_system(url)
    try:
        (info,) = system.get_file_info([path])
        if info.type == fs.FileType.File:
            yield url, info.base_name
            return
        if info.type == fs.FileType.NotFound:
            raise ImageError(f"{url!r} does not exist: expected a file or a folder")
        for each in system.get_file_info(fs.FileSelector(path, recursive=True)):
            name = each.path[len(path) :].strip("/")
            shown = each.type == fs.FileType.File and not any(part.startswith(".") for part in name.split("/"))
            if shown and each.path.lower().endswith(PICTURE_SUFFIXES + VIDEO_SUFFIXES):
                yield f"{url.rstrip('/')}/{name}", name
    except OSError as error:
        if isinstance(error, ImageError):
            raise
        raise ImageError(f"{url!r} cannot be read: {error}") from error


def read_pictures(paths: Sequence[str]) -> Any:
    """Read images: a `pyarrow.Table` of `path`, `bytes` and `error`, which says why there are no bytes."""
    pa = require_arrow()
    contents: list[bytes | None] = []
    errors: list[str | None] = []
    for path in paths:
        try:
            contents.append(_read(path))
            errors.append(None)
        except OSError as error:
            contents.append(None)
            errors.append(f"cannot open {path!r}: {error.strerror or error}")
    types = {"path": pa.string(), "bytes": pa.large_binary(), "error": pa.string()}
    return pa.table({"path": list(paths), "bytes": contents, "error": errors}, pa.schema(types))


def _read(path: str) -> bytes:
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
