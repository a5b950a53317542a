"""Validation helpers for settings."""

from typing import get_args

from maskrcnn.errors import ConfigError


def require(condition: bool, message: str) -> None:
    """Raise ConfigError with `message` unless `condition` holds."""
    if not condition:
        raise ConfigError(message)


def require_choice(name: str, value: object, choices: object) -> None:
    """Raise ConfigError unless `value` is one of the values of the `Literal` type `choices`."""
    known = get_args(choices)
    require(value in known, f"{name} is {value!r}: expected one of {', '.join(map(repr, known))}")
