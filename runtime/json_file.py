"""JSON files of which nobody knows what is in them."""

import json
import os
from pathlib import Path
from typing import Any

LARGEST_JSON = 2**28  # bytes of a file that we wrote ourselves, or a person


def read_file(path: Path, largest: int = LARGEST_JSON) -> bytes:
    """Return the bytes of a file.

    Raises:
        OSError: The file cannot be read.
        ValueError: It is larger than `largest` bytes, or than memory.
    """
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size > largest:
            raise ValueError(f"it has {size} bytes, and at most {largest} are read")
        try:
            return file.read()
        except MemoryError as error:
            raise ValueError(f"its {size} bytes do not fit in memory") from error


def read_json_file(path: Path, largest: int = LARGEST_JSON) -> Any:
    """Return the content of a JSON file in UTF-8.

    Raises:
        OSError: The file cannot be read.
        ValueError: It is larger than `largest` bytes, not JSON, or nested too deeply.
    """
    return parse_json(read_file(path, largest).decode("utf-8-sig"))


def parse_json(text: str | bytes) -> Any:
    """Parse JSON; raise ValueError if it is not, also where it is nested too deeply."""
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
