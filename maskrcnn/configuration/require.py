"""Checks of settings: a condition, or an error that says it in a sentence."""

from typing import get_args

from maskrcnn.errors import ConfigError


def require(condition: bool, message: str) -> None:
    """Raise `message` unless `condition`.

    Raises:
        ConfigError: The condition does not hold.
    """
    if not condition:
        raise ConfigError(message)


def require_choice(name: str, value: object, choices: object) -> None:
    """Refuse a value that is not one of a `Literal`'s.

    Raises:
        ConfigError: Naming those it has.
    """
    known = get_args(choices)
    require(value in known, f"{name} is {value!r}: expected one of {', '.join(map(repr, known))}")
