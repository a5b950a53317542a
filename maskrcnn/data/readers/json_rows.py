"""Reading JSON files of annotations, and typed values from their rows.

The `get` functions raise RowError if the value is missing or invalid.
"""

import math
import re
import reprlib
import unicodedata
from pathlib import Path
from typing import Any

from maskrcnn.data.readers.findings import Row, RowError
from maskrcnn.errors import DatasetFormatError, DatasetNotFoundError
from runtime.json_file import parse_json, read_file

_LARGEST = 2**32  # bytes; the largest public ones have one or two billion
_SHOWN = 60  # characters of a value in a message
UTF_8 = "utf-8"
_WHOLE = re.compile(r"-?(0|[1-9][0-9]{0,14})(\.0*)?")


def read_json(path: Path, encoding: str | None = None) -> tuple[Any, str]:
    """Return the content of a JSON file and the encoding of its text, as `read_text` does.

    Raises:
        DatasetNotFoundError: There is no such file.
        DatasetFormatError: It is not JSON, or not text in a known encoding.
    """
    text, found = read_text(path, encoding)
    try:
        return parse_json(text), found
    except ValueError as error:
        raise DatasetFormatError(f"{path} is empty, truncated or not JSON in UTF-8: {error}") from error


def read_text(path: Path, encoding: str | None = None) -> tuple[str, str]:
    """Return the text of a file, and its encoding.

    Text that is not UTF-8 is read in the given encoding. Without one, UTF-16 is known by its mark, and GB2312 because
    each of its characters has two bytes above 160, which accented letters in other encodings rarely have.

    Raises:
        DatasetNotFoundError: There is no such file.
        DatasetFormatError: It cannot be read, or its encoding is unknown.
    """
    if not path.is_file():
        raise DatasetNotFoundError(f"{path} does not exist or is not a file; expected a file of annotations")
    try:
        data = read_file(path, _LARGEST)
    except (OSError, ValueError) as error:
        raise DatasetFormatError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    try:
        return data.decode("utf-8-sig"), UTF_8
    except UnicodeDecodeError as error:
        reason = str(error)
    other = encoding or ("utf-16" if data.startswith((b"\xff\xfe", b"\xfe\xff")) else "gb2312")
    try:
        return data.decode(other), other
    except UnicodeError as error:
        hint = f" or {encoding} ({error})" if encoding else ": give its encoding with encoding= (--encoding)"
        raise DatasetFormatError(f"{path} is damaged, or not text in UTF-8{hint}: {reason}") from error


def note_encoding(encoding: str, notes: Row) -> None:
    """Note that a file is not UTF-8."""
    if encoding != UTF_8:
        notes.converted("encoding", f"the file is not UTF-8 and was read as {encoding}; --encoding gives another")


def whole(value: Any) -> int | None:
    """Return the whole number that a value from a file stands for: 7, 7.0, "7" or "7.0"; None if it is none."""
    if isinstance(value, int):
        return None if isinstance(value, bool) else value
    if isinstance(value, float):
        return int(value) if math.isfinite(value) and value == int(value) else None
    return int(float(value)) if isinstance(value, str) and _WHOLE.fullmatch(value.strip()) else None


def get(row: Any, key: str) -> Any:
    """Return the value of a key."""
    if not isinstance(row, dict):
        raise RowError("wrong-type", f"the row is {shown(row)}; expected an object")
    if key not in row:
        raise RowError("missing-key", f"it has no {key!r}")
    return row[key]


def get_id(row: Any, key: str, notes: Row) -> int | str:
    """Return an id: an integer or a string."""
    value = get(row, key)
    if isinstance(value, float) and (number := whole(value)) is not None:
        notes.converted("float-id", f"{key} is {shown(value)}, read as {shown(number)}")
        return number
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


def get_side(row: Any, key: str, notes: Row) -> int:
    """Return the side of an image in pixels, at least 1."""
    value = get(row, key)
    number = whole(value)
    if number is None or number < 1:
        raise RowError("wrong-type", f"{key} is {shown(value)}; expected an integer number of pixels, at least 1")
    if type(value) is not int:
        notes.converted("size-type", f"{key} is {shown(value)}, read as {number}")
    return number


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
