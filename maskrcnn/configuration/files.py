"""Reading configuration files in our format or with matterport's field names."""

import ast
from pathlib import Path

from maskrcnn.configuration.dataclass_json import parse_object
from maskrcnn.configuration.matterport import from_matterport, is_matterport
from maskrcnn.configuration.model import Config
from maskrcnn.errors import ConfigError
from runtime.json_file import LARGEST_JSON, read_file


def read_config(path: str | Path) -> Config:
    """Read a configuration file in our format or with matterport's field names (NAME, NUM_CLASSES, ...).

    Raises:
        ConfigError: The file does not exist, is not JSON, or contains a setting that cannot be used.
    """
    path = Path(path)
    text = read_config_text(path, "a JSON file")
    if path.suffix == ".py":
        raise ConfigError(_how_to_print(path, text))
    values = parse_object(text, f"the configuration {path}")
    return from_matterport(values) if is_matterport(values) else Config.from_dict(values)


def read_config_text(path: Path, expected: str, largest: int = LARGEST_JSON) -> str:
    """Return the text of a configuration file; `expected` names its kind.

    Raises:
        ConfigError: The file does not exist, is larger than `largest` bytes, or is not UTF-8 text.
    """
    if path.exists() and not path.is_file() and not path.is_dir():  # reading a pipe could block forever
        raise ConfigError(f"the configuration {path} is a pipe or a device; expected {expected}")
    try:
        return read_file(path, largest).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f"cannot read the configuration {path}: it is not UTF-8 text") from error
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"cannot read the configuration {path}: {getattr(error, 'strerror', None) or error}"
        ) from error


def _how_to_print(path: Path, text: str) -> str:
    """Return what to do with a Python file, which is never executed here: the three lines that print its class."""
    try:
        classes = [node for node in ast.parse(text).body if isinstance(node, ast.ClassDef)]
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        classes = []
    bases = [node.name for node in classes if any("Config" in ast.unparse(base) for base in node.bases)]
    name = bases[-1] if bases else "YourConfig"
    return (
        f"the configuration {path} is Python code, which is not executed here; print it as JSON where it runs, with "
        f"these three lines, and give that file: import json; from {path.stem} import {name}; print(json.dumps({{name: "
        f"getattr({name}(), name) for name in dir({name}) if name.isupper()}}, default=lambda value: value.tolist() if "
        f"hasattr(value, 'tolist') else None))"
    )
