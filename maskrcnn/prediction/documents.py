"""The document of a picture: a JSON file with its detections, whose presence means that the picture is done."""

import hashlib
import json
import os
import stat as modes
from pathlib import Path
from typing import Any

from maskrcnn.prediction.sources import Source
from runtime.atomic import atomic_write
from runtime.errors import ImageError
from runtime.json_file import read_json_file
from runtime.one_line import printable_path

# One detection as in `Detections.to_json`: `class_id`, `name`, `score`, `box` [x1, y1, x2, y2] and `mask` (RLE).
Row = dict[str, Any]
Stamp = dict[str, Any]

MOST_BYTES = 2**31 - 1  # of an image


def stamp(source: Source) -> Stamp:
    """Return what tells one state of a file from another: `path`, `bytes`, `mtime_ns`.

    Raises:
        ImageError: The file does not exist or is not accessible.
    """
    try:
        found = os.stat(source.path)  # noqa: PTH116
    except OSError as error:
        raise ImageError(f"cannot open {printable_path(source.path)!r}: {error.strerror}") from error
    return {"path": printable_path(source.path), "bytes": found.st_size, "mtime_ns": found.st_mtime_ns}


def content_digest(path: Path) -> str | None:
    """Return the SHA-256 of a file; None if it cannot be read, is no regular file or larger than an image may be."""
    try:
        found = os.stat(path)  # noqa: PTH116
        if not modes.S_ISREG(found.st_mode) or found.st_size > MOST_BYTES:
            return None
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None


def write_document(path: Path, source: Source, mark: Stamp, run: str, found: dict[str, Any]) -> None:
    """Write the document of a picture atomically.

    Args:
        path: The document; an existing one is replaced.
        source: The picture.
        mark: Stamp of the picture, taken before it was read.
        run: Digest of the settings.
        found: `content_sha256`, `image_size` [height, width], `device`, and `detections`, a list of rows.
    """
    document = {"picture": source.name, "source": mark, "run": run} | found
    with atomic_write(path, overwrite=True) as temporary:
        temporary.write_text(json.dumps(document, ensure_ascii=False) + "\n", encoding="utf-8")


def read_document(path: Path, mark: Stamp, run: str) -> dict[str, Any] | None:
    """Read a document; None if it is missing, damaged, or made from another state of the file or other settings."""
    try:
        document = read_json_file(path)
    except (OSError, ValueError):
        return None
    if not isinstance(document, dict) or document.get("source") != mark or document.get("run") != run:
        return None
    return document if "detections" in document and "image_size" in document else None
