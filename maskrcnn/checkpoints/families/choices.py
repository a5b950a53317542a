"""What a user says about a checkpoint, because the file does not."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from maskrcnn.checkpoints.families.recognize import Family
from maskrcnn.configuration.model import Config


@dataclass(frozen=True)
class Choices:
    """What a user says about a checkpoint.

    Attributes:
        config: A complete configuration of ours, or its file or sample; or, for a PyTorch checkpoint, a YAML of
            Detectron2 or a Python file of MMDetection.
        family: Whose PyTorch checkpoint it is; None: recognized.
        classes: Class names of a PyTorch checkpoint, see `class_names.chosen_names`.
        settings: "NAME=VALUE", as for `override`, which come last.
    """

    config: str | Path | Config | None = None
    family: Family | None = None
    classes: str | Sequence[str] | None = None
    settings: tuple[str, ...] = ()


NO_CHOICES = Choices()
