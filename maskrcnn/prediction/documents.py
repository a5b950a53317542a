"""What was found in a picture, as a file: the mark that the picture is done."""

import json
import os
from pathlib import Path
from typing import Any

from maskrcnn.prediction.sources import Source
from runtime.atomic import atomic_write
from runtime.errors import ImageError
from runtime.one_line import printable_path

# One detection: `class_id`, `name`, `score`, `box` [x1, y1, x2, y2] and `mask` (RLE), as `Detections.to_json` has it.
Row = dict[str, Any]
Stamp = dict[str, Any]


def stamp(source: Source) -> Stamp:
    """What tells one state of a file from another: `path`, `bytes`, `mtime_ns`.

    Raises:
        ImageError: There is no such file, or it may not be looked at.
    """
    try:
        found = os.stat(source.path)  # noqa: PTH116
    except OSError as error:
        raise ImageError(f"cannot open {printable_path(source.path)!r}: {error.strerror}") from error
    return {"path": printable_path(source.path), "bytes": found.st_size, "mtime_ns": found.st_mtime_ns}


def write_document(path: Path, source: Source, mark: Stamp, run: str, found: dict[str, Any]) -> None:
    """Write the document of a picture, whole or not at all.

    Args:
        path: Where.
        source: The picture.
        mark: Its stamp, taken before it was read.
        run: Digest of the settings.
        found: `image_size` [height, width], `device`, and `detections`, a list of rows.

    Raises:
        OutputError: It cannot be written.
    """
    document = {"picture": source.name, "source": mark, "run": run} | found
    with atomic_write(path, overwrite=True) as temporary:
        temporary.write_text(json.dumps(document, ensure_ascii=False) + "\n", encoding="utf-8")


def read_document(path: Path, mark: Stamp, run: str) -> dict[str, Any] | None:
    """Read a picture's document.

    Returns:
        None if there is none, or one of another state of the file or of other settings.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(document, dict) or document.get("source") != mark or document.get("run") != run:
        return None
    return document if "detections" in document and "image_size" in document else None
