"""Configuration files, this project's or matterport's."""

import json
from pathlib import Path

from maskrcnn.configuration.matterport import from_matterport, is_matterport
from maskrcnn.configuration.model import Config
from maskrcnn.configuration.require import require
from maskrcnn.errors import ConfigError


def read_config(path: str | Path) -> Config:
    """Read a configuration file, ours or one with matterport's field names (NAME, NUM_CLASSES, ...).

    Raises:
        ConfigError: No such file, not JSON, or a setting that cannot be used.
    """
    path = Path(path)
    if path.exists() and not path.is_file() and not path.is_dir():  # a pipe would be waited for, without end
        raise ConfigError(f"the configuration {path} is a pipe or a device; expected a JSON file")
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise ConfigError(f"cannot read the configuration {path}: {reason}") from error
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"the configuration {path} is not JSON: {error}") from error
    require(isinstance(values, dict), f"the configuration {path} is not a JSON object: expected {{...}}")
    return from_matterport(values) if is_matterport(values) else Config.from_dict(values)
