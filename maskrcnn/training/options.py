"""Options of a run that do not change what is learned."""

from collections.abc import Callable
from dataclasses import dataclass

import keras

from maskrcnn.callbacks import Say, say_nothing
from maskrcnn.configuration.require import require


@dataclass(frozen=True)
class TrainOptions:
    """How a run is monitored and saved; nothing here changes what is learned.

    Attributes:
        evaluate_every: Epochs between two COCO evaluations. With 0 there are none, and the best epoch is the one with
            the lowest validation loss if `config.training.validation_steps` asks for that loss.
        patience: Scored epochs without a better score after which the run ends; None never ends it.
        state_steps: Steps between two saves of the state; 0 saves it after epochs only.
        keep: Number of single-epoch checkpoints to keep besides the last and the best.
        tensorboard: Whether to write logs for TensorBoard.
        log_steps: Steps between two points of its curves.
        verbose: Output of `fit`: 0 silent, 1 a progress bar, 2 a line per epoch; "auto" chooses.
        progress: Called with a message before each part of the work.
        callbacks: Additional Keras callbacks. They see the logs of an epoch with its scores, and their own state is
            not saved for resuming.
        split: How the validation images were set apart from the training images, if they were. They and their objects
            are then written to the run folder, as a dataset, and a resumed run must have the same split.
        build_backbone: Makes the Keras backbone of a configuration with backbone "custom".

    Raises:
        ConfigError: A number is out of range.
    """

    evaluate_every: int = 1
    patience: int | None = None
    state_steps: int = 500
    keep: int = 0
    tensorboard: bool = True
    log_steps: int = 10
    verbose: int | str = "auto"
    progress: Say = say_nothing
    callbacks: tuple[keras.callbacks.Callback, ...] = ()
    split: str | None = None
    build_backbone: Callable[[], keras.Model] | None = None

    def __post_init__(self) -> None:
        least = {"evaluate_every": 0, "patience": 1, "state_steps": 0, "keep": 0, "log_steps": 1}
        for name, smallest in least.items():
            value = getattr(self, name)
            require(
                (name == "patience" and value is None) or value >= smallest,
                f"run.{name} is {value}: expected at least {smallest}",
            )
        require(self.verbose in (0, 1, 2, "auto"), f"run.verbose is {self.verbose!r}: expected 0, 1, 2 or 'auto'")
