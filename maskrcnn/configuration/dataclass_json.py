"""Conversion of frozen dataclasses to JSON values and back, checking every type."""

import dataclasses
import difflib
import json
import sys
import types
from collections.abc import Iterable, Mapping, Sequence
from reprlib import repr as brief
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from maskrcnn.configuration.require import require
from maskrcnn.errors import ConfigError
from runtime.errors import RuntimeLibraryError

T = TypeVar("T")

_LEFT_OUT = "left out"  # marks the fields of `switch`


def switch(default: T) -> T:
    """Make a field that files leave out where it has its default.

    So files of configurations that do not use it stay as they were before the field existed.
    """
    if isinstance(default, dict):
        copy: Any = default.copy
        return dataclasses.field(default_factory=copy, hash=False, metadata={_LEFT_OUT: True})
    return dataclasses.field(default=default, metadata={_LEFT_OUT: True})


def to_dict(value: Any, complete: bool = True) -> Any:
    """Convert dataclasses to dicts and tuples to lists, recursively.

    Unless `complete`, fields made by `switch` are left out where they have their defaults.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {
            f.name: to_dict(getattr(value, f.name), complete)
            for f in dataclasses.fields(value)
            if complete or _LEFT_OUT not in f.metadata or getattr(value, f.name) != _default(f)
        }
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, tuple):
        return [to_dict(item, complete) for item in value]
    return value


def _default(field: dataclasses.Field[Any]) -> Any:
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


def from_dict(kind: type[T], values: Mapping[str, Any], where: str) -> T:
    """Build the dataclass `kind` from JSON values; missing fields keep their defaults.

    `where` is the dotted path of `values`, for messages.

    Raises:
        ConfigError: A field is unknown, has the wrong type, or the class refuses its value.
    """
    if not isinstance(values, Mapping):
        raise ConfigError(f"{where} is {values!r}: expected an object")
    hints = get_type_hints(kind)
    names = [f.name for f in dataclasses.fields(kind)]  # type: ignore[arg-type]
    for key in values:
        if key not in names:
            inside = [f"{name}{path}.{key}" for name, hint in hints.items() for path in _places(hint, key)]
            raise ConfigError(f"unknown setting {key!r} in {where}: {expected_name(key, names, inside)}")
    converted = {key: _convert(hints[key], value, f"{where}.{key}") for key, value in values.items()}
    try:
        return kind(**converted)
    except RuntimeLibraryError as error:
        raise ConfigError(f"{where}: {error}") from error
    except TypeError as error:
        raise ConfigError(f"{where} is incomplete: {error}") from error


def expected_name(name: str, known: Iterable[str], better: Sequence[str] = ()) -> str:
    """Return the end of a message about an unknown name: what was meant, else what there is, most similar first.

    `better` is what was meant, if that is known.
    """
    text, known = str(name), list(known)
    meant = better or difflib.get_close_matches(text, known, n=1)
    if meant:
        return f"did you mean {' or '.join(map(repr, meant))}?"
    near = sorted(known, key=lambda each: -difflib.SequenceMatcher(None, text, each).ratio())
    return f"expected one of {', '.join(near)}"


def _places(hint: Any, key: str) -> list[str]:
    """Return where a field of a setting's own settings is, from there on: "" or ".0", the first of a list."""
    if get_origin(hint) is tuple:
        return [f".0{path}" for path in _places(get_args(hint)[0], key)]
    return [""] if dataclasses.is_dataclass(hint) and key in [f.name for f in dataclasses.fields(hint)] else []


def parse_object(text: str, what: str) -> dict[str, Any]:
    """Parse the JSON object in `text`; `what` names it in messages.

    Raises:
        ConfigError: The text is not JSON, or not an object.
    """
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{what} is not JSON: {error}") from error
    require(isinstance(values, dict), f"{what} is not a JSON object: expected {{...}}")
    return dict(values)


def _convert(hint: Any, value: Any, where: str) -> Any:
    origin = get_origin(hint)
    if dataclasses.is_dataclass(hint):
        return from_dict(hint, value, where)  # type: ignore[arg-type]
    if origin in (Union, types.UnionType):
        options = get_args(hint)
        if value is None and type(None) in options:
            return None
        return _convert(next(option for option in options if option is not type(None)), value, where)
    if origin is Literal:
        if value not in get_args(hint):
            raise ConfigError(f"{where} is {brief(value)}: expected one of {', '.join(map(repr, get_args(hint)))}")
        return value
    if origin in (tuple, Mapping):
        return _convert_items(hint, value, where)
    return _convert_scalar(hint, value, where)


def _convert_items(hint: Any, value: Any, where: str) -> Any:
    """Convert the items of a list or of an object with any keys."""
    if get_origin(hint) is tuple:
        if not isinstance(value, list | tuple):
            raise ConfigError(f"{where} is {brief(value)}: expected a list")
        return tuple(_convert(get_args(hint)[0], item, f"{where}[{i}]") for i, item in enumerate(value))
    if not isinstance(value, Mapping):
        raise ConfigError(f"{where} is {brief(value)}: expected an object")
    return {key: _convert(get_args(hint)[1], item, f"{where}.{key}") for key, item in value.items()}


def _convert_scalar(hint: Any, value: Any, where: str) -> Any:
    # Rejects NaN, infinity, and integers too large for a float.
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max
    if hint is float and is_number:
        return float(value)
    if hint is int and is_number and value == int(value):
        return int(value)
    if hint in (str, bool) and isinstance(value, hint):
        return value
    raise ConfigError(f"{where} is {brief(value)}: expected {hint.__name__}")
