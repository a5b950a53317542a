"""Settings of the command line over those of a configuration."""

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from maskrcnn.configuration.model import Config
from maskrcnn.configuration.training import StageConfig
from maskrcnn.errors import ConfigError


def override(config: Config, settings: Sequence[str]) -> Config:
    """Change single settings.

    Args:
        config: Stays as it is.
        settings: Each "a.b=value" with the path of a field, as in "training.stages.0.epochs=5"; the value is JSON, or
            text.

    Raises:
        ConfigError: Not of this form, an unknown field, or a value that the field refuses.
    """
    values = config.to_dict()
    for setting in settings:
        path, value = split_setting(setting)
        _put(values, path.split("."), value, setting)
    return Config.from_dict(values) if settings else config


def split_setting(setting: str) -> tuple[str, Any]:
    """Path and value of "a.b=value".

    Raises:
        ConfigError: There is no "=" in it.
    """
    path, equals, text = setting.partition("=")
    if not path or not equals:
        raise ConfigError(f"{setting!r} is no setting: expected NAME=VALUE, such as training.learning_rate=0.01")
    try:
        return path, json.loads(text)
    except (ValueError, RecursionError):
        return path, text


def choose_stages(config: Config, layers: str | None, epochs: int | None) -> Config:
    """Replace the stages of training by one, or set the length of the only one.

    Args:
        config: Stays as it is.
        layers: What learns; None leaves it.
        epochs: How long; None leaves it, and is one with `layers`.

    Raises:
        ConfigError: Only `epochs` is given, and there are several stages.
    """
    stages = config.training.stages
    if layers is not None:
        stages = (StageConfig(layers, epochs or 1),)
    elif epochs is not None and len(stages) == 1:
        stages = (replace(stages[0], epochs=epochs),)
    elif epochs is not None:
        raise ConfigError(
            f"the configuration has {len(stages)} stages: set the epochs of one with --set training.stages.0.epochs=N, "
            "or replace them all by giving --layers too"
        )
    return replace(config, training=replace(config.training, stages=stages))


def _put(values: Any, path: Sequence[str], value: Any, setting: str) -> None:
    for key in path[:-1]:
        values = _member(values, key, setting)
    if isinstance(values, list):
        values[_index(values, path[-1], setting)] = value
    elif isinstance(values, dict):
        values[path[-1]] = value  # an unknown name is refused with all others, when the configuration is built
    else:
        raise ConfigError(f"{setting!r}: {'.'.join(path[:-1])} is {values!r} and has no {path[-1]!r}")


def _member(values: Any, key: str, setting: str) -> Any:
    if isinstance(values, list):
        return values[_index(values, key, setting)]
    if not isinstance(values, dict) or key not in values:
        known = f": known are {', '.join(values)}" if isinstance(values, dict) else ""
        raise ConfigError(f"{setting!r}: there is no {key!r}{known}")
    return values[key]


def _index(values: Sequence[Any], key: str, setting: str) -> int:
    if not key.isdecimal() or int(key) >= len(values):
        raise ConfigError(f"{setting!r}: {key!r} is no place in a list of {len(values)}: they count from 0")
    return int(key)
