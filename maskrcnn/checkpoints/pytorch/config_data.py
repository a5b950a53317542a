"""What the configurations of Detectron2 and MMDetection share: files that build on others, as plain nested data."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from maskrcnn.configuration.files import read_config_text
from maskrcnn.errors import ConfigError

LARGEST_TEXT = 200_000  # bytes of a file; complete ones have 50 000
_MOST_FILES = 30
_MOST_VALUES, _DEEPEST = 20_000, 30

Settings = dict[str, Any]


@dataclass(frozen=True)
class Kind:
    """A kind of configuration files.

    Attributes:
        expected: What it is called in messages.
        suffixes: Those of its files.
        key: The setting that names the files that one builds on, relative to it.
        parse: Returns the settings in a text; its second argument names the file in messages.
        hint: What to do where one of the files is missing.
    """

    expected: str
    suffixes: tuple[str, ...]
    key: str
    parse: Callable[[str, str], Settings]
    hint: str


def read_with_bases(path: Path, kind: Kind, opened: list[Path] | None = None) -> Settings:
    """Read a configuration and those that it builds on, whose settings it changes; `opened` are those read so far.

    Raises:
        ConfigError: A file is missing or not of this kind, or there are too many.
    """
    opened = [] if opened is None else opened
    opened.append(path)
    if path.suffix.lower() not in kind.suffixes:
        raise ConfigError(f"the configuration {path} is not read: expected {kind.expected}")
    if len(opened) > _MOST_FILES:
        raise ConfigError(f"the configuration {opened[0]} builds on itself or on {_MOST_FILES} files: {kind.hint}")
    found = kind.parse(read_config_text(path, kind.expected, LARGEST_TEXT), str(path))
    bases = found.pop(kind.key, None)
    below: Settings = {}
    for base in bases if isinstance(bases, list) else [bases] if bases else []:
        below = merged(below, read_with_bases(_file(path, base, kind), kind, opened))
    return merged(below, found)


def _file(path: Path, base: object, kind: Kind) -> Path:
    """Return the file that another one builds on."""
    if not isinstance(base, str) or "://" in base or "::" in base:
        raise ConfigError(f"{path}: {kind.key} is {_shown(base)}; expected the path of {kind.expected}: {kind.hint}")
    file = path.parent / base
    try:
        if file.is_file():
            return file
    except OSError:  # its name is too long
        pass
    raise ConfigError(f"the configuration {path} builds on {file}, which is not there: {kind.hint}")


def merged(below: Settings, above: Settings) -> Settings:
    """Return settings changed by others: dictionaries entry by entry, unless `_delete_` says otherwise."""
    found = dict(below)
    for name, value in above.items():
        old = found.get(name)
        found[name] = value
        if isinstance(value, dict):
            kept = {key: part for key, part in value.items() if key != "_delete_"}
            found[name] = merged(old, kept) if isinstance(old, dict) and "_delete_" not in value else kept
    return found


def plain(value: Any, where: str) -> Any:
    """Return a copy of nested data, tuples as lists, in which nothing occurs twice.

    Raises:
        ConfigError: It is nested too deeply, or has too many values.
    """
    left = _MOST_VALUES

    def copy(part: Any, depth: int) -> Any:
        nonlocal left
        left -= 1
        if left < 0 or depth > _DEEPEST:
            raise ConfigError(
                f"{where} has more than {_MOST_VALUES} values or {_DEEPEST} levels; expected settings of a model"
            )
        if isinstance(part, dict):
            return {key: copy(inner, depth + 1) for key, inner in part.items()}
        return [copy(inner, depth + 1) for inner in part] if isinstance(part, list | tuple) else part

    return copy(value, 0)


def _shown(value: Any) -> str:
    return repr(value[:200]) if isinstance(value, str) else f"a {type(value).__name__}"
