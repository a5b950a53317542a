"""The one place where a checkpoint of any kind is opened: ours, matterport's, or one of a PyTorch family."""

from dataclasses import dataclass
from pathlib import Path

from maskrcnn.checkpoints.architecture import config_of, config_to_complete
from maskrcnn.checkpoints.download import fetch_pretrained
from maskrcnn.checkpoints.families.choices import NO_CHOICES, Choices
from maskrcnn.checkpoints.families.family_file import FamilyFile, read_family
from maskrcnn.checkpoints.matterport_h5 import read_shapes
from maskrcnn.checkpoints.pretrained import find_pretrained
from maskrcnn.checkpoints.pytorch.state_dict import is_state_file
from maskrcnn.configuration.model import Config
from maskrcnn.configuration.overrides import override_by_user
from maskrcnn.configuration.samples import find_config
from maskrcnn.errors import ArgumentError


@dataclass(frozen=True)
class Weights:
    """A checkpoint with its configuration.

    Attributes:
        path: The file.
        config: The configuration of the model.
        report: Sentences on what a PyTorch checkpoint is, and where its settings came from; none if it has a name.
        family: The PyTorch checkpoint, if it is one.
    """

    path: Path
    config: Config
    report: tuple[str, ...] = ()
    family: FamilyFile | None = None


def open_weights(path: str | Path, choices: Choices = NO_CHOICES) -> Weights:
    """Open a checkpoint of any kind and find its configuration, without TensorFlow.

    Args:
        path: The file, or the name of pretrained weights, such as "coco", which are fetched unless they are in the
            cache. A file of that name comes first.
        choices: What the file does not say.

    Raises:
        DownloadError: Pretrained weights cannot be fetched.
        CheckpointError: The file cannot be read, stores no configuration and none is chosen, or is for a network that
            is not supported.
        ConfigError: The configuration cannot be used.
        ArgumentError: A setting or the class names do not fit, or a choice is for another kind of file.
    """
    named = find_pretrained(path)
    if named is not None:
        path, choices = fetch_pretrained(named), named.with_choices(choices)
    path = Path(path)
    if is_state_file(path):
        file = read_family(path, choices)
        report = () if named is not None else tuple(file.report(choices.family is not None))
        return Weights(path, file.config, report, file)
    if choices.family is not None or choices.classes is not None:
        raise ArgumentError(f"{path} is no PyTorch checkpoint: --family and --classes are for those")
    config = choices.config
    if config is None:
        config = config_of(path)
    else:
        read_shapes(path)
        config = config if isinstance(config, Config) else find_config(config)
    return Weights(path, override_by_user(config, choices.settings))


def config_to_print(path: str | Path, choices: Choices) -> tuple[Config, tuple[str, ...], list[str]]:
    """Return a configuration for a checkpoint, where it came from, and what must be filled in.

    Raises:
        CheckpointError, ConfigError, ArgumentError: As `open_weights` and `config_to_complete`.
    """
    chosen = choices.config is not None or choices.family is not None or choices.classes is not None
    if chosen or find_pretrained(path) is not None or is_state_file(Path(path)):
        opened = open_weights(path, choices)
        return opened.config, opened.report, []
    found, missing = config_to_complete(path)
    return override_by_user(found, choices.settings), (), missing
