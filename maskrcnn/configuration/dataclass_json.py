"""Frozen dataclasses to JSON values and back, with every type checked on the way in."""

import dataclasses
import difflib
import sys
import types
from collections.abc import Mapping
from reprlib import repr as brief
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from maskrcnn.errors import ConfigError
from runtime.errors import RuntimeLibraryError

T = TypeVar("T")


def to_dict(value: Any) -> Any:
    """Dataclasses become objects, tuples become lists, the rest stays."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_dict(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, tuple):
        return [to_dict(item) for item in value]
    return value


def from_dict(kind: type[T], values: Mapping[str, Any], where: str) -> T:
    """Build the dataclass `kind`; fields left out keep their defaults.

    Args:
        kind: A dataclass.
        values: JSON values by field name.
        where: Dotted path of `values`, for messages.

    Raises:
        ConfigError: An unknown field, a wrong type, or a value the class refuses.
    """
    if not isinstance(values, Mapping):
        raise ConfigError(f"{where} is {values!r}: expected an object")
    hints = get_type_hints(kind)
    names = [f.name for f in dataclasses.fields(kind)]  # type: ignore[arg-type]
    for key in values:
        if key not in names:
            near = difflib.get_close_matches(key, names, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(names)}"
            raise ConfigError(f"unknown setting {key!r} in {where}: {hint}")
    converted = {key: _convert(hints[key], value, f"{where}.{key}") for key, value in values.items()}
    try:
        return kind(**converted)
    except RuntimeLibraryError as error:
        raise ConfigError(f"{where}: {error}") from error
    except TypeError as error:
        raise ConfigError(f"{where} is incomplete: {error}") from error


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
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise ConfigError(f"{where} is {brief(value)}: expected a list")
        return tuple(_convert(get_args(hint)[0], item, f"{where}[{i}]") for i, item in enumerate(value))
    return _convert_scalar(hint, value, where)


def _convert_scalar(hint: Any, value: Any, where: str) -> Any:
    # No NaN and no infinity; of whole numbers none that a float cannot hold.
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max
    if hint is float and is_number:
        return float(value)
    if hint is int and is_number and value == int(value):
        return int(value)
    if hint in (str, bool) and isinstance(value, hint):
        return value
    raise ConfigError(f"{where} is {brief(value)}: expected {hint.__name__}")
