"""Reading JSON files of annotations, and typed values from their rows.

The `get` functions raise RowError if the value is missing or invalid.
"""

import json
import math
import reprlib
import unicodedata
from pathlib import Path
from typing import Any

from maskrcnn.data.readers.findings import RowError
from maskrcnn.errors import DatasetFormatError, DatasetNotFoundError

_SHOWN = 60  # characters of a value in a message


def read_json(path: Path) -> Any:
    """Return the content of a JSON file.

    Raises:
        DatasetNotFoundError: There is no such file.
        DatasetFormatError: It is not JSON in UTF-8.
    """
    if not path.is_file():
        raise DatasetNotFoundError(f"{path} does not exist or is not a file; expected a JSON file of annotations")
    try:
        return json.loads(path.read_bytes().decode("utf-8-sig"))
    except OSError as error:
        raise DatasetFormatError(f"{path} cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        reason = str(error) or type(error).__name__
        raise DatasetFormatError(f"{path} is empty, truncated or not JSON in UTF-8: {reason}") from error


def get(row: Any, key: str) -> Any:
    """Return the value of a key."""
    if not isinstance(row, dict):
        raise RowError("wrong-type", f"the row is {shown(row)}; expected an object")
    if key not in row:
        raise RowError("missing-key", f"it has no {key!r}")
    return row[key]


def get_id(row: Any, key: str) -> int | str:
    """Return an id: an integer or a string."""
    value = get(row, key)
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise RowError("wrong-type", f"{key} is {shown(value)}; expected an integer or a string")
    return value


def get_text(row: Any, key: str) -> str:
    """Return a non-empty string."""
    value = get(row, key)
    if not isinstance(value, str) or not value.strip():
        raise RowError("wrong-type", f"{key} is {shown(value)}; expected a non-empty string")
    return value


def get_name(row: Any, key: str) -> str:
    """Return a class name: a non-empty string without control characters, which would break terminals and tables."""
    value = get_text(row, key)
    if any(unicodedata.category(letter) in ("Cc", "Cs") for letter in value):
        raise RowError("control-character", f"{key} is {shown(value)}; expected a name without control characters")
    return value


def get_side(row: Any, key: str) -> int:
    """Return the side of an image in pixels, at least 1."""
    value = get(row, key)
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise RowError("wrong-type", f"{key} is {shown(value)}; expected an integer number of pixels, at least 1")
    return value


def get_numbers(row: Any, *keys: str) -> tuple[float, ...]:
    """Return the finite numbers of several keys."""
    return tuple(finite(get(row, key), key) for key in keys)


def finite(value: Any, name: str) -> float:
    """Return `value` as a float; raise RowError if it is not a finite number, with `name` in the message."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise RowError("wrong-type", f"{name} is {shown(value)}; expected a number")
    if (isinstance(value, int) and value.bit_length() > 1000) or not math.isfinite(value):
        raise RowError("not-finite", f"{name} is {shown(value)}; expected a finite number")
    return float(value)


def shown(value: Any) -> str:
    """Format a value for a message, shortened to a readable length."""
    if isinstance(value, int) and value.bit_length() > 1000:  # str() would be slow, or refused by Python
        return f"an integer of {value.bit_length()} bits"
    text = repr(value) if isinstance(value, str | bytes) and len(value) < _SHOWN else _BRIEF.repr(value)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."


class _Brief(reprlib.Repr):
    """A `repr` limited in length and depth: lists in files may have millions of values or be deeply nested."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel, self.maxlist, self.maxdict, self.maxstring, self.maxother = 3, 20, 6, _SHOWN, _SHOWN

    def repr_int(self, x: int, level: int) -> str:  # noqa: ARG002  (base class)
        """Format an integer of any length."""
        return shown(x) if x.bit_length() > 1000 else repr(x)


_BRIEF = _Brief()
