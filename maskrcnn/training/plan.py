"""Turn the arguments of the command line into a configuration and options."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from maskrcnn.callbacks import Say
from maskrcnn.checkpoints.architecture import config_of
from maskrcnn.checkpoints.open_weights import Weights
from maskrcnn.configuration.dataclass_json import from_dict
from maskrcnn.configuration.files import read_config
from maskrcnn.configuration.model import Config
from maskrcnn.configuration.overrides import choose_stages, override, split_setting
from maskrcnn.configuration.samples import SAMPLES, find_config
from maskrcnn.errors import ArgumentError, ConfigError
from maskrcnn.training.options import TrainOptions
from maskrcnn.training.run import RunFolder

_RUN_PREFIX = "run."
_SETTABLE = ("evaluate_every", "patience", "state_steps", "keep", "tensorboard", "log_steps", "verbose")


def plan_run(
    config: str | None,
    init: str | Weights | None,
    resumed: Path | None,
    layers: str | None,
    epochs: int | None,
    settings: Sequence[str],
    progress: Say,
) -> tuple[Config, TrainOptions]:
    """Return the configuration and the options of a run.

    Args:
        config: Name of a sample, or a file.
        init: Weights to start from; without `config`, the configuration stored in such a checkpoint is used. That of
            an opened checkpoint has `config` in it.
        resumed: Folder of a run to resume; without `config`, its configuration is used.
        layers: Layers of the only training phase.
        epochs: Epochs of the only training phase.
        settings: "NAME=VALUE"; names that begin with "run." are fields of `TrainOptions`, others of the configuration.

    Raises:
        ConfigError: There is no configuration, or it cannot be used.
        ArgumentError: Layers, epochs or a setting cannot be used.
    """
    found = _find(config, init, resumed)
    try:
        chosen = choose_stages(found, layers, epochs)
        chosen = override(chosen, [setting for setting in settings if not setting.startswith(_RUN_PREFIX)])
        values = dict(split_setting(setting) for setting in settings if setting.startswith(_RUN_PREFIX))
        options = _options({name.removeprefix(_RUN_PREFIX): value for name, value in values.items()})
    except ConfigError as error:
        raise ArgumentError(str(error)) from error
    return chosen, replace(options, progress=progress)


def _find(config: str | None, init: str | Weights | None, resumed: Path | None) -> Config:
    if isinstance(init, Weights):
        return init.config
    if config is not None:
        return find_config(config)
    if resumed is not None and RunFolder(resumed).state.exists():
        return read_config(RunFolder(resumed).config)
    if init is not None and init.endswith(".h5"):
        return config_of(init)
    what = "no configuration" if resumed is None else f"{RunFolder(resumed).state} does not exist, and no configuration"
    raise ConfigError(f"{what}: give --config FILE.json or the name of a sample ({', '.join(SAMPLES)})")


def _options(values: dict[str, Any]) -> TrainOptions:
    for name in values:
        if name not in _SETTABLE:
            known = ", ".join(_RUN_PREFIX + each for each in _SETTABLE)
            raise ConfigError(f"there is no setting run.{name}: known are {known}")
    return from_dict(TrainOptions, values, "run")
