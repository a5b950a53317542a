"""Command-line settings that override a configuration."""

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from maskrcnn.configuration.dataclass_json import expected_name, to_dict
from maskrcnn.configuration.model import Config
from maskrcnn.configuration.training import StageConfig
from maskrcnn.errors import ArgumentError, ConfigError


def override(config: Config, settings: Sequence[str]) -> Config:
    """Return a configuration with some settings changed.

    Each setting is "a.b=value" with the path of a field, as in "training.stages.0.epochs=5"; the value is JSON or text.

    Raises:
        ConfigError: A setting has another form, its field is unknown, or the value cannot be used.
    """
    return config_of(to_dict(config), settings) if settings else config


def config_of(values: dict[str, Any], settings: Sequence[str]) -> Config:
    """Return the configuration of nested values, changed in place by settings as for `override`.

    Raises:
        ConfigError: As `override`, or a value that no setting changes cannot be used.
    """
    for setting in settings:
        path, value = split_setting(setting)
        _put(values, path.split("."), value, setting)
    return Config.from_dict(values)


def override_by_user(config: Config, settings: Sequence[str]) -> Config:
    """Return a configuration changed by options of a command, where a wrong setting is wrong usage.

    Raises:
        ArgumentError: As `override`.
    """
    try:
        return override(config, settings)
    except ConfigError as error:
        raise ArgumentError(str(error)) from error


def split_setting(setting: str) -> tuple[str, Any]:
    """Split "a.b=value" into path and value.

    Raises:
        ConfigError: There is no "=".
    """
    path, equals, text = setting.partition("=")
    if not path or not equals:
        raise ConfigError(f"{setting!r} is not a setting: expected NAME=VALUE, such as training.learning_rate=0.01")
    try:
        return path, json.loads(text)
    except (ValueError, RecursionError):
        return path, text


def choose_stages(config: Config, layers: str | None, epochs: int | None) -> Config:
    """Replace all training phases with one that trains `layers`, or change the epochs of the only phase.

    `layers` without `epochs` trains for one epoch.

    Raises:
        ConfigError: Only `epochs` is given, and there are several phases.
    """
    stages = config.training.stages
    if layers is not None:
        stages = (StageConfig(layers, epochs or 1),)
    elif epochs is not None and len(stages) == 1:
        stages = (replace(stages[0], epochs=epochs),)
    elif epochs is not None:
        raise ConfigError(
            f"the configuration has {len(stages)} training phases: set the epochs of one with "
            "--set training.stages.0.epochs=N, or replace them all with --layers"
        )
    return replace(config, training=replace(config.training, stages=stages))


def _put(values: Any, path: Sequence[str], value: Any, setting: str) -> None:
    for key in path[:-1]:
        values = _member(values, key, setting)
    if isinstance(values, list):
        values[_index(values, path[-1], setting)] = value
    elif isinstance(values, dict):
        values[path[-1]] = value  # `Config.from_dict` refuses unknown names
    else:
        raise ConfigError(f"{setting!r}: {'.'.join(path[:-1])} is {values!r} and has no {path[-1]!r}")


def _member(values: Any, key: str, setting: str) -> Any:
    if isinstance(values, list):
        return values[_index(values, key, setting)]
    if not isinstance(values, dict) or key not in values:
        known = f": {expected_name(key, values)}" if isinstance(values, dict) else ""
        raise ConfigError(f"{setting!r}: there is no {key!r}{known}")
    return values[key]


def _index(values: Sequence[Any], key: str, setting: str) -> int:
    if not key.isdecimal() or int(key) >= len(values):
        raise ConfigError(f"{setting!r}: {key!r} is not an index into a list of {len(values)}: indices start at 0")
    return int(key)
