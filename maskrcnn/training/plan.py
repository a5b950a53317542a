"""Turn the arguments of the command line into a configuration and options."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maskrcnn.callbacks import Say
from maskrcnn.checkpoints.architecture import config_of
from maskrcnn.checkpoints.open_weights import Weights
from maskrcnn.configuration.dataclass_json import expected_name, from_dict
from maskrcnn.configuration.files import read_config
from maskrcnn.configuration.model import Config
from maskrcnn.configuration.overrides import choose_stages, override, split_setting
from maskrcnn.configuration.samples import SAMPLES, find_config
from maskrcnn.errors import ArgumentError, ConfigError

if TYPE_CHECKING:
    from maskrcnn.training.options import TrainOptions

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
) -> "tuple[Config, TrainOptions]":
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
        ConfigError: The configuration cannot be used.
        ArgumentError: There is none, or layers, epochs or a setting cannot be used.
    """
    from maskrcnn.training.options import TrainOptions  # noqa: PLC0415  (imports Keras)

    chosen, values = plan_config(config, init, resumed, layers, epochs, settings)
    try:
        options = from_dict(TrainOptions, values, "run")
    except ConfigError as error:
        raise ArgumentError(str(error)) from error
    return chosen, replace(options, progress=progress)


def plan_config(
    config: str | None,
    init: str | Weights | None,
    resumed: Path | None,
    layers: str | None,
    epochs: int | None,
    settings: Sequence[str],
) -> tuple[Config, dict[str, Any]]:
    """Do the part of `plan_run` that needs no Keras; return the configuration, and values of options by name."""
    found = _find(config, init, resumed)
    try:
        chosen = choose_stages(found, layers, epochs)
        chosen = override(chosen, [setting for setting in settings if not setting.startswith(_RUN_PREFIX)])
        values = dict(split_setting(setting) for setting in settings if setting.startswith(_RUN_PREFIX))
        _check_known(values)
    except ConfigError as error:
        raise ArgumentError(str(error)) from error
    return chosen, {name.removeprefix(_RUN_PREFIX): value for name, value in values.items()}


def _find(config: str | None, init: str | Weights | None, resumed: Path | None) -> Config:
    if isinstance(init, Weights):
        return init.config
    if config is not None:
        return find_config(config)
    what = "no configuration"
    if resumed is not None:
        from maskrcnn.training.run import RunFolder  # noqa: PLC0415  (imports Keras)

        folder = RunFolder(resumed)
        if folder.state.exists():
            return read_config(folder.config)
        what = f"{folder.state} does not exist, and no configuration"
    if init is not None and init.endswith(".h5"):
        return config_of(init)
    raise ArgumentError(f"{what}: give --config FILE.json or the name of a sample ({', '.join(SAMPLES)})")


def _check_known(names: Iterable[str]) -> None:
    known = [_RUN_PREFIX + name for name in _SETTABLE]
    for name in names:
        if name not in known:
            raise ConfigError(f"there is no setting {name}: {expected_name(name, known)}")
