"""JSON files of annotations: reading them, and taking typed values out of their rows."""

import json
import math
import reprlib
import unicodedata
from pathlib import Path
from typing import Any

from maskrcnn.data.readers.findings import RowError
from maskrcnn.errors import DatasetFormatError, DatasetNotFoundError

_SHOWN = 60  # letters of a value in a message


def read_json(path: Path) -> Any:
    """The content of a JSON file.

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
        raise DatasetFormatError(f"{path} is empty, cut off or not JSON in UTF-8: {reason}") from error


def get(row: Any, key: str) -> Any:
    """The value of a key.

    Raises:
        RowError: The row is not an object, or lacks the key.
    """
    if not isinstance(row, dict):
        raise RowError("wrong-type", f"the row is {shown(row)}; expected an object")
    if key not in row:
        raise RowError("missing-key", f"it has no {key!r}")
    return row[key]


def get_id(row: Any, key: str) -> int | str:
    """An id: a whole number or a text.

    Raises:
        RowError: It is missing or neither.
    """
    value = get(row, key)
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise RowError("wrong-type", f"{key} is {shown(value)}; expected a whole number or a text")
    return value


def get_text(row: Any, key: str) -> str:
    """A text that is not empty.

    Raises:
        RowError: It is missing, empty, or of another type.
    """
    value = get(row, key)
    if not isinstance(value, str) or not value.strip():
        raise RowError("wrong-type", f"{key} is {shown(value)}; expected a text that is not empty")
    return value


def get_name(row: Any, key: str) -> str:
    """The name of a class: a text without control characters, which terminals obey and tables break at.

    Raises:
        RowError: It is missing, empty, or of another type, or has such a character.
    """
    value = get_text(row, key)
    if any(unicodedata.category(letter) in ("Cc", "Cs") for letter in value):
        raise RowError("control-character", f"{key} is {shown(value)}; expected a name without control characters")
    return value


def get_side(row: Any, key: str) -> int:
    """A side of a picture in pixels: a whole number from 1.

    Raises:
        RowError: It is missing or something else.
    """
    value = get(row, key)
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise RowError("wrong-type", f"{key} is {shown(value)}; expected a whole number of pixels, at least 1")
    return value


def get_numbers(row: Any, *keys: str) -> tuple[float, ...]:
    """Finite numbers under several keys.

    Raises:
        RowError: One is missing, not a number, or not finite.
    """
    return tuple(finite(get(row, key), key) for key in keys)


def finite(value: Any, name: str) -> float:
    """A finite number; `name` is for the message.

    Raises:
        RowError: It is something else.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise RowError("wrong-type", f"{name} is {shown(value)}; expected a number")
    if (isinstance(value, int) and value.bit_length() > 1000) or not math.isfinite(value):
        raise RowError("not-finite", f"{name} is {shown(value)}; expected a finite number")
    return float(value)


def shown(value: Any) -> str:
    """A value for a message, cut to a readable length."""
    if isinstance(value, int) and value.bit_length() > 1000:  # str() of it would be slow, or refused by Python
        return f"a whole number of {value.bit_length()} bits"
    text = repr(value) if isinstance(value, str | bytes) and len(value) < _SHOWN else _BRIEF.repr(value)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."


class _Brief(reprlib.Repr):
    """`repr` of the outermost part only: all of a file's lists may hold millions of values, or be nested too deep."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel, self.maxlist, self.maxdict, self.maxstring, self.maxother = 3, 20, 6, _SHOWN, _SHOWN

    def repr_int(self, x: int, level: int) -> str:  # noqa: ARG002  (of the base class)
        """A whole number, of any length."""
        return shown(x) if x.bit_length() > 1000 else repr(x)


_BRIEF = _Brief()
