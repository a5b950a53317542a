"""Detectron2's YAML configurations, as data."""

import ast
import math
import warnings
from pathlib import Path
from typing import Any

from maskrcnn.checkpoints.pytorch.config_data import Kind, Settings, plain, read_with_bases
from maskrcnn.configuration.yaml_text import parse_yaml
from maskrcnn.errors import ConfigError

_SECTIONS = ("MODEL", "INPUT", "TEST", "DATASETS")  # the others are about training
_HINT = "put it there, or give the complete config.yaml that Detectron2 writes into the folder of a training run"
_WORDS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False, "null": None, "~": None}
_LONGEST_VALUE = 2000  # letters of a text that is read as a Python value


def read_detectron2_config(path: str | Path) -> Settings:
    """Read a configuration of Detectron2 together with those that it builds on (`_BASE_`).

    Nothing in it is run: it is read as texts, lists and mappings, and a text that is a Python value, such as
    "(0.5, 1.0)", becomes that value, as Detectron2 reads it.

    Args:
        path: The .yaml file.

    Returns:
        The sections MODEL, INPUT, TEST and DATASETS as nested dictionaries; tuples are lists. What the files leave to
        Detectron2's defaults is missing.

    Raises:
        ConfigError: A file is missing, is not YAML, or has no such sections.
        MissingPackageError: PyYAML is not installed.
    """
    found = read_with_bases(Path(path), _KIND)
    sections = {name: value for name, value in found.items() if name in _SECTIONS and isinstance(value, dict)}
    if "MODEL" not in sections:
        raise ConfigError(f"the configuration {path} has no section MODEL; expected a .yaml of Detectron2")
    return sections


def _parse(text: str, where: str) -> Settings:
    try:
        content = parse_yaml(text, "reading a configuration of Detectron2")
    except ValueError as error:
        raise ConfigError(f"the configuration {where} cannot be read as YAML: {error}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"the configuration {where} has no settings; expected a .yaml of Detectron2")
    return {str(name): _values(value) for name, value in plain(content, f"the configuration {where}").items()}


def _values(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(name): _values(part) for name, part in value.items()}
    return [_values(part) for part in value] if isinstance(value, list) else _value(value)


def _value(text: str) -> Any:
    """Return what a text says in Python or YAML."""
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    if len(text) > _LONGEST_VALUE:
        return text
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what Python says of odd texts
            found = plain(ast.literal_eval(text.strip()), "a value")
    except (SyntaxError, ValueError, TypeError, MemoryError, RecursionError):  # a `ConfigError` is a ValueError
        return text
    return found if _is_plain(found) else text


def _is_plain(value: Any) -> bool:
    if isinstance(value, dict):
        return all(isinstance(key, str) and _is_plain(part) for key, part in value.items())
    if isinstance(value, list):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, str | int) or (isinstance(value, float) and math.isfinite(value))


_KIND = Kind("a .yaml of Detectron2", (".yaml", ".yml"), "_BASE_", _parse, _HINT)
