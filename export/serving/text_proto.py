"""Protocol buffers as text, the language of both servers' configurations."""

import json
from collections.abc import Iterator, Mapping
from typing import Any


class Word(str):
    """A name of an enumeration, which is written without quotes."""

    __slots__ = ()


def text_proto(message: Mapping[str, Any]) -> str:
    """Return a message as text: mappings are messages, lists of them repeated fields, other lists are short arrays."""
    return "".join(f"{line}\n" for line in _lines(message))


def _lines(message: Mapping[str, Any]) -> Iterator[str]:
    for name, value in message.items():
        if isinstance(value, Mapping):
            yield from _nested(name, value)
        elif isinstance(value, list) and any(isinstance(each, Mapping) for each in value):
            for each in value:
                yield from _nested(name, each)
        elif isinstance(value, list):
            yield f"{name}: [{', '.join(map(_scalar, value))}]"
        else:
            yield f"{name}: {_scalar(value)}"


def _nested(name: str, message: Mapping[str, Any]) -> Iterator[str]:
    yield f"{name} {{"
    yield from (f"  {line}" for line in _lines(message))
    yield "}"


def _scalar(value: str | bool | int) -> str:
    return str(value) if isinstance(value, Word) else json.dumps(value)
